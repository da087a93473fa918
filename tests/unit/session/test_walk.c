/* Walks over the sessions of all loops, and presence. */
#include "fakes/exchange.h"
#include "session/presence.h"

#include <stdlib.h>

enum { LOOPS = 3, CONNS = 30 };

static struct exchange x;
static struct fake_conn conns[CONNS];
static struct session *sessions[CONNS];

static void setup(void)
{
    exchange_open(&x, LOOPS, 3);
    for (unsigned i = 0; i < CONNS; i++) {
        fake_conn_init(&conns[i], UINT64_MAX);
        cr_assert_eq(session_create(x.hubs[i % LOOPS], &fake_transport, &conns[i], &sessions[i]), ST_OK);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < CONNS; i++) {
        session_end(sessions[i]);
        fake_conn_deinit(&conns[i]);
    }
    exchange_close(&x);
}

TestSuite(walk, .init = setup, .fini = teardown);

struct look {
    struct walk walk;
    uint64_t seen[CONNS + 1];
    unsigned count, enough;
    bool ended;
};

static bool on_session(struct walk *w, struct session *s)
{
    struct look *l = LIST_OF(w, struct look, walk);
    cr_assert_lt(l->count, CONNS);
    l->seen[l->count++] = session_id(s);
    return l->count != l->enough;
}

static void on_end(struct walk *w)
{
    struct look *l = LIST_OF(w, struct look, walk);
    cr_assert(!l->ended);
    l->ended = true;
}

static struct look look(uint64_t after, uint32_t cost, unsigned enough)
{
    struct look l = {.walk = {.after = after, .cost = cost, .on_session = on_session, .on_end = on_end},
                     .enough = enough};
    walk_begin(x.hubs[1], &l.walk);
    cr_assert(!l.ended && l.count == 0);
    exchange_settle(&x);
    cr_assert(l.ended);
    for (unsigned i = 1; i < l.count; i++)
        cr_assert_gt(l.seen[i], l.seen[i - 1]);
    return l;
}

Test(walk, meets_each_session_once_in_the_order_of_their_numbers)
{
    static const uint32_t costs[] = {0, 1, 1500, 5000}; /* in one go, and a session a visit */
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
        struct look l = look(0, costs[i], 0);
        cr_expect_eq(l.count, CONNS, "cost %u: %u", costs[i], l.count);
        cr_expect(!l.walk.stopped);
    }
}

Test(walk, goes_on_from_any_number_and_stops_when_told)
{
    struct look all = look(0, 0, 0);
    for (unsigned i = 0; i < CONNS; i++) {
        struct look rest = look(all.seen[i], 1500, 0), one = look(all.seen[i] - 1, 0, 1);
        cr_expect_eq(rest.count, CONNS - 1 - i);
        cr_expect(one.count == 1 && one.seen[0] == all.seen[i] && one.walk.stopped);
    }
    session_end(sessions[4]);
    session_end(sessions[5]);
    sessions[4] = sessions[5] = NULL;
    cr_expect_eq(look(0, 1500, 0).count, CONNS - 2);
}

static void subscribe(unsigned i, const char *filter)
{
    const struct subscription_options o = {.qos = 1};
    struct subscription *sub;
    cr_assert_eq(session_subscribe(sessions[i], slice_cstr(filter), &o, &sub), ST_OK);
}

static void on_counted(struct presence *p)
{
    *(bool *)p->owner = true;
}

static uint64_t count(const char *topic)
{
    struct presence *p;
    bool counted = false;
    cr_assert_eq(presence_create(&p), ST_OK);
    p->topic = slice_cstr(topic);
    p->on_counted = on_counted;
    p->owner = &counted;
    presence_ask(x.hubs[0], p);
    exchange_settle(&x);
    cr_assert(counted);
    uint64_t connections = p->connections;
    cr_expect_eq(p->user_count, 0, "nobody has said who he is");
    presence_free(p);
    return connections;
}

/* Two filters of one connection that match are one connection. */
Test(walk, presence_counts_connections_not_subscriptions)
{
    subscribe(0, "a/b");
    subscribe(0, "a/+");
    subscribe(1, "#");
    subscribe(2, "a/c");
    subscribe(17, "a/b");
    exchange_settle(&x);
    cr_expect_eq(count("a/b"), 3);
    cr_expect_eq(count("a/c"), 3);
    cr_expect_eq(count("b"), 1);
    cr_assert_eq(session_unsubscribe(sessions[1], slice_cstr("#")), ST_OK);
    cr_expect_eq(count("b"), 0);
    cr_expect_eq(count("a/b"), 2);
}

Test(walk, what_a_door_knows_and_the_kick)
{
    struct connection_facts facts;
    session_describe(sessions[3], &facts);
    cr_expect(slice_equal_cstr(facts.address, "192.0.2.1:5") && slice_equal_cstr(facts.client_id, "fake"));
    cr_expect(facts.session.len == 0 && facts.queued_bytes == 0);
    session_kick(sessions[3]);
    cr_expect(conns[3].kicked && !conns[2].kicked);
}

/* The lanes that are behind, by what the loop has been handed. */
Test(walk, behind_is_what_the_loop_has_and_the_subscription_has_not)
{
    const struct subscription_options o = {.qos = 1};
    struct subscription *sub;
    cr_assert_eq(session_subscribe(sessions[0], slice_cstr("t"), &o, &sub), ST_OK);
    exchange_settle(&x);
    cr_expect_eq(subscription_behind(sub), 0);
    conns[0].room = 2;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(hub_publish_lazy(x.hubs[0], exchange_msg("t", "x")), ST_OK);
    exchange_settle(&x);
    cr_expect_eq(subscription_behind(sub), 3);
    conns[0].room = UINT64_MAX;
    session_room(sessions[0]);
    exchange_settle(&x);
    cr_expect_eq(subscription_behind(sub), 0);
}
