/* Two loops with two lanes each append, read from files and memory while segments roll and indexes are
 * written, with answers that go home to the other loop; store_first and store_epoch are asked from a third
 * thread. For ThreadSanitizer; also checks that every read is complete and in order. */
#include "core/pool.h"
#include "fakes/store_world.h"

#include <pthread.h>

enum {
    LOOPS = 2,
    LANES_A_LOOP = 2,
    LANES = LOOPS * LANES_A_LOOP,
    RECORDS = 6000,
    BURST = 32,
    READS_OPEN = 2
};

struct side {
    struct world w; /* loop and durable marks; the store is common */
    unsigned index;
    pthread_t thread;
    uint64_t appended[LANES];
    atomic_uint reads_open; /* answers that this side still waits for */
    unsigned reads_done;
};

static struct side sides[LOOPS];
static struct store *store;
static atomic_uint finished;
static atomic_bool over;

struct job {
    struct store_read read;
    struct side *from; /* who started it */
    char topic[16];
};

static void die(const char *what)
{
    fprintf(stderr, "race_store: %s\n", what);
    abort();
}

/* On the home loop, which is the other side's. */
static void on_done(struct store_read *r)
{
    struct job *job = (struct job *)(void *)r;
    uint64_t last = 0;
    if (r->status != ST_OK)
        die("a read failed");
    for (uint64_t i = 0; i < r->found; i++) {
        const struct msg *m = r->msgs[i];
        uint64_t offset;
        memcpy(&offset, msg_payload(m).data, sizeof offset);
        if (offset != m->offset || m->partition != r->lane || (i > 0 && m->offset <= last))
            die("wrong record");
        if (r->topic.data && !slice_equal(msg_topic(m), r->topic))
            die("wrong topic");
        last = m->offset;
        msg_unref(r->msgs[i]);
    }
    free(r->msgs);
    atomic_fetch_sub(&job->from->reads_open, 1);
    free(job);
}

static bool wants_even(void *ctx, struct slice topic)
{
    (void)ctx;
    return topic.data[topic.len - 1] % 2 == 0;
}

static void start_read(struct side *s, unsigned lane, unsigned number)
{
    struct job *job = calloc(1, sizeof *job);
    job->from = s;
    snprintf(job->topic, sizeof job->topic, "t/%u", number % 8);
    job->read = (struct store_read){.lane = lane,
                                    .from = store_first(store, lane) + number % 5000,
                                    .to = UINT64_MAX,
                                    .count_max = 1 + number % 500,
                                    .bytes_max = 1 << 20,
                                    .home = sides[(s->index + 1) % LOOPS].w.loop,
                                    .on_done = on_done};
    if (number % 3 == 0)
        job->read.topic = slice_cstr(job->topic);
    if (number % 3 == 1)
        job->read.wants = wants_even;
    atomic_fetch_add(&s->reads_open, 1);
    s->reads_done++;
    store_read_start(store, &job->read);
}

static void append_burst(struct side *s, unsigned lane)
{
    for (unsigned i = 0; i < BURST && s->appended[lane] < RECORDS; i++) {
        uint8_t payload[100] = {0};
        char topic[16];
        uint64_t next = store_next(store, lane);
        memcpy(payload, &next, sizeof next);
        snprintf(topic, sizeof topic, "t/%lu", next % 8);
        enum status st =
            world_append(&s->w, lane, topic, slice_of(payload, sizeof payload), i % 3 == 0, NULL);
        if (st == ST_FULL)
            break;
        if (st != ST_OK)
            die("append");
        s->appended[lane]++;
    }
    store_flush(store, lane);
}

static void look_at_recent(unsigned lane)
{
    struct msg *msgs[16];
    uint32_t found;
    uint64_t next, end = store_next(store, lane);
    if (store_recent(store, lane, end > 20 ? end - 20 : 0, (struct slice){0}, NULL, NULL, 16, msgs, &found,
                     &next) != ST_OK)
        return;
    for (uint32_t i = 0; i < found; i++)
        msg_unref(msgs[i]);
}

static void *side_main(void *arg)
{
    struct side *s = arg;
    unsigned number = s->index;
    bool counted = false;
    loop_dispatch(s->w.loop);
    while (!atomic_load(&over)) {
        bool all = true;
        for (unsigned i = 0; i < LANES_A_LOOP; i++) {
            unsigned lane = s->index * LANES_A_LOOP + i;
            append_burst(s, lane);
            look_at_recent(lane);
            if (atomic_load(&s->reads_open) < READS_OPEN && s->appended[lane] < RECORDS)
                start_read(s, lane, number++);
            all &= s->appended[lane] == RECORDS && store_durable(store, lane) == store_next(store, lane);
        }
        if (all && !counted && atomic_load(&s->reads_open) == 0) {
            counted = true;
            if (atomic_fetch_add(&finished, 1) + 1 == LOOPS)
                atomic_store(&over, true);
        }
        world_turn(&s->w);
    }
    pool_drain();
    return NULL;
}

int main(void)
{
    struct world *w = &sides[0].w;
    for (unsigned i = 0; i < LOOPS; i++) {
        world_init(&sides[i].w, LANES);
        sides[i].index = i;
    }
    w->options.segment_bytes = 64 << 10;
    w->options.recent_bytes = 32 << 10;
    w->options.unsynced_bytes_max = 256 << 10;
    if (store_open(&w->options, &store, &w->error) != ST_OK)
        die("open");
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct side *s = &sides[lane / LANES_A_LOOP];
        s->w.store = store;
        store_bind(store, lane, s->w.loop, &world_events, &s->w, s->w.metrics);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        pthread_create(&sides[i].thread, NULL, side_main, &sides[i]);
    uint64_t deadline = world_now_ms() + 60000, sum = 0;
    while (!atomic_load(&over)) {
        for (unsigned lane = 0; lane < LANES; lane++)
            sum += store_first(store, lane) + store_epoch(store) + store_incarnation(store);
        usleep(1000); /* a third thread that asks now and then */
        if (world_now_ms() > deadline)
            die("not done in time");
    }
    for (unsigned i = 0; i < LOOPS; i++)
        pthread_join(sides[i].thread, NULL);
    store_close(store);
    /* Once more from the files. */
    if (store_open(&w->options, &w->store, &w->error) != ST_OK)
        die("reopen");
    for (unsigned lane = 0; lane < LANES; lane++)
        store_bind(w->store, lane, w->loop, &world_events, w, w->metrics);
    loop_dispatch(w->loop); /* this thread runs it now */
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (world_count(w, lane, NULL) != RECORDS)
            die("records are missing");
    }
    printf("reads %u %u, asked %lu\n", sides[0].reads_done, sides[1].reads_done, sum % 10);
    loop_destroy(sides[1].w.loop);
    buf_deinit(&sides[1].w.error);
    world_remove(sides[1].w.dir);
    world_deinit(w);
    return 0;
}
