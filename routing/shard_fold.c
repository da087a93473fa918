/* What a shard knows is a fold over its records: at start over those the log holds, later over each that is
 * appended: the retained messages, in tables of their own the records of sessions and inboxes, and which
 * publishes with an identity are stored. */
#include "routing/shard_private.h"

#include "core/logging.h"
#include "routing/attachment.h"
#include "routing/share_record.h"
#include "routing/topic.h"

#include <poll.h>
#include <stdlib.h>

/* 488 steps go round a million messages: what has expired counts for 11 s at most, and a step is short. */
enum { SWEEP_STEP_MS = 20, SWEEP_REST_MS = 1000 };

/* What would be carried. */
static void shard_tell_live_bytes(struct shard *s)
{
    uint64_t bytes = once_counts(s->once)->log_bytes;
    for (unsigned i = 0; i < TABLES; i++)
        bytes += retained_bytes(shard_table(s, i));
    s->group->log.ops->set_live_bytes(s->group->log.ctx, s->lane, bytes);
}

void shard_once_changed(struct shard *s, const struct once_counts *before)
{
    const struct once_counts *now = once_counts(s->once);
    struct metrics *m = s->group->metrics;
    metric_add(m, M_ONCE_PRODUCERS, now->producers - before->producers);
    metric_add(m, M_ONCE_KEYS, now->keys - before->keys);
    metric_add(m, M_ONCE_BYTES, now->bytes - before->bytes);
    metric_add(m, M_ONCE_FORGOTTEN, now->forgotten - before->forgotten);
    shard_tell_live_bytes(s);
}

void shard_retained_changed(struct shard *s)
{
    static const enum metric gauges[TABLES][2] = {{M_RETAINED, M_RETAINED_BYTES},
                                                  {M_SESSIONS, M_SESSION_BYTES},
                                                  {M_INBOXES, M_INBOX_BYTES},
                                                  {M_SHARE_RECORDS, M_SHARE_RECORD_BYTES}};
    for (unsigned i = 0; i < TABLES; i++) {
        const struct retained *table = shard_table(s, i);
        uint64_t count = retained_count(table), bytes = retained_bytes(table);
        metric_add(s->group->metrics, gauges[i][0], count - s->told[i].count);
        metric_add(s->group->metrics, gauges[i][1], bytes - s->told[i].bytes);
        s->told[i].count = count;
        s->told[i].bytes = bytes;
    }
    shard_tell_live_bytes(s);
}

static void shard_sweep_later(struct shard *s, uint64_t ms)
{
    struct loop *loop = courier_loop(s->group->courier);
    timer_arm(loop_timers(loop), &s->sweep, loop_now_ms(loop) + ms);
}

static bool shard_sweep(struct shard *s)
{
    bool end = true;
    for (unsigned i = 0; i < TABLES; i++)
        end = retained_expire(shard_table(s, i), shard_time_ms(s)) && end;
    shard_retained_changed(s);
    return end;
}

void shard_on_sweep(struct timer *t)
{
    struct shard *s = LIST_OF(t, struct shard, sweep);
    bool end = shard_sweep(s);
    uint64_t expiring = 0;
    for (unsigned i = 0; i < TABLES; i++)
        expiring += retained_expiring(shard_table(s, i));
    if (expiring > 0)
        shard_sweep_later(s, end ? SWEEP_REST_MS : SWEEP_STEP_MS);
}

unsigned shard_fold_retained(struct shard *s, struct msg *m)
{
    struct slice topic = msg_topic(m);
    unsigned table = topic_session(topic)        ? TABLE_SESSIONS
                     : topic_inbox_record(topic) ? TABLE_INBOXES
                     : topic_group_record(topic) ? TABLE_GROUPS
                                                 : TABLE_RETAINED;
    if (retained_fold(shard_table(s, table), m) != ST_OK)
        abort(); /* it is in the log: a shard that does not know it would tell subscribers wrongly */
    shard_retained_changed(s);
    if (m->expires_ms && !timer_armed(&s->sweep))
        shard_sweep_later(s, SWEEP_REST_MS);
    return table;
}

void shard_fold_once(struct shard *s, struct msg *m)
{
    struct once_counts before = *once_counts(s->once);
    if (once_fold(s->once, m, shard_time_ms(s)) != ST_OK)
        abort(); /* it is in the log: a shard that does not know it would store it twice */
    shard_once_changed(s, &before);
}

bool shard_has_room_to_keep(struct shard *s, struct retained *table, const struct msg *m)
{
    if (retained_has_room(table, m))
        return true;
    (void)shard_sweep(s); /* perhaps it is full of what has expired */
    return retained_has_room(table, m);
}

/* --- the fold at start -------------------------------------------------------------------------------- */

enum { FOLD_COUNT = 1024, FOLD_BYTES = 4 << 20 };

static enum status shard_fold_note(struct shard *s, const struct msg *m)
{
    struct once_counts before = *once_counts(s->once);
    enum status st = once_fold_note(s->once, msg_payload(m), m->stored, shard_wall_ms(s));
    shard_once_changed(s, &before);
    if (st != ST_OK && st != ST_NO_MEMORY)
        log_error("a note of the log is not understood, written by a later version? lane=%u offset=%lu",
                  s->lane, (unsigned long)m->stored);
    return st == ST_NO_MEMORY ? st : ST_OK;
}

static enum status shard_fold_one(struct shard *s, struct msg *m)
{
    if (m->flags & MSG_NOTE) /* a log whose order is given elsewhere has none of a shard's */
        return shard_deferred(s) ? ST_OK : shard_fold_note(s, m);
    struct proposal p;
    struct outcome out;
    if (shard_deferred(s) && !shard_counts(s, m, &p, &out))
        return ST_OK;
    if (shard_deferred(s) && proposal_of_node(&p)) {
        (void)shard_node_fold(s, m, &p, false);
        return ST_OK;
    }
    if (m->flags & MSG_RETAIN)
        (void)shard_fold_retained(s, m);
    shard_fold_once(s, m);
    return ST_OK;
}

static enum status shard_fold_all(struct shard *s, struct store_read *r)
{
    enum status st = ST_OK;
    for (uint64_t i = 0; i < r->found; i++) {
        if (st == ST_OK)
            st = shard_fold_one(s, r->msgs[i]);
        msg_unref(r->msgs[i]);
    }
    free(r->msgs);
    r->msgs = NULL;
    return st;
}

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

/* A log of this node alone has carried records and notes, which stand behind what is younger. One whose order
 * is given elsewhere has neither, and what a replica has folded there while it ran it folds again, step by
 * step. */
static void fold_begin(struct shard *s)
{
    if (shard_deferred(s))
        return;
    for (unsigned i = 0; i < TABLES; i++)
        retained_load(shard_table(s, i));
    once_load(s->once);
}

static enum status fold_end(struct shard *s)
{
    enum status st = ST_OK;
    if (shard_deferred(s))
        return ST_OK;
    struct once_counts before = *once_counts(s->once);
    once_loaded(s->once, shard_wall_ms(s));
    shard_once_changed(s, &before);
    for (unsigned i = 0; i < TABLES && st == ST_OK; i++)
        st = retained_loaded(shard_table(s, i));
    if (st == ST_OK)
        st = shard_shares_load(s);
    if (st == ST_OK)
        s->group->log.ops->trim(s->group->log.ctx, s->lane, 0); /* retention may begin to ask */
    return st;
}

enum status shard_fold(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    struct fold f = {.read = {.lane = s->lane,
                              .to = UINT64_MAX,
                              .state_only = true,
                              .count_max = FOLD_COUNT,
                              .bytes_max = FOLD_BYTES,
                              .home = courier_loop(s->group->courier),
                              .on_done = fold_read_done}};
    uint64_t from = log->ops->first(log->ctx, s->lane), end = log->ops->next(log->ctx, s->lane);
    fold_begin(s);
    enum status st = ST_OK;
    while (from < end && st == ST_OK) {
        f.read.from = from;
        fold_page(s, &f);
        if (f.read.status == ST_NO_MEMORY)
            return ST_NO_MEMORY;
        if (f.read.status == ST_CORRUPT)
            log_error(
                "records cannot be read: what they retained, and which publishes they were, is not known "
                "lane=%u from=%lu to=%lu",
                s->lane, (unsigned long)from, (unsigned long)f.read.next);
        st = shard_fold_all(s, &f.read);
        from = f.read.next;
    }
    s->durable = end; /* recovery has synced what it read */
    return st == ST_OK ? fold_end(s) : st;
}

void shard_each_retained(struct shard *s, bool (*wants)(void *ctx, struct slice topic),
                         void (*on_message)(void *ctx, const struct msg *m), void *ctx)
{
    struct msg *msgs[64];
    const uint32_t most = sizeof msgs / sizeof msgs[0];
    for (uint64_t next = 0; next < UINT64_MAX;) {
        uint32_t n =
            retained_walk(s->retained, next, UINT64_MAX, wants, ctx, shard_time_ms(s), msgs, most, &next);
        for (uint32_t i = 0; i < n; i++) {
            on_message(ctx, msgs[i]);
            msg_unref(msgs[i]);
        }
    }
}

void shard_each_session(struct shard *s, void (*on_record)(void *ctx, const struct msg *m), void *ctx)
{
    retained_each(s->sessions, on_record, ctx);
}
