/* Idempotency-Key: quoted and bare are one. */
#include "gateway/http/once_key.h"

#include <criterion/criterion.h>
#include <stdio.h>

Test(once_key, forms)
{
    static const struct {
        const char *field, *want; /* NULL: refused */
    } rows[] = {
        {"k", "k"},
        {"\"k\"", "k"},
        {"\"a b\"", "a b"},
        {"a b", "a b"},
        {"8e03978e-40d5", "8e03978e-40d5"},
        {"\"a\\\"b\\\\c\"", "a\"b\\c"},
        {"a\"b", "a\"b"},
        {"a\\", "a\\"},
        {"\xc3\xa4", "\xc3\xa4"},
        {"", NULL},
        {"\"", NULL},
        {"\"\"", NULL},
        {"\"a", NULL},
        {"\"a\"b\"", NULL},
        {"\"a\\\"", NULL},
        {"\"a\\n\"", NULL},
        {"\"a\";x=1", NULL},
        {"\xff", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t space[ONCE_NAME_BYTES_MAX];
        struct slice got;
        bool valid = once_key_read(slice_cstr(rows[i].field), space, &got);
        cr_expect_eq(valid, rows[i].want != NULL, "%s", rows[i].field);
        if (valid)
            cr_expect(slice_equal_cstr(got, rows[i].want), "%s: %.*s", rows[i].field, SLICE_ARG(got));
    }
}

Test(once_key, length)
{
    char text[ONCE_NAME_BYTES_MAX + 8];
    uint8_t space[ONCE_NAME_BYTES_MAX];
    struct slice got;
    memset(text, 'k', sizeof text);
    cr_expect(once_key_read(slice_of(text, ONCE_NAME_BYTES_MAX), space, &got));
    cr_expect_not(once_key_read(slice_of(text, ONCE_NAME_BYTES_MAX + 1), space, &got));
    text[0] = text[ONCE_NAME_BYTES_MAX + 1] = '"';
    cr_expect(once_key_read(slice_of(text, ONCE_NAME_BYTES_MAX + 2), space, &got));
    cr_expect_eq(got.len, ONCE_NAME_BYTES_MAX);
}
