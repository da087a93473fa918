#include "gateway/ws/frame.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* Writes a client's frame; returns its length. */
static size_t client_frame(uint8_t *out, uint8_t first, const void *payload, size_t len)
{
    size_t at = ws_header_write(out, WS_TEXT, len);
    out[0] = first;
    out[1] |= 0x80;
    const uint8_t mask[4] = {0x11, 0x00, 0xfe, 0x7f};
    memcpy(out + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < len; i++)
        out[at + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ mask[i & 3]);
    return at + len;
}

/* What came out, as text: D(...) data with f/l flags, C<op>(...) control, X<code>. */
static void run(const uint8_t *input, size_t len, size_t step, uint64_t max, char *out, size_t size)
{
    struct ws_reader r;
    uint8_t copy[70000];
    size_t at = 0;
    bool open = false;
    memcpy(copy, input, len);
    ws_reader_init(&r, max);
    *out = '\0';
    for (size_t from = 0; from < len;) {
        struct ws_piece piece;
        size_t used, part = len - from < step ? len - from : step;
        enum ws_event event = ws_reader_next(&r, copy + from, part, &used, &piece);
        from += used;
        if (event == WS_EVENT_DATA) {
            if (piece.first)
                at += (size_t)snprintf(out + at, size - at, "%s(", piece.opcode == WS_TEXT ? "T" : "B");
            open = !piece.last;
            at += (size_t)snprintf(out + at, size - at, "%.*s%s", SLICE_ARG(piece.payload),
                                   piece.last ? ")" : "");
        } else if (event == WS_EVENT_CONTROL) {
            at += (size_t)snprintf(out + at, size - at, "%sC%u(%.*s)", open ? "|" : "", piece.opcode,
                                   SLICE_ARG(piece.payload));
        } else if (event == WS_EVENT_BAD) {
            snprintf(out + at, size - at, "X%u", piece.close_code);
            return;
        }
    }
}

static const struct {
    const char *name;
    uint8_t first; /* 0: the end */
    const char *payload;
    uint8_t second; /* 0: as it must be */
    const char *want;
} singles[] = {
    {"text", 0x81, "hello", 0, "T(hello)"},
    {"binary", 0x82, "hello", 0, "B(hello)"},
    {"empty", 0x81, "", 0, "T()"},
    {"ping", 0x89, "abc", 0, "C9(abc)"},
    {"pong", 0x8a, "", 0, "C10()"},
    {"close", 0x88, "", 0, "C8()"},
    {"reserved bit 1", 0xc1, "x", 0, "X1002"},
    {"reserved bit 3", 0x91, "x", 0, "X1002"},
    {"reserved opcode", 0x83, "x", 0, "X1002"},
    {"reserved control", 0x8b, "x", 0, "X1002"},
    {"fragmented ping", 0x09, "x", 0, "X1002"},
    {"continuation of nothing", 0x80, "x", 0, "X1002"},
    {"not masked", 0x81, "x", 0x01, "X1002"},
    {"long ping", 0x89, "x", 0x80 | 126, "X1002"},
};

Test(ws_frame, reads_or_refuses_single_frames)
{
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++) {
        uint8_t input[64];
        char out[128];
        size_t len = client_frame(input, singles[i].first, singles[i].payload, strlen(singles[i].payload));
        if (singles[i].second)
            input[1] = singles[i].second;
        for (size_t step = 1; step <= len; step++) {
            run(input, len, step, 1000, out, sizeof out);
            cr_assert_str_eq(out, singles[i].want, "%s by %zu: %s", singles[i].name, step, out);
        }
    }
}

Test(ws_frame, lengths_must_be_minimal)
{
    static const struct {
        uint8_t header[10];
        size_t len;
        const char *want;
    } rows[] = {
        {{0x81, 0x80 | 126, 0, 125}, 4, "X1002"},
        {{0x81, 0x80 | 126, 0, 126}, 4, ""},
        {{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 10, "X1002"},
        {{0x81, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0}, 10, ""},
        {{0x81, 0x80 | 127, 0x80, 0, 0, 0, 0, 1, 0, 0}, 10, "X1002"},
        {{0x81, 0x80 | 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 10, "X1009"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t input[14] = {0};
        char out[32];
        memcpy(input, rows[i].header, rows[i].len);
        run(input, rows[i].len + 4, 14, 1 << 20, out, sizeof out);
        cr_assert_str_eq(out, rows[i].want, "row %zu: %s", i, out);
    }
}

Test(ws_frame, control_frames_come_between_fragments)
{
    uint8_t input[256];
    char out[256];
    size_t len = client_frame(input, 0x01, "he", 2);
    len += client_frame(input + len, 0x89, "p", 1);
    len += client_frame(input + len, 0x00, "", 0);
    len += client_frame(input + len, 0x00, "ll", 2);
    len += client_frame(input + len, 0x80, "o", 1);
    len += client_frame(input + len, 0x82, "bin", 3);
    for (size_t step = 1; step <= len; step++) {
        run(input, len, step, 1000, out, sizeof out);
        cr_assert_str_eq(out, "T(he|C9(p)llo)B(bin)", "by %zu: %s", step, out);
    }
}

Test(ws_frame, no_new_message_inside_one)
{
    uint8_t input[64];
    char out[64];
    size_t len = client_frame(input, 0x01, "a", 1);
    len += client_frame(input + len, 0x81, "b", 1);
    run(input, len, len, 1000, out, sizeof out);
    cr_assert_str_eq(out, "T(aX1002");
}

Test(ws_frame, the_limit_is_of_the_message_not_the_frame)
{
    uint8_t input[64];
    char out[64];
    size_t len = client_frame(input, 0x01, "12345", 5);
    len += client_frame(input + len, 0x80, "67890", 5);
    run(input, len, len, 10, out, sizeof out);
    cr_assert_str_eq(out, "T(1234567890)");
    run(input, len, len, 9, out, sizeof out);
    cr_assert_str_eq(out, "T(12345X1009");
}

Test(ws_frame, our_headers_say_their_length)
{
    static const uint64_t lengths[] = {0, 1, 125, 126, 65535, 65536, 1 << 24};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t header[10];
        size_t len = ws_header_write(header, WS_TEXT, lengths[i]);
        cr_assert_eq(len, ws_header_bytes(lengths[i]));
        cr_assert_eq(ws_frame_bytes(header, len), len + lengths[i]);
        cr_assert_eq(ws_frame_bytes(header, len - 1), 0);
    }
}

Test(ws_frame, close_codes)
{
    static const struct {
        const char *payload;
        size_t len;
        uint16_t code;
        bool valid;
    } rows[] = {
        {"", 0, 1005, true},
        {"\x03\xe8", 2, 1000, true},
        {"\x03\xe8"
         "bye",
         5, 1000, true},
        {"\x03", 1, 1002, false},
        {"\x03\xed", 2, 1002, false},
        {"\x03\xec", 2, 1002, false},
        {"\x03\xee", 2, 1002, false},
        {"\x03\xf7", 2, 1002, false},
        {"\x03\xf4", 2, 1012, true},
        {"\x0b\xb8", 2, 3000, true},
        {"\x0f\xa0", 2, 4000, true},
        {"\x13\x87", 2, 4999, true},
        {"\x13\x88", 2, 1002, false},
        {"\x03\xe8\xff", 3, 1007, false},
        {"\x00\x00", 2, 1002, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool valid;
        uint16_t code = ws_close_code(slice_of(rows[i].payload, rows[i].len), &valid);
        cr_assert_eq(code, rows[i].code, "row %zu: %u", i, code);
        cr_assert_eq(valid, rows[i].valid, "row %zu", i);
    }
}
