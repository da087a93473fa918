#include "gateway/mqtt/shared.h"

#include "core/hash.h"
#include "core/logging.h"
#include "gateway/mqtt/keep.h"

#include <stdlib.h>

static bool is_kept(const struct mqtt_conn *c)
{
    return c->keep && c->keep->expiry_s > 0;
}

uint64_t mqtt_shared_name(const struct mqtt_conn *c)
{
    return c->keep && c->keep->expiry_s > 0 ? c->keep->session_incarnation : 0;
}

struct slice mqtt_shared_matched(struct slice filter)
{
    struct slice matched;
    return topic_share_filter(filter, &matched) ? matched : filter;
}

/* --- QoS 2 to the client ------------------------------------------------------------------------ */

void mqtt_shared_mark(struct flight *flight, const struct subscription *sub)
{
    if (!flight->ticket || flight->qos != 2)
        return;
    flight->flags |= FLIGHT_SHARED;
    flight->group = hash64_stable(subscription_filter(sub));
}

static void shared_taken(void *ctx, uint32_t tag, enum status status)
{
    struct mqtt_conn *c = ctx;
    c->letters--;
    struct flight *flight = c->state == MQTT_STATE_DEAD ? NULL : flights_find(&c->flights, (uint16_t)tag);
    if (flight)
        flight->flags &= (uint8_t)~FLIGHT_TAKING;
    if (mqtt_conn_active(c) && status == ST_OK)
        mqtt_keep_go_on(c);
    else if (mqtt_conn_active(c)) /* it is in the session's record: the client gets it when it returns */
        mqtt_conn_refuse_saying(c, MQTT_RC_QUOTA_EXCEEDED,
                                "the record of a shared subscription could not be written",
                                M_DISCONNECT_LIMIT);
    mqtt_conn_free_if_done(c);
}

void mqtt_shared_take(struct mqtt_conn *c, uint64_t from, uint64_t to)
{
    struct mqtt_keep *k = c->keep;
    for (uint64_t i = from; i < to; i++) {
        const struct mqtt_step *step = &k->steps[i & (k->step_cap - 1)];
        struct flight *flight =
            step->type == MQTT_PUBLISH ? flights_find(&c->flights, step->packet_id) : NULL;
        if (!flight || flight->state != FLIGHT_HELD || flight->qos != 2 || !flight->ticket)
            continue;
        c->letters++;
        if (hub_share_take(c->door->edge->hub, flight->lane, flight->ticket, shared_taken, c,
                           step->packet_id) != ST_OK) {
            c->letters--;
            c->broken = true; /* it is given back when the flush closes the connection */
            mqtt_conn_dirty(c);
            return;
        }
        flight->ticket = NULL;
        flight->flags |= FLIGHT_TAKING;
    }
}

/* --- the connection ends ------------------------------------------------------------------------ */

/* How many messages of the group wait for this session alone. */
static uint32_t shared_owed(void *ctx, struct slice filter, unsigned lane)
{
    const struct mqtt_conn *c = ctx;
    const struct flight *flight;
    uint64_t group = hash64_stable(filter);
    uint32_t place = 0, count = 0;
    uint16_t id;
    while ((flight = flights_next(&c->flights, &place, &id)))
        count += (flight->flags & FLIGHT_SHARED) && !flight->ticket && flight->group == group &&
                 flight->lane == lane;
    return count;
}

static void shared_flight_ends(struct mqtt_conn *c, uint16_t id, enum metric what)
{
    metric_sub(c->door->edge->metrics, M_UNACKED_MQTT, 1);
    metric_add(c->door->edge->metrics, what, 1);
    flights_end(&c->flights, id);
}

/* The session ends with the connection (4.8.2): another member gets what it has not acknowledged. But a QoS 2
 * message that was sent may have been taken: it is nobody else's. */
static void shared_give_back(struct mqtt_conn *c, uint16_t id, struct flight *flight)
{
    bool sent = flight->state != FLIGHT_HELD || !flight->ticket;
    if (!flight->ticket && !(flight->flags & FLIGHT_SHARED))
        return;
    mqtt_flight_settle(c, flight, !(flight->flags & FLIGHT_UNSTORED) && (flight->qos == 1 || !sent));
    if (flight->qos == 2 && sent)
        shared_flight_ends(c, id, M_DROPPED_SESSION);
}

/* True: the ticket is kept until the session's last record, which is without the flight, is durable: the one
 * before may have it, and a crash would find it in both. */
static bool shared_keep_ticket(struct mqtt_conn *c, const struct flight *flight)
{
    struct mqtt_keep *k = c->keep;
    struct mqtt_shared_left *left = realloc(k->left, (k->left_count + 1) * sizeof *left);
    if (!left)
        return false;
    k->left = left;
    left[k->left_count++] = (struct mqtt_shared_left){.ticket = flight->ticket, .lane = flight->lane};
    return true;
}

/* The session goes on without a connection. */
static void shared_put_off(struct mqtt_conn *c, uint16_t id, struct flight *flight)
{
    if (!flight->ticket)
        return;
    if (flight->qos == 1 || (flight->flags & FLIGHT_UNSTORED) || !shared_keep_ticket(c, flight))
        mqtt_flight_settle(c, flight, !(flight->flags & FLIGHT_UNSTORED));
    flight->ticket = NULL;
    shared_flight_ends(c, id, M_RETURNED);
}

void mqtt_shared_leave(struct mqtt_conn *c)
{
    struct share_leaving how = {.owed = shared_owed, .ctx = c};
    struct flight *flight;
    uint16_t id = 0;
    bool kept = is_kept(c);
    if (kept && c->keep->expiry_s == RECORD_NEVER)
        how.until_ms = UINT64_MAX;
    else if (kept)
        how.until_ms = loop_wall_ms(c->door->edge->loop) + (uint64_t)c->keep->expiry_s * 1000;
    if (c->session)
        session_leave_shares(c->session, &how); /* what it gives back is not to come to it again */
    while ((flight = flights_behind(&c->flights, &id))) {
        if (kept)
            shared_put_off(c, id, flight);
        else
            shared_give_back(c, id, flight);
    }
}

void mqtt_shared_return(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    for (uint32_t i = 0; i < k->left_count; i++)
        hub_settle(c->door->edge->hub, k->left[i].lane, k->left[i].ticket, true);
    free(k->left);
    k->left = NULL;
    k->left_count = 0;
}

/* --- what records say --------------------------------------------------------------------------- */

/* Up to the filters. */
static enum status skip_to_filters(struct record_reader *r,
                                   void (*on_flight)(void *ctx, const struct flight *f), void *ctx)
{
    struct received received;
    struct flight flight;
    uint16_t id;
    enum status st;
    while ((st = mqtt_record_next_received(r, &received)) == ST_OK)
        ;
    while (st == ST_NOT_FOUND && (st = mqtt_record_next_flight(r, &id, &flight)) == ST_OK) {
        on_flight(ctx, &flight);
        st = ST_NOT_FOUND;
    }
    return st;
}

static void no_flight(void *ctx, const struct flight *f)
{
    (void)ctx;
    (void)f;
}

void mqtt_shared_release(struct mqtt_conn *c, struct slice record)
{
    struct record_reader r;
    struct record_head head;
    struct record_subscription s;
    struct slice matched;
    if (mqtt_record_open(record, &r, &head) != ST_OK || skip_to_filters(&r, no_flight, NULL) != ST_NOT_FOUND)
        return;
    while (mqtt_record_next_subscription(&r, &s) == ST_OK)
        if (topic_share_filter(s.filter, &matched))
            hub_share_release(c->door->edge->hub, s.filter, head.session_incarnation);
}

struct recall {
    const struct shard_map *map;
    struct record_head head;
    uint64_t until_ms;
};

static void recall_flight(void *ctx, const struct flight *f)
{
    const struct recall *r = ctx;
    if (f->flags & FLIGHT_SHARED)
        shard_share_taken(r->map->lanes[f->lane].shard, f->group, r->head.session_incarnation, f->offset);
}

static void recall_members(const struct recall *r, struct record_reader *reader)
{
    struct record_subscription s;
    struct slice matched;
    while (mqtt_record_next_subscription(reader, &s) == ST_OK) {
        if (!topic_share_filter(s.filter, &matched))
            continue;
        for (unsigned lane = s.first_lane; lane < s.first_lane + s.lane_count; lane++)
            shard_share_member(r->map->lanes[lane].shard, s.filter, r->head.session_incarnation, r->until_ms);
    }
}

/* The rules by which a session goes on are resume.c's. */
static void recall_record(void *ctx, const struct msg *m)
{
    struct recall *r = ctx;
    struct record_reader reader;
    struct slice filters;
    const struct shard_map *map = r->map;
    uint64_t now_ms = loop_wall_ms(shard_loop(map->lanes[0].shard));
    if (!mqtt_record_valid(msg_payload(m), map->epoch, map->lane_count, &filters) ||
        mqtt_record_open(msg_payload(m), &reader, &r->head) != ST_OK)
        return;
    bool crashed = r->head.node_incarnation != 0, never = r->head.expiry_s == RECORD_NEVER;
    r->until_ms = never     ? UINT64_MAX
                  : crashed ? now_ms + (uint64_t)r->head.expiry_s * 1000
                            : r->head.expires_ms;
    if ((crashed && r->head.expiry_s == 0) || r->until_ms <= now_ms)
        return;
    if (skip_to_filters(&reader, recall_flight, r) == ST_NOT_FOUND)
        recall_members(r, &reader);
}

void mqtt_shared_recall(const struct shard_map *map)
{
    struct recall r = {.map = map};
    bool any = false;
    for (unsigned lane = 0; lane < map->lane_count; lane++)
        any |= shard_shares_kept(map->lanes[lane].shard);
    for (unsigned lane = 0; any && lane < map->lane_count; lane++)
        shard_each_session(map->lanes[lane].shard, recall_record, &r);
    for (unsigned lane = 0; any && lane < map->lane_count; lane++)
        shard_share_recalled(map->lanes[lane].shard);
}
