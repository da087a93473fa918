/* Properties (5.0, 2.2.2): one row of a table for each says what it is called on the wire, of which type
 * it is, in which packets it may stand, and where its value lives in struct mqtt_props.
 *
 *   property length (varint) | id (1 byte) value | id value | ...
 *
 * Ids are variable byte integers by the letter of the standard, but all of them are below 0x80; a byte
 * from 0x80 on is an unknown id (or not minimal), malformed in both cases.
 *
 * Two properties may stand more than once: user properties, and the subscription identifiers of a PUBLISH
 * from the server. These are not kept one by one: `raw` holds the bytes as they came, checked, and is
 * walked when somebody wants them. Encoding walks it for the same two. The first subscription identifier is
 * written from its field, so the first one met in `raw` is passed over. */
#include "gateway/mqtt/packet_internal.h"

#include <assert.h>

enum prop_type { /* 1.5 */
                 PROP_BYTE,
                 PROP_U16,
                 PROP_U32,
                 PROP_VARINT, /* the types up to here are numbers with a range */
                 PROP_TEXT,
                 PROP_TOPIC, /* a text that must be a topic name */
                 PROP_BINARY,
                 PROP_PAIR
};
enum { PROP_SUBSCRIPTION_ID = 0x0b, PROP_USER = 0x26, PROP_ID_MAX = 0x2a };

struct prop_rule {
    enum prop_type type : 8;
    uint8_t out_of_range; /* the reason then */
    uint16_t owners; /* packets it may stand in, a bit for each type; 0: there is no such property */
    uint16_t repeats; /* packets it may stand in more than once */
    uint16_t field; /* where in struct mqtt_props */
    uint32_t bit; /* enum mqtt_prop_bit */
    uint32_t min, max; /* of a number */
};

#define IN(type)    (1u << MQTT_##type)
#define MESSAGE     (IN(PUBLISH) | IN(WILL))
#define ACKS        (IN(PUBACK) | IN(PUBREC) | IN(PUBREL) | IN(PUBCOMP) | IN(SUBACK) | IN(UNSUBACK))
#define SETTING     (IN(CONNECT) | IN(CONNACK))
#define EVERYWHERE  (MESSAGE | ACKS | SETTING | IN(SUBSCRIBE) | IN(UNSUBSCRIBE) | IN(DISCONNECT) | IN(AUTH))
#define FIELD(name) offsetof(struct mqtt_props, name)
#define WRONG       MQTT_RC_PROTOCOL_ERROR

/* 5.0, table 2-4. Ids in order are bits in order, and that is the order in which we write. */
static const struct prop_rule prop_rules[PROP_ID_MAX + 1] = {
    [0x01] = {PROP_BYTE, WRONG, MESSAGE, 0, FIELD(payload_format), MQTT_HAS_PAYLOAD_FORMAT, 0, 1},
    [0x02] = {PROP_U32, 0, MESSAGE, 0, FIELD(message_expiry_s), MQTT_HAS_MESSAGE_EXPIRY, 0, UINT32_MAX},
    [0x03] = {PROP_TEXT, 0, MESSAGE, 0, FIELD(content_type), MQTT_HAS_CONTENT_TYPE, 0, 0},
    [0x08] = {PROP_TOPIC, WRONG, MESSAGE, 0, FIELD(response_topic), MQTT_HAS_RESPONSE_TOPIC, 0, 0},
    [0x09] = {PROP_BINARY, 0, MESSAGE, 0, FIELD(correlation), MQTT_HAS_CORRELATION, 0, 0},
    [0x0b] = {PROP_VARINT, WRONG, IN(PUBLISH) | IN(SUBSCRIBE), IN(PUBLISH), FIELD(subscription_id),
              MQTT_HAS_SUBSCRIPTION_ID, 1, MQTT_REMAINING_BYTES_MAX},
    [0x11] = {PROP_U32, 0, SETTING | IN(DISCONNECT), 0, FIELD(session_expiry_s), MQTT_HAS_SESSION_EXPIRY, 0,
              UINT32_MAX},
    [0x12] = {PROP_TEXT, 0, IN(CONNACK), 0, FIELD(assigned_client_id), MQTT_HAS_ASSIGNED_CLIENT_ID, 0, 0},
    [0x13] = {PROP_U16, 0, IN(CONNACK), 0, FIELD(server_keep_alive_s), MQTT_HAS_SERVER_KEEP_ALIVE, 0,
              UINT16_MAX},
    [0x15] = {PROP_TEXT, 0, SETTING | IN(AUTH), 0, FIELD(auth_method), MQTT_HAS_AUTH_METHOD, 0, 0},
    [0x16] = {PROP_BINARY, 0, SETTING | IN(AUTH), 0, FIELD(auth_data), MQTT_HAS_AUTH_DATA, 0, 0},
    [0x17] = {PROP_BYTE, WRONG, IN(CONNECT), 0, FIELD(request_problem), MQTT_HAS_REQUEST_PROBLEM, 0, 1},
    [0x18] = {PROP_U32, 0, IN(WILL), 0, FIELD(will_delay_s), MQTT_HAS_WILL_DELAY, 0, UINT32_MAX},
    [0x19] = {PROP_BYTE, WRONG, IN(CONNECT), 0, FIELD(request_response), MQTT_HAS_REQUEST_RESPONSE, 0, 1},
    [0x1a] = {PROP_TEXT, 0, IN(CONNACK), 0, FIELD(response_info), MQTT_HAS_RESPONSE_INFO, 0, 0},
    [0x1c] = {PROP_TEXT, 0, IN(CONNACK) | IN(DISCONNECT), 0, FIELD(server_reference),
              MQTT_HAS_SERVER_REFERENCE, 0, 0},
    [0x1f] = {PROP_TEXT, 0, ACKS | IN(CONNACK) | IN(DISCONNECT) | IN(AUTH), 0, FIELD(reason_string),
              MQTT_HAS_REASON_STRING, 0, 0},
    [0x21] = {PROP_U16, WRONG, SETTING, 0, FIELD(receive_maximum), MQTT_HAS_RECEIVE_MAXIMUM, 1, UINT16_MAX},
    [0x22] = {PROP_U16, 0, SETTING, 0, FIELD(topic_alias_maximum), MQTT_HAS_TOPIC_ALIAS_MAXIMUM, 0,
              UINT16_MAX},
    [0x23] = {PROP_U16, MQTT_RC_TOPIC_ALIAS_INVALID, IN(PUBLISH), 0, FIELD(topic_alias), MQTT_HAS_TOPIC_ALIAS,
              1, UINT16_MAX},
    [0x24] = {PROP_BYTE, WRONG, IN(CONNACK), 0, FIELD(maximum_qos), MQTT_HAS_MAXIMUM_QOS, 0, 1},
    [0x25] = {PROP_BYTE, WRONG, IN(CONNACK), 0, FIELD(retain_available), MQTT_HAS_RETAIN_AVAILABLE, 0, 1},
    [0x26] = {PROP_PAIR, 0, EVERYWHERE, EVERYWHERE, 0, MQTT_HAS_USER_PROPERTY, 0, 0},
    [0x27] = {PROP_U32, WRONG, SETTING, 0, FIELD(maximum_packet_bytes), MQTT_HAS_MAXIMUM_PACKET_SIZE, 1,
              UINT32_MAX},
    [0x28] = {PROP_BYTE, WRONG, IN(CONNACK), 0, FIELD(wildcard_available), MQTT_HAS_WILDCARD_AVAILABLE, 0, 1},
    [0x29] = {PROP_BYTE, WRONG, IN(CONNACK), 0, FIELD(subscription_id_available),
              MQTT_HAS_SUBSCRIPTION_ID_AVAILABLE, 0, 1},
    [0x2a] = {PROP_BYTE, WRONG, IN(CONNACK), 0, FIELD(shared_available), MQTT_HAS_SHARED_AVAILABLE, 0, 1},
};

/* A value off the wire: a number, or one text, or two. */
struct prop_value {
    uint32_t number;
    struct slice text, second;
};

static bool take_value(struct reader *r, enum prop_type type, struct prop_value *out)
{
    uint8_t byte;
    uint16_t word;
    switch (type) {
    case PROP_BYTE:
        if (!reader_take_u8(r, &byte))
            return false;
        out->number = byte;
        return true;
    case PROP_U16:
        if (!reader_take_u16(r, &word))
            return false;
        out->number = word;
        return true;
    case PROP_U32:
        return reader_take_u32(r, &out->number);
    case PROP_VARINT:
        return reader_take_varint(r, &out->number) == ST_OK;
    case PROP_TEXT:
    case PROP_TOPIC:
        return reader_take_text(r, &out->text);
    case PROP_BINARY:
        return reader_take_binary(r, &out->text);
    case PROP_PAIR:
        return reader_take_text(r, &out->text) && reader_take_text(r, &out->second);
    }
    return false;
}

static void store_value(struct mqtt_props *props, const struct prop_rule *rule,
                        const struct prop_value *value)
{
    void *field = (uint8_t *)props + rule->field;
    switch (rule->type) {
    case PROP_BYTE:
        *(uint8_t *)field = (uint8_t)value->number;
        break;
    case PROP_U16:
        *(uint16_t *)field = (uint16_t)value->number;
        break;
    case PROP_U32:
    case PROP_VARINT:
        *(uint32_t *)field = value->number;
        break;
    case PROP_TEXT:
    case PROP_TOPIC:
    case PROP_BINARY:
        *(struct slice *)field = value->text;
        break;
    case PROP_PAIR:
        break;
    }
}

static uint8_t decode_property(struct reader *r, uint8_t owner, struct mqtt_props *out)
{
    uint8_t id = *r->at++;
    const struct prop_rule *rule = &prop_rules[id <= PROP_ID_MAX ? id : 0];
    struct prop_value value;
    if (!(rule->owners >> owner & 1)) /* 2.2.2.2 */
        return MQTT_RC_MALFORMED_PACKET;
    if (!take_value(r, rule->type, &value))
        return MQTT_RC_MALFORMED_PACKET;
    if (rule->type <= PROP_VARINT && (value.number < rule->min || value.number > rule->max))
        return rule->out_of_range;
    if (rule->type == PROP_TOPIC && !mqtt_topic_name_valid(value.text))
        return rule->out_of_range;
    if (out->present & rule->bit) /* the first of several is the one in the field */
        return rule->repeats >> owner & 1 ? MQTT_RC_SUCCESS : MQTT_RC_PROTOCOL_ERROR;
    out->present |= rule->bit;
    store_value(out, rule, &value);
    return MQTT_RC_SUCCESS;
}

uint8_t mqtt_props_decode(struct reader *r, uint8_t owner, struct mqtt_props *out)
{
    uint32_t bytes;
    memset(out, 0, sizeof *out);
    if (reader_take_varint(r, &bytes) != ST_OK || bytes > reader_left(r))
        return MQTT_RC_MALFORMED_PACKET;
    struct reader props = {r->at, r->at + bytes};
    out->raw = slice_of(r->at, bytes);
    r->at += bytes;
    while (props.at < props.end) {
        uint8_t reason = decode_property(&props, owner, out);
        if (reason != MQTT_RC_SUCCESS)
            return reason;
    }
    return MQTT_RC_SUCCESS;
}

/* As take_value, of bytes that were checked before: texts are not looked at again. */
static bool take_checked_value(struct reader *r, enum prop_type type, struct prop_value *out)
{
    if (type < PROP_TEXT)
        return take_value(r, type, out);
    return reader_take_binary(r, &out->text) && (type != PROP_PAIR || reader_take_binary(r, &out->second));
}

/* The next property of `raw` at *place, its id and bytes whole; false at the end. `raw` was checked when it
 * was decoded, or is of our own making. */
static bool raw_next(struct slice raw, size_t *place, uint8_t *id, struct slice *whole,
                     struct prop_value *value)
{
    struct slice rest = slice_from(raw, *place);
    if (rest.len == 0)
        return false;
    struct reader r = {rest.data + 1, rest.data + rest.len};
    *id = rest.data[0];
    const struct prop_rule *rule = &prop_rules[*id <= PROP_ID_MAX ? *id : 0];
    if (rule->owners == 0 || !take_checked_value(&r, rule->type, value))
        return false;
    *whole = slice_of(rest.data, (size_t)(r.at - rest.data));
    *place += whole->len;
    return true;
}

bool mqtt_user_property_next(struct slice raw, size_t *place, struct slice *name, struct slice *value)
{
    uint8_t id;
    struct slice whole;
    struct prop_value found;
    while (raw_next(raw, place, &id, &whole, &found)) {
        if (id == PROP_USER) {
            *name = found.text;
            *value = found.second;
            return true;
        }
    }
    return false;
}

static struct prop_value load_value(const struct mqtt_props *props, const struct prop_rule *rule)
{
    struct prop_value value = {0};
    const void *field = (const uint8_t *)props + rule->field;
    switch (rule->type) {
    case PROP_BYTE:
        value.number = *(const uint8_t *)field;
        break;
    case PROP_U16:
        value.number = *(const uint16_t *)field;
        break;
    case PROP_U32:
    case PROP_VARINT:
        value.number = *(const uint32_t *)field;
        break;
    case PROP_TEXT:
    case PROP_TOPIC:
    case PROP_BINARY:
        value.text = *(const struct slice *)field;
        break;
    case PROP_PAIR:
        break;
    }
    return value;
}

static void put_value(struct writer *w, const struct prop_rule *rule, struct prop_value value)
{
    switch (rule->type) {
    case PROP_BYTE:
        writer_put_u8(w, (uint8_t)value.number);
        break;
    case PROP_U16:
        writer_put_u16(w, (uint16_t)value.number);
        break;
    case PROP_U32:
        writer_put_u32(w, value.number);
        break;
    case PROP_VARINT:
        writer_put_varint(w, value.number);
        break;
    case PROP_TEXT:
    case PROP_TOPIC:
    case PROP_BINARY:
        writer_put_string(w, value.text);
        break;
    case PROP_PAIR:
        break;
    }
}

/* User properties, and subscription identifiers after the first. */
static void put_walked(struct writer *w, uint8_t owner, const struct mqtt_props *props)
{
    bool user = props->present & MQTT_HAS_USER_PROPERTY;
    bool more_ids = owner == MQTT_PUBLISH && props->present & MQTT_HAS_SUBSCRIPTION_ID;
    bool first_id = true;
    size_t place = 0;
    uint8_t id;
    struct slice whole;
    struct prop_value value;
    while (raw_next(props->raw, &place, &id, &whole, &value)) {
        bool wanted = id == PROP_USER ? user : id == PROP_SUBSCRIPTION_ID && more_ids && !first_id;
        first_id &= id != PROP_SUBSCRIPTION_ID;
        if (wanted)
            writer_put_bytes(w, whole);
    }
    assert(place == props->raw.len);
}

static void put_properties(struct writer *w, uint8_t owner, const struct mqtt_props *props)
{
    uint32_t left = props->present & ~(uint32_t)MQTT_HAS_USER_PROPERTY; /* any packet may have these */
    for (uint8_t id = 1; left != 0; id++) {
        assert(id <= PROP_ID_MAX);
        const struct prop_rule *rule = &prop_rules[id];
        if (!(left & rule->bit))
            continue;
        left &= ~rule->bit;
        assert(rule->owners >> owner & 1);
        struct prop_value value = load_value(props, rule);
        assert(rule->type > PROP_VARINT || (value.number >= rule->min && value.number <= rule->max));
        writer_put_u8(w, id);
        put_value(w, rule, value);
    }
    if (props->present & (MQTT_HAS_USER_PROPERTY | MQTT_HAS_SUBSCRIPTION_ID))
        put_walked(w, owner, props);
}

bool mqtt_props_empty(const struct mqtt_props *props)
{
    return props->present == 0;
}

void mqtt_props_encode(struct writer *w, uint8_t owner, const struct mqtt_props *props)
{
    if (mqtt_props_empty(props)) {
        writer_put_u8(w, 0);
        return;
    }
    uint8_t list = w->list_count++;
    if (w->at != NULL) {
        writer_put_varint(w, w->list_bytes[list]);
        put_properties(w, owner, props);
        return;
    }
    size_t before = w->bytes;
    put_properties(w, owner, props);
    size_t bytes = w->bytes - before;
    w->too_large |= bytes > MQTT_REMAINING_BYTES_MAX;
    w->list_bytes[list] = (uint32_t)bytes;
    w->bytes += mqtt_varint_bytes(w->list_bytes[list]);
}
