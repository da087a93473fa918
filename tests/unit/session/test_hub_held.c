/* Subscriptions whose first delivery waits for somebody (held), and what a subscription says of its place. */
#include "fakes/exchange.h"

static struct exchange x;
static struct fake_conn conn;
static struct session *session;

static void setup(void)
{
    exchange_open(&x, 1, 2);
    fake_conn_init(&conn, UINT64_MAX);
    cr_assert_eq(session_create(x.hubs[0], &fake_transport, &conn, &session), ST_OK);
}

static void teardown(void)
{
    session_end(session);
    fake_conn_deinit(&conn);
    exchange_close(&x);
}

TestSuite(hub_held, .init = setup, .fini = teardown);

static struct subscription *subscribe(const char *filter, struct subscription_options o)
{
    struct subscription *sub;
    o.qos = 1;
    cr_assert_eq(session_subscribe(session, slice_cstr(filter), &o, &sub), ST_OK);
    return sub;
}

static unsigned lane_of(const char *topic)
{
    return topic_partition(slice_cstr(topic), x.log.lane_count);
}

Test(hub_held, nothing_comes_between_subscribed_and_begin)
{
    exchange_publish(&x, 0, "a");
    struct subscription *sub =
        subscribe("a", (struct subscription_options){.start = START_LIVE, .held = true});
    exchange_settle(&x);
    exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    cr_expect_str_eq(fake_conn_story(&conn), "subscribed(0)");
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 1);
    subscription_begin(sub);
    exchange_settle(&x);
    exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    cr_expect_str_eq(fake_conn_story(&conn), "subscribed(0) a@1 live a@2*");
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 3);
}

Test(hub_held, with_nothing_to_bring_it_turns_live)
{
    struct subscription *sub =
        subscribe("#", (struct subscription_options){.start = START_LIVE, .held = true});
    exchange_settle(&x);
    subscription_begin(sub);
    exchange_settle(&x);
    exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    cr_expect_str_eq(fake_conn_story(&conn), "subscribed(0) live a@0*");
}

Test(hub_held, may_be_ended_while_it_is_held)
{
    subscribe("a", (struct subscription_options){.start = START_EARLIEST, .held = true});
    exchange_settle(&x);
    cr_assert_eq(session_unsubscribe(session, slice_cstr("a")), ST_OK);
    exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    cr_expect_str_eq(fake_conn_story(&conn), "subscribed(0)");
}

Test(hub_held, reached_is_the_first_that_was_not_taken)
{
    struct subscription *sub = subscribe("a", (struct subscription_options){.start = START_LIVE});
    exchange_settle(&x);
    conn.room = 2;
    for (unsigned i = 0; i < 5; i++)
        exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 2);
    conn.room = 1;
    session_room(session);
    exchange_settle(&x);
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 3);
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 5);
}

Test(hub_held, what_is_retained_comes_again_before_the_start)
{
    struct place after = {.lane_count = 2};
    exchange_retain(&x, 0, "a", "old", 0);
    exchange_publish(&x, 0, "a");
    exchange_publish(&x, 0, "a");
    exchange_settle(&x);
    after.next[lane_of("a")] = 2;
    struct subscription *sub = subscribe(
        "a", (struct subscription_options){.start = START_AFTER, .after = &after, .retained_again = true});
    cr_expect(subscription_walking(sub), "nobody knows yet that there is none");
    cr_expect_eq(subscription_reached(sub, lane_of("a")), 2);
    exchange_settle(&x);
    cr_expect_not(subscription_walking(sub));
    cr_expect_str_eq(fake_conn_story(&conn) + strlen("subscribed(1) "), "a@0! a@2 live");
}
