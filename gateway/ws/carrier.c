/* Framing.
 *
 * In. One read of the inner stream; the payloads are moved together at the front of the same buffer. So
 * nothing is kept but the reader's place within a frame, and a message may be of any length: what bounds a
 * packet is MQTT's own limit.
 *
 * Out. All that is offered in one call becomes one frame:
 *
 *   first[]: [pong that is owed] [header of the frame]   then `frame_left` bytes of what the caller offers
 *
 * Once the header is made, exactly so many bytes must follow it: `committed` tells the caller so. `first` is
 * filled only at a frame's boundary, when nothing of it is on its way: then TLS, which wants the same bytes
 * again, gets them.
 *
 * A pong that finds the socket full waits for the next read or write; of several pings the last is
 * answered (RFC 6455, 5.5.3). */
#include "gateway/ws/carrier.h"

#include "gateway/ws/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { PIECES_MAX = 17, CONTROL_FRAME_BYTES_MAX = 2 + WS_CONTROL_BYTES_MAX, DRAIN_BYTES_MAX = 256 * 1024 };

struct carrier {
    struct stream inner;
    uint64_t frame_left; /* payload of the frame under way that the inner stream has not taken */
    bool ended; /* nothing is read any more */
    bool closing; /* our close frame is made: no other frame follows (5.5.1) */
    uint8_t pong_len, first_len, first_sent;
    uint8_t pong[WS_CONTROL_BYTES_MAX];
    uint8_t first[CONTROL_FRAME_BYTES_MAX + WS_HEADER_BYTES_MAX];
    struct ws_reader reader;
};

/* --- out ------------------------------------------------------------------------------------------ */

static void put_control(struct carrier *k, enum ws_opcode opcode, const uint8_t *payload, size_t len)
{
    k->first_len = (uint8_t)(k->first_len + ws_header_write(k->first + k->first_len, opcode, len));
    memcpy(k->first + k->first_len, payload, len);
    k->first_len = (uint8_t)(k->first_len + len);
}

static bool at_boundary(const struct carrier *k)
{
    return k->frame_left == 0 && k->first_len == 0;
}

static void put_pong(struct carrier *k)
{
    if (k->pong_len > 0)
        put_control(k, WS_PONG, k->pong, k->pong_len - 1u);
    k->pong_len = 0;
}

/* `first` alone, when it is no data frame's. ST_OK: it is out. */
static enum status send_first(struct carrier *k)
{
    while (k->first_len > 0) {
        struct iovec piece = {k->first + k->first_sent, (size_t)(k->first_len - k->first_sent)};
        size_t n;
        enum status st = stream_write(&k->inner, &piece, 1, &n);
        if (st != ST_OK)
            return st;
        k->first_sent = (uint8_t)(k->first_sent + n);
        if (k->first_sent == k->first_len)
            k->first_len = k->first_sent = 0;
    }
    return ST_OK;
}

static void send_control(struct carrier *k)
{
    if (k->closing || k->frame_left > 0)
        return;
    enum status st = send_first(k);
    if (st == ST_OK && k->pong_len > 0) {
        put_pong(k);
        st = send_first(k);
    }
    (void)st; /* what is broken is found by the next read */
}

static void send_close(struct carrier *k, uint16_t code)
{
    const uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code};
    if (k->closing)
        return;
    send_control(k);
    if (at_boundary(k)) {
        put_control(k, WS_CLOSE, payload, code == WS_CLOSE_NO_STATUS ? 0 : sizeof payload);
        enum status st = send_first(k);
        (void)st; /* what does not go out now never does: the stream ends here */
    }
    k->closing = true;
}

/* Front of `pieces`, `most` bytes of it. */
static int take_front(const struct iovec *pieces, int count, uint64_t most, struct iovec *out)
{
    int n = 0;
    for (int i = 0; i < count && most > 0; i++) {
        size_t len = pieces[i].iov_len < most ? pieces[i].iov_len : (size_t)most;
        out[n++] = (struct iovec){pieces[i].iov_base, len};
        most -= len;
    }
    return n;
}

static void begin_frame(struct carrier *k, const struct iovec *pieces, int count)
{
    uint64_t total = 0;
    for (int i = 0; i < count; i++)
        total += pieces[i].iov_len;
    put_pong(k);
    k->first_len = (uint8_t)(k->first_len + ws_header_write(k->first + k->first_len, WS_BINARY, total));
    k->frame_left = total;
}

static enum status carrier_write(struct stream *s, const struct iovec *pieces, int count, size_t *sent)
{
    struct carrier *k = s->state;
    struct iovec out[PIECES_MAX];
    enum status st = k->frame_left == 0 ? send_first(k) : ST_OK;
    if (st != ST_OK || k->closing)
        return k->closing ? ST_CLOSED : st;
    assert(count < PIECES_MAX);
    if (k->frame_left == 0)
        begin_frame(k, pieces, count);
    int n = 0;
    size_t taken, rest = (size_t)(k->first_len - k->first_sent);
    if (rest > 0)
        out[n++] = (struct iovec){k->first + k->first_sent, rest};
    n += take_front(pieces, count, k->frame_left, out + n);
    s->committed = (uint32_t)k->frame_left;
    st = stream_write(&k->inner, out, n, &taken);
    if (st != ST_OK)
        return st;
    if (taken < rest) {
        k->first_sent = (uint8_t)(k->first_sent + taken);
        *sent = 0;
        return ST_OK;
    }
    k->first_len = k->first_sent = 0;
    *sent = taken - rest;
    k->frame_left -= *sent;
    s->committed = (uint32_t)k->frame_left;
    return ST_OK;
}

/* --- in ------------------------------------------------------------------------------------------- */

static void end(struct carrier *k, uint16_t code)
{
    k->ended = true;
    send_close(k, code);
}

static void take_control(struct carrier *k, const struct ws_piece *piece)
{
    bool valid;
    if (piece->opcode == WS_CLOSE) {
        end(k, ws_close_code(piece->payload, &valid));
    } else if (piece->opcode == WS_PING) {
        memcpy(k->pong, piece->payload.data, piece->payload.len);
        k->pong_len = (uint8_t)(piece->payload.len + 1);
    }
}

/* Bytes of payload, moved to the front. */
static size_t unframe(struct carrier *k, uint8_t *bytes, size_t len)
{
    size_t at = 0, used = 0;
    while (at < len && !k->ended) {
        struct ws_piece piece;
        size_t n;
        enum ws_event event = ws_reader_next(&k->reader, bytes + at, len - at, &n, &piece);
        at += n;
        if (event == WS_EVENT_CONTROL) {
            take_control(k, &piece);
        } else if (event == WS_EVENT_BAD) {
            end(k, piece.close_code);
        } else if (event == WS_EVENT_DATA && piece.opcode != WS_BINARY) {
            end(k, WS_CLOSE_UNSUPPORTED); /* MQTT-6.0.0-1 */
        } else if (event == WS_EVENT_DATA && piece.payload.len > 0) {
            memmove(bytes + used, piece.payload.data, piece.payload.len);
            used += piece.payload.len;
        }
    }
    return used;
}

static enum status carrier_read(struct stream *s, uint8_t *to, size_t cap, size_t *got)
{
    struct carrier *k = s->state;
    size_t n;
    if (k->ended)
        return ST_CLOSED;
    enum status st = stream_read(&k->inner, to, cap, &n);
    s->read_wants_out = k->inner.read_wants_out;
    if (st != ST_OK)
        return st;
    size_t used = unframe(k, to, n);
    send_control(k);
    if (used == 0)
        return k->ended ? ST_CLOSED : ST_AGAIN;
    if (k->ended)
        (void)shutdown(s->fd, SHUT_RD); /* readable for good: the next read finds the end */
    *got = used;
    return ST_OK;
}

/* --- the end -------------------------------------------------------------------------------------- */

static void carrier_shut(struct stream *s)
{
    struct carrier *k = s->state;
    send_close(k, WS_CLOSE_NORMAL);
    stream_shut(&k->inner);
}

static void carrier_close(struct stream *s)
{
    struct carrier *k = s->state;
    uint8_t bytes[4096];
    carrier_shut(s);
    /* What is not read would turn our end into a reset that overtakes the close frame. */
    for (size_t got = 0; got < DRAIN_BYTES_MAX; got += sizeof bytes)
        if (recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0)
            break;
    stream_close(&k->inner);
    free(k);
}

enum status carrier_create(const struct stream *inner, struct stream *out)
{
    static const struct stream_ops ops = {carrier_read, carrier_write, carrier_shut, carrier_close};
    struct carrier *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    k->inner = *inner;
    ws_reader_init(&k->reader, INT64_MAX);
    *out = (struct stream){.ops = &ops, .state = k, .fd = inner->fd};
    return ST_OK;
}
