/* A read by a filter goes by the lists of its topics where it can: what it brings, against a walk through
 * everything. */
#include "core/metrics.h"
#include "fakes/seed.h"
#include "fakes/store_world.h"

#include <criterion/criterion.h>

enum { AREAS = 6, PLACES = 40 };

static struct world w;
static unsigned seed;
static unsigned compared;
static uint64_t lowest; /* that was kept at the last read */

static unsigned dice(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* "a/17", "c/3/x", ...: few topics are frequent, most are rare. */
static void put(void)
{
    char topic[32];
    unsigned area = dice(3) ? 0 : dice(AREAS), place = dice(area + 1) ? dice(PLACES) : dice(4);
    snprintf(topic, sizeof topic, dice(5) ? "%c/%u" : "%c/%u/x", 'a' + area, place);
    cr_assert_eq(world_append(&w, 0, topic, slice_cstr("payload"), true, NULL), ST_OK);
}

static struct slice level(struct slice *rest)
{
    size_t len = 0;
    while (len < rest->len && rest->data[len] != '/')
        len++;
    struct slice first = slice_of(rest->data, len);
    *rest = slice_from(*rest, len < rest->len ? len + 1 : len);
    return first;
}

static bool wants(void *ctx, struct slice topic)
{
    struct slice filter = *(struct slice *)ctx;
    while (filter.len > 0 && topic.len > 0) {
        struct slice want = level(&filter), have = level(&topic);
        if (slice_equal_cstr(want, "#"))
            return true;
        if (!slice_equal_cstr(want, "+") && !slice_equal(want, have))
            return false;
    }
    return filter.len == topic.len;
}

static const char *a_filter(char text[32])
{
    switch (dice(6)) {
    case 0:
        return "#";
    case 1:
        return "+/+";
    case 2:
        snprintf(text, 32, "%c/#", 'a' + dice(AREAS + 1));
        return text;
    case 3:
        snprintf(text, 32, "+/%u", dice(PLACES + 1));
        return text;
    case 4:
        snprintf(text, 32, "%c/+/x", 'a' + dice(AREAS));
        return text;
    default:
        snprintf(text, 32, "%c/%u/+", 'a' + dice(AREAS), dice(PLACES));
        return text;
    }
}

/* Offsets in pages of `page`; returns how many. */
static uint64_t collect(struct slice *filter, uint64_t from, uint64_t to, uint32_t page, bool lists,
                        uint64_t *offsets)
{
    uint64_t count = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        r.read.to = to;
        r.read.count_max = page;
        r.read.wants = wants;
        r.read.wants_ctx = filter;
        r.read.filter = lists ? *filter : (struct slice){0};
        world_read_run(&w, &r);
        if (r.read.status == ST_OK)
            for (uint64_t i = 0; i < r.read.found; i++) {
                cr_assert(wants(filter, msg_topic(r.read.msgs[i])));
                offsets[count++] = r.read.msgs[i]->offset;
            }
        cr_assert(r.read.status == ST_OK || r.read.status == ST_GONE);
        from = r.read.next;
        lowest = r.read.first;
        bool end = from >= r.read.end;
        world_read_free(&r);
        if (end)
            return count;
    }
}

static uint64_t count_only(struct slice *filter, uint64_t from, uint64_t to, bool lists)
{
    struct world_read r;
    uint64_t count = 0;
    do {
        world_read_init(&r, 0, from);
        r.read.to = to;
        r.read.count_only = true;
        r.read.wants = wants;
        r.read.wants_ctx = filter;
        r.read.filter = lists ? *filter : (struct slice){0};
        world_read_run(&w, &r);
        count += r.read.found;
        from = r.read.next;
        lowest = r.read.first;
    } while (r.read.status == ST_GONE || from < r.read.end);
    return count;
}

static void compare(unsigned times)
{
    static uint64_t by_walk[20000], by_lists[20000];
    char text[32];
    for (unsigned i = 0; i < times; i++) {
        struct slice filter = slice_cstr(a_filter(text));
        uint64_t first = store_first(w.store, 0), end = store_next(w.store, 0);
        uint64_t from = dice(2) ? first : first + dice((unsigned)(end - first) + 1);
        uint64_t to = dice(3) ? UINT64_MAX : from + dice((unsigned)(end - from) + 1);
        uint32_t page = 1 + dice(dice(2) ? 20 : 1000);
        uint64_t walked = collect(&filter, from, to, page, false, by_walk);
        uint64_t listed = collect(&filter, from, to, page, true, by_lists);
        uint64_t listed_count = count_only(&filter, from, to, true);
        uint64_t walked_count = count_only(&filter, from, to, false);
        if (lowest > first)
            continue; /* retention has gone on meanwhile */
        cr_assert_eq(walked, listed, "%.*s from %llu to %llu: %llu, not %llu", (int)filter.len, filter.data,
                     (unsigned long long)from, (unsigned long long)to, (unsigned long long)listed,
                     (unsigned long long)walked);
        cr_assert(memcmp(by_walk, by_lists, walked * sizeof by_walk[0]) == 0);
        cr_assert_eq(listed_count, walked);
        cr_assert_eq(walked_count, walked);
        compared++;
    }
}

static void grow(unsigned records)
{
    for (unsigned i = 0; i < records; i++) {
        put();
        if (dice(40) == 0)
            store_flush(w.store, 0);
    }
    store_flush(w.store, 0);
    if (dice(2))
        world_wait_durable(&w, 0, store_next(w.store, 0));
}

static void walk_at_random(uint64_t names_bytes, uint64_t retention_bytes)
{
    seed = test_seed();
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    w.options.names_bytes = names_bytes;
    w.options.retention_bytes = retention_bytes;
    world_open(&w);
    if (retention_bytes > 0)
        store_trim(w.store, 0, 0);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 4; i++) {
            grow(300 + dice(600));
            compare(12);
        }
        world_wait_durable(&w, 0, store_next(w.store, 0));
        world_close(&w);
        loop_dispatch(w.loop);
        world_open(&w);
        if (retention_bytes > 0)
            store_trim(w.store, 0, 0);
        compare(4);
    }
    world_deinit(&w);
    cr_expect_gt(compared, 150u);
}

Test(filter_lists, bring_what_a_walk_brings)
{
    walk_at_random(1 << 20, 0);
    cr_expect_gt(metrics_sum(M_LOG_FILTER_MERGED), 10000u, "the lists were used");
    cr_expect_gt(metrics_sum(M_LOG_FILTER_SCANNED), 10000u);
    cr_expect_gt(metrics_sum(M_LOG_NAMES_BYTES), 0u);
}

Test(filter_lists, with_room_for_a_few_names_only)
{
    walk_at_random(3000, 0);
    cr_expect_leq(metrics_sum(M_LOG_NAMES_BYTES), 6u * 3000u);
}

Test(filter_lists, while_retention_removes_what_they_name)
{
    walk_at_random(8000, 192 << 10);
    cr_expect_gt(metrics_sum(M_LOG_TRIMMED_SEGMENTS), 0u);
    cr_expect_gt(metrics_sum(M_LOG_FILTER_MERGED), 0u);
}

Test(filter_lists, many_filters_take_turns)
{
    seed = test_seed();
    world_init(&w, 1);
    w.options.names_bytes = 1 << 20;
    world_open(&w);
    grow(1000);
    for (unsigned i = 0; i < 400; i++) {
        char text[32];
        uint64_t offsets[1000];
        snprintf(text, sizeof text, "+/%u/%s", i % 200, i % 2 ? "#" : "x");
        struct slice filter = slice_cstr(text);
        uint64_t walked = collect(&filter, 0, UINT64_MAX, 100, false, offsets);
        cr_assert_eq(collect(&filter, 0, UINT64_MAX, 100, true, offsets), walked);
    }
    world_deinit(&w);
}

/* A list may hold records of another topic, whose name has the same hash: they are told apart by name. Here
 * that is so for the whole of a filter's plan when its function changes its mind. */
static bool wants_nothing(void *ctx, struct slice topic)
{
    (void)ctx;
    (void)topic;
    return false;
}

Test(filter_lists, each_record_is_asked_for_again)
{
    struct slice filter = slice_cstr("rare");
    uint64_t offsets[200];
    world_init(&w, 1);
    w.options.names_bytes = 1 << 20;
    world_open(&w);
    for (unsigned i = 0; i < 100; i++)
        world_put(&w, 0, i == 50 ? "rare" : "often", "x");
    cr_assert_eq(collect(&filter, 0, UINT64_MAX, 10, true, offsets), 1u);
    uint64_t merged = metrics_sum(M_LOG_FILTER_MERGED);
    cr_assert_eq(collect(&filter, 0, UINT64_MAX, 10, true, offsets), 1u);
    cr_assert_gt(metrics_sum(M_LOG_FILTER_MERGED), merged, "by the list now");
    struct world_read r;
    world_read_init(&r, 0, 0);
    r.read.wants = wants_nothing;
    r.read.filter = filter;
    world_read_run(&w, &r);
    cr_assert_eq(r.read.found, 0u);
    world_read_free(&r);
    world_deinit(&w);
}
