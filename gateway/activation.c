/* A door gets duplicates of what was handed over, so that each loop closes its own; the originals are closed
 * when all doors are open. The manager keeps the socket open over a restart of the node: who connects
 * meanwhile waits in its backlog and is not refused.
 *
 * Several loops that wait at one socket are all woken for a connection, and the first takes it: right, but
 * the kernel does not spread them evenly. ReusePort= with as many equal ListenStream= as loops does. */
#include "gateway/activation.h"

#include "gateway/acceptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

static const struct {
    const char *name, *key;
} doors[] = {
    {"mqtt", "mqtt.port"},      {"mqtts", "mqtt.tls_port"}, {"http", "http.port"},
    {"https", "http.tls_port"}, {"api", "api.port"},
};
enum { DOOR_COUNT = sizeof doors / sizeof doors[0] };

/* --- what is handed over ------------------------------------------------------------------------ */

/* Of the colon-separated list. */
static void read_name(const char *names, unsigned index, char out[8])
{
    for (unsigned i = 0; names && i < index; i++)
        names = strchr(names, ':') ? strchr(names, ':') + 1 : NULL;
    size_t len = names ? strcspn(names, ":") : 0;
    out[0] = '\0';
    for (size_t i = 0; i < DOOR_COUNT && names; i++)
        if (len == strlen(doors[i].name) && memcmp(names, doors[i].name, len) == 0)
            snprintf(out, 8, "%s", doors[i].name);
}

static enum status flawed(struct buf *error, unsigned index, const char *why)
{
    enum status st = buf_printf(error, "socket %u of LISTEN_FDS (file descriptor %u) %s", index + 1,
                                FIRST_FD + index, why);
    (void)st; /* a line that does not fit is cut: the status says the rest */
    return ST_INVALID;
}

static enum status take_one(struct activation *a, unsigned index, const char *names, struct buf *error)
{
    struct handed *h = &a->sockets[index];
    int fd = FIRST_FD + (int)index, type = 0, listens = 0, flags = fcntl(fd, F_GETFL);
    socklen_t len = sizeof type, listens_len = sizeof listens;
    if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) != 0 || type != SOCK_STREAM ||
        !listens)
        return flawed(error, index,
                      "is no stream socket that listens: ListenStream= with Accept=no is wanted");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return flawed(error, index, strerror(errno));
    h->fd = fd;
    read_name(names, index, h->door);
    a->count = index + 1;
    return ST_OK;
}

/* A number of sockets, and they are for this process. 0: none. -1: it is no number of them. */
static long count_handed(void)
{
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    char *end;
    if (!count || !pid || strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    long value = strtol(count, &end, 10);
    return end == count || *end != '\0' || value < 0 || value > ACTIVATION_SOCKETS_MAX ? -1 : value;
}

enum status activation_begin(struct activation *a, unsigned loop_count, struct buf *error)
{
    long count = count_handed();
    enum status st = ST_OK;
    *a = (struct activation){.loop_count = loop_count};
    if (count < 0) {
        st = buf_printf(error, "LISTEN_FDS must be a number from 0 to %d", ACTIVATION_SOCKETS_MAX);
        return ST_INVALID;
    }
    for (unsigned i = 0; i < (unsigned)count && st == ST_OK; i++)
        st = take_one(a, i, getenv("LISTEN_FDNAMES"), error);
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    return st;
}

/* --- addresses ---------------------------------------------------------------------------------- */

/* The address as a literal, and the port. False: it is no TCP over IP. */
static bool read_address(int fd, char text[INET6_ADDRSTRLEN], uint16_t *port)
{
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        return false;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&at;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&at;
    bool four = at.ss_family == AF_INET;
    if (!four && at.ss_family != AF_INET6)
        return false;
    *port = ntohs(four ? v4->sin_port : v6->sin6_port);
    return inet_ntop(at.ss_family, four ? (const void *)&v4->sin_addr : (const void *)&v6->sin6_addr, text,
                     INET6_ADDRSTRLEN) != NULL;
}

static bool same_address(const char *literal, const char *setting)
{
    uint8_t given[16], wanted[16];
    if (inet_pton(AF_INET, literal, given) == 1)
        return inet_pton(AF_INET, setting, wanted) == 1 && memcmp(given, wanted, 4) == 0;
    return inet_pton(AF_INET6, literal, given) == 1 && inet_pton(AF_INET6, setting, wanted) == 1 &&
           memcmp(given, wanted, 16) == 0;
}

/* --- doors -------------------------------------------------------------------------------------- */

static bool is_for(const struct handed *h, const char *door, uint16_t wanted)
{
    char text[INET6_ADDRSTRLEN];
    uint16_t port;
    if (h->door[0])
        return strcmp(h->door, door) == 0;
    return wanted != 0 && read_address(h->fd, text, &port) && port == wanted;
}

static enum status check(const struct handed *h, const char *what, const char *address, uint16_t *port,
                         const char *key, struct buf *error)
{
    char text[INET6_ADDRSTRLEN] = "no IP address";
    uint16_t given = 0;
    bool ip = read_address(h->fd, text, &given);
    if (ip && same_address(text, address) && (*port == 0 || *port == given)) {
        *port = given;
        return ST_OK;
    }
    enum status st =
        buf_printf(error,
                   "the socket that was handed over for %s is at %s:%u, and the configuration says %s:%u: "
                   "set %s and %.*s.bind "
                   "to what the socket unit has, for who may stay anonymous depends on the address",
                   what, text, given, address, *port, key, (int)strcspn(key, "."), key);
    (void)st;
    return ST_INVALID;
}

/* The loop's one of those of the door; *count gets their number. NULL: none. */
static struct handed *find(struct activation *a, const char *door, uint16_t wanted, unsigned loop,
                           unsigned *count)
{
    struct handed *found[ACTIVATION_SOCKETS_MAX];
    *count = 0;
    for (unsigned i = 0; i < a->count; i++)
        if (is_for(&a->sockets[i], door, wanted))
            found[(*count)++] = &a->sockets[i];
    return *count > 0 ? found[loop % *count] : NULL;
}

static const char *door_of(const char *key)
{
    for (size_t i = 0; i < DOOR_COUNT; i++)
        if (strcmp(doors[i].key, key) == 0)
            return doors[i].name;
    return "";
}

/* With several loops the listeners share the port by SO_REUSEPORT, which would also let a second process of
 * the same user in: a listener without it looks first. */
static enum status open_own(const struct activation *a, unsigned loop, const char *what, const char *address,
                            uint16_t *port, const char *key, int *fd, struct buf *error)
{
    bool share = a->loop_count > 1 && strcmp(key, "api.port") != 0;
    if (share && loop == 0) {
        int probe;
        enum status st = listen_open(what, address, port, false, key, &probe, error);
        if (st != ST_OK)
            return st;
        close(probe);
    }
    return listen_open(what, address, port, share, key, fd, error);
}

enum status activation_open(struct activation *a, unsigned loop, const char *what, const char *address,
                            uint16_t *port, const char *key, int *fd, struct buf *error)
{
    unsigned count, most = strcmp(key, "api.port") == 0 ? 1 : a->loop_count;
    struct handed *h = find(a, door_of(key), *port, loop, &count);
    if (!h)
        return open_own(a, loop, what, address, port, key, fd, error);
    if (count > most) {
        enum status st = buf_printf(
            error, "%u sockets were handed over for %s, which has %u loops to take them", count, what, most);
        (void)st;
        return ST_INVALID;
    }
    enum status st = check(h, what, address, port, key, error);
    if (st != ST_OK)
        return st;
    *fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
    if (*fd < 0)
        return ST_IO;
    h->taken = true;
    return ST_OK;
}

enum status activation_end(struct activation *a, struct buf *error)
{
    for (unsigned i = 0; i < a->count; i++)
        if (!a->sockets[i].taken)
            return flawed(
                error, i,
                "is for no port of this node: name it mqtt, mqtts, http, https or api "
                "(FileDescriptorName=), or give it a configured port; TLS ports need tls.cert_file");
    activation_close(a);
    return ST_OK;
}

void activation_close(struct activation *a)
{
    for (unsigned i = 0; i < a->count; i++)
        close(a->sockets[i].fd);
    a->count = 0;
}
