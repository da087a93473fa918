#include "routing/topic.h"

#include "core/hash.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct topic_limits limits = {.bytes_max = 1024, .levels_max = 32};

struct valid_row {
    const char *text;
    size_t len; /* 0: strlen */
    bool name, filter;
};

/* clang-format off */
static const struct valid_row valid_rows[] = {
    /* MQTT 5.0, 4.7.1.2 (#) */
    {"sport/tennis/player1", 0, true, true},
    {"sport/tennis/player1/#", 0, false, true},
    {"#", 0, false, true},
    {"sport/tennis/#", 0, false, true},
    {"sport/tennis#", 0, false, false},
    {"sport/tennis/#/ranking", 0, false, false},
    {"#/sport", 0, false, false},
    {"##", 0, false, false},
    {"#/#", 0, false, false},
    {"/#", 0, false, true},
    {"#/", 0, false, false},
    /* 4.7.1.3 (+) */
    {"+", 0, false, true},
    {"+/tennis/#", 0, false, true},
    {"sport+", 0, false, false},
    {"+sport", 0, false, false},
    {"sport/+/player1", 0, false, true},
    {"++", 0, false, false},
    {"+#", 0, false, false},
    {"+/#", 0, false, true},
    {"/+", 0, false, true},
    {"+/", 0, false, true},
    {"+/+", 0, false, true},
    {"a/b+/c", 0, false, false},
    /* 4.7.2, 4.7.3 */
    {"$SYS/#", 0, false, true},
    {"$SYS/monitor/Clients", 0, true, true},
    {"$", 0, true, true},
    {"/", 0, true, true},
    {"//", 0, true, true},
    {"/finance", 0, true, true},
    {"Accounts payable", 0, true, true},
    {"", 0, false, false},
    {"a\0b", 3, false, false},
    {"\0", 1, false, false},
    /* UTF-8 (1.5.4): well formed, no surrogates, no overlong forms */
    {"caf\xc3\xa9/\xe2\x82\xac", 0, true, true},
    {"\xf0\x9f\x98\x80", 0, true, true},
    {"\xc0\xaf", 0, false, false},
    {"a/\xed\xa0\x80", 0, false, false},
    {"a/\xff", 0, false, false},
    {"\xe2\x82", 0, false, false},
    {"\xef\xbb\xbf" "a", 0, true, true},
    {"\xef\xbf\xbf", 0, true, true},
};
/* clang-format on */

Test(topic, is_valid_as_the_standard_says)
{
    for (size_t i = 0; i < sizeof(valid_rows) / sizeof(valid_rows[0]); i++) {
        const struct valid_row *row = &valid_rows[i];
        struct slice text = slice_of(row->text, row->len ? row->len : strlen(row->text));
        cr_expect_eq(topic_name_valid(text, &limits), row->name, "name '%s' (row %zu)", row->text, i);
        cr_expect_eq(topic_filter_valid(text, &limits), row->filter, "filter '%s' (row %zu)", row->text, i);
    }
}

Test(topic, keeps_the_limits_of_bytes_and_levels)
{
    const struct topic_limits small = {.bytes_max = 5, .levels_max = 3};
    cr_expect(topic_name_valid(slice_cstr("abcde"), &small));
    cr_expect_not(topic_name_valid(slice_cstr("abcdef"), &small));
    cr_expect(topic_filter_valid(slice_cstr("a/b/#"), &small));
    cr_expect_not(topic_filter_valid(slice_cstr("a/b/cd"), &small));
    cr_expect(topic_name_valid(slice_cstr("//"), &small));
    cr_expect_not(topic_name_valid(slice_cstr("///"), &small), "four empty levels");
    cr_expect_not(topic_filter_valid(slice_cstr("+/+/+/#"), &(struct topic_limits){1024, 3}));
}

Test(topic, has_at_most_65535_bytes_whatever_the_limits_say)
{
    static char text[65536];
    const struct topic_limits wide = {.bytes_max = UINT32_MAX, .levels_max = UINT32_MAX};
    memset(text, 'a', sizeof(text));
    cr_expect(topic_name_valid(slice_of(text, 65535), &wide));
    cr_expect_not(topic_name_valid(slice_of(text, 65536), &wide));
    memset(text, '/', sizeof(text));
    cr_expect(topic_filter_valid(slice_of(text, 65535), &wide));
}

Test(topic_filter, is_literal_without_wildcards)
{
    cr_expect(topic_filter_literal(slice_cstr("a/b")));
    cr_expect(topic_filter_literal(slice_cstr("$SYS/x")));
    cr_expect_not(topic_filter_literal(slice_cstr("a/+")));
    cr_expect_not(topic_filter_literal(slice_cstr("a/#")));
    cr_expect_not(topic_filter_literal(slice_cstr("#")));
}

struct match_row {
    const char *filter, *name;
    bool want;
};

static const struct match_row match_rows[] = {
    /* MQTT 5.0, 4.7.1.2 */
    {"sport/tennis/player1/#", "sport/tennis/player1", true},
    {"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
    {"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
    {"sport/tennis/player1/#", "sport/tennis/player10", false},
    {"sport/tennis/player1/#", "sport/tennis", false},
    {"sport/#", "sport", true},
    {"sport/#", "sport/", true},
    {"sport/#", "sports", false},
    {"#", "a", true},
    {"#", "a/b/c", true},
    {"#", "/", true},
    {"/#", "/", true},
    {"/#", "/a/b", true},
    {"/#", "a", false},
    {"//#", "/", true},
    {"//#", "//", true},
    /* 4.7.1.3 */
    {"sport/tennis/+", "sport/tennis/player1", true},
    {"sport/tennis/+", "sport/tennis/player2", true},
    {"sport/tennis/+", "sport/tennis/player1/ranking", false},
    {"sport/tennis/+", "sport/tennis", false},
    {"sport/+", "sport", false},
    {"sport/+", "sport/", true},
    {"+", "finance", true},
    {"+", "/finance", false},
    {"+/+", "/finance", true},
    {"/+", "/finance", true},
    {"/+", "/", true},
    {"+/", "a/", true},
    {"+/", "/", true},
    {"+/", "a", false},
    {"+/", "a/b", false},
    {"+/+", "/", true},
    {"+/#", "a", true},
    {"+/#", "/", true},
    {"+/tennis/#", "x/tennis", true},
    {"+/+/#", "a", false},
    {"+/+/#", "a/b", true},
    {"a/+/c", "a//c", true},
    {"a/+/c", "a/b/d", false},
    {"a//c", "a//c", true},
    {"a//c", "a/c", false},
    {"a/b", "a/b/", false},
    {"a/b/", "a/b", false},
    {"ACCOUNTS", "Accounts", false},
    /* 4.7.2 */
    {"#", "$SYS/monitor/Clients", false},
    {"#", "$", false},
    {"+/monitor/Clients", "$SYS/monitor/Clients", false},
    {"+/#", "$SYS", false},
    {"$SYS/#", "$SYS/monitor/Clients", true},
    {"$SYS/#", "$SYS", true},
    {"$SYS/+/Clients", "$SYS/monitor/Clients", true},
    {"$SYS/monitor/+", "$SYS/monitor/Clients", true},
    {"$SYS/monitor/+", "$SYS/monitor/$x", true},
    {"a/+", "a/$x", true},
    {"a/#", "a/$x/b", true},
    {"$user/u1/#", "$user/u1", true},
    {"$user/u1/#", "$user/u1/orders/7", true},
    {"$user/u1/#", "$user/u12", false},
    {"+", "\xe2\x82\xac", true},
};

Test(topic_filter, matches_as_the_standard_says)
{
    for (size_t i = 0; i < sizeof(match_rows) / sizeof(match_rows[0]); i++) {
        const struct match_row *row = &match_rows[i];
        struct slice filter = slice_cstr(row->filter), name = slice_cstr(row->name);
        cr_expect(topic_filter_valid(filter, &limits) && topic_name_valid(name, &limits), "row %zu", i);
        cr_expect_eq(topic_matches(filter, name), row->want, "filter '%s' name '%s': want %d", row->filter,
                     row->name, row->want);
    }
}

struct user_row {
    const char *name, *user; /* NULL: none */
};

static const struct user_row user_rows[] = {
    {"$user/u1", "u1"}, {"$user/u1/orders", "u1"}, {"$user/u1/", "u1"}, {"$user/a%2Fb", "a%2Fb"},
    {"$user/", NULL},   {"$user//x", NULL},        {"$user", NULL},     {"$users/u1", NULL},
    {"user/u1", NULL},  {"/$user/u1", NULL},       {"$SYS/u1", NULL},   {"$user/$x/y", "$x"},
};

Test(topic, names_its_user)
{
    for (size_t i = 0; i < sizeof(user_rows) / sizeof(user_rows[0]); i++) {
        struct slice user = slice_cstr("untouched");
        bool found = topic_user(slice_cstr(user_rows[i].name), &user);
        cr_expect_eq(found, user_rows[i].user != NULL, "'%s'", user_rows[i].name);
        const char *want = user_rows[i].user ? user_rows[i].user : "untouched";
        cr_expect(slice_equal_cstr(user, want), "'%s': '%.*s'", user_rows[i].name, SLICE_ARG(user));
    }
}

Test(topic, is_internal_when_it_begins_with_a_dollar)
{
    cr_expect(topic_internal(slice_cstr("$SYS/x")));
    cr_expect_not(topic_internal(slice_cstr("a/$SYS")));
    cr_expect_not(topic_internal(slice_cstr("")));
}

Test(topic_partition, is_one_for_all_topics_of_a_user)
{
    unsigned want = topic_partition(slice_cstr("$user/u1"), 64);
    cr_expect_eq(want, (unsigned)(hash64_stable(slice_cstr("u1")) % 64));
    cr_expect_eq(topic_partition(slice_cstr("$user/u1/"), 64), want);
    cr_expect_eq(topic_partition(slice_cstr("$user/u1/orders/9"), 64), want);
}

Test(topic_partition, is_of_the_whole_name_otherwise)
{
    cr_expect_eq(topic_partition(slice_cstr("home/kitchen"), 64),
                 (unsigned)(hash64_stable(slice_cstr("home/kitchen")) % 64));
    cr_expect_eq(topic_partition(slice_cstr("$user//x"), 64),
                 (unsigned)(hash64_stable(slice_cstr("$user//x")) % 64));
    cr_expect_eq(topic_partition(slice_cstr("a"), 1), 0);
}

Test(topic_partition, spreads_evenly_and_does_not_depend_on_the_process_key)
{
    unsigned counts[16] = {0}, before[1000];
    char name[32];
    for (unsigned i = 0; i < 1000; i++)
        before[i] = topic_partition(slice_of(name, (size_t)snprintf(name, sizeof(name), "d/%u", i)), 16);
    hash_setup();
    for (unsigned i = 0; i < 1000; i++) {
        unsigned p = topic_partition(slice_of(name, (size_t)snprintf(name, sizeof(name), "d/%u", i)), 16);
        cr_assert_eq(p, before[i], "topic %u moved", i);
        counts[p]++;
    }
    for (unsigned p = 0; p < 16; p++)
        cr_expect(counts[p] > 30 && counts[p] < 100, "partition %u has %u of 1000", p, counts[p]);
}

Test(topic_level, is_taken_from_the_left)
{
    const char *want[] = {"", "a", "", "b", ""};
    struct slice rest = slice_cstr("/a//b/"), level;
    for (size_t i = 0; i < 5; i++) {
        cr_assert(topic_level_next(&rest, &level), "level %zu", i);
        cr_expect(slice_equal_cstr(level, want[i]), "level %zu: '%.*s'", i, SLICE_ARG(level));
    }
    cr_expect_not(topic_level_next(&rest, &level));
    cr_expect_not(topic_level_next(&rest, &level), "and stays at the end");
}

Test(topic, of_an_inbox_lies_in_one_partition)
{
    enum { PARTITIONS = 7 };
    static const char *const one[] = {"$user/a/#", "$user/a/+", "$user/a/x/+/y", "$inbox/a", "$user/a/x"};
    static const char *const all[] = {"#", "+/a", "$user/#", "$user/+", "$user/+/x", "$user//#", "a/#"};
    unsigned want = topic_partition(slice_cstr("$user/a"), PARTITIONS), got;
    for (size_t i = 0; i < sizeof one / sizeof one[0]; i++) {
        got = PARTITIONS;
        cr_expect(topic_filter_partition(slice_cstr(one[i]), PARTITIONS, &got), "%s", one[i]);
        cr_expect_eq(got, want, "%s", one[i]);
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        cr_expect_not(topic_filter_partition(slice_cstr(all[i]), PARTITIONS, &got), "%s", all[i]);
}

Test(topic, filter_names_its_inbox)
{
    struct slice inbox;
    cr_expect(topic_inbox_filter(slice_cstr("$user/a/#"), &inbox) && slice_equal_cstr(inbox, "$user/a"));
    cr_expect(topic_inbox_filter(slice_cstr("$user/a"), &inbox) && slice_equal_cstr(inbox, "$user/a"));
    cr_expect_not(topic_inbox_filter(slice_cstr("$user/+/x"), &inbox));
    cr_expect_not(topic_inbox_filter(slice_cstr("user/a"), &inbox));
}

Test(topic_share, has_a_name_and_a_filter)
{
    static const struct {
        const char *text, *filter; /* NULL: it is no such text */
    } rows[] = {
        {"$share/g/a/+/b", "a/+/b"}, {"$share/g/#", "#"},
        {"$share/g//a", "/a"},       {"$share/$x/$user/u", "$user/u"},
        {"$share/g/", NULL},         {"$share/g", NULL},
        {"$share/", NULL},           {"$share", NULL},
        {"$share//a", NULL},         {"$share/g+/a", NULL},
        {"$share/#/a", NULL},        {"share/g/a", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice filter = {0};
        bool is = topic_share_filter(slice_cstr(rows[i].text), &filter);
        cr_assert_eq(is, rows[i].filter != NULL, "%s", rows[i].text);
        if (is)
            cr_assert(slice_equal_cstr(filter, rows[i].filter), "%s", rows[i].text);
    }
}
