/* The hub with its sessions and cursors over a real shard and a fake log: what a connection is told, in which
 * order, whatever is under way. The story of a connection: fake_conn_story. */
#include "fakes/exchange.h"

static struct exchange x;
static struct fake_conn conn;
static struct session *session;

static void open_with(unsigned loops, unsigned lanes)
{
    exchange_open(&x, loops, lanes);
    fake_conn_init(&conn, UINT64_MAX);
    cr_assert_eq(session_create(x.hubs[0], &fake_transport, &conn, &session), ST_OK);
}

static void close_all(void)
{
    session_end(session);
    session = NULL;
    fake_conn_deinit(&conn);
    exchange_close(&x);
}

static void setup(void)
{
    open_with(1, 1);
}

TestSuite(hub, .init = setup, .fini = close_all);
TestSuite(hub_many, .fini = close_all);

static struct subscription *subscribe(const char *filter, enum start start)
{
    struct subscription *sub = NULL;
    const struct subscription_options o = {.qos = 1, .start = start};
    cr_assert_eq(session_subscribe(session, slice_cstr(filter), &o, &sub), ST_OK);
    return sub;
}

static struct subscription *subscribe_after(const char *filter, uint64_t next)
{
    struct subscription *sub = NULL;
    struct place place = {.lane_count = x.log.lane_count};
    for (unsigned i = 0; i < x.log.lane_count; i++)
        place.next[i] = next;
    const struct subscription_options o = {.start = START_AFTER, .after = &place};
    cr_assert_eq(session_subscribe(session, slice_cstr(filter), &o, &sub), ST_OK);
    return sub;
}

static void publish(const char *topic)
{
    exchange_publish(&x, 0, topic);
}

static void publish_settled(unsigned count)
{
    while (count-- > 0)
        publish("a");
    exchange_settle(&x);
}

#define expect_story(want)                                                                                   \
    do {                                                                                                     \
        const char *got_story = fake_conn_story(&conn);                                                      \
        cr_expect_str_eq(got_story, want, "\"%s\" instead of \"%s\"", got_story, want);                      \
    } while (0)

/* --- starts ------------------------------------------------------------------------------------- */

static enum status subscribe_at(const char *filter, enum start start, uint64_t value)
{
    struct subscription *sub = NULL;
    const struct subscription_options o = {.qos = 1, .start = start, .start_value = value};
    return session_subscribe(session, slice_cstr(filter), &o, &sub);
}

Test(hub, from_a_time_replays_what_is_not_older)
{
    publish_settled(2);
    ex_wall_ms += 10;
    exchange_settle(&x);
    publish_settled(2);
    cr_assert_eq(subscribe_at("a", START_TIME, ex_wall_ms), ST_OK);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(2) a@2 a@3 live a@4*");
    fake_conn_clear(&conn);
    cr_assert_eq(subscribe_at("+", START_TIME, ex_wall_ms - 10), ST_OK);
    exchange_settle(&x);
    expect_story("subscribed(5) a@0 a@1 a@2 a@3 a@4 live");
    fake_conn_clear(&conn);
    cr_assert_eq(subscribe_at("a", START_TIME, ex_wall_ms + 1), ST_OK);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) live a@5* a@5*"); /* the second is that of "+" */
}

Test(hub, the_last_of_a_topic_are_its_newest)
{
    const char *topics[] = {"a", "b", "a", "a", "b"};
    for (size_t i = 0; i < 5; i++)
        publish(topics[i]);
    exchange_settle(&x);
    cr_assert_eq(subscribe_at("a", START_LAST, 2), ST_OK);
    exchange_settle(&x);
    expect_story("subscribed(2) a@2 a@3 live");
    fake_conn_clear(&conn);
    cr_assert_eq(subscribe_at("b", START_LAST, 20), ST_OK);
    exchange_settle(&x);
    expect_story("subscribed(2) b@1 b@4 live");
    cr_assert_eq(subscribe_at("+", START_LAST, 2), ST_INVALID);
}

Test(hub, one_that_ends_while_its_start_is_looked_for_is_let_go)
{
    publish_settled(3);
    cr_assert_eq(subscribe_at("a", START_LAST, 1), ST_OK);
    exchange_turn(&x, 0);
    cr_assert_eq(session_unsubscribe(session, slice_cstr("a")), ST_OK);
    exchange_settle(&x);
    expect_story("");
}

Test(hub, live_begins_where_now_is)
{
    publish_settled(2);
    subscribe("a", START_LIVE);
    expect_story("");
    exchange_settle(&x);
    expect_story("subscribed(0) live");
    publish_settled(2);
    expect_story("subscribed(0) live a@2* a@3*");
    cr_expect_eq(fake_conn_event(&conn, FAKE_SUBSCRIBED, 0)->at.next[0], 2);
}

Test(hub, subscribing_and_publishing_in_one_turn_keep_their_order)
{
    publish("a");
    subscribe("a", START_LIVE);
    publish("a");
    exchange_settle(&x);
    expect_story("subscribed(0) live a@1*");
}

Test(hub, earliest_replays_then_says_live)
{
    publish_settled(3);
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(3) a@0 a@1 a@2 live a@3*");
    cr_expect_eq(fake_conn_event(&conn, FAKE_LIVE, 0)->at.next[0], 3);
}

Test(hub, earliest_of_nothing_is_live_at_once)
{
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) live a@0*");
}

Test(hub, replay_counts_only_what_matches)
{
    const char *topics[] = {"b", "a", "c/d", "b", "a"};
    for (size_t i = 0; i < 5; i++)
        publish(topics[i]);
    exchange_settle(&x);
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(2) a@1 a@4 live");
    fake_conn_clear(&conn);
    subscribe("+/d", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(1) c/d@2 live");
}

Test(hub, after_is_strictly_after)
{
    publish_settled(4);
    subscribe_after("a", 3);
    exchange_settle(&x);
    expect_story("subscribed(1) a@3 live");
}

Test(hub, after_the_newest_waits_for_what_comes)
{
    publish_settled(2);
    subscribe_after("a", 2);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) live a@2*");
}

Test(hub, what_comes_during_the_replay_is_neither_lost_nor_repeated)
{
    publish_settled(3);
    x.log.lanes[0].recent = 0; /* each read goes to the log and is answered when we say so */
    subscribe("a", START_EARLIEST);
    exchange_turn(&x, 0);
    publish("a"); /* 3: while the count is under way */
    exchange_turn(&x, 0);
    cr_assert(fake_log_serve(&x.log));
    exchange_turn(&x, 0);
    expect_story("subscribed(3)");
    publish("a"); /* 4: while the first read is under way */
    exchange_turn(&x, 0);
    cr_assert(fake_log_serve(&x.log));
    exchange_turn(&x, 0);
    publish("a"); /* 5: while the second is */
    exchange_turn(&x, 0);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(3) a@0 a@1 a@2 a@3 a@4 a@5 live a@6*");
}

/* --- room --------------------------------------------------------------------------------------- */

Test(hub, without_room_it_becomes_a_cursor_and_comes_back)
{
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    conn.room = 2;
    publish_settled(5);
    expect_story("subscribed(0) live a@0* a@1*");
    cr_expect(conn.starved);
    cr_expect_eq(exchange_metric(&x, M_BECAME_CURSOR), 1);
    cr_expect_eq(exchange_metric(&x, M_CURSORS), 1);
    conn.room = 2;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0* a@1* a@2 a@3");
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) live a@0* a@1* a@2 a@3 a@4 a@5*");
    cr_expect_eq(exchange_metric(&x, M_CURSORS), 0);
}

Test(hub, room_without_a_cursor_is_nothing)
{
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    session_room(session);
    cr_expect_not(courier_pending(x.couriers[0]));
    cr_expect_eq(x.log.reads, 0u);
}

Test(hub, a_replay_waits_for_room)
{
    publish_settled(4);
    conn.room = 1;
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(4) a@0");
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(4) a@0 a@1 a@2 a@3 live");
}

Test(hub, a_drop_does_not_stop_what_follows)
{
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    conn.drops = 1;
    publish_settled(2);
    expect_story("subscribed(0) live a@1*");
}

/* --- retained messages -------------------------------------------------------------------------- */

static void retain(const char *topic, const char *payload)
{
    cr_assert_eq(exchange_retain(&x, 0, topic, payload, 0), ST_OK);
    exchange_settle(&x);
}

static struct subscription *subscribe_retained(const char *filter)
{
    struct subscription *sub = NULL;
    const struct subscription_options o = {.qos = 1, .start = START_LIVE, .retained = true};
    cr_assert_eq(session_subscribe(session, slice_cstr(filter), &o, &sub), ST_OK);
    return sub;
}

Test(hub, retained_messages_come_before_live_ones)
{
    retain("a", "1");
    retain("b", "1");
    publish_settled(1);
    retain("a", "2");
    subscribe_retained("#");
    exchange_settle(&x);
    retain("b", "2");
    expect_story("subscribed(2) b@1! a@3! live b@4*");
}

Test(hub, retained_messages_of_the_filter_only)
{
    retain("a", "1");
    retain("c/d", "1");
    subscribe_retained("c/+");
    subscribe_retained("a");
    subscribe_retained("b");
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 2u);
    cr_expect_eq(fake_conn_count(&conn, FAKE_LIVE), 3u);
}

Test(hub, retained_messages_only_for_live_ones_that_ask)
{
    retain("a", "1");
    subscribe("#", START_LIVE);
    subscribe("+", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(0) live subscribed(1) a@0 live");
}

Test(hub, what_is_replaced_during_the_walk_comes_live_only)
{
    retain("a", "1");
    retain("b", "1");
    retain("c", "1");
    conn.room = 1;
    subscribe_retained("#");
    exchange_settle(&x);
    expect_story("subscribed(3) a@0!");
    retain("b", "2");
    retain("c", ""); /* cleared: this, too, is a message that comes live */
    retain("d", "1");
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(3) a@0! b@3 c@4 d@5 live");
    cr_expect_eq(exchange_metric(&x, M_CURSORS), 0);
}

Test(hub, a_walk_goes_on_where_the_room_ended)
{
    char topic[] = "a/00";
    for (unsigned i = 0; i < 100; i++) {
        topic[2] = (char)('0' + i / 10);
        topic[3] = (char)('0' + i % 10);
        retain(topic, "1");
    }
    conn.room = 7;
    subscribe_retained("a/#");
    for (unsigned n = 1; n <= 15; n++) {
        exchange_settle(&x);
        cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), n < 15 ? 7 * n : 100u);
        conn.room = 7;
        session_room(session);
    }
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(fake_conn_event(&conn, FAKE_MESSAGE, i)->msg->offset, i);
    cr_expect_eq(conn.events[conn.count - 1].kind, FAKE_LIVE);
}

Test(hub, a_walk_may_be_ended)
{
    retain("a", "1");
    retain("b", "1");
    conn.room = 1;
    subscribe_retained("#");
    exchange_settle(&x);
    cr_assert_eq(session_unsubscribe(session, slice_cstr("#")), ST_OK);
    exchange_settle(&x);
    subscribe_retained("#"); /* and while its letters are under way */
    cr_assert_eq(session_unsubscribe(session, slice_cstr("#")), ST_OK);
    exchange_settle(&x);
    expect_story("subscribed(2) a@0!");
}

Test(hub, retained_messages_that_have_expired_do_not_come)
{
    cr_assert_eq(exchange_retain(&x, 0, "a", "1", ex_wall_ms + 10), ST_OK);
    retain("b", "1");
    ex_wall_ms += 10;
    exchange_settle(&x);
    subscribe_retained("#");
    subscribe_retained("a");
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 1u);
}

Test(hub, over_the_limit_nothing_more_is_retained)
{
    char topic[16];
    for (unsigned i = 0; i < x.limits.retained.count_max; i++) {
        snprintf(topic, sizeof topic, "t/%u", i);
        cr_assert_eq(exchange_retain(&x, 0, topic, "1", 0), ST_OK);
    }
    cr_expect_eq(exchange_retain(&x, 0, "a", "1", 0), ST_QUOTA);
    cr_expect_eq(exchange_retain(&x, 0, topic, "2", 0), ST_OK);
    cr_expect_eq(exchange_metric(&x, M_REFUSED_QUOTA), 1);
    exchange_settle(&x);
    exchange_expect_fold(&x);
}

/* --- gaps --------------------------------------------------------------------------------------- */

Test(hub, what_retention_took_is_told_once)
{
    publish_settled(5);
    fake_log_trim(&x.log, 0, 3);
    subscribe_after("a", 1);
    exchange_settle(&x);
    expect_story("subscribed(2) gap(1-2) a@3 a@4 live");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_RETENTION), 2);
}

Test(hub, earliest_has_no_gap)
{
    publish_settled(5);
    fake_log_trim(&x.log, 0, 3);
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(2) a@3 a@4 live");
}

Test(hub, all_is_gone)
{
    publish_settled(3);
    fake_log_trim(&x.log, 0, 3);
    subscribe_after("a", 0);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) gap(0-2) live a@3*");
}

Test(hub, what_this_log_never_had_is_told_and_it_goes_on_at_the_end)
{
    publish_settled(3);
    subscribe_after("a", 10);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) gap(3-9) live a@3*");
    const struct fake_event *gap = fake_conn_event(&conn, FAKE_GAP, 0);
    cr_expect_str_eq(gap->why, "epoch");
    cr_expect_eq(gap->count, 1u, "nobody knows how many they were");
}

static void end_session_at_gap(struct fake_conn *c, const struct fake_event *e)
{
    (void)c;
    if (e->kind == FAKE_GAP)
        cr_assert_eq(session_unsubscribe(session, slice_cstr("#")), ST_OK);
}

Test(hub_many, one_that_ends_when_it_is_told_of_a_lost_future)
{
    open_with(2, 4);
    subscribe_after("#", 10);
    conn.on_event = end_session_at_gap;
    exchange_settle(&x);
    expect_story("subscribed(0) gap(0-9)");
}

Test(hub, damage_is_told_and_passed)
{
    publish_settled(6);
    x.log.lanes[0].recent = 0;
    x.log.lanes[0].damaged_from = 2;
    x.log.lanes[0].damaged_to = 4;
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(6) a@0 a@1 gap(2-3) a@4 a@5 live");
    cr_expect_str_eq(fake_conn_event(&conn, FAKE_GAP, 0)->why, "damaged");
}

Test(hub, offsets_that_a_start_jumped_over_are_no_gap)
{
    publish_settled(2);
    fake_log_jump(&x.log, 0, 100);
    publish_settled(1);
    x.log.lanes[0].recent = 0;
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(3) a@0 a@1 a@102 live");
}

/* --- who gets what ------------------------------------------------------------------------------ */

Test(hub, each_filter_delivers_for_itself)
{
    subscribe("a", START_LIVE);
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    publish("a");
    publish("b");
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 3u);
}

Test(hub, subscribing_again_replaces)
{
    struct subscription *old = subscribe("a", START_LIVE);
    exchange_settle(&x);
    publish("a");
    struct subscription *sub = subscribe("a", START_EARLIEST);
    cr_expect_neq(sub, old);
    cr_expect_eq(session_subscriptions(session), 1u);
    exchange_settle(&x);
    publish_settled(1);
    expect_story("subscribed(0) live subscribed(1) a@0 live a@1*");
    for (size_t i = 2; i < conn.count; i++)
        cr_expect_eq(conn.events[i].sub, sub, "nothing of the old one comes after the call");
}

Test(hub, no_local_keeps_own_messages_away)
{
    struct subscription *sub;
    const struct subscription_options o = {.no_local = true};
    cr_assert_eq(session_subscribe(session, slice_cstr("a"), &o, &sub), ST_OK);
    exchange_settle(&x);
    struct msg *own = exchange_msg("a", "own"), *other = exchange_msg("a", "other");
    own->origin = session_id(session);
    other->origin = session_id(session) + 1;
    cr_assert_eq(hub_publish_lazy(x.hubs[0], own), ST_OK);
    cr_assert_eq(hub_publish_lazy(x.hubs[0], other), ST_OK);
    exchange_settle(&x);
    expect_story("subscribed(0) live a@1*");
}

Test(hub, what_has_expired_is_not_delivered_live_or_later)
{
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    struct msg *m = exchange_msg("a", "x");
    m->expires_ms = ex_wall_ms + 1000;
    cr_assert_eq(hub_publish_lazy(x.hubs[0], m), ST_OK);
    publish_settled(1);
    expect_story("subscribed(0) live a@0* a@1*");
    ex_wall_ms += 1000;
    subscribe("+", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0* a@1* subscribed(2) gap(0-0) a@1 live");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_EXPIRED), 1);
}

Test(hub, limits_and_rules_of_filters)
{
    struct subscription *sub;
    const struct subscription_options o = {0};
    cr_expect_eq(session_subscribe(session, slice_cstr("a/#/b"), &o, &sub), ST_INVALID);
    cr_expect_eq(session_subscribe(session, slice_cstr(""), &o, &sub), ST_INVALID);
    const char *filters[] = {"1", "2", "3", "4", "5"};
    for (size_t i = 0; i < 5; i++)
        subscribe(filters[i], START_LIVE);
    cr_expect_eq(session_subscribe(session, slice_cstr("6"), &o, &sub), ST_FULL);
    cr_expect_eq(session_subscribe(session, slice_cstr("5"), &o, &sub), ST_OK, "replacing is not one more");
    cr_expect_eq(session_unsubscribe(session, slice_cstr("6")), ST_NOT_FOUND);
    cr_expect_eq(session_unsubscribe(session, slice_cstr("5")), ST_OK);
    cr_expect_eq(session_subscribe(session, slice_cstr("6"), &o, &sub), ST_OK);
    cr_expect_eq(exchange_metric(&x, M_SUBSCRIPTIONS), 5);
}

/* --- endings while letters are under way -------------------------------------------------------- */

/* A session with one subscription, ended in each of the states that a lane can be in. */
Test(hub, ends_in_every_state)
{
    for (unsigned turns = 0; turns < 12; turns++) {
        for (int whole_session = 0; whole_session < 2; whole_session++) {
            x.log.lanes[0].recent = turns % 3 ? 0 : UINT64_MAX;
            publish_settled(3);
            conn.room = turns % 2 ? 1 : UINT64_MAX;
            subscribe("a", START_EARLIEST);
            for (unsigned t = 0; t < turns; t++) {
                if (t % 2)
                    fake_log_serve(&x.log);
                exchange_turn(&x, 0);
            }
            if (whole_session) {
                session_end(session);
                cr_assert_eq(session_create(x.hubs[0], &fake_transport, &conn, &session), ST_OK);
            } else {
                cr_assert_eq(session_unsubscribe(session, slice_cstr("a")), ST_OK);
            }
            size_t told = conn.count;
            publish_settled(1);
            cr_expect_eq(conn.count, told, "turns=%u: nothing after the end", turns);
            cr_expect_eq(exchange_metric(&x, M_SUBSCRIPTIONS), 0);
            cr_expect_eq(exchange_metric(&x, M_CURSORS), 0, "turns=%u", turns);
        }
    }
}

Test(hub, a_subscription_that_joins_a_filter_being_attached_outlives_the_first)
{
    struct fake_conn second;
    struct session *other;
    struct subscription *sub;
    const struct subscription_options o = {0};
    fake_conn_init(&second, UINT64_MAX);
    cr_assert_eq(session_create(x.hubs[0], &fake_transport, &second, &other), ST_OK);
    subscribe("a", START_LIVE);
    cr_assert_eq(session_subscribe(other, slice_cstr("a"), &o, &sub), ST_OK);
    cr_assert_eq(session_unsubscribe(session, slice_cstr("a")), ST_OK);
    exchange_settle(&x);
    publish_settled(2);
    cr_expect_str_eq(fake_conn_story(&second), "subscribed(0) live a@0* a@1*");
    session_end(other);
    fake_conn_deinit(&second);
}

enum { DO_UNSUBSCRIBE, DO_END, DO_REPLACE, DO_ADD, DO_COUNT };

struct deed {
    enum fake_event_kind when;
    int what;
    bool done;
};

static void on_event(struct fake_conn *c, const struct fake_event *e)
{
    struct deed *d = c->ctx;
    if (d->done || e->kind != d->when)
        return;
    d->done = true;
    switch (d->what) {
    case DO_UNSUBSCRIBE:
        cr_assert_eq(session_unsubscribe(session, subscription_filter(e->sub)), ST_OK);
        break;
    case DO_END:
        session_end(session);
        session = NULL;
        break;
    case DO_REPLACE:
        subscribe("a", START_LIVE);
        break;
    case DO_ADD:
        subscribe("+", START_EARLIEST);
        break;
    }
}

/* transport.h: only inside `deliver` may the door not do this. */
Test(hub, callbacks_may_end_replace_and_add)
{
    for (unsigned when = FAKE_SUBSCRIBED; when <= FAKE_GAP; when++) {
        for (int what = 0; what < DO_COUNT; what++) {
            struct deed deed = {.when = (enum fake_event_kind)when, .what = what};
            publish_settled(4);
            x.log.lanes[0].recent = what % 2 ? 0 : UINT64_MAX;
            fake_log_trim(&x.log, 0, x.log.lanes[0].count - 2);
            conn.on_event = on_event;
            conn.ctx = &deed;
            subscribe_after("a", x.log.lanes[0].count - 4);
            exchange_settle(&x);
            cr_expect(deed.done, "when=%u what=%d", when, what);
            conn.on_event = NULL;
            session_end(session);
            cr_assert_eq(session_create(x.hubs[0], &fake_transport, &conn, &session), ST_OK);
            exchange_settle(&x);
        }
    }
}

/* --- publishing --------------------------------------------------------------------------------- */

static unsigned published;
static enum status published_status;

static void on_published(struct publish *p)
{
    published++;
    published_status = p->status;
    publish_free(p);
}

static void publish_waiting(unsigned loop, const char *topic)
{
    struct publish *p;
    cr_assert_eq(publish_create(exchange_msg(topic, "w"), &p), ST_OK);
    p->wait = true;
    p->on_published = on_published;
    hub_publish(x.hubs[loop], p);
}

Test(hub, acknowledged_means_durable_delivered_does_not)
{
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    publish_waiting(0, "a");
    publish_waiting(0, "a");
    for (int i = 0; i < 3; i++)
        exchange_turn(&x, 0);
    expect_story("subscribed(0) live a@0* a@1*");
    cr_expect(x.log.lanes[0].flushed);
    cr_expect_eq(published, 0u);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 2);
    cr_expect_eq(exchange_metric(&x, M_STORED), 0);
    fake_log_sync(&x.log, 0, 1);
    cr_expect_eq(published, 0u, "never inside the call");
    exchange_turn(&x, 0);
    cr_expect_eq(published, 1u);
    fake_log_sync(&x.log, 0, 2);
    exchange_turn(&x, 0);
    cr_expect_eq(published, 2u);
    cr_expect_eq(published_status, ST_OK);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 0);
    cr_expect_eq(exchange_metric(&x, M_STORED), 2);
}

Test(hub, refused_is_answered_and_counted_once)
{
    x.log.append_status = ST_FULL;
    x.log.append_failures = 2;
    publish_waiting(0, "a");
    cr_expect_eq(hub_publish_lazy(x.hubs[0], exchange_msg("a", "x")), ST_FULL);
    exchange_settle(&x);
    cr_expect_eq(published, 1u);
    cr_expect_eq(published_status, ST_FULL);
    cr_expect_eq(exchange_metric(&x, M_REFUSED_UNAVAILABLE), 2);
    cr_expect_eq(exchange_metric(&x, M_STORED), 0);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 0);
}

/* What an answer makes its asker publish leaves in the same turn or has the loop come again: never asleep on
 * an open batch (the courier's last round once was). */
static unsigned chain_left;

static void publish_next(struct publish *p)
{
    publish_free(p);
    x.log.append_status = ST_FULL; /* a refusal is answered without the disk: one round each */
    x.log.append_failures = chain_left > 0 ? 1 : 0;
    bool last = chain_left-- == 0;
    cr_assert_eq(publish_create(exchange_msg("a", "chain"), &p), ST_OK);
    p->wait = true;
    p->on_published = last ? on_published : publish_next;
    hub_publish(x.hubs[0], p);
}

Test(hub, no_open_batch_is_slept_on)
{
    for (unsigned length = 0; length < 12; length++) {
        struct publish *p;
        chain_left = length;
        cr_assert_eq(publish_create(exchange_msg("a", "first"), &p), ST_OK);
        p->wait = true;
        p->on_published = publish_next;
        hub_publish(x.hubs[0], p);
        for (int again = 0; again < 50; again++)
            if (!exchange_turn(&x, 0))
                fake_log_sync(&x.log, 0, 2 * length + 1);
        cr_expect(x.log.lanes[0].flushed, "length=%u", length);
        exchange_settle(&x);
    }
}

/* --- history ------------------------------------------------------------------------------------ */

static void on_page(struct read *r)
{
    unsigned *pages = r->owner;
    if (++*pages == 1) {
        cr_assert_eq(r->store.found, 2u);
        cr_expect_eq(r->store.msgs[0]->offset, 2u);
        cr_expect_eq(r->store.next, 4u);
        read_release(r);
        r->store.from = r->store.next;
        hub_read(x.hubs[0], r); /* the next page by the same letter */
    }
}

Test(hub, a_page_of_history_is_read_by_topic)
{
    unsigned pages = 0;
    publish("a");
    publish("b");
    publish_settled(3);
    struct read r = {.on_read = on_page, .owner = &pages};
    r.store.topic = slice_cstr("a");
    r.store.from = 1;
    r.store.to = UINT64_MAX;
    r.store.count_max = 2;
    r.store.bytes_max = 4096;
    hub_read(x.hubs[0], &r);
    cr_expect_eq(pages, 0u);
    cr_expect_not(hub_idle(x.hubs[0]));
    exchange_settle(&x);
    cr_expect_eq(pages, 2u);
    cr_expect(hub_idle(x.hubs[0]));
    cr_assert_eq(r.store.found, 1u);
    cr_expect_eq(r.store.msgs[0]->offset, 4u);
    read_release(&r);
}

static void on_page_back(struct read *r)
{
    ++*(unsigned *)r->owner;
}

Test(hub, a_page_of_history_goes_back_from_its_end)
{
    unsigned pages = 0;
    publish("a");
    publish("b");
    publish_settled(3);
    struct read r = {.on_read = on_page_back, .owner = &pages};
    r.store.topic = slice_cstr("a");
    r.store.to = 4;
    r.store.reverse = true;
    r.store.count_max = 2;
    r.store.bytes_max = 4096;
    hub_read(x.hubs[0], &r);
    exchange_settle(&x);
    cr_expect_eq(pages, 1u);
    cr_assert_eq(r.store.found, 2u);
    cr_expect(r.store.msgs[0]->offset == 3 && r.store.msgs[1]->offset == 2);
    cr_expect(r.store.next == 2 && !store_read_complete(&r.store));
    read_release(&r);
}

/* --- scratch ------------------------------------------------------------------------------------ */

Test(hub, scratch_of_one_kind_is_adjacent_and_stays_until_the_turn_ends)
{
    uint8_t *a = hub_scratch(x.hubs[0], WIRE_WS, 10);
    uint8_t *other = hub_scratch(x.hubs[0], WIRE_MQTT5_QOS0, 10);
    uint8_t *b = hub_scratch(x.hubs[0], WIRE_WS, 20);
    cr_assert(a && b && other);
    cr_expect_eq(b, a + 10);
    memset(a, 1, 30);
    uint8_t *large = hub_scratch(x.hubs[0], WIRE_WS, 1 << 20);
    cr_assert(large);
    memset(large, 2, 1 << 20);
    cr_expect_eq(a[29], 1, "a larger block does not move the first");
    exchange_turn(&x, 0);
    cr_expect_eq(hub_scratch(x.hubs[0], WIRE_WS, 10), a, "the ordinary block is used again");
}

/* --- several lanes, several loops --------------------------------------------------------------- */

Test(hub_many, a_wildcard_over_lanes_on_other_loops)
{
    open_with(3, 4);
    const char *topics[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    for (unsigned i = 0; i < 8; i++)
        exchange_publish(&x, i % 3, topics[i]);
    exchange_settle(&x);
    subscribe("#", START_EARLIEST);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_event(&conn, FAKE_SUBSCRIBED, 0)->replay, 8u);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 8u);
    cr_expect_eq(fake_conn_count(&conn, FAKE_LIVE), 1u);
    cr_expect_eq(conn.events[conn.count - 1].kind, FAKE_LIVE);
    for (unsigned i = 0; i < 8; i++)
        exchange_publish(&x, i % 3, topics[i]);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 16u);
    cr_expect(conn.events[conn.count - 1].live);
}

Test(hub_many, one_full_lane_does_not_hold_the_others)
{
    open_with(1, 2);
    const char *in_lane[2] = {NULL, NULL};
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    for (unsigned i = 0; i < 6; i++)
        in_lane[topic_partition(slice_cstr(names[i]), 2)] = names[i];
    cr_assert(in_lane[0] && in_lane[1]);
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    conn.room = 0;
    publish(in_lane[0]);
    exchange_settle(&x);
    conn.room = UINT64_MAX;
    publish(in_lane[1]);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 1u);
    cr_expect_eq(fake_conn_event(&conn, FAKE_MESSAGE, 0)->msg->partition, 1u);
    session_room(session);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 2u);
}

/* While one lane is still behind, another one is live already. `live` of both is a place to resume from: what
 * came meanwhile lies before it. */
Test(hub_many, live_names_no_place_before_what_has_come)
{
    open_with(1, 2);
    const char *in_lane[2] = {NULL, NULL};
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    for (unsigned i = 0; i < 6; i++)
        in_lane[topic_partition(slice_cstr(names[i]), 2)] = names[i];
    publish(in_lane[1]);
    exchange_settle(&x);
    conn.room = 0;
    subscribe("#", START_EARLIEST);
    exchange_settle(&x);
    conn.room = 1;
    publish(in_lane[0]);
    exchange_settle(&x);
    cr_assert(fake_conn_event(&conn, FAKE_MESSAGE, 0)->live);
    cr_assert_eq(fake_conn_count(&conn, FAKE_LIVE), 0u);
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 2u);
    const struct fake_event *live = fake_conn_event(&conn, FAKE_LIVE, 0);
    for (unsigned i = 0; i < 2; i++) {
        const struct msg *m = fake_conn_event(&conn, FAKE_MESSAGE, i)->msg;
        cr_expect_eq(live->at.next[m->partition], m->offset + 1, "lane %u", m->partition);
    }
}

Test(hub_many, interest_is_given_back)
{
    open_with(2, 2);
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    cr_assert_eq(session_unsubscribe(session, slice_cstr("#")), ST_OK);
    exchange_settle(&x);
    for (unsigned i = 0; i < 2; i++)
        exchange_publish(&x, i, i ? "a" : "b");
    for (unsigned i = 0; i < 2; i++) { /* a DELIVER to the other loop would make it come again */
        exchange_turn(&x, 0);
        exchange_turn(&x, 1);
    }
    cr_expect_not(exchange_turn(&x, 0));
    cr_expect_not(exchange_turn(&x, 1));
}

/* --- policies ------------------------------------------------------------------------------------- */

static void set_policy(const char *filter, struct topic_policy policy)
{
    policy.filter = slice_cstr(filter);
    exchange_set_policies(&x, &policy, 1);
}

Test(hub, what_is_not_stored_comes_live_and_is_no_past)
{
    set_policy("u/#", (struct topic_policy){.unstored = true});
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    publish("a");
    publish("u/1");
    publish("a");
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0* u/1@1* a@1*");
    cr_expect_eq(x.log.lanes[0].count, 2);
    cr_expect_eq(exchange_metric(&x, M_UNSTORED), 1);
    cr_expect_eq(exchange_metric(&x, M_STORED), 2);
    fake_conn_clear(&conn);
    subscribe("#", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(2) a@0 a@1 live");
    cr_expect_eq(exchange_retain(&x, 0, "u/1", "kept", 0), ST_UNSUPPORTED);
    cr_expect_eq(exchange_metric(&x, M_REFUSED_UNSUPPORTED), 1);
    cr_expect_eq(exchange_retain(&x, 0, "u/1", "", 0), ST_OK, "what takes a retained message away is stored");
    exchange_settle(&x);
    cr_expect_eq(x.log.lanes[0].count, 3);
}

static void on_unstored(struct publish *p)
{
    *(unsigned *)p->owner += p->status == ST_OK && (p->msg->flags & MSG_UNSTORED);
    publish_free(p);
}

Test(hub, what_is_not_stored_is_acknowledged_without_the_disk)
{
    struct publish *p;
    unsigned answered = 0;
    set_policy("u/#", (struct topic_policy){.unstored = true});
    cr_assert_eq(publish_create(exchange_msg("u/1", "x"), &p), ST_OK);
    p->wait = true;
    p->on_published = on_unstored;
    p->owner = &answered;
    hub_publish(x.hubs[0], p);
    exchange_turn(&x, 0);
    cr_expect_eq(answered, 1);
    cr_expect_eq(exchange_metric(&x, M_UNSTORED), 1);
}

Test(hub, who_is_behind_misses_what_is_not_stored_and_it_is_counted)
{
    set_policy("u/#", (struct topic_policy){.unstored = true});
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    conn.room = 1;
    publish("a");
    publish("a"); /* no room: from here on a cursor */
    publish("u/1"); /* lies behind what it has not had */
    exchange_settle(&x);
    cr_expect_eq(exchange_metric(&x, M_DROPPED_UNSTORED), 1);
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    publish("u/2");
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0* a@1 u/2@2*");
    conn.room = 0;
    publish("u/3"); /* live and no room: lost, and not a reason to be behind */
    exchange_settle(&x);
    cr_expect_eq(exchange_metric(&x, M_DROPPED_UNSTORED), 2);
    cr_expect_eq(exchange_metric(&x, M_BECAME_CURSOR), 1);
    conn.room = UINT64_MAX;
    publish("a");
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0* a@1 u/2@2* a@2*");
}

Test(hub, what_waits_for_the_disk_holds_back_what_comes_behind_it)
{
    set_policy("d/#", (struct topic_policy){.after_sync = true});
    subscribe("#", START_LIVE);
    exchange_settle(&x);
    publish("a");
    publish("d/1");
    publish("a");
    for (unsigned i = 0; i < 3; i++)
        exchange_turn(&x, 0);
    expect_story("subscribed(0) live a@0*");
    /* Nobody sees more: not who comes now, and not who reads. */
    struct subscription *other = NULL;
    struct fake_conn second;
    struct session *late;
    fake_conn_init(&second, UINT64_MAX);
    cr_assert_eq(session_create(x.hubs[0], &fake_transport, &second, &late), ST_OK);
    const struct subscription_options o = {.qos = 1, .start = START_EARLIEST};
    cr_assert_eq(session_subscribe(late, slice_cstr("#"), &o, &other), ST_OK);
    for (unsigned i = 0; i < 5; i++) {
        exchange_turn(&x, 0);
        fake_log_serve(&x.log);
    }
    cr_expect_str_eq(fake_conn_story(&second), "subscribed(1) a@0 live");
    fake_log_sync(&x.log, 0, 1);
    exchange_turn(&x, 0);
    expect_story("subscribed(0) live a@0*");
    fake_log_sync(&x.log, 0, 2);
    exchange_turn(&x, 0);
    expect_story("subscribed(0) live a@0* d/1@1* a@2*");
    cr_expect_str_eq(fake_conn_story(&second), "subscribed(1) a@0 live d/1@1* a@2*");
    session_end(late);
    exchange_settle(&x);
    fake_conn_deinit(&second);
}

Test(hub, a_topic_gives_messages_an_end)
{
    set_policy("t", (struct topic_policy){.ttl_ms = 1000});
    struct msg *m[3];
    static const uint64_t given[] = {0, 500, 5000}, wanted[] = {1000, 500, 1000};
    for (unsigned i = 0; i < 3; i++) {
        m[i] = msg_ref(exchange_msg("t", "x"));
        m[i]->expires_ms = given[i] ? ex_wall_ms + given[i] : 0;
        cr_assert_eq(hub_publish_lazy(x.hubs[0], m[i]), ST_OK);
        cr_expect_eq(m[i]->expires_ms, ex_wall_ms + wanted[i], "%u", i);
        msg_unref(m[i]);
    }
    publish("a");
    exchange_settle(&x);
    ex_wall_ms += 600;
    exchange_settle(&x);
    subscribe("#", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(4) t@0 gap(1-1) t@2 a@3 live");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_EXPIRED), 1);
}

Test(hub, a_topic_has_no_past_beyond_its_age)
{
    set_policy("t", (struct topic_policy){.retention_ms = 1000});
    publish("t");
    publish("a");
    exchange_settle(&x);
    ex_wall_ms += 600;
    exchange_settle(&x);
    publish("t");
    exchange_settle(&x);
    ex_wall_ms += 500;
    exchange_settle(&x);
    subscribe("#", START_EARLIEST);
    exchange_settle(&x);
    expect_story("subscribed(3) gap(0-0) a@1 t@2 live");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_RETENTION), 1);
}

/* --- lag ------------------------------------------------------------------------------------------ */

static void open_with_lag(uint64_t lag)
{
    ex_lag_messages = lag;
    open_with(1, 1);
}

static void publish_pairs(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        publish("a");
        publish("b");
    }
    exchange_settle(&x);
}

Test(hub_many, who_is_too_far_behind_is_told_how_much_it_missed)
{
    open_with_lag(10);
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    conn.room = 1;
    publish_pairs(20); /* 0 to 39, a at even offsets: the first has come */
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    publish_pairs(1);
    expect_story("subscribed(0) live a@0* gap(2-34) a@36 a@38 a@40*");
    const struct fake_event *gap = fake_conn_event(&conn, FAKE_GAP, 0);
    cr_expect_str_eq(gap->why, "lag");
    cr_expect_eq(gap->count, 17, "2, 4 .. 34");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_LAG), 17);
    cr_expect_eq(exchange_metric(&x, M_OFFERED), 21);
    cr_expect_eq(drops_count(hub_drops(x.hubs[0])), 1);
}

Test(hub_many, at_the_limit_nothing_is_missed)
{
    open_with_lag(10);
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    conn.room = 0;
    publish_pairs(5); /* ten positions */
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(0) live a@0 a@2 a@4 a@6 a@8");
}

Test(hub_many, what_is_replayed_is_no_lag)
{
    open_with_lag(10);
    publish_pairs(20);
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    cr_expect_eq(fake_conn_count(&conn, FAKE_MESSAGE), 20);
    cr_expect_eq(fake_conn_count(&conn, FAKE_GAP), 0);
    /* But what comes while it is replayed is. */
    fake_conn_clear(&conn);
    conn.room = 3;
    subscribe("a", START_EARLIEST);
    exchange_settle(&x);
    publish_pairs(20);
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(20) a@0 a@2 a@4 gap(6-74) a@76 a@78 live");
    cr_expect_eq(fake_conn_event(&conn, FAKE_GAP, 0)->count, 35);
}

Test(hub_many, nothing_of_its_own_was_missed_and_nothing_is_told)
{
    open_with_lag(10);
    subscribe("a", START_LIVE);
    exchange_settle(&x);
    conn.room = 0;
    publish("a");
    for (unsigned i = 0; i < 30; i++)
        publish("b");
    exchange_settle(&x);
    fake_log_trim(&x.log, 0, 5); /* what it had not read is gone, then it is too far behind */
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    publish("a");
    exchange_settle(&x);
    expect_story("subscribed(0) live gap(0-4) a@31*");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_RETENTION), 5);
    cr_expect_eq(exchange_metric(&x, M_DROPPED_LAG), 0);
}

Test(hub_many, one_that_ends_when_it_is_told_of_its_lag)
{
    open_with_lag(10);
    subscribe("#", START_LIVE);
    conn.on_event = end_session_at_gap;
    exchange_settle(&x);
    conn.room = 0;
    publish_pairs(20);
    conn.room = UINT64_MAX;
    session_room(session);
    exchange_settle(&x);
    expect_story("subscribed(0) live gap(0-34)");
}
