/* A store in a folder of its own with a loop that the test's thread runs. */
#ifndef TG_TESTS_FAKES_STORE_WORLD_H
#define TG_TESTS_FAKES_STORE_WORLD_H

#include "core/store/store.h"

#include <dirent.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WORLD_DEADLINE_MS = 60000 };

struct world {
    char dir[256];
    struct store_options options;
    struct store *store;
    struct loop *loop;
    struct metrics *metrics;
    struct buf error;
    uint64_t durable[STORE_LANES_MAX]; /* as told by on_durable */
    unsigned durable_calls;
    void (*on_durable)(struct world *w, unsigned lane, uint64_t next); /* more to do; NULL: nothing */
    void (*on_trim_wanted)(struct world *w, unsigned lane, uint64_t upto); /* NULL: may go at once */
    void *owner; /* the test's */
};

static inline void world_on_durable(void *ctx, unsigned lane, uint64_t next)
{
    struct world *w = ctx;
    w->durable[lane] = next;
    w->durable_calls++;
    if (w->on_durable)
        w->on_durable(w, lane, next);
}

/* Only asked after the test has called store_trim once. */
static inline void world_on_trim_wanted(void *ctx, unsigned lane, uint64_t upto)
{
    struct world *w = ctx;
    if (w->on_trim_wanted)
        w->on_trim_wanted(w, lane, upto);
    else
        store_trim(w->store, lane, upto);
}

static const struct store_events world_events = {.on_durable = world_on_durable,
                                                 .on_trim_wanted = world_on_trim_wanted};

static inline void world_die(const char *what)
{
    fprintf(stderr, "world: %s\n", what);
    abort();
}

/* Makes the folder and the loop, opens nothing. */
static inline void world_init(struct world *w, unsigned lanes)
{
    const char *tmp = getenv("TMPDIR");
    *w = (struct world){0};
    snprintf(w->dir, sizeof w->dir, "%s/tg-store-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(w->dir))
        world_die("no folder");
    w->options = (struct store_options){.dir = w->dir,
                                        .lane_count = lanes,
                                        .segment_bytes = 1 << 20,
                                        .unsynced_bytes_max = 16 << 20,
                                        .lazy_ms = 20,
                                        .lazy_bytes = 256 << 10,
                                        .recent_bytes = 1 << 20,
                                        .sync = STORE_SYNC_ALWAYS,
                                        .recovery_threads = 1, /* the order of calls is the same each time */
                                        .clock = clock_system()};
    w->metrics = metrics_register();
    buf_init(&w->error, 4096);
    if (loop_create(clock_system(), 0, &w->loop) != ST_OK)
        world_die("no loop");
}

static inline enum status world_try_open(struct world *w)
{
    buf_clear(&w->error);
    enum status st = store_open(&w->options, &w->store, &w->error);
    if (st != ST_OK)
        return st;
    for (unsigned i = 0; i < w->options.lane_count; i++)
        store_bind(w->store, i, w->loop, &world_events, w, w->metrics);
    return ST_OK;
}

static inline void world_open(struct world *w)
{
    enum status st = world_try_open(w);
    if (st != ST_OK) {
        fprintf(stderr, "store_open: %s: %.*s\n", status_name(st), (int)w->error.len, w->error.data);
        abort();
    }
}

static inline void world_close(struct world *w)
{
    store_close(w->store);
    w->store = NULL;
}

static inline int world_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void world_remove(const char *path)
{
    nftw(path, world_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void world_deinit(struct world *w)
{
    world_close(w);
    loop_dispatch(w->loop);
    loop_destroy(w->loop);
    buf_deinit(&w->error);
    world_remove(w->dir);
}

/* What a crash leaves: the folder as it is now, in `to` (made; removed by the caller). What has not been
 * written yet is lost; what has been written and not synced survives, as after kill -9. */
static inline void world_crash_copy(const struct world *w, char to[256])
{
    char command[1200];
    const char *tmp = getenv("TMPDIR");
    snprintf(to, 256, "%s/tg-crash-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(to))
        world_die("no folder");
    /* The store goes on meanwhile. A copy that a trim ran through mixes two moments (an old MANIFEST beside
     * files that are gone), which no crash leaves behind: so it counts only if the MANIFEST stayed the same.
     */
    snprintf(
        command, sizeof command,
        "for try in $(seq 100); do rm -rf %s/* && cp %s/MANIFEST %s/before && cp -r %s/. %s/ 2>/dev/null && "
        "cmp -s %s/before %s/MANIFEST && rm %s/before && exit 0; done; exit 1",
        to, w->dir, to, w->dir, to, to, w->dir, to);
    if (system(command) != 0)
        world_die("cannot copy");
}

/* One turn of the loop; waits for something to happen, 50 ms at most. */
static inline void world_turn(struct world *w)
{
    uint64_t wait_ms = loop_prepare(w->loop);
    struct pollfd pfd = {.fd = loop_poll_fd(w->loop), .events = POLLIN};
    poll(&pfd, 1, wait_ms < 50 ? (int)wait_ms : 50);
    loop_dispatch(w->loop);
}

static inline uint64_t world_now_ms(void)
{
    return clock_mono_ms(clock_system());
}

static inline void world_wait_durable(struct world *w, unsigned lane, uint64_t next)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    while (store_durable(w->store, lane) < next) {
        if (world_now_ms() > deadline)
            world_die("not durable in time");
        world_turn(w);
    }
}

/* Appends; the message is dropped at once. */
static inline enum status world_append(struct world *w, unsigned lane, const char *topic,
                                       struct slice payload, bool wait, uint64_t *offset)
{
    struct msg *m;
    if (msg_create(slice_cstr(topic), (struct slice){0}, (struct slice){0}, payload, &m) != ST_OK)
        world_die("no memory");
    m->partition = lane;
    loop_update_time(w->loop);
    enum status st = store_append(w->store, lane, m, wait);
    if (offset)
        *offset = m->offset;
    msg_unref(m);
    return st;
}

static inline uint64_t world_put(struct world *w, unsigned lane, const char *topic, const char *text)
{
    uint64_t offset = 0;
    if (world_append(w, lane, topic, slice_cstr(text), true, &offset) != ST_OK)
        world_die("append refused");
    return offset;
}

/* --- reads --- */

struct world_read {
    struct store_read read;
    bool done;
};

static inline void world_on_read(struct store_read *r)
{
    ((struct world_read *)(void *)r)->done = true;
}

static inline void world_read_init(struct world_read *r, unsigned lane, uint64_t from)
{
    *r = (struct world_read){.read = {.lane = lane,
                                      .from = from,
                                      .to = UINT64_MAX,
                                      .count_max = STORE_READ_COUNT_MAX,
                                      .bytes_max = 64 << 20,
                                      .on_done = world_on_read}};
}

static inline void world_read_run(struct world *w, struct world_read *r)
{
    uint64_t deadline = world_now_ms() + WORLD_DEADLINE_MS;
    r->read.home = w->loop;
    r->done = false;
    loop_update_time(w->loop);
    store_read_start(w->store, &r->read);
    while (!r->done) {
        if (world_now_ms() > deadline)
            world_die("read not answered in time");
        world_turn(w);
    }
}

/* Reads on until `end`; counts; dies on damage. */
static inline uint64_t world_count(struct world *w, unsigned lane, const char *topic)
{
    uint64_t from = store_first(w->store, lane), found = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, lane, from);
        if (topic)
            r.read.topic = slice_cstr(topic);
        world_read_run(w, &r);
        if (r.read.status != ST_OK && r.read.status != ST_GONE) /* gone: trimmed meanwhile */
            world_die("damaged");
        found += r.read.found;
        from = r.read.next;
        for (uint64_t i = 0; i < r.read.found; i++)
            msg_unref(r.read.msgs[i]);
        free(r.read.msgs);
        if (from >= r.read.end)
            return found;
    }
}

static inline void world_read_free(struct world_read *r)
{
    for (uint64_t i = 0; !r->read.count_only && i < r->read.found; i++)
        msg_unref(r->read.msgs[i]);
    free(r->read.msgs);
    r->read.msgs = NULL;
    r->read.found = 0;
}

#endif
