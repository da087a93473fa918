/* Catching up, and turning live: one mechanism for a replay from yesterday, a slow socket and a closed window
 * (ARCHITECTURE.md 4).
 *
 *   ATTACHING --ATTACHED--> [COUNTING] --> WAITING <--> READING --live--> LIVE
 *                                             ^                             |
 *                                             +------- no room -------------+
 *
 * While a lane is not LIVE, DELIVER letters pass it by: the records are in the log, and the cursor's READs
 * bring them. The shard answers a READ whose cursor has reached the end with `live`, in the same FIFO as its
 * DELIVERs, so nothing falls between and nothing comes twice.
 *
 * A lane of a new subscription is set LIVE by ATTACHED itself only when it is the subscription's only lane:
 * with several, the first would deliver before the door has told `subscribed`. They become cursors at their
 * ATTACHED offset instead, and the next READ finds them at the end. */
#include "session/hub_private.h"

#include <assert.h>
#include <stdlib.h>

enum { BATCH_FIRST = 32 };

struct lane_cursor *subscription_lane(struct subscription *sub, unsigned lane)
{
    return &sub->behind->lanes[lane - sub->channel->first_lane];
}

enum status catchup_create(struct subscription *sub, struct catchup **out)
{
    struct channel *ch = sub->channel;
    struct catchup *c = calloc(1, sizeof *c + ch->lane_count * sizeof c->lanes[0]);
    if (!c)
        return ST_NO_MEMORY;
    c->at.lane_count = ch->hub->map->lane_count;
    for (unsigned i = 0; i < ch->lane_count; i++) {
        c->lanes[i].sub = sub;
        c->lanes[i].lane = (uint16_t)(ch->first_lane + i);
        c->lanes[i].batch = BATCH_FIRST;
        list_init(&c->lanes[i].turn);
    }
    *out = c;
    return ST_OK;
}

static struct hub *cursor_hub(const struct lane_cursor *lc)
{
    return lc->sub->channel->hub;
}

/* --- becoming live ------------------------------------------------------------------------------ */

static void lane_set_behind(struct lane_cursor *lc, enum lane_state state)
{
    if (lc->state != LANE_WAITING && lc->state != LANE_READING)
        metric_add(cursor_hub(lc)->metrics, M_CURSORS, 1);
    lc->state = state;
}

/* The last lane to become live ends the catch-up: `lc` is gone then. */
static void lane_set_live(struct lane_cursor *lc)
{
    struct subscription *sub = lc->sub;
    struct catchup *c = sub->behind;
    if (lc->state == LANE_WAITING || lc->state == LANE_READING)
        metric_sub(cursor_hub(lc)->metrics, M_CURSORS, 1);
    lc->state = LANE_LIVE;
    c->at.next[lc->lane] = lc->next;
    hub_has_delivered(cursor_hub(lc), lc->lane, lc->next);
    if (++c->live_count < sub->channel->lane_count)
        return;
    sub->behind = NULL;
    if (c->announce && sub->channel->system)
        subscription_begin_system(sub);
    if (c->announce)
        sub->session->ops->live(sub->session->conn, sub, &c->at);
    free(c);
}

/* --- ATTACH ------------------------------------------------------------------------------------- */

void cursor_jump(struct lane_cursor *lc, uint64_t to, uint64_t count, enum metric why)
{
    struct session *s = lc->sub->session;
    const struct gap gap = {
        .lane = lc->lane, .from = lc->next, .to = to - 1, .count = count, .why = drop_reason(why)};
    subscription_dropped(lc->sub, &gap, why);
    if (why != M_DROPPED_EPOCH)
        lc->next = to;
    if (count > 0)
        s->ops->gap(s->conn, lc->sub, &gap);
}

static void subscription_tell_skipped(struct subscription *sub)
{
    struct session *s = sub->session;
    const struct lane_cursor *lc = &sub->behind->lanes[0];
    const struct gap gap = {.lane = lc->lane,
                            .from = sub->options.skipped_from,
                            .to = lc->next - 1,
                            .count = sub->options.skipped_count,
                            .why = drop_reason(M_DROPPED_RETENTION)};
    sub->options.skipped_count = 0;
    subscription_dropped(sub, &gap, M_DROPPED_RETENTION);
    s->ops->gap(s->conn, sub, &gap);
}

/* The lanes set off. `fresh`: ATTACHED has just been read. */
static void subscription_set_off(struct subscription *sub, bool fresh)
{
    struct catchup *c = sub->behind;
    unsigned lanes = sub->channel->lane_count;
    if (sub->options.skipped_count > 0)
        subscription_tell_skipped(sub);
    for (unsigned i = 0; i < lanes && sub->session && sub->behind == c; i++) {
        struct lane_cursor *lc = &c->lanes[i];
        if (lc->lost_to > 0) {
            /* Once: what it held nobody knows, and the client may have made it up. */
            cursor_jump(lc, lc->lost_to, 1, M_DROPPED_EPOCH);
            if (!sub->session)
                break;
        }
        if (fresh && lanes == 1 && lc->state == LANE_ATTACHING && lc->next == c->at.next[lc->lane])
            lane_set_live(lc); /* nothing was delivered since */
        else
            cursor_go(lc);
    }
}

/* Everything is known that `subscribed` tells. */
static void subscription_ready(struct subscription *sub)
{
    struct catchup *c = sub->behind;
    struct session *s = sub->session;
    c->announce = true;
    bool held = sub->options.held; /* the callback may begin it, too */
    sub->letters++; /* the callbacks may end it */
    s->ops->subscribed(s->conn, sub, &c->at, c->replay);
    if (sub->session && !held)
        subscription_set_off(sub, true);
    sub->letters--;
    subscription_release(sub);
}

void subscription_begin(struct subscription *sub)
{
    assert(sub->options.held && (sub->behind || sub->shared));
    sub->options.held = false;
    if (sub->shared) {
        seats_open(sub);
        return;
    }
    sub->letters++;
    subscription_set_off(sub, false);
    sub->letters--;
    subscription_release(sub);
}

static void cursor_counted(struct read *r)
{
    struct lane_cursor *lc = LIST_OF(r, struct lane_cursor, read);
    struct subscription *sub = lc->sub;
    subscription_letter_back(sub);
    if (!sub->session) {
        subscription_release(sub);
        return;
    }
    sub->behind->replay += r->store.status == ST_OK ? r->store.found : 0;
    if (lc->locating)
        lc->next = r->store.from;
    lc->locating = false;
    if (r->retained && r->store.status == ST_OK && r->store.next < r->store.end) {
        r->store.from = r->store.next;
        subscription_letter_sent(sub);
        shard_map_read(cursor_hub(lc)->map, cursor_hub(lc)->courier, r);
        return;
    }
    if (r->store.status == ST_GONE && r->store.first < r->store.to) { /* told as a gap by the first READ */
        r->store.from = r->store.first;
        subscription_letter_sent(sub);
        shard_map_read(cursor_hub(lc)->map, cursor_hub(lc)->courier, r);
        return;
    }
    if (--sub->behind->pending == 0)
        subscription_ready(sub);
}

static bool cursor_wants(void *ctx, struct slice topic)
{
    const struct channel *ch = ctx;
    return topic_matches(slice_of(ch->filter, ch->filter_len), topic);
}

void cursor_prepare_read(struct lane_cursor *lc, uint64_t to)
{
    struct channel *ch = lc->sub->channel;
    struct slice filter = slice_of(ch->filter, ch->filter_len);
    struct store_read *r = &lc->read.store;
    lc->read = (struct read){.store = {.lane = lc->lane,
                                       .from = lc->next,
                                       .to = to,
                                       .count_max = lc->batch,
                                       .bytes_max = ch->hub->limits.read_bytes}};
    if (topic_filter_literal(filter)) {
        r->topic = filter;
    } else if (topic_inbox_filter(filter, &r->topic)) {
        r->inbox = true;
        r->wants = slice_equal_cstr(slice_from(filter, r->topic.len), "/#") ? NULL : cursor_wants;
    } else {
        r->wants = cursor_wants;
    }
    r->wants_ctx = ch;
    r->filter = r->wants && !r->inbox ? filter : (struct slice){0};
}

static void cursor_prepare_walk(struct lane_cursor *lc)
{
    struct store_read *r = &lc->read.store;
    if (r->inbox) /* what is retained has no such list */
        *r = (struct store_read){.lane = r->lane,
                                 .wants = cursor_wants,
                                 .wants_ctx = r->wants_ctx,
                                 .count_max = r->count_max,
                                 .bytes_max = r->bytes_max,
                                 .count_only = r->count_only};
    lc->read.retained = true;
    lc->read.store.from = lc->walk;
    lc->read.store.to = lc->next; /* from there on what is retained comes as a record, too */
}

/* How many will be replayed? Lanes with something between their start and "now" ask the log. */
static void subscription_count(struct subscription *sub)
{
    struct catchup *c = sub->behind;
    c->pending = 1; /* held by this function */
    for (unsigned i = 0; i < sub->channel->lane_count; i++) {
        struct lane_cursor *lc = &c->lanes[i];
        if (lc->next >= c->at.next[lc->lane] && !lc->walking)
            continue;
        cursor_prepare_read(lc, c->at.next[lc->lane]);
        lc->read.store.count_only = true;
        if (lc->locating) {
            lc->read.store.locate = sub->options.start == START_TIME ? STORE_AT_TIME : STORE_AT_LAST;
            lc->read.store.locate_value = sub->options.start_value;
        }
        if (lc->walking)
            cursor_prepare_walk(lc);
        lc->read.on_read = cursor_counted;
        lc->state = LANE_COUNTING;
        c->pending++;
        subscription_letter_sent(sub);
        shard_map_read(sub->channel->hub->map, sub->channel->hub->courier, &lc->read);
    }
    if (--c->pending == 0)
        subscription_ready(sub);
}

/* The client has seen what this log does not hold: its folder was put back to an older state. It goes on at
 * the end, and is told so. A replica has only yet to read so far: there the cursor's READ waits. */
static void cursor_beyond(struct lane_cursor *lc, uint64_t end)
{
    lc->lost_to = lc->next;
    lc->next = end;
}

static void cursor_attached(struct attach *a)
{
    struct lane_cursor *lc = LIST_OF(a, struct lane_cursor, attach);
    struct subscription *sub = lc->sub;
    subscription_letter_back(sub);
    channel_attached(sub->channel, lc->lane, a->interest);
    if (!sub->session) {
        subscription_release(sub);
        return;
    }
    struct catchup *c = sub->behind;
    c->at.next[lc->lane] = a->next;
    lc->replay_to = sub->options.owed ? 0 : a->next;
    hub_has_delivered(cursor_hub(lc), lc->lane, a->next);
    lc->locating = sub->options.start == START_TIME || sub->options.start == START_LAST;
    lc->walking = a->has_retained && !sub->channel->system &&
                  (sub->options.start == START_LIVE ? sub->options.retained : sub->options.retained_again);
    if (sub->options.start == START_LIVE)
        lc->next = a->next;
    else if (sub->options.start == START_EARLIEST)
        lc->next = a->first;
    else if (lc->next > a->next && !shard_elsewhere(cursor_hub(lc)->map->lanes[lc->lane].shard))
        cursor_beyond(lc, a->next);
    if (--c->pending == 0)
        subscription_count(sub);
}

void cursor_attach(struct subscription *sub, const struct subscription_options *o)
{
    struct channel *ch = sub->channel;
    struct catchup *c = sub->behind;
    bool ask = !ch->asked;
    ch->asked = true;
    /* Lanes outside a literal filter keep what the client gave, or get about what they are at: the bookmark
     * is a place over all lanes, good for another filter too. */
    c->at.lane_count = ch->hub->map->lane_count;
    for (unsigned i = 0; i < c->at.lane_count; i++)
        c->at.next[i] =
            o->start == START_AFTER ? o->after->next[i] : shard_next_shown(ch->hub->map->lanes[i].shard);
    c->pending = ch->lane_count;
    for (unsigned i = 0; i < ch->lane_count; i++) {
        struct lane_cursor *lc = &c->lanes[i];
        lc->next = o->start == START_AFTER ? o->after->next[lc->lane] : 0;
        lc->walk = o->walk_from ? o->walk_from->next[lc->lane] : 0;
        lc->attach = (struct attach){.lane = lc->lane,
                                     .filter = slice_of(ch->filter, ch->filter_len),
                                     .wants_interest = ask,
                                     .on_attached = cursor_attached};
        subscription_letter_sent(sub);
        shard_map_attach(ch->hub->map, ch->hub->courier, &lc->attach);
    }
}

/* --- reading ------------------------------------------------------------------------------------ */

static void cursor_wait(struct lane_cursor *lc)
{
    struct subscription *sub = lc->sub;
    lane_set_behind(lc, LANE_WAITING);
    if (list_empty(&sub->waiting))
        list_push(&sub->session->waiting, &sub->waiting);
}

/* Messages that are not to be delivered, one behind the other for one reason, are told as one gap. */
struct withheld {
    struct gap gap;
    enum metric why;
};

static void withheld_tell(struct lane_cursor *lc, struct withheld *w)
{
    subscription_withheld(lc->sub, &w->gap, w->why);
    w->gap.count = 0;
}

static void withheld_add(struct lane_cursor *lc, struct withheld *w, const struct msg *m, enum metric why)
{
    if (w->why != why)
        withheld_tell(lc, w);
    if (w->gap.count++ == 0)
        w->gap.from = m->offset;
    w->gap.lane = lc->lane;
    w->gap.to = m->offset;
    w->why = why;
}

/* Offers what a READ has brought. False: the door has no room; lc->next is the first it did not take. */
static bool cursor_offer(struct lane_cursor *lc, struct read *r)
{
    struct hub *h = cursor_hub(lc);
    uint64_t *place = r->retained ? &lc->walk : &lc->next;
    struct withheld withheld = {0};
    enum metric why;
    for (uint64_t i = 0; i < r->store.found; i++) {
        struct delivery d = {.msg = r->store.msgs[i], .retained = r->retained, .live = false};
        if (!r->retained && hub_withholds(h, lc->sub, &d, &why)) {
            withheld_add(lc, &withheld, d.msg, why);
            continue;
        }
        withheld_tell(lc, &withheld);
        if (hub_offer(h, lc->sub, &d) == ST_AGAIN) {
            *place = r->store.msgs[i]->offset;
            lc->batch = i < 4 ? 4 : (uint32_t)i;
            return false;
        }
    }
    withheld_tell(lc, &withheld);
    *place = r->store.next;
    if (lc->batch < h->limits.read_count)
        lc->batch = lc->batch * 2 < h->limits.read_count ? lc->batch * 2 : h->limits.read_count;
    return true;
}

/* What lies before `next` cannot be had, nor counted: its index is gone or not to be believed. */
static void cursor_skip(struct lane_cursor *lc, uint64_t next, enum metric why)
{
    if (next > lc->next)
        cursor_jump(lc, next, next - lc->next, why);
}

static void cursor_has_read(struct read *r)
{
    struct lane_cursor *lc = LIST_OF(r, struct lane_cursor, read);
    struct subscription *sub = lc->sub;
    struct hub *h = cursor_hub(lc);
    bool room = true, live = r->live;
    uint64_t begun_ns = pace_begin(lc);
    lc->paced = false;
    lc->deep = r->from_log || r->retained;
    if (sub->session && r->store.status == ST_GONE)
        cursor_skip(lc, r->store.first, M_DROPPED_RETENTION);
    else if (sub->session && r->store.status == ST_CORRUPT) /* brings no messages, store.h */
        cursor_skip(lc, r->store.next, M_DROPPED_DAMAGED);
    else if (sub->session)
        room = cursor_offer(lc, r);
    if (r->retained && room && lc->walk >= r->store.end)
        lc->walking = false;
    read_release(r);
    subscription_letter_back(sub);
    if (!sub->session)
        subscription_release(sub);
    else if (!room)
        cursor_wait(lc);
    else if (live)
        lane_set_live(lc);
    else
        cursor_go(lc);
    pace_end(h, begun_ns);
}

void cursor_send_read(struct lane_cursor *lc)
{
    struct hub *h = cursor_hub(lc);
    subscription_letter_sent(lc->sub);
    shard_map_read(h->map, h->courier, &lc->read);
}

/* The next READ: of the retained messages first, then of the records until the shard says live. */
void cursor_go(struct lane_cursor *lc)
{
    lane_set_behind(lc, LANE_READING);
    if (lag_is_over(lc))
        return;
    cursor_prepare_read(lc, UINT64_MAX);
    lc->read.want_live = !lc->walking;
    if (lc->walking)
        cursor_prepare_walk(lc);
    lc->read.on_read = cursor_has_read;
    if (pace_ask(lc))
        cursor_send_read(lc);
}

void cursor_resume(struct subscription *sub)
{
    if (sub->shared)
        seats_open(sub);
    for (unsigned i = 0; sub->behind && i < sub->channel->lane_count; i++)
        if (sub->behind->lanes[i].state == LANE_WAITING)
            cursor_go(&sub->behind->lanes[i]);
}

void cursor_fall_behind(struct subscription *sub, unsigned lane, uint64_t offset)
{
    struct hub *h = sub->channel->hub;
    if (!sub->behind) {
        if (catchup_create(sub, &sub->behind) != ST_OK) {
            subscription_dropped(sub, &(struct gap){lane, offset, offset, 1, NULL}, M_DROPPED_QUEUE_FULL);
            return;
        }
        for (unsigned i = 0; i < sub->channel->lane_count; i++)
            sub->behind->lanes[i].state = LANE_LIVE;
        sub->behind->live_count = sub->channel->lane_count;
    }
    struct lane_cursor *lc = subscription_lane(sub, lane);
    assert(lc->state == LANE_LIVE);
    sub->behind->live_count--;
    lc->next = offset;
    metric_add(h->metrics, M_BECAME_CURSOR, 1);
    cursor_wait(lc);
}

uint64_t subscription_reached(const struct subscription *sub, unsigned lane)
{
    const struct channel *ch = sub->channel;
    const struct catchup *c = sub->behind;
    if (c && c->lanes[lane - ch->first_lane].state != LANE_LIVE)
        return c->lanes[lane - ch->first_lane].next;
    return ch->hub->delivered[lane];
}

bool subscription_walking(const struct subscription *sub)
{
    for (unsigned i = 0; sub->behind && i < sub->channel->lane_count; i++) {
        const struct lane_cursor *lc = &sub->behind->lanes[i];
        /* Before ATTACHED nobody knows whether there are any. */
        if (lc->walking || (lc->state == LANE_ATTACHING && sub->options.retained_again))
            return true;
    }
    return false;
}

uint64_t subscription_walk_place(const struct subscription *sub, unsigned lane)
{
    const struct catchup *c = sub->behind;
    const struct lane_cursor *lc = c ? &c->lanes[lane - sub->channel->first_lane] : NULL;
    bool walks = lc && (lc->walking || (lc->state == LANE_ATTACHING && sub->options.retained_again));
    return walks ? lc->walk : UINT64_MAX;
}
