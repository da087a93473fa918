#include "routing/policy.h"

#include "core/hash.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define ROW(text)                                                                                            \
    {                                                                                                        \
        .filter = {(const uint8_t *)(text), sizeof(text) - 1 }                                               \
    }

static const struct topic_policy rows[] = {ROW("a/b"), ROW("a/#"), ROW("+/c"), ROW("$user/#")};

static int find(struct policies *p, const char *topic)
{
    const struct topic_policy *found = policies_find(p, slice_cstr(topic), hash64(slice_cstr(topic)));
    for (unsigned i = 0; i < 4; i++)
        if (found && slice_equal(found->filter, rows[i].filter))
            return (int)i;
    cr_assert(!found);
    return -1;
}

Test(policy, the_first_filter_that_matches_wins)
{
    static const struct {
        const char *topic;
        int row;
    } facts[] = {{"a/b", 0}, {"a/c", 1}, {"a", 1}, {"b/c", 2}, {"b", -1}, {"$user/7", 3}, {"$x/c", -1}};
    struct policies *p;
    cr_assert_eq(policies_create(rows, 4, &p), ST_OK);
    for (unsigned round = 0; round < 2; round++) /* matched, then remembered */
        for (unsigned i = 0; i < sizeof facts / sizeof facts[0]; i++)
            cr_expect_eq(find(p, facts[i].topic), facts[i].row, "%s", facts[i].topic);
    policies_destroy(p);
}

Test(policy, none_are_nothing)
{
    struct policies *p;
    cr_assert_eq(policies_create(rows, 0, &p), ST_OK);
    cr_assert_null(p);
    policies_destroy(p);
}

Test(policy, more_topics_than_are_remembered)
{
    struct policies *p;
    char topic[32];
    cr_assert_eq(policies_create(rows, 4, &p), ST_OK);
    for (unsigned i = 0; i < 40000; i++) {
        snprintf(topic, sizeof topic, i % 2 ? "a/%u" : "%u", i % 20000);
        cr_assert_eq(find(p, topic), i % 2 ? 1 : -1, "%s", topic);
    }
    policies_destroy(p);
}
