/* A shard by letters, without a hub: what leaves it, in which order, for which loop. The story of a loop:
 * "12" = a DELIVER with offsets 1 and 2, "+5" = ATTACHED at 5, "r3" = a READ that is not live with next 3,
 * "R5" = live at 5, "p2" = PUBLISHED with offset 2. */
#include "routing/shard.h"

#include "fakes/fake_topic_log.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOPS = 3 };

struct receiver { /* in place of a hub */
    char story[256];
    unsigned letters;
};

static struct fake_log flog;
static unsigned loop_count;
static struct loop *loops[LOOPS];
static struct courier *couriers[LOOPS];
static struct shard_group *group; /* on loop 0 */
static struct shard_map map;
static struct metrics *metrics;
static struct shard_limits limits = {
    {3, 1 << 20}, {3, 3, 1 << 20, 60000}, {3, 1 << 20}, {{3, 1 << 20}, 1000, 3, 0}, {2, 4, 1 << 20, 2, 4}};
static uint64_t wall_ms = 1700000000000, mono_ms = 1000;
static struct receiver receivers[LOOPS];

static void tell(struct receiver *r, const char *what, uint64_t n)
{
    size_t len = strlen(r->story);
    snprintf(r->story + len, sizeof r->story - len, "%s%lu", what, (unsigned long)n);
}

static void on_deliver(struct mail *mail)
{
    struct deliver *d = LIST_OF(mail, struct deliver, mail);
    struct receiver *r = d->hub;
    r->letters++;
    for (uint32_t i = 0; i < d->run->count; i++)
        tell(r, i == 0 ? " " : "", d->run->msgs[i]->offset);
    deliver_free(d);
}

static uint64_t mono_ns(void *ctx)
{
    (void)ctx;
    return mono_ms * 1000000;
}

static uint64_t wall(void *ctx)
{
    (void)ctx;
    return wall_ms;
}

static void open_with(unsigned count)
{
    static const struct clock clock = {.mono_ns = mono_ns, .wall_ms = wall};
    loop_count = count;
    metrics = metrics_register();
    fake_log_init(&flog, 1);
    memset(receivers, 0, sizeof receivers);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_eq(loop_create(&clock, i, &loops[i]), ST_OK);
        cr_assert_eq(courier_create(loops[i], &couriers[i]), ST_OK);
    }
    cr_assert_eq(shard_group_create(couriers[0], fake_log_port(&flog), metrics, count, &limits, &group),
                 ST_OK);
    map = (struct shard_map){.lane_count = 1};
    cr_assert_eq(shard_create(group, 0, &map.lanes[0].shard), ST_OK);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < count; k++)
            courier_meet(couriers[i], k, loops[k]);
        shard_group_meet(group, i, &receivers[i], on_deliver);
    }
    shard_group_start(group);
    for (unsigned i = 0; i < count; i++)
        courier_start(couriers[i]);
}

static void close_all(void)
{
    shard_group_destroy(group);
    for (unsigned i = 0; i < loop_count; i++) {
        courier_destroy(couriers[i]);
        loop_destroy(loops[i]);
    }
    fake_log_deinit(&flog);
}

static void setup(void)
{
    open_with(1);
}

TestSuite(shard, .init = setup, .fini = close_all);
TestSuite(shard_many, .fini = close_all);

static void turn(unsigned loop)
{
    loop_dispatch(loops[loop]);
    loop_prepare(loops[loop]);
}

static void settle(void)
{
    for (unsigned n = 0; n < 5; n++)
        for (unsigned i = 0; i < loop_count; i++)
            turn(i);
}

#define expect_story(loop, want)                                                                             \
    cr_expect_str_eq(receivers[loop].story, want, "\"%s\" instead of \"%s\"", receivers[loop].story, want)

static struct msg *message(const char *topic)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, slice_cstr("x"), &m),
                 ST_OK);
    return m;
}

static void publish_lazy(const char *topic)
{
    struct msg *m = message(topic);
    cr_assert_eq(shard_publish_lazy(map.lanes[0].shard, m), ST_OK);
    msg_unref(m);
}

static void on_published(struct publish *p)
{
    tell(p->owner, p->status == ST_OK ? " p" : " refused",
         p->status == ST_OK ? p->msg->offset : (uint64_t)p->status);
    publish_free(p);
}

static void publish_waiting(unsigned loop, const char *topic, bool wait)
{
    struct publish *p;
    cr_assert_eq(publish_create(message(topic), &p), ST_OK);
    p->wait = wait;
    p->owner = &receivers[loop];
    p->on_published = on_published;
    shard_map_publish(&map, couriers[loop], 0, p);
}

static void on_attached(struct attach *a)
{
    tell(a->owner, " +", a->next);
}

static struct attach attach(unsigned loop, const char *filter)
{
    return (struct attach){.filter = slice_cstr(filter),
                           .wants_interest = true,
                           .on_attached = on_attached,
                           .owner = &receivers[loop]};
}

static void detach(unsigned loop, struct attach *a)
{
    struct detach *d = calloc(1, sizeof *d);
    cr_assert(d && a->interest);
    d->interest = a->interest;
    shard_map_detach(&map, couriers[loop], d);
}

static void on_read(struct read *r)
{
    tell(r->owner, r->live ? " R" : " r", r->store.next);
    read_release(r);
}

static struct read cursor_read(unsigned loop, uint64_t from)
{
    return (struct read){.store = {.from = from, .to = UINT64_MAX, .count_max = 4, .bytes_max = 4096},
                         .want_live = true,
                         .on_read = on_read,
                         .owner = &receivers[loop]};
}

Test(shard, without_interest_nothing_is_delivered)
{
    publish_lazy("a");
    settle();
    expect_story(0, "");
    cr_expect(flog.lanes[0].flushed);
}

Test(shard, a_turn_leaves_in_one_run)
{
    struct attach a = attach(0, "#");
    shard_map_attach(&map, couriers[0], &a);
    settle();
    for (int i = 0; i < 9; i++)
        publish_lazy("a");
    expect_story(0, " +0");
    settle();
    expect_story(0, " +0 012345678");
    cr_expect_eq(receivers[0].letters, 1u);
    detach(0, &a);
}

Test(shard, attached_lies_between_before_and_after)
{
    struct attach a = attach(0, "#"), b = attach(0, "b");
    shard_map_attach(&map, couriers[0], &a);
    publish_lazy("a");
    publish_lazy("a");
    shard_map_attach(&map, couriers[0], &b);
    publish_lazy("a");
    settle();
    expect_story(0, " +0 01 +2 2");
    detach(0, &a);
    detach(0, &b);
}

Test(shard, live_lies_between_before_and_after)
{
    struct attach a = attach(0, "#");
    struct read r = cursor_read(0, 0), again;
    shard_map_attach(&map, couriers[0], &a);
    settle();
    publish_lazy("a");
    publish_lazy("a");
    shard_map_read(&map, couriers[0], &r);
    publish_lazy("a");
    settle();
    expect_story(0, " +0 01 R2 2");
    again = cursor_read(0, 3);
    shard_map_read(&map, couriers[0], &again);
    settle();
    expect_story(0, " +0 01 R2 2 R3");
    detach(0, &a);
}

Test(shard, a_cursor_too_far_behind_reads_from_the_log)
{
    for (int i = 0; i < 6; i++)
        publish_lazy("a");
    settle();
    flog.lanes[0].recent = 3;
    struct read r = cursor_read(0, 0);
    shard_map_read(&map, couriers[0], &r);
    settle();
    expect_story(0, "");
    cr_expect(fake_log_serve(&flog));
    settle();
    expect_story(0, " r4");
    r = cursor_read(0, 4);
    shard_map_read(&map, couriers[0], &r);
    settle();
    expect_story(0, " r4 R6");
}

Test(shard, not_live_when_memory_holds_more_than_asked_for)
{
    for (int i = 0; i < 6; i++)
        publish_lazy("a");
    struct read r = cursor_read(0, 0);
    shard_map_read(&map, couriers[0], &r);
    settle();
    expect_story(0, " r4");
}

Test(shard, publishes_are_answered_in_order_when_durable)
{
    publish_waiting(0, "a", true);
    publish_waiting(0, "a", false); /* does not come back */
    publish_waiting(0, "a", true);
    settle();
    expect_story(0, "");
    fake_log_sync(&flog, 0, 1);
    settle();
    expect_story(0, " p0");
    fake_log_sync(&flog, 0, 3);
    settle();
    expect_story(0, " p0 p2");
}

Test(shard, a_refused_publish_is_answered_at_once_and_takes_no_offset)
{
    flog.append_status = ST_FULL;
    flog.append_failures = 3;
    publish_waiting(0, "a", true);
    publish_waiting(0, "a", false);
    struct msg *m = message("a");
    cr_expect_eq(shard_publish_lazy(map.lanes[0].shard, m), ST_FULL);
    msg_unref(m);
    publish_waiting(0, "a", true);
    settle();
    char want[32];
    snprintf(want, sizeof want, " refused%d", ST_FULL);
    expect_story(0, want);
    fake_log_sync(&flog, 0, 1);
    settle();
    cr_expect(strstr(receivers[0].story, " p0"));
}

Test(shard, publishes_that_still_wait_at_the_end_are_freed)
{
    publish_waiting(0, "a", true); /* the leak check of the sanitizer is the judge */
    settle();
}

Test(shard_many, each_loop_gets_what_it_wants_once)
{
    open_with(3);
    struct attach all[] = {attach(0, "a"), attach(1, "#"), attach(1, "a"), attach(2, "b/+")};
    const unsigned of[] = {0, 1, 1, 2};
    for (unsigned i = 0; i < 4; i++)
        shard_map_attach(&map, couriers[of[i]], &all[i]);
    settle();
    publish_lazy("a");
    publish_lazy("b/c");
    publish_lazy("x");
    settle();
    expect_story(0, " +0 0");
    expect_story(1, " +0 +0 012");
    expect_story(2, " +0 1");
    detach(1, &all[1]);
    settle();
    publish_lazy("x");
    publish_lazy("a");
    settle();
    expect_story(1, " +0 +0 012 4");
    for (unsigned i = 0; i < 4; i++)
        if (i != 1)
            detach(of[i], &all[i]);
    settle();
    publish_lazy("a");
    settle();
    expect_story(0, " +0 0 4");
}

Test(shard_many, letters_of_another_loop_keep_their_order_with_deliver)
{
    open_with(2);
    struct attach a = attach(1, "#"), b = attach(1, "#");
    struct read r = cursor_read(1, 0);
    shard_map_attach(&map, couriers[1], &a);
    turn(1);
    publish_lazy("a"); /* before loop 0 has opened the letter */
    turn(0);
    publish_lazy("a");
    publish_waiting(1, "a", true);
    shard_map_read(&map, couriers[1], &r);
    publish_waiting(1, "a", true);
    shard_map_attach(&map, couriers[1], &b);
    turn(1);
    turn(0);
    fake_log_sync(&flog, 0, 4);
    settle();
    expect_story(1, " +1 12 R3 3 +4 p2 p3");
    detach(1, &a);
    detach(1, &b);
    settle();
}

Test(shard_many, a_long_run_is_cut)
{
    open_with(2);
    struct attach a = attach(1, "#");
    shard_map_attach(&map, couriers[1], &a);
    settle();
    for (int i = 0; i < RUN_MESSAGES_MAX + 10; i++)
        publish_lazy("a");
    settle();
    cr_expect_eq(receivers[1].letters, 2u);
    detach(1, &a);
    settle();
}

/* --- retained messages -------------------------------------------------------------------------- */

static enum status retain(const char *topic, const char *payload, uint64_t ttl_ms)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, slice_cstr(payload), &m),
                 ST_OK);
    m->flags = MSG_RETAIN;
    m->expires_ms = ttl_ms ? wall_ms + ttl_ms : 0;
    enum status st = shard_publish_lazy(map.lanes[0].shard, m);
    msg_unref(m);
    return st;
}

static void on_retained(struct read *r)
{
    if (r->store.count_only)
        tell(r->owner, " #", r->store.found);
    for (uint64_t i = 0; i < r->store.found && r->store.msgs; i++)
        tell(r->owner, i == 0 ? " " : "", r->store.msgs[i]->offset);
    tell(r->owner, " r", r->store.next);
    read_release(r);
}

static void read_retained(struct read *r, const char *topic)
{
    *r = (struct read){.store = {.to = UINT64_MAX, .count_max = 4},
                       .retained = true,
                       .on_read = on_retained,
                       .owner = &receivers[0]};
    if (topic)
        r->store.topic = slice_cstr(topic);
    shard_map_read(&map, couriers[0], r);
    settle();
}

static uint64_t gauge(enum metric id)
{
    return atomic_load(&metrics->values[id]);
}

Test(shard, the_newest_retained_message_of_each_topic_is_kept)
{
    struct read r;
    cr_assert_eq(retain("a", "1", 0), ST_OK);
    cr_assert_eq(retain("b", "1", 0), ST_OK);
    cr_assert_eq(retain("c", "1", 0), ST_OK);
    publish_lazy("a");
    cr_assert_eq(retain("a", "2", 0), ST_OK);
    cr_assert_eq(retain("b", "", 0), ST_OK);
    read_retained(&r, NULL);
    read_retained(&r, "a");
    read_retained(&r, "b");
    expect_story(0, " 24 r6 4 r6 r6");
    cr_expect_eq(gauge(M_RETAINED), 2u);
}

Test(shard, over_the_limit_a_new_topic_is_refused_and_an_old_one_replaced)
{
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(retain((const char *[]){"a", "b", "c"}[i], "1", 0), ST_OK);
    cr_expect_eq(retain("d", "1", 0), ST_QUOTA);
    cr_expect_eq(flog.lanes[0].count, 3u, "nothing was stored");
    cr_expect_eq(retain("b", "2", 0), ST_OK);
    cr_expect_eq(retain("d", "", 0), ST_OK, "clearing needs no room");
    cr_expect_eq(retain("c", "", 0), ST_OK);
    cr_expect_eq(retain("d", "1", 0), ST_OK);
    publish_lazy("e");
}

Test(shard, a_refused_retained_publish_is_answered)
{
    struct publish *p;
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(retain((const char *[]){"a", "b", "c"}[i], "1", 0), ST_OK);
    cr_assert_eq(publish_create(message("d"), &p), ST_OK);
    p->msg->flags = MSG_RETAIN;
    p->wait = true;
    p->owner = &receivers[0];
    p->on_published = on_published;
    shard_map_publish(&map, couriers[0], 0, p);
    settle();
    char want[32];
    snprintf(want, sizeof want, " refused%u", (unsigned)ST_QUOTA);
    expect_story(0, want);
}

Test(shard, what_has_expired_makes_room_at_once)
{
    struct read r;
    cr_assert_eq(retain("a", "1", 50), ST_OK);
    cr_assert_eq(retain("b", "1", 0), ST_OK);
    cr_assert_eq(retain("c", "1", 0), ST_OK);
    cr_expect_eq(retain("d", "1", 0), ST_QUOTA);
    wall_ms += 50;
    settle();
    read_retained(&r, "a");
    expect_story(0, " r3");
    cr_expect_eq(gauge(M_RETAINED), 3u, "nobody has come by yet");
    cr_expect_eq(retain("d", "1", 0), ST_OK);
    cr_expect_eq(gauge(M_RETAINED), 3u);
}

Test(shard, what_has_expired_goes_without_anybody_asking)
{
    cr_assert_eq(retain("a", "1", 50), ST_OK);
    cr_assert_eq(retain("b", "1", 5000), ST_OK);
    uint64_t bytes = gauge(M_RETAINED_BYTES);
    wall_ms += 1500;
    mono_ms += 1500;
    settle();
    cr_expect_eq(gauge(M_RETAINED), 1u);
    cr_expect_eq(gauge(M_RETAINED_BYTES), bytes / 2);
    wall_ms += 5000;
    for (unsigned i = 0; i < 3; i++) {
        mono_ms += 1500;
        settle();
    }
    cr_expect_eq(gauge(M_RETAINED), 0u);
    cr_expect_eq(gauge(M_RETAINED_BYTES), 0u);
    cr_expect_eq(loop_timers(loops[0])->count, 0u, "it sleeps while nothing will expire");
}

Test(shard, a_walk_counts_down_what_it_lets_go)
{
    struct read r;
    cr_assert_eq(retain("a", "1", 50), ST_OK);
    cr_assert_eq(retain("b", "1", 0), ST_OK);
    wall_ms += 50;
    settle();
    read_retained(&r, NULL);
    expect_story(0, " 1 r2");
    cr_expect_eq(gauge(M_RETAINED), 1u);
}

Test(shard, attached_says_whether_something_may_be_retained)
{
    static const struct {
        const char *filter;
        bool want;
    } rows[] = {{"a", true}, {"b", false}, {"#", true}, {"x/+", true}};
    cr_assert_eq(retain("a", "1", 0), ST_OK);
    for (unsigned i = 0; i < 4; i++) {
        struct attach a = attach(0, rows[i].filter);
        shard_map_attach(&map, couriers[0], &a);
        settle();
        cr_expect_eq(a.has_retained, rows[i].want, "%s", rows[i].filter);
        detach(0, &a);
    }
    cr_assert_eq(retain("a", "", 0), ST_OK);
    struct attach a = attach(0, "#");
    shard_map_attach(&map, couriers[0], &a);
    settle();
    cr_expect_not(a.has_retained);
    detach(0, &a);
}

/* However many it has to look at, a step is one turn of the loop. */
Test(shard, a_long_walk_lets_others_have_their_turn)
{
    struct read r;
    limits.retained.count_max = 3 * RETAINED_STEP;
    close_all();
    open_with(1);
    for (unsigned i = 0; i < 3 * RETAINED_STEP; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "t/%u", i);
        cr_assert_eq(retain(topic, "1", 0), ST_OK);
    }
    settle();
    memset(&receivers[0], 0, sizeof receivers[0]);
    r = (struct read){.store = {.to = UINT64_MAX, .count_only = true, .count_max = 1},
                      .retained = true,
                      .on_read = on_retained,
                      .owner = &receivers[0]};
    shard_map_read(&map, couriers[0], &r);
    loop_prepare(loops[0]);
    expect_story(0, "");
    loop_dispatch(loops[0]);
    expect_story(0, " #2048 r2048");
    r.store.from = 2 * RETAINED_STEP;
    shard_map_read(&map, couriers[0], &r);
    loop_prepare(loops[0]);
    expect_story(0, " #2048 r2048 #2048 r6144");
}

static bool serve_log(struct loop_hook *h)
{
    (void)h;
    return fake_log_serve(&flog);
}

/* Start-up: a page of the log after another, waiting for each. */
Test(shard, the_fold_is_the_state)
{
    struct loop_hook hook = {.on_turn_end = serve_log};
    struct read r;
    list_init(&hook.link);
    cr_assert_eq(retain("a", "1", 0), ST_OK);
    cr_assert_eq(retain("b", "1", 0), ST_OK);
    publish_lazy("c");
    cr_assert_eq(retain("b", "", 0), ST_OK);
    cr_assert_eq(retain("c", "1", 0), ST_OK);
    fake_log_jump(&flog, 0, 5);
    cr_assert_eq(retain("a", "2", 0), ST_OK);
    settle();
    flog.serve_max = 1;
    struct shard *running = map.lanes[0].shard;
    loop_hook_add(loops[0], &hook);
    cr_assert_eq(shard_create(group, 0, &map.lanes[0].shard), ST_OK);
    cr_assert_eq(shard_fold(map.lanes[0].shard), ST_OK);
    loop_hook_remove(loops[0], &hook);
    read_retained(&r, NULL);
    map.lanes[0].shard = running;
    read_retained(&r, NULL);
    expect_story(0, " 410 r11 410 r11");
}

/* --- retention asks ------------------------------------------------------------------------------- */

static uint64_t log_first(void)
{
    return flog.lanes[0].first;
}

static void open_roomy(void)
{
    limits.retained.count_max = 3 * RETAINED_STEP;
    close_all();
    open_with(1);
}

/* The shard was made without a fold: what that says at its end is said here. */
static void want_trim(uint64_t upto)
{
    flog.lanes[0].trim_open = true;
    fake_log_want_trim(&flog, 0, upto);
    settle();
}

static void sync_all(void)
{
    fake_log_sync(&flog, 0, flog.lanes[0].count);
    settle();
}

Test(shard, what_is_retained_is_carried_before_the_log_is_trimmed)
{
    struct read r;
    open_roomy();
    cr_assert_eq(retain("a", "1", 0), ST_OK); /* 0 */
    cr_assert_eq(retain("b", "1", 0), ST_OK); /* 1: replaced */
    cr_assert_eq(retain("c", "1", 0), ST_OK); /* 2: cleared */
    cr_assert_eq(retain("e", "1", 5), ST_OK); /* 3: expires */
    publish_lazy("x"); /* 4 */
    cr_assert_eq(retain("b", "2", 0), ST_OK); /* 5 */
    cr_assert_eq(retain("c", "", 0), ST_OK); /* 6 */
    cr_assert_eq(retain("d", "1", 0), ST_OK); /* 7: above */
    sync_all();
    wall_ms += 5;
    settle();
    cr_expect_gt(flog.lanes[0].live_bytes, 3 * sizeof(struct msg));
    want_trim(7);
    cr_expect_eq(flog.lanes[0].count, 10u, "a and b, nothing else");
    cr_expect(flog.lanes[0].flushed);
    cr_expect_eq(log_first(), 0u, "not before they are durable");
    fake_log_sync(&flog, 0, 9);
    settle();
    cr_expect_eq(log_first(), 0u);
    sync_all();
    cr_expect_eq(log_first(), 7u);
    cr_expect_eq(gauge(M_LOG_CARRIED), 2u);
    read_retained(&r, NULL);
    expect_story(0, " 057 r10");

    /* Once more: a and b are where they are now, not where they were. */
    want_trim(8);
    cr_expect_eq(flog.lanes[0].count, 11u, "d");
    sync_all();
    cr_expect_eq(log_first(), 8u);
    want_trim(9);
    cr_expect_eq(flog.lanes[0].count, 12u, "a");
    cr_assert_eq(retain("d", "2", 0), ST_OK); /* 12 */
    sync_all();
    want_trim(11);
    sync_all();
    cr_expect_eq(log_first(), 11u);
    cr_expect_eq(flog.lanes[0].count, 14u, "b; d has been replaced");
}

/* A power cut must not take the new one while the old one is gone already. */
Test(shard, what_has_been_replaced_goes_when_that_is_durable)
{
    for (int clear = 0; clear < 2; clear++) {
        uint64_t begin = flog.lanes[0].count;
        cr_assert_eq(retain("a", "1", 0), ST_OK);
        publish_lazy("x");
        sync_all();
        cr_assert_eq(retain("a", clear ? "" : "2", 0), ST_OK);
        settle();
        want_trim(begin + 1);
        cr_expect_eq(flog.lanes[0].count, begin + 3, "nothing to carry");
        cr_expect_leq(log_first(), begin, "but not yet");
        sync_all();
        cr_expect_eq(log_first(), begin + 1);
    }
}

Test(shard, carrying_is_not_delivered_and_not_in_history)
{
    struct attach a = attach(0, "a");
    shard_map_attach(&map, couriers[0], &a);
    settle();
    cr_assert_eq(retain("a", "1", 0), ST_OK);
    publish_lazy("x");
    sync_all();
    cr_expect_eq(receivers[0].letters, 1u);
    want_trim(1);
    sync_all();
    cr_expect_eq(log_first(), 1u);
    cr_expect_eq(receivers[0].letters, 1u);
    struct read r = cursor_read(0, 1);
    flog.lanes[0].recent = 100;
    shard_map_read(&map, couriers[0], &r);
    expect_story(0, " +0 01");
    settle();
    expect_story(0, " +0 01 R3");
    detach(0, &a);
    settle();
}

Test(shard, a_walk_under_way_does_not_miss_what_is_carried_meanwhile)
{
    struct read r;
    cr_assert_eq(retain("a", "1", 0), ST_OK);
    cr_assert_eq(retain("b", "1", 0), ST_OK);
    publish_lazy("x");
    sync_all();
    uint64_t attached_at = flog.lanes[0].count;
    want_trim(2);
    sync_all();
    cr_expect_eq(log_first(), 2u);
    r = (struct read){.store = {.to = attached_at, .count_max = 4},
                      .retained = true,
                      .on_read = on_retained,
                      .owner = &receivers[0]};
    shard_map_read(&map, couriers[0], &r);
    settle();
    expect_story(0, " 01 r3");
}

Test(shard, a_log_that_cannot_take_it_is_asked_again)
{
    open_roomy();
    for (char topic[] = "a"; topic[0] < 'f'; topic[0]++)
        cr_assert_eq(retain(topic, "1", 0), ST_OK);
    publish_lazy("x");
    sync_all();
    flog.append_status = ST_NO_SPACE;
    flog.append_failures = 1;
    want_trim(5);
    cr_expect_eq(flog.lanes[0].count, 6u);
    sync_all();
    cr_expect_eq(log_first(), 0u);
    mono_ms += 60;
    settle();
    cr_expect_eq(flog.lanes[0].count, 11u);
    cr_expect_eq(log_first(), 0u);
    sync_all();
    cr_expect_eq(log_first(), 5u);
}

/* 5,000 are several steps; each waits for the one before to be durable. */
Test(shard, carrying_many_takes_turns_with_the_disk)
{
    enum { MANY = 5000 };
    char topic[16];
    struct read r;
    open_roomy();
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(topic, sizeof topic, "%u", i);
        cr_assert_eq(retain(topic, "1", 0), ST_OK);
    }
    publish_lazy("x");
    sync_all();
    want_trim(MANY);
    unsigned steps = 0;
    for (; log_first() == 0 && steps < 100; steps++) {
        cr_expect_leq(flog.lanes[0].count - flog.lanes[0].durable, 1024u);
        sync_all();
        mono_ms++;
        settle();
    }
    cr_expect_eq(log_first(), (uint64_t)MANY);
    cr_expect_eq(flog.lanes[0].count, 2u * MANY + 1);
    cr_expect(steps >= 5 && steps < 20, "%u steps", steps);

    /* What a start folds is the same: the same messages, of the same positions, in their order. */
    struct loop_hook hook = {.on_turn_end = serve_log};
    list_init(&hook.link);
    struct shard *running = map.lanes[0].shard;
    loop_hook_add(loops[0], &hook);
    flog.lanes[0].trim_open = false;
    cr_assert_eq(shard_create(group, 0, &map.lanes[0].shard), ST_OK);
    cr_assert_eq(shard_fold(map.lanes[0].shard), ST_OK);
    loop_hook_remove(loops[0], &hook);
    cr_expect(flog.lanes[0].trim_open, "retention may ask now");
    read_retained(&r, NULL);
    map.lanes[0].shard = running;
    read_retained(&r, NULL);
    expect_story(0, " 0123 r4 0123 r4");
}
