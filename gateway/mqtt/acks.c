/* Acknowledgements from the client (4.3, 4.6), and the second half of QoS 2 in both directions:
 *
 *   to the client     PUBLISH ->   <- PUBREC   PUBREL ->   <- PUBCOMP      (flights)
 *   from the client   <- PUBLISH   PUBREC ->   <- PUBREL   PUBCOMP ->      (received; PUBREC: publish.c)
 *
 * An acknowledgement of something that is not in flight is no error: after a lost connection both sides may
 * say a thing twice. One that belongs to another QoS is. */
#include "gateway/mqtt/inbox.h"
#include "gateway/mqtt/keep.h"

static void send_ack(struct mqtt_conn *c, enum mqtt_type type, uint16_t packet_id, uint8_t reason)
{
    const struct mqtt_packet p = {.type = type, .ack = {.packet_id = packet_id, .reason = reason}};
    mqtt_conn_send(c, &p);
}

static void protocol_error(struct mqtt_conn *c, const char *words)
{
    mqtt_conn_refuse_saying(c, MQTT_RC_PROTOCOL_ERROR, words, M_DISCONNECT_PROTOCOL);
}

/* --- to the client ------------------------------------------------------------------------------ */

void mqtt_flight_settle(struct mqtt_conn *c, struct flight *flight, bool again)
{
    if (flight->ticket)
        hub_settle(c->door->edge->hub, flight->lane, flight->ticket, again);
    flight->ticket = NULL;
}

static void flight_done(struct mqtt_conn *c, uint16_t id)
{
    bool was_full = flights_full(&c->flights);
    mqtt_inbox_done(c, id, flights_find(&c->flights, id));
    bool shared = flights_find(&c->flights, id)->ticket != NULL; /* its place is the group's */
    mqtt_flight_settle(c, flights_find(&c->flights, id), false);
    flights_end(&c->flights, id);
    metric_sub(c->door->edge->metrics, M_UNACKED_MQTT, 1);
    metric_add(c->door->edge->metrics, M_DELIVERED_MQTT, 1);
    if (c->keep && c->keep->keeper && !shared)
        keeper_moved(c->keep->keeper, 1);
    if (was_full || c->flights.open <= c->flights.max / 2)
        mqtt_conn_has_got_room(c);
}

void mqtt_handle_puback(struct mqtt_conn *c, const struct mqtt_ack *p)
{
    const struct flight *flight = flights_find(&c->flights, p->packet_id);
    if (!flight || flight->state == FLIGHT_HELD || flight->state == FLIGHT_OWED)
        return; /* 5.0 has no answer to a PUBACK; a late one is ignored */
    if (flight->qos != 1)
        protocol_error(c, "PUBACK for a PUBLISH with QoS 2");
    else
        flight_done(c, p->packet_id);
}

void mqtt_handle_pubrec(struct mqtt_conn *c, const struct mqtt_ack *p)
{
    struct flight *flight = flights_find(&c->flights, p->packet_id);
    if (!flight || flight->state == FLIGHT_HELD || flight->state == FLIGHT_OWED) {
        send_ack(c, MQTT_PUBREL, p->packet_id, MQTT_RC_PACKET_IDENTIFIER_NOT_FOUND);
    } else if (flight->qos != 2) {
        protocol_error(c, "PUBREC for a PUBLISH with QoS 1");
    } else if (p->reason >= 0x80) { /* MQTT-4.3.3-4: it does not want it, and the identifier is free */
        flight_done(c, p->packet_id);
    } else if (c->keep && flight->state == FLIGHT_SENT) {
        flight->state = FLIGHT_RECEIVED;
        mqtt_keep_step(c, MQTT_PUBREL, p->packet_id, MQTT_RC_SUCCESS);
    } else if (flight->state != FLIGHT_RECEIVED) {
        flight->state = FLIGHT_RELEASED;
        send_ack(c, MQTT_PUBREL, p->packet_id, MQTT_RC_SUCCESS);
    }
}

void mqtt_handle_pubcomp(struct mqtt_conn *c, const struct mqtt_ack *p)
{
    const struct flight *flight = flights_find(&c->flights, p->packet_id);
    if (!flight || flight->state == FLIGHT_OWED)
        return;
    if (flight->qos != 2 || flight->state != FLIGHT_RELEASED)
        protocol_error(c, "PUBCOMP without a PUBREL");
    else
        flight_done(c, p->packet_id);
}

/* --- from the client ---------------------------------------------------------------------------- */

void mqtt_handle_pubrel(struct mqtt_conn *c, const struct mqtt_ack *p)
{
    struct received *got = received_find(&c->received, p->packet_id);
    if (!got && !c->keep) {
        send_ack(c, MQTT_PUBCOMP, p->packet_id, MQTT_RC_PACKET_IDENTIFIER_NOT_FOUND);
        return;
    }
    if (!got) { /* a crash may have taken what was known of it: it is released all the same */
        mqtt_keep_step(c, MQTT_PUBCOMP, p->packet_id, MQTT_RC_PACKET_IDENTIFIER_NOT_FOUND);
        return;
    }
    if (got->state == RECEIVED_STORING) { /* MQTT-4.3.3-5: not before our PUBREC */
        protocol_error(c, "PUBREL before its PUBREC");
        return;
    }
    if (c->keep) {
        if (got->state != RECEIVED_RELEASING)
            mqtt_keep_step(c, MQTT_PUBCOMP, p->packet_id, MQTT_RC_SUCCESS);
        got->state = RECEIVED_RELEASING;
        return;
    }
    received_remove(&c->received, p->packet_id);
    send_ack(c, MQTT_PUBCOMP, p->packet_id, MQTT_RC_SUCCESS);
}
