/* The embedded segment store behind the topic log port: the same calls, one to one. */
#include "routing/topic_log.h"

static uint32_t local_epoch(void *ctx)
{
    return store_epoch(ctx);
}

static unsigned local_lane_count(void *ctx)
{
    return store_lane_count(ctx);
}

static uint64_t local_incarnation(void *ctx)
{
    return store_incarnation(ctx);
}

static void local_bind(void *ctx, unsigned lane, struct loop *loop, const struct store_events *events,
                       void *events_ctx, struct metrics *metrics)
{
    store_bind(ctx, lane, loop, events, events_ctx, metrics);
}

static enum status local_append(void *ctx, unsigned lane, struct msg *m, bool wait)
{
    return store_append(ctx, lane, m, wait);
}

static void local_flush(void *ctx, unsigned lane)
{
    store_flush(ctx, lane);
}

static uint64_t local_first(void *ctx, unsigned lane)
{
    return store_first(ctx, lane);
}

static uint64_t local_next(void *ctx, unsigned lane)
{
    return store_next(ctx, lane);
}

static enum status local_carry(void *ctx, unsigned lane, struct msg *m)
{
    return store_carry(ctx, lane, m);
}

static enum status local_note(void *ctx, unsigned lane, struct slice note, uint64_t *offset)
{
    return store_note(ctx, lane, note, offset);
}

static void local_trim(void *ctx, unsigned lane, uint64_t upto)
{
    store_trim(ctx, lane, upto);
}

static void local_set_live_bytes(void *ctx, unsigned lane, uint64_t bytes)
{
    store_set_live_bytes(ctx, lane, bytes);
}

static void local_read_start(void *ctx, struct store_read *r)
{
    store_read_start(ctx, r);
}

static enum status local_recent(void *ctx, unsigned lane, uint64_t from, struct slice topic,
                                bool (*wants)(void *ctx, struct slice topic), void *wants_ctx,
                                uint32_t count_max, struct msg **msgs, uint32_t *found, uint64_t *next)
{
    return store_recent(ctx, lane, from, topic, wants, wants_ctx, count_max, msgs, found, next);
}

struct topic_log topic_log_local(struct store *s)
{
    static const struct topic_log_ops ops = {
        .incarnation = local_incarnation,
        .epoch = local_epoch,
        .lane_count = local_lane_count,
        .bind = local_bind,
        .append = local_append,
        .carry = local_carry,
        .note = local_note,
        .trim = local_trim,
        .set_live_bytes = local_set_live_bytes,
        .flush = local_flush,
        .first = local_first,
        .next = local_next,
        .read_start = local_read_start,
        .recent = local_recent,
    };
    return (struct topic_log){&ops, s};
}
