#include "core/buckets.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>

static struct buckets *table;
static const uint64_t SECOND = 1000000000;

static void setup(void)
{
    cr_assert_eq(buckets_create(1, &table), ST_OK);
}

static void teardown(void)
{
    buckets_destroy(table);
}

TestSuite(buckets, .init = setup, .fini = teardown);

static struct bucket_place *hold(unsigned number, uint64_t most, uint64_t now_ns, bool *shared)
{
    return buckets_hold(table, slice_of(&number, sizeof number), most, now_ns, shared);
}

Test(buckets, gives_its_burst_and_then_its_rate)
{
    const struct bucket_rate rate = {SECOND / 10, 3};
    struct bucket_place p = {0};
    uint64_t now = 5 * SECOND;
    for (int n = 0; n < 3; n++) {
        cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &rate, now), 0, "token %d", n);
        bucket_take(&p, BUCKET_PUBLISH, &rate, now);
    }
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &rate, now), SECOND / 10);
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_CONNECT, &rate, now), 0, "each kind has its own");
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &rate, now + SECOND / 10), 0);
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &rate, now + SECOND / 10 - 1), 1);
}

Test(buckets, a_faster_rate_forgets_what_a_slower_one_has_put_off)
{
    const struct bucket_rate slow = {100 * SECOND, 2}, fast = {SECOND / 100, 1}, none = {0};
    struct bucket_place p = {0};
    bucket_take(&p, BUCKET_PUBLISH, &slow, SECOND);
    bucket_take(&p, BUCKET_PUBLISH, &slow, SECOND);
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &slow, SECOND), 100 * SECOND);
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &fast, SECOND), SECOND / 100);
    cr_expect_eq(bucket_wait_ns(&p, BUCKET_PUBLISH, &none, SECOND), 0);
}

Test(buckets, a_key_has_one_place_and_no_more_holders_than_it_may)
{
    bool shared;
    struct bucket_place *p = hold(1, 2, 0, &shared);
    cr_assert(p && !shared);
    cr_expect_eq(hold(1, 2, 0, &shared), p);
    cr_expect_null(hold(1, 2, 0, &shared));
    cr_expect_eq(hold(1, 0, 0, &shared), p, "0 is any number");
    cr_expect_neq(hold(2, 2, 0, &shared), p);
    buckets_release(p);
    buckets_release(p);
    cr_expect_eq(bucket_holders(p), 1);
    cr_expect_eq(hold(1, 2, 0, &shared), p);
}

Test(buckets, idle_places_go_to_others_and_busy_ones_do_not)
{
    const struct bucket_rate rate = {SECOND, 5};
    bool shared;
    unsigned count = (unsigned)buckets_count(table);
    struct bucket_place *busy = hold(0, 0, 0, &shared), *spent = hold(1, 0, 0, &shared);
    bucket_take(spent, BUCKET_CONNECT, &rate, 0);
    buckets_release(spent);
    for (unsigned n = 2; n < 10 * count; n++) {
        struct bucket_place *p = hold(n, 0, 0, &shared);
        cr_assert(p && p != busy && p != spent && !shared);
        buckets_release(p);
    }
    cr_expect_eq(hold(0, 0, 0, &shared), busy);
    cr_expect_eq(hold(1, 0, 0, &shared), spent);
    cr_expect_gt(bucket_wait_ns(spent, BUCKET_CONNECT, &(struct bucket_rate){SECOND, 1}, 0), 0);
    buckets_release(spent);
    bool moved = false;
    for (unsigned n = 100000; n < 100000 + count && !moved; n++)
        moved = hold(n, 0, 2 * SECOND, &shared) == spent; /* full again: as good as none */
    cr_expect(moved);
}

Test(buckets, who_finds_no_place_shares_one)
{
    bool shared;
    unsigned count = (unsigned)buckets_count(table);
    for (unsigned n = 0; n < count; n++)
        cr_assert(hold(n, 0, 0, &shared) && !shared);
    struct bucket_place *p = hold(count, 2, 0, &shared);
    cr_expect(p && shared);
    cr_expect_eq(hold(count + 1, 2, 0, &shared), p);
    cr_expect_null(hold(count + 2, 2, 0, &shared));
    buckets_release(p);
    cr_expect_eq(hold(count + 3, 2, 0, &shared), p);
}
