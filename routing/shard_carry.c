/* Carrying.
 *
 * The log's retention asks before it removes records: retained messages and the records of sessions and
 * inboxes are carried first, that is appended once more, and what is remembered of producers and keys is
 * noted, a step at a time. The next step waits until the one before is durable, so that carrying however many
 * never takes more of the log's window than a step, and never more of a turn. What need not be carried
 * because it has been replaced or cleared goes only when that is durable too: else a power cut could take
 * both. */
#include "routing/shard_private.h"

#include <assert.h>

enum { CARRY_COUNT = 1024, CARRY_BYTES = 512 << 10, CARRY_STEP_MS = 1, CARRY_RETRY_MS = 50 };

static void shard_carry_later(struct shard *s, uint64_t ms)
{
    struct loop *loop = courier_loop(s->group->courier);
    timer_arm(loop_timers(loop), &s->carry.timer, loop_now_ms(loop) + ms);
}

/* Appends them; what the log refuses is tried again later. False: it has refused one. */
static bool shard_carry(struct shard *s, struct msg **msgs, uint32_t count)
{
    const struct topic_log *log = &s->group->log;
    uint32_t i = 0;
    while (i < count && log->ops->carry(log->ctx, s->lane, msgs[i]) == ST_OK)
        s->carry.end = msgs[i++]->stored + 1;
    metric_add(s->group->metrics, M_LOG_CARRIED, i);
    s->dirty |= i > 0;
    if (i < count)
        s->carry.next = msgs[i]->offset;
    return i == count;
}

/* A step of the retained messages. False: the log has refused one. */
static bool shard_carry_retained(struct shard *s)
{
    struct msg *msgs[CARRY_COUNT];
    uint32_t found = retained_stored_below(shard_table(s, s->carry.table), s->carry.next, s->carry.upto,
                                           shard_wall_ms(s), msgs, CARRY_COUNT, CARRY_BYTES, &s->carry.next);
    bool all = shard_carry(s, msgs, found);
    for (uint32_t i = 0; i < found; i++)
        msg_unref(msgs[i]);
    while (all && s->carry.next >= s->carry.upto && s->carry.table + 1 < TABLES)
        if (retained_count(shard_table(s, ++s->carry.table)) > 0)
            s->carry.next = 0;
    return all;
}

/* A step of what is remembered of producers and keys. False: the log has refused a note. */
static bool shard_carry_notes(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    uint64_t bytes = 0, offset;
    enum status st = ST_OK;
    for (unsigned i = 0; i < CARRY_COUNT && bytes < CARRY_BYTES; i++) {
        if ((st = once_carry_next(s->once, shard_wall_ms(s), &s->carry.note)) != ST_OK)
            break;
        if ((st = log->ops->note(log->ctx, s->lane, buf_slice(&s->carry.note), &offset)) != ST_OK)
            return false;
        once_carried(s->once, offset);
        s->carry.end = offset + 1;
        s->dirty = true;
        bytes += s->carry.note.len;
        metric_add(s->group->metrics, M_LOG_NOTES, 1);
    }
    s->carry.noted = st == ST_NOT_FOUND;
    return st != ST_NO_MEMORY;
}

/* What is not carried was replaced by then, at the latest by the newest record of the state. */
static void shard_carry_rely(struct shard *s)
{
    if (s->state_end > s->carry.end)
        s->carry.end = s->state_end;
}

/* The end is settled when all has been looked at: what is published later makes nothing needless that has not
 * been carried, and a busy lane would never be done. */
static void shard_carry_step(struct shard *s)
{
    bool whole = s->carry.next >= s->carry.upto && s->carry.noted, all = true;
    if (!whole) {
        all = s->carry.next < s->carry.upto ? shard_carry_retained(s) : shard_carry_notes(s);
        shard_carry_rely(s);
        whole = s->carry.next >= s->carry.upto && s->carry.noted;
    }
    if (!all) {
        shard_carry_later(s, CARRY_RETRY_MS);
    } else if (s->carry.end <= s->durable && !whole) {
        shard_carry_later(s, CARRY_STEP_MS); /* a look at 2,048 of a million is a turn's work too */
    } else if (s->carry.end <= s->durable) {
        uint64_t upto = s->carry.upto;
        s->carry.upto = 0;
        s->group->log.ops->trim(s->group->log.ctx, s->lane, upto);
    }
}

void shard_on_carry_timer(struct timer *t)
{
    shard_carry_step(LIST_OF(t, struct shard, carry.timer));
}

void shard_on_trim_wanted(void *ctx, unsigned lane, uint64_t upto)
{
    struct shard *s = shard_of_lane(ctx, lane);
    assert(s->carry.upto == 0);
    s->carry.upto = upto;
    s->carry.next = s->carry.end = 0;
    s->carry.noted = false;
    once_carry_begin(s->once, upto);
    s->carry.table = 0;
    shard_shares_refresh(s, upto);
    shard_carry_step(s);
}

void shard_carry_durable(struct shard *s)
{
    if (s->carry.upto > 0 && !timer_armed(&s->carry.timer) && s->durable >= s->carry.end)
        shard_carry_step(s);
}
