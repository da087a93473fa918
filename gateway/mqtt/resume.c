/* CONNECT of a client whose session has a record, or may have one.
 *
 *   claim -> READ -> [a will that an earlier connection has left] -> our own write of the record
 *         -> its filters are subscribed -> CONNACK -> what was in flight (resend.c) -> the filters begin
 *
 * Nothing that the client sends is looked at before CONNACK. The claim is patient: whoever had the client
 * identifier before has written its last record when we read. */
#include "gateway/mqtt/keep.h"

#include "core/logging.h"
#include "gateway/mqtt/inbox.h"
#include "gateway/mqtt/will.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

/* What is stored of the session's QoS 2 messages beyond what its record knows, in each lane. */
struct resume_asking {
    struct mqtt_conn *conn;
    unsigned left;
    char name[ONCE_NAME_BYTES_MAX];
    struct read reads[];
};

static void asked_add(struct mqtt_conn *c, uint64_t sequence)
{
    uint16_t id = (uint16_t)sequence;
    struct received *got = id ? received_find(&c->received, id) : NULL;
    if (!got && id)
        got = received_add(&c->received, id);
    if (!got)
        return;
    got->sequence = sequence;
    got->state = RECEIVED_STORED;
}

static void resume_write(struct mqtt_conn *c);

static void asked_lane(struct read *r)
{
    struct resume_asking *a = r->owner;
    struct mqtt_conn *c = a->conn;
    bool going = c->state == MQTT_STATE_CLAIMING;
    for (uint64_t i = 0; going && i < r->store.found; i++)
        asked_add(c, r->sequences[i]);
    if (r->store.status != ST_OK)
        c->broken = true; /* without knowing all of them a repetition could be stored twice */
    free(r->sequences);
    c->letters--;
    if (--a->left > 0)
        return;
    free(a);
    c->keep->unclean = false;
    if (c->broken)
        mqtt_conn_dirty(c);
    else if (going)
        resume_write(c);
    mqtt_conn_free_if_done(c);
}

static void resume_ask(struct mqtt_conn *c)
{
    struct hub *h = c->door->edge->hub;
    unsigned lanes = hub_lane_count(h);
    struct resume_asking *a = calloc(1, sizeof *a + lanes * sizeof a->reads[0]);
    if (!a) {
        mqtt_connect_refuse(c, MQTT_RC_SERVER_BUSY, "out of memory");
        return;
    }
    a->conn = c;
    a->left = lanes;
    struct once_id id = mqtt_keep_identity(c->keep, 0, a->name);
    for (unsigned i = 0; i < lanes; i++) {
        a->reads[i] =
            (struct read){.store = {.lane = i, .topic = id.name, .from = mqtt_keep_sequence(c->keep, 0)},
                          .once = true,
                          .on_read = asked_lane,
                          .owner = a};
        c->letters++;
        hub_read_lane(h, &a->reads[i]);
    }
}

static void resume_write(struct mqtt_conn *c)
{
    if (c->keep->unclean) {
        resume_ask(c);
        return;
    }
    c->keep->attached = true;
    keeper_want(c->keep->keeper, &c->keep->attach);
}

/* --- what was read ------------------------------------------------------------------------------ */

static void left_will_published(struct publish *p)
{
    struct mqtt_conn *c = p->owner;
    publish_free(p);
    c->letters--;
    if (c->state == MQTT_STATE_CLAIMING)
        resume_write(c);
    mqtt_conn_free_if_done(c);
}

/* A will that was not due when its client came back is not sent (3.1.3.2.2); one whose session ends here is.
 */
static bool left_will_is_due(const struct mqtt_conn *c, const struct record_head *h)
{
    uint64_t now_ms = loop_wall_ms(c->door->edge->loop);
    if (!h->has_will)
        return false;
    return !c->keep->present || h->will.delay_s == 0 || (h->will.due_ms > 0 && h->will.due_ms <= now_ms);
}

/* The state of the earlier session. Whatever does not fit makes it a new one. */
static enum status resume_state(struct mqtt_conn *c, struct slice record)
{
    struct record_reader r;
    struct record_head head;
    struct received received;
    struct flight flight;
    uint16_t id;
    enum status st = mqtt_record_open(record, &r, &head);
    while (st == ST_OK && (st = mqtt_record_next_received(&r, &received)) == ST_OK) {
        struct received *to =
            received_find(&c->received, received.id) ? NULL : received_add(&c->received, received.id);
        if (!to)
            return ST_INVALID;
        *to = received;
    }
    if (st != ST_NOT_FOUND)
        return ST_INVALID;
    while ((st = mqtt_record_next_flight(&r, &id, &flight)) == ST_OK) {
        if (flight.state == FLIGHT_HELD || flight.state == FLIGHT_SENT)
            flight.state = FLIGHT_OWED;
        if (flights_restore(&c->flights, id, &flight) != ST_OK)
            return ST_INVALID;
    }
    c->keep->filters = r.rest;
    c->keep->session_incarnation = head.session_incarnation;
    c->keep->releases = head.releases;
    c->keep->unclean = head.unclean || head.node_incarnation != 0;
    return st == ST_NOT_FOUND ? ST_OK : ST_INVALID;
}

static void resume_forget(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    uint16_t max = c->flights.max;
    flights_deinit(&c->flights);
    flights_init(&c->flights, max);
    received_deinit(&c->received);
    buf_clear(&k->record);
    k->filters = (struct slice){0};
    k->present = k->unclean = false;
    k->releases = 0;
}

/* True: an earlier session goes on. */
static bool resume_take(struct mqtt_conn *c, struct slice record, const struct record_head *head)
{
    struct mqtt_keep *k = c->keep;
    struct edge *e = c->door->edge;
    struct slice filters;
    bool over = head->expires_ms > 0 && head->expires_ms <= loop_wall_ms(e->loop);
    if (k->clean_start || over || (head->node_incarnation != 0 && head->expiry_s == 0) ||
        !mqtt_record_valid(record, hub_epoch(e->hub), hub_lane_count(e->hub), &filters))
        return false;
    if (buf_put(&k->record, record) == ST_OK && resume_state(c, buf_slice(&k->record)) == ST_OK)
        return true;
    resume_forget(c);
    return false;
}

static bool resume_begin_new(struct mqtt_keep *k)
{
    k->releases = 0;
    return getrandom(&k->session_incarnation, sizeof k->session_incarnation, 0) ==
           (ssize_t)sizeof k->session_incarnation;
}

static void resume_on_read(void *conn, enum status status, struct slice record)
{
    struct mqtt_conn *c = conn;
    struct mqtt_keep *k = c->keep;
    struct record_reader r;
    struct record_head head = {0};
    struct mqtt_will *will = NULL;
    bool found = status == ST_OK && mqtt_record_open(record, &r, &head) == ST_OK;
    resume_forget(c);
    if (!found && !k->wanted) { /* as most: a clean session that leaves nothing behind */
        keeper_close(k->keeper, KEEPER_LEAVE);
        mqtt_keep_free(c);
        mqtt_connect_done(c, false);
        return;
    }
    k->present = found && resume_take(c, record, &head);
    if (found && !k->present && buf_put(&k->record, record) != ST_OK)
        log_warn(
            "no memory: groups of shared subscriptions learn at the next start that a session has ended");
    if (!k->present && !resume_begin_new(k)) {
        mqtt_connect_refuse(c, MQTT_RC_SERVER_BUSY, "no random numbers");
        return;
    }
    metric_add(c->door->edge->metrics, M_UNACKED_MQTT, c->flights.count);
    metric_add(c->door->edge->metrics, M_OFFERED, c->flights.count);
    if (found && left_will_is_due(c, &head) && mqtt_will_read(&head.will, &will) == ST_OK) {
        mqtt_will_identify(c->door->edge, will, head.session_incarnation, keeper_attachment(k->keeper) - 1);
        c->letters++;
        if (mqtt_will_publish(c->door->edge, will, 0, c, left_will_published) == ST_OK)
            return;
        c->letters--;
    }
    resume_write(c);
}

/* --- its filters -------------------------------------------------------------------------------- */

/* Everything is in place. */
static void resume_done(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    if (k->present)
        metric_add(c->door->edge->metrics, M_SESSIONS_RESUMED, 1);
    mqtt_inbox_restore(c);
    mqtt_connect_done(c, k->present);
    if (mqtt_conn_active(c))
        mqtt_resend_begin(c);
}

void mqtt_resume_placed(struct mqtt_conn *c, const struct place *at)
{
    struct mqtt_keep *k = c->keep;
    k->resumed_at.lane_count = at->lane_count;
    for (unsigned i = 0; i < at->lane_count; i++)
        if (at->next[i] > k->resumed_at.next[i])
            k->resumed_at.next[i] = at->next[i];
    if (--k->placing == 0)
        resume_done(c);
}

static enum status resume_subscribe(struct mqtt_conn *c, const struct record_subscription *r)
{
    struct subscription *sub;
    if (!mqtt_conn_may(c, ACL_SUBSCRIBE, mqtt_shared_matched(r->filter))) /* not any more */
        return ST_FORBIDDEN;
    const struct subscription_options o = {.qos = r->qos,
                                           .no_local = r->no_local,
                                           .retain_as_published = r->retain_as_published,
                                           .subscription_id = r->subscription_id,
                                           .start = START_AFTER,
                                           .after = &r->next,
                                           .retained_again = r->walking,
                                           .walk_from = r->walking ? &r->walk : NULL,
                                           .owed = true,
                                           .window = c->flights.max,
                                           .kept_as = mqtt_shared_name(c),
                                           .held = true};
    c->no_local |= r->no_local;
    enum status st = session_subscribe(c->session, r->filter, &o, &sub);
    if (st == ST_OK && r->inbox && mqtt_inbox_is_whole(c, r->filter))
        mqtt_inbox_follow(c, sub);
    return st;
}

static void resume_filters(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    struct record_subscription s;
    struct record_reader r = {.rest = k->filters, .lanes = hub_lane_count(c->door->edge->hub)};
    k->placing = 1;
    while (mqtt_record_next_subscription(&r, &s) == ST_OK) {
        enum status st = resume_subscribe(c, &s);
        if (st != ST_OK && st != ST_NO_MEMORY)
            hub_share_release(c->door->edge->hub, s.filter, k->session_incarnation);
        if (st == ST_NO_MEMORY) { /* the rest is not to be forgotten: the record stays */
            c->broken = true;
            mqtt_conn_dirty(c);
            return;
        }
        k->placing += st == ST_OK; /* else: over limits that are lower now */
    }
    k->filters = (struct slice){0}; /* snapshots ask the subscriptions from here on */
    buf_deinit(&k->record);
    buf_init(&k->record, UINT32_MAX);
    if (--k->placing == 0)
        resume_done(c);
}

static void resume_on_attached(struct keeper_wait *w, enum status status)
{
    struct mqtt_keep *k = LIST_OF(w, struct mqtt_keep, attach);
    struct mqtt_conn *c = k->conn;
    switch ((int)status) {
    case ST_OK:
        if (!k->present && k->record.len > 0)
            mqtt_shared_release(c, buf_slice(&k->record)); /* the session before, which is no more */
        resume_filters(c);
        break;
    case ST_AGAIN: /* its will was sent meanwhile, or its expiry begun: afterlife.c */
        k->attached = false;
        metric_sub(c->door->edge->metrics, M_UNACKED_MQTT, c->flights.count);
        metric_add(c->door->edge->metrics, M_RETURNED, c->flights.count);
        keeper_read_again(k->keeper);
        break;
    case ST_QUOTA:
    case ST_TOO_LARGE:
        k->attached = false;
        mqtt_connect_refuse(c, MQTT_RC_QUOTA_EXCEEDED, "limit.sessions or limit.sessions_bytes is reached");
        break;
    default:
        k->attached = false;
        mqtt_connect_refuse(c, MQTT_RC_SERVER_UNAVAILABLE, "the session's record could not be written");
    }
}

/* Not by clients: they wait for the claim of the client identifier. */
static void resume_on_taken(void *conn)
{
    mqtt_conn_refuse(conn, MQTT_RC_SESSION_TAKEN_OVER, M_DISCONNECT_SERVER);
}

enum status mqtt_resume(struct mqtt_conn *c, bool clean_start, uint32_t expiry_s)
{
    static const struct keeper_ops ops = {
        .snapshot = mqtt_keep_snapshot, .on_read = resume_on_read, .on_taken = resume_on_taken};
    enum status st = mqtt_keep_open(c, &ops);
    if (st != ST_OK)
        return st;
    struct mqtt_keep *k = c->keep;
    k->clean_start = clean_start;
    k->expiry_s = expiry_s;
    k->wanted = expiry_s > 0 || c->will;
    k->attach.on_kept = resume_on_attached;
    return ST_OK;
}
