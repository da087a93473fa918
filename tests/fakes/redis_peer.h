/* The other end of a link to Redis, in the same thread: a listener on loopback that says what the test tells
 * it to, and remembers what it has been sent. */
#ifndef TG_TESTS_FAKES_REDIS_PEER_H
#define TG_TESTS_FAKES_REDIS_PEER_H

#include "core/loop.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { PEER_BYTES = 1 << 16, PEER_WAIT_S = 60 };

struct redis_peer {
    int listener, fd; /* fd: the last that has come; -1: none */
    struct sockaddr_in at;
    char got[PEER_BYTES + 1];
    size_t len;
};

static inline void peer_open(struct redis_peer *p)
{
    socklen_t len = sizeof p->at;
    memset(p, 0, sizeof *p);
    p->fd = -1;
    p->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(p->listener, (struct sockaddr *)&p->at, len), 0);
    cr_assert_eq(listen(p->listener, 16), 0);
    cr_assert_eq(getsockname(p->listener, (struct sockaddr *)&p->at, &len), 0);
}

static inline void peer_hang_up(struct redis_peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    p->len = 0;
    p->got[0] = '\0';
}

static inline void peer_close(struct redis_peer *p)
{
    peer_hang_up(p);
    close(p->listener);
}

/* Takes who has come, and what has been sent. */
static inline void peer_turn(struct redis_peer *p)
{
    int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        peer_hang_up(p);
        p->fd = fd;
    }
    if (p->fd < 0 || p->len == PEER_BYTES)
        return;
    ssize_t n = recv(p->fd, p->got + p->len, PEER_BYTES - p->len, MSG_DONTWAIT);
    p->len += n > 0 ? (size_t)n : 0;
    p->got[p->len] = '\0';
}

static inline void peer_say_bytes(struct redis_peer *p, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(p->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            return; /* it has gone, or reads no more: that is what the test asks about */
        bytes += n;
        len -= (size_t)n;
    }
}

static inline void peer_say(struct redis_peer *p, const char *text)
{
    peer_say_bytes(p, text, strlen(text));
}

static inline void peer_forget(struct redis_peer *p)
{
    p->len = 0;
    p->got[0] = '\0';
}

/* Both turn until `condition` holds. */
#define PEER_UNTIL(p, loop, condition)                                                                       \
    do {                                                                                                     \
        uint64_t end_ms = clock_mono_ms(clock_system()) + PEER_WAIT_S * 1000;                                \
        for (;;) {                                                                                           \
            loop_dispatch(loop);                                                                             \
            (void)loop_prepare(loop);                                                                        \
            peer_turn(p);                                                                                    \
            if (condition)                                                                                   \
                break;                                                                                       \
            cr_assert_lt(clock_mono_ms(clock_system()), end_ms, "waited in vain for %s", #condition);        \
            struct pollfd wait = {.fd = loop_poll_fd(loop), .events = POLLIN};                               \
            (void)poll(&wait, 1, 1);                                                                         \
        }                                                                                                    \
    } while (0)

#endif
