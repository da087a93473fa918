/* The states of a keeper, as to its record:
 *
 *   READING --record--> READ --first write durable--> HELD
 *   NEW ------------------^ (nothing to read)
 *   any --ST_GONE, on_taken_over--> TAKEN
 *   HELD --another node attached it behind us--> TAKEN
 *
 * The first write is SESSION_ATTACH under a new number, later ones are SESSION_UPDATE under the same. A write
 * that the shard refuses with ST_GONE says that somebody attached after us: nothing of ours is written from
 * then on. So whatever a connection that has lost its session still does, its record is the other's.
 *
 * The letters (claim, READ, PUBLISH) point into the keeper, which therefore lives until all are back. */
#include "session/keeper.h"

#include "routing/attachment.h"
#include "session/hub_private.h"

#include <assert.h>
#include <stdlib.h>

enum { IDLE_SAVES = 60, TOPIC_BYTES = 9 + KEEPER_NAME_BYTES, CLAIM_BYTES = 1 + TOPIC_BYTES };

enum keeper_state { KEEPER_READING, KEEPER_NEW, KEEPER_READ, KEEPER_HELD, KEEPER_TAKEN };

struct keeper {
    struct hub *hub;
    struct registry *registry;
    struct keeper_limits limits;
    const struct keeper_ops *ops;
    void *conn; /* NULL: closed */
    enum keeper_state state;
    bool claimed; /* CLAIM has been answered, and the claim is not given back */
    bool writing; /* PUBLISH is under way */
    bool reading; /* READ is */
    bool over, ending; /* closed with KEEPER_FORGET: the record is to go; the write under way does that */
    bool last; /* closed: `record` is to be written once more */
    uint64_t attachment; /* of the record we write, or have read */
    uint64_t based_on; /* the record that was read: its offset + 1; 0: none */
    uint64_t newest; /* record of ours that is durable, or of another node's attachment: its offset + 1 */
    uint64_t wanted, written, kept; /* versions: asked for, in the write under way, durable */
    uint64_t moved; /* acknowledgements since the last write began */
    uint32_t letters;
    struct list waits; /* struct keeper_wait, by version */
    struct keeper_wait *done; /* closed: told when all is written */
    struct timer timer;
    struct claim claim;
    struct read read;
    struct buf record; /* scratch; with `last` what is still to be written */
    uint64_t written_ms;
    char claim_id[CLAIM_BYTES]; /* \0 (no MQTT client identifier has one), then the topic */
};

static struct slice keeper_topic(const struct keeper *k)
{
    return slice_of(k->claim_id + 1, TOPIC_BYTES);
}

static unsigned keeper_lane(const struct keeper *k)
{
    return topic_partition(keeper_topic(k), k->hub->map->lane_count);
}

/* --- letters and the end ------------------------------------------------------------------------ */

static void keeper_sent(struct keeper *k)
{
    k->letters++;
    k->hub->letters++;
}

static void keeper_back(struct keeper *k)
{
    k->letters--;
    k->hub->letters--;
}

/* Closed, and nothing to be done any more: gives the claim back, then its memory. */
static void keeper_finish(struct keeper *k)
{
    if (k->conn || k->letters > 0)
        return;
    if (k->done) {
        struct keeper_wait *done = k->done;
        k->done = NULL;
        done->on_kept(done, ST_OK);
    }
    if (k->claimed) {
        k->claimed = false;
        keeper_sent(k);
        registry_release(k->registry, &k->claim);
        return;
    }
    buf_deinit(&k->record);
    free(k);
}

static void keeper_taken(struct keeper *k)
{
    void *conn = k->conn;
    if (k->state == KEEPER_TAKEN)
        return;
    k->state = KEEPER_TAKEN;
    timer_cancel(loop_timers(k->hub->loop), &k->timer);
    if (conn)
        k->ops->on_taken(conn); /* it closes us, in its own time */
}

/* --- writing ------------------------------------------------------------------------------------ */

static void keeper_write(struct keeper *k);
static void keeper_read_or_finish(struct keeper *k);

static void keeper_arm(struct keeper *k, uint64_t in_ms)
{
    struct loop *loop = k->hub->loop;
    uint64_t due = loop_now_ms(loop) + in_ms;
    if (!timer_armed(&k->timer) || due < k->timer.due_ms)
        timer_arm(loop_timers(loop), &k->timer, due);
}

/* How long a record may lie: places also move by messages that do not match, and it must not expire. */
static uint64_t keeper_rest_ms(const struct keeper *k)
{
    uint64_t idle = k->limits.save_ms * IDLE_SAVES;
    return k->limits.expiry_ms / 2 < idle ? k->limits.expiry_ms / 2 : idle;
}

static void keeper_release_waits(struct keeper *k, enum status status)
{
    struct list done;
    list_init(&done);
    while (!list_empty(&k->waits) &&
           LIST_OF(k->waits.next, struct keeper_wait, link)->version <= k->written) {
        struct list *first = k->waits.next;
        list_unlink(first);
        list_push(&done, first);
    }
    while (!list_empty(&done)) { /* a callback may unlink others */
        struct keeper_wait *w = LIST_OF(done.next, struct keeper_wait, link);
        list_unlink(&w->link);
        w->on_kept(w, status);
    }
}

static void keeper_go_on(struct keeper *k)
{
    if (k->writing)
        return;
    if (!k->conn && (k->over || k->last))
        keeper_write(k);
    else if (!k->conn)
        keeper_finish(k);
    else if (k->wanted > k->written || k->moved >= k->limits.save_count)
        keeper_write(k);
    else
        keeper_arm(k, k->moved > 0 ? k->limits.save_ms : keeper_rest_ms(k));
}

/* The session was to be taken over, and its holder has written since: that record stands, unless it is to go.
 */
static void keeper_closed_too_early(struct keeper *k)
{
    k->last = false;
    k->over = k->over || k->ending;
    k->ending = false;
    if (k->over)
        k->state = KEEPER_READING;
}

/* Our attachment may have been followed by another node's before we hear of either. */
static enum status keeper_write_result(struct keeper *k, const struct publish *p)
{
    uint64_t place = p->msg->offset + 1;
    if (p->status != ST_OK)
        return p->status;
    if (place < k->newest)
        return ST_GONE;
    k->newest = place;
    return ST_OK;
}

static void keeper_has_written(struct publish *p)
{
    struct keeper *k = p->owner;
    enum status st = keeper_write_result(k, p);
    publish_free(p);
    k->writing = false;
    metric_sub(k->hub->metrics, M_SESSION_WRITES_OPEN, 1);
    metric_add(k->hub->metrics, st == ST_OK ? M_SESSION_WRITES : M_SESSION_WRITES_REFUSED, 1);
    if (st == ST_GONE || k->state == KEEPER_TAKEN) {
        k->last = k->over = false;
        keeper_taken(k); /* may close it: our letter is not back yet */
        keeper_back(k);
        keeper_finish(k);
        return;
    }
    if (st == ST_OK) {
        k->state = KEEPER_HELD;
        k->kept = k->written;
    }
    if (k->conn)
        keeper_release_waits(k, st);
    else if (st == ST_AGAIN)
        keeper_closed_too_early(k);
    keeper_back(k);
    if (k->state == KEEPER_READING)
        keeper_read_or_finish(k);
    else if (st != ST_OK && k->conn && k->wanted == k->written)
        keeper_arm(k, k->limits.save_ms); /* tried again, but not at once */
    else
        keeper_go_on(k);
}

static enum status keeper_message(const struct keeper *k, struct slice record, struct msg **out)
{
    char key[ATTACHMENT_BYTES];
    attachment_write(k->attachment, key);
    enum status st = msg_create(keeper_topic(k), slice_of(key, sizeof key), (struct slice){0}, record, out);
    if (st != ST_OK)
        return st;
    (*out)->flags = MSG_RETAIN;
    (*out)->content = CONTENT_BINARY;
    bool expires = record.len > 0 && k->limits.expiry_ms != UINT64_MAX;
    (*out)->expires_ms = expires ? loop_wall_ms(k->hub->loop) + k->limits.expiry_ms : 0;
    (*out)->partition = keeper_lane(k);
    return ST_OK;
}

static enum status keeper_publish(struct keeper *k, struct slice record)
{
    struct msg *m;
    struct publish *p;
    enum status st = keeper_message(k, record, &m);
    if (st != ST_OK)
        return st;
    if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        return ST_NO_MEMORY;
    }
    p->wait = true;
    p->session = k->state == KEEPER_HELD ? SESSION_UPDATE : SESSION_ATTACH;
    p->on_published = keeper_has_written;
    p->owner = k;
    p->based_on = k->based_on;
    keeper_sent(k);
    shard_map_publish(k->hub->map, k->hub->courier, keeper_lane(k), p);
    return ST_OK;
}

/* What could not even be sent: the waiting are told, by the timer everything is tried again. */
static void keeper_could_not(struct keeper *k, enum status st)
{
    k->writing = false;
    metric_sub(k->hub->metrics, M_SESSION_WRITES_OPEN, 1);
    metric_add(k->hub->metrics, M_SESSION_WRITES_REFUSED, 1);
    keeper_release_waits(k, st);
    if (k->conn)
        keeper_arm(k, k->limits.save_ms);
    else
        keeper_finish(k);
}

/* The state as it is now, under way to the log. Its letter may be answered only later. */
static void keeper_write(struct keeper *k)
{
    struct slice record = {0};
    enum status st = ST_OK;
    assert(!k->writing && k->state != KEEPER_READING && k->state != KEEPER_TAKEN);
    timer_cancel(loop_timers(k->hub->loop), &k->timer);
    k->writing = true;
    metric_add(k->hub->metrics, M_SESSION_WRITES_OPEN, 1);
    k->written = k->wanted;
    k->moved = 0;
    if (k->conn) {
        buf_clear(&k->record);
        st = k->ops->snapshot(k->conn, &k->record);
    }
    if (st == ST_OK && !k->over)
        record = buf_slice(&k->record);
    k->ending = k->over;
    k->last = k->over = false;
    if (st == ST_OK)
        st = keeper_publish(k, record);
    buf_deinit(&k->record);
    buf_init(&k->record, k->limits.record_bytes_max);
    if (st != ST_OK)
        keeper_could_not(k, st);
}

static void keeper_on_timer(struct timer *t)
{
    struct keeper *k = LIST_OF(t, struct keeper, timer);
    if (!k->writing && k->state != KEEPER_READING)
        keeper_write(k);
}

/* `on_kept` is never called inside keeper_want: the write begins by the timer, in this turn or the next. */
void keeper_want(struct keeper *k, struct keeper_wait *w)
{
    w->version = ++k->wanted;
    list_init(&w->link);
    list_push(&k->waits, &w->link);
    if (!k->writing && k->state != KEEPER_READING && k->state != KEEPER_TAKEN)
        keeper_arm(k, 0);
}

void keeper_moved(struct keeper *k, uint64_t count)
{
    k->moved += count;
    if (k->state != KEEPER_HELD || k->writing)
        return;
    keeper_arm(k, k->moved >= k->limits.save_count ? 0 : k->limits.save_ms);
}

uint64_t keeper_attachment(const struct keeper *k)
{
    return k->attachment;
}

void keeper_set_expiry(struct keeper *k, uint64_t expiry_ms)
{
    k->limits.expiry_ms = expiry_ms;
}

/* --- claiming and reading ----------------------------------------------------------------------- */

static void keeper_on_taken_over(struct claim *c)
{
    keeper_taken(LIST_OF(c, struct keeper, claim));
}

/* What is not ours yet is read again, for its newest record is not the one that was read. */
static void keeper_on_attached_elsewhere(struct claim *c, uint64_t offset)
{
    struct keeper *k = LIST_OF(c, struct keeper, claim);
    if (offset + 1 <= k->newest)
        return;
    k->newest = offset + 1;
    if (k->state != KEEPER_HELD)
        return;
    k->last = k->over = false;
    keeper_taken(k); /* may close it: the letters are not all back, or the claim is still held */
}

static void keeper_on_released(struct claim *c)
{
    struct keeper *k = LIST_OF(c, struct keeper, claim);
    keeper_back(k);
    keeper_finish(k);
}

/* A session that is over before it was read: its record goes all the same. */
static void keeper_read_closed(struct keeper *k, bool found)
{
    k->state = KEEPER_READ;
    k->over = k->over && found;
    keeper_go_on(k);
}

static void keeper_has_read(struct read *r)
{
    struct keeper *k = LIST_OF(r, struct keeper, read);
    struct msg *m = r->store.status == ST_OK && r->store.found > 0 ? msg_ref(r->store.msgs[0]) : NULL;
    bool found = m && attachment_read(msg_key(m), &k->attachment) == ST_OK;
    k->based_on = m ? m->offset + 1 : 0;
    read_release(r);
    k->letters--; /* the hub has counted its own */
    k->reading = false;
    k->attachment++;
    if (!k->conn) {
        keeper_read_closed(k, found);
    } else if (k->state != KEEPER_TAKEN) {
        k->state = KEEPER_READ;
        k->ops->on_read(k->conn, found ? ST_OK : ST_NOT_FOUND, found ? msg_payload(m) : (struct slice){0});
    }
    msg_unref(m);
}

/* A write may have been refused, and what stands there be on its way already, when CLAIM is answered. */
static void keeper_read(struct keeper *k)
{
    if (k->reading)
        return;
    k->reading = true;
    k->read = (struct read){.store = {.lane = keeper_lane(k),
                                      .from = 0,
                                      .to = UINT64_MAX,
                                      .topic = keeper_topic(k),
                                      .count_max = 1},
                            .session = true,
                            .on_read = keeper_has_read};
    k->letters++;
    hub_read_retained(k->hub, &k->read);
}

static void keeper_read_or_finish(struct keeper *k)
{
    if (k->conn || k->over)
        keeper_read(k);
    else
        keeper_finish(k);
}

void keeper_read_again(struct keeper *k)
{
    /* NEW: the name was somebody's already. */
    assert(k->state == KEEPER_READ || k->state == KEEPER_NEW);
    k->state = KEEPER_READING; /* the letter leaves when that of the write is back */
}

static void keeper_on_claimed(struct claim *c)
{
    struct keeper *k = LIST_OF(c, struct keeper, claim);
    k->claimed = true;
    keeper_back(k);
    if (k->state == KEEPER_READING)
        keeper_read_or_finish(k);
    else
        keeper_finish(k);
}

/* --- life --------------------------------------------------------------------------------------- */

static enum status keeper_create(struct hub *h, struct registry *registry, const struct keeper_limits *limits,
                                 const struct keeper_ops *ops, void *conn, const char *name,
                                 struct keeper **out)
{
    struct keeper *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    k->hub = h;
    k->registry = registry;
    k->limits = *limits;
    k->ops = ops;
    k->conn = conn;
    list_init(&k->waits);
    timer_init(&k->timer, keeper_on_timer);
    buf_init(&k->record, limits->record_bytes_max);
    memcpy(k->claim_id, "\0$session/", 10);
    memcpy(k->claim_id + 10, name, KEEPER_NAME_BYTES);
    k->claim = (struct claim){.id = slice_of(k->claim_id, CLAIM_BYTES),
                              .on_claimed = keeper_on_claimed,
                              .on_taken_over = keeper_on_taken_over,
                              .on_attached_elsewhere = keeper_on_attached_elsewhere,
                              .on_released = keeper_on_released};
    metric_add(h->metrics, M_SESSIONS_ATTACHED, 1);
    keeper_sent(k);
    registry_claim(registry, &k->claim);
    *out = k;
    return ST_OK;
}

enum status keeper_start(struct hub *h, struct registry *registry, const struct keeper_limits *limits,
                         const struct keeper_ops *ops, void *conn, const char *name, struct keeper **out)
{
    enum status st = keeper_create(h, registry, limits, ops, conn, name, out);
    if (st == ST_OK) {
        (*out)->state = KEEPER_NEW;
        (*out)->attachment = 1;
    }
    return st;
}

enum status keeper_resume(struct hub *h, struct registry *registry, const struct keeper_limits *limits,
                          const struct keeper_ops *ops, void *conn, const char *name, struct keeper **out)
{
    return keeper_create(h, registry, limits, ops, conn, name, out); /* state KEEPER_READING */
}

void keeper_close(struct keeper *k, enum keeper_end end)
{
    if (!k)
        return;
    assert(k->conn);
    bool ours = k->state == KEEPER_HELD || k->writing;
    metric_sub(k->hub->metrics, M_SESSIONS_ATTACHED, 1);
    timer_cancel(loop_timers(k->hub->loop), &k->timer);
    if (end == KEEPER_DETACH && ours && k->state != KEEPER_TAKEN) {
        buf_clear(&k->record);
        k->last = k->ops->snapshot(k->conn, &k->record) == ST_OK;
    }
    k->over = end == KEEPER_FORGET && (ours || k->state == KEEPER_READING || k->state == KEEPER_READ) &&
              k->state != KEEPER_TAKEN;
    k->conn = NULL;
    while (!list_empty(&k->waits))
        list_unlink(k->waits.next);
    if (k->writing || k->state == KEEPER_READING)
        return; /* goes on when that is back */
    keeper_go_on(k);
}

void keeper_close_then(struct keeper *k, enum keeper_end end, struct keeper_wait *done)
{
    k->done = done;
    keeper_close(k, end);
}
