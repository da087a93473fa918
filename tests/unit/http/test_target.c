#include "gateway/target.h"

#include <criterion/criterion.h>

/* Exactly as large as the target: a byte beyond it is a sanitizer's finding. */
static enum target_flaw parse(const char *raw, uint8_t **space, struct target *out)
{
    struct slice text = slice_cstr(raw);
    *space = malloc(text.len + (text.len == 0));
    return target_parse(text, *space, out);
}

Test(http_target, splits_before_it_decodes)
{
    static const struct {
        const char *raw, *path, *query;
    } rows[] = {
        {"/", "/", ""},
        {"/healthz", "/healthz", ""},
        {"/v1/publish/a/b", "/v1/publish/a/b", ""},
        {"/v1/publish/a%20b/%C3%A4", "/v1/publish/a b/\xc3\xa4", ""},
        {"/v1/publish/%252F", "/v1/publish/%2F", ""},
        {"/v1/publish/a+b", "/v1/publish/a+b", ""},
        {"/v1/publish/...", "/v1/publish/...", ""},
        {"/v1/publish/.a", "/v1/publish/.a", ""},
        {"/v1/publish/..a", "/v1/publish/..a", ""},
        {"/v1/publish/%23", "/v1/publish/#", ""},
        {"/v1/publish/a%3Fb?x=1", "/v1/publish/a?b", "x=1"},
        {"/v1/publish?topic=a//b", "/v1/publish", "topic=a//b"},
        {"/a?", "/a", ""},
        {"/a??b", "/a", "?b"},
        {"/?a", "/", "a"},
        {"/a?../%2F", "/a", "../%2F"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *space;
        struct target t = {0};
        cr_expect_eq(parse(rows[i].raw, &space, &t), TARGET_FINE, "%s", rows[i].raw);
        cr_expect(slice_equal_cstr(t.path, rows[i].path), "%s: %.*s", rows[i].raw, SLICE_ARG(t.path));
        cr_expect(slice_equal_cstr(t.query, rows[i].query), "%s: %.*s", rows[i].raw, SLICE_ARG(t.query));
        free(space);
    }
}

Test(http_target, refuses_what_others_would_rewrite)
{
    static const struct {
        const char *raw;
        enum target_flaw want;
    } rows[] = {
        {"", TARGET_NOT_ORIGIN_FORM},         {"*", TARGET_NOT_ORIGIN_FORM},
        {"foo", TARGET_NOT_ORIGIN_FORM},      {"http://evil/v1/publish/a", TARGET_NOT_ORIGIN_FORM},
        {"?topic=a", TARGET_NOT_ORIGIN_FORM}, {"/a#b", TARGET_BAD_BYTE},
        {"/a?b#c", TARGET_BAD_BYTE},          {"/a b", TARGET_BAD_BYTE},
        {"/a\tb", TARGET_BAD_BYTE},           {"/a\x7f", TARGET_BAD_BYTE},
        {"/a%", TARGET_BAD_PERCENT},          {"/a%2", TARGET_BAD_PERCENT},
        {"/a%zz", TARGET_BAD_PERCENT},        {"/a%2/f", TARGET_BAD_PERCENT},
        {"/a%+1", TARGET_BAD_PERCENT},        {"//", TARGET_EMPTY_SEGMENT},
        {"//a", TARGET_EMPTY_SEGMENT},        {"/a//b", TARGET_EMPTY_SEGMENT},
        {"/a//", TARGET_EMPTY_SEGMENT},       {"/a//?topic=b", TARGET_EMPTY_SEGMENT},
        {"/.", TARGET_DOT_SEGMENT},           {"/a/..", TARGET_DOT_SEGMENT},
        {"/a/../b", TARGET_DOT_SEGMENT},      {"/a/./b", TARGET_DOT_SEGMENT},
        {"/a/%2e%2E/b", TARGET_DOT_SEGMENT},  {"/a/.%2e", TARGET_DOT_SEGMENT},
        {"/a%2Fb", TARGET_ENCODED_SLASH},     {"/a%2fb", TARGET_ENCODED_SLASH},
        {"/%2F", TARGET_ENCODED_SLASH},       {"/a%00", TARGET_ENCODED_NUL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *space;
        struct target t;
        enum target_flaw got = parse(rows[i].raw, &space, &t);
        cr_expect_eq(got, rows[i].want, "%s: %d", rows[i].raw, got);
        cr_expect(strlen(target_flaw_text(got)) > 0, "%s", rows[i].raw);
        free(space);
    }
}

Test(http_target, tells_of_a_trailing_slash)
{
    static const struct {
        const char *raw, *path;
        bool want;
    } rows[] = {{"/", "/", false},
                {"/?a/", "/", false},
                {"/a", "/a", false},
                {"/a/", "/a", true},
                {"/a/?b", "/a", true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *space;
        struct target t;
        cr_assert_eq(parse(rows[i].raw, &space, &t), TARGET_FINE, "%s", rows[i].raw);
        cr_expect_eq(t.trailing_slash, rows[i].want, "%s", rows[i].raw);
        cr_expect(slice_equal_cstr(t.path, rows[i].path), "%s", rows[i].raw);
        free(space);
    }
}

Test(http_target, names_the_way_out)
{
    for (enum target_flaw flaw = TARGET_EMPTY_SEGMENT; flaw <= TARGET_ENCODED_NUL; flaw++)
        cr_expect(strstr(target_flaw_text(flaw), "?topic="), "%d", flaw);
}

Test(http_target, reads_parameters)
{
    static const struct {
        const char *raw, *want; /* name=value|name=value| */
    } rows[] = {
        {"/", ""},
        {"/?", ""},
        {"/?&&", ""},
        {"/?a=1", "a=1|"},
        {"/?a=1&b=2", "a=1|b=2|"},
        {"/?&a=1&&b=2&", "a=1|b=2|"},
        {"/?a", "a=|"},
        {"/?a=", "a=|"},
        {"/?=b", "=b|"},
        {"/?a=b=c", "a=b=c|"},
        {"/?a=%26%3D", "a=&=|"},
        {"/?%61=%2561", "a=%61|"},
        {"/?a=x+y", "a=x y|"},
        {"/?a=%2B", "a=+|"},
        {"/?a=+", "a=+|"},
        {"/?a=++", "a=  |"},
        {"/?a=x/+/y", "a=x/+/y|"},
        {"/?a=x/+", "a=x/+|"},
        {"/?a=+/y", "a=+/y|"},
        {"/?a=x%2F+%2fy", "a=x/+/y|"},
        {"/?a=x/+y", "a=x/ y|"},
        {"/?a=x+/y", "a=x /y|"},
        {"/?a=/+/+/", "a=/+/+/|"},
        {"/?a=+%2", "!"},
        {"/?a=%zz", "!"},
        {"/?%=1", "!"},
        {"/?ok=1&a=%", "ok=1|!"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t *space;
        struct target t;
        struct slice name, value;
        char got[200] = "";
        enum status st;
        cr_assert_eq(parse(rows[i].raw, &space, &t), TARGET_FINE, "%s", rows[i].raw);
        while ((st = target_parameter(&t, &name, &value)) == ST_OK) {
            strncat(got, (const char *)name.data, name.len);
            strcat(got, "=");
            strncat(got, (const char *)value.data, value.len);
            strcat(got, "|");
        }
        if (st == ST_INVALID)
            strcat(got, "!");
        cr_expect_str_eq(got, rows[i].want, "%s", rows[i].raw);
        free(space);
    }
}
