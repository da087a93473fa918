#include "gateway/mqtt/keep.h"

#include "gateway/mqtt/inbox.h"
#include "gateway/mqtt/will.h"

#include <openssl/evp.h>
#include <stdlib.h>

enum { STEP_CAP_FIRST = 8, ACCEPTED_MAX = 400, RELEASING_MAX = 1024 };
enum { SEQUENCE_ID_BITS = 16, RELEASE_BITS = 36 };
/* Beside the filters: head, will, identifiers of both directions. */
enum { RECORD_REST_BYTES = 4 << 20 };

/* --- the record --------------------------------------------------------------------------------- */

struct snapshot {
    const struct mqtt_conn *conn;
    struct buf *out;
    enum status status;
};

static void put_subscription(void *ctx, struct subscription *sub)
{
    struct snapshot *s = ctx;
    const struct subscription_options *o = subscription_options_of(sub);
    struct record_subscription r = {.qos = o->qos,
                                    .no_local = o->no_local,
                                    .retain_as_published = o->retain_as_published,
                                    .walking = subscription_walking(sub),
                                    .inbox = mqtt_inbox_follows(s->conn, sub),
                                    .subscription_id = o->subscription_id,
                                    .filter = subscription_filter(sub)};
    if (s->status != ST_OK || (o->door && o->start != START_AFTER))
        return; /* not in place: nobody has been told of it, and nobody knows where it begins */
    subscription_lanes(sub, &r.first_lane, &r.lane_count);
    for (unsigned i = 0; i < r.lane_count; i++) {
        unsigned lane = r.first_lane + i;
        r.next.next[lane] = subscription_reached(sub, lane);
        r.walk.next[lane] = subscription_walk_place(sub, lane);
    }
    s->status = mqtt_record_put_subscription(s->out, &r);
}

static uint64_t expires_ms(const struct mqtt_conn *c)
{
    const struct mqtt_keep *k = c->keep;
    if (c->state < MQTT_STATE_CLOSING || k->expiry_s == RECORD_NEVER)
        return 0;
    return loop_wall_ms(c->door->edge->loop) + (uint64_t)k->expiry_s * 1000;
}

static void head_make(const struct mqtt_conn *c, struct record_head *h)
{
    const struct edge *e = c->door->edge;
    const struct mqtt_keep *k = c->keep;
    *h = (struct record_head){.epoch = hub_epoch(e->hub),
                              .lanes = hub_lane_count(e->hub),
                              .node_incarnation = c->state < MQTT_STATE_CLOSING ? e->facts->incarnation : 0,
                              .session_incarnation = k->session_incarnation,
                              .releases = k->releases,
                              .expiry_s = k->expiry_s,
                              .expires_ms = expires_ms(c),
                              .client_id = buf_slice(&c->client_id)};
    h->has_will = c->will != NULL;
    if (c->will)
        mqtt_will_record(c->will, &h->will);
}

/* What the record that is being made knows of. */
static void snapshot_covers(struct mqtt_keep *k)
{
    for (uint64_t i = k->step_covered; i < k->step_tail; i++)
        if (k->steps[i & (k->step_cap - 1)].type == MQTT_PUBCOMP) {
            k->releases++;
            break;
        }
    k->step_covered = k->step_tail;
    k->accepted_covered = k->accepted;
}

enum status mqtt_keep_snapshot(void *conn, struct buf *out)
{
    struct mqtt_conn *c = conn;
    struct mqtt_keep *k = c->keep;
    struct record_head head;
    struct snapshot s = {.conn = c, .out = out};
    if (k->final)
        return buf_put(out, buf_slice(&k->record));
    snapshot_covers(k);
    head_make(c, &head);
    s.status = mqtt_record_begin(out, &head);
    if (s.status == ST_OK)
        s.status = mqtt_record_put_received(out, &c->received);
    if (s.status == ST_OK)
        s.status = mqtt_record_put_flights(out, &c->flights);
    if (s.status == ST_OK && k->filters.len > 0)
        s.status = buf_put(out, k->filters); /* they are not subscribed yet */
    else if (s.status == ST_OK && c->session)
        session_each(c->session, put_subscription, &s);
    return s.status == ST_FULL ? ST_TOO_LARGE : s.status;
}

static size_t filter_bytes(struct mqtt_conn *c, struct slice filter)
{
    unsigned lane;
    unsigned lanes = hub_lane_count(c->door->edge->hub);
    return 7 + filter.len +
           16u * (topic_filter_partition(mqtt_shared_matched(filter), lanes, &lane) ? 1 : lanes);
}

struct sum {
    struct mqtt_conn *conn;
    size_t bytes;
};

static void add_bytes(void *ctx, struct subscription *sub)
{
    struct sum *sum = ctx;
    sum->bytes += filter_bytes(sum->conn, subscription_filter(sub));
}

bool mqtt_keep_has_room(struct mqtt_conn *c, struct slice filter)
{
    struct sum sum = {.conn = c, .bytes = filter_bytes(c, filter)};
    session_each(c->session, add_bytes, &sum);
    return sum.bytes <= c->door->edge->settings->limit_session_bytes;
}

/* --- identity of QoS 2 messages ----------------------------------------------------------------- */

uint64_t mqtt_keep_sequence(const struct mqtt_keep *k, uint16_t packet_id)
{
    uint64_t low = k->releases & ((UINT64_C(1) << RELEASE_BITS) - 1);
    return low << SEQUENCE_ID_BITS | packet_id;
}

/* Nobody can guess the incarnation, so no client's `tg-producer` is taken for it. */
struct once_id mqtt_keep_identity(const struct mqtt_keep *k, uint64_t sequence, char *name)
{
    int len = snprintf(name, ONCE_NAME_BYTES_MAX, "$mqtt/%016lx/%lx", (unsigned long)k->session_incarnation,
                       (unsigned long)(k->releases >> RELEASE_BITS));
    return (struct once_id){.kind = ONCE_PRODUCER, .name = slice_of(name, (size_t)len), .value = sequence};
}

/* --- who waits for the record ------------------------------------------------------------------- */

static enum status steps_grow(struct mqtt_keep *k)
{
    uint32_t cap = k->step_cap ? k->step_cap * 2 : STEP_CAP_FIRST;
    struct mqtt_step *ring = calloc(cap, sizeof *ring);
    if (!ring)
        return ST_NO_MEMORY;
    for (uint64_t i = k->step_head; i < k->step_tail; i++)
        ring[i & (cap - 1)] = k->steps[i & (k->step_cap - 1)];
    free(k->steps);
    k->steps = ring;
    k->step_cap = cap;
    return ST_OK;
}

static void settle_want(struct mqtt_keep *k)
{
    if (k->settling || !k->keeper)
        return;
    k->settling = true;
    keeper_want(k->keeper, &k->settle);
}

/* Without memory for it the client cannot be served: the flush closes the connection. */
void mqtt_keep_step(struct mqtt_conn *c, enum mqtt_type type, uint16_t packet_id, uint8_t reason)
{
    struct mqtt_keep *k = c->keep;
    if (k->step_tail - k->step_head == k->step_cap && steps_grow(k) != ST_OK) {
        c->broken = true;
        mqtt_conn_dirty(c);
        return;
    }
    k->steps[k->step_tail++ & (k->step_cap - 1)] =
        (struct mqtt_step){.packet_id = packet_id, .type = (uint8_t)type, .reason = reason};
    k->releasing += type == MQTT_PUBCOMP;
    settle_want(k);
}

bool mqtt_keep_holds(struct mqtt_conn *c, const struct mqtt_packet *p)
{
    struct mqtt_keep *k = c->keep;
    if (p->type == MQTT_PUBREL) /* also of identifiers that nobody knows, and there is no end to those */
        return k->releasing >= RELEASING_MAX;
    if (p->type != MQTT_PUBLISH || p->publish.qos != 2)
        return false;
    if (k->accepted >= ACCEPTED_MAX)
        settle_want(k);
    return k->releasing > 0 || k->accepted >= ACCEPTED_MAX;
}

static void step_go(struct mqtt_conn *c, const struct mqtt_step *step)
{
    struct flight *flight = flights_find(&c->flights, step->packet_id);
    const struct received *got = received_find(&c->received, step->packet_id);
    const struct mqtt_packet p = {.type = (enum mqtt_type)step->type,
                                  .ack = {.packet_id = step->packet_id, .reason = step->reason}};
    switch ((int)step->type) {
    case MQTT_PUBLISH:
        if (flight && flight->state == FLIGHT_HELD)
            mqtt_deliver_held(c, step->packet_id, flight);
        return;
    case MQTT_PUBREL:
        if (flight && flight->state == FLIGHT_RECEIVED)
            flight->state = FLIGHT_RELEASED;
        break;
    default:
        c->keep->releasing--;
        if (got && got->state == RECEIVED_RELEASING)
            received_remove(&c->received, step->packet_id);
    }
    mqtt_conn_send(c, &p);
}

/* A QoS 2 message of a shared subscription waits for its group, too (shared.h), and what comes behind it with
 * it: all leave in their order. */
static bool step_waits(const struct mqtt_conn *c, const struct mqtt_step *step)
{
    const struct flight *flight = flights_find(&c->flights, step->packet_id);
    return step->type == MQTT_PUBLISH && flight && (flight->flags & FLIGHT_TAKING);
}

void mqtt_keep_go_on(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    while (k->step_head < k->step_known && !c->broken) {
        const struct mqtt_step step = k->steps[k->step_head & (k->step_cap - 1)];
        if (step_waits(c, &step))
            break;
        k->step_head++;
        step_go(c, &step);
    }
    mqtt_publish_unpause(c);
}

static void on_settled(struct keeper_wait *w, enum status status)
{
    struct mqtt_keep *k = LIST_OF(w, struct mqtt_keep, settle);
    struct mqtt_conn *c = k->conn;
    k->settling = false;
    if (status != ST_OK) { /* what it waits for stays untold, and is as it was when the client returns */
        mqtt_conn_refuse_saying(c, MQTT_RC_QUOTA_EXCEEDED, "the session's record could not be written",
                                M_DISCONNECT_LIMIT);
        return;
    }
    k->accepted -= k->accepted_covered;
    k->accepted_covered = 0;
    mqtt_shared_take(c, k->step_known, k->step_covered);
    k->step_known = k->step_covered;
    if (k->step_known < k->step_tail)
        settle_want(k);
    mqtt_keep_go_on(c);
}

/* --- life --------------------------------------------------------------------------------------- */

/* SHA-256 of the user and the client identifier, as hexadecimal digits: a record's topic is short, and the
 * same at every node. Nobody resumes the session of another user. */
static enum status record_name(struct slice user, struct slice client_id, char out[KEEPER_NAME_BYTES])
{
    static const char prefix[] = "tidegate mqtt session\n";
    const uint8_t end = 0; /* neither holds U+0000 */
    uint8_t digest[KEEPER_NAME_BYTES / 2];
    unsigned len = sizeof digest;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, prefix, sizeof prefix - 1) == 1 &&
              EVP_DigestUpdate(md, user.data, user.len) == 1 && EVP_DigestUpdate(md, &end, 1) == 1 &&
              EVP_DigestUpdate(md, client_id.data, client_id.len) == 1 &&
              EVP_DigestFinal_ex(md, digest, &len) == 1;
    EVP_MD_CTX_free(md);
    for (unsigned i = 0; ok && i < sizeof digest; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    return ok ? ST_OK : ST_NO_MEMORY;
}

enum status mqtt_keep_open(struct mqtt_conn *c, const struct keeper_ops *ops)
{
    const struct settings *s = c->door->edge->settings;
    const struct keeper_limits limits = {.expiry_ms = UINT64_MAX, /* while a connection has it */
                                         .save_ms = s->session_save_ms,
                                         .save_count = s->session_save_count,
                                         .record_bytes_max =
                                             (uint32_t)(s->limit_session_bytes + RECORD_REST_BYTES)};
    char name[KEEPER_NAME_BYTES];
    struct mqtt_keep *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    enum status st = record_name(c->principal->user, buf_slice(&c->client_id), name);
    if (st == ST_OK)
        st = keeper_resume(c->door->edge->hub, c->door->edge->registry, &limits, ops, c, name, &k->keeper);
    if (st != ST_OK) {
        free(k);
        return st;
    }
    memcpy(k->name, name, sizeof k->name);
    k->conn = c;
    k->settle.on_kept = on_settled;
    list_init(&k->attach.link);
    list_init(&k->settle.link);
    list_init(&k->subacks);
    buf_init(&k->record, limits.record_bytes_max);
    c->keep = k;
    return ST_OK;
}

static void on_closed(struct keeper_wait *w, enum status status)
{
    struct mqtt_keep *k = LIST_OF(w, struct mqtt_keep, closed);
    (void)status;
    mqtt_shared_return(k->conn);
    k->conn->letters--;
    mqtt_conn_detached(k->conn);
}

void mqtt_keep_end(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    struct buf last;
    buf_init(&last, k->record.limit);
    if (mqtt_keep_snapshot(c, &last) != ST_OK)
        k->attached = false; /* no memory: the record stays as it is in the log */
    buf_deinit(&k->record);
    k->record = last;
    k->final = true;
    list_unlink(&k->settle.link);
    list_unlink(&k->attach.link);
}

void mqtt_keep_close(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    struct keeper *keeper = k->keeper;
    enum keeper_end end = !k->attached ? KEEPER_LEAVE : k->expiry_s == 0 ? KEEPER_FORGET : KEEPER_DETACH;
    uint64_t keep_ms = k->expiry_s == RECORD_NEVER ? UINT64_MAX : (uint64_t)k->expiry_s * 1000;
    if (c->will && keep_ms != UINT64_MAX)
        keep_ms += RECORD_WILL_GRACE_MS;
    k->keeper = NULL;
    k->closed.on_kept = on_closed;
    keeper_set_expiry(keeper, keep_ms);
    c->letters++;
    keeper_close_then(keeper, end, &k->closed);
}

void mqtt_keep_free(struct mqtt_conn *c)
{
    if (!c->keep)
        return;
    buf_deinit(&c->keep->record);
    free(c->keep->steps);
    free(c->keep->left);
    free(c->keep);
    c->keep = NULL;
}
