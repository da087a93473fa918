/* A power cut at every call of a scripted run that changes the disk, and then one at every such call of the
 * recovery from it (tests/fakes/disk_model.h says what a cut may leave). After both the log opens; every
 * record that was acknowledged, or that the first recovery has served, is there, whole and in order; nothing
 * is answered as damaged; the next offset lies above all that was ever given.
 *
 * The run has two lanes, ends and begins segments all the time, and reuses those that retention lets go; it
 * goes on after the recovery for some records more, so that the START, the MANIFEST and the first appends of
 * the second life are cut as well.
 *
 *     crash.twice            a sample, another one each time
 *     crash.twice all        every call of the run, and every call of what follows each; the disk's moods by
 * chance */
#include "core/logging.h"
#include "fakes/disk_model.h"
#include "fakes/seed.h"
#include "fakes/store_world.h"

enum { LANES = 2, TURNS = 60, KNOWN_MAX = 2000, FIRST_SAMPLES = 25, SECOND_SAMPLES = 12, PAYLOAD_MAX = 9000 };

struct known {
    unsigned lane;
    uint64_t offset;
    uint32_t content;
    unsigned given_at; /* calls of the run until then */
    unsigned acked_at; /* UINT_MAX: never */
};

/* One life of the log: the disk it began with, what it did, what it promised. */
struct life {
    struct disk disk;
    struct disk_trace trace;
    struct known known[KNOWN_MAX];
    unsigned known_count;
    uint64_t first[LANES]; /* below it may have trimmed */
};

static uint32_t content_next;
static unsigned long opened;
static const char *what_now = "";

static void die(const char *what, const struct known *k)
{
    fprintf(stderr, "crash_twice: %s: %s", what_now, what);
    if (k)
        fprintf(stderr, " lane=%u offset=%llu content=%u", k->lane, (unsigned long long)k->offset,
                k->content);
    fprintf(stderr, "\n");
    abort();
}

static struct slice text_of(uint32_t content, char out[PAYLOAD_MAX])
{
    int len = snprintf(out, PAYLOAD_MAX, "content %u ", content);
    size_t more = content * 2654435761u % (PAYLOAD_MAX - 100u);
    memset(out + len, 'a' + (int)(content % 26), more);
    return slice_of(out, (size_t)len + more);
}

/* --- a life --- */

static void world_at(struct world *w, const struct disk *d)
{
    world_init(w, LANES);
    disk_write(d, w->dir, LANES);
    w->options.segment_bytes = 64 << 10;
    w->options.retention_bytes = 128 << 10;
    w->options.lazy_ms = 1;
    w->options.recovery_threads = 2;
    w->options.files = disk_port();
    opened++;
}

static void note_acks(struct world *w, unsigned lane, uint64_t next)
{
    struct life *l = w->owner;
    unsigned now = disk_trace_count();
    for (unsigned i = 0; i < l->known_count; i++) {
        struct known *k = &l->known[i];
        if (k->lane == lane && k->offset < next && k->acked_at == UINT32_MAX)
            k->acked_at = now;
    }
}

static void let_go(struct world *w, unsigned lane, uint64_t upto)
{
    struct life *l = w->owner;
    l->first[lane] = upto;
    store_trim(w->store, lane, upto);
}

static void remember(struct life *l, struct known k)
{
    if (l->known_count == KNOWN_MAX)
        die("too much", NULL);
    l->known[l->known_count++] = k;
}

static void append(struct life *l, struct world *w, unsigned lane)
{
    char text[PAYLOAD_MAX], topic[16];
    struct known k = {.lane = lane, .content = content_next++, .acked_at = UINT32_MAX};
    snprintf(topic, sizeof topic, "t/%u", k.content % 5);
    if (world_append(w, lane, topic, text_of(k.content, text), rand() % 4 != 0, &k.offset) != ST_OK)
        die("an append is refused", &k);
    k.given_at = disk_trace_count();
    remember(l, k);
}

static void run(struct life *l, struct world *w, unsigned turns)
{
    for (unsigned turn = 0; turn < turns; turn++) {
        unsigned lane = turn % LANES;
        for (int count = rand() % 4; count >= 0; count--)
            append(l, w, lane);
        store_flush(w->store, lane);
        if (rand() % 3)
            world_wait_durable(w, lane, store_next(w->store, lane));
        else
            world_turn(w);
    }
    for (unsigned lane = 0; lane < LANES; lane++) {
        world_put(w, lane, "t/last", "last");
        store_flush(w->store, lane);
        world_wait_durable(w, lane, store_next(w->store, lane));
    }
}

/* --- reading --- */

/* All of a lane into `found`, as if each had been acknowledged at `now`. */
static void read_lane(struct life *found, struct world *w, unsigned lane, unsigned now)
{
    for (uint64_t from = store_first(w->store, lane);;) {
        struct world_read r;
        world_read_init(&r, lane, from);
        world_read_run(w, &r);
        if (r.read.status != ST_OK && r.read.status != ST_GONE)
            die("answered as damaged", NULL);
        for (uint64_t i = 0; i < r.read.found; i++) {
            char text[PAYLOAD_MAX];
            const struct msg *m = r.read.msgs[i];
            struct known k = {lane, m->offset, 0, now, now};
            struct slice payload = msg_payload(m);
            if (slice_equal_cstr(payload, "last"))
                continue;
            snprintf(text, sizeof text, "%.*s", payload.len < 30 ? (int)payload.len : 30,
                     (const char *)payload.data);
            if (sscanf(text, "content %u ", &k.content) != 1 ||
                !slice_equal(payload, text_of(k.content, text)))
                die("wrong content", &k);
            remember(found, k);
        }
        from = r.read.next;
        bool all = r.read.status == ST_OK && from >= r.read.end;
        world_read_free(&r);
        if (all)
            return;
    }
}

static const struct known *find(const struct life *l, unsigned lane, uint64_t offset)
{
    for (unsigned i = 0; i < l->known_count; i++)
        if (l->known[i].lane == lane && l->known[i].offset == offset)
            return &l->known[i];
    return NULL;
}

/* What `l` had promised before its call `at`, against what is `found`. */
static void check(const struct life *l, unsigned at, const struct life *found, struct world *w)
{
    for (unsigned i = 0; i < l->known_count; i++) {
        const struct known *k = &l->known[i], *now = find(found, k->lane, k->offset);
        if (k->given_at > at)
            continue;
        if (k->offset >= store_next(w->store, k->lane))
            die("its offset could be given twice", k);
        if (now && now->content != k->content)
            die("its offset means another one", k);
        if (!now && k->acked_at <= at && k->offset >= store_first(w->store, k->lane))
            die("an acknowledged one is lost", k);
    }
}

static void check_firsts(const struct life *l, const struct world *w)
{
    for (unsigned lane = 0; lane < LANES; lane++)
        if (store_first(w->store, lane) > l->first[lane])
            die("more was trimmed than anybody wanted", NULL);
}

/* --- cuts --- */

static void second_cut(const struct life *one, unsigned at, const struct life *two, unsigned then,
                       unsigned mood)
{
    static struct life found;
    struct world w;
    found.known_count = 0;
    disk_cut(&two->disk, &two->trace, then, mood, &found.disk);
    world_at(&w, &found.disk);
    world_open(&w);
    for (unsigned lane = 0; lane < LANES; lane++)
        read_lane(&found, &w, lane, 0);
    check(one, at, &found, &w);
    check(two, then, &found, &w);
    check_firsts(two, &w);
    world_deinit(&w);
    disk_free(&found.disk);
}

/* The life after a cut of `one`: it recovers, serves, and goes on a little. */
static void live_on(const struct life *one, unsigned at, struct life *two)
{
    struct world w;
    two->known_count = 0;
    world_at(&w, &two->disk);
    w.owner = two;
    w.on_durable = note_acks;
    w.on_trim_wanted = let_go;
    disk_trace_start(&two->trace, &two->disk, w.dir);
    world_open(&w);
    unsigned open_calls = disk_trace_count();
    for (unsigned lane = 0; lane < LANES; lane++)
        read_lane(two, &w, lane, open_calls);
    memcpy(two->first, one->first, sizeof two->first);
    check(one, at, two, &w);
    check_firsts(one, &w);
    for (unsigned lane = 0; lane < LANES; lane++)
        store_trim(w.store, lane, 0);
    run(two, &w, 3);
    disk_trace_stop();
    world_deinit(&w);
}

static void first_cut(const struct life *one, unsigned at, unsigned mood, bool all)
{
    static struct life two;
    static char text[100];
    disk_cut(&one->disk, &one->trace, at, mood, &two.disk);
    snprintf(text, sizeof text, "call %u mood %u", at, mood);
    what_now = text;
    live_on(one, at, &two);
    unsigned calls = two.trace.count + 1, count = all ? calls : SECOND_SAMPLES;
    for (unsigned i = 0; i < count; i++) {
        unsigned then = all ? i : (unsigned)rand() % calls, second = (unsigned)rand() % DISK_MOODS;
        snprintf(text, sizeof text, "call %u mood %u, then call %u mood %u", at, mood, then, second);
        second_cut(one, at, &two, then, second);
    }
    disk_trace_free(&two.trace);
    disk_free(&two.disk);
}

/* The script, from a log that was once started and stopped. */
static void live(struct life *l)
{
    struct world w;
    world_at(&w, &l->disk);
    world_open(&w);
    world_close(&w);
    loop_dispatch(w.loop);
    disk_read(&l->disk, w.dir);
    w.owner = l;
    w.on_durable = note_acks;
    w.on_trim_wanted = let_go;
    disk_trace_start(&l->trace, &l->disk, w.dir);
    world_open(&w);
    for (unsigned lane = 0; lane < LANES; lane++)
        store_trim(w.store, lane, 0);
    run(l, &w, TURNS);
    disk_trace_stop();
    world_deinit(&w);
}

int main(int argc, char **argv)
{
    static struct life one;
    bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    srand(test_seed());
    log_setup((enum log_level)(LOG_ERROR + 1), LOG_FORM_TEXT);
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    live(&one);
    unsigned calls = one.trace.count + 1, count = all ? calls : FIRST_SAMPLES;
    for (unsigned i = 0; i < count; i++)
        first_cut(&one, all ? i : (unsigned)rand() % calls, (unsigned)rand() % DISK_MOODS, all);
    printf("calls %u, records %u, first cuts %u, logs opened %lu, reused %u, trimmed to %llu\n",
           one.trace.count, one.known_count, count, opened, (unsigned)metrics_sum(M_LOG_SEGMENTS_REUSED),
           (unsigned long long)one.first[0]);
    if (one.first[0] <= 1 || one.first[1] <= 1 || metrics_sum(M_LOG_SEGMENTS_REUSED) == 0)
        die("retention had nothing to do", NULL);
    disk_trace_free(&one.trace);
    disk_free(&one.disk);
    return 0;
}
