/* What a group of shared subscriptions keeps. A member whose session outlives its connection is a kept
 * member: while the group has one, it has a record (share_record.h) in each of its lanes, and goes on while
 * nobody is on line, and behind a kill -9.
 *
 *   settled --> moved --save_ms, save_count--> record appended --> durable
 *   JOIN, TAKE, all have left ----------------> in this turn --------^ answers
 *
 * The record says how far the group has given (`next`), and which positions below are open: with members, or
 * given back. After a crash the open ones are given again, and what lies above: at least once. Two rules make
 * QoS 2 exactly once for a kept member:
 *
 *   - A message that is to be sent with QoS 2 is first written into the session's own record. Then TAKE says
 *     that it is the session's, and only when the group's record knows (it is not open, and below `next`) it
 *     is sent. From then on the group has nothing to do with it, whatever the session does.
 *   - A crash between the two writes leaves it in both. So at start all records of sessions are looked
 * through (gateway/mqtt/shared.c), and what stands in one of them is not given again: it is taken off the
 * open ones, or, not below `next`, is one of the passed ones, which the cursor leaves out. The session cannot
 *     forget it before that is durable, as its client is let in when its JOIN is.
 *
 * The same look at start finds kept members that have no session any more, and until when the others have:
 * so the end of a session need not be durable here at once, and nobody is kept for ever.
 *
 * One write of a group at a time; what is wanted meanwhile is in the next. But before retention takes away
 * what a record's `next` points to, a group that is further says so anew, at once (shard_shares_refresh). */
#include "routing/share_private.h"

#include "core/hash.h"
#include "core/logging.h"
#include "routing/share_record.h"
#include "routing/topic.h"

#include <stdlib.h>

enum { RETRY_MS = 50, EXPIRY_LOOK_MS = 3600 * 1000 };
/* A kept member outlives its session's record by this, so that who comes back at the last moment finds his
 * place; after a crash by more, as its end is only then written into that record (afterlife.c). */
enum { SLACK_MS = 2000, RECALL_SLACK_MS = 10 * 1000 };

static struct timer_wheel *timers_of(const struct shard *s)
{
    return loop_timers(courier_loop(s->group->courier));
}

static uint64_t now_ms(const struct shard *s)
{
    return loop_now_ms(courier_loop(s->group->courier));
}

/* --- the record --------------------------------------------------------------------------------- */

static bool is_stored(const struct share_ticket *t)
{
    return !t->msg || !(t->msg->flags & MSG_UNSTORED);
}

static uint32_t count_stored(const struct list *l)
{
    uint32_t count = 0;
    for (struct list *node = l->next; node != l; node = node->next)
        count += is_stored(LIST_OF(node, struct share_ticket, link));
    return count;
}

static void put_offsets(const struct list *l, struct buf *out)
{
    for (struct list *node = l->next; node != l; node = node->next) {
        const struct share_ticket *t = LIST_OF(node, struct share_ticket, link);
        if (is_stored(t))
            share_record_value(out, t->offset);
    }
}

static uint64_t share_place(const struct share *g)
{
    return g->live ? shard_end(g->shard) : g->next;
}

/* The passed ones that lie below `next` now. */
static void passed_trim(struct share *g, uint64_t next)
{
    uint32_t gone = 0;
    while (gone < g->passed_count && g->passed[gone] < next)
        gone++;
    if (gone == 0)
        return;
    g->passed_count -= gone;
    memmove(g->passed, g->passed + gone, g->passed_count * sizeof g->passed[0]);
}

static enum status record_payload(struct share *g, struct buf *out)
{
    const struct topic_log *log = &g->shard->group->log;
    uint64_t next = share_place(g);
    passed_trim(g, next);
    enum status st = share_record_begin(out, log->ops->epoch(log->ctx), next);
    if (st == ST_OK)
        st = share_record_run(out, g->kept_count);
    if (st != ST_OK)
        return st;
    LIST_EACH (node, &g->kept) {
        share_record_value(out, LIST_OF(node, struct share_kept, link)->id);
    }
    st = share_record_run(out, count_stored(&g->out) + count_stored(&g->back));
    if (st != ST_OK)
        return st;
    put_offsets(&g->out, out);
    put_offsets(&g->back, out);
    st = share_record_run(out, g->passed_count);
    for (uint32_t i = 0; st == ST_OK && i < g->passed_count; i++)
        share_record_value(out, g->passed[i]);
    return st;
}

/* `$group/...` is as long as `$share/...`. */
static enum status record_make(struct share *g, struct slice payload, struct msg **out)
{
    struct buf topic;
    buf_init(&topic, MSG_TOPIC_BYTES_MAX);
    enum status st = buf_put(&topic, slice_of(g->name, g->name_len));
    if (st == ST_OK) {
        memcpy(topic.data, "$group/", 7);
        st = msg_create(buf_slice(&topic), (struct slice){0}, (struct slice){0}, payload, out);
    }
    buf_deinit(&topic);
    if (st != ST_OK)
        return st;
    (*out)->flags = MSG_RETAIN | MSG_STATE;
    (*out)->content = CONTENT_BINARY;
    (*out)->partition = g->shard->lane;
    return ST_OK;
}

/* An empty payload: the record goes. */
static enum status record_append(struct share *g, struct slice payload)
{
    struct shard *s = g->shard;
    struct msg *m;
    const struct wish wish = {.wait = true};
    enum status st = record_make(g, payload, &m);
    if (st == ST_OK) {
        st = shard_propose(s, m, &wish);
        if (st == ST_OK)
            g->written_at = m->offset;
        msg_unref(m);
    }
    metric_add(s->group->metrics, st == ST_OK ? M_SHARE_WRITES : M_SHARE_WRITES_REFUSED, 1);
    return st;
}

static void answer_all(struct share *g, enum status status)
{
    while (!list_empty(&g->asked)) {
        struct share_letter *l = LIST_OF(g->asked.next, struct share_letter, link);
        list_unlink(&l->link);
        l->status = status;
        share_answer(g->shard, l);
    }
}

/* ST_OK: appended, and who has asked is answered when it is durable. */
static enum status share_save(struct share *g)
{
    struct shard *s = g->shard;
    struct buf payload;
    buf_init(&payload, UINT32_MAX);
    enum status st = record_payload(g, &payload);
    if (st == ST_OK)
        st = record_append(g, buf_slice(&payload));
    buf_deinit(&payload);
    if (st != ST_OK)
        return st;
    g->recorded = g->writing = true;
    g->stale = false;
    g->moved = 0;
    g->recorded_next = share_place(g);
    timer_cancel(timers_of(s), &g->later);
    list_unlink(&g->save);
    list_push(&s->shares.written, &g->save);
    while (!list_empty(&g->asked)) {
        struct share_letter *l = LIST_OF(g->asked.next, struct share_letter, link);
        list_unlink(&l->link);
        l->durable_at = g->written_at;
        list_push(&s->shares.unanswered, &l->link);
    }
    return ST_OK;
}

void shard_shares_save(struct shard *s)
{
    while (!list_empty(&s->shares.saving) && !timer_armed(&s->shares.again)) {
        struct share *g = LIST_OF(s->shares.saving.next, struct share, save);
        enum status st = share_save(g);
        if (st == ST_OK)
            continue;
        if (st != ST_FULL) /* not soon: who waits is told */
            answer_all(g, st);
        timer_arm(timers_of(s), &s->shares.again, now_ms(s) + RETRY_MS);
    }
}

void shard_on_share_timer(struct timer *t)
{
    struct shard *s = LIST_OF(t, struct shard, shares.again);
    s->dirty = true; /* the end of this turn tries again */
}

void shard_shares_durable(struct shard *s)
{
    while (!list_empty(&s->shares.unanswered)) {
        struct share_letter *l = LIST_OF(s->shares.unanswered.next, struct share_letter, link);
        if (l->durable_at >= s->durable)
            break;
        list_unlink(&l->link);
        share_answer(s, l);
    }
    while (!list_empty(&s->shares.written)) {
        struct share *g = LIST_OF(s->shares.written.next, struct share, save);
        if (g->written_at >= s->durable)
            break;
        list_unlink(&g->save);
        g->writing = false;
        if (g->stale)
            share_save_now(g);
    }
}

/* --- when it is written ------------------------------------------------------------------------- */

void share_save_now(struct share *g)
{
    g->stale = true;
    if (g->writing || g->kept_count == 0)
        return;
    g->shard->dirty = true;
    if (list_empty(&g->save))
        list_push(&g->shard->shares.saving, &g->save);
}

void share_save_then(struct share *g, struct share_letter *l)
{
    if (g->kept_count == 0) {
        share_answer(g->shard, l);
        return;
    }
    list_init(&l->link);
    list_push(&g->asked, &l->link);
    share_save_now(g);
}

void share_moved(struct share *g)
{
    const struct shard_limits *limits = &g->shard->group->limits;
    if (g->kept_count == 0 || g->stale)
        return;
    if (++g->moved >= limits->inbox.save_count)
        share_save_now(g);
    else if (!timer_armed(&g->later))
        timer_arm(timers_of(g->shard), &g->later, now_ms(g->shard) + limits->inbox.save_ms);
}

static void share_on_later(struct timer *t)
{
    share_save_now(LIST_OF(t, struct share, later));
}

/* What the log refuses is found at the next start: no session has such a group. */
void share_forget(struct share *g)
{
    timer_cancel(timers_of(g->shard), &g->later);
    timer_cancel(timers_of(g->shard), &g->expiry);
    list_unlink(&g->save);
    g->writing = g->stale = false;
    if (g->recorded && record_append(g, (struct slice){0}) != ST_OK)
        log_warn("the record of a group of shared subscriptions could not be removed lane=%u",
                 g->shard->lane);
    g->recorded = false;
    answer_all(g, ST_OK);
}

void shard_shares_refresh(struct shard *s, uint64_t upto)
{
    LIST_EACH (node, &s->shares.all) {
        struct share *g = LIST_OF(node, struct share, link);
        if (g->kept_count > 0 && g->recorded_next < upto && share_place(g) > g->recorded_next)
            (void)share_save(g); /* else the old one is carried, and the next start counts too many */
    }
}

/* --- kept members ------------------------------------------------------------------------------- */

static struct share_kept *kept_find(const struct share *g, uint64_t id)
{
    LIST_EACH (node, &g->kept) {
        struct share_kept *k = LIST_OF(node, struct share_kept, link);
        if (k->id == id)
            return k;
    }
    return NULL;
}

static enum status kept_add(struct share *g, uint64_t id, struct share_kept **out)
{
    struct share_kept *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    *k = (struct share_kept){.id = id, .until_ms = UINT64_MAX};
    list_init(&k->link);
    list_push(&g->kept, &k->link);
    g->kept_count++;
    metric_add(g->shard->group->metrics, M_SHARE_KEPT, 1);
    *out = k;
    return ST_OK;
}

/* It has no session any more. What waited for that alone is nobody's (MQTT-4.8.2-5). */
static void kept_remove(struct share *g, struct share_kept *k)
{
    if (k->owed > 0)
        share_count(g, M_DROPPED_SESSION, k->owed);
    list_unlink(&k->link);
    g->kept_count--;
    metric_sub(g->shard->group->metrics, M_SHARE_KEPT, 1);
    free(k);
}

enum status share_keep(struct share *g, uint64_t id, struct share_kept **out)
{
    struct share_kept *k = kept_find(g, id);
    if (shard_deferred(
            g->shard)) /* which member is next is then decided by all nodes together (CLUSTER.md) */
        return ST_FULL;
    if (!k && g->kept_count >= g->shard->group->limits.share.kept)
        return ST_FULL;
    enum status st = k ? ST_OK : kept_add(g, id, &k);
    if (st != ST_OK)
        return st;
    k->members++;
    k->owed = 0; /* its client is back, and gets them */
    *out = k;
    return ST_OK;
}

/* After one or more have been removed. */
static void kept_changed(struct share *g)
{
    if (!share_lives(g)) {
        share_end(g);
        return;
    }
    if (g->kept_count == 0)
        share_forget(g);
    else
        share_save_now(g);
}

static void expiry_arm(struct share *g)
{
    uint64_t first = UINT64_MAX, wall_ms = shard_wall_ms(g->shard);
    LIST_EACH (node, &g->kept) {
        struct share_kept *k = LIST_OF(node, struct share_kept, link);
        if (k->members == 0 && k->until_ms < first)
            first = k->until_ms;
    }
    timer_cancel(timers_of(g->shard), &g->expiry);
    if (first == UINT64_MAX)
        return;
    uint64_t in_ms = first > wall_ms ? first - wall_ms : 0;
    timer_arm(timers_of(g->shard), &g->expiry,
              now_ms(g->shard) + (in_ms < EXPIRY_LOOK_MS ? in_ms : EXPIRY_LOOK_MS));
}

static uint64_t with_slack(uint64_t until_ms, uint64_t slack_ms)
{
    return until_ms < UINT64_MAX - slack_ms ? until_ms + slack_ms : UINT64_MAX;
}

void share_kept_leaves(struct share *g, struct share_kept *k, const struct share_letter *l)
{
    if (--k->members > 0)
        return; /* a subscription that has been replaced */
    if (l->until_ms > 0) {
        k->until_ms = with_slack(l->until_ms, SLACK_MS);
        k->owed = l->owed;
        expiry_arm(g);
        return;
    }
    kept_remove(g, k);
    if (g->member_count > 0 || g->kept_count > 0) /* else the group ends (share_leave) */
        kept_changed(g);
}

static void share_on_expiry(struct timer *t)
{
    struct share *g = LIST_OF(t, struct share, expiry);
    uint32_t before = g->kept_count;
    LIST_EACH (node, &g->kept) {
        struct share_kept *k = LIST_OF(node, struct share_kept, link);
        if (k->members == 0 && k->until_ms <= shard_wall_ms(g->shard))
            kept_remove(g, k);
    }
    expiry_arm(g);
    if (g->kept_count == before)
        return;
    kept_changed(g);
    if (g->over)
        share_part(g); /* gone, when nothing of it is out */
}

void share_release(struct shard *s, struct share_letter *l)
{
    struct share *g = share_find(s, l->filter);
    struct share_kept *k = g ? kept_find(g, l->keep_id) : NULL;
    if (k && k->members == 0) {
        kept_remove(g, k);
        kept_changed(g);
        if (g->over)
            share_part(g);
    }
    share_answer(s, l);
}

bool share_has_passed(const struct share *g, uint64_t offset)
{
    for (uint32_t i = 0; i < g->passed_count && g->passed[i] <= offset; i++)
        if (g->passed[i] == offset)
            return true;
    return false;
}

void share_kept_init(struct share *g)
{
    list_init(&g->kept);
    list_init(&g->save);
    list_init(&g->asked);
    timer_init(&g->later, share_on_later);
    timer_init(&g->expiry, share_on_expiry);
}

void share_kept_deinit(struct share *g)
{
    timer_cancel(timers_of(g->shard), &g->later);
    timer_cancel(timers_of(g->shard), &g->expiry);
    list_unlink(&g->save);
    while (!list_empty(&g->kept)) {
        struct share_kept *k = LIST_OF(g->kept.next, struct share_kept, link);
        list_unlink(&k->link);
        free(k);
    }
    free(g->passed);
}

/* --- at start ----------------------------------------------------------------------------------- */

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static enum status load_open(struct share *g, struct slice open)
{
    size_t count = share_record_count(open);
    uint64_t *offsets = malloc((count + 1) * sizeof *offsets);
    enum status st = offsets ? ST_OK : ST_NO_MEMORY;
    for (size_t i = 0; st == ST_OK && i < count; i++)
        offsets[i] = share_record_at(open, i);
    if (st == ST_OK)
        qsort(offsets, count, sizeof *offsets, compare_offsets);
    for (size_t i = 0; st == ST_OK && i < count; i++)
        st = share_owe(g, offsets[i]);
    free(offsets);
    return st;
}

static enum status passed_add(struct share *g, uint64_t offset)
{
    uint64_t *passed = realloc(g->passed, (g->passed_count + 1) * sizeof *passed);
    if (!passed)
        return ST_NO_MEMORY;
    g->passed = passed;
    passed[g->passed_count++] = offset;
    qsort(passed, g->passed_count, sizeof *passed, compare_offsets);
    return ST_OK;
}

static enum status load_record(struct share *g, const struct share_record *r)
{
    struct share_kept *k;
    enum status st = load_open(g, r->open);
    for (size_t i = 0; st == ST_OK && i < share_record_count(r->kept); i++)
        if (!kept_find(g, share_record_at(r->kept, i)))
            st = kept_add(g, share_record_at(r->kept, i), &k);
    for (size_t i = 0; st == ST_OK && i < share_record_count(r->passed); i++)
        st = passed_add(g, share_record_at(r->passed, i));
    if (st == ST_OK)
        st = hash_slots_reserve(&g->shard->shares.tags);
    if (st == ST_OK)
        hash_slots_insert(&g->shard->shares.tags, g->tag, g);
    g->recorded = true;
    g->recorded_next = g->next = r->next;
    share_set_live(g, false);
    return st;
}

struct loading {
    struct shard *shard;
    enum status status;
};

static void load_one(void *ctx, const struct msg *m)
{
    struct loading *l = ctx;
    struct shard *s = l->shard;
    const struct topic_log *log = &s->group->log;
    struct share_record r;
    struct share *g;
    struct slice matched;
    uint64_t groups = s->group->limits.share.groups;
    if (l->status != ST_OK || share_record_read(msg_payload(m), &r) != ST_OK ||
        r.epoch != log->ops->epoch(log->ctx))
        return; /* what was before another epoch is no place in this log */
    struct buf name;
    buf_init(&name, MSG_TOPIC_BYTES_MAX);
    l->status = buf_put(&name, msg_topic(m));
    if (l->status == ST_OK) {
        memcpy(name.data, "$share/", 7);
        if (topic_share_filter(buf_slice(&name), &matched)) {
            s->group->limits.share.groups = UINT64_MAX; /* a smaller limit takes nothing away */
            l->status = share_create(s, buf_slice(&name), &g);
            s->group->limits.share.groups = groups;
            if (l->status == ST_OK)
                l->status = load_record(g, &r);
        }
    }
    buf_deinit(&name);
}

enum status shard_shares_load(struct shard *s)
{
    struct loading l = {.shard = s, .status = ST_OK};
    retained_each(s->shares.records, load_one, &l);
    return l.status;
}

bool shard_shares_kept(const struct shard *s)
{
    return s->shares.tags.count > 0;
}

void shard_share_member(struct shard *s, struct slice filter, uint64_t keep_id, uint64_t until_ms)
{
    struct share *g = share_find(s, filter);
    struct share_kept *k = g ? kept_find(g, keep_id) : NULL;
    if (!k)
        return;
    k->known = true;
    k->until_ms = with_slack(until_ms, RECALL_SLACK_MS);
}

void shard_share_taken(struct shard *s, uint64_t tag, uint64_t keep_id, uint64_t offset)
{
    size_t at = 0;
    struct share *g = hash_slots_first(&s->shares.tags, tag, &at);
    while (g && g->tag != tag)
        g = hash_slots_next(&s->shares.tags, tag, &at);
    if (!g)
        return;
    struct share_kept *k = kept_find(g, keep_id);
    if (k)
        k->owed++;
    if (offset >= g->next) {
        if (!share_has_passed(g, offset) && passed_add(g, offset) != ST_OK)
            abort(); /* it would be given twice */
        return;
    }
    LIST_EACH (node, &g->back) {
        struct share_ticket *t = LIST_OF(node, struct share_ticket, link);
        if (t->offset == offset)
            share_ticket_drop(t);
    }
}

void shard_share_recalled(struct shard *s)
{
    hash_slots_deinit(&s->shares.tags);
    s->shares.tags = (struct hash_slots){0};
    LIST_EACH (node, &s->shares.all) {
        struct share *g = LIST_OF(node, struct share, link);
        LIST_EACH (member, &g->kept) {
            struct share_kept *k = LIST_OF(member, struct share_kept, link);
            if (!k->known) {
                k->owed = 0; /* nobody knows of how many */
                kept_remove(g, k);
                k = NULL;
            }
        }
        if (!share_lives(g)) {
            share_end(g);
            share_part(g);
        } else {
            expiry_arm(g);
        }
    }
}
