/* Inbox cursors: of each user, the offset below which his connections have acknowledged everything. Any of
 * them moves it, from any loop, so it is decided here, where the inbox lies: the furthest counts, and it
 * never goes back.
 *
 * What is durable is a keyed record at `$inbox/<id>`, folded into a table as sessions' records are. What has
 * moved since is in `moved`, until it is written: after save_ms, when save_count messages have been
 * acknowledged, or at once for a connection that ends. Whoever asks is told the greater of the two, so a
 * second connection does not get what the first has acknowledged a moment ago; a crash repeats at most what
 * was not written.
 *
 *   MOVE -> moved (by topic; in the order of their due times) -> record appended -> table */
#include "routing/shard_private.h"

#include "core/hash.h"
#include "routing/inbox_record.h"

#include <stdlib.h>

enum { RECORD_SLACK_MS = 1000 };

struct inbox_moved {
    struct list link; /* inboxes.due */
    uint64_t hash, due_ms;
    uint64_t next, count; /* acknowledged since the record */
    size_t len;
    uint8_t topic[];
};

static struct slice moved_topic(const struct inbox_moved *m)
{
    return slice_of(m->topic, m->len);
}

static struct inbox_moved *moved_find(const struct shard *s, struct slice topic)
{
    uint64_t hash = hash64(topic);
    size_t at = 0;
    struct inbox_moved *m = hash_slots_first(&s->inboxes.moved, hash, &at);
    while (m && !slice_equal(moved_topic(m), topic))
        m = hash_slots_next(&s->inboxes.moved, hash, &at);
    return m;
}

static void moved_drop(struct shard *s, struct inbox_moved *m)
{
    hash_slots_remove(&s->inboxes.moved, m->hash, m);
    list_unlink(&m->link);
    free(m);
}

/* Where the record says. ST_NOT_FOUND: there is none that counts. */
static enum status record_place(const struct shard *s, struct slice topic, uint64_t *next)
{
    const struct topic_log *log = &s->group->log;
    struct msg *m = retained_get(s->inboxes.records, topic);
    if (!m || (m->expires_ms && shard_time_ms(s) >= m->expires_ms))
        return ST_NOT_FOUND;
    return inbox_record_read(msg_payload(m), log->ops->epoch(log->ctx), next) == ST_OK ? ST_OK : ST_NOT_FOUND;
}

static enum status inbox_place(struct shard *s, struct slice topic, uint64_t *next)
{
    const struct inbox_moved *m = moved_find(s, topic);
    if (!m)
        return record_place(s, topic, next);
    *next = m->next;
    return ST_OK;
}

/* --- writing ------------------------------------------------------------------------------------ */

/* What lies below the place was published before now: keep_ms later it is kept no more, with or without a
 * cursor. */
static enum status make_record(struct shard *s, const struct inbox_moved *m, struct msg **out)
{
    const struct topic_log *log = &s->group->log;
    uint8_t bytes[INBOX_RECORD_BYTES];
    inbox_record_write(log->ops->epoch(log->ctx), m->next, bytes);
    enum status st =
        msg_create(moved_topic(m), (struct slice){0}, (struct slice){0}, slice_of(bytes, sizeof bytes), out);
    if (st != ST_OK)
        return st;
    (*out)->flags = MSG_RETAIN | MSG_STATE;
    (*out)->content = CONTENT_BINARY;
    (*out)->partition = s->lane;
    uint64_t keep_ms = s->group->limits.inbox.keep_ms;
    (*out)->expires_ms = keep_ms > 0 ? shard_wall_ms(s) + keep_ms + RECORD_SLACK_MS : 0;
    return ST_OK;
}

static void inbox_arm(struct shard *s)
{
    struct loop *loop = courier_loop(s->group->courier);
    if (list_empty(&s->inboxes.due) || timer_armed(&s->inboxes.timer))
        return;
    timer_arm(loop_timers(loop), &s->inboxes.timer,
              LIST_OF(s->inboxes.due.next, struct inbox_moved, link)->due_ms);
}

/* To the end of those that wait: all wait equally long, nearly. */
static void moved_wait(struct shard *s, struct inbox_moved *m, uint64_t more_ms)
{
    list_unlink(&m->link);
    m->due_ms = loop_now_ms(courier_loop(s->group->courier)) + s->group->limits.inbox.save_ms + more_ms;
    list_push(&s->inboxes.due, &m->link);
    inbox_arm(s);
}

/* Frees it, unless the log is to be asked again later (ST_FULL and the like), or to bring it. */
static enum status moved_write(struct shard *s, struct inbox_moved *m)
{
    struct msg *record;
    enum status st = make_record(s, m, &record);
    if (st == ST_OK) {
        const struct wish w = {.condition = PROPOSAL_INBOX};
        st = shard_has_room_to_keep(s, s->inboxes.records, record) ? shard_propose(s, record, &w) : ST_QUOTA;
        msg_unref(record);
    }
    metric_add(s->group->metrics, st == ST_OK ? M_INBOX_WRITES : M_INBOX_WRITES_REFUSED, 1);
    if (st == ST_OK && shard_deferred(s)) {
        m->count = 0;
        moved_wait(
            s, m, 1); /* it is dropped when the record has come; one that has not by then is proposed again */
    } else if (st == ST_OK || st == ST_QUOTA) {
        moved_drop(s, m);
    }
    return st == ST_QUOTA ? ST_OK : st;
}

void shard_on_inbox_timer(struct timer *t)
{
    struct shard *s = LIST_OF(t, struct shard, inboxes.timer);
    uint64_t now_ms = loop_now_ms(courier_loop(s->group->courier));
    while (!list_empty(&s->inboxes.due)) {
        struct inbox_moved *m = LIST_OF(s->inboxes.due.next, struct inbox_moved, link);
        if (m->due_ms > now_ms)
            break;
        if (moved_write(s, m) != ST_OK) {
            moved_wait(s, m, 0);
            break; /* the others would fare no better */
        }
    }
    inbox_arm(s);
}

bool shard_inbox_advances(const struct shard *s, const struct msg *m)
{
    const struct topic_log *log = &s->group->log;
    uint64_t next, at;
    return inbox_record_read(msg_payload(m), log->ops->epoch(log->ctx), &next) == ST_OK &&
           (record_place(s, msg_topic(m), &at) != ST_OK || next > at);
}

void shard_inbox_arrived(struct shard *s, struct slice topic)
{
    struct inbox_moved *m = moved_find(s, topic);
    uint64_t at;
    if (m && record_place(s, topic, &at) == ST_OK && at >= m->next)
        moved_drop(s, m);
}

/* --- the letter --------------------------------------------------------------------------------- */

/* NULL: no memory, or as many wait as may have records: the log does not take them. */
static struct inbox_moved *moved_create(struct shard *s, struct slice topic)
{
    if (s->inboxes.moved.count >= s->group->limits.inbox.records.count_max ||
        hash_slots_reserve(&s->inboxes.moved) != ST_OK)
        return NULL;
    struct inbox_moved *m = calloc(1, sizeof *m + topic.len);
    if (!m)
        return NULL;
    m->hash = hash64(topic);
    m->len = topic.len;
    memcpy(m->topic, topic.data, topic.len);
    list_init(&m->link);
    hash_slots_insert(&s->inboxes.moved, m->hash, m);
    moved_wait(s, m, 0);
    return m;
}

static void inbox_move(struct shard *s, const struct inbox_letter *l)
{
    uint64_t at = 0;
    bool known = inbox_place(s, l->topic, &at) == ST_OK;
    struct inbox_moved *m = moved_find(s, l->topic);
    if (l->next > at || !known) {
        if (!m && !(m = moved_create(s, l->topic))) {
            metric_add(s->group->metrics, M_INBOX_WRITES_REFUSED, 1);
            return; /* it is as if it had not been acknowledged */
        }
        m->next = l->next;
        m->count += l->count;
    }
    if (m && (l->now || m->count >= s->group->limits.inbox.save_count) && moved_write(s, m) != ST_OK)
        moved_wait(s, m, 0);
}

static void inbox_arrived_home(struct mail *mail)
{
    struct inbox_letter *l = LIST_OF(mail, struct inbox_letter, mail);
    l->on_answer(l);
}

void shard_inbox(struct shard *s, struct inbox_letter *l)
{
    if (l->moves)
        inbox_move(s, l);
    l->known = inbox_place(s, l->topic, &l->next) == ST_OK;
    l->first = s->group->log.ops->first(s->group->log.ctx, s->lane);
    l->end = shard_end(s);
    l->mail.on_arrival = inbox_arrived_home;
    courier_send(s->group->courier, l->home, &l->mail);
}

/* --- life --------------------------------------------------------------------------------------- */

enum status shard_inboxes_init(struct shard *s)
{
    list_init(&s->inboxes.due);
    timer_init(&s->inboxes.timer, shard_on_inbox_timer);
    return retained_create(&s->group->limits.inbox.records, &s->inboxes.records);
}

void shard_inboxes_deinit(struct shard *s)
{
    while (!list_empty(&s->inboxes.due))
        moved_drop(s, LIST_OF(s->inboxes.due.next, struct inbox_moved, link));
    timer_cancel(loop_timers(courier_loop(s->group->courier)), &s->inboxes.timer);
    hash_slots_deinit(&s->inboxes.moved);
    retained_destroy(s->inboxes.records);
}
