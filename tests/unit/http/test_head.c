#include "gateway/http/head.h"

#include <criterion/criterion.h>

static void add(struct head *h, const char *name, const char *value)
{
    head_add(h, slice_cstr(name), slice_cstr(value));
}

Test(http_head, finds_fields_in_any_case_and_trims_values)
{
    struct head h = {0};
    add(&h, "HOST", " \t a.example \t");
    add(&h, "content-type", "text/plain");
    add(&h, "Accept", "*/*");
    cr_expect(head_has(&h, HEAD_HOST) && slice_equal_cstr(h.fields[HEAD_HOST], "a.example"));
    cr_expect(slice_equal_cstr(h.fields[HEAD_CONTENT_TYPE], "text/plain"));
    cr_expect(!head_has(&h, HEAD_ORIGIN) && h.fields[HEAD_ORIGIN].len == 0);
    cr_expect(!h.bad_name && !h.repeated && !h.unknown_tidegate);
}

Test(http_head, an_empty_value_is_given)
{
    struct head h = {0};
    add(&h, "Origin", "");
    cr_expect(head_has(&h, HEAD_ORIGIN));
}

Test(http_head, tells_what_was_given_twice)
{
    static const struct {
        const char *name;
        bool repeated;
    } rows[] = {
        {"Host", true},
        {"Content-Length", true},
        {"Origin", true},
        {"Authorization", true},
        {"Content-Type", true},
        {"Tidegate-Ttl-Ms", true},
        {"X-Forwarded-For", false},
        {"Forwarded", false},
        {"Accept", false},
        {"Transfer-Encoding", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct head h = {0};
        add(&h, rows[i].name, "1");
        cr_expect(!h.repeated, "%s", rows[i].name);
        add(&h, rows[i].name, "1");
        cr_expect_eq(h.repeated != NULL, rows[i].repeated, "%s", rows[i].name);
    }
}

Test(http_head, knows_tokens)
{
    static const struct {
        struct slice name;
        bool bad;
    } rows[] = {
        {{(const uint8_t *)"X-T_1!#$%&'*+.^`|~", 18}, false},
        {{(const uint8_t *)"", 0}, true},
        {{(const uint8_t *)"X T", 3}, true},
        {{(const uint8_t *)"X-T ", 4}, true},
        {{(const uint8_t *)"X\0T", 3}, true},
        {{(const uint8_t *)"X:T", 3}, true},
        {{(const uint8_t *)"X\xc3\xa4", 3}, true},
        {{(const uint8_t *)"(X)", 3}, true},
        {{(const uint8_t *)"@", 1}, true},
        {{(const uint8_t *)"[", 1}, true},
        {{(const uint8_t *)"{", 1}, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct head h = {0};
        head_add(&h, rows[i].name, slice_cstr("1"));
        cr_expect_eq(h.bad_name, rows[i].bad, "row %zu: %.*s", i, SLICE_ARG(rows[i].name));
    }
}

Test(http_head, notices_a_tidegate_field_it_does_not_know)
{
    struct head h = {0};
    add(&h, "Tidegate-Key", "k");
    add(&h, "tidegate-retain", "1");
    cr_expect(!h.unknown_tidegate && head_has(&h, HEAD_RETAIN));
    add(&h, "tidegate-TTL", "1");
    cr_expect(h.unknown_tidegate);
}
