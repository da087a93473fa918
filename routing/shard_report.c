/* Reports. What this node has proposed to a log whose order is given elsewhere has arrived; but whether that
 * is for ever whoever orders it may say later (topic_log.h, is_reported): a consumer of Kafka may see a
 * record of which there are fewer copies than its producer has asked for. An acknowledgement waits for both.
 *
 * s->durable ends at the first of these records, so what waits for it does so as with the embedded store: in
 * the order of offsets. A record whose report says that nobody knows is in the log all the same: its
 * publisher is told that the outcome is unknown, and it counts as stored. */
#include "routing/shard_private.h"

#include <stdlib.h>
#include <string.h>

static bool is_reported(const struct shard *s, uint64_t sequence)
{
    const struct topic_log *log = &s->group->log;
    return log->ops->is_reported(log->ctx, s->lane, sequence);
}

bool shard_report_waits(struct shard *s, uint64_t sequence, uint64_t offset)
{
    if (!s->group->log.ops->is_reported || sequence == 0 || is_reported(s, sequence))
        return false;
    if (s->proposed.unreported_count == s->proposed.unreported_cap) {
        uint32_t cap = s->proposed.unreported_cap ? 2 * s->proposed.unreported_cap : 64;
        struct unreported *more = realloc(s->proposed.unreported, cap * sizeof *more);
        if (!more)
            abort(); /* an acknowledgement too early is worse */
        s->proposed.unreported = more;
        s->proposed.unreported_cap = cap;
    }
    s->proposed.unreported[s->proposed.unreported_count++] =
        (struct unreported){.sequence = sequence, .offset = offset};
    return true;
}

void shard_report_hold(struct shard *s, struct publish *p)
{
    struct unreported *u = &s->proposed.unreported[s->proposed.unreported_count - 1];
    u->publish = p;
    shard_wait_until_durable(s, p, u->offset);
}

static void report_remove(struct shard *s, uint32_t at, uint32_t count)
{
    struct unreported *all = s->proposed.unreported;
    s->proposed.unreported_count -= count;
    memmove(all + at, all + at + count, (s->proposed.unreported_count - at) * sizeof *all);
}

void shard_report_moved(struct shard *s, uint64_t end)
{
    uint64_t next = s->proposed.unreported_count > 0 ? s->proposed.unreported[0].offset : end;
    if (next > s->durable)
        shard_on_durable(s->group, s->lane, next);
}

static void report_moved_to_end(struct shard *s)
{
    const struct topic_log *log = &s->group->log;
    shard_report_moved(s, log->ops->next(log->ctx, s->lane));
}

void shard_reported(struct shard *s, uint64_t sequence)
{
    const struct unreported *all = s->proposed.unreported;
    uint32_t n = 0;
    while (n < s->proposed.unreported_count &&
           (all[n].sequence <= sequence || is_reported(s, all[n].sequence)))
        n++;
    if (n == 0)
        return;
    report_remove(s, 0, n);
    report_moved_to_end(s);
    s->dirty = true; /* what was held for it leaves in this turn */
}

bool shard_report_lost(struct shard *s, uint64_t sequence)
{
    struct unreported *all = s->proposed.unreported;
    uint32_t at = 0;
    while (at < s->proposed.unreported_count && all[at].sequence < sequence)
        at++;
    if (at == s->proposed.unreported_count || all[at].sequence != sequence)
        return false;
    struct publish *p = all[at].publish;
    report_remove(s, at, 1);
    if (p) {
        shard_wait_no_more(s, p);
        if (p->session == SESSION_NONE) { /* its door counts an outcome that is unknown */
            metric_sub(s->group->metrics, M_PUBLISH_UNKNOWN, 1);
            metric_add(s->group->metrics, publish_outcome(ST_OK, p->msg, p->duplicate), 1);
        }
        shard_settle_publish(s, p, &(struct outcome){.status = ST_EXPIRED, .duplicate = p->duplicate});
    }
    report_moved_to_end(s);
    return true;
}
