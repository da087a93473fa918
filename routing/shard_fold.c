/* What a shard knows is a fold over its records: at start over those the log holds, later over each that is
 * appended. Today that is the retained messages. */
#include "routing/shard_private.h"

#include "core/logging.h"

#include <poll.h>
#include <stdlib.h>

/* 488 steps go round a million messages: what has expired counts for 11 s at most, and a step is short. */
enum { SWEEP_STEP_MS = 20, SWEEP_REST_MS = 1000 };

void shard_retained_changed(struct shard *s, uint64_t count, uint64_t bytes)
{
    metric_add(s->group->metrics, M_RETAINED, retained_count(s->retained) - count);
    metric_add(s->group->metrics, M_RETAINED_BYTES, retained_bytes(s->retained) - bytes);
    s->group->log.ops->set_live_bytes(s->group->log.ctx, s->lane, retained_bytes(s->retained));
}

static void shard_sweep_later(struct shard *s, uint64_t ms)
{
    struct loop *loop = courier_loop(s->group->courier);
    timer_arm(loop_timers(loop), &s->sweep, loop_now_ms(loop) + ms);
}

static bool shard_sweep(struct shard *s)
{
    uint64_t count = retained_count(s->retained), bytes = retained_bytes(s->retained);
    bool end = retained_expire(s->retained, shard_wall_ms(s));
    shard_retained_changed(s, count, bytes);
    return end;
}

void shard_on_sweep(struct timer *t)
{
    struct shard *s = LIST_OF(t, struct shard, sweep);
    bool end = shard_sweep(s);
    if (retained_expiring(s->retained) > 0)
        shard_sweep_later(s, end ? SWEEP_REST_MS : SWEEP_STEP_MS);
}

void shard_fold_retained(struct shard *s, struct msg *m)
{
    uint64_t count = retained_count(s->retained), bytes = retained_bytes(s->retained);
    if (retained_fold(s->retained, m) != ST_OK)
        abort(); /* it is in the log: a shard that does not know it would tell subscribers wrongly */
    shard_retained_changed(s, count, bytes);
    if (m->expires_ms && !timer_armed(&s->sweep))
        shard_sweep_later(s, SWEEP_REST_MS);
}

bool shard_has_room_to_retain(struct shard *s, const struct msg *m)
{
    if (retained_has_room(s->retained, m))
        return true;
    (void)shard_sweep(s); /* perhaps it is full of what has expired */
    return retained_has_room(s->retained, m);
}

/* --- the fold at start -------------------------------------------------------------------------------- */

enum { FOLD_COUNT = 1024, FOLD_BYTES = 4 << 20 };

struct fold {
    struct store_read read;
    bool done;
};

static void fold_read_done(struct store_read *r)
{
    struct fold *f = LIST_OF(r, struct fold, read);
    f->done = true;
}

/* One page, waiting for it. The loop does not run yet, so this thread turns it. */
static void fold_page(struct shard *s, struct fold *f)
{
    struct loop *loop = courier_loop(s->group->courier);
    f->done = false;
    s->group->log.ops->read_start(s->group->log.ctx, &f->read);
    while (!f->done) {
        struct pollfd p = {.fd = loop_poll_fd(loop), .events = POLLIN};
        if (loop_prepare(loop) > 0)
            (void)poll(&p, 1, 100);
        loop_dispatch(loop);
    }
}

enum status shard_fold(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    struct fold f = {.read = {.lane = s->lane,
                              .to = UINT64_MAX,
                              .retained_only = true,
                              .count_max = FOLD_COUNT,
                              .bytes_max = FOLD_BYTES,
                              .home = courier_loop(s->group->courier),
                              .on_done = fold_read_done}};
    uint64_t from = log->ops->first(log->ctx, s->lane), end = log->ops->next(log->ctx, s->lane);
    retained_load(s->retained);
    while (from < end) {
        f.read.from = from;
        fold_page(s, &f);
        if (f.read.status == ST_NO_MEMORY)
            return ST_NO_MEMORY;
        if (f.read.status == ST_CORRUPT)
            log_error("records cannot be read: what they retained is not known lane=%u from=%lu to=%lu",
                      s->lane, (unsigned long)from, (unsigned long)f.read.next);
        for (uint64_t i = 0; i < f.read.found; i++) {
            shard_fold_retained(s, f.read.msgs[i]);
            msg_unref(f.read.msgs[i]);
        }
        free(f.read.msgs);
        f.read.msgs = NULL;
        from = f.read.next;
    }
    enum status st = retained_loaded(s->retained);
    if (st == ST_OK)
        log->ops->trim(log->ctx, s->lane, 0); /* retention may begin to ask */
    return st;
}
