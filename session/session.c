/* Sessions, their subscriptions, and the channels that join subscriptions of equal filter. */
#include "session/hub_private.h"

#include <assert.h>
#include <stdlib.h>

/* --- channels ----------------------------------------------------------------------------------- */

/* `matched`: the filter itself, or the part of a shared one that topics are compared with: then all its
 * messages come by GIVE, and the channel is in no table. */
static enum status channel_create(struct hub *h, struct slice filter, struct slice matched,
                                  struct channel **out)
{
    unsigned lane = 0;
    bool single = topic_filter_partition(matched, h->map->lane_count, &lane);
    unsigned lanes = single ? 1 : h->map->lane_count;
    struct channel *ch = calloc(1, sizeof *ch + lanes * sizeof ch->interests[0] + filter.len);
    if (!ch)
        return ST_NO_MEMORY;
    ch->hub = h;
    ch->lane_count = (uint16_t)lanes;
    ch->first_lane = (uint16_t)lane;
    ch->filter_len = (uint32_t)filter.len;
    ch->system = topic_system(filter);
    ch->filter = (uint8_t *)&ch->interests[lanes];
    memcpy(ch->filter, filter.data, filter.len);
    bool shared = matched.len < filter.len;
    if (!shared && filter_table_link(h->filters, filter, &ch->entry) != ST_OK) {
        free(ch);
        return ST_NO_MEMORY;
    }
    *out = ch;
    return ST_OK;
}

static void channel_detach(struct channel *ch, unsigned i)
{
    if (!ch->interests[i])
        return;
    struct detach *d = calloc(1, sizeof *d);
    if (!d)
        return; /* the shard goes on delivering what nobody takes: waste, not harm */
    d->lane = (uint16_t)(ch->first_lane + i);
    d->interest = ch->interests[i];
    ch->interests[i] = NULL;
    shard_map_detach(ch->hub->map, ch->hub->courier, d);
}

void channel_attached(struct channel *ch, unsigned lane, void *interest)
{
    if (!interest)
        return;
    unsigned i = lane - ch->first_lane;
    ch->interests[i] = interest;
    if (ch->count == 0)
        channel_detach(ch, i);
}

/* No subscription is active any more. New ones of this filter make a new channel. */
static void channel_retire(struct channel *ch)
{
    filter_table_unlink(ch->hub->filters, &ch->entry);
    for (unsigned i = 0; i < ch->lane_count; i++)
        channel_detach(ch, i);
}

static enum status channel_add(struct channel *ch, struct subscription *sub)
{
    if (ch->count == ch->cap) {
        uint32_t cap = ch->cap ? ch->cap * 2 : 1;
        struct subscription **subs = realloc(ch->subs, cap * sizeof *subs);
        if (!subs)
            return ST_NO_MEMORY;
        ch->subs = subs;
        ch->cap = cap;
    }
    sub->place = ch->count;
    ch->subs[ch->count++] = sub;
    ch->refs++;
    return ST_OK;
}

static void channel_drop(struct channel *ch, struct subscription *sub)
{
    struct subscription *last = ch->subs[--ch->count];
    ch->subs[sub->place] = last;
    last->place = sub->place;
    if (ch->count == 0)
        channel_retire(ch);
}

static void channel_unref(struct channel *ch)
{
    if (--ch->refs > 0)
        return;
    free(ch->subs);
    free(ch);
}

/* --- subscriptions ------------------------------------------------------------------------------ */

void subscription_release(struct subscription *sub)
{
    if (sub->session || sub->letters > 0)
        return;
    free(sub->behind);
    free(sub->shared);
    channel_unref(sub->channel);
    free(sub);
}

static void metrics_for_behind(struct subscription *sub)
{
    if (!sub->behind)
        return;
    for (unsigned i = 0; i < sub->channel->lane_count; i++) {
        enum lane_state state = sub->behind->lanes[i].state;
        if (state == LANE_WAITING || state == LANE_READING)
            metric_sub(sub->session->hub->metrics, M_CURSORS, 1);
    }
}

void subscription_end(struct subscription *sub)
{
    struct session *s = sub->session;
    assert(s);
    if (sub->shared)
        seats_leave(sub, NULL);
    metrics_for_behind(sub);
    for (unsigned i = 0; sub->behind && i < sub->channel->lane_count; i++)
        pace_forget(&sub->behind->lanes[i]);
    list_unlink(&sub->link);
    list_unlink(&sub->waiting);
    s->subscription_count--;
    metric_sub(s->hub->metrics, M_SUBSCRIPTIONS, 1);
    channel_drop(sub->channel, sub);
    sub->session = NULL;
    subscription_release(sub);
}

/* A subscription that never got as far as a letter. */
static void subscription_abandon(struct subscription *sub)
{
    free(sub->behind);
    free(sub->shared);
    free(sub);
}

enum status session_subscribe(struct session *s, struct slice filter, const struct subscription_options *o,
                              struct subscription **out)
{
    struct hub *h = s->hub;
    struct slice matched;
    bool shared = topic_share_filter(filter, &matched);
    if (!shared)
        matched = filter;
    if (!topic_filter_valid(matched, &h->limits.topic) ||
        (o->start == START_LAST && !topic_filter_literal(filter)))
        return ST_INVALID;
    struct subscription *old = session_find(s, filter);
    if (!old && s->subscription_count >= h->limits.subscriptions_max)
        return ST_FULL;

    struct filter_entry *entry = shared ? NULL : filter_table_find(h->filters, filter);
    struct channel *ch = entry ? LIST_OF(entry, struct channel, entry) : NULL;
    bool fresh = !ch;
    if (fresh && channel_create(h, filter, matched, &ch) != ST_OK)
        return ST_NO_MEMORY;
    struct subscription *sub = calloc(1, sizeof *sub);
    if (!sub)
        goto fail_channel;
    sub->channel = ch;
    if ((shared ? seats_create(sub) : catchup_create(sub, &sub->behind)) != ST_OK ||
        channel_add(ch, sub) != ST_OK) {
        subscription_abandon(sub);
        goto fail_channel;
    }
    sub->session = s;
    sub->options = *o;
    sub->options.after = NULL;
    sub->options.walk_from = NULL;
    list_init(&sub->link);
    list_init(&sub->waiting);
    list_push(&s->subscriptions, &sub->link);
    s->subscription_count++;
    metric_add(h->metrics, M_SUBSCRIPTIONS, 1);
    *out = sub;
    if (shared)
        seats_join(sub);
    else
        cursor_attach(sub, o);
    if (old) /* a group must not end between */
        subscription_end(old);
    return ST_OK;

fail_channel:
    if (fresh) {
        channel_retire(ch);
        free(ch->subs);
        free(ch);
    }
    return ST_NO_MEMORY;
}

struct subscription *session_find(struct session *s, struct slice filter)
{
    LIST_EACH (node, &s->subscriptions) {
        struct subscription *sub = LIST_OF(node, struct subscription, link);
        if (slice_equal(subscription_filter(sub), filter))
            return sub;
    }
    return NULL;
}

enum status session_unsubscribe(struct session *s, struct slice filter)
{
    struct subscription *sub = session_find(s, filter);
    if (!sub)
        return ST_NOT_FOUND;
    subscription_end(sub);
    return ST_OK;
}

struct slice subscription_filter(const struct subscription *sub)
{
    return slice_of(sub->channel->filter, sub->channel->filter_len);
}

const struct subscription_options *subscription_options_of(const struct subscription *sub)
{
    return &sub->options;
}

void subscription_lanes(const struct subscription *sub, unsigned *first, unsigned *count)
{
    *first = sub->channel->first_lane;
    *count = sub->channel->lane_count;
}

void subscription_set_door(struct subscription *sub, void *door)
{
    sub->options.door = door;
}

/* --- sessions ----------------------------------------------------------------------------------- */

enum status session_create(struct hub *h, const struct transport_ops *ops, void *conn, struct session **out)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    s->hub = h;
    s->ops = ops;
    s->conn = conn;
    s->id = h->next_session_id++;
    list_init(&s->subscriptions);
    list_init(&s->waiting);
    if (roster_add(&h->roster, s->id, s) != ST_OK) {
        free(s);
        return ST_NO_MEMORY;
    }
    s->since_ms = loop_wall_ms(h->loop);
    *out = s;
    return ST_OK;
}

void session_end(struct session *s)
{
    if (!s)
        return;
    while (!list_empty(&s->subscriptions))
        subscription_end(LIST_OF(s->subscriptions.next, struct subscription, link));
    membership_end(s);
    roster_remove(&s->hub->roster, s->id);
    free(s);
}

uint64_t session_id(const struct session *s)
{
    return s->id;
}

const char *session_door(const struct session *s)
{
    return s->ops->door;
}

uint64_t session_since_ms(const struct session *s)
{
    return s->since_ms;
}

void hub_each_session(struct hub *h, void (*on_session)(void *ctx, struct session *s), void *ctx)
{
    for (size_t i = 0; i < h->roster.count; i++)
        if (h->roster.entries[i].session)
            on_session(ctx, h->roster.entries[i].session);
}

struct session *hub_find_session(struct hub *h, uint64_t id)
{
    return roster_find(&h->roster, id);
}

void session_describe(const struct session *s, struct connection_facts *out)
{
    out->client_id = out->session = out->address = (struct slice){0};
    out->queued_bytes = out->unacknowledged = 0;
    s->ops->describe(s->conn, out);
}

void session_kick(struct session *s)
{
    s->ops->kick(s->conn);
}

uint64_t subscription_behind(const struct subscription *sub)
{
    uint64_t behind = 0;
    unsigned first, count;
    subscription_lanes(sub, &first, &count);
    for (unsigned lane = first; sub->behind && lane < first + count; lane++) {
        uint64_t reached = subscription_reached(sub, lane), end = sub->channel->hub->delivered[lane];
        behind += end > reached ? end - reached : 0;
    }
    return behind;
}

uint32_t session_subscriptions(const struct session *s)
{
    return s->subscription_count;
}

void session_room(struct session *s)
{
    struct list again;
    if (list_empty(&s->waiting))
        return;
    list_init(&again);
    list_splice(&again, &s->waiting);
    while (!list_empty(&again)) {
        struct subscription *sub = LIST_OF(again.next, struct subscription, waiting);
        list_unlink(&sub->waiting);
        cursor_resume(sub);
    }
}

void session_each(struct session *s, void (*on_subscription)(void *ctx, struct subscription *sub), void *ctx)
{
    LIST_EACH (node, &s->subscriptions) {
        on_subscription(ctx, LIST_OF(node, struct subscription, link));
    }
}
