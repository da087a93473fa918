#include "gateway/content.h"

#include <criterion/criterion.h>

/* PROTOCOL.md 2, "Content class". */
Test(content, of_type_and_payload)
{
    static const struct {
        const char *type, *payload;
        int want; /* enum content_class, -1: refused */
    } rows[] = {
        {"", "{\"a\":1}", CONTENT_JSON},
        {"", "[1,2]", CONTENT_JSON},
        {"", " \t\r\n{}", CONTENT_JSON},
        {"", "{broken", CONTENT_TEXT},
        {"", "{\"a\":1} x", CONTENT_TEXT},
        {"", "21.5", CONTENT_TEXT},
        {"", "true", CONTENT_TEXT},
        {"", "\"text\"", CONTENT_TEXT},
        {"", "", CONTENT_TEXT},
        {"", "gr\xc3\xbc\xc3\x9f", CONTENT_TEXT},
        {"", "\xff\xfe", CONTENT_BINARY},
        {"", "{\"a\":\"\xff\"}", CONTENT_BINARY},
        {"application/json", "{}", CONTENT_JSON},
        {"application/json", "21.5", CONTENT_JSON},
        {"application/json", "\"text\"", CONTENT_JSON},
        {"application/json", "{broken", -1},
        {"application/json", "", -1},
        {"application/json", "\"\xff\"", -1},
        {"APPLICATION/JSON", "{broken", -1},
        {"application/json; charset=utf-8", "{}", CONTENT_JSON},
        {"application/json \t;x", "{broken", -1},
        {"application/geo+json", "{broken", -1},
        {"application/cloudevents+json;v=1", "{}", CONTENT_JSON},
        {"application/jsonx", "{broken", CONTENT_TEXT},
        {"xapplication/json", "{broken", CONTENT_TEXT},
        {"text/plain", "{}", CONTENT_TEXT},
        {"text/plain", "x", CONTENT_TEXT},
        {"Text/HTML;q", "[1]", CONTENT_TEXT},
        {"text/plain", "\xff", CONTENT_BINARY},
        {"image/png", "\x89PNG", CONTENT_BINARY},
        {"image/png", "{}", CONTENT_JSON},
        {"application/octet-stream", "hello", CONTENT_TEXT},
        {";", "{}", CONTENT_JSON},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum content_class got = (enum content_class)99;
        enum status st = content_classify(slice_cstr(rows[i].type), slice_cstr(rows[i].payload), &got);
        if (rows[i].want < 0) {
            cr_expect_eq(st, ST_INVALID, "row %zu: \"%s\" \"%s\"", i, rows[i].type, rows[i].payload);
            cr_expect_eq(got, 99, "row %zu: untouched", i);
        } else {
            cr_expect_eq(st, ST_OK, "row %zu: \"%s\" \"%s\"", i, rows[i].type, rows[i].payload);
            cr_expect_eq((int)got, rows[i].want, "row %zu: \"%s\" \"%s\" is %d", i, rows[i].type,
                         rows[i].payload, (int)got);
        }
    }
}

Test(content, a_nul_is_not_the_end)
{
    enum content_class got;
    const char payload[] = "{}\0\xff";
    cr_assert_eq(content_classify((struct slice){0}, slice_of(payload, sizeof payload - 1), &got), ST_OK);
    cr_expect_eq(got, CONTENT_BINARY);
}
