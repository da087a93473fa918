#include "gateway/bridge_topics.h"

#include <criterion/criterion.h>

Test(bridge_topics, filters_that_overlap)
{
    static const struct {
        const char *a, *b;
        bool want;
    } rows[] = {
        {"a", "a", true},        {"a", "b", false},      {"a/#", "a", true},        {"a/#", "a/b/c", true},
        {"#", "x/y", true},      {"+", "x", true},       {"+", "x/y", false},       {"+/b", "a/+", true},
        {"+/b", "a/c", false},   {"a/b", "a/b/#", true}, {"a/b", "a/b/+", false},   {"a/+/c", "a/b/#", true},
        {"a//c", "a/+/c", true}, {"a/", "a", false},     {"a/+/c/#", "a/b", false}, {"a/+/#", "a/b", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice a = slice_cstr(rows[i].a), b = slice_cstr(rows[i].b);
        cr_assert_eq(bridge_filters_overlap(a, b), rows[i].want, "%s %s", rows[i].a, rows[i].b);
        cr_assert_eq(bridge_filters_overlap(b, a), rows[i].want, "%s %s", rows[i].b, rows[i].a);
    }
}

Test(bridge_topics, names_on_the_other_side)
{
    char bridge[] = "b", filter[] = "+/set", local[] = "here/", remote[] = "there/1/";
    struct bridge_topic_settings t = {.bridge = bridge,
                                      .filter = filter,
                                      .local_prefix = local,
                                      .remote_prefix = remote,
                                      .direction = BRIDGE_OUT};
    struct buf out;
    buf_init(&out, 100);
    cr_assert(bridge_topic_out(&t, slice_cstr("here/x/set"), &out));
    cr_assert(slice_equal_cstr(buf_slice(&out), "there/1/x/set"));
    cr_assert_not(bridge_topic_out(&t, slice_cstr("here/x/get"), &out));
    cr_assert_not(bridge_topic_out(&t, slice_cstr("her/x/set"), &out));
    cr_assert_not(bridge_topic_out(&t, slice_cstr("here/"), &out));
    cr_assert_not(bridge_topic_in(&t, slice_cstr("there/1/x/set"), &out), "it goes out only");
    t.direction = BRIDGE_BOTH;
    cr_assert(bridge_topic_in(&t, slice_cstr("there/1/y/set"), &out));
    cr_assert(slice_equal_cstr(buf_slice(&out), "here/y/set"));
    buf_deinit(&out);
}
