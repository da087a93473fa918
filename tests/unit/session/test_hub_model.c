/* The promise of a subscription, against a reference that is simple enough to believe: of the records of each
 * lane from its start on, those that match its filter come once each, in order; what it does not get is told
 * as a gap, and lies below what is kept or in a damaged range. A live one that asks for it gets the retained
 * messages first, which are a fold of the records below its start: once each, in order, those of them that
 * nothing has replaced meanwhile without exception. Publishers, subscribers, readers, room,
 * retention and loops move in random order; at the end everything is given room and time, and nothing may be
 * missing. */
#include "fakes/exchange.h"
#include "fakes/seed.h"

enum { CONNS = 5, SUBS_MAX = 5, STEPS = 20000 };

static const char *const topics[] = {"a", "b", "c", "c/d", "c/e", "f/d", "$x", "c/d/e"};
static const char *const filters[] = {"a", "b", "c/+", "c/#", "#", "+", "c/d", "+/d", "$x", "f/d"};
enum { TOPICS = sizeof topics / sizeof *topics, FILTERS = sizeof filters / sizeof *filters };

struct promise {
    struct subscription *sub;
    const char *filter;
    enum start start;
    bool told, live_told;
    uint64_t next[FAKE_LANES_MAX]; /* before it is told: the least it may be */
    uint64_t value; /* START_TIME, START_LAST */
    uint64_t kept_from[FAKE_LANES_MAX]; /* not START_AFTER: below, records may be missing without a word */
    uint64_t beyond[FAKE_LANES_MAX]; /* it asked for this, behind the end; 0 when the gap has been told */
    bool retained; /* START_LIVE: the retained messages first */
    uint64_t at[FAKE_LANES_MAX]; /* where it begins: the retained messages lie below */
    unsigned long unstored; /* number of the newest message of an unstored topic that came */
    uint64_t walk[FAKE_LANES_MAX]; /* retained messages below have come; at `at` all have */
};

struct peer {
    struct fake_conn conn;
    struct session *session;
    unsigned loop;
    struct promise promises[SUBS_MAX];
    unsigned count;
};

static struct exchange x;
static struct peer peers[CONNS];
static unsigned seed, step;
static bool calm; /* no retention, no damage: replay counts are exact, gaps forbidden */
/* Topics with policies: those below "c" come when they are durable, "b" is not stored. */
static bool with_policies;
static unsigned long unstored, published, answered, delivered, retained, gaps, lives;
/* Ranges that have been damaged at some time, a mark an offset: a gap may be told after the damage has moved.
 */
static bool was_damaged[FAKE_LANES_MAX][5 * STEPS];
/* For each record: where the topic's next one with RETAIN lies, UINT64_MAX: there is none. */
static uint64_t replaced_at[FAKE_LANES_MAX][5 * STEPS];

static unsigned pick(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* --- checking ----------------------------------------------------------------------------------- */

static bool owed(const struct promise *p, unsigned lane, uint64_t offset)
{
    const struct msg *m = x.log.lanes[lane].records[offset];
    return m && topic_matches(slice_cstr(p->filter), msg_topic(m));
}

static void note_replaced(void)
{
    static uint64_t seen[FAKE_LANES_MAX], last[FAKE_LANES_MAX][TOPICS];
    for (unsigned lane = 0; lane < x.log.lane_count; lane++) {
        const struct fake_lane *l = &x.log.lanes[lane];
        for (; seen[lane] < l->count; seen[lane]++) {
            const struct msg *m = l->records[seen[lane]];
            replaced_at[lane][seen[lane]] = UINT64_MAX;
            if (!m || !(m->flags & MSG_RETAIN))
                continue;
            unsigned t = 0;
            while (!slice_equal_cstr(msg_topic(m), topics[t]))
                t++;
            if (last[lane][t] > 0)
                replaced_at[lane][last[lane][t] - 1] = seen[lane];
            last[lane][t] = seen[lane] + 1;
        }
    }
}

/* Was it retained when the promise began? */
static bool owed_retained(const struct promise *p, unsigned lane, uint64_t offset)
{
    const struct msg *m = x.log.lanes[lane].records[offset];
    return p->retained && owed(p, lane, offset) && (m->flags & MSG_RETAIN) && m->payload_len > 0 &&
           replaced_at[lane][offset] >= p->at[lane];
}

/* The walk over retained messages moves on to `to`; what it passes must have been replaced meanwhile. */
static void walk(struct promise *p, unsigned lane, uint64_t to)
{
    for (uint64_t o = p->walk[lane]; o < to; o++)
        cr_assert_not(owed_retained(p, lane, o) && replaced_at[lane][o] == UINT64_MAX,
                      "step=%u: filter %s: retained message of lane %u at %lu did not come", step, p->filter,
                      lane, (unsigned long)o);
    if (to > p->walk[lane])
        p->walk[lane] = to;
}

static struct promise *promise_of(struct peer *peer, const struct subscription *sub)
{
    for (unsigned i = 0; i < peer->count; i++)
        if (peer->promises[i].sub == sub)
            return &peer->promises[i];
    cr_assert_fail("step=%u: told of a subscription that has ended", step);
    return NULL;
}

static bool from_what_is_kept(const struct promise *p)
{
    return p->start != START_AFTER && p->start != START_LIVE;
}

/* Where START_TIME and START_LAST begin when `at` is now and nothing has been removed. */
static uint64_t located(const struct promise *p, unsigned lane, uint64_t at)
{
    uint64_t o = 0, left = p->value;
    struct msg **records = x.log.lanes[lane].records;
    if (p->start == START_TIME) {
        while (o < at && !(records[o] && records[o]->ts_ms >= p->value))
            o++;
        return o;
    }
    for (o = at; o > 0 && left > 0; o--)
        left -= owed(p, lane, o - 1);
    return o;
}

/* The promise moves on to `to`; what it passes must not be owed. */
static void pass(struct promise *p, unsigned lane, uint64_t to)
{
    for (uint64_t o = p->next[lane]; o < to; o++) {
        bool lost = owed(p, lane, o) && !(from_what_is_kept(p) && o < p->kept_from[lane]);
        cr_assert_not(lost, "step=%u: filter %s lost lane %u offset %lu on the way to %lu", step, p->filter,
                      lane, (unsigned long)o, (unsigned long)to);
    }
    p->next[lane] = to;
}

static void check_subscribed(struct promise *p, const struct fake_event *e)
{
    uint64_t replay = 0, replaced = 0;
    cr_assert_not(p->told, "step=%u: subscribed twice", step);
    p->told = true;
    for (unsigned lane = 0; lane < x.log.lane_count; lane++) {
        uint64_t at = e->at.next[lane], count = x.log.lanes[lane].count;
        bool mine = !topic_filter_literal(slice_cstr(p->filter)) ||
                    topic_partition(slice_cstr(p->filter), x.log.lane_count) == lane;
        if (!mine)
            continue;
        cr_assert_leq(at, count, "step=%u", step);
        p->kept_from[lane] = x.log.lanes[lane].first;
        if (p->start == START_LIVE) {
            cr_assert_geq(at, p->next[lane], "step=%u: now was before the call", step);
            p->next[lane] = p->at[lane] = at;
            for (uint64_t o = 0; o < at; o++) {
                bool was = owed_retained(p, lane, o);
                replay += was;
                replaced += was && replaced_at[lane][o] != UINT64_MAX;
            }
        } else if (p->start == START_TIME || p->start == START_LAST) {
            p->next[lane] = located(p, lane, at);
        } else if (p->next[lane] > at) {
            p->beyond[lane] = p->next[lane];
            p->next[lane] = at;
        }
        for (uint64_t o = p->next[lane]; o < at; o++)
            replay += owed(p, lane, o);
    }
    if (calm || p->start == START_LIVE)
        cr_assert(e->replay <= replay && e->replay + replaced >= replay,
                  "step=%u: replay %lu instead of %lu (%lu replaced)", step, (unsigned long)e->replay,
                  (unsigned long)replay, (unsigned long)replaced);
}

static void check_live(struct promise *p, const struct fake_event *e)
{
    cr_assert(p->told, "step=%u", step);
    cr_assert_not(p->live_told, "step=%u: live twice", step);
    for (unsigned lane = 0; lane < x.log.lane_count; lane++)
        cr_assert_eq(p->beyond[lane], 0, "step=%u: nothing was said of a lost future", step);
    p->live_told = true;
    lives++;
    for (unsigned lane = 0; lane < x.log.lane_count; lane++)
        walk(p, lane, p->at[lane]);
    for (unsigned lane = 0; lane < x.log.lane_count; lane++)
        for (uint64_t o = p->next[lane]; o < e->at.next[lane]; o++)
            cr_assert_not(owed(p, lane, o) && !(from_what_is_kept(p) && o < p->kept_from[lane]),
                          "step=%u: live before lane %u offset %lu came", step, lane, (unsigned long)o);
}

/* All that is owed and lies in the gap must be gone: removed, or damaged. */
static void check_gap(struct promise *p, const struct fake_event *e)
{
    gaps++;
    if (strcmp(e->why, "epoch") == 0) {
        cr_assert(p->told && e->to + 1 == p->beyond[e->lane] && e->from == p->next[e->lane], "step=%u", step);
        p->beyond[e->lane] = 0;
        return;
    }
    walk(p, e->lane, p->at[e->lane]);
    cr_assert(p->told && !calm, "step=%u", step);
    cr_assert_leq(e->from, e->to);
    if (e->from > p->next[e->lane]) /* it has passed what does not match without a word */
        pass(p, e->lane, e->from);
    for (; p->next[e->lane] <= e->to; p->next[e->lane]++) {
        uint64_t o = p->next[e->lane];
        cr_assert(o < x.log.lanes[e->lane].first || was_damaged[e->lane][o] || !owed(p, e->lane, o),
                  "step=%u: gap %lu-%lu, but %lu is there", step, (unsigned long)e->from,
                  (unsigned long)e->to, (unsigned long)o);
    }
}

static void check_retained(struct promise *p, const struct fake_event *e)
{
    uint64_t offset = e->msg->offset;
    unsigned lane = e->msg->partition;
    retained++;
    cr_assert(p->told && !e->live, "step=%u", step);
    cr_assert(offset >= p->walk[lane] && offset < p->at[lane],
              "step=%u: retained %lu comes again, too early or too late", step, (unsigned long)offset);
    cr_assert(owed_retained(p, lane, offset), "step=%u: lane %u offset %lu is not retained", step, lane,
              (unsigned long)offset);
    walk(p, lane, offset);
    p->walk[lane] = offset + 1;
}

/* It comes live, in the order of publishing, and never before what was stored before it. */
static void check_unstored(struct promise *p, const struct msg *m, bool live)
{
    unsigned long number = 0;
    for (size_t i = 0; i < m->payload_len; i++)
        number = number * 10 + (unsigned long)(msg_payload(m).data[i] - '0');
    unstored++;
    cr_assert(with_policies && live && p->told && slice_equal_cstr(msg_topic(m), "b"), "step=%u", step);
    cr_assert(topic_matches(slice_cstr(p->filter), msg_topic(m)), "step=%u", step);
    if (x.loop_count == 1) /* of several loops, the one that published later may be first at the shard */
        cr_assert_gt(number + 1, p->unstored, "step=%u: %lu came again or too late", step, number);
    p->unstored = number + 1;
    for (uint64_t o = p->next[m->partition]; o < m->offset; o++) {
        const struct msg *before = x.log.lanes[m->partition].records[o];
        cr_assert(!before || !slice_starts_with(msg_topic(before), slice_cstr("b")) ||
                      !owed(p, m->partition, o),
                  "step=%u: it overtook %lu of its topic", step, (unsigned long)o);
    }
}

static void check_message(struct promise *p, const struct fake_event *e)
{
    const struct msg *m = e->msg;
    unsigned lane = m->partition;
    if (m->flags & MSG_UNSTORED) {
        check_unstored(p, m, e->live);
        return;
    }
    if (with_policies && m->topic_len > 0 && msg_topic(m).data[0] == 'c')
        cr_assert_lt(m->offset, x.log.lanes[lane].durable, "step=%u: delivered, not durable", step);
    if (e->retained) {
        check_retained(p, e);
        return;
    }
    delivered++;
    cr_assert(p->told, "step=%u: a message before subscribed", step);
    walk(p, lane, p->at[lane]);
    cr_assert_geq(m->offset, p->next[lane], "step=%u: filter %s: lane %u offset %lu came again or too early",
                  step, p->filter, lane, (unsigned long)m->offset);
    cr_assert_eq(p->beyond[lane], 0, "step=%u: served before it was told of a lost future", step);
    cr_assert(owed(p, lane, m->offset), "step=%u: filter %s does not match", step, p->filter);
    cr_assert(slice_equal(msg_payload(m), msg_payload(x.log.lanes[lane].records[m->offset])));
    pass(p, lane, m->offset);
    p->next[lane] = m->offset + 1;
}

static void check_peer(struct peer *peer)
{
    for (size_t i = 0; i < peer->conn.count; i++) {
        const struct fake_event *e = &peer->conn.events[i];
        struct promise *p = promise_of(peer, e->sub);
        switch (e->kind) {
        case FAKE_SUBSCRIBED:
            check_subscribed(p, e);
            break;
        case FAKE_LIVE:
            check_live(p, e);
            break;
        case FAKE_GAP:
            check_gap(p, e);
            break;
        case FAKE_MESSAGE:
            check_message(p, e);
            break;
        }
    }
    fake_conn_clear(&peer->conn);
}

/* --- what may happen ---------------------------------------------------------------------------- */

static void peer_connect(struct peer *peer)
{
    peer->loop = pick(x.loop_count);
    cr_assert_eq(session_create(x.hubs[peer->loop], &fake_transport, &peer->conn, &peer->session), ST_OK);
    peer->count = 0;
}

static void peer_forget(struct peer *peer, unsigned i)
{
    peer->promises[i] = peer->promises[--peer->count];
}

static void do_subscribe(struct peer *peer)
{
    const char *filter = filters[pick(FILTERS)];
    struct place after = {.lane_count = x.log.lane_count};
    struct promise p = {.filter = filter, .start = (enum start)pick(START_LAST + 1)};
    if (p.start == START_LAST && !topic_filter_literal(slice_cstr(filter)))
        p.start = START_TIME;
    p.value = p.start == START_LAST ? 1 + pick(20) : ex_wall_ms - pick(300);
    p.retained = p.start == START_LIVE && pick(3) > 0;
    struct subscription_options o = {.start = p.start,
                                     .start_value = p.value,
                                     .after = &after,
                                     .retained = p.start == START_LIVE ? p.retained : pick(2)};
    for (unsigned lane = 0; lane < x.log.lane_count; lane++) {
        uint64_t count = x.log.lanes[lane].count;
        after.next[lane] = pick(4) == 0 ? count + pick(3) : count - pick((unsigned)count % 100 + 1);
        uint64_t durable = x.log.lanes[lane].durable;
        uint64_t now = with_policies && durable < count ? durable : count; /* what is held back comes live */
        p.next[lane] = p.start == START_AFTER ? after.next[lane] : p.start == START_LIVE ? now : 0;
    }
    struct subscription *old = session_find(peer->session, slice_cstr(filter));
    enum status st = session_subscribe(peer->session, slice_cstr(filter), &o, &p.sub);
    if (st == ST_FULL) {
        cr_assert(!old && peer->count == SUBS_MAX);
        return;
    }
    cr_assert_eq(st, ST_OK);
    for (unsigned i = 0; old && i < peer->count; i++)
        if (peer->promises[i].sub == old) {
            peer_forget(peer, i);
            break;
        }
    peer->promises[peer->count++] = p;
}

static void do_unsubscribe(struct peer *peer)
{
    if (peer->count == 0)
        return;
    unsigned i = pick(peer->count);
    cr_assert_eq(session_unsubscribe(peer->session, slice_cstr(peer->promises[i].filter)), ST_OK);
    peer_forget(peer, i);
}

static void do_room(struct peer *peer)
{
    peer->conn.room = pick(3) == 0 ? UINT64_MAX : pick(12);
    if (peer->conn.room > 0)
        session_room(peer->session);
}

static void on_published(struct publish *p)
{
    cr_assert_eq(p->status, ST_OK);
    if (!(p->msg->flags & MSG_UNSTORED))
        cr_assert_lt(p->msg->offset, x.log.lanes[p->msg->partition].durable,
                     "step=%u: acknowledged, not durable", step);
    answered++;
    publish_free(p);
}

static void do_publish(void)
{
    char text[32];
    unsigned loop = pick(x.loop_count);
    ex_wall_ms += pick(2); /* some have the same time */
    snprintf(text, sizeof text, "%lu", published);
    bool retain = pick(3) == 0;
    const char *topic = topics[pick(TOPICS)];
    retain = retain && !(with_policies && strcmp(topic, "b") == 0);
    struct msg *m = exchange_msg(topic, retain && pick(4) == 0 ? "" : text);
    m->flags = retain ? MSG_RETAIN : 0;
    published++;
    if (pick(2)) {
        cr_assert_eq(hub_publish_lazy(x.hubs[loop], m), ST_OK);
        answered++;
        return;
    }
    struct publish *p;
    cr_assert_eq(publish_create(m, &p), ST_OK);
    p->wait = true;
    p->on_published = on_published;
    hub_publish(x.hubs[loop], p);
}

static void do_log(void)
{
    unsigned lane = pick(x.log.lane_count);
    struct fake_lane *l = &x.log.lanes[lane];
    unsigned what = pick(20);
    if (what < 8)
        fake_log_sync(&x.log, lane, l->durable + pick(20));
    else if (what < 14)
        l->recent = pick(3) == 0 ? UINT64_MAX : pick(10);
    else if (what < 17)
        x.log.serve_max = pick(8);
    else if (what == 17)
        fake_log_jump(&x.log, lane, pick(5));
    else if (!calm && what == 18)
        fake_log_trim(&x.log, lane, l->count - pick((unsigned)l->count % 200 + 1));
    else if (!calm && l->count > 20) {
        l->damaged_from = l->count - pick(20);
        l->damaged_to = l->damaged_from + pick(4);
        if (l->damaged_to > l->count)
            l->damaged_to = l->count;
        for (uint64_t o = l->damaged_from; o < l->damaged_to; o++)
            was_damaged[lane][o] = true;
    }
}

static void one_step(void)
{
    struct peer *peer = &peers[pick(CONNS)];
    unsigned what = pick(100);
    if (what < 30)
        do_publish();
    else if (what < 60)
        exchange_turn(&x, pick(x.loop_count));
    else if (what < 72)
        fake_log_serve(&x.log);
    else if (what < 82)
        do_room(peer);
    else if (what < 88)
        do_subscribe(peer);
    else if (what < 91)
        do_unsubscribe(peer);
    else if (what < 99)
        do_log();
    else if (pick(4) == 0) {
        session_end(peer->session);
        peer_connect(peer);
    }
    note_replaced();
    for (unsigned i = 0; i < CONNS; i++)
        check_peer(&peers[i]);
}

/* Room for everybody and time for everything. */
static void come_to_rest(void)
{
    exchange_settle(&x);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < CONNS; i++) {
            peers[i].conn.room = UINT64_MAX;
            session_room(peers[i].session);
        }
        exchange_settle(&x);
    }
    note_replaced();
    for (unsigned i = 0; i < CONNS; i++) {
        struct peer *peer = &peers[i];
        check_peer(peer);
        for (unsigned k = 0; k < peer->count; k++) {
            struct promise *p = &peer->promises[k];
            cr_assert(p->told, "subscribed was never told");
            cr_assert(p->live_told, "live");
            for (unsigned lane = 0; lane < x.log.lane_count; lane++) {
                walk(p, lane, p->at[lane]);
                pass(p, lane, x.log.lanes[lane].count);
            }
        }
    }
    cr_assert_eq(answered, published);
    cr_assert_eq(exchange_metric(&x, M_CURSORS), 0);
}

static void run(unsigned loops, unsigned lanes, bool is_calm)
{
    static const struct topic_policy policies[] = {
        {.filter = {(const uint8_t *)"c/#", 3}, .after_sync = true},
        {.filter = {(const uint8_t *)"b", 1}, .unstored = true},
    };
    seed = test_seed();
    calm = is_calm;
    exchange_open(&x, loops, lanes);
    if (with_policies)
        exchange_set_policies(&x, policies, 2);
    for (unsigned i = 0; i < CONNS; i++) {
        fake_conn_init(&peers[i].conn, UINT64_MAX);
        peer_connect(&peers[i]);
    }
    for (step = 0; step < STEPS; step++) {
        one_step();
        if (step % 5000 == 4999)
            come_to_rest();
    }
    come_to_rest();
    for (unsigned i = 0; i < CONNS; i++) {
        session_end(peers[i].session);
        fake_conn_deinit(&peers[i].conn);
    }
    printf("published=%lu delivered=%lu retained=%lu gaps=%lu lives=%lu\n", published, delivered, retained,
           gaps, lives);
    for (unsigned lane = 0; lane < x.log.lane_count; lane++) { /* the fold reads all there is */
        x.log.lanes[lane].first = 0;
        x.log.lanes[lane].damaged_to = 0;
    }
    exchange_expect_fold(&x);
    exchange_close(&x);
}

Test(hub_model, one_loop_one_lane)
{
    run(1, 1, true);
}

Test(hub_model, one_loop_two_lanes_with_policies)
{
    with_policies = true;
    run(1, 2, true);
    cr_assert_gt(unstored, 0);
}

Test(hub_model, three_loops_four_lanes_with_policies)
{
    with_policies = true;
    run(3, 4, true);
    cr_assert_gt(unstored, 0);
}

Test(hub_model, one_loop_four_lanes_with_retention_and_damage)
{
    run(1, 4, false);
}

Test(hub_model, three_loops_four_lanes)
{
    run(3, 4, true);
}

Test(hub_model, three_loops_two_lanes_with_retention_and_damage)
{
    run(3, 2, false);
}
