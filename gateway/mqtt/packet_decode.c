/* Bytes to packets.
 *
 *   type and flags (1) | remaining length (varint) | variable header | payload
 *
 * mqtt_decode reads the fixed header, refuses what can be refused from it alone (so that a peer that
 * speaks something else, or announces too much, is not waited for), and hands the rest, once all of it is
 * there, to the decoder of its type. That one takes fields from a reader that cannot pass the end of the
 * packet; whatever it leaves over makes the packet malformed.
 *
 * Malformed (0x81) is what cannot be read as the standard lays it out, protocol error (0x82) what can be
 * read but may not be said (5.0, 1.2 and 4.13). Versions 3.x know no such codes; the caller closes.
 *
 * PUBLISH is the hot path. Each decoder clears what it does not set, no more: the union as a whole is
 * three times as large as a PUBLISH. */
#include "gateway/mqtt/packet_internal.h"

struct body {
    struct reader in;
    uint8_t version, flags;
    bool from_server;
};

static uint8_t take_packet_id(struct body *b, uint16_t *out)
{
    if (!reader_take_u16(&b->in, out))
        return MQTT_RC_MALFORMED_PACKET;
    return *out != 0 ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR; /* 2.2.1 */
}

/* Versions 3.x have none, which reads as none present. */
static uint8_t take_props(struct body *b, uint8_t owner, struct mqtt_props *out)
{
    if (b->version >= MQTT_V5)
        return mqtt_props_decode(&b->in, owner, out);
    memset(out, 0, sizeof *out);
    return MQTT_RC_SUCCESS;
}

static uint8_t take_reason(struct body *b, uint8_t type, uint8_t *out)
{
    if (!reader_take_u8(&b->in, out))
        return MQTT_RC_MALFORMED_PACKET;
    return mqtt_reason_allowed(type, b->from_server, *out) ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR;
}

/* A will topic or a topic name that is no valid topic name. */
static uint8_t topic_refusal(const struct body *b)
{
    return b->version >= MQTT_V5 ? MQTT_RC_TOPIC_NAME_INVALID : MQTT_RC_MALFORMED_PACKET;
}

/* 3.1.2.1, 3.1.2.2. On success b->version is known. */
static uint8_t take_protocol(struct body *b)
{
    struct slice name;
    uint8_t level;
    if (!reader_take_text(&b->in, &name))
        return MQTT_RC_MALFORMED_PACKET;
    bool v31 = slice_equal_cstr(name, "MQIsdp");
    if (!v31 && !slice_equal_cstr(name, "MQTT"))
        return MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION;
    if (!reader_take_u8(&b->in, &level))
        return MQTT_RC_MALFORMED_PACKET;
    if (v31 ? level != MQTT_V31 : level != MQTT_V311 && level != MQTT_V5)
        return MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION;
    b->version = level;
    return MQTT_RC_SUCCESS;
}

/* 3.1.2.3. Version 3.1 calls bit 0 not used and says nothing of will QoS and retain without a will. */
static uint8_t take_connect_flags(struct body *b, struct mqtt_connect *c)
{
    uint8_t flags;
    if (!reader_take_u8(&b->in, &flags))
        return MQTT_RC_MALFORMED_PACKET;
    c->has_user_name = flags & 0x80;
    c->has_password = flags & 0x40;
    c->will_retain = flags & 0x20;
    c->will_qos = flags >> 3 & 3;
    c->will = flags & 0x04;
    c->clean_start = flags & 0x02;
    if (b->version == MQTT_V31) {
        flags &= 0xfe;
        c->will_qos = c->will ? c->will_qos : 0;
        c->will_retain &= c->will;
    }
    if ((flags & 0x01) || c->will_qos == 3 || (!c->will && (c->will_qos != 0 || c->will_retain)))
        return MQTT_RC_MALFORMED_PACKET;
    if (c->has_password && !c->has_user_name && b->version < MQTT_V5) /* 3.1.1: MQTT-3.1.2-22 */
        return MQTT_RC_MALFORMED_PACKET;
    return MQTT_RC_SUCCESS;
}

static uint8_t take_will(struct body *b, struct mqtt_connect *c)
{
    if (!c->will)
        return MQTT_RC_SUCCESS;
    uint8_t reason = take_props(b, MQTT_WILL, &c->will_props);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    if (!reader_take_text(&b->in, &c->will_topic) || !reader_take_binary(&b->in, &c->will_payload))
        return MQTT_RC_MALFORMED_PACKET;
    return mqtt_topic_name_valid(c->will_topic) ? MQTT_RC_SUCCESS : topic_refusal(b);
}

static uint8_t take_credentials(struct body *b, struct mqtt_connect *c)
{
    /* 3.1, 3.1: for the sake of clients older than the flags, the remaining length outranks them. */
    if (b->version == MQTT_V31 && reader_left(&b->in) == 0)
        c->has_user_name = c->has_password = false;
    if (c->has_user_name && !reader_take_text(&b->in, &c->user_name))
        return MQTT_RC_MALFORMED_PACKET;
    if (b->version == MQTT_V31 && reader_left(&b->in) == 0)
        c->has_password = false;
    if (c->has_password && !reader_take_binary(&b->in, &c->password))
        return MQTT_RC_MALFORMED_PACKET;
    return MQTT_RC_SUCCESS;
}

/* 3.1.3.1: only 5.0 lets the server choose for a session that stays; 3.1 never does. The 23 characters that
 * 3.1 and 3.1.1 guarantee are not taken for a maximum. */
static uint8_t check_client_id(const struct mqtt_connect *c)
{
    bool nameless_ok = c->version == MQTT_V5 || (c->version == MQTT_V311 && c->clean_start);
    return c->client_id.len > 0 || nameless_ok ? MQTT_RC_SUCCESS : MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID;
}

static uint8_t decode_connect(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_connect *c = &out->connect;
    memset(c, 0, sizeof *c);
    uint8_t reason = take_protocol(b);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    c->version = b->version;
    reason = take_connect_flags(b, c);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    if (!reader_take_u16(&b->in, &c->keep_alive_s))
        return MQTT_RC_MALFORMED_PACKET;
    reason = take_props(b, MQTT_CONNECT, &c->props);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    if (!reader_take_text(&b->in, &c->client_id))
        return MQTT_RC_MALFORMED_PACKET;
    reason = take_will(b, c);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    reason = take_credentials(b, c);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    if (c->props.present & MQTT_HAS_AUTH_DATA && !(c->props.present & MQTT_HAS_AUTH_METHOD))
        return MQTT_RC_PROTOCOL_ERROR; /* 3.1.2.11.10 */
    return reader_left(&b->in) == 0 ? check_client_id(c) : MQTT_RC_MALFORMED_PACKET;
}

/* 3.2. In 3.1 the first byte is "not used"; in 3.1.1 its codes end at 5. */
static uint8_t decode_connack(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_connack *c = &out->connack;
    uint8_t flags;
    if (!reader_take_u8(&b->in, &flags) || !reader_take_u8(&b->in, &c->reason))
        return MQTT_RC_MALFORMED_PACKET;
    if (b->version == MQTT_V31)
        flags = 0;
    if (flags > 1)
        return MQTT_RC_MALFORMED_PACKET;
    c->session_present = flags;
    if (b->version < MQTT_V5 ? c->reason > 5 : !mqtt_reason_allowed(MQTT_CONNACK, true, c->reason))
        return MQTT_RC_PROTOCOL_ERROR;
    if (c->session_present && c->reason != MQTT_RC_SUCCESS) /* MQTT-3.2.2-6; 3.1.1: MQTT-3.2.2-4 */
        return MQTT_RC_PROTOCOL_ERROR;
    return take_props(b, MQTT_CONNACK, &c->props);
}

/* What may not be in a PUBLISH although each part is well formed. */
static uint8_t check_publish(const struct body *b, const struct mqtt_publish *p)
{
    uint32_t present = p->props.present;
    if (p->topic.len == 0 && b->version >= MQTT_V5) /* 3.3.2.1 */
        return present & MQTT_HAS_TOPIC_ALIAS ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR;
    return mqtt_topic_name_valid(p->topic) ? MQTT_RC_SUCCESS : topic_refusal(b);
}

static uint8_t decode_publish(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_publish *p = &out->publish;
    p->dup = b->flags & 0x08;
    p->qos = b->flags >> 1 & 3;
    p->retain = b->flags & 0x01;
    p->packet_id = 0;
    if (p->qos == 0 && p->dup) { /* MQTT-3.3.1-2; 3.1 does not say so */
        if (b->version > MQTT_V31)
            return MQTT_RC_MALFORMED_PACKET;
        p->dup = false;
    }
    if (!reader_take_text(&b->in, &p->topic))
        return MQTT_RC_MALFORMED_PACKET;
    uint8_t reason = p->qos > 0 ? take_packet_id(b, &p->packet_id) : MQTT_RC_SUCCESS;
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    reason = take_props(b, MQTT_PUBLISH, &p->props);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    if (p->props.present & MQTT_HAS_SUBSCRIPTION_ID && !b->from_server) /* MQTT-3.3.4-6 */
        return MQTT_RC_PROTOCOL_ERROR;
    p->payload = slice_of(b->in.at, reader_left(&b->in));
    b->in.at = b->in.end;
    return check_publish(b, p);
}

/* 3.4 to 3.7: in 5.0 the properties, and then the reason too, may be left out at the end. */
static uint8_t decode_ack(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_ack *a = &out->ack;
    a->reason = MQTT_RC_SUCCESS;
    memset(&a->props, 0, sizeof a->props);
    uint8_t reason = take_packet_id(b, &a->packet_id);
    if (reason == MQTT_RC_SUCCESS && b->version >= MQTT_V5 && reader_left(&b->in) > 0)
        reason = take_reason(b, (uint8_t)out->type, &a->reason);
    if (reason == MQTT_RC_SUCCESS && b->version >= MQTT_V5 && reader_left(&b->in) > 0)
        reason = mqtt_props_decode(&b->in, (uint8_t)out->type, &a->props);
    return reason;
}

/* 3.8.3.1; in 3.1.1 all but the QoS is reserved, in 3.1 "not used". A shared subscription may not be "no
 * local" (MQTT-3.8.3-4). Whether the filter is one is for the routing to say, with 0x8F for this filter
 * alone. */
static uint8_t check_options(uint8_t version, struct slice filter, uint8_t options)
{
    if ((options & 3) == 3)
        return version >= MQTT_V5 ? MQTT_RC_PROTOCOL_ERROR : MQTT_RC_MALFORMED_PACKET;
    if (version == MQTT_V311 && options > 2)
        return MQTT_RC_MALFORMED_PACKET;
    if (version < MQTT_V5)
        return MQTT_RC_SUCCESS;
    if (options & 0xc0)
        return MQTT_RC_MALFORMED_PACKET;
    if ((options & 0x30) == 0x30)
        return MQTT_RC_PROTOCOL_ERROR;
    if (options & 0x04 && slice_starts_with(filter, slice_cstr("$share/")))
        return MQTT_RC_PROTOCOL_ERROR;
    return MQTT_RC_SUCCESS;
}

/* SUBSCRIBE and UNSUBSCRIBE, 3.8 and 3.10. */
static uint8_t decode_topics(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_subscribe *s = &out->subscribe;
    uint8_t reason = take_packet_id(b, &s->packet_id);
    if (reason == MQTT_RC_SUCCESS)
        reason = take_props(b, (uint8_t)out->type, &s->props);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    s->topics = slice_of(b->in.at, reader_left(&b->in));
    for (s->count = 0; reader_left(&b->in) > 0; s->count++) {
        struct slice filter;
        uint8_t options = 0;
        if (s->count == MQTT_SUBSCRIBE_TOPICS_MAX)
            return MQTT_RC_PACKET_TOO_LARGE;
        if (!reader_take_text(&b->in, &filter))
            return MQTT_RC_MALFORMED_PACKET;
        if (out->type == MQTT_SUBSCRIBE && !reader_take_u8(&b->in, &options))
            return MQTT_RC_MALFORMED_PACKET;
        reason = check_options(b->version, filter, options);
        if (reason != MQTT_RC_SUCCESS)
            return reason;
    }
    return s->count > 0 ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR; /* MQTT-3.8.3-2, MQTT-3.10.3-2 */
}

/* SUBACK and UNSUBACK, 3.9 and 3.11; the latter says nothing more in 3.x. */
static uint8_t decode_suback(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_suback *s = &out->suback;
    uint8_t reason = take_packet_id(b, &s->packet_id);
    if (reason == MQTT_RC_SUCCESS)
        reason = take_props(b, (uint8_t)out->type, &s->props);
    if (reason != MQTT_RC_SUCCESS)
        return reason;
    s->reasons = slice_of(b->in.at, reader_left(&b->in));
    if (b->version < MQTT_V5 && out->type == MQTT_UNSUBACK)
        return MQTT_RC_SUCCESS; /* what is left over is refused */
    if (s->reasons.len == 0)
        return MQTT_RC_PROTOCOL_ERROR;
    while (reader_left(&b->in) > 0) {
        uint8_t code;
        reason = take_reason(b, (uint8_t)out->type, &code);
        if (reason != MQTT_RC_SUCCESS)
            return reason;
        if (b->version < MQTT_V5 && code > MQTT_RC_GRANTED_QOS_2 && code != MQTT_RC_UNSPECIFIED_ERROR)
            return MQTT_RC_PROTOCOL_ERROR; /* 3.1.1: MQTT-3.9.3-2 */
    }
    return MQTT_RC_SUCCESS;
}

static uint8_t decode_nothing(struct body *b, struct mqtt_packet *out)
{
    (void)b;
    (void)out;
    return MQTT_RC_SUCCESS;
}

/* 3.14: as in an acknowledgement, the end may be left out. */
static uint8_t decode_disconnect(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_reasoned *d = &out->reasoned;
    memset(d, 0, sizeof *d);
    uint8_t reason = MQTT_RC_SUCCESS;
    if (b->version >= MQTT_V5 && reader_left(&b->in) > 0)
        reason = take_reason(b, MQTT_DISCONNECT, &d->reason);
    if (reason == MQTT_RC_SUCCESS && b->version >= MQTT_V5 && reader_left(&b->in) > 0)
        reason = mqtt_props_decode(&b->in, MQTT_DISCONNECT, &d->props);
    if (reason == MQTT_RC_SUCCESS && b->from_server && d->props.present & MQTT_HAS_SESSION_EXPIRY)
        return MQTT_RC_PROTOCOL_ERROR; /* MQTT-3.14.2-2 */
    return reason;
}

/* 3.15: all may be left out, which says success; else the method may not be missing (3.15.2.2.2). */
static uint8_t decode_auth(struct body *b, struct mqtt_packet *out)
{
    struct mqtt_reasoned *a = &out->reasoned;
    memset(a, 0, sizeof *a);
    if (reader_left(&b->in) == 0)
        return mqtt_reason_allowed(MQTT_AUTH, b->from_server, MQTT_RC_SUCCESS) ? MQTT_RC_SUCCESS
                                                                               : MQTT_RC_PROTOCOL_ERROR;
    uint8_t reason = take_reason(b, MQTT_AUTH, &a->reason);
    if (reason == MQTT_RC_SUCCESS)
        reason = mqtt_props_decode(&b->in, MQTT_AUTH, &a->props);
    if (reason == MQTT_RC_SUCCESS && !(a->props.present & MQTT_HAS_AUTH_METHOD))
        return MQTT_RC_PROTOCOL_ERROR;
    return reason;
}

static uint8_t decode_body(struct body *b, struct mqtt_packet *out)
{
    static uint8_t (*const decoders[MQTT_TYPE_COUNT])(struct body *, struct mqtt_packet *) = {
        [MQTT_CONNECT] = decode_connect,  [MQTT_CONNACK] = decode_connack,
        [MQTT_PUBLISH] = decode_publish,  [MQTT_PUBACK] = decode_ack,
        [MQTT_PUBREC] = decode_ack,       [MQTT_PUBREL] = decode_ack,
        [MQTT_PUBCOMP] = decode_ack,      [MQTT_SUBSCRIBE] = decode_topics,
        [MQTT_SUBACK] = decode_suback,    [MQTT_UNSUBSCRIBE] = decode_topics,
        [MQTT_UNSUBACK] = decode_suback,  [MQTT_PINGREQ] = decode_nothing,
        [MQTT_PINGRESP] = decode_nothing, [MQTT_DISCONNECT] = decode_disconnect,
        [MQTT_AUTH] = decode_auth,
    };
    uint8_t reason = decoders[out->type](b, out);
    if (reason == MQTT_RC_SUCCESS && reader_left(&b->in) > 0)
        return MQTT_RC_MALFORMED_PACKET;
    return reason;
}

/* 2.1.2, 2.1.3: what the first byte alone says. */
static uint8_t check_first_byte(uint8_t type, uint8_t flags, const struct mqtt_decode_rules *rules)
{
    const struct mqtt_type_rule *rule = &mqtt_type_rules[type];
    if (type == 0 || (type == MQTT_AUTH && rules->version != MQTT_V5))
        return MQTT_RC_MALFORMED_PACKET;
    if (type == MQTT_PUBLISH && (flags & 0x06) == 0x06) /* MQTT-3.3.1-4 */
        return MQTT_RC_MALFORMED_PACKET;
    if ((flags & (rules->version == MQTT_V31 ? rule->checked_31 : rule->checked)) != rule->flags)
        return MQTT_RC_MALFORMED_PACKET;
    uint8_t first_version = rules->from_server ? rule->from_server : rule->from_client;
    return rules->version >= first_version ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR;
}

static enum status refuse(uint8_t why, uint8_t *reason)
{
    *reason = why;
    return why == MQTT_RC_PACKET_TOO_LARGE ? ST_TOO_LARGE : ST_INVALID;
}

enum status mqtt_decode(struct slice input, const struct mqtt_decode_rules *rules, struct mqtt_packet *out,
                        size_t *used, uint8_t *reason)
{
    *used = 0;
    *reason = MQTT_RC_SUCCESS;
    if (input.len == 0)
        return ST_AGAIN;
    struct body body = {
        {input.data + 1, input.data + input.len}, rules->version, input.data[0] & 0x0f, rules->from_server};
    uint8_t type = input.data[0] >> 4;
    out->type = (enum mqtt_type)type;
    if (type == MQTT_CONNECT) /* a refusal before the level was read says: not known */
        out->connect.version = 0;
    uint8_t why = check_first_byte(type, body.flags, rules);
    if (why != MQTT_RC_SUCCESS)
        return refuse(why, reason);
    uint32_t remaining;
    enum status st = reader_take_varint(&body.in, &remaining);
    if (st != ST_OK) {
        *reason = st == ST_INVALID ? MQTT_RC_MALFORMED_PACKET : MQTT_RC_SUCCESS;
        return st;
    }
    size_t total = (size_t)(body.in.at - input.data) + remaining;
    if (total > rules->packet_bytes_max)
        return refuse(MQTT_RC_PACKET_TOO_LARGE, reason);
    if (total > input.len) {
        *used = total;
        return ST_AGAIN;
    }
    body.in.end = body.in.at + remaining;
    why = decode_body(&body, out);
    if (why != MQTT_RC_SUCCESS)
        return refuse(why, reason);
    *used = total;
    return ST_OK;
}
