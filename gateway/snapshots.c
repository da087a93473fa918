/*   home: start --letter--> every loop: store_roll of its lanes --the last one's letter--> home: gathered
 *         done  <--letter--  the thread: store_snapshot                                 <--   (starts it)
 */
#include "gateway/snapshots.h"

#include "core/list.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

enum { LOOPS = 64, ERROR_BYTES_MAX = 8192 };

struct rolling {
    struct mail mail;
    struct snapshots *snapshots;
    unsigned index;
    enum status status;
};

struct snapshots {
    struct store *store;
    uint64_t snapshots_max;
    struct loop *loops[LOOPS];
    unsigned loop_count;
    struct rolling rollings[LOOPS];
    atomic_uint left; /* loops that have not rolled yet */
    struct mail gathered, done;
    pthread_t thread;
    bool busy, running; /* running: the thread is to be joined */
    char name[SNAPSHOT_NAME_BYTES_MAX + 1];
    uint64_t upto[STORE_LANES_MAX];
    struct snapshot_report report;
    enum status status;
    struct buf error;
    void (*on_done)(void *ctx, const struct snapshots_result *result);
    void *ctx;
};

static void finish(struct snapshots *s)
{
    struct snapshots_result result = {s->status, &s->report, buf_slice(&s->error)};
    s->busy = false;
    if (s->on_done)
        s->on_done(s->ctx, &result);
    s->on_done = NULL;
}

static void on_done_arrival(struct mail *mail)
{
    struct snapshots *s = LIST_OF(mail, struct snapshots, done);
    if (!s->running)
        return; /* snapshots_stop was before it */
    pthread_join(s->thread, NULL);
    s->running = false;
    finish(s);
}

static void *thread_main(void *ctx)
{
    struct snapshots *s = ctx;
    s->status = store_snapshot(s->store, s->upto, s->name, s->snapshots_max, &s->report, &s->error);
    s->done.on_arrival = on_done_arrival;
    loop_post(s->loops[0], &s->done);
    return NULL;
}

static void on_gathered(struct mail *mail)
{
    struct snapshots *s = LIST_OF(mail, struct snapshots, gathered);
    s->status = ST_OK;
    for (unsigned i = 0; i < s->loop_count; i++)
        if (s->rollings[i].status != ST_OK)
            s->status = s->rollings[i].status;
    s->running = s->status == ST_OK;
    if (s->running && pthread_create(&s->thread, NULL, thread_main, s) == 0)
        return; /* the status is the thread's now, until it is joined */
    if (s->running)
        s->status = ST_NO_MEMORY;
    s->running = false;
    finish(s);
}

static void on_roll(struct mail *mail)
{
    struct rolling *r = LIST_OF(mail, struct rolling, mail);
    struct snapshots *s = r->snapshots;
    r->status = ST_OK;
    for (unsigned lane = r->index; lane < store_lane_count(s->store) && r->status == ST_OK;
         lane += s->loop_count)
        r->status = store_roll(s->store, lane, &s->upto[lane]);
    /* acq_rel: the last one sees what all have written. */
    if (atomic_fetch_sub_explicit(&s->left, 1, memory_order_acq_rel) != 1)
        return;
    s->gathered.on_arrival = on_gathered;
    loop_post(s->loops[0], &s->gathered);
}

enum status snapshots_start(struct snapshots *s, const char *name,
                            void (*on_done)(void *ctx, const struct snapshots_result *result), void *ctx)
{
    if (s->busy)
        return ST_AGAIN;
    if (!snapshot_name_valid(name))
        return ST_INVALID;
    memcpy(s->name, name, strlen(name) + 1);
    s->busy = true;
    s->on_done = on_done;
    s->ctx = ctx;
    buf_clear(&s->error);
    atomic_store(&s->left, s->loop_count);
    for (unsigned i = 0; i < s->loop_count; i++) {
        s->rollings[i] = (struct rolling){.mail = {.on_arrival = on_roll}, .snapshots = s, .index = i};
        loop_post(s->loops[i], &s->rollings[i].mail);
    }
    return ST_OK;
}

void snapshots_forget(struct snapshots *s)
{
    s->on_done = NULL;
}

enum status snapshots_create(struct store *store, uint64_t snapshots_max, struct loop *const *loops,
                             unsigned loop_count, struct snapshots **out)
{
    struct snapshots *s = calloc(1, sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    assert(loop_count >= 1 && loop_count <= LOOPS);
    s->store = store;
    s->snapshots_max = snapshots_max;
    s->loop_count = loop_count;
    for (unsigned i = 0; i < loop_count; i++)
        s->loops[i] = loops[i];
    buf_init(&s->error, ERROR_BYTES_MAX);
    *out = s;
    return ST_OK;
}

void snapshots_stop(struct snapshots *s)
{
    if (!s || !s->running)
        return;
    pthread_join(s->thread, NULL);
    s->running = false;
}

void snapshots_destroy(struct snapshots *s)
{
    if (!s)
        return;
    buf_deinit(&s->error);
    free(s);
}
