/* Identities of publishes, as properties of messages and as text. */
#include "routing/once_id.h"

#include <criterion/criterion.h>
#include <stdio.h>

static char long_name[ONCE_NAME_BYTES_MAX + 2];

Test(once_id, is_read_as_it_was_written)
{
    memset(long_name, 'n', ONCE_NAME_BYTES_MAX);
    const struct once_id ids[] = {
        {ONCE_PRODUCER, {0}, slice_cstr("p"), 0},
        {ONCE_PRODUCER, slice_cstr("alice"), slice_cstr("p1"), 17},
        {ONCE_PRODUCER, {0}, slice_of(long_name, ONCE_NAME_BYTES_MAX), ONCE_SEQUENCE_MAX},
        {ONCE_KEY, slice_cstr("bob"), slice_cstr("8e03978e-40d5-43dd-bc93-6894a57f9324"), UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        uint8_t props[2 * ONCE_PROP_BYTES_MAX] = {PROP_CONTENT_TYPE, 1, 0, 'x'};
        size_t len = 4 + once_id_write(&ids[i], props + 4);
        struct once_id got;
        cr_assert(props_valid(slice_of(props, len)));
        cr_assert(once_id_read(slice_of(props, len), &got), "row %zu", i);
        cr_expect_eq(got.kind, ids[i].kind);
        cr_expect_eq(got.value, ids[i].value);
        cr_expect(slice_equal(got.principal, ids[i].principal) && slice_equal(got.name, ids[i].name),
                  "row %zu", i);
        for (size_t cut = 5; cut < len; cut++) /* a length that does not hold is no property at all */
            cr_expect_not(once_id_read(slice_of(props, cut), &got), "row %zu cut at %zu", i, cut);
    }
}

Test(once_id, what_is_malformed_is_none)
{
    static const struct {
        size_t len;
        uint8_t bytes[16];
    } rows[] = {
        {9, {1}}, /* no principal's length */
        {10, {1}}, /* no name */
        {11, {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 'p'}}, /* the principal is longer than what is there */
        {11, {0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 'p'}}, /* 2^53 */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t props[32] = {PROP_PRODUCER, (uint8_t)rows[i].len, 0};
        struct once_id got;
        memcpy(props + 3, rows[i].bytes, rows[i].len);
        cr_expect_not(once_id_read(slice_of(props, 3 + rows[i].len), &got), "row %zu", i);
    }
}

Test(once_id, digests_differ_by_what_a_repetition_must_repeat)
{
    struct slice a = slice_cstr("a"), b = slice_cstr("b"), none = {0};
    uint64_t digests[] = {once_digest(a, none, none, false), once_digest(b, none, none, false),
                          once_digest(none, a, none, false), once_digest(none, none, a, false),
                          once_digest(a, none, none, true),  once_digest(a, b, none, false),
                          once_digest(a, none, b, false)};
    for (size_t i = 0; i < sizeof digests / sizeof digests[0]; i++)
        for (size_t k = 0; k < i; k++)
            cr_expect_neq(digests[i], digests[k], "%zu and %zu", i, k);
    cr_expect_eq(once_digest(a, b, none, false), digests[5]);
    cr_expect_eq(digests[0], UINT64_C(0x7c0c9ddc117042b1),
                 "the value stands in logs: it must never change (is %lx)", (unsigned long)digests[0]);
}

Test(once_id, sequences_as_text)
{
    static const struct {
        const char *text;
        bool valid;
        uint64_t value;
    } rows[] = {
        {"0", true, 0},
        {"17", true, 17},
        {"9007199254740991", true, ONCE_SEQUENCE_MAX},
        {"9007199254740992", false, 0},
        {"99999999999999999", false, 0},
        {"", false, 0},
        {"01", false, 0},
        {"-1", false, 0},
        {"+1", false, 0},
        {" 1", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t got = 0;
        cr_expect_eq(once_sequence_read(slice_cstr(rows[i].text), &got), rows[i].valid, "\"%s\"",
                     rows[i].text);
        if (rows[i].valid)
            cr_expect_eq(got, rows[i].value, "\"%s\"", rows[i].text);
    }
}

Test(once_id, names)
{
    memset(long_name, 'n', ONCE_NAME_BYTES_MAX + 1);
    cr_expect(once_name_valid(slice_of(long_name, ONCE_NAME_BYTES_MAX)));
    cr_expect_not(once_name_valid(slice_of(long_name, ONCE_NAME_BYTES_MAX + 1)));
    cr_expect_not(once_name_valid((struct slice){0}));
    cr_expect_not(once_name_valid(slice_of("a\0b", 3)));
    cr_expect_not(once_name_valid(slice_cstr("\xff")));
    cr_expect(once_name_valid(slice_cstr("\xc3\xa4 b")));
}
