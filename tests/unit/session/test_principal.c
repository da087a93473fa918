#include "session/principal.h"

#include <criterion/criterion.h>

static struct acl *list(const struct acl_rule *rules, size_t count)
{
    struct acl *a;
    cr_assert_eq(acl_create(rules, count, &a), ST_OK);
    return a;
}

static struct principal *make(const char *user, struct acl *policy, struct acl *own)
{
    const struct principal_spec spec = {.user = slice_cstr(user), .policy = policy, .own = own};
    struct principal *p;
    cr_assert_eq(principal_create(&spec, &p), ST_OK);
    return p;
}

static bool may(const struct principal *p, enum access_op op, const char *topic)
{
    return principal_may(p, op, slice_cstr(topic), (struct slice){0});
}

Test(principal, without_rules)
{
    struct principal *nobody = principal_anonymous(), *ann = make("a/n", NULL, NULL);
    static const struct {
        enum access_op op;
        const char *topic;
        bool nobody, ann;
    } rows[] = {
        {ACL_PUBLISH, "a/b", true, true},
        {ACL_SUBSCRIBE, "#", true, true},
        {ACL_HISTORY, "a", true, true},
        {ACL_SUBSCRIBE, "$user/a%2Fn", false, true},
        {ACL_SUBSCRIBE, "$user/a%2Fn/#", false, true},
        {ACL_HISTORY, "$user/a%2Fn/x", false, true},
        {ACL_SUBSCRIBE, "$user/a/n", false, false},
        {ACL_SUBSCRIBE, "$user/+", false, false},
        {ACL_SUBSCRIBE, "$user/#", false, false},
        {ACL_SUBSCRIBE, "$user/", false, false},
        {ACL_SUBSCRIBE, "$user", false, false},
        {ACL_SUBSCRIBE, "$user//x", false, false},
        {ACL_SUBSCRIBE, "$user/bob/x", false, false},
        {ACL_PUBLISH, "$user/a%2Fn", true, false}, /* offered by the private API alone */
        {ACL_PUBLISH, "$user/bob", true, false},
        {ACL_SUBSCRIBE, "$SYS/x", true, false},
        {ACL_PUBLISH, "$SYS/x", false, false},
        {ACL_SUBSCRIBE, "$session/x", false, false},
        {ACL_SUBSCRIBE, "$share/g/a", false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(may(nobody, rows[i].op, rows[i].topic), rows[i].nobody, "nobody %d %s", rows[i].op,
                     rows[i].topic);
        cr_expect_eq(may(ann, rows[i].op, rows[i].topic), rows[i].ann, "ann %d %s", rows[i].op,
                     rows[i].topic);
    }
    cr_expect(principal_may_administer(nobody) && !principal_may_administer(ann));
    cr_expect(principal_is_anonymous(nobody) && !principal_is_anonymous(ann));
    principal_unref(nobody);
    principal_unref(ann);
}

Test(principal, denial_wins_and_what_no_rule_allows_is_denied)
{
    const struct acl_rule rules[] = {
        {.who = ACL_USERS, .ops = ACL_ANY_OP, .topic = slice_cstr("room/#")},
        {.who = ACL_EVERYBODY, .denies = true, .ops = ACL_ANY_OP, .topic = slice_cstr("room/secret/#")},
        {.who = ACL_USER,
         .user = slice_cstr("ann"),
         .ops = ACL_ANY_OP,
         .topic = slice_cstr("room/secret/ann")},
        {.who = ACL_USER,
         .user = slice_cstr("bob"),
         .denies = true,
         .ops = 1 << ACL_SUBSCRIBE,
         .topic = slice_cstr("$user/%u/#")},
        {.who = ACL_USER,
         .user = slice_cstr("svc"),
         .ops = 1 << ACL_PUBLISH,
         .topic = slice_cstr("$user/+/mail")},
    };
    struct acl *policy = list(rules, sizeof rules / sizeof *rules);
    struct principal *ann = make("ann", policy, NULL), *bob = make("bob", policy, NULL),
                     *svc = make("svc", policy, NULL), *nobody = make("", policy, NULL);
    acl_unref(policy);
    cr_expect(may(ann, ACL_PUBLISH, "room/1") && may(ann, ACL_SUBSCRIBE, "room/1/#"));
    cr_expect_not(may(ann, ACL_PUBLISH, "hall"));
    cr_expect_not(may(ann, ACL_PUBLISH, "room/secret/ann"));
    cr_expect_not(may(ann, ACL_SUBSCRIBE, "room/#"), "it would show what is denied");
    cr_expect_not(may(ann, ACL_SUBSCRIBE, "room/+/x"));
    cr_expect_not(may(ann, ACL_SUBSCRIBE, "room/+"), "a filter's # matches the parent too");
    cr_expect(may(ann, ACL_SUBSCRIBE, "room/1/+"));
    cr_expect(may(ann, ACL_SUBSCRIBE, "$user/ann"));
    cr_expect(may(bob, ACL_SUBSCRIBE, "room/1"));
    cr_expect_not(may(bob, ACL_SUBSCRIBE, "$user/bob/x"));
    cr_expect(may(svc, ACL_PUBLISH, "$user/ann/mail"));
    cr_expect_not(may(svc, ACL_PUBLISH, "$user/ann/x"));
    cr_expect_not(may(svc, ACL_SUBSCRIBE, "$user/ann/mail"));
    cr_expect_not(may(nobody, ACL_PUBLISH, "room/1"));
    cr_expect_not(may(nobody, ACL_PUBLISH, "$user/ann"));
    cr_expect_not(principal_may_administer(nobody));
    principal_unref(ann);
    principal_unref(bob);
    principal_unref(svc);
    principal_unref(nobody);
}

Test(principal, a_token_takes_the_place_of_what_is_allowed_not_of_what_is_denied)
{
    const struct acl_rule rules[] = {
        {.who = ACL_USERS, .ops = ACL_ANY_OP, .topic = slice_cstr("room/#")},
        {.who = ACL_EVERYBODY, .denies = true, .ops = ACL_ANY_OP, .topic = slice_cstr("hall/no")},
    };
    const struct acl_rule claims[] = {
        {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("hall/#")}};
    struct acl *policy = list(rules, 2), *own = list(claims, 1), *none = list(claims, 0);
    struct principal *both = make("ann", policy, own), *alone = make("ann", NULL, own),
                     *nothing = make("ann", NULL, none);
    cr_expect(may(both, ACL_PUBLISH, "hall/1") && may(alone, ACL_PUBLISH, "hall/no"));
    cr_expect_not(may(both, ACL_PUBLISH, "room/1"));
    cr_expect_not(may(both, ACL_PUBLISH, "hall/no"));
    cr_expect_not(may(alone, ACL_PUBLISH, "room/1"));
    cr_expect_not(may(nothing, ACL_PUBLISH, "hall/1"));
    cr_expect(may(nothing, ACL_SUBSCRIBE, "$user/ann"));
    principal_unref(both);
    principal_unref(alone);
    principal_unref(nothing);
    acl_unref(policy);
    acl_unref(own);
    acl_unref(none);
}

Test(principal, administrators_and_names)
{
    const struct principal_spec admin = {.admin = true};
    struct principal *p, *unused;
    cr_assert_eq(principal_create(&admin, &p), ST_OK);
    cr_expect(may(p, ACL_PUBLISH, "$user/bob") && may(p, ACL_SUBSCRIBE, "$SYS/#") &&
              principal_may_administer(p));
    cr_expect_not(principal_is_anonymous(p));
    principal_unref(p);
    char longest[PRINCIPAL_USER_BYTES_MAX + 2];
    memset(longest, '/', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const struct principal_spec bad[] = {
        {.user = slice_cstr(longest)}, {.user = slice_of("a\0b", 3)}, {.user = slice_cstr("\xff")}};
    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(principal_create(&bad[i], &unused), ST_INVALID, "%zu", i);
    longest[PRINCIPAL_USER_BYTES_MAX] = '\0';
    p = make(longest, NULL, NULL);
    cr_expect_eq(p->inbox_id.len, 3 * PRINCIPAL_USER_BYTES_MAX);
    principal_unref(p);
}
