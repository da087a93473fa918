/* A relay's life:
 *
 *   HEAD     reads until there is a blank line, at most HEAD_BYTES_MAX: nothing of libwebsockets is involved,
 * and the connection's own timer ends it ANSWER   libwebsockets has the head; what it answers is read only as
 * fast as the peer takes it (so its own idea of a writable socket, and the time-outs that hang on it, stay
 * true). The peer is not read: no request of this port has a body, and every answer ends the connection
 *   LINGER   the answer is out and our half is shut; waits for the peer's end, or a second: closing a socket
 * with unread input would reset it, and the end of the answer might be lost
 *
 * A loop has RELAY_PAIRS_MAX pairs at most (their descriptors are set aside when the node starts). One more,
 * and the oldest goes: a WebSocket needs its pair for a moment only, so that one is a page whose reader is
 * slow. */
#include "gateway/ws/relay.h"

#include "gateway/tls/identity.h"
#include "gateway/ws/host.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* libwebsockets itself takes heads of 4 KiB; more than that only has to be shown to it to be refused. */
enum { HEAD_BYTES_MAX = 8192, PIECE_BYTES = 16 * 1024, LINGER_MS = 1000 };

enum relay_state { RELAY_HEAD, RELAY_ANSWER, RELAY_LINGER };

struct relay {
    struct web_door *door;
    struct conn *conn; /* NULL: it has gone, and our timer counts */
    enum relay_state state;
    bool early; /* there were bytes behind the head */
    bool answered; /* libwebsockets has closed its side */
    struct stream io;
    struct loop_watch watch; /* of io */
    struct loop_watch inner; /* our end of the pair; fd -1: there is none */
    struct timer timer;
    struct buf head;
    struct outq out;
    struct list link; /* door->relays */
    struct list paired; /* door->paired, oldest first */
};

static void relay_on_event(struct loop_watch *w, uint32_t events);
static void relay_on_inner(struct loop_watch *w, uint32_t events);

static void relay_on_timer(struct timer *t)
{
    relay_drop(LIST_OF(t, struct relay, timer));
}

static void relay_arm(struct relay *r, uint64_t ms)
{
    struct loop *loop = r->door->loop;
    timer_arm(loop_timers(loop), &r->timer, loop_now_ms(loop) + ms);
}

/* --- life ----------------------------------------------------------------------------------------- */

enum status relay_open(struct conn *c, struct stream *io)
{
    struct relay *r = calloc(1, sizeof *r);
    if (!r) {
        stream_close(io);
        return ST_NO_MEMORY;
    }
    *r = (struct relay){.door = c->door, .conn = c, .io = *io};
    r->watch = (struct loop_watch){.fd = io->fd, .on_event = relay_on_event};
    r->inner = (struct loop_watch){.fd = -1, .on_event = relay_on_inner};
    buf_init(&r->head, HEAD_BYTES_MAX);
    outq_init(&r->out, PIECE_BYTES);
    timer_init(&r->timer, relay_on_timer);
    list_init(&r->paired);
    enum status st = loop_watch_add(c->door->loop, &r->watch, EPOLLIN);
    if (st != ST_OK) {
        stream_close(&r->io);
        free(r);
        return st;
    }
    list_push(&c->door->relays, &r->link);
    c->relay = r;
    struct principal *who = tls_identity(c->door->edge, &r->io);
    if (who)
        conn_become(c, who);
    return ST_OK;
}

static void relay_close_inner(struct relay *r)
{
    if (r->inner.fd < 0)
        return;
    loop_watch_remove(r->door->loop, &r->inner);
    close(r->inner.fd);
    r->inner.fd = -1;
    list_unlink(&r->paired);
    r->door->relay_pairs--;
}

/* The stream is the caller's, and so is what is queued. */
static void relay_free(struct relay *r)
{
    relay_close_inner(r);
    loop_watch_remove(r->door->loop, &r->watch);
    timer_cancel(loop_timers(r->door->loop), &r->timer);
    buf_deinit(&r->head);
    list_unlink(&r->link);
    free(r);
}

void relay_drop(struct relay *r)
{
    if (!r)
        return;
    struct stream io = r->io;
    if (r->conn)
        r->conn->relay = NULL;
    outq_deinit(&r->out);
    relay_free(r);
    stream_close(&io);
}

void relay_drop_all(struct web_door *d)
{
    while (!list_empty(&d->relays))
        relay_drop(LIST_OF(d->relays.next, struct relay, link));
}

/* The peer has gone: so has the connection. */
static void relay_lost(struct relay *r)
{
    struct conn *c = r->conn;
    relay_drop(r);
    if (c)
        conn_kill(c, END_NETWORK);
}

void relay_orphan(struct conn *c)
{
    struct relay *r = c->relay;
    c->relay = NULL;
    r->conn = NULL;
    if (r->inner.fd < 0)
        relay_drop(r); /* it has never got as far as an answer */
    else
        relay_arm(r, c->door->settings->ws_hello_timeout_ms);
}

/* --- the answer ----------------------------------------------------------------------------------- */

static void relay_rewatch(struct relay *r)
{
    bool waits = r->out.bytes > 0;
    loop_watch_set(r->door->loop, &r->watch, stream_events(&r->io, r->state == RELAY_LINGER, waits));
    if (r->inner.fd >= 0)
        loop_watch_set(r->door->loop, &r->inner, waits ? 0 : EPOLLIN);
}

static void relay_flush(struct relay *r)
{
    size_t sent;
    enum status st = outq_flush(&r->out, &r->io, &sent);
    if (st == ST_CLOSED) {
        relay_lost(r);
        return;
    }
    if (sent > 0 && !r->conn)
        relay_arm(r, r->door->settings->ws_hello_timeout_ms);
    if (st == ST_OK && r->answered && r->state == RELAY_ANSWER) {
        stream_shut(&r->io);
        r->state = RELAY_LINGER;
        relay_arm(r, LINGER_MS);
    }
    relay_rewatch(r);
}

/* Takes a piece of the answer. False: there is none now, or no more. */
static bool relay_take(struct relay *r)
{
    uint8_t bytes[PIECE_BYTES];
    ssize_t n = recv(r->inner.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n == 0)
        r->answered = true;
    if (n > 0 && outq_put(&r->out, slice_of(bytes, (size_t)n)) == ST_OK)
        return true;
    if (n > 0)
        r->answered = true; /* no memory for the rest of it */
    return false;
}

static void relay_on_inner(struct loop_watch *w, uint32_t events)
{
    struct relay *r = LIST_OF(w, struct relay, inner);
    if (!relay_take(r) && (events & (EPOLLHUP | EPOLLERR)))
        r->answered = true;
    if (r->answered)
        relay_close_inner(r);
    relay_flush(r);
}

bool relay_hand_over(struct conn *c)
{
    struct relay *r = c->relay;
    bool early = r->early;
    while (relay_take(r))
        ;
    c->broken |= r->answered; /* it has not heard all of the 101 */
    c->io = r->io;
    c->out.first = r->out.first;
    c->out.last = r->out.last;
    c->out.bytes = r->out.bytes;
    c->cut_bytes = c->out.bytes; /* the end of the 101: no frame, and nothing of it may be left out */
    c->relay = NULL;
    relay_free(r);
    return early;
}

/* --- the head ------------------------------------------------------------------------------------- */

static size_t head_length(struct slice text)
{
    const uint8_t *end = text.len ? memmem(text.data, text.len, "\r\n\r\n", 4) : NULL;
    return end ? (size_t)(end - text.data) + 4 : 0;
}

/* Makes the pair. *theirs: libwebsockets' end. */
static enum status relay_pair(struct relay *r, int *theirs)
{
    struct web_door *d = r->door;
    int ends[2];
    if (d->relay_pairs == RELAY_PAIRS_MAX) {
        metric_add(d->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
        relay_lost(LIST_OF(d->paired.next, struct relay, paired));
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return ST_IO;
    r->inner.fd = ends[0];
    if (loop_watch_add(d->loop, &r->inner, EPOLLIN) != ST_OK) {
        r->inner.fd = -1;
        close(ends[0]);
        close(ends[1]);
        return ST_IO;
    }
    list_push(&d->paired, &r->paired);
    d->relay_pairs++;
    *theirs = ends[1];
    return ST_OK;
}

/* Gives the head to libwebsockets. The connection may be gone after it. */
static enum status relay_begin(struct relay *r, size_t len)
{
    int theirs;
    enum status st = relay_pair(r, &theirs);
    if (st != ST_OK)
        return st;
    r->state = RELAY_ANSWER;
    r->early = len < r->head.len;
    ssize_t n =
        send(r->inner.fd, r->head.data, len, MSG_NOSIGNAL); /* the pair's buffer is empty, and larger */
    relay_rewatch(r);
    buf_deinit(&r->head);
    if (n != (ssize_t)len) {
        close(theirs);
        return ST_IO;
    }
    conn_adopt(r->conn, theirs);
    return ST_OK;
}

static void relay_read_head(struct relay *r)
{
    struct web_door *d = r->door;
    struct conn *c = r->conn;
    size_t n;
    enum status st = stream_read(&r->io, d->input, CONN_READ_BYTES, &n);
    if (st == ST_AGAIN)
        return;
    if (st != ST_OK) {
        conn_kill(c, END_NETWORK);
        return;
    }
    /* What does not fit is behind a head, or part of one that is too long. */
    size_t room = HEAD_BYTES_MAX - r->head.len, kept = n < room ? n : room;
    if (buf_put(&r->head, slice_of(d->input, kept)) != ST_OK) {
        conn_kill(c, END_LIMIT);
        return;
    }
    size_t len = head_length(buf_slice(&r->head));
    if (len == 0 && r->head.len < HEAD_BYTES_MAX)
        return;
    if (relay_begin(r, len ? len : r->head.len) != ST_OK)
        conn_kill(c, END_LIMIT);
}

static void relay_on_event(struct loop_watch *w, uint32_t events)
{
    struct relay *r = LIST_OF(w, struct relay, watch);
    size_t n;
    events = stream_ready(&r->io, events);
    if (r->state == RELAY_HEAD && (events & EPOLLIN))
        relay_read_head(r);
    else if (r->state == RELAY_LINGER && (events & EPOLLIN)) {
        if (stream_read(&r->io, r->door->input, CONN_READ_BYTES, &n) == ST_CLOSED)
            relay_lost(r);
    } else if (events & (EPOLLHUP | EPOLLERR))
        relay_lost(r);
    else if (r->state == RELAY_ANSWER)
        relay_flush(r);
}
