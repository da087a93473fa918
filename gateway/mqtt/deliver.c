/* Messages to the client.
 *
 * A message is framed once for each kind of receiver (version, QoS) into the loop's scratch space. QoS 0
 * bytes are the same for all, so a connection only borrows them; else the frame is copied, and the flags and
 * the packet identifier are written in. A receiver with a subscription identifier or with topic aliases gets
 * a frame of its own. */
#include "gateway/mqtt/keep.h"

#include "gateway/mqtt/frame.h"
#include "gateway/mqtt/inbox.h"
#include "gateway/peer.h"

/* Shorter names gain nothing by an alias: the property takes three bytes. */
enum { ALIASED_TOPIC_BYTES_MIN = 5 };

/* The shared bytes of this kind; identifier 0 where there is one. */
static struct slice frame_shared(struct edge *e, struct delivery *d, uint8_t version, bool numbered)
{
    enum wire_kind kind = version == MQTT_V5 ? (numbered ? WIRE_MQTT5_QOS1 : WIRE_MQTT5_QOS0)
                                             : (numbered ? WIRE_MQTT3_QOS1 : WIRE_MQTT3_QOS0);
    const struct frame_shape shape = {.version = version, .qos = numbered};
    struct frame_plan plan;
    if (d->wires[kind].data || !frame_plan(d->msg, &shape, loop_wall_ms(e->loop), &plan))
        return d->wires[kind];
    uint8_t *frame = hub_scratch(e->hub, kind, plan.bytes);
    if (!frame)
        return (struct slice){0};
    frame_write(d->msg, &plan, frame);
    return d->wires[kind] = slice_of(frame, plan.bytes);
}

/* RETAIN of the packet (3.3.1.3): 1 for a retained message that a new subscription brings, else 0, or as
 * published when the subscription asked for that. */
static bool retain_flag(const struct subscription *sub, const struct delivery *d)
{
    return d->retained || (subscription_options_of(sub)->retain_as_published && (d->msg->flags & MSG_RETAIN));
}

/* A QoS 0 message without room: dropped when it is live, else a replay waits for its reader. */
static enum status no_room(const struct delivery *d, const struct frame_shape *shape)
{
    return shape->qos == 0 && d->live ? ST_FULL : ST_AGAIN;
}

/* A packet identifier; false: none is free. */
static bool flight_take(struct mqtt_conn *c, const struct delivery *d, struct frame_shape *shape,
                        struct flight **out)
{
    struct flight *flight;
    if (flights_take(&c->flights, &shape->packet_id, &flight) != ST_OK)
        return false;
    flight->qos = shape->qos;
    flight->lane = (uint16_t)d->msg->partition;
    flight->offset = d->msg->offset;
    flight->subscription_id = shape->subscription_id;
    flight->ticket = d->ticket;
    flight->flags =
        (uint8_t)((shape->retain ? FLIGHT_RETAIN : 0) | (d->msg->flags & MSG_UNSTORED ? FLIGHT_UNSTORED : 0));
    *out = flight;
    return true;
}

/* Room for `len` bytes in the queue, and a packet identifier where one is needed. ST_OK with *place. */
static enum status deliver_begin(struct mqtt_conn *c, const struct delivery *d, struct frame_shape *shape,
                                 size_t len, uint8_t **place)
{
    struct flight *flight;
    if (!mqtt_conn_has_room(c, len))
        return no_room(d, shape);
    if (shape->qos > 0 && !flight_take(c, d, shape, &flight))
        return ST_AGAIN;
    *place = outq_reserve(&c->out, len);
    if (!*place) {
        if (shape->qos > 0)
            flights_end(&c->flights, shape->packet_id);
        return ST_AGAIN;
    }
    return ST_OK;
}

/* A message that may not leave before the session's record knows who gets it under which identifier: QoS 2,
 * and what comes behind one that waits. */
static enum status deliver_later(struct mqtt_conn *c, const struct subscription *sub,
                                 const struct delivery *d, struct frame_shape *shape)
{
    struct mqtt_keep *k = c->keep;
    struct flight *flight;
    struct frame_plan plan;
    if (!frame_plan(d->msg, shape, loop_wall_ms(c->door->edge->loop), &plan) ||
        plan.bytes > c->client_packet_max)
        return ST_TOO_LARGE;
    bool room = k->held_bytes == 0 || k->held_bytes + plan.bytes <= c->out.bytes_max;
    if (!room || !mqtt_conn_has_room(c, plan.bytes) || !flight_take(c, d, shape, &flight))
        return ST_AGAIN;
    flight->state = FLIGHT_HELD;
    mqtt_shared_mark(flight, sub);
    flight->msg = msg_ref(d->msg);
    k->held_bytes += plan.bytes;
    mqtt_keep_step(c, MQTT_PUBLISH, shape->packet_id, MQTT_RC_SUCCESS);
    return ST_OK;
}

void mqtt_deliver_held(struct mqtt_conn *c, uint16_t packet_id, struct flight *flight)
{
    struct edge *e = c->door->edge;
    const struct frame_shape shape = {.version = c->version,
                                      .qos = flight->qos,
                                      .retain = flight->flags & FLIGHT_RETAIN,
                                      .packet_id = packet_id,
                                      .subscription_id = flight->subscription_id};
    struct frame_plan plan;
    bool made = frame_plan(flight->msg, &shape, loop_wall_ms(e->loop), &plan);
    uint8_t *place = made ? outq_reserve(&c->out, plan.bytes) : NULL;
    if (!place) {
        c->broken = true;
    } else {
        frame_write(flight->msg, &plan, place);
        flight->state = FLIGHT_SENT;
        c->keep->held_bytes -= plan.bytes;
        metric_add(e->metrics, M_SENT_MQTT + flight->qos, 1);
        msg_unref(flight->msg);
        flight->msg = NULL;
    }
    mqtt_conn_dirty(c);
}

/* By the bytes that all receivers of the kind share. */
static enum status deliver_shared(struct mqtt_conn *c, struct delivery *d, struct frame_shape *shape)
{
    struct slice frame = frame_shared(c->door->edge, d, shape->version, shape->qos > 0);
    uint8_t *place;
    if (!frame.data || frame.len > c->client_packet_max) /* MQTT-3.1.2-24/25: never sent, as if delivered */
        return ST_TOO_LARGE;
    if (shape->qos == 0 && !shape->retain) {
        if (!mqtt_conn_has_room(c, frame.len))
            return no_room(d, shape);
        return outq_put_span(&c->out, frame) == ST_OK ? ST_OK : ST_AGAIN;
    }
    enum status st = deliver_begin(c, d, shape, frame.len, &place);
    if (st != ST_OK)
        return st;
    memcpy(place, frame.data, frame.len);
    frame_stamp(place, d->msg, shape);
    return ST_OK;
}

/* By a frame of its own. An alias is the receiver's only once the frame that tells it is queued. */
static enum status deliver_own(struct mqtt_conn *c, struct delivery *d, struct frame_shape *shape)
{
    struct frame_plan plan;
    uint8_t *place;
    bool aliased = c->aliases_out.max > 0 && d->msg->topic_len >= ALIASED_TOPIC_BYTES_MIN;
    if (aliased)
        shape->alias =
            aliases_choose(&c->aliases_out, msg_topic(d->msg), d->msg->topic_hash, &shape->topic_known);
    if (aliased && !shape->topic_known &&
        aliases_set(&c->aliases_out, shape->alias, msg_topic(d->msg)) != ST_OK)
        shape->alias = 0;
    if (!frame_plan(d->msg, shape, loop_wall_ms(c->door->edge->loop), &plan))
        return ST_TOO_LARGE;
    enum status st =
        plan.bytes > c->client_packet_max ? ST_TOO_LARGE : deliver_begin(c, d, shape, plan.bytes, &place);
    if (st != ST_OK) {
        if (shape->alias && !shape->topic_known)
            aliases_forget(&c->aliases_out, shape->alias);
        return st;
    }
    plan.shape = *shape; /* with the identifier */
    frame_write(d->msg, &plan, place);
    return ST_OK;
}

/* No Local (MQTT-3.8.3-3) for what comes out of the log, which does not keep the publishing connection: the
 * hub knows it of live messages only. */
static bool is_own(const struct mqtt_conn *c, const struct msg *m)
{
    struct slice origin;
    uint64_t own = mqtt_origin(c);
    return m->props_len > 0 && props_find(msg_props(m), PROP_ORIGIN, &origin) &&
           slice_equal(origin, slice_of(&own, sizeof own));
}

static enum status mqtt_deliver(void *conn, struct subscription *sub, struct delivery *d)
{
    struct mqtt_conn *c = conn;
    struct edge *e = c->door->edge;
    const struct subscription_options *o = subscription_options_of(sub);
    struct frame_shape shape = {.version = c->version,
                                .qos = o->qos < d->msg->qos ? o->qos : d->msg->qos,
                                .retain = retain_flag(sub, d),
                                .subscription_id = o->subscription_id};
    if (c->broken) /* its last packet is queued */
        return ST_AGAIN;
    if (!d->live && o->no_local && is_own(c, d->msg))
        return ST_NOT_FOUND;
    bool owed = d->retained || d->live || d->ticket; /* a group has kept it for whoever comes first */
    if (c->keep && !owed && shape.qos == 0 && mqtt_keep_missed(c->keep, d->msg))
        return ST_NOT_FOUND; /* nobody was there, and QoS 0 is not kept */
    bool own = shape.subscription_id > 0 || c->aliases_out.max > 0;
    bool waits = c->keep && shape.qos > 0 && c->keep->resend.open; /* what was in flight goes first */
    bool later = c->keep && (shape.qos == 2 || (shape.qos == 1 && c->keep->held_bytes > 0));
    enum status st = waits   ? ST_AGAIN
                     : later ? deliver_later(c, sub, d, &shape)
                     : own   ? deliver_own(c, d, &shape)
                             : deliver_shared(c, d, &shape);
    if (st == ST_OK) {
        if (mqtt_inbox_follows(c, sub) && shape.qos > 0 && !d->retained && !(d->msg->flags & MSG_UNSTORED))
            mqtt_inbox_sent(c, shape.packet_id);
        if (shape.qos > 0) /* the flight has it */
            d->ticket = NULL;
        metric_add(e->metrics, M_SENT_MQTT + shape.qos, !later);
        metric_add(e->metrics, shape.qos > 0 ? M_UNACKED_MQTT : M_DELIVERED_MQTT, 1);
        mqtt_conn_dirty(c);
    }
    return st;
}

static void mqtt_live(void *conn, struct subscription *sub, const struct place *at)
{
    (void)conn;
    (void)sub;
    (void)at; /* MQTT has no word for it */
}

/* MQTT cannot tell a gap; it is counted where it was found. */
static void mqtt_gap(void *conn, struct subscription *sub, const struct gap *gap)
{
    (void)conn;
    (void)sub;
    (void)gap;
}

static struct slice mqtt_name(void *conn)
{
    const struct mqtt_conn *c = conn;
    return buf_slice(&c->client_id);
}

static void mqtt_too_many(void *conn)
{
    mqtt_conn_refuse_saying(conn, MQTT_RC_QUOTA_EXCEEDED, "limit.user_connections is reached",
                            M_DISCONNECT_LIMIT);
}

static void mqtt_describe(void *conn, struct connection_facts *out)
{
    const struct mqtt_conn *c = conn;
    out->client_id = buf_slice(&c->client_id);
    out->address = slice_of(out->texts, peer_address(c->watch.fd, out->texts));
    out->queued_bytes = c->queued_counted;
    out->unacknowledged = c->flights.count;
}

static void mqtt_kick(void *conn)
{
    mqtt_conn_refuse(conn, MQTT_RC_ADMINISTRATIVE_ACTION, M_DISCONNECT_SERVER);
}

const struct transport_ops mqtt_transport = {
    .describe = mqtt_describe,
    .kick = mqtt_kick,
    .door = "mqtt",
    .too_many = mqtt_too_many,
    .deliver = mqtt_deliver,
    .subscribed = mqtt_on_subscribed,
    .live = mqtt_live,
    .gap = mqtt_gap,
    .name = mqtt_name,
};
