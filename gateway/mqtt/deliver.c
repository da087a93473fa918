/* Messages to the client.
 *
 * A message is framed once for each kind of receiver (version, QoS) into the loop's scratch space. QoS 0
 * bytes are the same for all, so a connection only borrows them; QoS 1 differs in the packet identifier, so
 * the frame is copied and the two bytes are written in. The place of the identifier follows from the frame
 * itself: behind the topic. */
#include "gateway/mqtt/conn_private.h"

#include <assert.h>

/* Behind the fixed header: topic length, topic, then (QoS 1) the packet identifier. */
static size_t id_place(const struct msg *m, size_t header_bytes)
{
    return header_bytes + 2 + m->topic_len;
}

/* 5.0 properties of an outgoing PUBLISH (3.3.2.3), without their length. Returns the bytes. With `w` NULL it
 * only counts. */
static size_t props_write(const struct msg *m, uint64_t now_ms, uint8_t *w)
{
    static const uint8_t ids[] = {
        [PROP_CONTENT_TYPE] = 0x03, [PROP_RESPONSE_TOPIC] = 0x08, [PROP_CORRELATION] = 0x09};
    size_t place = 0, n = 0;
    enum msg_prop type;
    struct slice value;
    if (m->flags & MSG_PFI_UTF8) {
        if (w)
            memcpy(w + n, (const uint8_t[]){0x01, 0x01}, 2);
        n += 2;
    }
    if (m->expires_ms) { /* what is left, rounded up: 3.3.2.3.3 */
        uint64_t left = m->expires_ms > now_ms ? (m->expires_ms - now_ms + 999) / 1000 : 0;
        left = left > UINT32_MAX ? UINT32_MAX : left; /* other doors take longer ones */
        if (w)
            memcpy(w + n,
                   (const uint8_t[]){0x02, (uint8_t)(left >> 24), (uint8_t)(left >> 16), (uint8_t)(left >> 8),
                                     (uint8_t)left},
                   5);
        n += 5;
    }
    while (props_next(msg_props(m), &place, &type, &value)) {
        if (type ==
            PROP_USER) { /* {u16 name length, name, value}, little endian -> two strings, big endian */
            size_t name_len = (size_t)value.data[0] | (size_t)value.data[1] << 8;
            size_t value_len = value.len - 2 - name_len;
            if (w) {
                uint8_t *o = w + n;
                *o++ = 0x26;
                *o++ = (uint8_t)(name_len >> 8);
                *o++ = (uint8_t)name_len;
                memcpy(o, value.data + 2, name_len);
                o += name_len;
                *o++ = (uint8_t)(value_len >> 8);
                *o++ = (uint8_t)value_len;
                memcpy(o, value.data + 2 + name_len, value_len);
            }
            n += 5 + name_len + value_len;
        } else if ((size_t)type < sizeof ids && ids[type]) {
            if (w) {
                w[n] = ids[type];
                w[n + 1] = (uint8_t)(value.len >> 8);
                w[n + 2] = (uint8_t)value.len;
                memcpy(w + n + 3, value.data, value.len);
            }
            n += 3 + value.len;
        }
    }
    return n;
}

/* The whole packet; identifier 0 where there is one. */
static struct slice frame_make(struct hub *h, const struct msg *m, enum wire_kind kind, uint64_t now_ms)
{
    bool v5 = kind == WIRE_MQTT5_QOS0 || kind == WIRE_MQTT5_QOS1;
    bool qos1 = kind == WIRE_MQTT3_QOS1 || kind == WIRE_MQTT5_QOS1;
    size_t props = v5 ? props_write(m, now_ms, NULL) : 0;
    size_t remaining = 2u + m->topic_len + (qos1 ? 2u : 0u) +
                       (v5 ? mqtt_varint_bytes((uint32_t)props) + props : 0) + m->payload_len;
    if (remaining > MQTT_REMAINING_BYTES_MAX)
        return (struct slice){0};
    size_t header = 1 + mqtt_varint_bytes((uint32_t)remaining);
    uint8_t *frame = hub_scratch(h, kind, header + remaining);
    if (!frame)
        return (struct slice){0};
    uint8_t *w = frame;
    *w++ = (uint8_t)(0x30 | (qos1 ? 0x02 : 0x00));
    w += mqtt_varint_write((uint32_t)remaining, w);
    *w++ = (uint8_t)(m->topic_len >> 8);
    *w++ = (uint8_t)m->topic_len;
    memcpy(w, msg_topic(m).data, m->topic_len);
    w += m->topic_len;
    if (qos1) {
        *w++ = 0;
        *w++ = 0;
    }
    if (v5) {
        w += mqtt_varint_write((uint32_t)props, w);
        w += props_write(m, now_ms, w);
    }
    if (m->payload_len > 0)
        memcpy(w, msg_payload(m).data, m->payload_len);
    return slice_of(frame, header + remaining);
}

static size_t header_bytes(struct slice frame)
{
    size_t n = 1;
    while (frame.data[n] & 0x80)
        n++;
    return n + 1;
}

/* RETAIN of the packet (3.3.1.3): 1 for a retained message that a new subscription brings, else 0, or as
 * published when the subscription asked for that. */
static bool retain_flag(const struct subscription *sub, const struct delivery *d)
{
    return d->retained || (subscription_options_of(sub)->retain_as_published && (d->msg->flags & MSG_RETAIN));
}

static enum status deliver_qos0(struct mqtt_conn *c, struct delivery *d, struct slice frame, bool retain)
{
    if (!mqtt_conn_has_room(c, frame.len)) {
        if (!d->live)
            return ST_AGAIN; /* a replay waits for its reader */
        return ST_FULL;
    }
    if (!retain)
        return outq_put_span(&c->out, frame) == ST_OK ? ST_OK : ST_AGAIN;
    uint8_t *place = outq_reserve(&c->out, frame.len); /* the shared bytes are those of RETAIN 0 */
    if (!place)
        return ST_AGAIN;
    memcpy(place, frame.data, frame.len);
    place[0] |= 0x01;
    return ST_OK;
}

static enum status deliver_qos1(struct mqtt_conn *c, struct delivery *d, struct slice frame, bool retain)
{
    uint16_t id;
    if (!mqtt_conn_has_room(c, frame.len) || window_take(&c->window, &id) != ST_OK)
        return ST_AGAIN;
    uint8_t *place = outq_reserve(&c->out, frame.len);
    if (!place) {
        enum status st = window_give_back(&c->window, id);
        assert(st == ST_OK);
        return ST_AGAIN;
    }
    memcpy(place, frame.data, frame.len);
    place[0] |= retain;
    place += id_place(d->msg, header_bytes(frame));
    place[0] = (uint8_t)(id >> 8);
    place[1] = (uint8_t)id;
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
    bool qos1 = subscription_options_of(sub)->qos > 0 && d->msg->qos > 0;
    enum wire_kind kind = c->version == MQTT_V5 ? (qos1 ? WIRE_MQTT5_QOS1 : WIRE_MQTT5_QOS0)
                                                : (qos1 ? WIRE_MQTT3_QOS1 : WIRE_MQTT3_QOS0);
    if (!d->live && subscription_options_of(sub)->no_local && is_own(c, d->msg))
        return ST_NOT_FOUND;
    if (!d->wires[kind].data) {
        d->wires[kind] = frame_make(e->hub, d->msg, kind, loop_wall_ms(e->loop));
        if (!d->wires[kind].data)
            return ST_TOO_LARGE;
    }
    struct slice frame = d->wires[kind];
    if (frame.len > c->client_packet_max) { /* MQTT-3.1.2-24/25: never sent, as if it were delivered */
        return ST_TOO_LARGE;
    }
    bool retain = retain_flag(sub, d);
    enum status st = qos1 ? deliver_qos1(c, d, frame, retain) : deliver_qos0(c, d, frame, retain);
    if (st == ST_OK) {
        metric_add(e->metrics, M_SENT_MQTT, 1);
        metric_add(e->metrics, qos1 ? M_UNACKED_MQTT : M_DELIVERED_MQTT, 1);
        mqtt_conn_dirty(c);
    }
    return st;
}

void mqtt_handle_puback(struct mqtt_conn *c, const struct mqtt_ack *p)
{
    bool was_full = !window_open(&c->window);
    /* An identifier that is not in flight: 5.0 has no answer to a PUBACK; ignored, as a late one is. */
    if (window_give_back(&c->window, p->packet_id) != ST_OK)
        return;
    metric_sub(c->door->edge->metrics, M_UNACKED_MQTT, 1);
    metric_add(c->door->edge->metrics, M_DELIVERED_MQTT, 1);
    if (was_full || c->window.count <= c->window.max / 2)
        session_room(c->session);
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

const struct transport_ops mqtt_transport = {
    .deliver = mqtt_deliver,
    .subscribed = mqtt_on_subscribed,
    .live = mqtt_live,
    .gap = mqtt_gap,
    .name = mqtt_name,
};
