/* Own records that have arrived before their report: an acknowledgement waits for both. */
#include "routing/once_id.h"
#include "routing/proposal.h"
#include "routing/shard.h"

#include "fakes/fake_topic_log.h"

#include <criterion/criterion.h>
#include <poll.h>

static uint64_t now_ms = 1000;

static uint64_t mono_ns(void *ctx)
{
    (void)ctx;
    return now_ms * 1000000;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return 1700000000000 + now_ms;
}

enum { PROPOSED_MAX = 8 };
static struct msg *proposed[PROPOSED_MAX];
static unsigned proposed_count, brought;

static enum status on_propose(struct fake_log *f, struct msg *m)
{
    (void)f;
    cr_assert_lt(proposed_count, PROPOSED_MAX);
    proposed[proposed_count++] = msg_ref(m);
    return ST_OK;
}

static struct {
    struct fake_log log;
    struct clock clock;
    struct loop *loop;
    struct courier *courier;
    struct shard_group *group;
    struct shard *shard;
    unsigned back;
    enum status last;
    bool duplicate;
} x;

static void on_deliver(struct mail *mail)
{
    deliver_free(LIST_OF(mail, struct deliver, mail));
}

static void setup(void)
{
    static const struct shard_limits limits = {.retained = {10, 1000},
                                               .once = {10, 10, 100000, 1000},
                                               .sessions = {10, 1000},
                                               .inbox = {.records = {10, 1000}}};
    x.clock = (struct clock){.mono_ns = mono_ns, .wall_ms = wall_ms};
    fake_log_init(&x.log, 1);
    x.log.on_propose = on_propose;
    x.log.incarnation = 1;
    x.log.reports = true;
    cr_assert_eq(loop_create(&x.clock, 0, &x.loop), ST_OK);
    cr_assert_eq(courier_create(x.loop, &x.courier), ST_OK);
    cr_assert_eq(
        shard_group_create(x.courier, fake_log_port(&x.log), metrics_register(), 1, &limits, &x.group),
        ST_OK);
    cr_assert_eq(shard_create(x.group, 0, &x.shard), ST_OK);
    courier_meet(x.courier, 0, x.loop);
    shard_group_meet(x.group, 0, &x, on_deliver);
    shard_group_start(x.group);
    courier_start(x.courier);
}

static void teardown(void)
{
    for (unsigned i = 0; i < proposed_count; i++)
        msg_unref(proposed[i]);
    shard_group_destroy(x.group);
    courier_destroy(x.courier);
    loop_destroy(x.loop);
    fake_log_deinit(&x.log);
}

static void turn(void)
{
    for (unsigned i = 0; i < 3; i++) {
        loop_dispatch(x.loop);
        loop_prepare(x.loop);
    }
}

static void on_published(struct publish *p)
{
    x.back++;
    x.last = p->status;
    x.duplicate = p->duplicate;
    publish_free(p);
}

static void publish(const char *key)
{
    struct msg *m;
    struct publish *p;
    uint8_t props[ONCE_PROP_BYTES_MAX];
    const struct once_id id = {.kind = ONCE_KEY, .name = slice_cstr(key), .value = 1};
    size_t len = key[0] ? once_id_write(&id, props) : 0;
    cr_assert_eq(msg_create(slice_cstr("a"), (struct slice){0}, slice_of(props, len), slice_cstr("x"), &m),
                 ST_OK);
    m->flags |= len ? MSG_ONCE : 0;
    cr_assert_eq(publish_create(m, &p), ST_OK);
    p->wait = true;
    p->on_published = on_published;
    shard_publish(x.shard, p);
    turn();
}

/* The next that was proposed comes out of the log. */
static void arrive(void)
{
    shard_arrived(x.shard, fake_log_bring(&x.log, 0, proposed[brought++], 1700000000000));
    turn();
}

static void report(uint64_t sequence)
{
    fake_log_report(&x.log, sequence);
    shard_reported(x.shard, sequence);
    turn();
}

TestSuite(shard_report, .init = setup, .fini = teardown);

Test(shard_report, an_acknowledgement_waits_for_the_report_too)
{
    publish("");
    publish("");
    arrive();
    cr_assert_eq(x.back, 0, "waits_for_the_report");
    arrive();
    report(1);
    cr_assert(x.back == 1 && x.last == ST_OK);
    report(2);
    cr_assert(x.back == 2 && x.last == ST_OK);
}

Test(shard_report, the_report_may_come_first)
{
    publish("");
    report(1);
    cr_assert_eq(x.back, 0);
    arrive();
    cr_assert(x.back == 1 && x.last == ST_OK);
}

Test(shard_report, a_repetition_is_not_told_before)
{
    publish("k");
    arrive();
    publish("k");
    cr_assert(x.back == 1 && x.last == ST_AGAIN, "the first is not durable yet");
    report(1);
    cr_assert(x.back == 2 && x.last == ST_OK && !x.duplicate);
    publish("k");
    cr_assert(x.back == 3 && x.last == ST_OK && x.duplicate);
}

Test(shard_report, what_nobody_knows_is_told_so_and_others_go_on)
{
    publish("");
    publish("");
    publish("");
    arrive();
    arrive();
    shard_lost(x.shard, 1, ST_EXPIRED);
    turn();
    cr_assert(x.back == 1 && x.last == ST_EXPIRED);
    report(2);
    cr_assert(x.back == 2 && x.last == ST_OK);
    shard_lost(x.shard, 3, ST_EXPIRED); /* it has not arrived */
    turn();
    cr_assert(x.back == 3 && x.last == ST_EXPIRED);
    arrive();
    cr_assert_eq(x.back, 3, "once each");
}

Test(shard_report, what_still_waits_at_the_end_is_let_go)
{
    publish("");
    arrive();
}
