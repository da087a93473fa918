/* A node without sockets and disk for tests: loops with their shards and hubs over the fake log, driven a
 * turn at a time on the test's thread. Lanes go round the loops. */
#ifndef TG_TESTS_EXCHANGE_H
#define TG_TESTS_EXCHANGE_H

#include "fakes/fake_topic_log.h"
#include "fakes/fake_transport.h"
#include "session/hub.h"

#ifndef cr_assert_eq /* a fuzz target has words of its own for it */
#include <criterion/criterion.h>
#endif
#include <poll.h>
#include <stdio.h>

enum { EX_LOOPS_MAX = 4 };

struct exchange {
    unsigned loop_count;
    struct fake_log log;
    struct loop *loops[EX_LOOPS_MAX];
    struct courier *couriers[EX_LOOPS_MAX];
    struct shard_group *shards[EX_LOOPS_MAX];
    struct metrics *metrics[EX_LOOPS_MAX];
    struct hub *hubs[EX_LOOPS_MAX];
    struct shard_map map;
    struct shard_limits limits;
    struct policies *policies[EX_LOOPS_MAX];
    int64_t gauges[METRIC_COUNT]; /* before the first session */
};

/* Time stands until the test moves it. */
static uint64_t ex_lag_messages; /* of hubs built from now on */
static uint64_t ex_share_given = 1000; /* of groups built from now on */
static uint64_t ex_inboxes_max = 1000, ex_inbox_keep_ms;
static uint64_t ex_wall_ms = 1700000000000, ex_mono_ms = 1000;

static inline uint64_t ex_mono(void *ctx)
{
    (void)ctx;
    return ex_mono_ms * 1000000;
}

static inline uint64_t ex_wall(void *ctx)
{
    (void)ctx;
    return ex_wall_ms;
}

/* All but the hubs' own hooks, which come after those of doors: exchange_start. */
static inline void exchange_build(struct exchange *x, unsigned loop_count, unsigned lane_count)
{
    static const struct clock clock = {.mono_ns = ex_mono, .wall_ms = ex_wall};
    const struct hub_limits limits = {.subscriptions_max = 5,
                                      .read_count = 64,
                                      .read_bytes = 4096,
                                      .drops_max = 10,
                                      .lag_messages = ex_lag_messages,
                                      .catchup_share = 25,
                                      .topic = {1024, 32}};
    *x = (struct exchange){.loop_count = loop_count,
                           .limits = {.retained = {1000, 1 << 20},
                                      .once = {1000, 1000, 1 << 20, 86400000},
                                      .sessions = {1000, 1 << 20}}};
    x->limits.inbox.records = (struct retained_limits){ex_inboxes_max, 1 << 20};
    x->limits.share.groups = 2;
    x->limits.share.given = ex_share_given;
    x->limits.share.given_bytes = 1 << 20;
    x->limits.inbox.save_ms = 10000;
    x->limits.inbox.save_count = 5;
    x->limits.inbox.keep_ms = ex_inbox_keep_ms;
    fake_log_init(&x->log, lane_count);
    x->map.lane_count = lane_count;
    x->map.epoch = 7;
    for (unsigned i = 0; i < loop_count; i++) {
        x->metrics[i] = metrics_register();
        cr_assert_eq(loop_create(&clock, i, &x->loops[i]), ST_OK);
        cr_assert_eq(courier_create(x->loops[i], &x->couriers[i]), ST_OK);
        cr_assert_eq(shard_group_create(x->couriers[i], fake_log_port(&x->log), x->metrics[i], loop_count,
                                        &x->limits, &x->shards[i]),
                     ST_OK);
        cr_assert_eq(hub_create(x->couriers[i], &x->map, x->metrics[i], &limits, &x->hubs[i]), ST_OK);
    }
    for (unsigned lane = 0; lane < lane_count; lane++) {
        cr_assert_eq(shard_create(x->shards[lane % loop_count], lane, &x->map.lanes[lane].shard), ST_OK);
        x->map.lanes[lane].loop_index = lane % loop_count;
    }
    for (unsigned i = 0; i < loop_count; i++) {
        for (unsigned k = 0; k < loop_count; k++) {
            courier_meet(x->couriers[i], k, x->loops[k]);
            shard_group_meet(x->shards[i], k, x->hubs[k], hub_on_deliver);
            hub_meet(x->hubs[i], k, x->hubs[k], loop_count);
        }
        shard_group_start(x->shards[i]);
        courier_start(x->couriers[i]);
    }
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        x->gauges[i] = (int64_t)metrics_sum((enum metric)i);
}

static inline void exchange_start(struct exchange *x)
{
    for (unsigned i = 0; i < x->loop_count; i++)
        hub_start(x->hubs[i]);
}

static inline void exchange_open(struct exchange *x, unsigned loop_count, unsigned lane_count)
{
    exchange_build(x, loop_count, lane_count);
    exchange_start(x);
}

/* Before anything moves. */
static inline void exchange_set_policies(struct exchange *x, const struct topic_policy *rows, size_t count)
{
    for (unsigned i = 0; i < x->loop_count; i++) {
        cr_assert_eq(policies_create(rows, count, &x->policies[i]), ST_OK);
        shard_group_set_policies(x->shards[i], x->policies[i]);
        hub_set_policies(x->hubs[i], x->policies[i]);
    }
}

/* How much a gauge or counter has moved since the start. */
static inline int64_t exchange_metric(const struct exchange *x, enum metric id)
{
    return (int64_t)metrics_sum(id) - x->gauges[id];
}

/* One turn of one loop. True: something had come, or it would come again without waiting. */
static inline bool exchange_turn(struct exchange *x, unsigned loop)
{
    struct pollfd waker = {.fd = loop_poll_fd(x->loops[loop]), .events = POLLIN};
    bool woken = poll(&waker, 1, 0) == 1;
    loop_dispatch(x->loops[loop]);
    return loop_prepare(x->loops[loop]) == 0 || woken;
}

/* Until nothing moves any more: all reads are answered, everything is durable. */
static inline void exchange_settle(struct exchange *x)
{
    for (unsigned quiet = 0; quiet < 3;) {
        bool moved = false;
        for (unsigned i = 0; i < x->loop_count; i++)
            moved |= exchange_turn(x, i);
        while (fake_log_serve(&x->log))
            moved = true;
        for (unsigned i = 0; i < x->log.lane_count; i++)
            fake_log_sync(&x->log, i, UINT64_MAX);
        quiet = moved ? 0 : quiet + 1;
    }
}

/* --- the fold ------------------------------------------------------------------------------------- */

struct exchange_serving {
    struct loop_hook hook;
    struct fake_log *log;
};

static inline bool exchange_serve(struct loop_hook *hook)
{
    struct exchange_serving *s = LIST_OF(hook, struct exchange_serving, hook);
    return fake_log_serve(s->log);
}

static inline void exchange_read_back(struct read *r)
{
    *(bool *)r->owner = true;
}

/* The offsets of all retained messages of a shard that is at home on `loop`. */
static inline size_t exchange_retained(struct exchange *x, unsigned loop, struct shard *shard, unsigned lane,
                                       uint64_t *offsets, size_t most)
{
    bool back;
    size_t count = 0;
    struct read r = {.store = {.lane = lane, .to = UINT64_MAX, .count_max = 100, .home = x->loops[loop]},
                     .home = (uint16_t)loop,
                     .retained = true,
                     .on_read = exchange_read_back,
                     .owner = &back};
    do {
        back = false;
        shard_read(shard, &r);
        while (!back)
            exchange_turn(x, loop);
        cr_assert_eq(r.store.status, ST_OK);
        for (uint64_t i = 0; i < r.store.found; i++) {
            cr_assert_lt(count, most);
            offsets[count++] = r.store.msgs[i]->offset;
        }
        read_release(&r);
        r.store.from = r.store.next;
    } while (r.store.next < r.store.end);
    return count;
}

/* What a new start folds out of the log is what the shards have folded as it came. Settled. */
static inline void exchange_expect_fold(struct exchange *x)
{
    enum { RETAINED_MOST = 10000 };
    static uint64_t running[RETAINED_MOST], folded[RETAINED_MOST];
    struct shard_group *group;
    struct exchange_serving serving = {.hook.on_turn_end = exchange_serve, .log = &x->log};
    list_init(&serving.hook.link);
    loop_hook_add(x->loops[0], &serving.hook);
    cr_assert_eq(shard_group_create(x->couriers[0], fake_log_port(&x->log), metrics_register(), x->loop_count,
                                    &x->limits, &group),
                 ST_OK);
    for (unsigned lane = 0; lane < x->log.lane_count; lane++) {
        struct shard *again;
        const struct fake_lane bound = x->log.lanes[lane];
        cr_assert_eq(shard_create(group, lane, &again), ST_OK);
        cr_assert_eq(shard_fold(again), ST_OK);
        x->log.lanes[lane].loop = bound.loop; /* the running shard's again */
        x->log.lanes[lane].events = bound.events;
        x->log.lanes[lane].events_ctx = bound.events_ctx;
        struct shard_digest was, is;
        shard_digest(x->map.lanes[lane].shard, ex_wall_ms, &was);
        shard_digest(again, ex_wall_ms, &is);
        cr_assert_eq(is.sessions, was.sessions, "lane %u: sessions", lane);
        cr_assert_eq(is.inboxes, was.inboxes, "lane %u: inboxes", lane);
        cr_assert_eq(is.once, was.once, "lane %u: once", lane);
        cr_assert_eq(is.digest, was.digest, "lane %u: digest", lane);
        size_t had = exchange_retained(x, lane % x->loop_count, x->map.lanes[lane].shard, lane, running,
                                       RETAINED_MOST);
        size_t has = exchange_retained(x, 0, again, lane, folded, RETAINED_MOST);
        cr_assert_eq(has, had, "lane %u: %zu retained messages by the fold, %zu by running", lane, has, had);
        for (size_t i = 0; i < has; i++)
            cr_assert_eq(folded[i], running[i], "lane %u, retained message %zu", lane, i);
    }
    shard_group_destroy(group);
    loop_hook_remove(x->loops[0], &serving.hook);
}

/* Sessions have ended. */
static inline void exchange_close(struct exchange *x)
{
    exchange_settle(x);
    cr_expect_eq(exchange_metric(x, M_SUBSCRIPTIONS), 0);
    cr_expect_eq(exchange_metric(x, M_CURSORS), 0);
    cr_expect_eq(exchange_metric(x, M_PUBLISH_OPEN), 0);
    for (unsigned i = 0; i < x->loop_count; i++) {
        cr_expect(hub_idle(x->hubs[i]));
        hub_destroy(x->hubs[i]);
        shard_group_destroy(x->shards[i]);
        courier_destroy(x->couriers[i]);
        policies_destroy(x->policies[i]);
    }
    for (unsigned i = 0; i < x->loop_count; i++)
        loop_destroy(x->loops[i]);
    fake_log_deinit(&x->log);
}

static inline struct msg *exchange_msg(const char *topic, const char *payload)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, slice_cstr(payload), &m),
                 ST_OK);
    return m;
}

/* A message with RETAIN, or without; an empty payload clears. From a loop, QoS 0. */
static inline enum status exchange_retain(struct exchange *x, unsigned loop, const char *topic,
                                          const char *payload, uint64_t expires_ms)
{
    struct msg *m = exchange_msg(topic, payload);
    m->flags = MSG_RETAIN;
    m->expires_ms = expires_ms;
    return hub_publish_lazy(x->hubs[loop], m);
}

/* QoS 0 from a loop. */
static inline void exchange_publish(struct exchange *x, unsigned loop, const char *topic)
{
    cr_assert_eq(hub_publish_lazy(x->hubs[loop], exchange_msg(topic, "x")), ST_OK);
}

#endif
