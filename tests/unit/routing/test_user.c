#include "routing/user.h"

#include "routing/topic.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct slice inbox(struct slice user, const char *below, char *space, size_t size)
{
    struct buf b;
    buf_init(&b, 1024);
    cr_assert_eq(user_put_inbox(&b, user, slice_cstr(below)), ST_OK);
    cr_assert_leq(b.len, size);
    memcpy(space, b.data, b.len);
    struct slice text = slice_of(space, b.len);
    buf_deinit(&b);
    return text;
}

Test(user, is_encoded_in_topics)
{
    static const struct {
        const char *user;
        size_t len; /* 0: strlen */
        const char *want;
    } rows[] = {
        {"alice", 0, "alice"},
        {"a b", 0, "a b"},
        {"a/b", 0, "a%2Fb"},
        {"100%", 0, "100%25"},
        {"a%2Fb", 0, "a%252Fb"},
        {"+", 0, "%2B"},
        {"#", 0, "%23"},
        {"$sys", 0, "$sys"},
        {"..", 0, ".."},
        {"a\nb\x7f", 0, "a%0Ab%7F"},
        {"a\0b", 3, "a%00b"},
        {"\xc2\x80\xc2\x9f\xc2\xa0", 0, "%C2%80%C2%9F\xc2\xa0"}, /* U+0080, U+009F are control characters */
        {"J\xc3\xb6rg \xf0\x9f\x90\x9f", 0, "J\xc3\xb6rg \xf0\x9f\x90\x9f"},
    };
    const struct topic_limits limits = {1024, 32};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char space[256], want[256];
        struct slice user = slice_of(rows[i].user, rows[i].len ? rows[i].len : strlen(rows[i].user)), id;
        struct slice name = inbox(user, "x/y", space, sizeof space);
        snprintf(want, sizeof want, "$user/%s/x/y", rows[i].want);
        cr_expect(slice_equal_cstr(name, want), "row %zu: %.*s", i, SLICE_ARG(name));
        cr_expect(user_valid(user) && topic_name_valid(name, &limits), "row %zu", i);
        cr_expect(topic_user(name, &id) && slice_equal_cstr(id, rows[i].want), "row %zu", i);
    }
}

Test(user, has_an_inbox_and_what_is_below)
{
    char space[64];
    cr_expect(slice_equal_cstr(inbox(slice_cstr("u"), "", space, sizeof space), "$user/u"));
    cr_expect(slice_equal_cstr(inbox(slice_cstr("u"), "#", space, sizeof space), "$user/u/#"));
}

Test(user, is_refused_when_it_is_no_text)
{
    cr_expect_not(user_valid(slice_of("", 0)));
    cr_expect_not(user_valid(slice_cstr("\xff")));
    cr_expect_not(user_valid(slice_cstr("\xc2")));
}

Test(user, takes_no_more_room_than_there_is)
{
    struct buf b;
    buf_init(&b, 10);
    cr_expect_eq(user_put_inbox(&b, slice_cstr("////"), (struct slice){0}), ST_FULL);
    buf_deinit(&b);
}
