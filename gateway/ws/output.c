/* What goes out: whole frames, queued in order, sent in one write a turn. Nobody else writes the socket. */
#include "gateway/ws/conn.h"

#include <assert.h>
#include <stdlib.h>

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
        size_t n;
        enum status st = stream_write(&c->io, pieces, count, &n);
        if (st != ST_OK)
            return st;
        conn_note_cut(c, pieces, n);
        outq_sent(&c->out, n);
        c->progress_ms = conn_now(c);
        metric_add(c->door->metrics, M_BYTES_OUT_WS, n);
    }
    return ST_OK;
}

void conn_watch(struct conn *c)
{
    loop_watch_set(c->door->loop, &c->watch, stream_events(&c->io, !c->paused, c->blocked));
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

/* From the queue's front to the end of the frame that the stream has begun to send. */
static size_t conn_begun_bytes(const struct conn *c)
{
    uint64_t end = c->cut_bytes;
    struct iovec pieces[FLUSH_PIECES];
    int count = outq_gather(&c->out, pieces, FLUSH_PIECES);
    size_t start = 0; /* of the piece in hand */
    for (int i = 0; i < count && end < c->io.committed; start += pieces[i++].iov_len)
        while (end < c->io.committed && end < start + pieces[i].iov_len)
            end += ws_frame_bytes((const uint8_t *)pieces[i].iov_base + (end - start),
                                  pieces[i].iov_len - (size_t)(end - start));
    return (size_t)end;
}

static void conn_copy_front(const struct conn *c, uint8_t *to, size_t len)
{
    struct iovec pieces[FLUSH_PIECES];
    int count = outq_gather(&c->out, pieces, FLUSH_PIECES);
    for (int i = 0; i < count && len > 0; i++) {
        size_t n = pieces[i].iov_len < len ? pieces[i].iov_len : len;
        memcpy(to, pieces[i].iov_base, n);
        to += n;
        len -= n;
    }
    assert(len == 0); /* what is committed was gathered in so many pieces, and the last frame lies in one */
}

/* Frames that nobody has seen a byte of are dropped; what remains is the rest of those that are on their way.
 */
void conn_drop_queue(struct conn *c)
{
    size_t keep = conn_begun_bytes(c);
    uint8_t *rest = keep > 0 ? malloc(keep) : NULL;
    if (keep > 0 && !rest) {
        conn_break(c);
        return;
    }
    if (keep > 0)
        conn_copy_front(c, rest, keep);
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
