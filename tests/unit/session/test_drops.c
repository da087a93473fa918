#include "session/drops.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct drops *d;
static char story[4096];

static void note(uint64_t session, const char *filter, enum metric why, uint64_t offset, uint64_t count)
{
    const struct drop_note n = {.session = session,
                                .filter = slice_cstr(filter),
                                .name = slice_cstr("someone"),
                                .why = why,
                                .lane = 1,
                                .from = offset,
                                .to = offset + count - 1,
                                .count = count};
    drops_note(d, &n, 1000 + offset);
}

static void tell(void *ctx, const struct drop *drop)
{
    size_t len = strlen(story);
    (void)ctx;
    cr_expect(slice_equal_cstr(drop->name, "someone"));
    snprintf(story + len, sizeof story - len, "%lu:%.*s:%s:%lu@%lu-%lu ", (unsigned long)drop->session,
             SLICE_ARG(drop->filter), drop_reason(drop->why), (unsigned long)drop->count,
             (unsigned long)drop->from, (unsigned long)drop->to);
}

static const char *told(void)
{
    story[0] = 0;
    drops_each(d, tell, NULL);
    return story;
}

static void open_with(uint32_t max)
{
    cr_assert_eq(drops_create(max, &d), ST_OK);
}

static void close_it(void)
{
    drops_destroy(d);
    d = NULL;
}

TestSuite(drops, .fini = close_it);

Test(drops, one_entry_for_a_session_filter_and_reason)
{
    open_with(10);
    note(1, "a/#", M_DROPPED_LAG, 5, 3);
    note(1, "a/#", M_DROPPED_EXPIRED, 9, 1);
    note(2, "a/#", M_DROPPED_LAG, 7, 1);
    note(1, "a/b", M_DROPPED_LAG, 7, 1);
    note(1, "a/#", M_DROPPED_LAG, 2, 1);
    note(1, "a/#", M_DROPPED_LAG, 20, 2);
    cr_expect_str_eq(told(), "1:a/#:lag:6@2-21 1:a/b:lag:1@7-7 2:a/#:lag:1@7-7 1:a/#:expired:1@9-9 ");
    cr_expect_eq(drops_count(d), 4);
}

Test(drops, the_one_that_has_not_grown_for_longest_goes)
{
    open_with(3);
    note(1, "a", M_DROPPED_LAG, 1, 1);
    note(2, "a", M_DROPPED_LAG, 2, 1);
    note(3, "a", M_DROPPED_LAG, 3, 1);
    note(1, "a", M_DROPPED_LAG, 4, 1);
    note(4, "a", M_DROPPED_LAG, 5, 1);
    cr_expect_str_eq(told(), "4:a:lag:1@5-5 1:a:lag:2@1-4 3:a:lag:1@3-3 ");
    cr_expect_eq(drops_evicted(d), 1);
    for (uint64_t i = 0; i < 1000; i++)
        note(i, "b", M_DROPPED_EXPIRED, i, 1);
    cr_expect_eq(drops_count(d), 3);
    cr_expect_eq(drops_evicted(d), 1001);
}

Test(drops, none_are_kept_when_there_is_no_room)
{
    open_with(0);
    note(1, "a", M_DROPPED_LAG, 1, 1);
    cr_expect_str_eq(told(), "");
    cr_expect_eq(drops_count(d) + drops_evicted(d), 0);
}

Test(drops, nothing_is_nothing)
{
    open_with(3);
    note(1, "a", M_DROPPED_LAG, 1, 0);
    cr_expect_eq(drops_count(d), 0);
}
