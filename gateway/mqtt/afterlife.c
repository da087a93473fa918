/* A soul is one session with something to do:
 *
 *   waits for its time -> READ -> [its will is published] -> the record is written without it
 *
 * The record is the truth: if a connection has the session again, or the will is not in it any more, there is
 * nothing to do. It is written under the attachment that was read, so a client that comes back in between is
 * not overwritten. A crash between will and record lets the will be published twice, never not at all; by its
 * identity the shard knows the second (will.h). */
#include "gateway/mqtt/afterlife.h"

#include "core/logging.h"
#include "gateway/mqtt/record.h"
#include "gateway/mqtt/will.h"
#include "session/away.h"

#include <stdlib.h>

enum { RETRY_MS = 1000 };

struct soul {
    struct list link;
    struct mqtt_afterlife *owner;
    struct timer timer;
    struct away away;
    struct buf record; /* as it is to be */
    uint64_t expires_ms; /* of it */
};

struct mqtt_afterlife {
    struct mqtt_door *door;
    struct list souls;
    struct away_walk walk;
};

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
    timer_arm(loop_timers(loop_of(s)), &s->timer,
              loop_now_ms(loop_of(s)) + (due_ms > wall_ms ? due_ms - wall_ms : 0));
}

/* While the node stops nothing is begun: what it asks would come back to nobody. The next start does it. */
static void soul_on_time(struct timer *t)
{
    struct soul *s = LIST_OF(t, struct soul, timer);
    if (!atomic_load(&s->owner->door->edge->facts->stopping))
        away_read(&s->away);
}

static void soul_write(struct soul *s)
{
    if (away_write(&s->away, buf_slice(&s->record), s->expires_ms) != ST_OK)
        soul_free(s); /* as it was, until the next start */
}

static void soul_will_published(struct publish *p)
{
    struct soul *s = p->owner;
    publish_free(p);
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

static void soul_has_read(struct away *a, enum status status, struct slice record)
{
    struct soul *s = LIST_OF(a, struct soul, away);
    struct edge *e = s->owner->door->edge;
    struct record_reader r;
    struct record_head head;
    struct mqtt_will *will = NULL;
    uint64_t now_ms = loop_wall_ms(e->loop);
    if (status != ST_OK || mqtt_record_open(record, &r, &head) != ST_OK ||
        (head.node_incarnation != 0 && !facts_own_past(e->facts, head.node_incarnation)) ||
        (head.node_incarnation == 0 && !head.has_will)) {
        soul_free(s); /* its client is back, perhaps at another node, or all is done */
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
    bool again = status != ST_OK && status != ST_GONE; /* the log is full: later */
    bool waits =
        s->record.len > 0 && mqtt_record_open(buf_slice(&s->record), &r, &head) == ST_OK && head.has_will;
    if (again)
        soul_wait(s, loop_wall_ms(loop_of(s)) + RETRY_MS);
    else if (status == ST_OK && waits)
        soul_wait(s, head.will.due_ms);
    else
        soul_free(s);
}

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
    list_push(&a->souls, &s->link);
    soul_wait(s, due_ms);
}

void afterlife_add(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES], struct mqtt_will *will)
{
    soul_make(a, name, will->due_ms);
    mqtt_will_free(will);
}

/* --- at start ----------------------------------------------------------------------------------- */

static void walk_on_record(struct away_walk *w, const char name[KEEPER_NAME_BYTES], struct slice record)
{
    struct mqtt_afterlife *a = LIST_OF(w, struct mqtt_afterlife, walk);
    struct record_reader r;
    struct record_head head;
    if (mqtt_record_open(record, &r, &head) != ST_OK)
        return; /* a WebSocket's, most probably */
    if (head.node_incarnation != 0 && facts_own_past(a->door->edge->facts, head.node_incarnation))
        soul_make(a, name, 0);
    else if (head.node_incarnation == 0 && head.has_will)
        soul_make(a, name, head.will.due_ms);
}

static void walk_next(struct away_walk *w)
{
    while (w->lane < hub_lane_count(w->hub) && !hub_is_home(w->hub, w->lane))
        w->lane++;
    if (w->lane < hub_lane_count(w->hub))
        away_walk_start(w);
}

static void walk_on_end(struct away_walk *w)
{
    w->lane++;
    walk_next(w);
}

enum status afterlife_create(struct mqtt_door *d, struct mqtt_afterlife **out)
{
    struct mqtt_afterlife *a = calloc(1, sizeof *a);
    if (!a)
        return ST_NO_MEMORY;
    a->door = d;
    list_init(&a->souls);
    a->walk.hub = d->edge->hub;
    a->walk.on_record = walk_on_record;
    a->walk.on_end = walk_on_end;
    *out = a;
    return ST_OK;
}

void afterlife_start(struct mqtt_afterlife *a)
{
    walk_next(&a->walk);
}

void afterlife_destroy(struct mqtt_afterlife *a)
{
    if (!a)
        return;
    while (!list_empty(&a->souls))
        soul_free(LIST_OF(a->souls.next, struct soul, link));
    free(a);
}
