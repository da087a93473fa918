/* What goes out: whole frames, queued in order, sent in one write a turn. Nobody else writes the socket. */
#include "gateway/ws/conn.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FLUSH_PIECES = 16 };

void conn_break(struct conn *c)
{
    c->broken = true;
    conn_touch(c);
}

void conn_queue(struct conn *c, enum ws_opcode opcode, struct slice payload)
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
    c->last_out_ms = conn_now(c);
    conn_queue(c, WS_TEXT, object);
}

enum status conn_put_frame(struct conn *c, struct slice frame)
{
    enum status st = outq_put_span(&c->out, frame);
    if (st != ST_OK)
        return st;
    c->last_out_ms = conn_now(c);
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
        c->progress_ms = conn_now(c);
        metric_add(c->door->metrics, M_BYTES_OUT_WS, (uint64_t)n);
    }
    return ST_OK;
}

void conn_watch(struct conn *c)
{
    loop_watch_set(c->door->loop, &c->watch, (c->paused ? 0u : EPOLLIN) | (c->blocked ? EPOLLOUT : 0u));
}

/* False: the peer has gone. */
bool conn_flush(struct conn *c)
{
    enum status st = c->blocked ? ST_AGAIN : conn_send(c);
    if (st == ST_AGAIN && outq_own(&c->out) != ST_OK)
        st = ST_NO_MEMORY;
    if (st == ST_AGAIN && !c->blocked) {
        c->blocked = true;
        c->progress_ms = conn_now(c);
        uint64_t due = c->progress_ms + c->door->settings->out_stall_ms;
        if (c->state == CONN_OPEN && due < c->timer.due_ms)
            timer_arm(loop_timers(c->door->loop), &c->timer, due);
    }
    uint32_t waiting = c->blocked ? c->out.bytes : 0;
    metric_add(c->door->metrics, M_OUT_QUEUE_BYTES, (uint64_t)waiting - c->waiting_bytes);
    c->waiting_bytes = waiting;
    return st == ST_OK || st == ST_AGAIN;
}

/* Frames that nobody has seen a byte of are dropped; what remains is the rest of the one that is cut. */
void conn_drop_queue(struct conn *c)
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

void conn_queue_close(struct conn *c, uint16_t code, const char *why)
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
