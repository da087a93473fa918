/* READ: the next of a cursor, from memory when it is nearly live, else from the log; a page of a topic's
 * past; a step of a walk over the retained messages. */
#include "routing/shard_private.h"

#include "routing/once_window.h"
#include "routing/topic.h"

#include <stdlib.h>

static void read_arrived_home(struct mail *mail)
{
    struct read *r = LIST_OF(mail, struct read, mail);
    r->on_read(r);
}

static void read_done_by_store(struct store_read *sr)
{
    struct read *r = LIST_OF(sr, struct read, store);
    r->on_read(r);
}

/* What is still held back is not shown. */
static void shard_cut_at_end(struct store_read *sr, uint64_t end)
{
    while (sr->found > 0 && sr->msgs[sr->found - 1]->offset >= end)
        msg_unref(sr->msgs[--sr->found]);
    if (sr->next > end)
        sr->next = end;
}

static bool wants_inbox(void *ctx, struct slice topic)
{
    const struct store_read *sr = ctx;
    struct slice inbox;
    return topic_inbox_filter(topic, &inbox) && slice_equal(inbox, sr->topic);
}

/* Memory has no lists: the names are looked at. */
static enum status shard_ask_recent(struct shard *s, struct store_read *sr, uint32_t *found)
{
    const struct topic_log *log = &s->group->log;
    bool whole = sr->inbox && !sr->wants;
    return log->ops->recent(log->ctx, s->lane, sr->from, sr->inbox ? (struct slice){0} : sr->topic,
                            whole ? wants_inbox : sr->wants, whole ? sr : sr->wants_ctx, sr->count_max,
                            sr->msgs, found, &sr->next);
}

/* Tries to answer a cursor from memory. False: it is too far behind. */
static bool shard_read_recent(struct shard *s, struct read *r)
{
    const struct topic_log *log = &s->group->log;
    uint64_t end = shard_end(s);
    struct store_read *sr = &r->store;
    sr->status = ST_OK;
    sr->first = log->ops->first(log->ctx, s->lane);
    sr->end = end;
    sr->found = 0;
    sr->msgs = NULL;
    sr->next = end;
    if (sr->from < end) {
        uint32_t found = 0;
        sr->msgs = malloc(sr->count_max * sizeof *sr->msgs);
        if (!sr->msgs)
            return false;
        enum status st = shard_ask_recent(s, sr, &found);
        if (st != ST_OK) {
            free(sr->msgs);
            sr->msgs = NULL;
            return false;
        }
        sr->found = found;
        shard_cut_at_end(sr, end);
    }
    r->live = sr->next >= end;
    if (r->live)
        shard_send_runs(s); /* what was appended before `end` goes in front of this answer */
    return true;
}

static bool shard_reads_topic(struct shard *s, struct store_read *sr, bool session)
{
    struct msg *m = retained_get(session ? s->sessions : s->retained, sr->topic);
    bool outside = m && !session && (m->offset < sr->from || m->offset >= sr->end);
    if (!m || outside || (m->expires_ms && shard_time_ms(s) >= m->expires_ms))
        return false;
    if (sr->msgs)
        sr->msgs[0] = msg_ref(m);
    return true;
}

/* One step of a walk over retained messages. */
static void shard_read_retained(struct shard *s, struct read *r)
{
    struct store_read *sr = &r->store;
    uint64_t end = shard_end(s);
    sr->status = ST_OK;
    sr->end = sr->to < end ? sr->to : end;
    sr->next = sr->end > sr->from ? sr->end : sr->from;
    sr->found = 0;
    sr->msgs = sr->count_only ? NULL : malloc(sr->count_max * sizeof(struct msg *));
    if (!sr->count_only && !sr->msgs) {
        sr->status = ST_NO_MEMORY;
        sr->next = sr->from;
    } else if (sr->topic.data) {
        sr->found = shard_reads_topic(s, sr, r->session);
    } else {
        sr->found = retained_walk(r->session ? s->sessions : s->retained, sr->from, sr->end, sr->wants,
                                  sr->wants_ctx, shard_time_ms(s), sr->msgs, sr->count_max, &sr->next);
        shard_retained_changed(s);
    }
}

/* A page of what lies behind the end: of positions that this log has never given, since its folder was put
 * back to an older state; or that a replica has waited for in vain (shard_ahead.c). */
static bool shard_read_beyond(struct shard *s, struct read *r)
{
    struct store_read *sr = &r->store;
    uint64_t place = !sr->reverse ? shard_read_place(r) : sr->to == UINT64_MAX ? 0 : sr->to;
    uint64_t end = s->group->log.ops->next(s->group->log.ctx, s->lane);
    r->beyond = place > end;
    if (!r->beyond)
        return false;
    sr->status = r->whole && shard_deferred(s) ? ST_AGAIN : ST_GONE;
    sr->first = s->group->log.ops->first(s->group->log.ctx, s->lane);
    sr->next = sr->end = end;
    sr->found = 0;
    sr->msgs = NULL;
    r->mail.on_arrival = read_arrived_home;
    courier_send(s->group->courier, r->home, &r->mail);
    return true;
}

static void shard_read_once(struct shard *s, struct read *r)
{
    r->sequences = malloc(ONCE_WINDOW * sizeof *r->sequences);
    r->store.status = r->sequences ? ST_OK : ST_NO_MEMORY;
    r->store.msgs = NULL;
    r->store.found = r->sequences ? once_sequences(s->once, r->store.topic, r->store.from, r->sequences) : 0;
    r->mail.on_arrival = read_arrived_home;
    courier_send(s->group->courier, r->home, &r->mail);
}

void shard_read(struct shard *s, struct read *r)
{
    r->live = r->from_log = false;
    if (r->once) {
        shard_read_once(s, r);
        return;
    }
    if (shard_read_waits(s, r) || shard_read_beyond(s, r))
        return;
    if (r->retained) {
        shard_read_retained(s, r);
        r->mail.on_arrival = read_arrived_home;
        if (r->store.next >= r->store.end)
            courier_send(s->group->courier, r->home, &r->mail);
        else /* by the mailbox, so by another turn: a walk over a million must not be one turn of the loop */
            loop_post(r->store.home, &r->mail);
        return;
    }
    if (r->want_live && shard_read_recent(s, r)) {
        r->mail.on_arrival = read_arrived_home;
        courier_send(s->group->courier, r->home, &r->mail);
        return;
    }
    if (r->store.to > shard_end(s))
        r->store.to = shard_end(s);
    r->from_log = true;
    r->store.lane = s->lane;
    r->store.on_done = read_done_by_store;
    s->group->log.ops->read_start(s->group->log.ctx, &r->store);
}
