/* One request at a time: the next head is looked at when the answer before it is out, so answers are in the
 * order of requests, whoever does not read his answers is not read himself, and what a connection keeps is
 * bounded by one read.
 *
 *   READS --request--> answered --> READS, or LINGERS when it was the last: closing a socket with unread
 *     |                                    input would reset it, and the end of the answer might be lost
 *     +--handshake--> [WAITS] --> UPGRADES --> handed over (door.c, at the end of the turn)
 *     +--/sse, /poll--> OPENS --> handed over
 *
 * A pair is needed for the moment in which libwebsockets answers. A loop has FRONT_PAIRS_MAX (their
 * descriptors are set aside when the node starts); the next one waits for its turn. */
#include "gateway/ws/front.h"

#include "gateway/tls/identity.h"
#include "gateway/ws/host.h"
#include "gateway/ws/http.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 16 * 1024, /* of the 101 */
    FILE_PIECE_BYTES = 64 * 1024,
    HANDSHAKE_BYTES_MAX = 512,
    SKIP_BYTES_MAX = 64 * 1024, /* of a body; more, and the connection ends */
    LINGER_MS = 1000,
    REQUESTS_A_TURN = 64,
};

static void front_on_event(struct loop_watch *w, uint32_t events);
static void front_on_inner(struct loop_watch *w, uint32_t events);

static void front_arm(struct front *f, uint64_t ms)
{
    timer_arm(loop_timers(f->door->loop), &f->conn->timer, loop_now_ms(f->door->loop) + ms);
}

/* --- life --------------------------------------------------------------------------------------- */

static size_t front_input_bytes(const struct web_door *d)
{
    return (size_t)d->settings->limit_http_head_bytes + CONN_READ_BYTES;
}

enum status front_open(struct conn *c, struct stream *io)
{
    struct front *f = calloc(1, sizeof *f);
    if (!f) {
        stream_close(io);
        return ST_NO_MEMORY;
    }
    *f = (struct front){.door = c->door, .conn = c, .io = *io};
    f->watch = (struct loop_watch){.fd = io->fd, .on_event = front_on_event};
    f->inner = (struct loop_watch){.fd = -1, .on_event = front_on_inner};
    buf_init(&f->input, front_input_bytes(c->door));
    buf_init(&f->handshake, HANDSHAKE_BYTES_MAX);
    outq_init(&f->out, PIECE_BYTES);
    list_init(&f->paired);
    list_init(&f->turn);
    enum status st = loop_watch_add(c->door->loop, &f->watch, EPOLLIN);
    if (st != ST_OK) {
        stream_close(&f->io);
        free(f);
        return st;
    }
    c->front = f;
    struct principal *who = tls_identity(c->door->edge, &f->io);
    if (who)
        conn_become(c, who);
    return ST_OK;
}

static void front_close_inner(struct front *f)
{
    if (f->inner.fd < 0)
        return;
    loop_watch_remove(f->door->loop, &f->inner);
    close(f->inner.fd);
    f->inner.fd = -1;
    f->door->pair_count--;
}

/* The stream is the caller's, and so is what is queued. */
static void front_free(struct front *f)
{
    front_close_inner(f);
    loop_watch_remove(f->door->loop, &f->watch);
    buf_deinit(&f->input);
    buf_deinit(&f->handshake);
    list_unlink(&f->paired);
    list_unlink(&f->turn);
    free(f);
}

void front_drop(struct front *f)
{
    if (!f)
        return;
    struct stream io = f->io;
    f->conn->front = NULL;
    outq_deinit(&f->out);
    front_free(f);
    stream_close(&io);
}

/* --- sending ------------------------------------------------------------------------------------ */

static bool front_sends(const struct front *f)
{
    return f->out.bytes > 0 || f->file.len > 0;
}

static void front_rewatch(struct front *f)
{
    bool reads =
        (f->state == FRONT_READS && !front_sends(f) && list_empty(&f->turn)) || f->state == FRONT_LINGERS;
    loop_watch_set(f->door->loop, &f->watch, stream_events(&f->io, reads, front_sends(f)));
}

/* As much as the stream takes. False: the peer has gone, and so has the connection. */
static bool front_flush(struct front *f)
{
    enum status st;
    size_t sent = 0, all = 0;
    do {
        struct slice piece =
            f->file.len > FILE_PIECE_BYTES ? slice_of(f->file.data, FILE_PIECE_BYTES) : f->file;
        f->file = slice_from(f->file, piece.len);
        st = outq_put(&f->out, piece);
        if (st == ST_OK)
            st = outq_flush(&f->out, &f->io, &sent);
        all += st == ST_OK || st == ST_AGAIN ? sent : 0;
    } while (st == ST_OK && f->file.len > 0);
    if (st != ST_OK && st != ST_AGAIN) {
        conn_kill(f->conn, END_NETWORK);
        return false;
    }
    if (all > 0 && f->state == FRONT_READS)
        front_arm(f, f->door->settings->ws_hello_timeout_ms);
    if (f->state == FRONT_READS && f->last && !front_sends(f)) {
        stream_shut(&f->io);
        f->state = FRONT_LINGERS;
        front_arm(f, LINGER_MS);
    }
    return true;
}

void front_answer(struct front *f, struct slice text, struct slice file)
{
    assert(!front_sends(f));
    if (outq_put(&f->out, text) != ST_OK)
        f->last = true; /* no memory: it ends without the answer */
    else
        f->file = file;
}

/* --- upgrades ----------------------------------------------------------------------------------- */

static enum status front_pair(struct front *f, int *theirs)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return ST_IO;
    f->inner.fd = ends[0];
    if (loop_watch_add(f->door->loop, &f->inner, EPOLLIN) != ST_OK) {
        f->inner.fd = -1;
        close(ends[0]);
        close(ends[1]);
        return ST_IO;
    }
    f->door->pair_count++;
    *theirs = ends[1];
    return ST_OK;
}

/* Gives the handshake to libwebsockets. The connection may be gone after it. */
static void front_begin_upgrade(struct front *f)
{
    int theirs;
    struct slice text = buf_slice(&f->handshake);
    list_unlink(&f->paired);
    if (front_pair(f, &theirs) != ST_OK) {
        conn_kill(f->conn, END_LIMIT);
        return;
    }
    f->state = FRONT_UPGRADES;
    /* The pair's buffer is empty, and larger. */
    ssize_t n = send(f->inner.fd, text.data, text.len, MSG_NOSIGNAL);
    buf_deinit(&f->handshake);
    if (n == (ssize_t)text.len) {
        conn_adopt(f->conn, theirs);
        return;
    }
    close(theirs);
    conn_kill(f->conn, END_LIMIT);
}

void front_upgrade(struct front *f, const char *key, const char *protocol)
{
    enum status st =
        buf_printf(&f->handshake,
                   "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s%s%s\r\n",
                   f->conn->speaks_mqtt ? "/mqtt" : "/ws", key, protocol ? "Sec-WebSocket-Protocol: " : "",
                   protocol ? protocol : "", protocol ? "\r\n" : "");
    f->state = FRONT_WAITS;
    list_push(&f->door->unpaired, &f->paired);
    if (st != ST_OK)
        f->conn->broken = true; /* no memory; front_turn_end ends it */
}

void front_declined(struct conn *c)
{
    struct front *f = c->front;
    if (f->state != FRONT_UPGRADES || f->conn->broken)
        return;
    f->conn->broken = true; /* not inside a callback of libwebsockets */
    list_push(&f->door->unpaired, &f->paired);
}

/* Takes a piece of the 101. False: there is none now, or no more. */
static bool front_take(struct front *f)
{
    uint8_t bytes[PIECE_BYTES];
    ssize_t n = recv(f->inner.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0 && outq_put(&f->out, slice_of(bytes, (size_t)n)) == ST_OK)
        return true;
    if (n >= 0)
        f->conn->broken = true; /* it has not said all, or there is no memory for it */
    return false;
}

/* What it has said waits until the stream is handed over, at the end of this turn. */
static void front_on_inner(struct loop_watch *w, uint32_t events)
{
    struct front *f = LIST_OF(w, struct front, inner);
    (void)events;
    loop_watch_set(f->door->loop, &f->inner, 0);
}

bool front_hand_over(struct conn *c)
{
    struct front *f = c->front;
    bool early = f->early;
    while (f->inner.fd >= 0 && front_take(f))
        ;
    c->io = f->io;
    c->out.first = f->out.first;
    c->out.last = f->out.last;
    c->out.bytes = f->out.bytes;
    c->cut_bytes = c->out.bytes; /* the 101: no frame, and nothing of it may be left out */
    c->front = NULL;
    front_free(f);
    return early;
}

/* --- requests ----------------------------------------------------------------------------------- */

/* Bodies are thrown away when they are short; what has no end that is known ends the connection, and so does
 * one whose sender waits for leave. */
static void front_settle(struct front *f, const struct web_head *h)
{
    const struct web_door *d = f->door;
    bool body = h->body_bytes > 0 || h->chunked;
    bool read = !h->chunked && h->body_bytes <= SKIP_BYTES_MAX && !(body && web_head_has(h, WEB_EXPECT));
    f->last = !h->persists || !read || web_door_leaves(d);
    f->skip_bytes = f->last ? 0 : h->body_bytes;
}

/* The front of the input is a head, or the beginning of one. False: no more of it now. */
static bool front_request(struct front *f)
{
    struct web_head head;
    struct web_flaw flaw;
    struct conn *c = f->conn;
    enum status st =
        web_head_read(f->input.data, f->input.len, (size_t)f->door->settings->limit_http_head_bytes,
                      &f->scanned, &head, &flaw);
    if (st == ST_AGAIN)
        return false;
    f->request = st == ST_OK ? &head : NULL;
    if (st == ST_OK) {
        front_settle(f, &head);
        http_serve(c);
    } else {
        f->last = true;
        http_refuse(c, &flaw);
    }
    f->request = NULL;
    f->scanned = 0;
    buf_consume(&f->input, st == ST_OK ? head.bytes : f->input.len);
    f->early = f->input.len > 0;
    return true;
}

/* False: there is more of it to come. */
static bool front_skip(struct front *f)
{
    size_t n = f->skip_bytes < f->input.len ? (size_t)f->skip_bytes : f->input.len;
    buf_consume(&f->input, n);
    f->skip_bytes -= n;
    return f->skip_bytes == 0;
}

/* Answers what is there. The connection may be gone after it. */
static void front_serve(struct front *f)
{
    unsigned left = REQUESTS_A_TURN;
    if (!front_flush(f))
        return;
    while (f->state == FRONT_READS && !front_sends(f) && front_skip(f) && f->input.len > 0) {
        if (left-- == 0) {
            list_push(&f->door->fronts, &f->turn);
            break;
        }
        if (!front_request(f))
            break;
        if (f->state == FRONT_READS && !front_flush(f))
            return;
    }
    if (f->input.len == 0) { /* an idle connection keeps no memory for it */
        buf_deinit(&f->input);
        buf_init(&f->input, front_input_bytes(f->door));
    }
    front_rewatch(f);
}

static void front_read(struct front *f)
{
    struct web_door *d = f->door;
    size_t n;
    enum status st = stream_read(&f->io, d->input, CONN_READ_BYTES, &n);
    if (st == ST_AGAIN)
        return;
    if (st != ST_OK) {
        conn_kill(f->conn, END_NETWORK);
        return;
    }
    if (f->state == FRONT_LINGERS)
        return;
    /* It is read only while no whole head is here: so it fits. */
    if (buf_put(&f->input, slice_of(d->input, n)) == ST_OK)
        front_serve(f);
    else
        conn_kill(f->conn, END_LIMIT);
}

static void front_on_event(struct loop_watch *w, uint32_t events)
{
    struct front *f = LIST_OF(w, struct front, watch);
    events = stream_ready(&f->io, events);
    bool reads =
        (f->state == FRONT_READS && !front_sends(f) && list_empty(&f->turn)) || f->state == FRONT_LINGERS;
    if (reads && (events & EPOLLIN))
        front_read(f);
    else if (events & (EPOLLHUP | EPOLLERR))
        conn_kill(f->conn, END_NETWORK);
    else if (events & EPOLLOUT)
        front_serve(f);
}

/* --- the end of a turn --------------------------------------------------------------------------- */

bool front_turn_end(struct web_door *d)
{
    struct list now;
    while (!list_empty(&d->unpaired)) {
        struct front *f = LIST_OF(d->unpaired.next, struct front, paired);
        if (f->conn->broken)
            conn_kill(f->conn, END_LIMIT);
        else if (d->pair_count < FRONT_PAIRS_MAX)
            front_begin_upgrade(f);
        else
            break;
    }
    list_init(&now);
    list_splice(&now, &d->fronts);
    while (!list_empty(&now)) {
        struct front *f = LIST_OF(now.next, struct front, turn);
        list_unlink(&f->turn);
        front_serve(f);
    }
    return !list_empty(&d->fronts);
}
