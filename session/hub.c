/* The hub: delivery and publishing of one loop.
 *
 * Delivery is the hottest place of the program. For a run of messages: neighbours of the same topic are taken
 * together, the topic is matched once, and each subscription is offered the whole group before the next one
 * is touched, so that its connection's memory is visited once, and the bytes that a door makes for the first
 * receiver lie side by side for all the others (one borrowed span, one write). */
#include "session/hub_private.h"

#include "core/hash.h"

#include <assert.h>
#include <stdlib.h>

enum {
    GROUP_MAX = 64,
    SCRATCH_BLOCK_BYTES = 256 * 1024,
    PREFETCH_AHEAD = 6,
};

/* --- scratch ------------------------------------------------------------------------------------ */

struct scratch_block {
    struct scratch_block *older;
    size_t used, cap;
    uint8_t bytes[];
};

uint8_t *hub_scratch(struct hub *h, enum wire_kind kind, size_t len)
{
    struct scratch *s = &h->scratch[kind];
    struct scratch_block *b = s->block;
    if (!b || b->cap - b->used < len) {
        size_t cap = len > SCRATCH_BLOCK_BYTES ? len : SCRATCH_BLOCK_BYTES;
        b = malloc(sizeof *b + cap);
        if (!b)
            return NULL;
        b->older = s->block;
        b->used = 0;
        b->cap = cap;
        s->block = b;
    }
    uint8_t *place = b->bytes + b->used;
    b->used += len;
    return place;
}

/* Keeps one ordinary block a kind: the next turn most probably needs it. */
static bool hub_end_of_turn(struct loop_hook *hook)
{
    struct hub *h = LIST_OF(hook, struct hub, hook);
    for (unsigned i = 0; i < WIRE_KINDS; i++) {
        struct scratch_block *b = h->scratch[i].block;
        while (b && (b->older || b->cap > SCRATCH_BLOCK_BYTES)) {
            struct scratch_block *older = b->older;
            free(b);
            b = older;
        }
        if (b)
            b->used = 0;
        h->scratch[i].block = b;
    }
    bool again = pace_turn_end(h);
    metric_set(h->metrics, M_LETTERS, h->letters);
    /* A door's flush may have made room for a cursor, which asked the shard. */
    return courier_pending(h->courier) || again;
}

/* --- delivery ----------------------------------------------------------------------------------- */

void subscription_dropped(const struct subscription *sub, const struct gap *gap, enum metric why)
{
    struct hub *h = sub->channel->hub;
    struct session *s = sub->session;
    metric_add(h->metrics, M_OFFERED, gap->count);
    metric_add(h->metrics, why, gap->count);
    if (!h->drops)
        return;
    const struct drop_note note = {.session = s->id,
                                   .filter = slice_of(sub->channel->filter, sub->channel->filter_len),
                                   .name = s->ops->name(s->conn),
                                   .why = why,
                                   .lane = gap->lane,
                                   .from = gap->from,
                                   .to = gap->to,
                                   .count = gap->count};
    drops_note(h->drops, &note, loop_wall_ms(h->loop));
}

void subscription_withheld(struct subscription *sub, const struct gap *gap, enum metric why)
{
    struct gap told = *gap;
    if (gap->count == 0)
        return;
    told.why = drop_reason(why);
    subscription_dropped(sub, &told, why);
    sub->session->ops->gap(sub->session->conn, sub, &told);
}

/* The same of one message. */
static void hub_drop(const struct subscription *sub, const struct msg *m, enum metric why)
{
    subscription_dropped(
        sub, &(struct gap){.lane = m->partition, .from = m->offset, .to = m->offset, .count = 1}, why);
}

static bool hub_too_old(struct hub *h, const struct msg *m)
{
    const struct topic_policy *policy = policy_of(h->policies, m);
    return policy && policy->retention_ms > 0 && loop_wall_ms(h->loop) >= m->ts_ms + policy->retention_ms;
}

bool hub_shows(struct hub *h, const struct msg *m, bool retained)
{
    if (m->expires_ms && loop_wall_ms(h->loop) >= m->expires_ms)
        return false;
    return retained || !hub_too_old(h, m);
}

static bool is_own(const struct subscription *sub, const struct msg *m)
{
    return sub->options.no_local && m->origin == sub->session->id;
}

bool hub_withholds(struct hub *h, const struct subscription *sub, const struct delivery *d, enum metric *why)
{
    if (is_own(sub, d->msg))
        return false;
    if (d->msg->expires_ms && loop_wall_ms(h->loop) >= d->msg->expires_ms)
        *why = M_DROPPED_EXPIRED;
    else if (!d->live && !d->retained && hub_too_old(h, d->msg))
        *why = M_DROPPED_RETENTION;
    else
        return false;
    return true;
}

enum status hub_offer(struct hub *h, struct subscription *sub, struct delivery *d)
{
    struct session *s = sub->session;
    enum metric why;
    if (is_own(sub, d->msg))
        return ST_NOT_FOUND;
    if (hub_withholds(h, sub, d, &why)) {
        const struct gap gap = {
            .lane = d->msg->partition, .from = d->msg->offset, .to = d->msg->offset, .count = 1};
        if (d->retained || (d->msg->flags & MSG_UNSTORED)) /* what lies there is told by nobody's place */
            subscription_dropped(sub, &gap, why);
        else
            subscription_withheld(sub, &gap, why);
        return ST_EXPIRED;
    }
    enum status st = s->ops->deliver(s->conn, sub, d);
    if (st == ST_OK) {
        metric_add(h->metrics, M_OFFERED, 1);
        metric_add(h->metrics, M_PAYLOAD_OUT, d->msg->payload_len);
    } else if (st == ST_FULL || st == ST_TOO_LARGE) {
        hub_drop(sub, d->msg, st == ST_FULL ? M_DROPPED_QUEUE_FULL : M_DROPPED_TOO_LARGE);
    }
    return st;
}

/* To a subscription that is behind. What is not in the log cannot come later: it comes now, to who has had
 * all that was stored before it and has room, and is lost to others. */
static void hub_offer_unstored(struct hub *h, struct subscription *sub, unsigned lane, struct delivery *d)
{
    const struct lane_cursor *lc = subscription_lane(sub, lane);
    if (lc->state < LANE_WAITING)
        return; /* `subscribed` has not been told: it is not owed anything yet */
    if (lc->next < d->msg->offset || hub_offer(h, sub, d) == ST_AGAIN)
        hub_drop(sub, d->msg, M_DROPPED_UNSTORED);
}

static void hub_deliver_one(struct hub *h, struct subscription *sub, unsigned lane, struct delivery *d)
{
    bool stored = !(d->msg->flags & MSG_UNSTORED);
    if (sub->behind && subscription_lane(sub, lane)->state != LANE_LIVE) {
        if (!stored)
            hub_offer_unstored(h, sub, lane, d);
    } else if (hub_offer(h, sub, d) == ST_AGAIN) {
        if (stored)
            cursor_fall_behind(sub, lane, d->msg->offset);
        else
            hub_drop(sub, d->msg, M_DROPPED_UNSTORED);
    } else if (sub->behind &&
               stored) { /* `live` of the last lane must not name a place before this message */
        sub->behind->at.next[lane] = d->msg->offset + 1;
    }
}

static void hub_deliver_group(struct hub *h, struct channel *ch, unsigned lane, struct delivery *group,
                              unsigned count)
{
    for (unsigned k = 0; k < count; k++)
        group[k].wires[WIRE_WS_SUB] = (struct slice){0};
    for (uint32_t i = 0; i < ch->count; i++) {
        if (i + PREFETCH_AHEAD < ch->count)
            __builtin_prefetch(ch->subs[i + PREFETCH_AHEAD]);
        if (i + PREFETCH_AHEAD / 2 < ch->count) {
            const struct session *soon = ch->subs[i + PREFETCH_AHEAD / 2]->session;
            __builtin_prefetch(soon);
        }
        struct subscription *sub = ch->subs[i];
        for (unsigned k = 0; k < count; k++)
            hub_deliver_one(h, sub, lane, &group[k]);
    }
}

static void hub_deliver_run(struct hub *h, struct run *run)
{
    struct delivery group[GROUP_MAX];
    for (uint32_t i = 0; i < run->count;) {
        struct msg *m = run->msgs[i];
        struct filter_matches found = filter_table_match(h->filters, msg_topic(m));
        unsigned count = 0;
        do {
            if (found.count > 0)
                group[count] = (struct delivery){.msg = run->msgs[i], .live = true};
            count++;
            i++;
        } while (i < run->count && count < GROUP_MAX && run->msgs[i]->topic_hash == m->topic_hash &&
                 slice_equal(msg_topic(run->msgs[i]), msg_topic(m)));
        for (size_t c = 0; c < found.count; c++)
            hub_deliver_group(h, LIST_OF(found.entries[c], struct channel, entry), run->lane, group, count);
        if (found.count > 0 && m->accepted_ns)
            histogram_record(h->metrics, H_DELIVERY_SECONDS,
                             clock_mono_ns(loop_clock(h->loop)) - m->accepted_ns);
    }
    const struct msg *last = run->msgs[run->count - 1];
    hub_has_delivered(h, run->lane, last->offset + (last->flags & MSG_UNSTORED ? 0 : 1));
}

void hub_on_deliver(struct mail *mail)
{
    struct deliver *d = LIST_OF(mail, struct deliver, mail);
    hub_deliver_run(d->hub, d->run);
    deliver_free(d);
}

/* --- publishing --------------------------------------------------------------------------------- */

static void hub_published(struct publish *p)
{
    struct hub *h = p->hub;
    h->letters--;
    /* From open to stored or refused in one step: received = stored + duplicate + refused + open at any
     * moment. What nobody waits for is stored when the shard has appended it. */
    metric_sub(h->metrics, M_PUBLISH_OPEN, 1);
    metric_add(h->metrics, publish_outcome(p->status, p->msg, p->duplicate), 1);
    if (p->status == ST_OK && p->msg->accepted_ns && !(p->msg->flags & MSG_UNSTORED))
        histogram_record(h->metrics, H_DURABLE_SECONDS,
                         clock_mono_ns(loop_clock(h->loop)) - p->msg->accepted_ns);
    p->door_published(p);
}

void hub_publish(struct hub *h, struct publish *p)
{
    unsigned lane = topic_partition(msg_topic(p->msg), h->map->lane_count);
    p->msg->partition = lane;
    metric_add(h->metrics, M_PAYLOAD_IN, p->msg->payload_len);
    if (p->wait) {
        h->letters++;
        metric_add(h->metrics, M_PUBLISH_OPEN, 1);
        p->door_published = p->on_published;
        p->on_published = hub_published;
    }
    p->hub = h;
    shard_map_publish(h->map, h->courier, lane, p);
}

enum status hub_publish_lazy(struct hub *h, struct msg *m)
{
    unsigned lane = topic_partition(msg_topic(m), h->map->lane_count);
    m->partition = lane;
    if (h->map->lanes[lane].loop_index == courier_index(h->courier)) {
        metric_add(h->metrics, M_PAYLOAD_IN, m->payload_len);
        enum status st = shard_publish_lazy(h->map->lanes[lane].shard, m);
        msg_unref(m);
        return st;
    }
    struct publish *p;
    if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        metric_add(h->metrics, M_REFUSED_UNAVAILABLE, 1);
        return ST_FULL;
    }
    hub_publish(h, p);
    return ST_OK;
}

static void hub_has_read(struct read *r)
{
    struct hub *h = r->hub;
    h->letters--;
    r->on_read = r->door_read; /* it may ask for the next page by the same letter */
    r->on_read(r);
}

static void hub_send_read(struct hub *h, struct read *r)
{
    h->letters++;
    r->hub = h;
    r->door_read = r->on_read;
    r->on_read = hub_has_read;
    r->want_live = false;
    shard_map_read(h->map, h->courier, r);
}

static void hub_inbox_answered(struct inbox_letter *l)
{
    struct hub *h = l->hub;
    h->letters--;
    l->asker_answer(l);
}

void hub_inbox(struct hub *h, struct inbox_letter *l)
{
    h->letters++;
    l->hub = h;
    l->asker_answer = l->on_answer;
    l->on_answer = hub_inbox_answered;
    l->lane = (uint16_t)topic_partition(l->topic, h->map->lane_count);
    shard_map_inbox(h->map, h->courier, l);
}

void hub_read_retained(struct hub *h, struct read *r)
{
    r->retained = true;
    hub_send_read(h, r);
}

void hub_read_lane(struct hub *h, struct read *r)
{
    hub_send_read(h, r);
}

void hub_read(struct hub *h, struct read *r)
{
    r->store.lane = topic_partition(r->store.topic, h->map->lane_count);
    r->store.wants = NULL;
    hub_send_read(h, r);
}

/* --- life --------------------------------------------------------------------------------------- */

enum status hub_create(struct courier *courier, struct shard_map *map, struct metrics *metrics,
                       const struct hub_limits *limits, struct hub **out)
{
    struct hub *h = calloc(1, sizeof *h);
    if (!h)
        return ST_NO_MEMORY;
    if (filter_table_create(&h->filters) != ST_OK || drops_create(limits->drops_max, &h->drops) != ST_OK) {
        filter_table_destroy(h->filters);
        free(h);
        return ST_NO_MEMORY;
    }
    h->courier = courier;
    h->loop = courier_loop(courier);
    h->map = map;
    h->metrics = metrics;
    h->limits = *limits;
    pace_init(&h->pace, limits->catchup_share);
    /* Unique over all loops of the process; 0 stays free for "unknown". */
    h->next_session_id = ((uint64_t)(courier_index(courier) + 1) << 48) + 1;
    list_init(&h->hook.link);
    h->hook.on_turn_end = hub_end_of_turn;
    *out = h;
    return ST_OK;
}

void hub_set_limits(struct hub *h, uint32_t subscriptions_max, uint64_t lag_messages)
{
    h->limits.subscriptions_max = subscriptions_max;
    h->limits.lag_messages = lag_messages;
}

void hub_set_policies(struct hub *h, struct policies *p)
{
    h->policies = p;
}

void hub_set_directory(struct hub *h, struct directory d)
{
    h->directory = d;
}

struct directory hub_directory(const struct hub *h)
{
    return h->directory;
}

void hub_meet(struct hub *h, unsigned loop_index, struct hub *other, unsigned loop_count)
{
    h->peers[loop_index] = other;
    h->peer_count = loop_count;
}

static void visit_came_back(struct mail *mail)
{
    struct hub_visit *v = LIST_OF(mail, struct hub_visit, mail);
    v->home->letters--;
    v->on_back(v);
}

static void visit_arrived(struct mail *mail);

/* To the next hub, or home. */
static void visit_go_on(struct hub_visit *v, struct hub *from)
{
    bool done = v->next == v->home->peer_count;
    struct hub *to = done ? v->home : v->home->peers[v->next];
    v->mail.on_arrival = done ? visit_came_back : visit_arrived;
    courier_send(from->courier, courier_index(to->courier), &v->mail);
}

static void visit_arrived(struct mail *mail)
{
    struct hub_visit *v = LIST_OF(mail, struct hub_visit, mail);
    struct hub *h = v->home->peers[v->next++];
    v->on_visit(v, h);
    visit_go_on(v, h);
}

void hub_visit_all(struct hub *h, struct hub_visit *v)
{
    h->letters++;
    v->home = h;
    v->next = 0;
    visit_go_on(v, h);
}

void hub_note_refused(struct hub *h, const struct session *publisher, struct slice topic, struct slice name,
                      enum metric why)
{
    const struct drop_note note = {
        .session = session_id(publisher), .filter = topic, .name = name, .why = why, .count = 1};
    drops_note(h->drops, &note, loop_wall_ms(h->loop));
}

struct drops *hub_drops(const struct hub *h)
{
    return h->drops;
}

void hub_start(struct hub *h)
{
    loop_hook_add(h->loop, &h->hook);
}

void hub_destroy(struct hub *h)
{
    if (!h)
        return;
    if (!list_empty(&h->hook.link))
        loop_hook_remove(h->loop, &h->hook);
    for (unsigned i = 0; i < WIRE_KINDS; i++) {
        while (h->scratch[i].block) {
            struct scratch_block *b = h->scratch[i].block;
            h->scratch[i].block = b->older;
            free(b);
        }
    }
    filter_table_destroy(h->filters);
    drops_destroy(h->drops);
    roster_deinit(&h->roster);
    free(h);
}

struct loop *hub_loop(const struct hub *h)
{
    return h->loop;
}

struct metrics *hub_metrics(const struct hub *h)
{
    return h->metrics;
}

uint32_t hub_epoch(const struct hub *h)
{
    return h->map->epoch;
}

unsigned hub_lane_count(const struct hub *h)
{
    return h->map->lane_count;
}

bool hub_is_home(const struct hub *h, unsigned lane)
{
    return h->map->lanes[lane].loop_index == courier_index(h->courier);
}

bool hub_stores(struct hub *h, struct slice topic)
{
    const struct topic_policy *policy = h->policies ? policies_find(h->policies, topic, hash64(topic)) : NULL;
    return !policy || !policy->unstored;
}

bool hub_idle(const struct hub *h)
{
    return h->letters == 0;
}
