/* The reader collects a header byte by byte (it may be cut anywhere), then hands out payload as it comes:
 *
 *   input:  [hdr][payload.......][hdr][pay        <- recv
 *   events:      DATA(first,last)     DATA(first)    MORE
 *
 * so a message that arrives whole in one read is never copied. Only control payload (125 bytes at most)
 * is collected, because its meaning needs all of it. Section numbers are those of RFC 6455. */
#include "gateway/ws/frame.h"

#include "core/utf8.h"

#include <assert.h>

void ws_reader_init(struct ws_reader *r, uint64_t message_bytes_max)
{
    *r = (struct ws_reader){.message_bytes_max = message_bytes_max};
}

static enum ws_event bad(struct ws_piece *piece, uint16_t close_code)
{
    piece->close_code = close_code;
    return WS_EVENT_BAD;
}

/* Bytes of a header whose first two are given. */
static uint8_t header_need(const uint8_t *header)
{
    uint8_t code = header[1] & 0x7f;
    return (uint8_t)(2 + 4 + (code == 126 ? 2 : code == 127 ? 8 : 0));
}

/* The two bytes that say what the frame is. 0, or the code to close with. */
static uint16_t check_start(const struct ws_reader *r)
{
    uint8_t opcode = r->header[0] & 0x0f;
    bool final = (r->header[0] & 0x80) != 0;
    if ((r->header[0] & 0x70) != 0) /* 5.2: no extension was negotiated that gives RSV a meaning */
        return WS_CLOSE_PROTOCOL;
    if ((r->header[1] & 0x80) == 0) /* 5.1: a client must mask */
        return WS_CLOSE_PROTOCOL;
    switch (opcode) {
    case WS_TEXT:
    case WS_BINARY:
        return r->message_opcode == 0 ? 0 : WS_CLOSE_PROTOCOL; /* 5.4: no new message inside one */
    case WS_CONTINUATION:
        return r->message_opcode != 0 ? 0 : WS_CLOSE_PROTOCOL;
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG: /* 5.5: not fragmented, 125 bytes at most */
        return final && (r->header[1] & 0x7f) <= WS_CONTROL_BYTES_MAX ? 0 : WS_CLOSE_PROTOCOL;
    default:
        return WS_CLOSE_PROTOCOL;
    }
}

/* 5.2: the shortest form must be used, and the highest bit of 64 is zero. */
static bool read_length(const uint8_t *header, uint64_t *out)
{
    uint8_t code = header[1] & 0x7f;
    uint64_t value = code;
    if (code >= 126) {
        value = 0;
        for (unsigned i = 0; i < (code == 126 ? 2u : 8u); i++)
            value = value << 8 | header[2 + i];
        if (code == 126 ? value < 126 : value <= 0xffff || value >> 63 != 0)
            return false;
    }
    *out = value;
    return true;
}

static uint16_t begin_frame(struct ws_reader *r)
{
    if (!read_length(r->header, &r->left))
        return WS_CLOSE_PROTOCOL;
    memcpy(r->mask, r->header + r->header_len - 4, 4);
    r->mask_index = 0;
    r->opcode = r->header[0] & 0x0f;
    r->final = (r->header[0] & 0x80) != 0;
    r->header_len = 0;
    r->control_len = 0;
    r->in_frame = true;
    if (r->opcode >= WS_CLOSE)
        return 0;
    if (r->opcode != WS_CONTINUATION) {
        r->message_opcode = r->opcode;
        r->message_bytes = 0;
        r->at_message_start = true;
    }
    if (r->left > r->message_bytes_max - r->message_bytes)
        return WS_CLOSE_TOO_LARGE;
    r->message_bytes += r->left;
    return 0;
}

/* Takes header bytes; true when the header is complete or the input is bad (*code != 0). */
static bool take_header(struct ws_reader *r, const uint8_t *input, size_t len, size_t *used, uint16_t *code)
{
    *code = 0;
    while (*used < len) {
        r->header[r->header_len++] = input[(*used)++];
        if (r->header_len == 2 && (*code = check_start(r)) != 0)
            return true;
        if (r->header_len >= 2 && r->header_len == header_need(r->header)) {
            *code = begin_frame(r);
            return true;
        }
    }
    return false;
}

/* 5.3. The key's phase goes on over pieces; eight bytes at a time. */
static void unmask(struct ws_reader *r, uint8_t *data, size_t len)
{
    uint8_t key[8];
    for (unsigned i = 0; i < 8; i++)
        key[i] = r->mask[(r->mask_index + i) & 3];
    uint64_t wide;
    memcpy(&wide, key, sizeof wide);
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        word ^= wide;
        memcpy(data + i, &word, sizeof word);
    }
    for (; i < len; i++)
        data[i] ^= key[i & 7];
    r->mask_index = (uint8_t)((r->mask_index + len) & 3);
}

static enum ws_event take_control(struct ws_reader *r, const uint8_t *data, size_t len,
                                  struct ws_piece *piece)
{
    assert(r->control_len + len <= WS_CONTROL_BYTES_MAX);
    memcpy(r->control + r->control_len, data, len);
    r->control_len = (uint8_t)(r->control_len + len);
    if (r->left > 0)
        return WS_EVENT_MORE;
    r->in_frame = false;
    piece->opcode = r->opcode;
    piece->payload = slice_of(r->control, r->control_len);
    return WS_EVENT_CONTROL;
}

static enum ws_event take_data(struct ws_reader *r, const uint8_t *data, size_t len, struct ws_piece *piece)
{
    piece->opcode = r->message_opcode;
    piece->payload = slice_of(data, len);
    piece->first = r->at_message_start;
    piece->last = r->left == 0 && r->final;
    r->at_message_start = false;
    r->in_frame = r->left > 0;
    if (piece->last)
        r->message_opcode = 0;
    return WS_EVENT_DATA;
}

enum ws_event ws_reader_next(struct ws_reader *r, uint8_t *input, size_t len, size_t *used,
                             struct ws_piece *piece)
{
    *used = 0;
    *piece = (struct ws_piece){0};
    if (!r->in_frame) {
        uint16_t code;
        if (!take_header(r, input, len, used, &code))
            return WS_EVENT_MORE;
        if (code != 0)
            return bad(piece, code);
    }
    uint8_t *data = input + *used;
    size_t n = len - *used;
    if (n > r->left)
        n = (size_t)r->left;
    if (n == 0 && r->left > 0)
        return WS_EVENT_MORE;
    unmask(r, data, n);
    r->left -= n;
    *used += n;
    return r->opcode >= WS_CLOSE ? take_control(r, data, n, piece) : take_data(r, data, n, piece);
}

uint16_t ws_close_code(struct slice payload, bool *valid)
{
    *valid = true;
    if (payload.len == 0)
        return WS_CLOSE_NO_STATUS;
    *valid = false;
    if (payload.len == 1)
        return WS_CLOSE_PROTOCOL;
    uint16_t code = (uint16_t)(payload.data[0] << 8 | payload.data[1]);
    /* 7.4.1 and the registry: 1004 to 1006 and 1015 never travel; 1012 to 1014 were registered later. */
    bool assigned =
        (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);
    if (!assigned)
        return WS_CLOSE_PROTOCOL;
    if (!utf8_valid(slice_from(payload, 2)))
        return WS_CLOSE_INVALID;
    *valid = true;
    return code;
}

size_t ws_header_bytes(uint64_t payload_bytes)
{
    return payload_bytes < 126 ? 2 : payload_bytes <= 0xffff ? 4 : 10;
}

size_t ws_header_length(const uint8_t *frame)
{
    unsigned length = frame[1] & 0x7f;
    return length < 126 ? 2 : length == 126 ? 4 : 10;
}

size_t ws_header_write(uint8_t *out, enum ws_opcode opcode, uint64_t payload_bytes)
{
    size_t len = ws_header_bytes(payload_bytes);
    out[0] = (uint8_t)(0x80u | opcode);
    out[1] = (uint8_t)(len == 2 ? payload_bytes : len == 4 ? 126 : 127);
    for (size_t i = 2; i < len; i++)
        out[i] = (uint8_t)(payload_bytes >> (8 * (len - 1 - i)));
    return len;
}

uint64_t ws_frame_bytes(const uint8_t *frame, size_t len)
{
    if (len < 2)
        return 0;
    uint8_t code = frame[1] & 0x7f;
    size_t header = code == 126 ? 4 : code == 127 ? 10 : 2;
    if (len < header)
        return 0;
    uint64_t payload = code;
    if (code >= 126) {
        payload = 0;
        for (size_t i = 2; i < header; i++)
            payload = payload << 8 | frame[i];
    }
    return header + payload;
}
