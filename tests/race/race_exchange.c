/* Loops in threads of their own over the real store, its lanes at home on different loops: publishers on
 * every loop, readers on every loop that start early, late and live, are fast, slow, or leave and resume
 * where they were. Each publisher numbers what it puts under a topic from 1 on, so a reader that gets 1, 2, 3
 * ... to the last of each matching topic has got everything once and in order. Every other message is
 * retained; a peeker on every loop subscribes again and again and gets what is retained first.
 * ThreadSanitizer sees the races. */
#include "core/pool.h"
#include "fakes/seed.h"
#include "fakes/store_world.h"
#include "session/hub.h"
#include "race/check.h"

#include <pthread.h>

enum {
    LOOPS = 3,
    LANES = 5,
    TOPICS = 4, /* a publisher's */
    ROUNDS = 1500, /* messages of a publisher under each topic */
    HOLD_AT = ROUNDS / 2, /* until every reader is in place: live ones must get the rest */
    BURST = 12,
    OPEN_MAX = 100,
    READERS = 5, /* a loop */
    DEADLINE_MS = 100000,
};

struct reader {
    struct station *at;
    struct session *session;
    const char *filter;
    enum start start;
    struct place place; /* all below has been received */
    uint32_t seen[LOOPS][TOPICS];
    bool ready, done, slow;
    uint32_t room;
    unsigned resumes; /* left */
    struct timer timer;
    uint64_t live_count, read_count;
};

struct peeker {
    struct station *at;
    struct session *session;
    struct timer timer;
    struct place place; /* where now was */
    uint64_t next[LANES]; /* all below has been received */
    uint64_t retained_count;
};

struct station {
    unsigned index, seed;
    struct loop *loop;
    struct courier *courier;
    struct shard_group *shards;
    struct metrics *metrics;
    struct hub *hub;
    struct loop_hook publisher;
    uint32_t round, topic, open;
    uint64_t pause_until_ms; /* so that readers become live now and then */
    struct reader readers[READERS];
    struct peeker peeker;
    struct mail end_mail;
    pthread_t thread;
};

/* What a message carries. */
struct number {
    uint32_t publisher, topic, n;
};

static const char *const topic_names[TOPICS] = {"home/kitchen", "home/cellar", "car", "$internal"};
static const char *const filters[READERS] = {"#", "home/+", "car", "home/#", "home/kitchen"};

static struct station stations[LOOPS];
static struct shard_map map;
static struct store *store;
static atomic_uint readers_ready, readers_done, publishers_done, peekers_done;

/* --- readers ------------------------------------------------------------------------------------ */

static bool reader_wants(const struct reader *r, unsigned topic)
{
    return topic_matches(slice_cstr(r->filter), slice_cstr(topic_names[topic]));
}

static void reader_look_if_done(struct reader *r)
{
    for (unsigned p = 0; p < LOOPS; p++)
        for (unsigned t = 0; t < TOPICS; t++)
            if (reader_wants(r, t) && r->seen[p][t] != ROUNDS)
                return;
    CHECK(!r->done);
    r->done = true;
    atomic_fetch_add(&readers_done, 1);
}

static enum status on_deliver(void *conn, struct subscription *sub, struct delivery *d)
{
    struct reader *r = conn;
    const struct msg *m = d->msg;
    struct number number;
    (void)sub;
    CHECK(loop_is_current(r->at->loop));
    if (r->slow && r->room == 0)
        return ST_AGAIN;
    r->room -= r->slow;
    CHECK(msg_payload(m).len == sizeof number);
    memcpy(&number, msg_payload(m).data, sizeof number);
    CHECK(slice_equal_cstr(msg_topic(m), topic_names[number.topic]) && reader_wants(r, number.topic));
    CHECK(m->offset >= r->place.next[m->partition]);
    r->place.next[m->partition] = m->offset + 1;
    uint32_t *seen = &r->seen[number.publisher][number.topic];
    if (*seen == 0 && r->start == START_LIVE)
        *seen = number.n - 1;
    CHECK(number.n == *seen + 1);
    ++*seen;
    if (d->live)
        r->live_count++;
    else
        r->read_count++;
    if (number.n == ROUNDS)
        reader_look_if_done(r);
    return ST_OK;
}

static void on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay)
{
    struct reader *r = conn;
    (void)sub, (void)replay;
    if (r->ready)
        return;
    r->ready = true;
    if (r->start == START_LIVE)
        r->place = *at;
    atomic_fetch_add(&readers_ready, 1);
}

static void on_live(void *conn, struct subscription *sub, const struct place *at)
{
    (void)conn, (void)sub, (void)at;
}

static void on_gap(void *conn, struct subscription *sub, const struct gap *gap)
{
    (void)conn, (void)sub;
    CHECK(!gap); /* nothing was removed: there is no gap */
}

static const struct transport_ops transport = {
    .deliver = on_deliver, .subscribed = on_subscribed, .live = on_live, .gap = on_gap};

static void reader_subscribe(struct reader *r, enum start start)
{
    struct subscription *sub;
    const struct subscription_options o = {.qos = 1, .start = start, .after = &r->place};
    CHECK(session_subscribe(r->session, slice_cstr(r->filter), &o, &sub) == ST_OK);
}

/* Now and then some room; now and then the connection is lost and a new one resumes. */
static void on_reader_timer(struct timer *t)
{
    struct reader *r = LIST_OF(t, struct reader, timer);
    unsigned dice = (unsigned)rand_r(&r->at->seed);
    r->room = r->done ? UINT32_MAX : dice % 300;
    session_room(r->session);
    if (r->ready && !r->done && r->resumes > 0 && dice / 512 % 4 == 0) {
        r->resumes--;
        session_end(r->session);
        CHECK(session_create(r->at->hub, &transport, r, &r->session) == ST_OK);
        reader_subscribe(r, START_AFTER);
    }
    timer_arm(loop_timers(r->at->loop), t, loop_now_ms(r->at->loop) + TIMER_TICK_MS);
}

static void reader_open(struct station *s, unsigned i)
{
    struct reader *r = &s->readers[i];
    r->at = s;
    r->filter = filters[i];
    r->start = i % 2 ? START_LIVE : START_EARLIEST;
    r->place.lane_count = LANES;
    r->slow = (i + s->index) % 3 != 0;
    r->resumes = 20;
    CHECK(session_create(s->hub, &transport, r, &r->session) == ST_OK);
    timer_init(&r->timer, on_reader_timer);
    timer_arm(loop_timers(s->loop), &r->timer, loop_now_ms(s->loop) + TIMER_TICK_MS);
}

/* --- peekers ------------------------------------------------------------------------------------ */

static enum status on_peek(void *conn, struct subscription *sub, struct delivery *d)
{
    struct peeker *p = conn;
    unsigned lane = d->msg->partition;
    uint64_t offset = d->msg->offset;
    (void)sub;
    CHECK(loop_is_current(p->at->loop));
    CHECK(d->retained == (offset < p->place.next[lane]));
    CHECK(offset >= p->next[lane]);
    CHECK(!d->retained || (!d->live && (d->msg->flags & MSG_RETAIN)));
    p->next[lane] = offset + 1;
    p->retained_count += d->retained;
    return ST_OK;
}

static void on_peeker_subscribed(void *conn, struct subscription *sub, const struct place *at,
                                 uint64_t replay)
{
    struct peeker *p = conn;
    (void)sub, (void)replay;
    p->place = *at;
    memset(p->next, 0, sizeof p->next);
}

/* A new subscription as soon as the last one is live. */
static void on_peeker_live(void *conn, struct subscription *sub, const struct place *at)
{
    struct peeker *p = conn;
    (void)sub, (void)at;
    timer_arm(loop_timers(p->at->loop), &p->timer, loop_now_ms(p->at->loop));
}

static void on_peeker_timer(struct timer *t)
{
    static const struct transport_ops ops = {
        .deliver = on_peek, .subscribed = on_peeker_subscribed, .live = on_peeker_live, .gap = on_gap};
    struct peeker *p = LIST_OF(t, struct peeker, timer);
    struct subscription *sub;
    const struct subscription_options o = {.start = START_LIVE, .retained = true};
    if (atomic_load(&publishers_done) == LOOPS && p->retained_count > 0) {
        atomic_fetch_add(&peekers_done, 1);
        return;
    }
    if (!p->session)
        CHECK(session_create(p->at->hub, &ops, p, &p->session) == ST_OK);
    CHECK(session_subscribe(p->session, slice_cstr("#"), &o, &sub) == ST_OK);
}

static void peeker_open(struct station *s)
{
    s->peeker.at = s;
    timer_init(&s->peeker.timer, on_peeker_timer);
    timer_arm(loop_timers(s->loop), &s->peeker.timer, loop_now_ms(s->loop) + TIMER_TICK_MS);
}

/* --- publishers --------------------------------------------------------------------------------- */

static void on_published(struct publish *p)
{
    struct station *s = p->owner;
    CHECK(loop_is_current(s->loop) && p->status == ST_OK);
    s->open--;
    publish_free(p);
}

static void publish_one(struct station *s)
{
    struct number number = {s->index, s->topic, s->round + 1};
    struct publish *p;
    struct msg *m;
    CHECK(msg_create(slice_cstr(topic_names[s->topic]), (struct slice){0}, (struct slice){0},
                     slice_of(&number, sizeof number), &m) == ST_OK);
    m->flags = s->round % 2 ? MSG_RETAIN : 0;
    if (++s->topic == TOPICS) {
        s->topic = 0;
        s->round++;
    }
    if (rand_r(&s->seed) % 2) {
        CHECK(hub_publish_lazy(s->hub, m) == ST_OK);
        return;
    }
    CHECK(publish_create(m, &p) == ST_OK);
    p->wait = true;
    p->owner = s;
    p->on_published = on_published;
    s->open++;
    hub_publish(s->hub, p);
}

/* Before the courier's hook: what a turn publishes leaves in it. */
static bool on_publisher_turn(struct loop_hook *h)
{
    struct station *s = LIST_OF(h, struct station, publisher);
    if (s->round == ROUNDS)
        return false;
    if (s->round >= HOLD_AT && atomic_load(&readers_ready) < LOOPS * READERS)
        return false;
    if (loop_now_ms(s->loop) < s->pause_until_ms)
        return false; /* the readers' timers bring the next turn */
    if (rand_r(&s->seed) % 5 == 0)
        s->pause_until_ms = loop_now_ms(s->loop) + (unsigned)rand_r(&s->seed) % 32;
    for (unsigned i = 0; i < BURST && s->round < ROUNDS && s->open < OPEN_MAX; i++)
        publish_one(s);
    if (s->round < ROUNDS)
        return s->open < OPEN_MAX;
    atomic_fetch_add(&publishers_done, 1);
    return false;
}

/* --- the node ----------------------------------------------------------------------------------- */

static void *station_main(void *arg)
{
    struct station *s = arg;
    for (unsigned i = 0; i < READERS; i++)
        reader_subscribe(&s->readers[i], s->readers[i].start);
    loop_run(s->loop);
    return NULL;
}

static void on_end(struct mail *mail)
{
    struct station *s = LIST_OF(mail, struct station, end_mail);
    for (unsigned i = 0; i < READERS; i++) {
        timer_cancel(loop_timers(s->loop), &s->readers[i].timer);
        session_end(s->readers[i].session);
    }
    timer_cancel(loop_timers(s->loop), &s->peeker.timer);
    session_end(s->peeker.session);
}

static void node_open(const struct store_options *options, struct buf *error)
{
    const struct hub_limits limits = {.subscriptions_max = 10,
                                      .read_count = 64,
                                      .read_bytes = 8192,
                                      .catchup_share = 25,
                                      .topic = {1024, 32}};
    const struct shard_limits shard_limits = {{100, 1 << 20},
                                              {100, 100, 1 << 20, 1000000},
                                              {100, 1 << 20},
                                              {{100, 1 << 20}, 10, 3, 0},
                                              {10, 100, 1 << 20, 10, 100}};
    CHECK(store_open(options, &store, error) == ST_OK);
    map.lane_count = LANES;
    map.epoch = store_epoch(store);
    for (unsigned i = 0; i < LOOPS; i++) {
        struct station *s = &stations[i];
        s->index = i;
        s->metrics = metrics_register();
        CHECK(loop_create(clock_system(), i, &s->loop) == ST_OK);
        CHECK(courier_create(s->loop, &s->courier) == ST_OK);
        CHECK(shard_group_create(s->courier, topic_log_local(store), s->metrics, LOOPS, &shard_limits,
                                 &s->shards) == ST_OK);
        CHECK(hub_create(s->courier, &map, s->metrics, &limits, &s->hub) == ST_OK);
    }
    for (unsigned lane = 0; lane < LANES; lane++) {
        CHECK(shard_create(stations[lane % LOOPS].shards, lane, &map.lanes[lane].shard) == ST_OK);
        map.lanes[lane].loop_index = lane % LOOPS;
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        struct station *s = &stations[i];
        for (unsigned k = 0; k < LOOPS; k++) {
            courier_meet(s->courier, k, stations[k].loop);
            shard_group_meet(s->shards, k, stations[k].hub, hub_on_deliver);
        }
        s->publisher.on_turn_end = on_publisher_turn;
        loop_hook_add(s->loop, &s->publisher);
        shard_group_start(s->shards);
        courier_start(s->courier);
        hub_start(s->hub);
        for (unsigned r = 0; r < READERS; r++)
            reader_open(s, r);
        peeker_open(s);
    }
}

static void node_close(void)
{
    /* What was under way one way, between loops (DETACH, DELIVER), ends here. */
    for (unsigned n = 0; n < 4 * LOOPS; n++) {
        loop_dispatch(stations[n % LOOPS].loop);
        loop_prepare(stations[n % LOOPS].loop);
    }
    store_close(store);
    for (unsigned i = 0; i < LOOPS; i++) {
        loop_dispatch(stations[i].loop);
        hub_destroy(stations[i].hub);
        shard_group_destroy(stations[i].shards);
        courier_destroy(stations[i].courier);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        loop_destroy(stations[i].loop);
    pool_drain();
}

static bool all_received(void)
{
    return atomic_load(&readers_done) == LOOPS * READERS && atomic_load(&publishers_done) == LOOPS &&
           atomic_load(&peekers_done) == LOOPS && metrics_sum(M_PUBLISH_OPEN) == 0 &&
           metrics_sum(M_CURSORS) == 0;
}

static bool all_ended(void)
{
    return metrics_sum(M_SUBSCRIPTIONS) == 0;
}

static void wait_for(bool (*condition)(void), const char *what)
{
    uint64_t end_ms = world_now_ms() + DEADLINE_MS;
    while (!condition()) {
        if (world_now_ms() > end_ms) {
            fprintf(stderr, "race_exchange: waited too long for %s: ready=%u done=%u published=%u\n", what,
                    readers_ready, readers_done, publishers_done);
            abort();
        }
        poll(NULL, 0, 5);
    }
}

int main(void)
{
    struct world w;
    unsigned seed = test_seed();
    world_init(&w, LANES);
    w.options.segment_bytes = 64 << 10; /* many segments */
    w.options.recent_bytes = 8 << 10; /* most reads go to the files */
    node_open(&w.options, &w.error);
    for (unsigned i = 0; i < LOOPS; i++) {
        stations[i].seed = seed + i;
        CHECK(pthread_create(&stations[i].thread, NULL, station_main, &stations[i]) == 0);
    }
    wait_for(all_received, "everything to be received");
    for (unsigned i = 0; i < LOOPS; i++) {
        stations[i].end_mail.on_arrival = on_end;
        loop_post(stations[i].loop, &stations[i].end_mail);
    }
    wait_for(all_ended, "the sessions to end");
    uint64_t live = 0, read = 0, retained = 0, behind = metrics_sum(M_BECAME_CURSOR);
    for (unsigned i = 0; i < LOOPS; i++)
        loop_stop(stations[i].loop);
    for (unsigned i = 0; i < LOOPS; i++) {
        pthread_join(stations[i].thread, NULL);
        retained += stations[i].peeker.retained_count;
        for (unsigned r = 0; r < READERS; r++) {
            live += stations[i].readers[r].live_count;
            read += stations[i].readers[r].read_count;
        }
    }
    CHECK(metrics_sum(M_STORED) == LOOPS * TOPICS * ROUNDS);
    CHECK(metrics_sum(M_REFUSED_UNAVAILABLE) == 0);
    node_close();
    world_deinit(&w);
    printf("live=%lu read=%lu behind=%lu retained=%lu\n", (unsigned long)live, (unsigned long)read,
           (unsigned long)behind, (unsigned long)retained);
    return 0;
}
