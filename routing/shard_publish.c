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

/* Appends, folds, offers. */
static enum status shard_take(struct shard *s, struct msg *m, bool wait)
{
    bool retain = m->flags & MSG_RETAIN;
    if (retain && !shard_has_room_to_retain(s, m))
        return ST_QUOTA;
    enum status st = s->group->log.ops->append(s->group->log.ctx, s->lane, m, wait);
    if (st != ST_OK)
        return st;
    s->dirty = true;
    if (retain) {
        shard_fold_retained(s, m);
        s->retained_end = m->offset + 1;
    }
    shard_offer(s, m);
    return ST_OK;
}

enum status shard_publish_lazy(struct shard *s, struct msg *m)
{
    enum status st = shard_take(s, m, false);
    if (st == ST_OK)
        metric_add(s->group->metrics, M_STORED, 1);
    return st;
}

void shard_publish(struct shard *s, struct publish *p)
{
    enum status st = shard_take(s, p->msg, p->wait);
    if (st != ST_OK) {
        if (p->wait) {
            shard_answer_publish(s, p, st);
        } else {
            metric_add(s->group->metrics, st == ST_QUOTA ? M_REFUSED_QUOTA : M_REFUSED_UNAVAILABLE, 1);
            publish_free(p);
        }
        return;
    }
    if (!p->wait) {
        metric_add(s->group->metrics, M_STORED, 1);
        publish_free(p);
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
