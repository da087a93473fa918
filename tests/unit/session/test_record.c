#include "session/record.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct buf bytes;

static void setup(void)
{
    buf_init(&bytes, 1 << 16);
}

static void teardown(void)
{
    buf_deinit(&bytes);
}

TestSuite(record, .init = setup, .fini = teardown);

static void put(const char *filter, uint8_t flags, uint16_t lanes, uint64_t first)
{
    struct record_filter f = {.flags = flags, .filter = slice_cstr(filter), .lane_count = lanes};
    for (unsigned i = 0; i < lanes; i++)
        f.next[i] = first + i;
    cr_assert_eq(record_put(&bytes, &f), ST_OK);
}

static void fill(void)
{
    cr_assert_eq(record_begin(&bytes, 0xdeadbeef, 3), ST_OK);
    put("a/+", RECORD_ACK | RECORD_RETAINED_OPEN, 3, UINT64_MAX - 5);
    put("plain/#", 0, 0, 0);
    put("one", RECORD_ACK, 1, 7);
}

Test(record, reads_what_was_written)
{
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    fill();
    cr_assert_eq(record_open(buf_slice(&bytes), &place, &epoch, &lanes), ST_OK);
    cr_expect_eq(epoch, 0xdeadbeef);
    cr_expect_eq(lanes, 3);
    cr_assert_eq(record_next(buf_slice(&bytes), &place, lanes, &f), ST_OK);
    cr_expect(slice_equal_cstr(f.filter, "a/+"));
    cr_expect_eq(f.flags, RECORD_ACK | RECORD_RETAINED_OPEN);
    cr_expect_eq(f.lane_count, 3);
    cr_expect_eq(f.next[2], UINT64_MAX - 3);
    cr_assert_eq(record_next(buf_slice(&bytes), &place, lanes, &f), ST_OK);
    cr_expect(slice_equal_cstr(f.filter, "plain/#"));
    cr_expect_eq(f.lane_count, 0);
    cr_assert_eq(record_next(buf_slice(&bytes), &place, lanes, &f), ST_OK);
    cr_expect(slice_equal_cstr(f.filter, "one"));
    cr_expect_eq(f.next[0], 7);
    cr_expect_eq(record_next(buf_slice(&bytes), &place, lanes, &f), ST_NOT_FOUND);
}

/* Walks it to the end, or to where it is wrong. */
static enum status walk(struct slice record)
{
    size_t place;
    uint32_t epoch;
    unsigned lanes;
    struct record_filter f;
    enum status st = record_open(record, &place, &epoch, &lanes);
    while (st == ST_OK) {
        st = record_next(record, &place, lanes, &f);
        if (st == ST_OK)
            cr_assert(f.filter.data >= record.data &&
                      f.filter.data + f.filter.len <= record.data + record.len);
    }
    return st;
}

Test(record, a_part_of_one_is_refused_or_ends_at_a_filter)
{
    fill();
    unsigned whole = 0;
    for (size_t len = 0; len <= bytes.len; len++) {
        uint8_t *copy = malloc(len ? len : 1); /* so that a sanitizer sees every step beyond */
        memcpy(copy, bytes.data, len);
        enum status st = walk(slice_of(copy, len));
        cr_expect(st == ST_INVALID || st == ST_NOT_FOUND);
        whole += st == ST_NOT_FOUND;
        free(copy);
    }
    cr_expect_eq(whole, 4, "the head alone, and after each filter");
}

Test(record, any_bytes_are_read_without_harm)
{
    unsigned seed = test_seed();
    for (unsigned i = 0; i < 20000; i++) {
        buf_clear(&bytes);
        fill();
        for (unsigned k = 0; k < 1 + (unsigned)rand_r(&seed) % 4; k++)
            bytes.data[(size_t)rand_r(&seed) % bytes.len] = (uint8_t)rand_r(&seed);
        enum status st = walk(buf_slice(&bytes));
        cr_assert(st == ST_INVALID || st == ST_NOT_FOUND);
    }
}

Test(record, refuses_what_does_not_fit)
{
    struct buf small;
    struct record_filter f = {.flags = RECORD_ACK, .filter = slice_cstr("abc"), .lane_count = 1};
    buf_init(&small, 20);
    cr_assert_eq(record_begin(&small, 1, 1), ST_OK);
    cr_expect_eq(record_put(&small, &f), ST_FULL);
    cr_expect_eq(small.len, 7, "nothing was added");
    f.flags = 0;
    cr_expect_eq(record_put(&small, &f), ST_OK);
    buf_deinit(&small);
}
