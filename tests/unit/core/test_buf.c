#include "core/buf.h"

#include <criterion/criterion.h>

Test(buf, takes_no_memory_until_the_first_byte)
{
    struct buf b;
    buf_init(&b, 100);
    cr_assert_null(b.data);
    cr_assert_eq(buf_put(&b, slice_of(NULL, 0)), ST_OK);
    cr_assert_null(b.data);
    buf_deinit(&b);
}

Test(buf, appends_in_order)
{
    struct buf b;
    buf_init(&b, 1000);
    cr_assert_eq(buf_put_cstr(&b, "ab"), ST_OK);
    cr_assert_eq(buf_put_byte(&b, 'c'), ST_OK);
    cr_assert_eq(buf_printf(&b, "%d-%s", 42, "x"), ST_OK);
    uint8_t *room = buf_reserve(&b, 2);
    cr_assert_not_null(room);
    memcpy(room, "yz", 2);
    buf_advance(&b, 2);
    cr_assert(slice_equal_cstr(buf_slice(&b), "abc42-xyz"));
    buf_deinit(&b);
}

Test(buf, is_full_exactly_at_its_limit)
{
    for (size_t limit = 1; limit < 300; limit++) {
        struct buf b;
        buf_init(&b, limit);
        for (size_t i = 0; i < limit; i++)
            cr_assert_eq(buf_put_byte(&b, (uint8_t)i), ST_OK, "limit %zu byte %zu", limit, i);
        cr_assert_eq(buf_put_byte(&b, 0), ST_FULL, "limit %zu", limit);
        cr_assert_null(buf_reserve(&b, 1));
        cr_assert_eq(b.len, limit);
        cr_assert_leq(b.cap, limit);
        for (size_t i = 0; i < limit; i++)
            cr_assert_eq(b.data[i], (uint8_t)i);
        buf_deinit(&b);
    }
}

Test(buf, refused_bytes_leave_no_trace)
{
    struct buf b;
    buf_init(&b, 8);
    cr_assert_eq(buf_put_cstr(&b, "12345"), ST_OK);
    cr_assert_eq(buf_put_cstr(&b, "6789"), ST_FULL);
    cr_assert_eq(buf_printf(&b, "%04d", 7), ST_FULL);
    cr_assert_null(buf_reserve(&b, SIZE_MAX));
    cr_assert(slice_equal_cstr(buf_slice(&b), "12345"));
    cr_assert_eq(buf_printf(&b, "%03d", 7), ST_OK, "the NUL of printf must not count");
    cr_assert(slice_equal_cstr(buf_slice(&b), "12345007"));
    buf_deinit(&b);
}

Test(buf, prints_texts_of_any_length)
{
    for (int width = 1; width < 2000; width += 37) {
        struct buf b;
        buf_init(&b, 2000);
        cr_assert_eq(buf_printf(&b, "%*d", width, 5), ST_OK);
        cr_assert_eq(b.len, (size_t)width);
        cr_assert_eq(b.data[width - 1], '5');
        buf_deinit(&b);
    }
    struct buf b;
    buf_init(&b, 999);
    cr_assert_eq(buf_printf(&b, "%1000d", 5), ST_FULL);
    cr_assert_eq(b.len, 0);
    buf_deinit(&b);
}

Test(buf, consume_moves_the_rest_down)
{
    struct buf b;
    buf_init(&b, 100);
    buf_consume(&b, 0);
    cr_assert_eq(buf_put_cstr(&b, "hello world"), ST_OK);
    buf_consume(&b, 6);
    cr_assert(slice_equal_cstr(buf_slice(&b), "world"));
    buf_consume(&b, 5);
    cr_assert_eq(b.len, 0);
    cr_assert_eq(buf_put_cstr(&b, "again"), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&b), "again"));
    buf_deinit(&b);
}

Test(buf, deinit_leaves_zeroes)
{
    struct buf b, zero = {0};
    buf_init(&b, 100);
    cr_assert_eq(buf_put_cstr(&b, "x"), ST_OK);
    buf_deinit(&b);
    cr_assert_arr_eq(&b, &zero, sizeof b);
}
