/* What was in flight when the connection before this one ended is sent again, in the order of the first time
 * and under the same identifiers (MQTT-4.4.0-1, MQTT-4.6.0-1): PUBLISH with DUP where neither PUBACK nor
 * PUBREC has come, else PUBREL. The messages come from the log, one at a time, as the connection has room for
 * them. Nothing new with QoS 1 or 2 goes out before. */
#include "gateway/mqtt/keep.h"

#include "gateway/mqtt/frame.h"
#include "gateway/mqtt/inbox.h"

static void send_pubrel(struct mqtt_conn *c, uint16_t id, struct flight *flight)
{
    const struct mqtt_packet p = {.type = MQTT_PUBREL, .ack = {.packet_id = id}};
    flight->state = FLIGHT_RELEASED;
    mqtt_conn_send(c, &p);
}

/* It cannot be had any more, or may not be sent. The client may hold half of a QoS 2 exchange: that is
 * brought to its end, so that the identifier is free on both sides. */
static void resend_drop(struct mqtt_conn *c, uint16_t id, struct flight *flight, enum metric why)
{
    struct metrics *m = c->door->edge->metrics;
    if (flight->qos == 2) {
        send_pubrel(c, id, flight);
        return;
    }
    metric_sub(m, M_UNACKED_MQTT, 1);
    metric_add(m, why, 1);
    mqtt_inbox_done(c, id, flight);
    flights_end(&c->flights, id);
}

/* False: no room; it will be read once more. */
static bool resend_send(struct mqtt_conn *c, uint16_t id, struct flight *flight, const struct msg *m)
{
    struct edge *e = c->door->edge;
    const struct frame_shape shape = {.version = c->version,
                                      .qos = flight->qos,
                                      .dup = true,
                                      .retain = flight->flags & FLIGHT_RETAIN,
                                      .packet_id = id,
                                      .subscription_id = flight->subscription_id};
    struct frame_plan plan;
    if (m->expires_ms && loop_wall_ms(e->loop) >= m->expires_ms) {
        resend_drop(c, id, flight, M_DROPPED_EXPIRED);
        return true;
    }
    if (!frame_plan(m, &shape, loop_wall_ms(e->loop), &plan) || plan.bytes > c->client_packet_max) {
        resend_drop(c, id, flight, M_DROPPED_TOO_LARGE);
        return true;
    }
    uint8_t *place = mqtt_conn_has_room(c, plan.bytes) ? outq_reserve(&c->out, plan.bytes) : NULL;
    if (!place)
        return false;
    frame_write(m, &plan, place);
    flight->state = FLIGHT_SENT;
    flights_reopen(&c->flights, flight);
    metric_add(e->metrics, M_SENT_MQTT + flight->qos, 1);
    mqtt_conn_dirty(c);
    return true;
}

static void resend_has_read(struct read *r)
{
    struct mqtt_conn *c = r->owner;
    c->letters--;
    if (mqtt_conn_active(c)) {
        struct mqtt_keep *k = c->keep;
        struct flight *flight = flights_find(&c->flights, k->resend.last);
        bool there = r->store.status == ST_OK && r->store.found == 1;
        k->resend.reading = false;
        if (flight && flight->state == FLIGHT_OWED) {
            if (r->store.status == ST_AGAIN) /* another node has sent it, and this one has yet to read it */
                k->resend.last = k->resend.before;
            else if (!there)
                resend_drop(c, k->resend.last, flight, M_DROPPED_RETENTION);
            else if (!resend_send(c, k->resend.last, flight, r->store.msgs[0]))
                k->resend.last = k->resend.before;
        }
    }
    read_release(r);
    if (mqtt_conn_active(c) && mqtt_conn_has_room(c, 1))
        mqtt_resend_go(c);
    mqtt_conn_free_if_done(c);
}

static void resend_read(struct mqtt_conn *c, const struct flight *flight)
{
    struct mqtt_keep *k = c->keep;
    k->resend.reading = true;
    k->resend.read = (struct read){.store = {.lane = flight->lane,
                                             .from = flight->offset,
                                             .to = flight->offset + 1,
                                             .count_max = 1,
                                             .bytes_max = 1},
                                   .whole = true,
                                   .on_read = resend_has_read,
                                   .owner = c};
    c->letters++;
    hub_read_lane(c->door->edge->hub, &k->resend.read);
}

static void resend_done(struct mqtt_conn *c)
{
    c->keep->resend.open = false;
    mqtt_subscriptions_begin(c);
    if (mqtt_conn_active(c))
        session_room(c->session);
}

void mqtt_resend_go(struct mqtt_conn *c)
{
    struct mqtt_keep *k = c->keep;
    while (k->resend.open && !k->resend.reading && mqtt_conn_active(c)) {
        uint16_t id = k->resend.last;
        struct flight *flight = flights_behind(&c->flights, &id);
        if (flight && flight->state == FLIGHT_OWED && !(flight->flags & FLIGHT_UNSTORED) &&
            (flights_full(&c->flights) || !mqtt_conn_has_room(c, 1)))
            return; /* an acknowledgement, or the flush, comes here again */
        k->resend.before = k->resend.last;
        k->resend.last = id;
        if (!flight)
            resend_done(c);
        else if (flight->state == FLIGHT_RECEIVED || flight->state == FLIGHT_RELEASED)
            send_pubrel(c, id, flight);
        else if (flight->state == FLIGHT_OWED && (flight->flags & FLIGHT_UNSTORED))
            resend_drop(c, id, flight, M_DROPPED_UNSTORED);
        else if (flight->state == FLIGHT_OWED)
            resend_read(c, flight);
    }
}

void mqtt_resend_begin(struct mqtt_conn *c)
{
    c->keep->resend.open = true;
    mqtt_resend_go(c);
}
