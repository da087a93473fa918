#include "routing/share_record.h"

#include <criterion/criterion.h>

static void make(struct buf *out, const uint64_t *kept, uint32_t kept_count, const uint64_t *open,
                 uint32_t open_count, const uint64_t *passed, uint32_t passed_count)
{
    const uint64_t *runs[] = {kept, open, passed};
    const uint32_t counts[] = {kept_count, open_count, passed_count};
    buf_init(out, 4096);
    cr_assert_eq(share_record_begin(out, 0x01020304, 100), ST_OK);
    for (unsigned r = 0; r < 3; r++) {
        cr_assert_eq(share_record_run(out, counts[r]), ST_OK);
        for (uint32_t i = 0; i < counts[r]; i++)
            share_record_value(out, runs[r][i]);
    }
}

Test(share_record, is_read_as_it_was_written)
{
    const uint64_t kept[] = {UINT64_MAX, 7}, open[] = {99, 3}, passed[] = {100, 102, 1000};
    struct share_record r;
    struct buf bytes;
    make(&bytes, kept, 2, open, 2, passed, 3);
    cr_assert_eq(share_record_read(buf_slice(&bytes), &r), ST_OK);
    cr_expect_eq(r.epoch, 0x01020304);
    cr_expect_eq(r.next, 100);
    cr_assert_eq(share_record_count(r.kept), 2);
    cr_expect_eq(share_record_at(r.kept, 0), UINT64_MAX);
    cr_assert_eq(share_record_count(r.open), 2);
    cr_expect_eq(share_record_at(r.open, 1), 3);
    cr_assert_eq(share_record_count(r.passed), 3);
    cr_expect_eq(share_record_at(r.passed, 2), 1000);
    for (size_t len = 0; len < bytes.len; len++)
        cr_expect_eq(share_record_read(slice_of(bytes.data, len), &r), ST_INVALID, "%zu bytes of it", len);
    cr_assert_eq(buf_put_byte(&bytes, 0), ST_OK);
    cr_expect_eq(share_record_read(buf_slice(&bytes), &r), ST_INVALID, "one byte more");
    buf_deinit(&bytes);
}

Test(share_record, refuses_positions_on_the_wrong_side)
{
    const uint64_t at_next[] = {100}, falling[] = {102, 101}, twice[] = {102, 102};
    struct share_record r;
    struct buf bytes;
    make(&bytes, NULL, 0, at_next, 1, NULL, 0);
    cr_expect_eq(share_record_read(buf_slice(&bytes), &r), ST_INVALID);
    buf_deinit(&bytes);
    make(&bytes, NULL, 0, NULL, 0, falling, 2);
    cr_expect_eq(share_record_read(buf_slice(&bytes), &r), ST_INVALID);
    buf_deinit(&bytes);
    make(&bytes, NULL, 0, NULL, 0, twice, 2);
    cr_expect_eq(share_record_read(buf_slice(&bytes), &r), ST_INVALID);
    buf_deinit(&bytes);
}

Test(share_record, its_topic_is_the_nodes_own)
{
    cr_expect(topic_group_record(slice_cstr("$group/g/a/#")));
    cr_expect_not(topic_group_record(slice_cstr("$groups/g")));
    cr_expect_not(topic_group_record(slice_cstr("group/g")));
}
