#include "gateway/notify.h"

#include "core/clock.h"
#include "core/logging.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { SEND_MS_MAX = 500 }; /* a manager that does not read must not hold signals up */

/* $WATCHDOG_PID is there when the variables may have been inherited: then they are another process's. */
static uint64_t read_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(usec, &end, 10);
    if (errno == 0 && *end == '\0' && end != usec && value >= 1000)
        return value / 1000;
    log_warn("WATCHDOG_USEC is no number of microseconds: the watchdog is not served value=%.32s", usec);
    return 0;
}

void notifier_open(struct notifier *n)
{
    const char *path = getenv("NOTIFY_SOCKET");
    *n = (struct notifier){.fd = -1};
    if (!path || !*path)
        return;
    size_t len = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof n->address.sun_path) {
        log_warn("NOTIFY_SOCKET is neither a path nor an abstract name: the service manager is not told");
        return;
    }
    n->address.sun_family = AF_UNIX;
    memcpy(n->address.sun_path, path, len + 1);
    if (path[0] == '@')
        n->address.sun_path[0] = '\0'; /* an abstract name has no NUL at its end (unix(7)) */
    n->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (n->fd < 0) {
        log_warn("cannot speak to the service manager error=\"%s\"", strerror(errno));
        return;
    }
    const struct timeval most = {.tv_usec = SEND_MS_MAX * 1000};
    if (setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most) != 0)
        log_warn("the service manager may hold the node up error=\"%s\"", strerror(errno));
    n->watchdog_ms = read_watchdog_ms();
}

void notifier_close(struct notifier *n)
{
    if (n->fd >= 0)
        close(n->fd);
    *n = (struct notifier){.fd = -1};
}

static void say(const struct notifier *n, const char *text)
{
    static struct log_limit limit = {.every_ms = 60000};
    uint64_t held;
    if (n->fd < 0)
        return;
    ssize_t sent =
        sendto(n->fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&n->address, n->address_len);
    if (sent < 0 && log_permitted(&limit, &held))
        log_warn("the service manager does not listen error=\"%s\" repeated=%lu", strerror(errno),
                 (unsigned long)held);
}

void notifier_ready(const struct notifier *n)
{
    say(n, "READY=1\nSTATUS=serving\n");
}

/* The moment lets systemd (Type=notify-reload) tell this reload from one before. */
void notifier_reloading(const struct notifier *n)
{
    char text[96];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lu\nSTATUS=reading the configuration again\n",
             (unsigned long)(clock_mono_ns(clock_system()) / 1000));
    say(n, text);
}

void notifier_stopping(const struct notifier *n)
{
    say(n, "STOPPING=1\nSTATUS=draining\n");
}

void notifier_alive(const struct notifier *n)
{
    say(n, "WATCHDOG=1\n");
}
