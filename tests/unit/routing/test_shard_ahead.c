/* READs from behind the end, where the order of records is given elsewhere. */
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

static enum status on_propose(struct fake_log *f, struct msg *m)
{
    (void)f;
    (void)m;
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

static void arrive(void)
{
    const struct proposal p = {.incarnation = 9, .sequence = x.log.lanes[0].count + 1};
    struct msg *m, *stamped;
    cr_assert_eq(msg_create(slice_cstr("a"), (struct slice){0}, (struct slice){0}, slice_cstr("x"), &m),
                 ST_OK);
    cr_assert_eq(proposal_stamp(m, &p, &stamped), ST_OK);
    shard_arrived(x.shard, fake_log_bring(&x.log, 0, stamped, 1700000000000));
    msg_unref(stamped);
    msg_unref(m);
    turn();
}

static void on_read(struct read *r)
{
    (void)r;
    x.back++;
}

static struct read ask(uint64_t from)
{
    return (struct read){.store = {.topic = slice_cstr("a"),
                                   .from = from,
                                   .to = UINT64_MAX,
                                   .count_max = 10,
                                   .bytes_max = 1000,
                                   .home = x.loop},
                         .want_live = true,
                         .on_read = on_read};
}

TestSuite(shard_ahead, .init = setup, .fini = teardown);

Test(shard_ahead, a_cursor_waits_for_the_record_before_it)
{
    struct read r = ask(2), earlier = ask(1);
    shard_read(x.shard, &r);
    shard_read(x.shard, &earlier);
    turn();
    cr_assert_eq(x.back, 0, "waits_for_the_record_before_it");
    arrive();
    cr_assert_eq(x.back, 1);
    cr_assert(earlier.live && earlier.store.status == ST_OK && earlier.store.next == 1);
    read_release(&earlier);
    arrive();
    cr_assert_eq(x.back, 2);
    cr_assert(r.live && r.store.status == ST_OK && r.store.found == 0 && r.store.next == 2);
    read_release(&r);
}

Test(shard_ahead, it_comes_back_when_it_has_waited_in_vain)
{
    struct read r = ask(5);
    shard_read(x.shard, &r);
    turn();
    cr_assert_eq(x.back, 0);
    now_ms += 6000;
    turn();
    cr_assert_eq(x.back, 1);
    cr_assert(r.beyond && r.store.status == ST_GONE);
}

/* What a session's record says was under way at another node: one message, at its place. */
static struct read ask_for(uint64_t offset)
{
    struct read r = ask(offset);
    r.store.to = offset + 1;
    r.want_live = false;
    r.whole = true;
    return r;
}

Test(shard_ahead, a_message_that_is_there_for_sure_waits_for_itself)
{
    struct read r = ask_for(1);
    shard_read(x.shard, &r);
    arrive();
    cr_assert(x.back == 0 && !fake_log_serve(&x.log), "waits_for_itself");
    arrive();
    cr_assert(fake_log_serve(&x.log));
    turn();
    cr_assert_eq(x.back, 1);
    cr_assert(r.store.status == ST_OK && r.store.found == 1 && r.store.msgs[0]->offset == 1);
    read_release(&r);
    struct read vain = ask_for(2);
    shard_read(x.shard, &vain);
    turn();
    cr_assert_eq(x.back, 1);
    now_ms += 6000;
    turn();
    cr_assert_eq(x.back, 2);
    cr_assert(vain.beyond && vain.store.status == ST_AGAIN, "not that it is gone");
}

Test(shard_ahead, what_is_there_is_read_at_once)
{
    arrive();
    arrive();
    struct read r = ask(1);
    shard_read(x.shard, &r);
    turn();
    cr_assert_eq(x.back, 1);
    cr_assert_eq(r.store.found, 1);
    read_release(&r);
}
