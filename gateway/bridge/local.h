/* The local side of a bridge: an MQTT 5.0 client of our own node, on a pair of sockets whose other end the
 * MQTT door serves like any connection. So a bridge has what every client has, and nothing else: what it
 * publishes is acknowledged when it is durable, and what is to go out is owed to a session, a durable cursor.
 *
 * One thread: the bridge's. Nothing blocks. */
#ifndef TG_GATEWAY_BRIDGE_LOCAL_H
#define TG_GATEWAY_BRIDGE_LOCAL_H

#include "gateway/edge.h"
#include "gateway/mqtt/packet.h"

/* Client identifiers that only bridges may have. */
#define LOCAL_ID_PREFIX "$bridge/"

struct local {
    int fd; /* -1: not open */
    uint16_t next_id;
    bool paused; /* nothing is read */
    bool subscribed; /* SUBACK has come */
    uint32_t keep_alive_s, packet_max, receive_max; /* as CONNACK says; 0 before it */
    uint64_t pinged_ms;
    struct buf in, out;
    void (*on_packet)(void *ctx, const struct mqtt_packet *p); /* PUBLISH, PUBACK, SUBACK */
    void *ctx;
};

struct local_session {
    const char *name; /* of the bridge */
    uint32_t expiry_s; /* how long it outlives its connections; 0: it does not, and begins clean */
    uint16_t receive_max;
    struct slice topics; /* of a SUBSCRIBE (packet.h), or empty */
    uint32_t topic_count;
    struct slice gone; /* of an UNSUBSCRIBE before it, or empty */
    uint32_t gone_count;
};

/* CONNECT and SUBSCRIBE are on their way. `l->on_packet` is set. ST_IO, ST_NO_MEMORY. */
enum status local_open(struct local *l, struct edge *edge, const struct local_session *s,
                       size_t packet_bytes_max) MUST_CHECK;
void local_close(struct local *l); /* again: nothing */
static inline bool local_up(const struct local *l)
{
    return l->packet_max > 0;
}

/* ST_CLOSED: the node has ended it, or sends what it must not. */
enum status local_read(struct local *l) MUST_CHECK;
enum status local_write(struct local *l) MUST_CHECK; /* what the socket takes */
enum status local_tick(struct local *l, uint64_t now_ms) MUST_CHECK;
/* Queued. ST_TOO_LARGE: the node would not take it. ST_FULL, ST_NO_MEMORY. `p->packet_id` is given here. */
enum status local_publish(struct local *l, struct mqtt_publish *p) MUST_CHECK;
enum status local_ack(struct local *l, uint16_t packet_id) MUST_CHECK;

/* One entry of local_session.topics: No Local (what a bridge has brought it does not take back), Retain As
 * Published, retained messages only when the subscription is new. */
enum status local_topic(struct buf *topics, struct slice filter, uint8_t qos) MUST_CHECK;

/* One entry of local_session.gone. */
enum status local_gone(struct buf *gone, struct slice filter) MUST_CHECK;

#endif
