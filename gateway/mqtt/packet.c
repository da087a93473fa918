/* What decoding and encoding share: variable byte integers, which packet exists in which version and
 * direction, which reason code belongs to which packet, and the walk through a list of filters.
 *
 * The tables say for a type or a reason code, in one row, everything the standards say about it; the code
 * below only looks up. A code that is not in its table is refused on the way in and asserted on the way
 * out. */
#include "gateway/mqtt/packet_internal.h"

#include <assert.h>

const struct mqtt_type_rule mqtt_type_rules[MQTT_TYPE_COUNT] = {
    /* flags, bits checked, checked in 3.1, first version from a client, from a server */
    [0] = {0, 0, 0, MQTT_NEVER, MQTT_NEVER},
    [MQTT_CONNECT] = {0, 0xf, 0xf, 0, MQTT_NEVER}, /* its version is not known before it is read */
    [MQTT_CONNACK] = {0, 0xf, 0, MQTT_NEVER, MQTT_V31},
    [MQTT_PUBLISH] = {0, 0, 0, MQTT_V31, MQTT_V31},
    [MQTT_PUBACK] = {0, 0xf, 0, MQTT_V31, MQTT_V31},
    [MQTT_PUBREC] = {0, 0xf, 0, MQTT_V31, MQTT_V31},
    /* These three have QoS 1 in 3.1 and, sent again, DUP (3.1: 3.6, 3.8, 3.10). */
    [MQTT_PUBREL] = {2, 0xf, 6, MQTT_V31, MQTT_V31},
    [MQTT_PUBCOMP] = {0, 0xf, 0, MQTT_V31, MQTT_V31},
    [MQTT_SUBSCRIBE] = {2, 0xf, 6, MQTT_V31, MQTT_NEVER},
    [MQTT_SUBACK] = {0, 0xf, 0, MQTT_NEVER, MQTT_V31},
    [MQTT_UNSUBSCRIBE] = {2, 0xf, 6, MQTT_V31, MQTT_NEVER},
    [MQTT_UNSUBACK] = {0, 0xf, 0, MQTT_NEVER, MQTT_V31},
    [MQTT_PINGREQ] = {0, 0xf, 0, MQTT_V31, MQTT_NEVER},
    [MQTT_PINGRESP] = {0, 0xf, 0, MQTT_NEVER, MQTT_V31},
    [MQTT_DISCONNECT] = {0, 0xf, 0, MQTT_V31, MQTT_V5},
    [MQTT_AUTH] = {0, 0xf, 0, MQTT_V5, MQTT_V5},
};

#define IN(type)   (1u << MQTT_##type)
#define PUBLISHED  (IN(PUBACK) | IN(PUBREC))
#define RELEASED   (IN(PUBREL) | IN(PUBCOMP))
#define SUBSCRIBED (IN(SUBACK) | IN(UNSUBACK))

/* 5.0, 2.4; which side sends a code: 3.2.2.2, 3.4.2.1, 3.5.2.1, 3.14.2.1, 3.15.2.1. */
static const struct {
    uint16_t client, server; /* the packets in which it may be sent, a bit for each type */
} reason_rules[256] = {
    [MQTT_RC_SUCCESS] = {PUBLISHED | RELEASED | IN(DISCONNECT),
                         IN(CONNACK) | PUBLISHED | RELEASED | SUBSCRIBED | IN(DISCONNECT) | IN(AUTH)},
    [MQTT_RC_GRANTED_QOS_1] = {0, IN(SUBACK)},
    [MQTT_RC_GRANTED_QOS_2] = {0, IN(SUBACK)},
    [MQTT_RC_DISCONNECT_WITH_WILL] = {IN(DISCONNECT), 0},
    [MQTT_RC_NO_MATCHING_SUBSCRIBERS] = {0, PUBLISHED},
    [MQTT_RC_NO_SUBSCRIPTION_EXISTED] = {0, IN(UNSUBACK)},
    [MQTT_RC_CONTINUE_AUTHENTICATION] = {IN(AUTH), IN(AUTH)},
    [MQTT_RC_REAUTHENTICATE] = {IN(AUTH), 0},
    [MQTT_RC_UNSPECIFIED_ERROR] = {PUBLISHED | IN(DISCONNECT),
                                   IN(CONNACK) | PUBLISHED | SUBSCRIBED | IN(DISCONNECT)},
    [MQTT_RC_MALFORMED_PACKET] = {IN(DISCONNECT), IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_PROTOCOL_ERROR] = {IN(DISCONNECT), IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR] = {PUBLISHED | IN(DISCONNECT),
                                               IN(CONNACK) | PUBLISHED | SUBSCRIBED | IN(DISCONNECT)},
    [MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION] = {0, IN(CONNACK)},
    [MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID] = {0, IN(CONNACK)},
    [MQTT_RC_BAD_USER_NAME_OR_PASSWORD] = {0, IN(CONNACK)},
    [MQTT_RC_NOT_AUTHORIZED] = {PUBLISHED, IN(CONNACK) | PUBLISHED | SUBSCRIBED | IN(DISCONNECT)},
    [MQTT_RC_SERVER_UNAVAILABLE] = {0, IN(CONNACK)},
    [MQTT_RC_SERVER_BUSY] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_BANNED] = {0, IN(CONNACK)},
    [MQTT_RC_SERVER_SHUTTING_DOWN] = {0, IN(DISCONNECT)},
    [MQTT_RC_BAD_AUTHENTICATION_METHOD] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_KEEP_ALIVE_TIMEOUT] = {0, IN(DISCONNECT)},
    [MQTT_RC_SESSION_TAKEN_OVER] = {0, IN(DISCONNECT)},
    [MQTT_RC_TOPIC_FILTER_INVALID] = {0, SUBSCRIBED | IN(DISCONNECT)},
    [MQTT_RC_TOPIC_NAME_INVALID] = {PUBLISHED | IN(DISCONNECT), IN(CONNACK) | PUBLISHED | IN(DISCONNECT)},
    [MQTT_RC_PACKET_IDENTIFIER_IN_USE] = {PUBLISHED, PUBLISHED | SUBSCRIBED},
    [MQTT_RC_PACKET_IDENTIFIER_NOT_FOUND] = {RELEASED, RELEASED},
    [MQTT_RC_RECEIVE_MAXIMUM_EXCEEDED] = {IN(DISCONNECT), IN(DISCONNECT)},
    [MQTT_RC_TOPIC_ALIAS_INVALID] = {IN(DISCONNECT), IN(DISCONNECT)},
    [MQTT_RC_PACKET_TOO_LARGE] = {IN(DISCONNECT), IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_MESSAGE_RATE_TOO_HIGH] = {IN(DISCONNECT), IN(DISCONNECT)},
    [MQTT_RC_QUOTA_EXCEEDED] = {PUBLISHED | IN(DISCONNECT),
                                IN(CONNACK) | PUBLISHED | IN(SUBACK) | IN(DISCONNECT)},
    [MQTT_RC_ADMINISTRATIVE_ACTION] = {IN(DISCONNECT), IN(DISCONNECT)},
    [MQTT_RC_PAYLOAD_FORMAT_INVALID] = {PUBLISHED | IN(DISCONNECT), IN(CONNACK) | PUBLISHED | IN(DISCONNECT)},
    [MQTT_RC_RETAIN_NOT_SUPPORTED] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_QOS_NOT_SUPPORTED] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_USE_ANOTHER_SERVER] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_SERVER_MOVED] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED] = {0, IN(SUBACK) | IN(DISCONNECT)},
    [MQTT_RC_CONNECTION_RATE_EXCEEDED] = {0, IN(CONNACK) | IN(DISCONNECT)},
    [MQTT_RC_MAXIMUM_CONNECT_TIME] = {0, IN(DISCONNECT)},
    [MQTT_RC_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED] = {0, IN(SUBACK) | IN(DISCONNECT)},
    [MQTT_RC_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED] = {0, IN(SUBACK) | IN(DISCONNECT)},
};

bool mqtt_reason_allowed(uint8_t type, bool from_server, uint8_t reason)
{
    unsigned packets = from_server ? reason_rules[reason].server : reason_rules[reason].client;
    return packets >> type & 1;
}

bool mqtt_topic_name_valid(struct slice topic)
{
    for (size_t i = 0; i < topic.len; i++)
        if (topic.data[i] == '+' || topic.data[i] == '#')
            return false;
    return topic.len > 0;
}

bool mqtt_topic_next(const struct mqtt_subscribe *s, uint8_t version, bool unsubscribe, size_t *place,
                     struct mqtt_topic_request *out)
{
    struct slice rest = slice_from(s->topics, *place);
    if (rest.len == 0)
        return false;
    struct reader r = {rest.data, rest.data + rest.len};
    struct mqtt_topic_request request = {0};
    uint8_t options = 0;
    if (!reader_take_binary(&r, &request.filter))
        return false;
    if (!unsubscribe && !reader_take_u8(&r, &options))
        return false;
    request.qos = options & 3;
    if (version >= MQTT_V5) { /* 3.8.3.1 */
        request.no_local = options & 0x04;
        request.retain_as_published = options & 0x08;
        request.retain_handling = options >> 4 & 3;
    }
    *out = request;
    *place = (size_t)(r.at - s->topics.data);
    return true;
}

size_t mqtt_varint_bytes(uint32_t value)
{
    return value < 1u << 7 ? 1 : value < 1u << 14 ? 2 : value < 1u << 21 ? 3 : 4;
}

size_t mqtt_varint_write(uint32_t value, uint8_t *out)
{
    assert(value <= MQTT_REMAINING_BYTES_MAX);
    size_t n = 0;
    while (value > 0x7f) {
        out[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    out[n++] = (uint8_t)value;
    return n;
}
