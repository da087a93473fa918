#include "gateway/acceptor.h"

#include "core/logging.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_A_TURN = 64, REST_MS = 100 };

struct acceptor {
    struct loop *loop;
    struct loop_watch watch;
    struct timer rest;
    struct metrics *metrics;
    bool watching, paused;
    acceptor_on_socket *on_socket;
    void *ctx;
};

static void acceptor_rest_over(struct timer *t)
{
    struct acceptor *a = LIST_OF(t, struct acceptor, rest);
    a->watching = loop_watch_add(a->loop, &a->watch, EPOLLIN) == ST_OK;
    if (!a->watching) /* for the same want of memory, perhaps */
        timer_arm(loop_timers(a->loop), t, loop_now_ms(a->loop) + REST_MS);
}

/* Out of descriptors or memory: a level-triggered listener would spin. */
static void acceptor_rest(struct acceptor *a, int err)
{
    static struct log_limit limit = {.every_ms = 5000};
    uint64_t held;
    metric_add(a->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
    if (log_permitted(&limit, &held))
        log_warn("cannot accept a connection: %s; raise the descriptor limit (ulimit -n) or lower "
                 "limit.connections repeated=%lu",
                 strerror(err), (unsigned long)held);
    loop_watch_remove(a->loop, &a->watch);
    a->watching = false;
    timer_arm(loop_timers(a->loop), &a->rest, loop_now_ms(a->loop) + REST_MS);
}

static void acceptor_on_event(struct loop_watch *w, uint32_t events)
{
    struct acceptor *a = LIST_OF(w, struct acceptor, watch);
    (void)events;
    for (int n = 0; n < ACCEPTS_A_TURN && !a->paused; n++) {
        const int on = 1;
        int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                acceptor_rest(a, errno);
            return; /* EAGAIN: no more; others concern one connection that has gone again */
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        a->on_socket(a->ctx, fd);
    }
}

enum status acceptor_create(struct loop *loop, int listen_fd, struct metrics *metrics,
                            acceptor_on_socket *on_socket, void *ctx, struct acceptor **out)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return ST_NO_MEMORY;
    a->loop = loop;
    a->metrics = metrics;
    a->on_socket = on_socket;
    a->ctx = ctx;
    a->watch = (struct loop_watch){.fd = listen_fd, .on_event = acceptor_on_event};
    timer_init(&a->rest, acceptor_rest_over);
    enum status st = loop_watch_add(loop, &a->watch, EPOLLIN);
    if (st != ST_OK) {
        free(a);
        return st;
    }
    a->watching = true;
    *out = a;
    return ST_OK;
}

void acceptor_pause(struct acceptor *a)
{
    a->paused = true;
    timer_cancel(loop_timers(a->loop), &a->rest);
    if (a->watching)
        loop_watch_remove(a->loop, &a->watch);
    a->watching = false;
}

void acceptor_destroy(struct acceptor *a)
{
    if (!a)
        return;
    acceptor_pause(a);
    close(a->watch.fd);
    free(a);
}
