#include "core/crc32c.h"
#include "core/store/record.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const uint64_t EPOCH = 0x1122334455667788;

static struct msg *make(const char *topic, const char *key, struct slice props, const char *payload)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), slice_cstr(key), props, slice_cstr(payload), &m), ST_OK);
    m->ts_ms = 1700000000123;
    return m;
}

struct row {
    const char *topic, *key, *props, *payload;
    size_t props_len;
    uint64_t expires_ms;
    uint8_t content, qos, flags;
};

static const struct row rows[] = {
    {"a", "", "", "", 0, 0, CONTENT_BINARY, 0, 0},
    {"a/b", "", "", "x", 0, 0, CONTENT_TEXT, 1, MSG_RETAIN},
    {"", "k", "", "12345678", 0, 1, CONTENT_JSON, 2, MSG_PFI_UTF8},
    {"a/b/c/d/e", "key", "\x01\x03\x00xyz", "payload", 6, UINT64_MAX, CONTENT_JSON, 1,
     MSG_RETAIN | MSG_PFI_UTF8 | MSG_TYPE_GIVEN},
    {"seven77", "", "", "", 0, 0, CONTENT_BINARY, 2, MSG_TYPE_GIVEN},
};

static struct msg *make_row(const struct row *row)
{
    struct msg *m = make(row->topic, row->key, slice_of(row->props, row->props_len), row->payload);
    m->expires_ms = row->expires_ms;
    m->content = row->content;
    m->qos = row->qos;
    m->flags = row->flags;
    return m;
}

Test(record, decodes_what_it_encodes)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct msg *m = make_row(&rows[i]), *back;
        uint64_t bytes = record_stored_bytes(m);
        uint8_t *out = malloc(bytes);
        struct record r;
        uint32_t seed = record_seed(EPOCH, 1000);
        record_encode(m, 7, seed, out);
        cr_assert_eq(bytes % 8, 0);
        cr_assert_eq(record_claimed_bytes(out, bytes), bytes, "row %zu", i);
        cr_assert_eq(record_claimed_bytes(out, bytes - 8), 0, "row %zu", i);
        cr_assert_eq(record_decode(slice_of(out, bytes), seed, 1000, &r), ST_OK, "row %zu", i);
        cr_assert_eq(record_to_msg(&r, 3, &back), ST_OK);
        cr_assert_eq(back->offset, 1007);
        cr_assert_eq(back->partition, 3);
        cr_assert_eq(back->ts_ms, m->ts_ms);
        cr_assert_eq(back->expires_ms, m->expires_ms, "row %zu", i);
        cr_assert(back->content == m->content && back->qos == m->qos && back->flags == m->flags, "row %zu",
                  i);
        cr_assert(slice_equal(msg_topic(back), msg_topic(m)) && slice_equal(msg_key(back), msg_key(m)) &&
                      slice_equal(msg_props(back), msg_props(m)) &&
                      slice_equal(msg_payload(back), msg_payload(m)),
                  "row %zu", i);
        msg_unref(m);
        msg_unref(back);
        free(out);
    }
}

Test(record, no_flipped_bit_passes)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct msg *m = make_row(&rows[i]);
        uint64_t bytes = record_stored_bytes(m);
        uint8_t *out = malloc(bytes);
        struct record r;
        record_encode(m, 0, record_seed(EPOCH, 0), out);
        for (size_t bit = 0; bit < bytes * 8; bit++) {
            out[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cr_assert_eq(record_decode(slice_of(out, bytes), record_seed(EPOCH, 0), 0, &r), ST_CORRUPT,
                         "row %zu bit %zu", i, bit);
            out[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        msg_unref(m);
        free(out);
    }
}

Test(record, is_not_valid_elsewhere)
{
    struct msg *m = make("a", "", (struct slice){0}, "text");
    uint64_t bytes = record_stored_bytes(m);
    uint8_t *out = malloc(bytes);
    struct record r;
    record_encode(m, 2, record_seed(EPOCH, 50), out);
    struct slice all = slice_of(out, bytes);
    cr_assert_eq(record_decode(all, record_seed(EPOCH, 50), 50, &r), ST_OK);
    cr_assert_eq(record_decode(all, record_seed(EPOCH + 1, 50), 50, &r), ST_CORRUPT, "another segment");
    cr_assert_eq(record_decode(all, record_seed(EPOCH, 51), 51, &r), ST_CORRUPT, "another frame");
    cr_assert_eq(record_decode(slice_of(out, bytes - 8), record_seed(EPOCH, 50), 50, &r), ST_CORRUPT);
    cr_assert_eq(record_decode(slice_of(out, 39), record_seed(EPOCH, 50), 50, &r), ST_CORRUPT);
    msg_unref(m);
    free(out);
}

Test(record, malformed_properties_are_not_valid)
{
    struct msg *m = make("a", "", slice_of("\x01\x01\x00x", 4), "text");
    uint8_t out[128];
    struct record r;
    record_encode(m, 0, 0, out);
    struct slice all = slice_of(out, record_stored_bytes(m));
    cr_assert_eq(record_decode(all, 0, 0, &r), ST_OK);
    out[40 + 1 + 1] = 9; /* says 9 bytes, has 1 */
    uint32_t crc = crc32c(0, out + 4, all.len - 4);
    memcpy(out, &crc, sizeof crc);
    cr_assert_eq(record_decode(all, 0, 0, &r), ST_CORRUPT);
    msg_unref(m);
}

Test(record, internal_one_says_so)
{
    uint8_t out[128];
    struct record r;
    struct slice payload = slice_of("0123456789", 10);
    uint32_t bytes = record_internal_bytes(payload);
    record_encode_internal(payload, 99, 0, 5, out);
    cr_assert_eq(record_decode(slice_of(out, bytes), 5, 1000, &r), ST_OK);
    cr_assert(r.internal);
    cr_assert_eq(r.time_ms, 99);
    cr_assert(slice_equal(r.payload, payload));
}

/* A carried record is the message under the position that it had; one that claims what cannot be is none. */
Test(record, carried_keeps_position_and_time)
{
    for (int expires = 0; expires < 2; expires++) {
        struct msg *m = make("a/b", "key", (struct slice){0}, "text"), *back;
        m->flags = MSG_RETAIN;
        m->offset = 7;
        m->ts_ms = 1234;
        m->expires_ms = expires ? 99 : 0;
        uint64_t bytes = record_carried_bytes(m);
        uint32_t seed = record_seed(EPOCH, 100);
        uint8_t out[256];
        struct record r;
        cr_assert_leq(bytes, sizeof out);
        record_encode_carried(m, 3, seed, out);
        struct slice all = slice_of(out, bytes);
        cr_assert_eq(record_claimed_bytes(out, bytes), bytes);
        cr_assert_eq(record_decode(all, seed, 100, &r), ST_OK);
        cr_assert(r.carried && r.offset == 103 && r.original == 7);
        cr_assert_eq(record_to_msg(&r, 0, &back), ST_OK);
        cr_assert(back->offset == 7 && back->stored == 103 && back->ts_ms == 1234 &&
                  back->expires_ms == m->expires_ms && back->flags == MSG_RETAIN);
        cr_assert(slice_equal_cstr(msg_topic(back), "a/b") && slice_equal_cstr(msg_key(back), "key") &&
                  slice_equal_cstr(msg_payload(back), "text"));
        msg_unref(back);
        m->offset = 103; /* its own place */
        record_encode_carried(m, 3, seed, out);
        cr_assert_eq(record_decode(all, seed, 100, &r), ST_CORRUPT);
        msg_unref(m);
    }
}
