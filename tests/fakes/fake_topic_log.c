#include "fakes/fake_topic_log.h"

#include <assert.h>
#include <stdlib.h>

enum { VOID = 1 << 7 }; /* a flag of records that count for nobody */

static struct fake_lane *lane_of(struct fake_log *f, unsigned lane)
{
    assert(lane < f->lane_count);
    return &f->lanes[lane];
}

void fake_log_init(struct fake_log *f, unsigned lane_count)
{
    assert(lane_count <= FAKE_LANES_MAX);
    *f = (struct fake_log){.lane_count = lane_count};
    for (unsigned i = 0; i < lane_count; i++)
        f->lanes[i].recent = UINT64_MAX;
}

void fake_log_deinit(struct fake_log *f)
{
    assert(!f->first_read);
    for (unsigned i = 0; i < f->lane_count; i++) {
        for (uint64_t k = 0; k < f->lanes[i].count; k++)
            msg_unref(f->lanes[i].records[k]);
        free(f->lanes[i].records);
    }
    *f = (struct fake_log){0};
}

/* --- the port ----------------------------------------------------------------------------------- */

static uint32_t fake_epoch(void *ctx)
{
    (void)ctx;
    return 7;
}

static unsigned fake_lane_count(void *ctx)
{
    return ((struct fake_log *)ctx)->lane_count;
}

static void fake_bind(void *ctx, unsigned lane, struct loop *loop, const struct store_events *events,
                      void *events_ctx, struct metrics *metrics)
{
    struct fake_lane *l = lane_of(ctx, lane);
    (void)metrics;
    l->loop = loop;
    l->events = events;
    l->events_ctx = events_ctx;
}

static void lane_push(struct fake_lane *l, struct msg *m)
{
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->records = realloc(l->records, l->cap * sizeof(struct msg *));
        assert(l->records);
    }
    l->records[l->count++] = m;
}

static struct msg *copy_of(const struct msg *m)
{
    struct msg *copy;
    enum status st = msg_create(msg_topic(m), msg_key(m), msg_props(m), msg_payload(m), &copy);
    assert(st == ST_OK);
    copy->content = m->content;
    copy->qos = m->qos;
    copy->flags = m->flags & (uint8_t)~MSG_ONCE;
    copy->partition = m->partition;
    copy->offset = m->offset;
    copy->stored = m->stored;
    copy->ts_ms = m->ts_ms;
    copy->expires_ms = m->expires_ms;
    return copy;
}

static enum status fake_append(void *ctx, unsigned lane, struct msg *m, bool wait)
{
    struct fake_log *f = ctx;
    struct fake_lane *l = lane_of(f, lane);
    (void)wait;
    if (f->append_failures > 0) {
        f->append_failures--;
        return f->append_status;
    }
    m->offset = m->stored = l->count;
    m->ts_ms = loop_wall_ms(l->loop);
    lane_push(l, copy_of(m));
    l->flushed = false;
    return ST_OK;
}

static bool is_carried(const struct msg *m)
{
    return m->stored != m->offset;
}

static enum status fake_carry(void *ctx, unsigned lane, struct msg *m)
{
    struct fake_log *f = ctx;
    struct fake_lane *l = lane_of(f, lane);
    assert((m->flags & MSG_RETAIN) && m->offset < l->count);
    if (f->append_failures > 0) {
        f->append_failures--;
        return f->append_status;
    }
    m->stored = l->count;
    lane_push(l, copy_of(m));
    l->flushed = false;
    return ST_OK;
}

static enum status fake_note(void *ctx, unsigned lane, struct slice note, uint64_t *offset)
{
    struct fake_log *f = ctx;
    struct fake_lane *l = lane_of(f, lane);
    if (f->append_failures > 0) {
        f->append_failures--;
        return f->append_status;
    }
    struct msg *m;
    enum status st = msg_create((struct slice){0}, (struct slice){0}, (struct slice){0}, note, &m);
    assert(st == ST_OK);
    m->flags = MSG_NOTE;
    *offset = m->offset = m->stored = l->count;
    lane_push(l, m);
    l->flushed = false;
    return ST_OK;
}

/* Only a read of the state brings it back. */
static bool is_hidden(const struct msg *m)
{
    return is_carried(m) || (m->flags & (MSG_NOTE | VOID));
}

static void fake_hide(void *ctx, unsigned lane, uint64_t offset)
{
    struct fake_lane *l = lane_of(ctx, lane);
    assert(offset < l->count);
    l->records[offset]->flags |= VOID;
}

static enum status fake_propose(void *ctx, unsigned lane, const struct msg *m)
{
    struct fake_log *f = ctx;
    (void)lane;
    if (f->append_failures > 0) {
        f->append_failures--;
        return f->append_status;
    }
    struct msg *copy = copy_of(m);
    enum status st = f->on_propose(f, copy);
    msg_unref(copy);
    return st;
}

static bool fake_is_reported(void *ctx, unsigned lane, uint64_t sequence)
{
    const struct fake_log *f = ctx;
    assert(lane == 0 || !f->reports);
    return !f->reports || sequence <= f->reported;
}

static uint64_t fake_incarnation(void *ctx)
{
    return ((struct fake_log *)ctx)->incarnation;
}

static bool is_state(const struct msg *m)
{
    struct slice value;
    return (m->flags & (MSG_RETAIN | MSG_NOTE)) || props_find(msg_props(m), PROP_PRODUCER, &value) ||
           props_find(msg_props(m), PROP_IDEMPOTENCY, &value);
}

static void fake_trim(void *ctx, unsigned lane, uint64_t upto)
{
    struct fake_lane *l = lane_of(ctx, lane);
    assert(!l->trim_open && upto <= l->trim_wanted);
    l->trim_open = true;
    fake_log_trim(ctx, lane, upto);
}

static void fake_set_live_bytes(void *ctx, unsigned lane, uint64_t bytes)
{
    lane_of(ctx, lane)->live_bytes = bytes;
}

static void fake_flush(void *ctx, unsigned lane)
{
    lane_of(ctx, lane)->flushed = true;
}

static uint64_t fake_first(void *ctx, unsigned lane)
{
    return lane_of(ctx, lane)->first;
}

static uint64_t fake_next(void *ctx, unsigned lane)
{
    return lane_of(ctx, lane)->count;
}

static void fake_read_start(void *ctx, struct store_read *r)
{
    struct fake_log *f = ctx;
    if (r->locate != STORE_AT_OFFSET)
        r->from = 0;
    /* What the read sees is settled now, not when it is served. */
    r->end = r->to < lane_of(f, r->lane)->count ? r->to : lane_of(f, r->lane)->count;
    r->queue_next = NULL;
    if (f->last_read)
        f->last_read->queue_next = r;
    else
        f->first_read = r;
    f->last_read = r;
    f->reads++;
}

static bool wanted(struct slice topic, bool (*wants)(void *, struct slice), void *wants_ctx,
                   const struct msg *m)
{
    if (topic.data)
        return slice_equal(topic, msg_topic(m));
    return !wants || wants(wants_ctx, msg_topic(m));
}

/* As the store reads: by a topic, by an inbox's list, or all. */
static bool read_wants(const struct store_read *r, const struct msg *m)
{
    struct slice topic = msg_topic(m);
    if (!r->inbox)
        return wanted(r->topic, r->wants, r->wants_ctx, m);
    return slice_starts_with(topic, r->topic) &&
           (topic.len == r->topic.len || topic.data[r->topic.len] == '/') &&
           wanted((struct slice){0}, r->wants, r->wants_ctx, m);
}

static enum status fake_recent(void *ctx, unsigned lane, uint64_t from, struct slice topic,
                               bool (*wants)(void *ctx, struct slice topic), void *wants_ctx,
                               uint32_t count_max, struct msg **msgs, uint32_t *found, uint64_t *next)
{
    struct fake_lane *l = lane_of(ctx, lane);
    if (from < l->first || l->count - from > l->recent)
        return ST_NOT_FOUND;
    uint32_t n = 0;
    uint64_t at = from;
    for (; at < l->count && n < count_max; at++) {
        if (l->records[at] && !is_hidden(l->records[at]) && wanted(topic, wants, wants_ctx, l->records[at]))
            msgs[n++] = msg_ref(l->records[at]);
    }
    *found = n;
    *next = at;
    return ST_OK;
}

struct topic_log fake_log_port(struct fake_log *f)
{
    static struct topic_log_ops elsewhere;
    static const struct topic_log_ops ops = {
        .incarnation = fake_incarnation,
        .epoch = fake_epoch,
        .lane_count = fake_lane_count,
        .bind = fake_bind,
        .append = fake_append,
        .carry = fake_carry,
        .note = fake_note,
        .trim = fake_trim,
        .set_live_bytes = fake_set_live_bytes,
        .flush = fake_flush,
        .first = fake_first,
        .next = fake_next,
        .read_start = fake_read_start,
        .recent = fake_recent,
    };
    if (!f->on_propose)
        return (struct topic_log){&ops, f};
    elsewhere = ops;
    elsewhere.append = NULL;
    elsewhere.carry = NULL;
    elsewhere.note = NULL;
    elsewhere.trim = NULL;
    elsewhere.propose = fake_propose;
    elsewhere.is_reported = fake_is_reported;
    elsewhere.hide = fake_hide;
    return (struct topic_log){&elsewhere, f};
}

/* --- what the test does ------------------------------------------------------------------------- */

void fake_log_sync(struct fake_log *f, unsigned lane, uint64_t next)
{
    struct fake_lane *l = lane_of(f, lane);
    next = next < l->count ? next : l->count;
    if (next <= l->durable)
        return;
    l->durable = next;
    l->events->on_durable(l->events_ctx, lane, next);
}

void fake_log_report(struct fake_log *f, uint64_t sequence)
{
    f->reported = sequence;
}

struct msg *fake_log_bring(struct fake_log *f, unsigned lane, const struct msg *m, uint64_t ts_ms)
{
    struct fake_lane *l = lane_of(f, lane);
    struct msg *copy = copy_of(m);
    copy->offset = copy->stored = l->count;
    copy->ts_ms = ts_ms;
    lane_push(l, copy);
    return copy;
}

static void read_count(struct fake_lane *l, struct store_read *r)
{
    for (; r->next < r->end; r->next++)
        if (l->records[r->next] && !is_hidden(l->records[r->next]) && read_wants(r, l->records[r->next]))
            r->found++;
}

static void read_collect(struct fake_log *f, struct fake_lane *l, struct store_read *r)
{
    uint64_t bytes = 0;
    uint32_t most = f->serve_max && f->serve_max < r->count_max ? f->serve_max : r->count_max;
    r->msgs = calloc(most, sizeof(struct msg *));
    assert(r->msgs);
    for (; r->next < r->end && r->found < most; r->next++) {
        struct msg *m = l->records[r->next];
        if (r->next >= l->damaged_from && r->next < l->damaged_to) {
            if (r->found == 0) {
                r->status = ST_CORRUPT;
                r->next = l->damaged_to;
            }
            return;
        }
        if (!m || (is_hidden(m) && !r->state_only) || !read_wants(r, m) || (r->state_only && !is_state(m)))
            continue;
        uint64_t len = msg_topic(m).len + msg_payload(m).len;
        if (r->found > 0 && bytes + len > r->bytes_max)
            return;
        bytes += len;
        r->msgs[r->found++] = msg_ref(m);
    }
}

static void read_back(struct fake_log *f, struct fake_lane *l, struct store_read *r)
{
    uint32_t most = f->serve_max && f->serve_max < r->count_max ? f->serve_max : r->count_max;
    r->end = r->from > l->first ? r->from : l->first;
    r->msgs = calloc(most, sizeof(struct msg *));
    assert(r->msgs);
    if (r->end > r->next)
        r->end = r->next;
    for (; r->next > r->end && r->found < most; r->next--) {
        struct msg *m = l->records[r->next - 1];
        if (m && read_wants(r, m))
            r->msgs[r->found++] = msg_ref(m);
    }
}

static void read_locate(struct fake_lane *l, struct store_read *r)
{
    uint64_t at = l->first, left = r->locate_value;
    if (r->locate == STORE_AT_TIME) {
        while (at < r->end && (!l->records[at] || l->records[at]->ts_ms < r->locate_value))
            at++;
    } else {
        for (at = r->end; at > l->first && left > 0; at--)
            left -= l->records[at - 1] && read_wants(r, l->records[at - 1]);
    }
    r->locate = STORE_AT_OFFSET;
    if (r->reverse)
        r->end = at;
    else
        r->from = at;
}

static void read_arrived(struct mail *mail)
{
    struct store_read *r = LIST_OF(mail, struct store_read, mail);
    r->on_done(r);
}

bool fake_log_serve(struct fake_log *f)
{
    struct store_read *r = f->first_read;
    if (!r)
        return false;
    f->first_read = r->queue_next;
    if (!f->first_read)
        f->last_read = NULL;
    f->reads--;
    struct fake_lane *l = lane_of(f, r->lane);
    if (r->locate != STORE_AT_OFFSET)
        read_locate(l, r);
    r->status = r->from < l->first && !r->reverse ? ST_GONE : ST_OK;
    r->first = l->first;
    r->next = r->reverse ? r->end : r->from < l->first ? l->first : r->from;
    r->found = 0;
    r->msgs = NULL;
    if (r->reverse)
        read_back(f, l, r);
    else if (r->status == ST_OK && r->count_only)
        read_count(l, r);
    else if (r->status == ST_OK)
        read_collect(f, l, r);
    r->mail.on_arrival = read_arrived;
    loop_post(r->home, &r->mail);
    return true;
}

void fake_log_trim(struct fake_log *f, unsigned lane, uint64_t first)
{
    struct fake_lane *l = lane_of(f, lane);
    assert(first <= l->count);
    if (first > l->first)
        l->first = first;
}

void fake_log_want_trim(struct fake_log *f, unsigned lane, uint64_t upto)
{
    struct fake_lane *l = lane_of(f, lane);
    assert(l->trim_open && upto > l->first && upto < l->count);
    l->trim_open = false;
    l->trim_wanted = upto;
    l->events->on_trim_wanted(l->events_ctx, lane, upto);
}

void fake_log_jump(struct fake_log *f, unsigned lane, uint64_t count)
{
    while (count-- > 0)
        lane_push(lane_of(f, lane), NULL);
}
