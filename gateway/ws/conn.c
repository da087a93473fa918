/* The socket side of a connection.
 *
 * libwebsockets does accept, HTTP and the 101; then it is told to stop reading (lws_rx_flow_control) and the
 * descriptor is watched by our own loop. It keeps owning the descriptor, and from there on neither reads nor
 * writes it, so what goes out is only ever what this file sends, in whole frames, in order (ADR 2 says why
 * and what it costs).
 *
 * Output: everything is queued; door.c calls conn_turn_end for each connection that has something, once a
 * turn: one send. Input: one recv a turn into the loop's buffer; a message that came whole is handled in
 * place. Reading pauses while too many publishes or reads are open or the queue is full; what is in hand then
 * is kept (`message`: lines, `unread`: frames), at most one read of the one and one message of the other.
 *
 * A connection dies in one of three ways: conn_kill (ours, now), conn_close (ours, politely: bye, close
 * frame, the peer's close frame or CONN_CLOSE_WAIT_MS), conn_lost (libwebsockets'). */
#include "gateway/ws/conn.h"

#include "core/utf8.h"
#include "gateway/ws/host.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FLUSH_PIECES = 16 };

static void conn_on_event(struct loop_watch *w, uint32_t events);
static void conn_on_timer(struct timer *t);
static void conn_resume(struct conn *c);

static uint64_t now_of(const struct conn *c)
{
    return loop_now_ms(c->door->loop);
}

bool conn_is_open(const struct conn *c)
{
    return c->state == CONN_OPEN;
}

/* --- life --------------------------------------------------------------------------------------- */

struct conn *conn_create(struct web_door *d)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->door = d;
    c->refs = 1;
    list_init(&c->turn);
    list_init(&c->subscribing);
    list_push(&d->conns, &c->link);
    c->watch = (struct loop_watch){.fd = -1, .on_event = conn_on_event};
    outq_init(&c->out, (uint32_t)d->settings->out_bytes_max);
    timer_init(&c->timer, conn_on_timer);
    timer_arm(loop_timers(d->loop), &c->timer, now_of(c) + d->settings->ws_hello_timeout_ms);
    atomic_fetch_add(&d->edge->facts->connections, 1);
    metric_add(d->metrics, M_CONNECTIONS_HTTP, 1);
    return c;
}

void conn_ref(struct conn *c)
{
    c->refs++;
}

void conn_unref(struct conn *c)
{
    assert(c->refs > 0);
    if (--c->refs > 0)
        return;
    assert(c->state == CONN_DEAD);
    list_unlink(&c->link);
    free(c);
}

static void conn_count_end(struct conn *c, enum conn_end why)
{
    static const enum metric counters[] = {
        [END_CLIENT] = M_DISCONNECT_CLIENT,   [END_PROTOCOL] = M_DISCONNECT_PROTOCOL,
        [END_TIMEOUT] = M_DISCONNECT_TIMEOUT, [END_LIMIT] = M_DISCONNECT_LIMIT,
        [END_SERVER] = M_DISCONNECT_SERVER,   [END_NETWORK] = M_DISCONNECT_NETWORK,
    };
    struct metrics *m = c->door->metrics;
    bool upgraded = c->state == CONN_OPEN || c->state == CONN_CLOSING;
    if (upgraded)
        metric_add(m, counters[why], 1);
    metric_sub(m, upgraded ? M_CONNECTIONS_WS : M_CONNECTIONS_HTTP, 1);
    metric_sub(m, M_OUT_QUEUE_BYTES, c->waiting_bytes);
    atomic_fetch_sub(&c->door->edge->facts->connections, 1);
}

/* Everything but the descriptor, which is libwebsockets' to close. */
static void conn_bury(struct conn *c, enum conn_end why)
{
    assert(c->state != CONN_DEAD);
    conn_count_end(c, c->state == CONN_CLOSING ? c->end : why);
    c->state = CONN_DEAD;
    serve_end(c);
    if (c->watched)
        loop_watch_remove(c->door->loop, &c->watch);
    c->watched = false;
    timer_cancel(loop_timers(c->door->loop), &c->timer);
    outq_deinit(&c->out);
    buf_deinit(&c->message);
    buf_deinit(&c->unread);
    list_unlink(&c->turn);
    list_unlink(&c->link);
    list_push(&c->door->buried, &c->link);
}

/* What a reader has not taken by now would stay in the kernel for a quarter of an hour. */
static void conn_forget_unsent(const struct conn *c)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (c->watched && c->out.bytes > 0)
        (void)setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void conn_kill(struct conn *c, enum conn_end why)
{
    struct lws *wsi = c->wsi;
    conn_forget_unsent(c);
    conn_bury(c, why);
    c->wsi = NULL;
    if (wsi)
        host_drop(wsi);
    conn_unref(c);
}

void conn_lost(struct conn *c)
{
    c->wsi = NULL;
    if (c->state == CONN_DEAD)
        return;
    conn_bury(c, END_NETWORK);
    conn_unref(c);
}

enum status conn_take_over(struct conn *c, int fd)
{
    struct web_door *d = c->door;
    assert(c->state == CONN_FRESH);
    enum status st = serve_begin(c);
    if (st != ST_OK)
        return st;
    c->watch.fd = fd;
    if ((st = loop_watch_add(d->loop, &c->watch, EPOLLIN)) != ST_OK)
        return st;
    c->watched = true;
    c->state = CONN_OPEN;
    c->last_in_ms = c->last_out_ms = now_of(c);
    ws_reader_init(&c->reader, d->message_bytes_max);
    timer_arm(loop_timers(d->loop), &c->timer, now_of(c) + d->settings->ws_ping_ms);
    metric_sub(d->metrics, M_CONNECTIONS_HTTP, 1);
    metric_add(d->metrics, M_CONNECTIONS_WS, 1);
    metric_add(d->metrics, M_CONNECTS_OK_WS, 1);
    return ST_OK;
}

/* --- output ------------------------------------------------------------------------------------- */

void conn_touch(struct conn *c)
{
    if ((c->state == CONN_OPEN || c->state == CONN_CLOSING) && list_empty(&c->out.dirty))
        list_push(&c->door->dirty, &c->out.dirty);
}

static void conn_break(struct conn *c)
{
    c->broken = true;
    conn_touch(c);
}

static void conn_queue(struct conn *c, enum ws_opcode opcode, struct slice payload)
{
    uint8_t *to = outq_reserve(&c->out, ws_header_bytes(payload.len) + payload.len);
    if (!to) {
        conn_break(c);
        return;
    }
    to += ws_header_write(to, opcode, payload.len);
    if (payload.len > 0)
        memcpy(to, payload.data, payload.len);
    conn_touch(c);
}

void conn_put_text(struct conn *c, struct slice object)
{
    if (c->state != CONN_OPEN)
        return;
    c->last_out_ms = now_of(c);
    conn_queue(c, WS_TEXT, object);
}

enum status conn_put_frame(struct conn *c, struct slice frame)
{
    enum status st = outq_put_span(&c->out, frame);
    if (st != ST_OK)
        return st;
    c->last_out_ms = now_of(c);
    conn_touch(c);
    return ST_OK;
}

/* `n` bytes leave the front of the queue, which begins `cut_bytes` before a frame's boundary. A frame lies in
 * one piece always: it was reserved or borrowed as one. */
static void conn_note_cut(struct conn *c, const struct iovec *pieces, size_t n)
{
    uint64_t boundary = c->cut_bytes, piece_start = 0;
    if (n == c->out.bytes) {
        c->cut_bytes = 0;
        return;
    }
    while (boundary < n) {
        while (boundary >= piece_start + pieces->iov_len) {
            piece_start += pieces->iov_len;
            pieces++;
        }
        size_t at = (size_t)(boundary - piece_start);
        uint64_t frame = ws_frame_bytes((const uint8_t *)pieces->iov_base + at, pieces->iov_len - at);
        assert(frame > 0);
        boundary += frame;
    }
    c->cut_bytes = boundary - n;
}

/* ST_OK: all is out. ST_AGAIN: the rest is kept. ST_CLOSED. */
static enum status conn_send(struct conn *c)
{
    while (c->out.bytes > 0) {
        struct iovec pieces[FLUSH_PIECES];
        int count = outq_gather(&c->out, pieces, FLUSH_PIECES);
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
        ssize_t n = count == 1 ? send(c->watch.fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                               : sendmsg(c->watch.fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? ST_AGAIN : ST_CLOSED;
        conn_note_cut(c, pieces, (size_t)n);
        outq_sent(&c->out, (size_t)n);
        c->progress_ms = now_of(c);
        metric_add(c->door->metrics, M_BYTES_OUT_WS, (uint64_t)n);
    }
    return ST_OK;
}

static void conn_watch(struct conn *c)
{
    loop_watch_set(c->door->loop, &c->watch, (c->paused ? 0u : EPOLLIN) | (c->blocked ? EPOLLOUT : 0u));
}

/* False: the peer has gone. */
static bool conn_flush(struct conn *c)
{
    enum status st = c->blocked ? ST_AGAIN : conn_send(c);
    if (st == ST_AGAIN && outq_own(&c->out) != ST_OK)
        st = ST_NO_MEMORY;
    if (st == ST_AGAIN && !c->blocked) {
        c->blocked = true;
        c->progress_ms = now_of(c);
        uint64_t due = c->progress_ms + c->door->settings->out_stall_ms;
        if (c->state == CONN_OPEN && due < c->timer.due_ms)
            timer_arm(loop_timers(c->door->loop), &c->timer, due);
    }
    uint32_t waiting = c->blocked ? c->out.bytes : 0;
    metric_add(c->door->metrics, M_OUT_QUEUE_BYTES, (uint64_t)waiting - c->waiting_bytes);
    c->waiting_bytes = waiting;
    return st == ST_OK || st == ST_AGAIN;
}

/* Closing goes on once everything is out. False: the connection is gone. */
static bool conn_closing_step(struct conn *c)
{
    if (c->out.bytes > 0)
        return true;
    if (c->peer_closed) {
        conn_kill(c, c->end);
        return false;
    }
    /* RFC 6455, 7.1.7: a failed connection is ended without waiting for the peer's close frame, which we
     * could not find any more. FIN first and close later, or unread input would turn it into a reset that
     * overtakes our close frame. */
    if (c->deaf && !c->shut) {
        c->shut = true;
        (void)shutdown(c->watch.fd, SHUT_WR);
    }
    return true;
}

static bool conn_may_resume(const struct conn *c)
{
    const struct settings *s = c->door->settings;
    return c->publish_open <= s->limit_publish_open / 2 && c->reads_open < CONN_READS_OPEN_MAX &&
           c->out.bytes <= c->out.bytes_max / 2;
}

bool conn_turn_end(struct conn *c)
{
    bool more = false;
    if (c->broken || !conn_flush(c)) {
        conn_kill(c, c->broken ? END_LIMIT : END_NETWORK);
        return false;
    }
    if (c->state == CONN_CLOSING) {
        if (conn_closing_step(c))
            conn_watch(c);
        return false;
    }
    if (c->starved && c->out.bytes <= c->out.bytes_max / 2) {
        c->starved = false;
        session_room(c->session);
        more = true;
    }
    if (c->paused && conn_may_resume(c)) {
        conn_resume(c); /* what it queues makes the connection dirty again */
        more = true;
    }
    if (c->state != CONN_DEAD)
        conn_watch(c);
    return more;
}

/* --- closing ------------------------------------------------------------------------------------ */

/* Frames that nobody has seen a byte of are dropped; what remains is the rest of the one that is cut. */
static void conn_drop_queue(struct conn *c)
{
    size_t keep = (size_t)c->cut_bytes;
    uint8_t *rest = keep > 0 ? malloc(keep) : NULL;
    if (keep > 0 && !rest) {
        conn_break(c);
        return;
    }
    struct iovec piece;
    if (keep > 0) {
        int count = outq_gather(&c->out, &piece, 1);
        assert(count == 1 && piece.iov_len >= keep); /* a frame lies in one piece */
        memcpy(rest, piece.iov_base, keep);
    }
    uint32_t bytes_max = c->out.bytes_max;
    outq_deinit(&c->out);
    outq_init(&c->out, bytes_max);
    if (outq_put(&c->out, slice_of(rest, keep)) != ST_OK)
        conn_break(c);
    free(rest);
}

static void conn_queue_close(struct conn *c, uint16_t code, const char *why)
{
    uint8_t payload[WS_CONTROL_BYTES_MAX];
    size_t len = 0;
    if (code != WS_CLOSE_NO_STATUS) {
        size_t reason = strlen(why);
        payload[0] = (uint8_t)(code >> 8);
        payload[1] = (uint8_t)code;
        if (reason > sizeof payload - 2)
            reason = sizeof payload - 2;
        memcpy(payload + 2, why, reason);
        len = 2 + reason;
    }
    conn_queue(c, WS_CLOSE, slice_of(payload, len));
}

static void conn_enter_closing(struct conn *c, enum conn_end end)
{
    c->state = CONN_CLOSING;
    c->end = end;
    serve_end(c);
    /* Lines in hand are not handled any more; frames in hand are lost, and with them their boundaries. */
    if (c->unread.len > 0)
        c->deaf = true;
    buf_deinit(&c->unread);
    buf_deinit(&c->message);
    c->lines_ready = false;
    c->paused = false;
    timer_arm(loop_timers(c->door->loop), &c->timer, now_of(c) + CONN_CLOSE_WAIT_MS);
    conn_touch(c);
}

void conn_close(struct conn *c, uint16_t code, const char *why, enum conn_end end)
{
    if (c->state != CONN_OPEN)
        return;
    if (code >= 4000) {
        struct buf *scratch = &c->door->scratch;
        /* Spread over some seconds, so that all the clients of a node do not come back at once. */
        uint64_t retry_ms = code < 4100 ? 500 + session_id(c->session) * 2654435761u % 4000 : 0;
        buf_clear(scratch);
        if (ws_put_bye(scratch, code, why, retry_ms) == ST_OK)
            conn_put_text(c, buf_slice(scratch));
        buf_clear(scratch);
    }
    conn_queue_close(c, code, why);
    conn_enter_closing(c, end);
}

/* --- input -------------------------------------------------------------------------------------- */

static bool conn_must_pause(const struct conn *c)
{
    return c->publish_open >= c->door->settings->limit_publish_open || c->reads_open >= CONN_READS_OPEN_MAX ||
           (c->out.bytes_max > 0 && c->out.bytes >= c->out.bytes_max) || c->lines_ready;
}

bool conn_is_full(const struct conn *c)
{
    return conn_must_pause(c) || c->state != CONN_OPEN || c->broken;
}

/* A whole message, either c->message itself or bytes elsewhere. */
static void conn_message(struct conn *c, struct slice text)
{
    bool own = text.data == c->message.data;
    if (!c->lines_ready && !utf8_valid(text)) {
        c->deaf = true;
        conn_close(c, WS_CLOSE_INVALID, "not UTF-8", END_PROTOCOL);
        return;
    }
    c->lines_ready = false;
    size_t done = serve_lines(c, text);
    if (c->state != CONN_OPEN)
        return;
    if (done == text.len) {
        buf_deinit(&c->message);
        return;
    }
    c->lines_ready = true;
    c->paused = true;
    if (own) {
        buf_consume(&c->message, done);
        return;
    }
    buf_init(&c->message, c->door->message_bytes_max);
    if (buf_put(&c->message, slice_from(text, done)) != ST_OK)
        conn_break(c);
}

static void conn_data(struct conn *c, const struct ws_piece *piece)
{
    if (c->state != CONN_OPEN)
        return;
    if (piece->opcode == WS_BINARY) {
        c->deaf = true;
        conn_close(c, WS_CLOSE_UNSUPPORTED, "text messages only", END_PROTOCOL);
        return;
    }
    if (piece->first && piece->last) {
        conn_message(c, piece->payload);
        return;
    }
    if (piece->first)
        buf_init(&c->message, c->door->message_bytes_max); /* the reader minds the limit */
    if (buf_put(&c->message, piece->payload) != ST_OK)
        conn_break(c);
    else if (piece->last)
        conn_message(c, buf_slice(&c->message));
}

static void conn_peer_close(struct conn *c, struct slice payload)
{
    bool valid;
    uint16_t code = ws_close_code(payload, &valid);
    c->peer_closed = true;
    c->deaf = true; /* 5.5.1: nothing comes after it */
    if (c->state != CONN_OPEN) {
        conn_touch(c);
        return;
    }
    conn_queue_close(c, code, "");
    conn_enter_closing(c, valid ? END_CLIENT : END_PROTOCOL);
}

static void conn_control(struct conn *c, const struct ws_piece *piece)
{
    if (piece->opcode == WS_CLOSE)
        conn_peer_close(c, piece->payload);
    else if (piece->opcode == WS_PING && c->state == CONN_OPEN)
        conn_queue(c, WS_PONG, piece->payload);
}

static void conn_keep_unread(struct conn *c, const uint8_t *data, size_t len)
{
    c->paused = true;
    buf_init(&c->unread, CONN_READ_BYTES);
    if (buf_put(&c->unread, slice_of(data, len)) != ST_OK)
        conn_break(c);
}

static void conn_bad_frame(struct conn *c, uint16_t code)
{
    c->deaf = true;
    conn_close(c, code, code == WS_CLOSE_TOO_LARGE ? "message too large" : "protocol error",
               code == WS_CLOSE_TOO_LARGE ? END_LIMIT : END_PROTOCOL);
}

static void conn_input(struct conn *c, uint8_t *data, size_t len)
{
    while (len > 0 && !c->deaf && !c->broken) {
        struct ws_piece piece;
        size_t used;
        if (c->state == CONN_OPEN && conn_must_pause(c)) {
            conn_keep_unread(c, data, len);
            return;
        }
        enum ws_event event = ws_reader_next(&c->reader, data, len, &used, &piece);
        data += used;
        len -= used;
        if (event == WS_EVENT_DATA)
            conn_data(c, &piece);
        else if (event == WS_EVENT_CONTROL)
            conn_control(c, &piece);
        else if (event == WS_EVENT_BAD)
            conn_bad_frame(c, piece.close_code);
    }
}

static void conn_resume(struct conn *c)
{
    struct buf unread = c->unread;
    c->paused = false;
    c->unread = (struct buf){0};
    if (c->lines_ready)
        conn_message(c, buf_slice(&c->message));
    if (unread.len > 0)
        conn_input(c, unread.data, unread.len);
    buf_deinit(&unread);
}

static void conn_read(struct conn *c)
{
    struct web_door *d = c->door;
    ssize_t n = recv(c->watch.fd, d->input, CONN_READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_kill(c, END_NETWORK);
        return;
    }
    metric_add(d->metrics, M_BYTES_IN_WS, (uint64_t)n);
    c->last_in_ms = now_of(c);
    c->ping_sent_ms = 0;
    c->read_ns = clock_mono_ns(loop_clock(d->loop));
    conn_input(c, d->input, (size_t)n);
    if (c->paused || c->state == CONN_CLOSING)
        conn_touch(c);
}

static void conn_on_event(struct loop_watch *w, uint32_t events)
{
    struct conn *c = LIST_OF(w, struct conn, watch);
    if ((events & EPOLLIN) == 0 && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        conn_kill(c, END_NETWORK);
        return;
    }
    if (events & EPOLLOUT) {
        c->blocked = false;
        conn_touch(c);
    }
    if (events & EPOLLIN)
        conn_read(c);
}

/* --- time --------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* While we do not read, a pong cannot be seen; while the queue moves, the peer lives: the ping is behind it.
 */
static bool conn_pong_overdue(const struct conn *c, uint64_t now)
{
    uint64_t since = c->blocked && c->progress_ms > c->ping_sent_ms ? c->progress_ms : c->ping_sent_ms;
    return c->ping_sent_ms && !c->paused && now >= since + c->door->settings->ws_pong_timeout_ms;
}

/* Checks what is due and returns when to look again; 0: it is being closed. */
static uint64_t conn_check_times(struct conn *c)
{
    const struct settings *s = c->door->settings;
    uint64_t now = now_of(c), next;
    if (c->blocked && now >= c->progress_ms + s->out_stall_ms) {
        conn_drop_queue(c);
        conn_close(c, 4002, "no progress", END_TIMEOUT);
        return 0;
    }
    if (conn_pong_overdue(c, now)) {
        conn_drop_queue(c);
        c->deaf = true;
        conn_close(c, 4003, "ping timeout", END_TIMEOUT);
        return 0;
    }
    if (!c->blocked && now >= c->last_out_ms + s->ws_ping_ms)
        conn_put_text(c, slice_of("{}", 2));
    if (!c->ping_sent_ms && !c->blocked && !c->paused && now >= c->last_in_ms + s->ws_ping_ms) {
        conn_queue(c, WS_PING, (struct slice){0});
        c->ping_sent_ms = now;
    }
    next = c->blocked ? c->progress_ms + s->out_stall_ms : c->last_out_ms + s->ws_ping_ms;
    if (c->ping_sent_ms)
        return earlier(next, (c->paused || c->blocked ? now : c->ping_sent_ms) + s->ws_pong_timeout_ms);
    return c->blocked || c->paused ? earlier(next, now + s->ws_ping_ms)
                                   : earlier(next, c->last_in_ms + s->ws_ping_ms);
}

static void conn_on_timer(struct timer *t)
{
    struct conn *c = LIST_OF(t, struct conn, timer);
    if (c->state != CONN_OPEN) {
        conn_kill(c, END_TIMEOUT);
        return;
    }
    uint64_t next = conn_check_times(c);
    if (next != 0)
        timer_arm(loop_timers(c->door->loop), t, next);
}
