/* PUBLISH: checked, proposed (shard_apply.c); and answered once it is durable, in offset order, because the
 * log's durable mark only moves forward. A repetition of what is stored is answered the same way, by the
 * original: neither stored nor offered nor counted as stored. */
#include "routing/shard_private.h"

#include <stdlib.h>

static void publish_arrived_home(struct mail *mail)
{
    struct publish *p = LIST_OF(mail, struct publish, mail);
    p->on_published(p);
}

static void shard_answer_publish(struct shard *s, struct publish *p, enum status status)
{
    p->status = status;
    p->mail.on_arrival = publish_arrived_home;
    courier_send(s->group->courier, p->home, &p->mail);
}

bool shard_knows(const struct shard *s, const struct msg *m, struct outcome *out)
{
    enum once_verdict verdict = once_ask(s->once, m, shard_time_ms(s), &out->original);
    struct slice value;
    bool key = props_find(msg_props(m), PROP_IDEMPOTENCY, &value);
    switch (verdict) {
    case ONCE_NEW:
        return false;
    case ONCE_DUPLICATE:
        if (key && out->original >= s->durable)
            out->status = ST_AGAIN;
        else
            out->duplicate = true;
        break;
    case ONCE_BELOW:
        out->status = ST_CONFLICT;
        break;
    case ONCE_OTHER:
        out->status = key ? ST_EXISTS : ST_CONFLICT;
        break;
    }
    return true;
}

/* A topic that is not stored: to whoever is there. The message lies between the records: its offset is that
 * of the next one, so a cursor that has read so far may have it (hub.c), and no position is made of it. */
static enum status shard_hand_over(struct shard *s, struct msg *m)
{
    if (m->flags & (MSG_RETAIN | MSG_ONCE))
        return ST_UNSUPPORTED;
    m->flags |= MSG_UNSTORED;
    m->offset = s->group->log.ops->next(s->group->log.ctx, s->lane);
    m->ts_ms = shard_wall_ms(s);
    shard_offer(s, m);
    s->dirty = true; /* the run leaves in this turn */
    return ST_OK;
}

/* An empty message with RETAIN takes away what the log may hold: that must be in the log too. */
static bool clears_retained(const struct msg *m)
{
    return (m->flags & MSG_RETAIN) && m->payload_len == 0;
}

static void shard_limit_life(const struct shard *s, const struct topic_policy *policy, struct msg *m)
{
    uint64_t latest = shard_wall_ms(s) + policy->ttl_ms;
    if (policy->ttl_ms > 0 && (m->expires_ms == 0 || m->expires_ms > latest))
        m->expires_ms = latest;
}

static struct outcome shard_take(struct shard *s, struct msg *m, bool wait)
{
    struct outcome out = {.status = ST_OK};
    const struct topic_policy *policy = policy_of(s->group->policies, m);
    if ((m->flags & MSG_ONCE) && shard_knows(s, m, &out))
        return out;
    if (policy)
        shard_limit_life(s, policy, m);
    /* Elsewhere it must be in the log to travel. */
    if (policy && policy->unstored && !clears_retained(m) && !shard_deferred(s))
        out.status = shard_hand_over(s, m);
    else if ((m->flags & MSG_RETAIN) && !shard_has_room_to_keep(s, s->retained, m))
        out.status = ST_QUOTA;
    else
        out.status =
            shard_propose(s, m, &(struct wish){.wait = wait, .after_sync = policy && policy->after_sync});
    return out;
}

/* Counts what nobody waits for. */
static void shard_count(struct shard *s, const struct msg *m, const struct outcome *out)
{
    metric_add(s->group->metrics, publish_outcome(out->status, m, out->duplicate), 1);
}

void shard_settle_publish(struct shard *s, struct publish *p, const struct outcome *out)
{
    p->duplicate = out->duplicate;
    if (p->wait) {
        shard_answer_publish(s, p, out->status);
        return;
    }
    shard_count(s, p->msg, out);
    publish_free(p);
}

/* Is it on its way, to be settled when it comes out of the log? */
static bool shard_under_way(const struct shard *s, const struct outcome *out)
{
    return shard_deferred(s) && out->status == ST_OK && !out->duplicate;
}

enum status shard_publish_lazy(struct shard *s, struct msg *m)
{
    struct outcome out = shard_take(s, m, false);
    struct publish *p;
    if (shard_under_way(s, &out)) {
        if (publish_create(msg_ref(m), &p) != ST_OK)
            abort(); /* it is counted when it comes out of the log, and only then */
        shard_wait_for_own(s, p);
        return ST_OK;
    }
    shard_count(s, m, &out);
    return out.status;
}

void shard_publish(struct shard *s, struct publish *p)
{
    struct outcome out = {.status = ST_OK};
    if (p->session != SESSION_NONE)
        out.status = shard_take_session(s, p);
    else
        out = shard_take(s, p->msg, p->wait);
    if (shard_under_way(s, &out)) {
        shard_wait_for_own(s, p);
        return;
    }
    if (!p->wait) {
        shard_count(s, p->msg, &out);
        publish_free(p);
        return;
    }
    if (out.status != ST_OK || (p->msg->flags & MSG_UNSTORED)) {
        shard_answer_publish(s, p, out.status);
        return;
    }
    p->duplicate = out.duplicate;
    if (out.duplicate)
        p->msg->offset = out.original;
    p->durable_at = p->msg->offset;
    if (out.duplicate && p->durable_at < s->durable) {
        shard_answer_publish(s, p, ST_OK);
        return;
    }
    shard_wait_until_durable(s, p, p->durable_at);
}

void shard_wait_until_durable(struct shard *s, struct publish *p, uint64_t offset)
{
    /* A duplicate of what is not durable yet waits at the end, like what came right before it. */
    bool early = s->last_waiting && offset < s->last_waiting->durable_at;
    p->durable_at = early ? s->last_waiting->durable_at : offset;
    p->mail.next = NULL;
    if (s->last_waiting)
        s->last_waiting->mail.next = &p->mail;
    else
        s->first_waiting = p;
    s->last_waiting = p;
}

void shard_wait_no_more(struct shard *s, struct publish *p)
{
    struct publish *before = NULL;
    for (struct publish *at = s->first_waiting; at && at != p;
         at = LIST_OF(at->mail.next, struct publish, mail))
        before = at;
    if (before)
        before->mail.next = p->mail.next;
    else
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
    if (s->last_waiting == p)
        s->last_waiting = before;
}

void shard_on_durable(void *ctx, unsigned lane, uint64_t next)
{
    struct shard *s = shard_of_lane(ctx, lane);
    while (s->first_waiting && s->first_waiting->durable_at < next) {
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        if (!s->first_waiting)
            s->last_waiting = NULL;
        shard_answer_publish(s, p, ST_OK);
    }
    s->durable = next;
    shard_release_durable(s);
    shard_shares_durable(s);
    shard_carry_durable(s);
}

void shard_drop_waiting(struct shard *s)
{
    for (struct publish *p; (p = shard_next_own(s));)
        publish_free(p);
    while (s->first_waiting) {
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        publish_free(p);
    }
}
