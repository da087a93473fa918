/* Packets to bytes.
 *
 * The layout of each packet is written down once, as a function that emits into a writer. It runs twice:
 * first into a writer that only counts, because the length stands in front of what it measures, then into
 * room reserved for just that many bytes. So a packet is appended whole or not at all.
 *
 * What a caller gets wrong is our own bug and asserted; only sizes are a matter of the data, and come back
 * as a status. Where 5.0 lets the end of a packet be left out, we leave it out. */
#include "gateway/mqtt/packet_internal.h"

#include <assert.h>

static void put_props(struct writer *w, uint8_t version, uint8_t owner, const struct mqtt_props *props)
{
    if (version >= MQTT_V5)
        mqtt_props_encode(w, owner, props);
}

static void put_packet_id(struct writer *w, uint16_t id)
{
    assert(id != 0); /* 2.2.1 */
    writer_put_u16(w, id);
}

static bool reason_known(uint8_t type, uint8_t reason)
{
    return mqtt_reason_allowed(type, true, reason) || mqtt_reason_allowed(type, false, reason);
}

static uint8_t connect_flags(const struct mqtt_connect *c)
{
    assert(c->will_qos <= 2 && (c->will || (c->will_qos == 0 && !c->will_retain)));
    assert(c->version == MQTT_V5 || c->has_user_name || !c->has_password);
    return (uint8_t)(c->has_user_name << 7 | c->has_password << 6 | c->will_retain << 5 | c->will_qos << 3 |
                     c->will << 2 | c->clean_start << 1);
}

static void emit_connect(struct writer *w, uint8_t version, const struct mqtt_connect *c)
{
    assert(c->version == version);
    writer_put_string(w, slice_cstr(version == MQTT_V31 ? "MQIsdp" : "MQTT"));
    writer_put_u8(w, version);
    writer_put_u8(w, connect_flags(c));
    writer_put_u16(w, c->keep_alive_s);
    put_props(w, version, MQTT_CONNECT, &c->props);
    writer_put_string(w, c->client_id);
    if (c->will) {
        put_props(w, version, MQTT_WILL, &c->will_props);
        writer_put_string(w, c->will_topic);
        writer_put_string(w, c->will_payload);
    }
    if (c->has_user_name)
        writer_put_string(w, c->user_name);
    if (c->has_password)
        writer_put_string(w, c->password);
}

/* 3.1.1, 3.2.2.3: six codes for all that can happen. */
static uint8_t return_code(uint8_t reason)
{
    switch (reason) {
    case MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION:
        return 1;
    case MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID:
        return 2;
    case MQTT_RC_BAD_USER_NAME_OR_PASSWORD:
    case MQTT_RC_BAD_AUTHENTICATION_METHOD:
        return 4;
    case MQTT_RC_NOT_AUTHORIZED:
    case MQTT_RC_BANNED:
        return 5;
    default:
        return reason <= 5 ? reason : 3; /* a return code already; else the server is unavailable */
    }
}

static void emit_connack(struct writer *w, uint8_t version, const struct mqtt_connack *c)
{
    assert(!c->session_present || c->reason == MQTT_RC_SUCCESS); /* MQTT-3.2.2-6 */
    assert(version < MQTT_V5 || reason_known(MQTT_CONNACK, c->reason));
    writer_put_u8(w, version > MQTT_V31 && c->session_present);
    writer_put_u8(w, version < MQTT_V5 ? return_code(c->reason) : c->reason);
    put_props(w, version, MQTT_CONNACK, &c->props);
}

static void emit_publish(struct writer *w, uint8_t version, const struct mqtt_publish *p)
{
    assert(p->qos <= 2 && (p->qos > 0 || (!p->dup && p->packet_id == 0)));
    assert(p->topic.len > 0 || (version >= MQTT_V5 && p->props.present & MQTT_HAS_TOPIC_ALIAS));
    writer_put_string(w, p->topic);
    if (p->qos > 0)
        put_packet_id(w, p->packet_id);
    put_props(w, version, MQTT_PUBLISH, &p->props);
    writer_put_bytes(w, p->payload);
}

static void emit_ack(struct writer *w, uint8_t version, uint8_t type, const struct mqtt_ack *a)
{
    put_packet_id(w, a->packet_id);
    if (version < MQTT_V5)
        return;
    assert(reason_known(type, a->reason));
    bool props = !mqtt_props_empty(&a->props);
    if (props || a->reason != MQTT_RC_SUCCESS)
        writer_put_u8(w, a->reason);
    if (props)
        mqtt_props_encode(w, type, &a->props);
}

/* Walks the filters like their receiver will. */
static bool topics_well_formed(const struct mqtt_subscribe *s, uint8_t version, bool unsubscribe)
{
    struct mqtt_topic_request request;
    size_t place = 0;
    uint32_t count = 0;
    while (mqtt_topic_next(s, version, unsubscribe, &place, &request))
        count++;
    return count == s->count && count > 0 && place == s->topics.len;
}

static void emit_topics(struct writer *w, uint8_t version, uint8_t type, const struct mqtt_subscribe *s)
{
    assert(topics_well_formed(s, version, type == MQTT_UNSUBSCRIBE));
    put_packet_id(w, s->packet_id);
    put_props(w, version, type, &s->props);
    writer_put_bytes(w, s->topics);
}

static void emit_suback(struct writer *w, uint8_t version, uint8_t type, const struct mqtt_suback *s)
{
    put_packet_id(w, s->packet_id);
    put_props(w, version, type, &s->props);
    if (version < MQTT_V5 && type == MQTT_UNSUBACK)
        return;
    assert(s->reasons.len > 0);
    for (size_t i = 0; i < s->reasons.len; i++) {
        uint8_t reason = s->reasons.data[i];
        assert(reason_known(type, reason));
        /* 3.1.1, 3.9.3 has one code for all failures. */
        writer_put_u8(w, version < MQTT_V5 && reason >= 0x80 ? MQTT_RC_UNSPECIFIED_ERROR : reason);
    }
}

/* DISCONNECT and AUTH. The property length of a DISCONNECT may be left out alone, that of an AUTH only
 * together with its reason (3.14.2.2.1, 3.15.2.1). */
static void emit_reasoned(struct writer *w, uint8_t version, uint8_t type, const struct mqtt_reasoned *r)
{
    assert(version >= MQTT_V5 || type == MQTT_DISCONNECT);
    if (version < MQTT_V5)
        return;
    assert(reason_known(type, r->reason));
    bool props = !mqtt_props_empty(&r->props);
    assert(type == MQTT_DISCONNECT || r->props.present & MQTT_HAS_AUTH_METHOD ||
           (!props && r->reason == MQTT_RC_SUCCESS)); /* 3.15.2.2.2 */
    if (props || r->reason != MQTT_RC_SUCCESS)
        writer_put_u8(w, r->reason);
    if (props)
        mqtt_props_encode(w, type, &r->props);
}

static void emit_body(struct writer *w, uint8_t version, const struct mqtt_packet *p)
{
    uint8_t type = (uint8_t)p->type;
    switch (p->type) {
    case MQTT_CONNECT:
        emit_connect(w, version, &p->connect);
        break;
    case MQTT_CONNACK:
        emit_connack(w, version, &p->connack);
        break;
    case MQTT_PUBLISH:
        emit_publish(w, version, &p->publish);
        break;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        emit_ack(w, version, type, &p->ack);
        break;
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
        emit_topics(w, version, type, &p->subscribe);
        break;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        emit_suback(w, version, type, &p->suback);
        break;
    case MQTT_PINGREQ:
    case MQTT_PINGRESP:
        break;
    case MQTT_DISCONNECT:
    case MQTT_AUTH:
        emit_reasoned(w, version, type, &p->reasoned);
        break;
    }
}

static uint8_t first_byte(const struct mqtt_packet *p)
{
    uint8_t flags = mqtt_type_rules[p->type].flags;
    if (p->type == MQTT_PUBLISH)
        flags = (uint8_t)(p->publish.dup << 3 | p->publish.qos << 1 | p->publish.retain);
    return (uint8_t)(p->type << 4 | flags);
}

enum status mqtt_encode(const struct mqtt_packet *p, uint8_t version, struct buf *out)
{
    assert(p->type >= MQTT_CONNECT && p->type <= MQTT_AUTH);
    assert(version >= MQTT_V31 && version <= MQTT_V5);
    struct writer count = {0};
    emit_body(&count, version, p);
    if (count.too_large || count.bytes > MQTT_REMAINING_BYTES_MAX)
        return ST_TOO_LARGE;
    uint32_t remaining = (uint32_t)count.bytes;
    size_t total = 1 + mqtt_varint_bytes(remaining) + remaining;
    struct writer w = count;
    w.at = buf_reserve(out, total);
    if (w.at == NULL)
        return total > out->limit - out->len ? ST_FULL : ST_NO_MEMORY;
    w.bytes = 0;
    w.list_count = 0;
    writer_put_u8(&w, first_byte(p));
    writer_put_varint(&w, remaining);
    emit_body(&w, version, p);
    assert(w.bytes == total);
    buf_advance(out, total);
    return ST_OK;
}
