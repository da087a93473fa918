/* Opening a listening socket, and saying who holds a port that is taken: an operator should not have to look
 * for lsof. */
#include "gateway/acceptor.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Inode of the socket that listens on that port, 0 if not found. Line of /proc/net/tcp:
 * "sl local_address:port remote st ... inode". State 0A is LISTEN. */
static unsigned long listening_inode(const char *table, uint16_t port)
{
    FILE *f = fopen(table, "re");
    if (!f)
        return 0;
    char line[512];
    unsigned long found = 0;
    while (!found && fgets(line, sizeof line, f)) {
        unsigned local_port, state;
        unsigned long inode;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu", &local_port,
                   &state, &inode) == 3 &&
            local_port == port && state == 0x0A)
            found = inode;
    }
    fclose(f);
    return found;
}

static bool process_holds(const char *pid, unsigned long inode)
{
    char path[300], want[64], target[64];
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    if (!fds)
        return false;
    bool holds = false;
    for (struct dirent *e; !holds && (e = readdir(fds));) {
        char link[560];
        snprintf(link, sizeof link, "%s/%s", path, e->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        if (n > 0) {
            target[n] = '\0';
            holds = strcmp(target, want) == 0;
        }
    }
    closedir(fds);
    return holds;
}

/* "mosquitto (pid 812)", or what can be said without the right to look. */
static void describe_holder(uint16_t port, char *out, size_t size)
{
    snprintf(out, size, "another process");
    unsigned long inode = listening_inode("/proc/net/tcp", port);
    if (!inode)
        inode = listening_inode("/proc/net/tcp6", port);
    DIR *proc = inode ? opendir("/proc") : NULL;
    if (!proc)
        return;
    for (struct dirent *e; (e = readdir(proc));) {
        if (!isdigit((unsigned char)e->d_name[0]) || !process_holds(e->d_name, inode))
            continue;
        char path[300], name[64] = "?";
        snprintf(path, sizeof path, "/proc/%s/comm", e->d_name);
        FILE *f = fopen(path, "re");
        if (f) {
            if (fgets(name, sizeof name, f))
                name[strcspn(name, "\n")] = '\0';
            fclose(f);
        }
        snprintf(out, size, "%s (pid %.16s)", name, e->d_name);
        break;
    }
    closedir(proc);
}

static bool parse_address(const char *address, uint16_t port, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *len = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *len = sizeof *v6;
        return true;
    }
    return false;
}

static enum status listen_failed(const char *what, const char *address, uint16_t port, const char *key,
                                 int err, struct buf *error)
{
    char why[128];
    if (err == EADDRINUSE)
        describe_holder(port, why, sizeof why);
    else
        snprintf(why, sizeof why, "%s", strerror(err));
    enum status st = buf_printf(
        error, "cannot listen on %s:%u for %s: %s%s. %s, or set %s (--set %s=...; 0 = any free port)",
        address, port, what, err == EADDRINUSE ? "in use by " : "", why,
        err == EADDRINUSE ? "Stop it" : "Choose another address or port", key, key);
    (void)st; /* a line that does not fit is cut: the status says the rest */
    return err == EADDRINUSE ? ST_EXISTS : err == EACCES ? ST_FORBIDDEN : ST_IO;
}

enum status listen_open(const char *what, const char *address, uint16_t *port, bool share, const char *key,
                        int *fd, struct buf *error)
{
    struct sockaddr_storage addr;
    socklen_t len;
    const int on = 1;
    if (!parse_address(address, *port, &addr, &len)) {
        enum status st = buf_printf(error, "\"%s\" is not an IPv4 or IPv6 address (for %s)", address, what);
        (void)st;
        return ST_INVALID;
    }
    int s = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0)
        return listen_failed(what, address, *port, key, errno, error);
    if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (share && setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) ||
        bind(s, (const struct sockaddr *)&addr, len) != 0 || listen(s, 4096) != 0 ||
        getsockname(s, (struct sockaddr *)&addr, &len) != 0) {
        int err = errno;
        close(s);
        return listen_failed(what, address, *port, key, err, error);
    }
    *port = ntohs(addr.ss_family == AF_INET ? ((struct sockaddr_in *)&addr)->sin_port
                                            : ((struct sockaddr_in6 *)&addr)->sin6_port);
    *fd = s;
    return ST_OK;
}
