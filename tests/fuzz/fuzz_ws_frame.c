/* part: ws */
/* Frames of a client. Property: however the bytes are cut into reads, the same events come out, and no
 * message or control frame is larger than its bound. */
#include "core/hash.h"
#include "gateway/ws/frame.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGE_BYTES_MAX = 500, LOG_BYTES = 1 << 16 };

struct trace {
    uint8_t bytes[LOG_BYTES];
    size_t len;
};

static void note(struct trace *t, const void *bytes, size_t len)
{
    if (len > LOG_BYTES - t->len)
        return;
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

/* cut: how many bytes a read gives, from a little generator seeded by it. */
static void run(const uint8_t *data, size_t size, unsigned cut, struct trace *t)
{
    struct ws_reader r;
    size_t message_bytes = 0;
    uint32_t random = cut;
    t->len = 0;
    ws_reader_init(&r, MESSAGE_BYTES_MAX);
    for (size_t from = 0; from < size;) {
        random = random * 1664525u + 1013904223u;
        size_t len = cut == 0 ? size - from : 1 + (random >> 16) % cut, used;
        if (len > size - from)
            len = size - from;
        uint8_t *part = malloc(len);
        memcpy(part, data + from, len);
        struct ws_piece piece;
        for (size_t at = 0; at < len; at += used) {
            enum ws_event event = ws_reader_next(&r, part + at, len - at, &used, &piece);
            assert(used <= len - at);
            if (event == WS_EVENT_DATA) {
                message_bytes = piece.first ? piece.payload.len : message_bytes + piece.payload.len;
                assert(message_bytes <= MESSAGE_BYTES_MAX);
                if (piece.first)
                    note(t, "[", 1);
                note(t, piece.payload.data, piece.payload.len);
                if (piece.last)
                    note(t, "]", 1);
            } else if (event == WS_EVENT_CONTROL) {
                assert(piece.payload.len <= WS_CONTROL_BYTES_MAX && piece.opcode >= WS_CLOSE);
                note(t, &piece.opcode, 1);
                note(t, piece.payload.data, piece.payload.len);
            } else if (event == WS_EVENT_BAD) {
                assert(piece.close_code == WS_CLOSE_PROTOCOL || piece.close_code == WS_CLOSE_TOO_LARGE);
                note(t, &piece.close_code, 2);
                free(part);
                return;
            } else {
                assert(used == len - at);
            }
        }
        free(part);
        from += len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct trace whole, cut;
    if (size > 8192)
        return 0;
    run(data, size, 0, &whole);
    for (unsigned step = 1; step <= 64; step = step * 3 + 1) {
        run(data, size, step, &cut);
        assert(cut.len == whole.len && memcmp(cut.bytes, whole.bytes, cut.len) == 0);
    }
    return 0;
}
