#include "core/base64.h"

#include <criterion/criterion.h>

/* RFC 4648, section 10, and the two letters it does not use. */
static const struct {
    const char *bytes, *text;
} vectors[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xfb\xff\xbf", "+/+/"},
};

Test(base64, agrees_with_rfc_4648)
{
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        struct buf text, bytes;
        buf_init(&text, 100);
        buf_init(&bytes, 100);
        cr_assert_eq(base64_encode(slice_cstr(vectors[i].bytes), &text), ST_OK);
        cr_assert(slice_equal_cstr(buf_slice(&text), vectors[i].text), "row %zu: %.*s", i,
                  SLICE_ARG(buf_slice(&text)));
        cr_assert_eq(base64_decode(slice_cstr(vectors[i].text), &bytes), ST_OK);
        cr_assert(slice_equal_cstr(buf_slice(&bytes), vectors[i].bytes), "row %zu", i);
        buf_deinit(&text);
        buf_deinit(&bytes);
    }
}

Test(base64, decodes_only_the_canonical_form)
{
    static const char *const bad[] = {
        "Z",   "Zg",       "Zg=",  "Zg===",  "=",    "====", "Z===", "Zh==",       "Zm9=",
        "Zm8", "Zg==Zg==", "Z=g=", "Zm9v\n", "Zm 9", "Zm9-", "Zm9_", "Zm\xc3\xa9", "Zg=a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf bytes;
        buf_init(&bytes, 100);
        cr_assert_eq(base64_decode(slice_cstr(bad[i]), &bytes), ST_INVALID, "\"%s\"", bad[i]);
        cr_assert_eq(bytes.len, 0, "\"%s\" left something behind", bad[i]);
        buf_deinit(&bytes);
    }
}

Test(base64, round_trips_every_byte_at_every_length)
{
    uint8_t bytes[256];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 167 + 13);
    for (size_t len = 0; len <= sizeof bytes; len++) {
        struct buf text, back;
        buf_init(&text, 1000);
        buf_init(&back, 1000);
        cr_assert_eq(base64_encode(slice_of(bytes, len), &text), ST_OK);
        cr_assert_eq(base64_decode(buf_slice(&text), &back), ST_OK);
        cr_assert(slice_equal(buf_slice(&back), slice_of(bytes, len)));
        buf_deinit(&text);
        buf_deinit(&back);
    }
}

Test(base64, respects_the_limit_of_the_buffer)
{
    struct buf out;
    buf_init(&out, 5);
    cr_assert_eq(base64_encode(slice_cstr("foob"), &out), ST_FULL);
    cr_assert_eq(out.len, 0);
    cr_assert_eq(base64_decode(slice_cstr("Zm9vYmFy"), &out), ST_FULL);
    cr_assert_eq(base64_decode(slice_cstr("Zm9vYmE="), &out), ST_OK);
    cr_assert_eq(out.len, 5);
    buf_deinit(&out);
}

Test(base64, has_a_form_for_urls)
{
    static const char *const bad[] = {"Z",     "Zg==", "Zg=",   "Zh",   "Zm9",
                                      "Zm9v+", "+/+/", "Zm9vZ", "Zm\n", "===="};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        struct buf text, bytes;
        buf_init(&text, 100);
        buf_init(&bytes, 100);
        cr_assert_eq(base64url_encode(slice_cstr(vectors[i].bytes), &text), ST_OK);
        cr_expect_not(text.len > 0 && (memchr(text.data, '=', text.len) || memchr(text.data, '+', text.len)));
        cr_assert_eq(base64url_decode(buf_slice(&text), &bytes), ST_OK);
        cr_expect(slice_equal_cstr(buf_slice(&bytes), vectors[i].bytes), "row %zu", i);
        buf_deinit(&text);
        buf_deinit(&bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf bytes;
        buf_init(&bytes, 100);
        cr_expect_eq(base64url_decode(slice_cstr(bad[i]), &bytes), ST_INVALID, "%s", bad[i]);
        cr_expect_eq(bytes.len, 0u);
        buf_deinit(&bytes);
    }
}
