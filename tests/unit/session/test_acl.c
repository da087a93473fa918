#include "session/acl.h"

#include "routing/topic.h"
#include "routing/user.h"

#include <criterion/criterion.h>
#include <stdio.h>

Test(acl, one_filter_lies_inside_another)
{
    static const struct {
        const char *outer, *inner;
        bool covers, meets;
    } rows[] = {
        {"a", "a", true, true},           {"a", "b", false, false},
        {"a/b", "a", false, false},       {"a", "a/b", false, false},
        {"a/+", "a/b", true, true},       {"a/+", "a/+", true, true},
        {"a/b", "a/+", false, true},      {"a/+", "a/#", false, true},
        {"a/#", "a/+", true, true},       {"a/#", "a", true, true}, /* '#' matches the parent */
        {"a/#", "a/#", true, true},       {"a/#", "a/+/#", true, true},
        {"a/+/#", "a/#", false, true},    {"a/#", "ab", false, false},
        {"a/+", "a/b/c", false, false},   {"a/+/c", "a/b/c", true, true},
        {"a/+/c", "a/b/+", false, true},  {"+/b", "a/+", false, true},
        {"#", "a/b/c", true, true},       {"#", "#", true, true},
        {"+", "#", false, true},          {"#", "+", true, true},
        {"+", "a", true, true},           {"+/+", "a", false, false},
        {"#", "$SYS/x", false, false}, /* 4.7.2 */
        {"+/x", "$SYS/x", false, false},  {"#", "$SYS/#", false, false},
        {"$SYS/#", "$SYS/x", true, true}, {"$SYS/#", "#", false, false},
        {"$SYS/#", "+/x", false, false},  {"a//b", "a/+/b", false, true},
        {"a/+/b", "a//b", true, true},    {"/a", "+/a", false, true},
        {"/#", "/a", true, true},         {"a/#", "b/#", false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice outer = slice_cstr(rows[i].outer), inner = slice_cstr(rows[i].inner);
        cr_expect_eq(filter_covers(outer, inner), rows[i].covers, "%s covers %s", rows[i].outer,
                     rows[i].inner);
        cr_expect_eq(filter_meets(outer, inner), rows[i].meets, "%s meets %s", rows[i].outer, rows[i].inner);
        cr_expect_eq(filter_meets(inner, outer), rows[i].meets, "%s meets %s", rows[i].inner, rows[i].outer);
    }
}

/* All filters and names of up to three levels out of a few letters: what covers and meets say agrees with
 * what topic_matches says of every name. */
Test(acl, what_is_said_of_filters_is_true_of_every_name)
{
    static const char *const levels[] = {"", "a", "b", "$x", "+", "#"};
    enum { LEVELS = 6, TEXTS_MAX = 300 };
    static char filters[TEXTS_MAX][16], names[TEXTS_MAX][16];
    size_t filter_count = 0, name_count = 0;
    static const struct topic_limits any = {100, 10};
    for (unsigned n = 1; n <= 3; n++)
        for (unsigned code = 0; code < LEVELS * LEVELS * LEVELS; code++) {
            char text[16] = "";
            unsigned rest = code;
            for (unsigned i = 0; i < n; i++, rest /= LEVELS)
                snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? "/" : "",
                         levels[rest % LEVELS]);
            if (rest > 0)
                continue;
            if (topic_filter_valid(slice_cstr(text), &any))
                strcpy(filters[filter_count++], text);
            if (topic_name_valid(slice_cstr(text), &any))
                strcpy(names[name_count++], text);
        }
    cr_assert_gt(filter_count, 100);
    for (size_t i = 0; i < filter_count; i++)
        for (size_t k = 0; k < filter_count; k++) {
            struct slice a = slice_cstr(filters[i]), b = slice_cstr(filters[k]);
            bool covers = filter_covers(a, b), meets = filter_meets(a, b), shared = false;
            for (size_t n = 0; n < name_count; n++) {
                bool in_a = topic_matches(a, slice_cstr(names[n])),
                     in_b = topic_matches(b, slice_cstr(names[n]));
                cr_assert(!covers || !in_b || in_a, "%s does not cover %s: %s", filters[i], filters[k],
                          names[n]);
                shared |= in_a && in_b;
            }
            cr_assert(meets || !shared, "%s meets %s", filters[i], filters[k]);
            cr_assert(!covers || meets);
        }
}

static const struct acl_asker alice = {.user = {(const uint8_t *)"alice", 5},
                                       .encoded_user = {(const uint8_t *)"alice", 5},
                                       .client_id = {(const uint8_t *)"c/1", 3}};
static const struct acl_asker nobody;

static bool allows(const struct acl_rule *rule, const struct acl_asker *who, enum access_op op,
                   const char *topic)
{
    struct acl *a;
    cr_assert_eq(acl_create(rule, 1, &a), ST_OK);
    bool allowed = acl_allows(a, who, op, slice_cstr(topic));
    acl_unref(a);
    return allowed;
}

Test(acl, a_rule_is_for_whom_it_names)
{
    struct acl_rule r = {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("a/#")};
    cr_expect(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    cr_expect(allows(&r, &nobody, ACL_PUBLISH, "a/b"));
    r.who = ACL_ANONYMOUS;
    cr_expect_not(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    cr_expect(allows(&r, &nobody, ACL_PUBLISH, "a/b"));
    r.who = ACL_USERS;
    cr_expect(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    cr_expect_not(allows(&r, &nobody, ACL_PUBLISH, "a/b"));
    r.who = ACL_USER;
    r.user = slice_cstr("alic");
    cr_expect_not(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    r.user = slice_cstr("alice");
    cr_expect(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    r.ops = 1 << ACL_SUBSCRIBE;
    cr_expect_not(allows(&r, &alice, ACL_PUBLISH, "a/b"));
    cr_expect_not(allows(&r, &alice, ACL_HISTORY, "a/b"));
    cr_expect(allows(&r, &alice, ACL_SUBSCRIBE, "a/b"));
    r.user = (struct slice){0}; /* nobody's name is empty */
    cr_expect_not(allows(&r, &nobody, ACL_SUBSCRIBE, "a/b"));
}

Test(acl, placeholders_bring_no_levels_and_no_wildcards)
{
    struct buf encoded;
    buf_init(&encoded, 256);
    cr_assert_eq(user_encode(slice_cstr("a/b+#%\x01z\x7f"), &encoded), ST_OK);
    cr_expect(slice_equal_cstr(buf_slice(&encoded), "a%2Fb%2B%23%25%01z%7F"));
    const struct acl_asker odd = {
        .user = slice_cstr("+"), .encoded_user = slice_cstr("%2B"), .client_id = slice_cstr("#")};
    const struct acl_asker dollar = {.user = slice_cstr("$SYS"), .encoded_user = slice_cstr("$SYS")};
    struct acl_rule user = {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("u/%u/x")};
    struct acl_rule client = {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("c/%c")};
    struct acl_rule bare = {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("%u/#")};
    cr_expect(allows(&user, &alice, ACL_PUBLISH, "u/alice/x"));
    cr_expect_not(allows(&user, &alice, ACL_PUBLISH, "u/bob/x"));
    cr_expect_not(allows(&user, &alice, ACL_PUBLISH, "u/%u/x"));
    cr_expect_not(allows(&user, &nobody, ACL_PUBLISH, "u//x"));
    cr_expect_not(allows(&user, &odd, ACL_SUBSCRIBE, "u/+/x"));
    cr_expect(allows(&user, &odd, ACL_SUBSCRIBE, "u/%2B/x"));
    cr_expect(allows(&client, &alice, ACL_PUBLISH, "c/c%2F1"));
    cr_expect_not(allows(&client, &alice, ACL_PUBLISH, "c/c/1"));
    cr_expect_not(allows(&client, &odd, ACL_SUBSCRIBE, "c/#"));
    cr_expect_not(allows(&client, &nobody, ACL_PUBLISH, "c/"));
    cr_expect_not(allows(&bare, &dollar, ACL_SUBSCRIBE, "$SYS/x"));
    buf_deinit(&encoded);
}

Test(acl, topics_of_rules)
{
    static const struct {
        const char *topic;
        bool valid;
    } rows[] = {
        {"a/#", true},   {"%u", true},     {"a/%u-%c/+", true},   {"100%", true}, {"$SYS/#", true},
        {"a#", false},   {"", false},      {"%u+", false},        {"#/a", false}, {"$user/%u/#", true},
        {"$x/a", false}, {"$user", false}, {"$share/g/a", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(acl_topic_valid(slice_cstr(rows[i].topic)), rows[i].valid, "%s", rows[i].topic);
    struct acl *a;
    const struct acl_rule bad = {.ops = ACL_ANY_OP, .topic = slice_cstr("a#")};
    cr_expect_eq(acl_create(&bad, 1, &a), ST_INVALID);
}

Test(acl, the_same_rules_are_equal_and_no_others)
{
    const struct acl_rule rules[] = {
        {.who = ACL_USER, .user = slice_cstr("ann"), .ops = ACL_ANY_OP, .topic = slice_cstr("a/#")},
        {.who = ACL_EVERYBODY, .denies = true, .ops = 1 << ACL_PUBLISH, .topic = slice_cstr("b")},
    };
    struct acl *a, *b;
    cr_assert_eq(acl_create(rules, 2, &a), ST_OK);
    cr_expect(acl_equal(a, a) && acl_equal(NULL, NULL) && !acl_equal(a, NULL) && !acl_equal(NULL, a));
    for (int change = 0; change < 7; change++) {
        struct acl_rule other[] = {rules[0], rules[1]};
        if (change == 1)
            other[0].user = slice_cstr("bob");
        else if (change == 2)
            other[0].topic = slice_cstr("a/b/#");
        else if (change == 3)
            other[1].denies = false;
        else if (change == 4)
            other[1].ops = ACL_ANY_OP;
        else if (change == 5)
            other[1].who = ACL_USERS;
        cr_assert_eq(acl_create(other, change == 6 ? 1 : 2, &b), ST_OK);
        cr_expect_eq(acl_equal(a, b), change == 0, "change %d", change);
        acl_unref(b);
    }
    acl_unref(a);
}
