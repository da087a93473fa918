/* PUBLISH: appended, folded, offered; and answered once it is durable, in offset order, because the log's
 * durable mark only moves forward. */
#include "routing/shard_private.h"

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

/* A topic that is not stored: to whoever is there. The message lies between the records: its offset is that
 * of the next one, so a cursor that has read so far may have it (hub.c), and no position is made of it. */
static enum status shard_hand_over(struct shard *s, struct msg *m)
{
    if (m->flags & MSG_RETAIN)
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

/* Appends, folds, offers. */
static enum status shard_take(struct shard *s, struct msg *m, bool wait)
{
    bool retain = m->flags & MSG_RETAIN;
    const struct topic_policy *policy = policy_of(s->group->policies, m);
    bool after_sync = policy && policy->after_sync;
    if (policy) {
        shard_limit_life(s, policy, m);
        if (policy->unstored && !clears_retained(m))
            return shard_hand_over(s, m);
    }
    if (retain && !shard_has_room_to_retain(s, m))
        return ST_QUOTA;
    enum status st = s->group->log.ops->append(s->group->log.ctx, s->lane, m, wait || after_sync);
    if (st != ST_OK)
        return st;
    s->dirty = true;
    if (retain) {
        shard_fold_retained(s, m);
        s->retained_end = m->offset + 1;
    }
    shard_deliver_in_order(s, m, after_sync);
    return ST_OK;
}

enum status shard_publish_lazy(struct shard *s, struct msg *m)
{
    enum status st = shard_take(s, m, false);
    if (st == ST_OK)
        metric_add(s->group->metrics, publish_outcome(st, m), 1);
    return st;
}

void shard_publish(struct shard *s, struct publish *p)
{
    enum status st = shard_take(s, p->msg, p->wait);
    if (!p->wait) {
        metric_add(s->group->metrics, publish_outcome(st, p->msg), 1);
        publish_free(p);
        return;
    }
    if (st != ST_OK || (p->msg->flags & MSG_UNSTORED)) {
        shard_answer_publish(s, p, st);
        return;
    }
    p->mail.next = NULL;
    if (s->last_waiting)
        s->last_waiting->mail.next = &p->mail;
    else
        s->first_waiting = p;
    s->last_waiting = p;
}

void shard_on_durable(void *ctx, unsigned lane, uint64_t next)
{
    struct shard *s = shard_of_lane(ctx, lane);
    while (s->first_waiting && s->first_waiting->msg->offset < next) {
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        if (!s->first_waiting)
            s->last_waiting = NULL;
        shard_answer_publish(s, p, ST_OK);
    }
    s->durable = next;
    shard_release_durable(s);
    shard_carry_durable(s);
}

void shard_drop_waiting(struct shard *s)
{
    while (s->first_waiting) {
        struct publish *p = s->first_waiting;
        s->first_waiting = p->mail.next ? LIST_OF(p->mail.next, struct publish, mail) : NULL;
        publish_free(p);
    }
}
