/* Users on several loops with threads of their own: connections come, say who they are, acknowledge their
 * inbox, are looked up and go, all at once. At the end the directory is empty, and each inbox's cursor is the
 * greatest place that anybody has acknowledged. */
#include "core/pool.h"
#include "fakes/seed.h"
#include "fakes/store_world.h"
#include "race/check.h"
#include "session/inbox.h"

#include <pthread.h>

enum { LOOPS = 3, LANES = 4, USERS = 6, CONNS = 8, TURNS = 400, DEADLINE_MS = 60000 };

struct station;

/* One connection after the other. */
struct guest {
    struct station *at;
    struct session *session;
    struct inbox *inbox;
    struct directory_find find;
    char user[8];
    bool asking, found; /* FIND is under way; the place is known */
    unsigned turns;
    struct timer timer;
};

struct station {
    unsigned index, seed;
    struct loop *loop;
    struct courier *courier;
    struct shard_group *shards;
    struct hub *hub;
    struct directory_local *directory;
    struct metrics *metrics;
    pthread_t thread;
    struct guest guests[CONNS];
};

static struct store *store;
static struct shard_map map;
static struct station stations[LOOPS];
static atomic_uint guests_done;
static _Atomic uint64_t furthest[USERS], seen[USERS];

static void too_many(void *conn)
{
    struct guest *g = conn;
    CHECK(loop_is_current(g->at->loop));
}

static const struct transport_ops transport = {.too_many = too_many, .door = "ws"};

static void raise_to(_Atomic uint64_t *most, uint64_t value)
{
    uint64_t was = atomic_load(most);
    while (was < value && !atomic_compare_exchange_weak(most, &was, value))
        ;
}

static void on_place(void *owner, enum status status, const struct inbox_place *place)
{
    struct guest *g = owner;
    unsigned user = (unsigned)(g->user[1] - '0');
    CHECK(loop_is_current(g->at->loop) && status == ST_OK);
    g->found = true;
    /* Whoever acknowledges notes it first, so what the shard says is never ahead of that. */
    CHECK(!place->known || place->cursor <= atomic_load(&furthest[user]));
    if (place->known)
        raise_to(&seen[user], place->cursor);
}

static void on_found(struct directory_find *f)
{
    struct guest *g = LIST_OF(f, struct guest, find);
    CHECK(loop_is_current(g->at->loop) && f->status == ST_OK && f->total <= LOOPS * CONNS);
    for (uint32_t i = 0; i < f->found_count; i++)
        CHECK(session_id_loop(f->found[i].connection) < LOOPS);
    free(f->found);
    g->asking = false;
}

static void guest_come(struct guest *g)
{
    const struct inbox_limits limits = {0, 0};
    snprintf(g->user, sizeof g->user, "u%u", (unsigned)rand_r(&g->at->seed) % USERS);
    g->found = false;
    CHECK(session_create(g->at->hub, &transport, g, &g->session) == ST_OK);
    CHECK(session_identify(g->session, slice_cstr(g->user), 10) == ST_OK);
    CHECK(inbox_create(g->at->hub, &limits, slice_cstr(g->user), g, &g->inbox) == ST_OK);
    inbox_find(g->inbox, on_place);
}

static void guest_go(struct guest *g)
{
    session_end(g->session);
    inbox_close(g->inbox);
    g->session = NULL;
    g->inbox = NULL;
}

static void guest_act(struct guest *g)
{
    static atomic_uint clock_hand;
    unsigned user = (unsigned)(g->user[1] - '0');
    switch (rand_r(&g->at->seed) % 4) {
    case 0:
        guest_go(g);
        break;
    case 1:
        if (!g->asking) {
            struct directory d = hub_directory(g->at->hub);
            g->asking = true;
            g->find = (struct directory_find){.user = slice_cstr(g->user), .on_found = on_found};
            d.ops->find(d.ctx, &g->find);
        }
        break;
    default: {
        uint64_t next = atomic_fetch_add(&clock_hand, 1) + 1;
        raise_to(&furthest[user], next);
        inbox_moved(g->inbox, next, 1);
    }
    }
}

static void on_guest_timer(struct timer *t)
{
    struct guest *g = LIST_OF(t, struct guest, timer);
    if (g->turns++ >= TURNS && !g->asking) {
        if (g->session)
            guest_go(g);
        atomic_fetch_add(&guests_done, 1);
        return;
    }
    if (!g->session && !g->asking)
        guest_come(g);
    else if (g->session)
        guest_act(g);
    timer_arm(loop_timers(g->at->loop), t, loop_now_ms(g->at->loop) + 1);
}

static void *station_main(void *arg)
{
    loop_run(((struct station *)arg)->loop);
    return NULL;
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
                                              {{100, 1 << 20}, 20, 3, 0},
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
        CHECK(directory_local_create(s->courier, "n1", 1, &s->directory) == ST_OK);
        hub_set_directory(s->hub, directory_local_port(s->directory));
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
            directory_local_meet(s->directory, k, stations[k].directory, LOOPS);
        }
        shard_group_start(s->shards);
        courier_start(s->courier);
        hub_start(s->hub);
        for (unsigned g = 0; g < CONNS; g++) {
            s->guests[g].at = s;
            timer_init(&s->guests[g].timer, on_guest_timer);
            timer_arm(loop_timers(s->loop), &s->guests[g].timer, loop_now_ms(s->loop) + 1);
        }
    }
}

/* On this thread: letters that are still under way arrive. */
static void turn_all(unsigned rounds)
{
    for (unsigned n = 0; n < rounds * LOOPS; n++) {
        loop_dispatch(stations[n % LOOPS].loop);
        loop_prepare(stations[n % LOOPS].loop);
    }
}

static void check_end(void)
{
    struct inbox *inboxes[USERS];
    struct guest asker[USERS];
    const struct inbox_limits limits = {0, 0};
    uint64_t end_ms = world_now_ms() + DEADLINE_MS;
    memset(asker, 0, sizeof asker);
    for (unsigned u = 0; u < USERS; u++) {
        asker[u].at = &stations[0];
        snprintf(asker[u].user, sizeof asker[u].user, "u%u", u);
        CHECK(inbox_create(stations[0].hub, &limits, slice_cstr(asker[u].user), &asker[u], &inboxes[u]) ==
              ST_OK);
        inbox_find(inboxes[u], on_place);
        while (!asker[u].found) {
            CHECK(world_now_ms() < end_ms);
            turn_all(1);
        }
        CHECK(atomic_load(&seen[u]) == atomic_load(&furthest[u]));
        inbox_close(inboxes[u]);
    }
    turn_all(8);
    for (unsigned i = 0; i < LOOPS; i++) {
        CHECK(directory_local_users(stations[i].directory) == 0);
        CHECK(hub_idle(stations[i].hub));
    }
    CHECK(metrics_sum(M_USER_CONNECTIONS) == 0);
}

int main(void)
{
    struct world w;
    unsigned seed = test_seed();
    world_init(&w, LANES);
    node_open(&w.options, &w.error);
    for (unsigned i = 0; i < LOOPS; i++) {
        stations[i].seed = seed + i;
        CHECK(pthread_create(&stations[i].thread, NULL, station_main, &stations[i]) == 0);
    }
    uint64_t end_ms = world_now_ms() + DEADLINE_MS;
    while (atomic_load(&guests_done) < LOOPS * CONNS) {
        CHECK(world_now_ms() < end_ms);
        poll(NULL, 0, 5);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        loop_stop(stations[i].loop);
    for (unsigned i = 0; i < LOOPS; i++)
        pthread_join(stations[i].thread, NULL);
    turn_all(8);
    check_end();
    store_close(store);
    for (unsigned i = 0; i < LOOPS; i++) {
        loop_dispatch(stations[i].loop);
        hub_destroy(stations[i].hub);
        directory_local_destroy(stations[i].directory);
        shard_group_destroy(stations[i].shards);
        courier_destroy(stations[i].courier);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        loop_destroy(stations[i].loop);
    pool_drain();
    world_deinit(&w);
    return 0;
}
