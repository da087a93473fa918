/* MQTT control packets: a pure codec for 3.1, 3.1.1 and 5.0. It knows bytes and the rules of one
 * packet; it knows no connection, no session, no order of packets. decode(encode(x)) = x.
 *
 * Source: OASIS MQTT 5.0 (section numbers below), MQTT 3.1.1, MQTT 3.1 (IBM 2010).
 * Every slice of a decoded packet points into the input. Any thread. */
#ifndef TG_GATEWAY_MQTT_PACKET_H
#define TG_GATEWAY_MQTT_PACKET_H

#include "core/buf.h"

enum mqtt_type { /* 2.1.2 */
                 MQTT_CONNECT = 1,
                 MQTT_CONNACK,
                 MQTT_PUBLISH,
                 MQTT_PUBACK,
                 MQTT_PUBREC,
                 MQTT_PUBREL,
                 MQTT_PUBCOMP,
                 MQTT_SUBSCRIBE,
                 MQTT_SUBACK,
                 MQTT_UNSUBSCRIBE,
                 MQTT_UNSUBACK,
                 MQTT_PINGREQ,
                 MQTT_PINGRESP,
                 MQTT_DISCONNECT,
                 MQTT_AUTH
};
enum { MQTT_V31 = 3, MQTT_V311 = 4, MQTT_V5 = 5 };
enum { MQTT_REMAINING_BYTES_MAX = 268435455, MQTT_SUBSCRIBE_TOPICS_MAX = 1024 };

enum mqtt_reason { /* 2.4; names as in the standard */
                   MQTT_RC_SUCCESS = 0x00,
                   MQTT_RC_GRANTED_QOS_1 = 0x01,
                   MQTT_RC_GRANTED_QOS_2 = 0x02,
                   MQTT_RC_DISCONNECT_WITH_WILL = 0x04,
                   MQTT_RC_NO_MATCHING_SUBSCRIBERS = 0x10,
                   MQTT_RC_NO_SUBSCRIPTION_EXISTED = 0x11,
                   MQTT_RC_CONTINUE_AUTHENTICATION = 0x18,
                   MQTT_RC_REAUTHENTICATE = 0x19,
                   MQTT_RC_UNSPECIFIED_ERROR = 0x80,
                   MQTT_RC_MALFORMED_PACKET = 0x81,
                   MQTT_RC_PROTOCOL_ERROR = 0x82,
                   MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR = 0x83,
                   MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION = 0x84,
                   MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID = 0x85,
                   MQTT_RC_BAD_USER_NAME_OR_PASSWORD = 0x86,
                   MQTT_RC_NOT_AUTHORIZED = 0x87,
                   MQTT_RC_SERVER_UNAVAILABLE = 0x88,
                   MQTT_RC_SERVER_BUSY = 0x89,
                   MQTT_RC_BANNED = 0x8A,
                   MQTT_RC_SERVER_SHUTTING_DOWN = 0x8B,
                   MQTT_RC_BAD_AUTHENTICATION_METHOD = 0x8C,
                   MQTT_RC_KEEP_ALIVE_TIMEOUT = 0x8D,
                   MQTT_RC_SESSION_TAKEN_OVER = 0x8E,
                   MQTT_RC_TOPIC_FILTER_INVALID = 0x8F,
                   MQTT_RC_TOPIC_NAME_INVALID = 0x90,
                   MQTT_RC_PACKET_IDENTIFIER_IN_USE = 0x91,
                   MQTT_RC_PACKET_IDENTIFIER_NOT_FOUND = 0x92,
                   MQTT_RC_RECEIVE_MAXIMUM_EXCEEDED = 0x93,
                   MQTT_RC_TOPIC_ALIAS_INVALID = 0x94,
                   MQTT_RC_PACKET_TOO_LARGE = 0x95,
                   MQTT_RC_MESSAGE_RATE_TOO_HIGH = 0x96,
                   MQTT_RC_QUOTA_EXCEEDED = 0x97,
                   MQTT_RC_ADMINISTRATIVE_ACTION = 0x98,
                   MQTT_RC_PAYLOAD_FORMAT_INVALID = 0x99,
                   MQTT_RC_RETAIN_NOT_SUPPORTED = 0x9A,
                   MQTT_RC_QOS_NOT_SUPPORTED = 0x9B,
                   MQTT_RC_USE_ANOTHER_SERVER = 0x9C,
                   MQTT_RC_SERVER_MOVED = 0x9D,
                   MQTT_RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E,
                   MQTT_RC_CONNECTION_RATE_EXCEEDED = 0x9F,
                   MQTT_RC_MAXIMUM_CONNECT_TIME = 0xA0,
                   MQTT_RC_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1,
                   MQTT_RC_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2
};

/* Properties (2.2.2). Presence is a bit; repeated ones (user property, subscription identifier of a
 * PUBLISH) are kept raw and walked. */
enum mqtt_prop_bit {
    MQTT_HAS_PAYLOAD_FORMAT = 1 << 0,
    MQTT_HAS_MESSAGE_EXPIRY = 1 << 1,
    MQTT_HAS_CONTENT_TYPE = 1 << 2,
    MQTT_HAS_RESPONSE_TOPIC = 1 << 3,
    MQTT_HAS_CORRELATION = 1 << 4,
    MQTT_HAS_SUBSCRIPTION_ID = 1 << 5,
    MQTT_HAS_SESSION_EXPIRY = 1 << 6,
    MQTT_HAS_ASSIGNED_CLIENT_ID = 1 << 7,
    MQTT_HAS_SERVER_KEEP_ALIVE = 1 << 8,
    MQTT_HAS_AUTH_METHOD = 1 << 9,
    MQTT_HAS_AUTH_DATA = 1 << 10,
    MQTT_HAS_REQUEST_PROBLEM = 1 << 11,
    MQTT_HAS_WILL_DELAY = 1 << 12,
    MQTT_HAS_REQUEST_RESPONSE = 1 << 13,
    MQTT_HAS_RESPONSE_INFO = 1 << 14,
    MQTT_HAS_SERVER_REFERENCE = 1 << 15,
    MQTT_HAS_REASON_STRING = 1 << 16,
    MQTT_HAS_RECEIVE_MAXIMUM = 1 << 17,
    MQTT_HAS_TOPIC_ALIAS_MAXIMUM = 1 << 18,
    MQTT_HAS_TOPIC_ALIAS = 1 << 19,
    MQTT_HAS_MAXIMUM_QOS = 1 << 20,
    MQTT_HAS_RETAIN_AVAILABLE = 1 << 21,
    MQTT_HAS_USER_PROPERTY = 1 << 22,
    MQTT_HAS_MAXIMUM_PACKET_SIZE = 1 << 23,
    MQTT_HAS_WILDCARD_AVAILABLE = 1 << 24,
    MQTT_HAS_SUBSCRIPTION_ID_AVAILABLE = 1 << 25,
    MQTT_HAS_SHARED_AVAILABLE = 1 << 26
};

struct mqtt_props {
    uint32_t present; /* mqtt_prop_bit */
    uint8_t payload_format, request_problem, request_response, maximum_qos, retain_available,
        wildcard_available, subscription_id_available, shared_available;
    uint16_t server_keep_alive_s, receive_maximum, topic_alias_maximum, topic_alias;
    uint32_t message_expiry_s, session_expiry_s, will_delay_s, maximum_packet_bytes;
    uint32_t subscription_id; /* the first; further ones of a PUBLISH are in `raw` */
    struct slice content_type, response_topic, correlation, assigned_client_id, auth_method, auth_data,
        response_info, server_reference, reason_string;
    /* Decoding: the property bytes as they came. Encoding: only its user properties (and, in a PUBLISH, its
     * subscription identifiers after the first) are written, in order, after the others. */
    struct slice raw;
};
/* Walks user properties in `raw`, in order; *place starts at 0. */
bool mqtt_user_property_next(struct slice raw, size_t *place, struct slice *name, struct slice *value);

struct mqtt_connect {
    uint8_t version; /* MQTT_V31, _V311, _V5 */
    bool clean_start, will, will_retain, has_user_name, has_password;
    uint8_t will_qos;
    uint16_t keep_alive_s;
    struct mqtt_props props, will_props;
    struct slice client_id, will_topic, will_payload, user_name, password;
};
struct mqtt_connack {
    bool session_present;
    uint8_t reason;
    struct mqtt_props props;
};
struct mqtt_publish {
    bool dup, retain;
    uint8_t qos;
    uint16_t packet_id; /* 0 with QoS 0 */
    struct mqtt_props props;
    struct slice topic, payload;
};
/* PUBACK, PUBREC, PUBREL, PUBCOMP */
struct mqtt_ack {
    uint16_t packet_id;
    uint8_t reason;
    struct mqtt_props props;
};
struct mqtt_topic_request {
    struct slice filter;
    uint8_t qos;
    bool no_local, retain_as_published;
    uint8_t retain_handling;
};
/* SUBSCRIBE and UNSUBSCRIBE: the payload is checked whole by decode and walked by mqtt_topic_next. */
struct mqtt_subscribe {
    uint16_t packet_id;
    struct mqtt_props props;
    uint32_t count;
    struct slice topics;
};
struct mqtt_suback {
    uint16_t packet_id;
    struct mqtt_props props;
    struct slice reasons;
}; /* also UNSUBACK */
struct mqtt_reasoned {
    uint8_t reason;
    struct mqtt_props props;
}; /* DISCONNECT, AUTH */

struct mqtt_packet {
    enum mqtt_type type;
    union {
        struct mqtt_connect connect;
        struct mqtt_connack connack;
        struct mqtt_publish publish;
        struct mqtt_ack ack;
        struct mqtt_subscribe subscribe; /* also UNSUBSCRIBE */
        struct mqtt_suback suback; /* also UNSUBACK */
        struct mqtt_reasoned reasoned;
    };
};

struct mqtt_decode_rules {
    uint8_t version; /* of the connection; for CONNECT it is read from the packet. */
    uint32_t packet_bytes_max; /* whole packet; larger: ST_TOO_LARGE as soon as the fixed header is read */
    bool from_server; /* which direction: a client's packet types or a server's (tests, CLI) */
};

/* One packet from the start of `input`.
 *   ST_OK         *used bytes were taken
 *   ST_AGAIN      incomplete; *used = bytes needed in all if already known, else 0
 *   ST_INVALID    malformed or against a rule of the standard for this packet: *reason says which code
 *                 (0x81, 0x82, 0x84, 0x85 ...; for a CONNECT the CONNACK code)
 *   ST_TOO_LARGE  *reason = 0x95
 * Checked here: fixed header flags, minimal variable byte integers, UTF-8 (1.5.4), property set of the
 * packet type and duplicates, values and reason codes, reserved bits, QoS 3, packet id 0, wildcard topic
 * name (0x90 in 5.0), empty topic name (3.3.2.1: 0x82 in 5.0, but allowed with a topic alias), filter list
 * not empty, payload left over, protocol name and level (`MQIsdp` 3, `MQTT` 4, `MQTT` 5; else 0x84), will
 * flags, password without user name (3.1, 3.1.1), empty client identifier where it is not allowed (0x85).
 * Not checked: the syntax of topic filters (0x8F is for one filter, not for the packet); what depends on
 * the connection (alias maximum, receive maximum ...). More than MQTT_SUBSCRIBE_TOPICS_MAX filters are
 * ST_TOO_LARGE.
 * `out` is written as decoding goes on: after another status than ST_OK only its type counts, and of a
 * CONNECT refused its connect.version (0: not read or not known), which tells how to answer.
 * Properties that are not present read as 0 or empty. */
enum status mqtt_decode(struct slice input, const struct mqtt_decode_rules *rules, struct mqtt_packet *out,
                        size_t *used, uint8_t *reason) MUST_CHECK;
/* *place starts at 0; false at the end. */
bool mqtt_topic_next(const struct mqtt_subscribe *s, uint8_t version, bool unsubscribe, size_t *place,
                     struct mqtt_topic_request *out);

/* Appends the packet's bytes. Asserts what our own code must have right (ids, QoS); ST_FULL when over the
 * buffer's limit (buffer unchanged), ST_TOO_LARGE over the protocol's. For 3.1/3.1.1 properties are not
 * written and reason codes only where the version has them: SUBACK (each failure becomes 0x80) and CONNACK,
 * where 0 to 5 are 3.x return codes and a code of 5.0 is written as its nearest (0x84 is 1, 0x85 2, 0x86 4,
 * 0x87 5, others 3: server unavailable). Decoding gives the return code. */
enum status mqtt_encode(const struct mqtt_packet *p, uint8_t version, struct buf *out) MUST_CHECK;

/* Variable byte integer (1.5.5); for hand-made hot paths. Writes 1 to 4 bytes, returns how many. */
size_t mqtt_varint_write(uint32_t value, uint8_t *out);
size_t mqtt_varint_bytes(uint32_t value);

#endif
