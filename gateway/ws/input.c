/* What comes in: one recv a turn, frames by the reader, messages to serve.c.
 *
 * Reading pauses while too many publishes or reads are open, the queue is full or a session is being resumed.
 * What is in hand then is kept: `message` holds the lines not yet handled, `unread` the frames behind them,
 * in that order. */
#include "gateway/ws/conn.h"

#include "core/utf8.h"

bool conn_may_resume(const struct conn *c)
{
    const struct settings *s = c->door->settings;
    return !c->draining && !c->opening && !c->check && c->publish_open <= s->limit_publish_open / 2 &&
           c->reads_open < CONN_READS_OPEN_MAX && c->out.bytes <= c->out.bytes_max / 2;
}

static bool conn_must_pause(const struct conn *c)
{
    return c->draining || c->opening || c->check ||
           c->publish_open >= c->door->settings->limit_publish_open || c->reads_open >= CONN_READS_OPEN_MAX ||
           (c->out.bytes_max > 0 && c->out.bytes >= c->out.bytes_max) || c->lines_ready;
}

bool conn_is_full(const struct conn *c)
{
    return conn_must_pause(c) || c->state != CONN_OPEN || c->broken;
}

/* The lines of `message` from `lines_done` on. */
static void conn_go_on(struct conn *c)
{
    struct slice rest = slice_from(buf_slice(&c->message), c->lines_done);
    c->lines_ready = false;
    size_t done = serve_lines(c, rest);
    if (c->state != CONN_OPEN)
        return;
    c->lines_ready = c->paused = done < rest.len;
    c->lines_done += done;
    if (!c->lines_ready)
        buf_deinit(&c->message);
}

static bool conn_check_text(struct conn *c, struct slice text)
{
    if (utf8_valid(text))
        return true;
    c->deaf = true;
    conn_close(c, WS_CLOSE_INVALID, "not UTF-8", END_PROTOCOL);
    return false;
}

/* A message that lies whole in the input: no copy, unless reading must pause within it. */
static void conn_message(struct conn *c, struct slice text)
{
    if (!conn_check_text(c, text))
        return;
    size_t done = serve_lines(c, text);
    if (c->state != CONN_OPEN || done == text.len)
        return;
    c->lines_ready = c->paused = true;
    c->lines_done = 0;
    buf_init(&c->message, c->door->message_bytes_max);
    if (buf_put(&c->message, slice_from(text, done)) != ST_OK)
        conn_break(c);
}

/* A piece of a message that does not. */
static void conn_part(struct conn *c, const struct ws_piece *piece)
{
    if (piece->first)
        buf_init(&c->message, c->door->message_bytes_max); /* the reader minds the limit */
    if (buf_put(&c->message, piece->payload) != ST_OK) {
        conn_break(c);
        return;
    }
    c->lines_done = 0;
    if (piece->last && conn_check_text(c, buf_slice(&c->message)))
        conn_go_on(c);
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
    if (piece->first && piece->last)
        conn_message(c, piece->payload);
    else
        conn_part(c, piece);
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
    c->over = valid && code == WS_CLOSE_NORMAL;
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

void conn_resume(struct conn *c)
{
    struct buf unread = c->unread;
    c->paused = false;
    c->unread = (struct buf){0};
    if (c->lines_ready)
        conn_go_on(c);
    if (unread.len > 0)
        conn_input(c, unread.data, unread.len);
    buf_deinit(&unread);
}

void conn_read(struct conn *c)
{
    struct web_door *d = c->door;
    size_t n;
    enum status st = stream_read(&c->io, d->input, CONN_READ_BYTES, &n);
    if (st == ST_AGAIN) {
        conn_touch(c); /* it may wait for something else now */
        return;
    }
    if (st != ST_OK) {
        conn_kill(c, END_NETWORK);
        return;
    }
    metric_add(d->metrics, M_BYTES_IN_WS, n);
    c->last_in_ms = conn_now(c);
    c->ping_sent_ms = 0;
    c->read_ns = clock_mono_ns(loop_clock(d->loop));
    conn_input(c, d->input, n);
    if (c->paused || c->state == CONN_CLOSING)
        conn_touch(c);
}
