/* Shared subscriptions over several loops: members come and go in any interleaving of letters, reads and
 * syncs, take what they have room for, and settle it, or leave it. A record is with one member at a time;
 * while one member stays each is done with once, and none is lost. */
#include "fakes/exchange.h"
#include "fakes/seed.h"

enum { MEMBERS = 6, HELD_MAX = 64, RECORDS = 4000, STEPS = 4000, LANES = 3 };

struct held {
    struct share_ticket *ticket;
    struct msg *msg;
};

struct member {
    struct fake_conn conn; /* for what has no answer */
    struct session *session; /* NULL: not there */
    unsigned loop, room;
    bool named; /* has subscribed */
    struct held held[HELD_MAX];
    unsigned held_count;
};

static struct exchange x;
static struct member members[MEMBERS];
static unsigned holders[LANES][RECORDS], done[LANES][RECORDS], seen[LANES][RECORDS];

static enum status take(void *conn, struct subscription *sub, struct delivery *d)
{
    struct member *m = conn;
    const struct msg *msg = d->msg;
    (void)sub;
    cr_assert_not_null(d->ticket);
    if (m->room == 0 || m->held_count == HELD_MAX)
        return ST_AGAIN;
    m->room--;
    cr_assert_eq(holders[msg->partition][msg->offset]++, 0, "lane %u offset %lu is with two", msg->partition,
                 (unsigned long)msg->offset);
    cr_assert_eq(done[msg->partition][msg->offset], 0, "lane %u offset %lu was done with", msg->partition,
                 (unsigned long)msg->offset);
    seen[msg->partition][msg->offset]++;
    m->held[m->held_count++] = (struct held){d->ticket, msg_ref(d->msg)};
    d->ticket = NULL;
    return ST_OK;
}

static void on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct member *m = conn;
    (void)at;
    cr_assert(!subscription_refused(sub) && replay == 0);
    m->named = true;
}

static struct slice name(void *conn)
{
    (void)conn;
    return slice_cstr("member");
}

static const struct transport_ops ops = {
    .deliver = take, .subscribed = on_subscribed, .name = name, .door = "mqtt"};

static void settle(struct member *m, unsigned i, bool again)
{
    struct held *h = &m->held[i];
    unsigned lane = h->msg->partition;
    holders[lane][h->msg->offset]--;
    done[lane][h->msg->offset] += !again;
    hub_settle(x.hubs[m->loop], lane, h->ticket, again);
    msg_unref(h->msg);
    *h = m->held[--m->held_count];
}

static void join(struct member *m, unsigned loop, unsigned room, unsigned window)
{
    struct subscription *sub;
    const struct subscription_options o = {.qos = 1, .window = window};
    *m = (struct member){.loop = loop, .room = room};
    cr_assert_eq(session_create(x.hubs[loop], &ops, m, &m->session), ST_OK);
    cr_assert_eq(session_subscribe(m->session, slice_cstr("$share/g/#"), &o, &sub), ST_OK);
}

static void leave(struct member *m)
{
    session_leave_shares(m->session, &(struct share_leaving){0});
    while (m->held_count > 0)
        settle(m, 0, true);
    session_end(m->session);
    m->session = NULL;
}

static void publish(void)
{
    char topic[8];
    snprintf(topic, sizeof topic, "t%d", rand() % 9);
    exchange_publish(&x, (unsigned)rand() % x.loop_count, topic);
}

static void step(void)
{
    struct member *m = &members[1 + rand() % (MEMBERS - 1)];
    struct member *any = rand() % 3 ? m : &members[0];
    switch (rand() % 8) {
    case 0:
        if (!m->session)
            join(m, (unsigned)rand() % x.loop_count, (unsigned)rand() % 8, 1 + (unsigned)rand() % 20);
        else if (rand() % 4 == 0)
            leave(m);
        break;
    case 1:
    case 2:
        if (any->session && any->held_count > 0)
            settle(any, (unsigned)rand() % any->held_count, false);
        break;
    case 3:
        if (any->session) {
            any->room = (unsigned)rand() % 8;
            session_room(any->session);
        }
        break;
    case 4:
        for (int n = rand() % 6; n > 0; n--)
            publish();
        break;
    case 5:
        fake_log_serve(&x.log);
        break;
    case 6:
        fake_log_sync(&x.log, (unsigned)rand() % LANES, UINT64_MAX);
        break;
    default:
        exchange_turn(&x, (unsigned)rand() % x.loop_count);
    }
}

/* Nobody is short of room any more: all comes, and is done with. */
static void finish(void)
{
    for (unsigned i = 1; i < MEMBERS; i++)
        if (members[i].session)
            leave(&members[i]);
    for (bool some = true; some;) {
        some = members[0].held_count > 0;
        while (members[0].held_count > 0)
            settle(&members[0], 0, false);
        members[0].room = HELD_MAX;
        session_room(members[0].session);
        exchange_settle(&x);
        some |= members[0].held_count > 0;
    }
}

static void run(unsigned loops)
{
    exchange_open(&x, loops, LANES);
    memset(holders, 0, sizeof holders);
    memset(done, 0, sizeof done);
    memset(seen, 0, sizeof seen);
    x.log.serve_max = 3;
    for (unsigned i = 0; i < LANES; i++)
        x.log.lanes[i].recent = 5;
    join(&members[0], 0, 4, 12);
    exchange_settle(&x);
    cr_assert(members[0].named);
    for (unsigned i = 0; i < STEPS; i++)
        step();
    finish();
    uint64_t most = 0, total = 0;
    for (unsigned lane = 0; lane < LANES; lane++) {
        cr_assert_lt(x.log.lanes[lane].count, RECORDS);
        for (uint64_t i = 0; i < x.log.lanes[lane].count; i++) {
            cr_assert_eq(done[lane][i], 1, "lane %u offset %lu: done with %u times", lane, (unsigned long)i,
                         done[lane][i]);
            most = seen[lane][i] > most ? seen[lane][i] : most;
        }
        total += x.log.lanes[lane].count;
    }
    cr_assert_gt(total, 500);
    cr_assert_gt(most, 1, "nothing has ever moved");
    cr_assert_eq(exchange_metric(&x, M_SHARE_GIVEN), 0);
    leave(&members[0]);
    exchange_settle(&x);
    cr_assert_eq(exchange_metric(&x, M_SHARE_GROUPS), 0);
    cr_assert_eq(exchange_metric(&x, M_SHARE_MEMBERS), 0);
    cr_assert_eq(exchange_metric(&x, M_SHARE_BEHIND), 0);
    exchange_close(&x);
}

Test(share_model, each_record_is_with_one_member_and_done_with_once)
{
    srand(test_seed());
    for (unsigned loops = 1; loops <= 3; loops++) {
        ex_share_given = loops == 2 ? 4 : 1000;
        run(loops);
    }
}

/* --- alone -------------------------------------------------------------------------------------- */

Test(share, a_member_gets_its_records_in_order_also_when_it_was_full)
{
    exchange_open(&x, 2, 1);
    join(&members[0], 1, 1, 20);
    exchange_settle(&x);
    for (unsigned i = 0; i < 100; i++) {
        exchange_publish(&x, i % 2, "t");
        exchange_turn(&x, i % 2);
        if (i % 3 == 0) {
            members[0].room += 2;
            session_room(members[0].session);
        }
    }
    for (uint64_t next = 0; next < 100;) {
        members[0].room = 8;
        session_room(members[0].session);
        exchange_settle(&x);
        cr_assert_gt(members[0].held_count, 0, "nothing comes behind %lu", (unsigned long)next);
        unsigned count = members[0].held_count;
        for (unsigned i = 0; i < count; i++) /* in the order of arrival */
            cr_assert_eq(members[0].held[i].msg->offset, next + i);
        next += count;
        while (members[0].held_count > 0)
            settle(&members[0], members[0].held_count - 1, false);
    }
    leave(&members[0]);
    exchange_close(&x);
}

Test(share, what_retention_has_taken_is_counted)
{
    exchange_open(&x, 1, 1);
    join(&members[0], 0, 0, 4);
    exchange_settle(&x);
    x.log.lanes[0].recent = 1;
    for (unsigned i = 0; i < 10; i++)
        exchange_publish(&x, 0, "t");
    exchange_settle(&x); /* the first four have come back; the cursor stands behind them */
    fake_log_trim(&x.log, 0, 6);
    members[0].room = 10;
    session_room(members[0].session);
    exchange_settle(&x);
    cr_assert_eq(members[0].held_count, 4);
    while (members[0].held_count > 0)
        settle(&members[0], 0, false);
    exchange_settle(&x);
    cr_assert_eq(members[0].held_count, 4);
    cr_assert_eq(members[0].held[0].msg->offset, 6);
    cr_assert_eq(exchange_metric(&x, M_DROPPED_RETENTION), 2);
    leave(&members[0]);
    exchange_close(&x);
}

static bool refused;

static void on_refused(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    (void)conn;
    (void)at;
    (void)replay;
    refused |= subscription_refused(sub);
}

Test(share, one_group_too_many_is_refused)
{
    static const struct transport_ops others = {
        .deliver = take, .subscribed = on_refused, .name = name, .door = "mqtt"};
    const struct subscription_options o = {.window = 1};
    struct session *s;
    struct subscription *sub;
    exchange_open(&x, 2, 2);
    cr_assert_eq(session_create(x.hubs[0], &others, &members[0], &s), ST_OK);
    cr_assert_eq(session_subscribe(s, slice_cstr("$share/g/#"), &o, &sub), ST_OK);
    cr_assert_eq(session_subscribe(s, slice_cstr("$share/h/#"), &o, &sub), ST_OK);
    cr_assert_eq(session_subscribe(s, slice_cstr("$share/g/#"), &o, &sub), ST_OK);
    exchange_settle(&x);
    cr_assert(!refused);
    cr_assert_eq(session_subscribe(s, slice_cstr("$share/i/#"), &o, &sub), ST_OK);
    exchange_settle(&x);
    cr_assert(refused);
    cr_assert_eq(exchange_metric(&x, M_SHARE_REFUSED), 2, "in each lane");
    session_end(s);
    exchange_close(&x);
}
