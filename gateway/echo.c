/* A TCP echo on the edge loop (test.echo_port): what the loop and the output queue cost by themselves,
 * without a protocol. Off by default. */
#include "gateway/acceptor.h"
#include "gateway/edge.h"
#include "gateway/outq.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ECHO_READ_BYTES = 16384, ECHO_QUEUE_BYTES = 262144 };

struct echo_door {
    struct edge *edge;
    struct acceptor *acceptor;
    struct list conns;
};

struct echo_conn {
    struct echo_door *door;
    struct loop_watch watch;
    struct outq out;
    struct list link;
};

static void echo_close(struct echo_conn *c)
{
    loop_watch_remove(c->door->edge->loop, &c->watch);
    close(c->watch.fd);
    outq_deinit(&c->out);
    list_unlink(&c->link);
    atomic_fetch_sub(&c->door->edge->facts->connections, 1);
    free(c);
}

static void echo_on_event(struct loop_watch *w, uint32_t events)
{
    struct echo_conn *c = LIST_OF(w, struct echo_conn, watch);
    uint8_t bytes[ECHO_READ_BYTES];
    size_t sent;
    if (events & EPOLLIN) {
        ssize_t n = recv(w->fd, bytes, sizeof bytes, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            echo_close(c);
            return;
        }
        if (n > 0 && outq_put(&c->out, slice_of(bytes, (size_t)n)) != ST_OK) {
            echo_close(c);
            return;
        }
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        echo_close(c);
        return;
    }
    struct stream stream = stream_plain(w->fd);
    enum status st = outq_flush(&c->out, &stream, &sent);
    if (st == ST_CLOSED) {
        echo_close(c);
        return;
    }
    /* Reading stops while much is unsent: the peer's own pressure. */
    uint32_t want = (c->out.bytes < ECHO_QUEUE_BYTES ? EPOLLIN : 0u) | (st == ST_AGAIN ? EPOLLOUT : 0u);
    if (want != w->events)
        loop_watch_set(c->door->edge->loop, w, want);
}

static void echo_on_socket(void *ctx, int fd)
{
    struct echo_door *d = ctx;
    struct echo_conn *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->door = d;
    c->watch = (struct loop_watch){.fd = fd, .on_event = echo_on_event};
    outq_init(&c->out, ECHO_QUEUE_BYTES);
    list_init(&c->link);
    if (loop_watch_add(d->edge->loop, &c->watch, EPOLLIN) != ST_OK) {
        close(fd);
        free(c);
        return;
    }
    atomic_fetch_add(&d->edge->facts->connections, 1);
    list_push(&d->conns, &c->link);
}

enum status echo_door_create(struct edge *edge, int listen_fd, struct echo_door **out)
{
    struct echo_door *d = calloc(1, sizeof *d);
    if (!d)
        return ST_NO_MEMORY;
    d->edge = edge;
    list_init(&d->conns);
    enum status st = acceptor_create(edge->loop, listen_fd, edge->metrics, echo_on_socket, d, &d->acceptor);
    if (st != ST_OK) {
        free(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

void echo_door_destroy(struct echo_door *d)
{
    if (!d)
        return;
    acceptor_destroy(d->acceptor);
    while (!list_empty(&d->conns))
        echo_close(LIST_OF(d->conns.next, struct echo_conn, link));
    free(d);
}
