#include "core/store/frame.h"
#include "core/store/segment.h"

#include <criterion/criterion.h>
#include <string.h>

static const uint64_t EPOCH = 0xfeedfacecafebeef;

static struct frame_header sample(void)
{
    return (struct frame_header){.frame_bytes = 72 + 120,
                                 .segment_epoch = EPOCH,
                                 .base_offset = 1000,
                                 .record_count = 3,
                                 .flags = FRAME_CONTROL,
                                 .base_time_ms = 5,
                                 .synced_below = 900,
                                 .body_bytes = 120};
}

Test(frame, header_round_trip)
{
    struct frame_header h = sample(), back;
    uint8_t bytes[72];
    frame_header_encode(&h, bytes);
    cr_assert_eq(frame_header_decode(bytes, 192, EPOCH, &back), ST_OK);
    cr_assert_eq(memcmp(&h, &back, sizeof h), 0);
    cr_assert_eq(frame_header_decode(bytes, 191, EPOCH, &back), ST_CORRUPT, "not all of it is there");
    cr_assert_eq(frame_header_decode(bytes, 192, EPOCH + 1, &back), ST_CORRUPT, "another segment");
    cr_assert_eq(frame_header_decode_any(bytes, 192, &back), ST_OK);
}

Test(frame, no_flipped_bit_passes)
{
    struct frame_header h = sample(), back;
    uint8_t bytes[72];
    frame_header_encode(&h, bytes);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(frame_header_decode(bytes, 192, EPOCH, &back), ST_CORRUPT, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(frame, headers_that_contradict_themselves_are_refused)
{
    struct {
        const char *name;
        struct frame_header h;
    } rows[] = {
        {"length is not header and body", sample()},
        {"more records than bytes", sample()},
        {"unknown flag", sample()},
        {"body not padded", sample()},
        {"offsets run over", sample()},
        {"a body without records", sample()},
    };
    rows[0].h.frame_bytes += 8;
    rows[1].h.record_count = 4;
    rows[2].h.flags |= 1;
    rows[3].h.body_bytes = 121;
    rows[3].h.frame_bytes = 72 + 121;
    rows[4].h.base_offset = UINT64_MAX - 1;
    rows[5].h.record_count = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[72];
        struct frame_header back;
        frame_header_encode(&rows[i].h, bytes);
        cr_assert_eq(frame_header_decode(bytes, 1 << 20, EPOCH, &back), ST_CORRUPT, "%s", rows[i].name);
    }
}

Test(frame, grows_and_comes_back_to_the_pool)
{
    struct frame_pool pool;
    struct segment *s;
    struct segment_header h = {.base_offset = 7};
    struct frame *f, *again;
    frame_pool_init(&pool, 1 << 20);
    cr_assert_eq(segment_create(&h, 1 << 16, &s), ST_OK);
    cr_assert_eq(frame_create(&pool, NULL, s, 100, &f), ST_OK);
    cr_assert_geq(f->cap, 100);
    memset(f->bytes + f->len, 'x', 50);
    f->len += 50;
    cr_assert_eq(frame_grow(&f, 5000), ST_OK);
    cr_assert_geq(f->cap, 5000);
    cr_assert_eq(f->bytes[f->len - 1], 'x');
    cr_assert_eq(f->segment, s);
    frame_ref(f);
    frame_unref(f);
    cr_assert_eq(pool.kept_bytes, 1024, "the small buffer came back when it grew");
    frame_unref(f);
    cr_assert_eq(frame_create(&pool, NULL, s, 5000, &again), ST_OK);
    cr_assert_eq(pool.kept_bytes, 1024, "the large one is used again");
    frame_unref(again);
    segment_unref(s);
    frame_pool_deinit(&pool);
}

Test(frame, pool_keeps_no_more_than_it_may)
{
    struct frame_pool pool;
    struct segment *s;
    struct segment_header h = {0};
    struct frame *frames[8];
    frame_pool_init(&pool, 3000);
    cr_assert_eq(segment_create(&h, 1 << 16, &s), ST_OK);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(frame_create(&pool, NULL, s, 1024, &frames[i]), ST_OK);
    for (int i = 0; i < 8; i++)
        frame_unref(frames[i]);
    cr_assert_eq(pool.kept_bytes, 2048);
    segment_unref(s);
    frame_pool_deinit(&pool);
}

Test(segment, header_round_trip_and_damage)
{
    struct segment *s;
    struct segment_header h = {.lane = 3, .base_offset = 55, .log_epoch = 9, .previous_next = 50}, back;
    uint8_t bytes[64];
    cr_assert_eq(segment_create(&h, 1 << 16, &s), ST_OK);
    memcpy(bytes, &s->header, sizeof bytes);
    cr_assert_eq(segment_header_decode(bytes, &back), ST_OK);
    cr_assert(back.lane == 3 && back.base_offset == 55 && back.previous_next == 50);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(segment_header_decode(bytes, &back), ST_CORRUPT, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    segment_unref(s);
}

Test(segment, names)
{
    struct {
        const char *name;
        bool good;
        uint64_t value;
    } rows[] = {
        {"00000000000000000000.seg", true, 0},
        {"00000000000000000042.seg", true, 42},
        {"18446744073709551615.seg", true, UINT64_MAX},
        {"18446744073709551616.seg", false, 0},
        {"0000000000000000042.seg", false, 0},
        {"00000000000000000042.idx", false, 0},
        {"00000000000000000042.seg.tmp", false, 0},
        {"ahead.seg", false, 0},
        {"", false, 0},
        {"0000000000000000004x.seg", false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t value = 0;
        char name[SEGMENT_NAME_BYTES];
        cr_assert_eq(segment_name_parse(rows[i].name, "seg", &value), rows[i].good, "%s", rows[i].name);
        if (!rows[i].good)
            continue;
        cr_assert_eq(value, rows[i].value);
        segment_name(value, "seg", name);
        cr_assert_str_eq(name, rows[i].name);
    }
}
