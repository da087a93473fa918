/* Propose and apply (docs/CLUSTER.md). Whoever wants a record in the lane checks what can be checked and
 * proposes it; nothing of the state changes by that. A record that has come out of the log at its offset is
 * applied: folded, and delivered if it is a message. The state changes nowhere else, so it is the same
 * whoever has proposed what.
 *
 * The embedded store gives the offset at once: apply follows propose in the same call, and nothing can have
 * come between, so what propose has found is true of apply too.
 *
 * A log whose order is given elsewhere (topic_log.propose) takes a record that says on what it was based, and
 * brings it to every node later, behind whatever has come between. Then it is judged again, of the state at
 * its place and the time of the log and nothing else, so that each replica finds the same: what is void
 * changes nothing and is delivered to nobody. What waits here for the outcome is told then. */
#include "routing/shard_private.h"

#include <assert.h>
#include <string.h>

enum status shard_hand_in(struct shard *s, const struct msg *m, const struct wish *w)
{
    const struct topic_log *log = &s->group->log;
    const struct proposal p = {.condition = w->condition,
                               .incarnation = log->ops->incarnation(log->ctx),
                               .sequence = s->proposed.sequence + 1,
                               .based_on = w->based_on};
    struct msg *stamped;
    enum status st = proposal_stamp(m, &p, &stamped);
    if (st != ST_OK)
        return st;
    st = log->ops->propose(log->ctx, s->lane, stamped);
    msg_unref(stamped);
    if (st != ST_OK)
        return st;
    s->proposed.sequence++;
    s->dirty = true; /* it leaves at the end of this turn */
    return ST_OK;
}

enum status shard_propose(struct shard *s, struct msg *m, const struct wish *w)
{
    const struct topic_log *log = &s->group->log;
    if (shard_deferred(s)) {
        enum status known = shard_introduces(s);
        return known == ST_OK ? shard_hand_in(s, m, w) : known;
    }
    enum status st = log->ops->append(log->ctx, s->lane, m, w->wait || w->after_sync);
    if (st != ST_OK)
        return st;
    s->dirty = true;
    shard_apply(s, m, m->flags & MSG_ONCE, w->after_sync);
    return ST_OK;
}

void shard_apply(struct shard *s, struct msg *m, bool once, bool after_sync)
{
    bool message = true;
    if (m->flags & MSG_RETAIN)
        message = shard_fold_retained(s, m) == TABLE_RETAINED;
    if (once)
        shard_fold_once(s, m);
    if (once || (m->flags & MSG_RETAIN))
        s->state_end = m->offset + 1;
    if (message)
        shard_deliver_in_order(s, m, after_sync);
}

/* --- an order that is given elsewhere ----------------------------------------------------------------- */

static struct outcome shard_judge(const struct shard *s, const struct msg *m, const struct proposal *p)
{
    struct outcome out = {.status = ST_OK};
    switch (p->condition) {
    case PROPOSAL_FREE:
        (void)shard_knows(s, m, &out);
        break;
    case PROPOSAL_UPDATE:
        out.status = shard_admits_session(s, m, SESSION_UPDATE, p->based_on);
        break;
    case PROPOSAL_ATTACH:
        out.status = shard_admits_session(s, m, SESSION_ATTACH, p->based_on);
        break;
    case PROPOSAL_INBOX:
        out.status = shard_inbox_advances(s, m) ? ST_OK : ST_GONE;
        break;
    case PROPOSAL_START:
    case PROPOSAL_DOWN:
        break; /* shard_node_fold */
    }
    return out;
}

bool shard_counts(struct shard *s, const struct msg *m, struct proposal *p, struct outcome *out)
{
    const struct topic_log *log = &s->group->log;
    *p = (struct proposal){0};
    *out = (struct outcome){.status = ST_OK};
    s->time_ms = m->ts_ms;
    if (proposal_read(msg_props(m), p)) {
        if (!shard_node_admits(s, m, p))
            out->status = ST_FULL;
        else
            *out = shard_judge(s, m, p);
    }
    bool counts = out->status == ST_OK && !out->duplicate;
    if (!counts)
        log->ops->hide(log->ctx, s->lane, m->offset);
    return counts;
}

void shard_wait_for_own(struct shard *s, struct publish *p)
{
    const struct topic_log *log = &s->group->log;
    p->durable_at = s->proposed.sequence;
    p->based_on = log->ops->incarnation(log->ctx);
    p->mail.next = NULL;
    if (s->proposed.last)
        s->proposed.last->mail.next = &p->mail;
    else
        s->proposed.first = p;
    s->proposed.last = p;
}

struct publish *shard_next_own(struct shard *s)
{
    struct publish *p = s->proposed.first;
    if (p) {
        s->proposed.first = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        if (!s->proposed.first)
            s->proposed.last = NULL;
    }
    return p;
}

/* ST_FULL is what a door tells as "not now": the client may ask again. */
static void shard_refuse_first(struct shard *s)
{
    shard_settle_publish(s, shard_next_own(s), &(struct outcome){.status = ST_FULL});
}

void shard_refuse_own(struct shard *s, uint64_t incarnation)
{
    while (s->proposed.first && s->proposed.first->based_on == incarnation)
        shard_refuse_first(s);
}

static void shard_tell_known(struct shard *s, const struct msg *m, uint64_t sequence,
                             const struct outcome *out);

/* One node's records come out in the order in which it has proposed them. Those that nobody waits for have
 * sequences too, and one that the backend has repeated was settled when it came first. What one that comes
 * has overtaken was lost on its way, by the word of the port: it is refused. */
static void shard_settle_own(struct shard *s, const struct msg *m, const struct proposal *from,
                             const struct outcome *out, bool unreported)
{
    const struct topic_log *log = &s->group->log;
    bool current = from->incarnation == log->ops->incarnation(log->ctx);
    while (current && s->proposed.first && s->proposed.first->based_on != from->incarnation)
        shard_refuse_first(s);
    while (s->proposed.first && s->proposed.first->based_on == from->incarnation &&
           s->proposed.first->durable_at < from->sequence)
        shard_refuse_first(s);
    if (!s->proposed.first || s->proposed.first->based_on != from->incarnation ||
        s->proposed.first->durable_at != from->sequence) {
        if (current)
            shard_tell_known(s, m, from->sequence, out);
        return;
    }
    struct publish *p = shard_next_own(s);
    p->msg->offset = p->msg->stored = out->duplicate ? out->original : m->offset;
    p->msg->ts_ms = m->ts_ms;
    if (!unreported || !p->wait || out->status != ST_OK) {
        shard_settle_publish(s, p, out);
        return;
    }
    p->duplicate = out->duplicate;
    shard_report_hold(s, p);
}

static bool shard_is_foreign(const struct shard *s, const struct proposal *p)
{
    const struct topic_log *log = &s->group->log;
    return p->incarnation != log->ops->incarnation(log->ctx);
}

/* What the log does not keep, and its connection wants to know when it comes live (No Local, latency). */
static void shard_know_own(const struct shard *s, struct msg *m, const struct proposal *from)
{
    const struct publish *own = s->proposed.first;
    if (!own || own->based_on != from->incarnation || own->durable_at != from->sequence)
        return;
    m->origin = own->msg->origin;
    m->accepted_ns = own->msg->accepted_ns;
}

void shard_arrived(struct shard *s, struct msg *m)
{
    struct proposal p;
    struct outcome out;
    const struct shard_watch *watch = s->group->watch;
    bool counts = shard_counts(s, m, &p, &out);
    shard_know_own(s, m, &p);
    if (proposal_of_node(&p))
        counts = counts && shard_node_fold(s, m, &p, true);
    else if (counts)
        shard_apply(s, m, true, false);
    if (p.condition == PROPOSAL_INBOX)
        shard_inbox_arrived(s, msg_topic(m));
    s->dirty = true;
    bool unreported = !shard_is_foreign(s, &p) && shard_report_waits(s, p.sequence, m->offset);
    shard_node_heard(s, &p);
    shard_settle_own(s, m, &p, &out, unreported);
    shard_report_moved(s, m->offset + 1);
    if (counts && p.condition == PROPOSAL_ATTACH && watch && shard_is_foreign(s, &p))
        watch->on_attached(s->group->watch_ctx, msg_topic(m), m->offset);
    shard_ahead_go(s);
}

/* --- what was proposed and does not come --- */

/* The publish with that sequence, taken out of those that wait; NULL: nobody does. */
static struct publish *shard_take_own(struct shard *s, uint64_t sequence)
{
    struct publish *before = NULL, *p = s->proposed.first;
    while (p && p->durable_at < sequence) {
        before = p;
        p = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
    }
    if (!p || p->durable_at != sequence)
        return NULL;
    if (!before)
        return shard_next_own(s);
    before->mail.next = p->mail.next;
    if (s->proposed.last == p)
        s->proposed.last = before;
    return p;
}

static void shard_note_unknown(struct shard *s, uint64_t sequence)
{
    uint64_t *all = s->proposed.unknown;
    if (s->proposed.unknown_count == UNKNOWN_MAX)
        memmove(all, all + 1, --s->proposed.unknown_count * sizeof *all);
    uint32_t at = s->proposed.unknown_count++;
    for (; at > 0 && all[at - 1] > sequence; at--)
        all[at] = all[at - 1];
    all[at] = sequence;
}

void shard_lost(struct shard *s, uint64_t sequence, enum status status)
{
    struct publish *p = shard_take_own(s, sequence);
    if (!p) {
        (void)shard_report_lost(s, sequence);
        return;
    }
    if (status == ST_EXPIRED && p->session == SESSION_NONE)
        shard_note_unknown(s, sequence);
    shard_settle_publish(s, p, &(struct outcome){.status = status});
}

/* Unknown is a state, not an end: it has come, or is void. */
static void shard_tell_known(struct shard *s, const struct msg *m, uint64_t sequence,
                             const struct outcome *out)
{
    uint64_t *all = s->proposed.unknown;
    uint32_t at = 0, count = s->proposed.unknown_count;
    while (at < count && all[at] < sequence)
        at++;
    if (at == count || all[at] != sequence)
        return;
    memmove(all + at, all + at + 1, (count - at - 1) * sizeof *all);
    s->proposed.unknown_count--;
    metric_sub(s->group->metrics, M_PUBLISH_UNKNOWN, 1);
    metric_add(s->group->metrics, publish_outcome(out->status, m, out->duplicate), 1);
}

static void on_arrived(void *ctx, unsigned lane, struct msg *m)
{
    shard_arrived(shard_of_lane(ctx, lane), m);
}

static void on_reported(void *ctx, unsigned lane, uint64_t sequence)
{
    shard_reported(shard_of_lane(ctx, lane), sequence);
}

static void on_lost(void *ctx, unsigned lane, uint64_t sequence, enum status status)
{
    shard_lost(shard_of_lane(ctx, lane), sequence, status);
}

const struct topic_log_events shard_log_events = {
    .on_arrived = on_arrived, .on_reported = on_reported, .on_lost = on_lost};
