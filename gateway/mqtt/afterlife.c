/* A soul is one session with something to do:
 *
 *   waits for its time -> READ -> [its will is published] -> the record is written without it
 *
 * The record is the truth: if a connection has the session again, or the will is not in it any more, there is
 * nothing to do. It is written under the attachment that was read, so a client that comes back in between is
 * not overwritten. A crash between will and record lets the will be published twice, never not at all; by its
 * identity the shard knows the second (will.h). */
#include "gateway/mqtt/afterlife.h"

#include "core/hash.h"
#include "core/logging.h"
#include "gateway/mqtt/record.h"
#include "gateway/mqtt/will.h"
#include "routing/topic_log_kafka.h"
#include "session/away.h"

#include <stdlib.h>

enum {
    RETRY_MS = 1000,
    SPREAD_MS = 1000, /* over which the living nodes come by: mostly one finds that all is done */
    SOUL_BUCKETS = 1024, /* by name */
    BEHIND_THE_FIRST_MS = 2000, /* so much later others look whether a will has been sent */
};

struct soul {
    struct list link;
    struct mqtt_afterlife *owner;
    struct timer timer;
    struct away away;
    struct buf record; /* as it is to be */
    uint64_t expires_ms; /* of it */
    uint64_t due_ms; /* Unix time at which it looks, while it waits */
};

struct mqtt_afterlife {
    struct mqtt_door *door;
    struct list souls[SOUL_BUCKETS];
    struct away_walk walk;
    struct timer walk_timer;
    bool walking;
    bool lost[PLACE_LANES_MAX]; /* lanes to look at */
};

/* Is what this node has read what the log says now? */
static bool up_to_date(const struct edge *e)
{
    return !e->facts->kafka || log_kafka_state(e->facts->kafka) == LOG_KAFKA_READY;
}

static struct list *bucket_of(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES])
{
    return &a->souls[hash64(slice_of(name, KEEPER_NAME_BYTES)) % SOUL_BUCKETS];
}

static struct loop *loop_of(const struct soul *s)
{
    return s->owner->door->edge->loop;
}

static void soul_free(struct soul *s)
{
    timer_cancel(loop_timers(loop_of(s)), &s->timer);
    list_unlink(&s->link);
    buf_deinit(&s->record);
    free(s);
}

static void soul_wait(struct soul *s, uint64_t due_ms)
{
    uint64_t wall_ms = loop_wall_ms(loop_of(s));
    s->due_ms = due_ms;
    timer_arm(loop_timers(loop_of(s)), &s->timer,
              loop_now_ms(loop_of(s)) + (due_ms > wall_ms ? due_ms - wall_ms : 0));
}

/* While the node stops nothing is begun: what it asks would come back to nobody. The next start does it. */
static void soul_on_time(struct timer *t)
{
    struct soul *s = LIST_OF(t, struct soul, timer);
    const struct edge *e = s->owner->door->edge;
    if (atomic_load(&e->facts->stopping))
        return;
    if (up_to_date(e))
        away_read(&s->away);
    else
        soul_wait(s, loop_wall_ms(e->loop) + RETRY_MS);
}

static void soul_write(struct soul *s)
{
    if (away_write(&s->away, buf_slice(&s->record), s->expires_ms) != ST_OK)
        soul_free(s); /* as it was, until the next start */
}

static void soul_will_published(struct publish *p)
{
    struct soul *s = p->owner;
    enum status st = p->status;
    bool shared = s->owner->door->edge->facts->kafka;
    publish_free(p);
    /* Not now, or nobody knows: the record has it still, and its identity makes it one. */
    if (shared && (st == ST_FULL || st == ST_CLOSED || st == ST_NO_SPACE || st == ST_EXPIRED))
        soul_wait(s, loop_wall_ms(loop_of(s)) + RETRY_MS);
    else
        soul_write(s);
}

/* The record again, with another head. */
static enum status soul_remake(struct soul *s, const struct record_head *head, struct slice rest)
{
    buf_clear(&s->record);
    enum status st = mqtt_record_begin(&s->record, head);
    return st == ST_OK ? buf_put(&s->record, rest) : st;
}

/* What follows from the end of a connection that nobody has seen ending. */
static void head_detach(struct record_head *h, uint64_t now_ms)
{
    bool never = h->expiry_s == RECORD_NEVER;
    uint64_t delay_s = !never && h->expiry_s < h->will.delay_s ? h->expiry_s : h->will.delay_s;
    h->node_incarnation = 0;
    h->unclean = true;
    h->expires_ms = never ? 0 : now_ms + (uint64_t)h->expiry_s * 1000;
    if (h->has_will)
        h->will.due_ms = now_ms + delay_s * 1000;
}

static bool is_over(const struct soul *s, uint64_t incarnation)
{
    return facts_own_past(s->owner->door->edge->facts, incarnation) ||
           away_holder_ended(&s->away, incarnation);
}

static void soul_has_read(struct away *a, enum status status, struct slice record)
{
    struct soul *s = LIST_OF(a, struct soul, away);
    struct edge *e = s->owner->door->edge;
    struct record_reader r;
    struct record_head head;
    struct mqtt_will *will = NULL;
    uint64_t now_ms = loop_wall_ms(e->loop);
    if (status != ST_OK || mqtt_record_open(record, &r, &head) != ST_OK ||
        (head.node_incarnation != 0 && !is_over(s, head.node_incarnation)) ||
        (head.node_incarnation == 0 && !head.has_will)) {
        soul_free(s); /* its client is back, perhaps at another node, or all is done */
        return;
    }
    if (head.node_incarnation == 0 && head.will.due_ms > now_ms && e->facts->kafka) {
        soul_wait(s, head.will.due_ms + BEHIND_THE_FIRST_MS); /* another node has begun the delay */
        return;
    }
    if (head.node_incarnation != 0)
        head_detach(&head, now_ms);
    if (head.has_will && head.will.due_ms <= now_ms) {
        head.has_will = mqtt_will_read(&head.will, &will) != ST_OK;
        if (will)
            mqtt_will_identify(e, will, head.session_incarnation, s->away.attachment);
    }
    /* Of the parts behind the head the reader has taken the first count: it stands in front of `rest`. */
    struct slice rest = slice_of(r.rest.data - 2, r.rest.len + 2);
    s->expires_ms = head.expires_ms + (head.has_will && head.expires_ms ? RECORD_WILL_GRACE_MS : 0);
    bool over = !head.has_will && head.expires_ms > 0 && head.expires_ms <= now_ms;
    if (!over && soul_remake(s, &head, rest) != ST_OK) {
        mqtt_will_free(will);
        soul_free(s);
        return;
    }
    if (over)
        buf_clear(&s->record);
    if (!will || mqtt_will_publish(e, will, 0, s, soul_will_published) != ST_OK)
        soul_write(s);
}

static void soul_has_written(struct away *a, enum status status)
{
    struct soul *s = LIST_OF(a, struct soul, away);
    struct record_reader r;
    struct record_head head;
    bool gone = status == ST_GONE && !s->owner->door->edge->facts->kafka;
    bool again = status != ST_OK && !gone; /* the log is full, or another node was first: it is read again */
    bool waits =
        s->record.len > 0 && mqtt_record_open(buf_slice(&s->record), &r, &head) == ST_OK && head.has_will;
    if (again)
        soul_wait(s, loop_wall_ms(loop_of(s)) + RETRY_MS);
    else if (status == ST_OK && waits)
        soul_wait(s, head.will.due_ms);
    else
        soul_free(s);
}

/* `due_ms`: Unix time. */
static void soul_make(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES], uint64_t due_ms)
{
    struct soul *s = calloc(1, sizeof *s);
    if (!s) {
        log_warn("no memory for a session's will or expiry: it waits for the next start");
        return;
    }
    s->owner = a;
    timer_init(&s->timer, soul_on_time);
    away_init(&s->away, a->door->edge->hub, name);
    s->away.on_read = soul_has_read;
    s->away.on_written = soul_has_written;
    buf_init(&s->record, UINT32_MAX);
    list_init(&s->link);
    list_push(bucket_of(a, name), &s->link);
    soul_wait(s, due_ms);
}

void afterlife_add(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES], struct mqtt_will *will)
{
    soul_make(a, name, will->due_ms);
    mqtt_will_free(will);
}

/* --- at start ----------------------------------------------------------------------------------- */

/* Each end of a node brings all that waits in a lane once more: what waits already looks then, or before. */
static void soul_make_once(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES], uint64_t due_ms)
{
    LIST_EACH (node, bucket_of(a, name)) {
        struct soul *s = LIST_OF(node, struct soul, link);
        if (memcmp(s->away.topic + AWAY_TOPIC_BYTES - KEEPER_NAME_BYTES, name, KEEPER_NAME_BYTES) != 0 ||
            !timer_armed(&s->timer))
            continue;
        if (due_ms < s->due_ms)
            soul_wait(s, due_ms);
        return;
    }
    soul_make(a, name, due_ms);
}

/* Each node its own, of each session. */
static uint64_t spread_ms(const struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES])
{
    return (hash64_stable(slice_of(name, KEEPER_NAME_BYTES)) ^ a->door->edge->facts->incarnation) % SPREAD_MS;
}

static void walk_on_record(struct away_walk *w, const char name[KEEPER_NAME_BYTES], struct slice record)
{
    struct mqtt_afterlife *a = LIST_OF(w, struct mqtt_afterlife, walk);
    struct record_reader r;
    struct record_head head;
    if (mqtt_record_open(record, &r, &head) != ST_OK)
        return; /* a WebSocket's, most probably */
    const struct edge *e = a->door->edge;
    struct away probe;
    away_init(&probe, e->hub, name);
    if (head.node_incarnation != 0 && facts_own_past(e->facts, head.node_incarnation))
        soul_make_once(a, name, 0);
    else if (head.node_incarnation != 0 && away_holder_ended(&probe, head.node_incarnation))
        soul_make_once(a, name, loop_wall_ms(e->loop) + spread_ms(a, name));
    else if (head.node_incarnation == 0 && head.has_will)
        soul_make_once(a, name, head.will.due_ms + (e->facts->kafka ? BEHIND_THE_FIRST_MS : 0));
}

/* The next lane that is to be looked at, when this node knows what the log says now. */
static void walk_next(struct mqtt_afterlife *a)
{
    struct edge *e = a->door->edge;
    unsigned lane = 0;
    while (lane < hub_lane_count(e->hub) && !a->lost[lane])
        lane++;
    a->walking = lane < hub_lane_count(e->hub) && !atomic_load(&e->facts->stopping);
    if (!a->walking)
        return;
    if (!up_to_date(e)) {
        a->walking = false;
        timer_arm(loop_timers(e->loop), &a->walk_timer, loop_now_ms(e->loop) + RETRY_MS);
        return;
    }
    a->lost[lane] = false;
    a->walk.lane = lane;
    away_walk_start(&a->walk);
}

static void walk_on_end(struct away_walk *w)
{
    walk_next(LIST_OF(w, struct mqtt_afterlife, walk));
}

static void walk_on_timer(struct timer *t)
{
    struct mqtt_afterlife *a = LIST_OF(t, struct mqtt_afterlife, walk_timer);
    if (!a->walking)
        walk_next(a);
}

void afterlife_lane_lost(struct mqtt_afterlife *a, unsigned lane)
{
    a->lost[lane] = true;
    if (!a->walking && !timer_armed(&a->walk_timer))
        timer_arm(loop_timers(a->door->edge->loop), &a->walk_timer, loop_now_ms(a->door->edge->loop));
}

enum status afterlife_create(struct mqtt_door *d, struct mqtt_afterlife **out)
{
    struct mqtt_afterlife *a = calloc(1, sizeof *a);
    if (!a)
        return ST_NO_MEMORY;
    a->door = d;
    for (unsigned i = 0; i < SOUL_BUCKETS; i++)
        list_init(&a->souls[i]);
    timer_init(&a->walk_timer, walk_on_timer);
    a->walk.hub = d->edge->hub;
    a->walk.on_record = walk_on_record;
    a->walk.on_end = walk_on_end;
    *out = a;
    return ST_OK;
}

void afterlife_start(struct mqtt_afterlife *a)
{
    for (unsigned lane = 0; lane < hub_lane_count(a->door->edge->hub); lane++)
        a->lost[lane] = hub_is_home(a->door->edge->hub, lane);
    walk_next(a);
}

void afterlife_destroy(struct mqtt_afterlife *a)
{
    if (!a)
        return;
    timer_cancel(loop_timers(a->door->edge->loop), &a->walk_timer);
    for (unsigned i = 0; i < SOUL_BUCKETS; i++)
        while (!list_empty(&a->souls[i]))
            soul_free(LIST_OF(a->souls[i].next, struct soul, link));
    free(a);
}
