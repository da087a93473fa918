/* Messages to the service manager, by the protocol of sd_notify(3): a datagram of lines to the socket that
 * $NOTIFY_SOCKET names. Without one everything here does nothing. Main thread. */
#ifndef TG_GATEWAY_NOTIFY_H
#define TG_GATEWAY_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notifier {
    int fd; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_len;
    uint64_t watchdog_ms; /* so often at least it wants to hear WATCHDOG=1; 0: never */
};

/* Reads $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID. What is wrong with them is logged, and the node
 * runs on without. */
void notifier_open(struct notifier *n);
void notifier_close(struct notifier *n);

void notifier_ready(const struct notifier *n);
/* What is read again is live when `ready` is told again. */
void notifier_reloading(const struct notifier *n);
void notifier_stopping(const struct notifier *n);
void notifier_alive(const struct notifier *n);

#endif
