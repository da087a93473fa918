#include "session/access_cache.h"

#include "core/hash.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

Test(access_cache, says_what_the_rules_say)
{
    const struct acl_rule rules[] = {
        {.who = ACL_EVERYBODY, .ops = 1 << ACL_PUBLISH, .topic = slice_cstr("a/#")},
        {.who = ACL_EVERYBODY, .denies = true, .ops = ACL_ANY_OP, .topic = slice_cstr("a/+/7")},
        {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("c/%c")}};
    struct acl *policy;
    struct principal *p;
    struct access_cache *cache = NULL;
    char topic[64];
    hash_setup();
    cr_assert_eq(acl_create(rules, 3, &policy), ST_OK);
    const struct principal_spec spec = {.user = slice_cstr("ann"), .policy = policy};
    cr_assert_eq(principal_create(&spec, &p), ST_OK);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 1000; i++) {
            snprintf(topic, sizeof topic, "%c/%u/%u", "ab"[i % 2], i / 50, i % 10);
            bool want = principal_may(p, ACL_PUBLISH, slice_cstr(topic), (struct slice){0});
            cr_assert_eq(access_may_publish(&cache, p, slice_cstr(topic), (struct slice){0}), want, "%s",
                         topic);
            cr_assert_eq(access_may_publish(&cache, p, slice_cstr(topic), (struct slice){0}), want,
                         "%s again", topic);
        }
    cr_expect(access_may_publish(&cache, p, slice_cstr("c/x"), slice_cstr("x")));
    free(cache);
    principal_unref(p);
    acl_unref(policy);
}

Test(access_cache, grows_for_who_publishes_to_many_topics_and_not_without_end)
{
    const struct acl_rule rule = {.who = ACL_EVERYBODY, .ops = ACL_ANY_OP, .topic = slice_cstr("a/#")};
    struct acl *policy;
    struct principal *p;
    struct access_cache *cache = NULL;
    char topic[32];
    cr_assert_eq(acl_create(&rule, 1, &policy), ST_OK);
    cr_assert_eq(principal_create(&(struct principal_spec){.policy = policy}, &p), ST_OK);
    for (unsigned n = 0; n < 1000; n++)
        cr_assert(access_may_publish(&cache, p, slice_cstr("a/one"), (struct slice){0}));
    cr_expect_eq(cache->count, (uint32_t)ACCESS_CACHE_PLACES_MIN);
    for (unsigned n = 0; n < 100000; n++) {
        snprintf(topic, sizeof topic, "%c/%u", "ab"[n % 2], n % 5000);
        cr_assert_eq(access_may_publish(&cache, p, slice_cstr(topic), (struct slice){0}), n % 2 == 0);
    }
    cr_expect_eq(cache->count, (uint32_t)ACCESS_CACHE_PLACES_MAX);
    free(cache);
    principal_unref(p);
    acl_unref(policy);
}

Test(access_cache, is_not_made_for_those_who_may_everything)
{
    struct access_cache *cache = NULL;
    struct principal *p = principal_anonymous();
    cr_expect(access_may_publish(&cache, p, slice_cstr("a"), (struct slice){0}));
    cr_expect_null(cache);
    principal_unref(p);
}
