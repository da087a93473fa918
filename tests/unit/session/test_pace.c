/* Those that catch up take turns (session/pace.c): few READs of the log are under way on a loop however many
 * are behind, nobody is forgotten, and one that ends while it waits is let go. */
#include "fakes/exchange.h"

enum { SUBSCRIBERS = 9, MESSAGES = 200, READS_OPEN_MAX = 2 };

static struct exchange x;
static struct fake_conn conns[SUBSCRIBERS];
static struct session *sessions[SUBSCRIBERS];

static void open_all(void)
{
    exchange_open(&x, 1, 1);
    x.log.lanes[0].recent = 0; /* nothing is in memory: every READ is one of the log */
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        fake_conn_init(&conns[i], UINT64_MAX);
        cr_assert_eq(session_create(x.hubs[0], &fake_transport, &conns[i], &sessions[i]), ST_OK);
    }
    for (unsigned i = 0; i < MESSAGES; i++)
        exchange_publish(&x, 0, "a");
    exchange_settle(&x);
}

static void close_all(void)
{
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        session_end(sessions[i]);
        fake_conn_deinit(&conns[i]);
    }
    exchange_close(&x);
}

TestSuite(pace, .init = open_all, .fini = close_all);

static void subscribe_all(void)
{
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        struct subscription *sub;
        const struct subscription_options o = {.qos = 1, .start = START_EARLIEST};
        cr_assert_eq(session_subscribe(sessions[i], slice_cstr("a"), &o, &sub), ST_OK);
    }
}

static void turns(unsigned count)
{
    while (count-- > 0)
        exchange_turn(&x, 0);
}

/* Up to the first answers: from then on they wait for their turn. */
static void until_they_wait(void)
{
    for (unsigned i = 0; i < 1000 && metrics_sum(M_CATCHUP_WAITING) == 0; i++) {
        turns(3);
        fake_log_serve(&x.log);
    }
    cr_assert_gt(metrics_sum(M_CATCHUP_WAITING), 0u);
}

Test(pace, they_take_turns_and_all_arrive)
{
    subscribe_all();
    until_they_wait();
    turns(3);
    while (fake_log_serve(&x.log)) /* all that was asked for before is answered */
        turns(3);
    cr_expect_leq(metrics_sum(M_CATCHUP_WAITING), (uint64_t)SUBSCRIBERS);
    x.log.lanes[0].recent = UINT64_MAX;
    exchange_settle(&x);
    cr_expect_eq(metrics_sum(M_CATCHUP_WAITING), 0u);
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        cr_expect_eq(fake_conn_count(&conns[i], FAKE_MESSAGE), (size_t)MESSAGES, "subscriber %u", i);
        cr_expect_eq(fake_conn_count(&conns[i], FAKE_LIVE), 1u);
        for (unsigned k = 1; k < MESSAGES; k++)
            cr_assert_gt(fake_conn_event(&conns[i], FAKE_MESSAGE, k)->msg->offset,
                         fake_conn_event(&conns[i], FAKE_MESSAGE, k - 1)->msg->offset);
    }
}

Test(pace, one_that_ends_while_it_waits_is_let_go)
{
    subscribe_all();
    until_they_wait();
    for (unsigned i = 0; i < SUBSCRIBERS; i += 2)
        cr_assert_eq(session_unsubscribe(sessions[i], slice_cstr("a")), ST_OK);
    x.log.lanes[0].recent = UINT64_MAX;
    exchange_settle(&x);
    cr_expect_eq(metrics_sum(M_CATCHUP_WAITING), 0u);
    for (unsigned i = 1; i < SUBSCRIBERS; i += 2)
        cr_expect_eq(fake_conn_count(&conns[i], FAKE_MESSAGE), (size_t)MESSAGES, "subscriber %u", i);
}

/* However many are behind: so much of the log is asked for at once, and so much memory holds what it answers.
 */
Test(pace, few_reads_are_under_way)
{
    subscribe_all();
    until_they_wait();
    while (fake_log_serve(&x.log)) /* the first READ of each was not paced */
        ;
    turns(3);
    for (unsigned i = 0; i < 20; i++) {
        unsigned open = 0;
        while (fake_log_serve(&x.log))
            open++;
        cr_expect_leq(open, (unsigned)READS_OPEN_MAX);
        turns(3);
    }
}
