#include "core/json.h"

#include <criterion/criterion.h>

/* NUL inside a text needs an explicit length. */
#define TEXT(literal) slice_of(literal, sizeof(literal) - 1)

static const char *const valid[] = {
    "{}",
    "[]",
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "10",
    "1.5",
    "1e3",
    "1E+3",
    "1e-3",
    "-0.0e0",
    "123456789012345678901234567890",
    "1e999999",
    "\"\"",
    "\"a\"",
    " \t\r\n{} \t\r\n",
    "{\"a\":1}",
    "{ \"a\" : 1 , \"b\" : [ 1 , 2 , { } ] }",
    "{\"a\":1,\"a\":2}",
    "{\"\":0}",
    "[[],{},[[]]]",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\uD83D\\uDE00\"",
    "\"\xc3\xa9\"",
    "\"\xe2\x82\xac\"",
    "\"\xf0\x9f\x98\x80\"",
    "\"\x7f\"",
    "\"0123456789abcdef\xc3\xa9\"",
    "\"\xef\xbf\xbf\"",
};

static const char *const invalid[] = {
    "",
    " ",
    "{",
    "}",
    "[",
    "]",
    "{]",
    "[}",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\" 1}",
    "{\"a\":1,}",
    "{,}",
    "{a:1}",
    "{1:1}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1}}",
    "{}{}",
    "1 2",
    "nul",
    "nulll",
    "True",
    "NaN",
    "Infinity",
    "-",
    "-a",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "1.e1",
    "1e",
    "1e+",
    "0x1",
    "1_0",
    "\"",
    "\"a",
    "a\"",
    "\"\\\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\u12g4\"",
    "\"\\\"a",
    "\"\\",
    "\"\n\"",
    "\"\t\"",
    "\"\x01\"",
    "\"\x1f\"",
    "'a'",
    "\"\\ud83d\"",
    "\"\\ude00\"",
    "\"\\ud83d\\u0041\"",
    "\"\\ud83dx\"",
    "\"\\ude00\\ud83d\"",
    "\"\x80\"",
    "\"\xc3\"",
    "\"\xc0\x80\"",
    "\"\xed\xa0\x80\"",
    "\"\xf4\x90\x80\x80\"",
    "\"\xff\"",
    "\"abcdefgh\xff\"",
    "\xef\xbb\xbf{}",
    "//\n1",
    "[1]/**/",
    "\v1",
    "\xc2\xa0"
    "1",
    "{\"a\":1,\"b\"}",
    "[\"a\":1]",
    "{\"a\",1}",
    "{\"\xff\":1}",
};

/* A copy of exact size, so that AddressSanitizer sees a read behind the end. */
static bool valid_in_exact_memory(struct slice text)
{
    uint8_t *copy = malloc(text.len ? text.len : 1);
    if (text.len)
        memcpy(copy, text.data, text.len);
    bool ok = json_valid(slice_of(copy, text.len));
    free(copy);
    return ok;
}

Test(json_valid, takes_what_rfc_8259_allows)
{
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
        cr_assert(valid_in_exact_memory(slice_cstr(valid[i])), "%s", valid[i]);
}

Test(json_valid, rejects_everything_else)
{
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++)
        cr_assert_not(valid_in_exact_memory(slice_cstr(invalid[i])), "%s", invalid[i]);
    cr_assert_not(json_valid(TEXT("1\0")));
    cr_assert_not(json_valid(TEXT("\"\0\"")));
    cr_assert_not(json_valid(TEXT("\"\\\0\"")));
    cr_assert_not(json_valid((struct slice){NULL, 0}));
}

Test(json_valid, rejects_every_proper_beginning_of_a_container)
{
    static const char text[] =
        "{\"k\\u00e9y\":[true,false,null,-1.5e+3,\"a\\ud83d\\ude00\xc3\xa9z\",{\"x\":{}}]}";
    for (size_t len = 0; len < sizeof text - 1; len++)
        cr_assert_not(valid_in_exact_memory(slice_of(text, len)), "%.*s", (int)len, text);
    cr_assert(valid_in_exact_memory(TEXT(text)));
}

/* The string scan reads eight bytes at a time: a special byte must be seen at each place in the word. */
Test(json_valid, sees_a_special_byte_at_every_place)
{
    for (size_t len = 1; len < 40; len++)
        for (size_t at = 0; at < len; at++) {
            static const char bad[] = {'"', '\\', '\x1f', '\0', '\x80', '\xff'};
            for (size_t i = 0; i < sizeof bad; i++) {
                char text[64];
                memset(text, 'x', sizeof text);
                text[0] = '"';
                text[len + 1] = '"';
                text[at + 1] = bad[i];
                cr_assert_not(valid_in_exact_memory(slice_of(text, len + 2)), "len %zu at %zu byte %d", len,
                              at, bad[i]);
                text[at + 1] = '\x7f';
                cr_assert(valid_in_exact_memory(slice_of(text, len + 2)));
            }
        }
}

static struct slice nested(char *text, unsigned depth, const char *open, const char *close)
{
    text[0] = '\0';
    for (unsigned i = 0; i < depth; i++)
        strcat(text, open);
    if (open[0] == '{')
        strcat(text, "1");
    for (unsigned i = 0; i < depth; i++)
        strcat(text, close);
    return slice_cstr(text);
}

Test(json_valid, limits_the_depth)
{
    char text[1000];
    cr_assert(json_valid(nested(text, JSON_DEPTH_MAX, "[", "]")));
    cr_assert_not(json_valid(nested(text, JSON_DEPTH_MAX + 1, "[", "]")));
    cr_assert(json_valid(nested(text, JSON_DEPTH_MAX, "{\"a\":", "}")));
    cr_assert_not(json_valid(nested(text, JSON_DEPTH_MAX + 1, "{\"a\":", "}")));
    cr_assert(json_valid(nested(text, JSON_DEPTH_MAX / 2, "[{\"a\":", "}]")) == false,
              "[{\"a\":}] has no value");
    char *deep = malloc(1000000);
    memset(deep, '[', 1000000);
    cr_assert_not(json_valid(slice_of(deep, 1000000)));
    free(deep);
}

Test(json_read, tells_where_the_value_ends)
{
    struct json_value v;
    size_t used;
    cr_assert_eq(json_read(slice_cstr("  {\"a\":1}  {}"), &v, &used), ST_OK);
    cr_assert_eq(v.type, JSON_IS_OBJECT);
    cr_assert(slice_equal_cstr(v.raw, "{\"a\":1}"));
    cr_assert_eq(used, 9);
    cr_assert_eq(json_read(slice_cstr("nope"), &v, &used), ST_INVALID);
    cr_assert_eq(json_read(slice_cstr("   "), &v, &used), ST_INVALID);
    cr_assert_eq(used, 9, "untouched");
    static const struct {
        const char *text;
        enum json_type type;
    } rows[] = {{"null", JSON_IS_NULL}, {"true", JSON_IS_TRUE}, {"false", JSON_IS_FALSE},
                {"-1", JSON_IS_NUMBER}, {"0", JSON_IS_NUMBER},  {"\"x\"", JSON_IS_STRING},
                {"[]", JSON_IS_ARRAY},  {"{}", JSON_IS_OBJECT}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert_eq(json_read(slice_cstr(rows[i].text), &v, &used), ST_OK);
        cr_assert_eq(v.type, rows[i].type, "%s", rows[i].text);
    }
}

Test(json_member, walks_in_order)
{
    struct slice object = slice_cstr(" { \"id\" : 4 , \"p\\u0075b\":{\"t\":[1,2]},\"x\":null } ");
    size_t place = 0;
    struct slice key;
    struct json_value v;
    cr_assert_eq(json_member(object, &place, &key, &v), ST_OK);
    cr_assert(json_key_is(key, "id"));
    cr_assert(slice_equal_cstr(v.raw, "4"));
    cr_assert_eq(json_member(object, &place, &key, &v), ST_OK);
    cr_assert(slice_equal_cstr(key, "p\\u0075b"));
    cr_assert(json_key_is(key, "pub"));
    cr_assert(slice_equal_cstr(v.raw, "{\"t\":[1,2]}"));
    cr_assert_eq(json_member(object, &place, &key, &v), ST_OK);
    cr_assert_eq(v.type, JSON_IS_NULL);
    size_t at_end = place;
    cr_assert_eq(json_member(object, &place, &key, &v), ST_NOT_FOUND);
    cr_assert_eq(json_member(object, &place, &key, &v), ST_NOT_FOUND);
    cr_assert_eq(place, at_end);
}

Test(json_member, rejects_malformed_objects)
{
    static const char *const bad[] = {"",           " ",           "[]",
                                      "1",          "{",           "{\"a\":1",
                                      "{\"a\":1,}", "{\"a\" 1}",   "{,}",
                                      "{\"a\":1}x", "{\"a\":1 1}", "{a:1}",
                                      "{\"a\":01}", "{\"a\":}",    "{\"a\":\"\xff\"}",
                                      "{\"a\":1]",  "{}}",         "{\"a\":1;}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t place = 0;
        struct slice key;
        struct json_value v;
        enum status st;
        while ((st = json_member(slice_cstr(bad[i]), &place, &key, &v)) == ST_OK)
            ;
        cr_assert_eq(st, ST_INVALID, "%s", bad[i]);
    }
}

Test(json_element, walks_in_order)
{
    struct slice array = slice_cstr("[1, [2,3] ,\"4\"]");
    static const char *const want[] = {"1", "[2,3]", "\"4\""};
    size_t place = 0;
    struct json_value v;
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(json_element(array, &place, &v), ST_OK);
        cr_assert(slice_equal_cstr(v.raw, want[i]));
    }
    cr_assert_eq(json_element(array, &place, &v), ST_NOT_FOUND);
    static const char *const bad[] = {"",    "{}",    "[",   "[1",  "[1,",  "[1,]",
                                      "[,]", "[1 2]", "[1}", "[]]", "[tru]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        place = 0;
        enum status st;
        while ((st = json_element(slice_cstr(bad[i]), &place, &v)) == ST_OK)
            ;
        cr_assert_eq(st, ST_INVALID, "%s", bad[i]);
    }
}

Test(json_key_is, knows_escapes)
{
    static const struct {
        const char *raw, *name;
        bool equal;
    } rows[] = {
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"pub", "pub", true},
        {"pub", "pu", false},
        {"pu", "pub", false},
        {"\\u0070ub", "pub", true},
        {"p\\u0075", "pub", false},
        {"a\\nb", "a\nb", true},
        {"\\u00e9", "\xc3\xa9", true},
        {"\\ud83d\\ude00", "\xf0\x9f\x98\x80", true},
        {"a\\u0000", "a", false},
        {"a\\u0000b", "a", false},
        {"\\/", "/", true},
        {"\\u20ac", "\xe2\x82\xac", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_assert_eq(json_key_is(slice_cstr(rows[i].raw), rows[i].name), rows[i].equal, "row %zu", i);
}

Test(json_find, takes_the_first_of_that_name)
{
    struct slice object = slice_cstr("{\"a\":1,\"b\":2,\"\\u0062\":3}");
    struct json_value v;
    cr_assert_eq(json_find(object, "b", &v), ST_OK);
    cr_assert(slice_equal_cstr(v.raw, "2"));
    cr_assert_eq(json_find(object, "c", &v), ST_NOT_FOUND);
    cr_assert_eq(json_find(slice_cstr("{\"a\":1,}"), "c", &v), ST_INVALID);
    cr_assert(slice_equal_cstr(v.raw, "2"), "untouched");
}

static enum status read_uint(const char *text, uint64_t *out)
{
    struct json_value v;
    size_t used;
    enum status st = json_read(slice_cstr(text), &v, &used);
    return st == ST_OK ? json_uint(v, out) : st;
}

Test(json_uint, takes_0_to_2_to_the_53_less_1)
{
    uint64_t n = 7;
    static const char *const bad[] = {
        "-1",    "-0",   "1.0", "1e3", "9007199254740992", "10000000000000000", "99999999999999999999999",
        "\"1\"", "null", "[1]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(read_uint(bad[i], &n), ST_INVALID, "%s", bad[i]);
    cr_assert_eq(n, 7, "untouched");
    cr_assert_eq(read_uint("0", &n), ST_OK);
    cr_assert_eq(n, 0);
    cr_assert_eq(read_uint("9007199254740991", &n), ST_OK);
    cr_assert_eq(n, 9007199254740991u);
    cr_assert_eq(json_uint((struct json_value){JSON_IS_NUMBER, slice_cstr("01")}, &n), ST_INVALID);
}

Test(json_text, resolves_escapes)
{
    static const struct {
        const char *raw;
        struct slice want;
    } rows[] = {
        {"\"\"", {(const uint8_t *)"", 0}},
        {"\"plain\"", {(const uint8_t *)"plain", 5}},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", {(const uint8_t *)"\"\\/\b\f\n\r\t", 8}},
        {"\"a\\u0000b\"", {(const uint8_t *)"a\0b", 3}},
        {"\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"",
         {(const uint8_t *)"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 11}},
        {"\"\\ud800\\udc00\\udbff\\udfff\"", {(const uint8_t *)"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct buf out;
        struct json_value v;
        size_t used;
        buf_init(&out, rows[i].want.len + 1); /* the limit counts the text, not its escapes */
        cr_assert_eq(buf_put_byte(&out, '>'), ST_OK);
        cr_assert_eq(json_read(slice_cstr(rows[i].raw), &v, &used), ST_OK);
        cr_assert_eq(json_text(v, &out), ST_OK, "row %zu", i);
        cr_assert(slice_equal(slice_from(buf_slice(&out), 1), rows[i].want), "row %zu", i);
        buf_deinit(&out);
    }
}

Test(json_text, refuses_other_types_and_full_buffers)
{
    struct buf out;
    buf_init(&out, 3);
    cr_assert_eq(json_text((struct json_value){JSON_IS_NUMBER, slice_cstr("12")}, &out), ST_INVALID);
    cr_assert_eq(json_text((struct json_value){JSON_IS_STRING, slice_cstr("\"abcd\"")}, &out), ST_FULL);
    cr_assert_eq(json_text((struct json_value){JSON_IS_STRING, slice_cstr("\"a\\nbc\"")}, &out), ST_FULL);
    cr_assert_eq(json_text((struct json_value){JSON_IS_STRING, slice_cstr("\"a\\xbc\"")}, &out), ST_INVALID);
    cr_assert_eq(out.len, 0);
    buf_deinit(&out);
}

Test(json_put_string, escapes_what_must_be_and_comes_back)
{
    struct buf text, json, back;
    buf_init(&text, 1000);
    buf_init(&json, 10000);
    buf_init(&back, 1000);
    for (unsigned c = 0; c < 128; c++)
        cr_assert_eq(buf_put_byte(&text, (uint8_t)c), ST_OK);
    cr_assert_eq(buf_put_cstr(&text, "\xc3\xa9\xf0\x9f\x98\x80"), ST_OK);
    cr_assert_eq(json_put_string(&json, buf_slice(&text)), ST_OK);
    cr_assert(json_valid(buf_slice(&json)));
    cr_assert_eq(json_text((struct json_value){JSON_IS_STRING, buf_slice(&json)}, &back), ST_OK);
    cr_assert(slice_equal(buf_slice(&back), buf_slice(&text)));

    buf_clear(&json);
    cr_assert_eq(json_put_string(&json, slice_cstr("a\"\\\n\x1f/")), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&json), "\"a\\\"\\\\\\n\\u001f/\""));
    buf_clear(&json);
    cr_assert_eq(json_put_string(&json, (struct slice){NULL, 0}), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&json), "\"\""));
    buf_deinit(&text);
    buf_deinit(&json);
    buf_deinit(&back);
}

Test(json_put_string, is_all_or_nothing)
{
    struct buf out;
    buf_init(&out, 8);
    cr_assert_eq(json_put_string(&out, slice_cstr("\x01x")), ST_FULL, "needs 9");
    cr_assert_eq(out.len, 0);
    cr_assert_eq(json_put_string(&out, slice_cstr("\x01")), ST_OK);
    cr_assert_eq(out.len, 8);
    buf_deinit(&out);
}

Test(json_put_embedded, leaves_no_raw_line_end)
{
    struct buf out;
    buf_init(&out, 1000);
    cr_assert_eq(json_put_embedded(&out, slice_cstr("{\r\n\t\"a\\n\": [1,\n2]\n}\n")), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&out), "{  \t\"a\\n\": [1, 2] } "));
    cr_assert_eq(json_put_embedded(&out, (struct slice){NULL, 0}), ST_OK);
    buf_deinit(&out);
}
