/* The MQTT codec against the text of the standards (packet_rows.h), against what other programs put on the
 * wire (packet_captures.h), and against itself: decode(encode(x)) = x. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "packet_captures.h"
#include "packet_equal.h"
#include "packet_notation.h"
#include "packet_rows.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

enum { PACKET_BYTES_MAX = 1 << 20 };

static struct mqtt_decode_rules rules_of(uint8_t version, enum side side)
{
    return (struct mqtt_decode_rules){version, PACKET_BYTES_MAX, side == SERVER};
}

static struct mqtt_packet decoded(struct slice bytes, uint8_t version, enum side side)
{
    struct mqtt_packet packet;
    size_t used;
    uint8_t reason;
    struct mqtt_decode_rules rules = rules_of(version, side);
    enum status st = mqtt_decode(bytes, &rules, &packet, &used, &reason);
    cr_assert(st == ST_OK && used == bytes.len, "%s, reason %02x", status_name(st), reason);
    return packet;
}

static uint8_t version_of(const struct packet_row *row, const struct mqtt_packet *packet)
{
    return packet->type == MQTT_CONNECT ? packet->connect.version : row->version;
}

static void check_row(const struct packet_row *row)
{
    struct slice bytes = notation_bytes(row->bytes);
    struct mqtt_packet packet;
    size_t used, want = row->status == ST_OK ? bytes.len : row->used;
    uint8_t reason;
    struct mqtt_decode_rules rules = rules_of(row->version, row->side);
    enum status st = mqtt_decode(bytes, &rules, &packet, &used, &reason);
    cr_expect(st == row->status && reason == row->reason && used == want,
              "%s: %s: got %s, reason %02x, used %zu", row->section, row->bytes, status_name(st), reason,
              used);
    notation_free(bytes);
}

/* What is cut off is waited for, and never called wrong. */
static void check_prefixes(const struct packet_row *row)
{
    struct slice bytes = notation_bytes(row->bytes);
    struct mqtt_decode_rules rules = rules_of(row->version, row->side);
    for (size_t len = 0; row->status == ST_OK && len < bytes.len; len++) {
        uint8_t *part = malloc(len > 0 ? len : 1);
        memcpy(part, bytes.data, len);
        struct mqtt_packet packet;
        size_t used;
        uint8_t reason;
        enum status st = mqtt_decode(slice_of(part, len), &rules, &packet, &used, &reason);
        cr_expect(st == ST_AGAIN && reason == 0 && (used == 0 || used == bytes.len),
                  "%s: %s: the first %zu bytes: got %s, used %zu", row->section, row->bytes, len,
                  status_name(st), used);
        free(part);
    }
    notation_free(bytes);
}

static void check_table(const struct packet_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_row(&rows[i]);
        check_prefixes(&rows[i]);
    }
}

Test(mqtt_packet, fixed_header_as_the_standards_say)
{
    check_table(fixed_header_rows, COUNT(fixed_header_rows));
}

Test(mqtt_packet, connect_as_the_standards_say)
{
    check_table(connect_rows, COUNT(connect_rows));
}

Test(mqtt_packet, connack_as_the_standards_say)
{
    check_table(connack_rows, COUNT(connack_rows));
}

Test(mqtt_packet, publish_as_the_standards_say)
{
    check_table(publish_rows, COUNT(publish_rows));
}

Test(mqtt_packet, acknowledgements_as_the_standards_say)
{
    check_table(ack_rows, COUNT(ack_rows));
}

Test(mqtt_packet, subscribe_as_the_standards_say)
{
    check_table(subscribe_rows, COUNT(subscribe_rows));
}

Test(mqtt_packet, disconnect_and_auth_as_the_standards_say)
{
    check_table(disconnect_rows, COUNT(disconnect_rows));
}

/* Others order properties otherwise, and the broker spells out reasons that may be left out; apart from
 * that their bytes are ours. */
Test(mqtt_packet, captured_packets_encode_to_what_they_were)
{
    check_table(captured_rows, COUNT(captured_rows));
    for (size_t i = 0; i < COUNT(captured_rows); i++) {
        const struct packet_row *row = &captured_rows[i];
        struct slice bytes = notation_bytes(row->bytes);
        struct mqtt_packet packet = decoded(bytes, row->version, row->side);
        uint8_t version = version_of(row, &packet);
        struct buf out;
        buf_init(&out, PACKET_BYTES_MAX);
        cr_assert_eq(mqtt_encode(&packet, version, &out), ST_OK);
        cr_expect_eq(out.len, bytes.len, "%s: %s", row->section, row->bytes);
        cr_expect(version == MQTT_V5 || slice_equal(buf_slice(&out), bytes), "%s: %s", row->section,
                  row->bytes);
        struct mqtt_packet again = decoded(buf_slice(&out), row->version, row->side);
        cr_expect(packet_equal(&packet, &again), "%s: %s", row->section, row->bytes);
        buf_deinit(&out);
        notation_free(bytes);
    }
}

/* --- reason codes --- */

static const struct {
    uint8_t type;
    enum side side;
    const char *before, *after; /* the packet around the code, in notation */
    const char *codes;
} reason_tables[] = {
    {2, SERVER, "20 (00", "())",
     "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f"}, /* table 3-1 */
    {4, SERVER, "40 (0001", ")", "00 10 80 83 87 90 91 97 99"}, /* table 3-4 */
    {4, CLIENT, "40 (0001", ")", "00 80 83 87 90 91 97 99"},
    {5, SERVER, "50 (0001", ")", "00 10 80 83 87 90 91 97 99"}, /* table 3-5 */
    {5, CLIENT, "50 (0001", ")", "00 80 83 87 90 91 97 99"},
    {6, SERVER, "62 (0001", ")", "00 92"}, /* table 3-6 */
    {7, CLIENT, "70 (0001", ")", "00 92"}, /* table 3-7 */
    {9, SERVER, "90 (0001 ()", ")", "00 01 02 80 83 87 8f 91 97 9e a1 a2"}, /* table 3-8 */
    {11, SERVER, "b0 (0001 ()", ")", "00 11 80 83 87 8f 91"}, /* table 3-9 */
    {14, SERVER, "e0 (", ")", /* table 3-10, and 8c by the table of 2.4 */
     "00 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"},
    {14, CLIENT, "e0 (", ")", "00 04 80 81 82 83 90 93 94 95 96 97 98 99"},
    {15, SERVER, "f0 (", "(15 <'m'>))", "00 18"}, /* table 3-11 */
    {15, CLIENT, "f0 (", "(15 <'m'>))", "18 19"},
};

Test(mqtt_packet, each_packet_takes_its_reason_codes_and_no_others)
{
    for (size_t i = 0; i < COUNT(reason_tables); i++) {
        struct slice codes = notation_bytes(reason_tables[i].codes);
        for (unsigned code = 0; code < 256; code++) {
            char text[128];
            snprintf(text, sizeof text, "%s %02x %s", reason_tables[i].before, code, reason_tables[i].after);
            bool known = memchr(codes.data, (int)code, codes.len) != NULL;
            struct packet_row row = {
                5, reason_tables[i].side, known ? ST_OK : ST_INVALID, known ? 0 : 0x82, 0, text, "2.4"};
            check_row(&row);
        }
        notation_free(codes);
    }
}

/* --- properties --- */

/* Table 2-4 of 5.0 once more, as the text has it. A letter is a packet: C connect, W its will, c connack,
 * P publish, A puback, R pubrec, L pubrel, M pubcomp, S subscribe, s suback, U unsubscribe, u unsuback,
 * D disconnect, X auth. */
static const struct {
    uint32_t bit;
    const char *bytes, *packets;
} property_table[] = {
    {MQTT_HAS_PAYLOAD_FORMAT, "01 01", "PW"},
    {MQTT_HAS_MESSAGE_EXPIRY, "02 01020304", "PW"},
    {MQTT_HAS_CONTENT_TYPE, "03 <'text/plain'>", "PW"},
    {MQTT_HAS_RESPONSE_TOPIC, "08 <'re/ply'>", "PW"},
    {MQTT_HAS_CORRELATION, "09 <00ff>", "PW"},
    {MQTT_HAS_SUBSCRIPTION_ID, "0b 808001", "PS"},
    {MQTT_HAS_SESSION_EXPIRY, "11 ffffffff", "CcD"},
    {MQTT_HAS_ASSIGNED_CLIENT_ID, "12 <'auto'>", "c"},
    {MQTT_HAS_SERVER_KEEP_ALIVE, "13 0102", "c"},
    {MQTT_HAS_AUTH_METHOD, "15 <'SCRAM'>", "CcX"},
    {MQTT_HAS_AUTH_DATA, "16 <ff>", "CcX"},
    {MQTT_HAS_REQUEST_PROBLEM, "17 01", "C"},
    {MQTT_HAS_WILL_DELAY, "18 00000005", "W"},
    {MQTT_HAS_REQUEST_RESPONSE, "19 01", "C"},
    {MQTT_HAS_RESPONSE_INFO, "1a <'info'>", "c"},
    {MQTT_HAS_SERVER_REFERENCE, "1c <'other'>", "cD"},
    {MQTT_HAS_REASON_STRING, "1f <'why'>", "cARLMsuDX"},
    {MQTT_HAS_RECEIVE_MAXIMUM, "21 ffff", "Cc"},
    {MQTT_HAS_TOPIC_ALIAS_MAXIMUM, "22 000a", "Cc"},
    {MQTT_HAS_TOPIC_ALIAS, "23 000a", "P"},
    {MQTT_HAS_MAXIMUM_QOS, "24 01", "c"},
    {MQTT_HAS_RETAIN_AVAILABLE, "25 01", "c"},
    {MQTT_HAS_USER_PROPERTY, "26 <'name'> <'value'>", "CcPWARLMSsUuDX"},
    {MQTT_HAS_MAXIMUM_PACKET_SIZE, "27 00000001", "Cc"},
    {MQTT_HAS_WILDCARD_AVAILABLE, "28 01", "c"},
    {MQTT_HAS_SUBSCRIPTION_ID_AVAILABLE, "29 01", "c"},
    {MQTT_HAS_SHARED_AVAILABLE, "2a 01", "c"},
};

static const struct {
    char letter;
    enum side side;
    const char *before, *after; /* around the properties */
} property_places[] = {
    {'C', CLIENT, "10 (<'MQTT'> 05 02 003c (", ") <'id'>)"},
    {'W', CLIENT, "10 (<'MQTT'> 05 06 003c () <'id'> (", ") <'t'> <'p'>)"},
    {'c', SERVER, "20 (00 00 (", "))"},
    {'P', SERVER, "30 (<'t'> (", ") 'payload')"},
    {'A', CLIENT, "40 (0001 80 (", "))"},
    {'R', CLIENT, "50 (0001 80 (", "))"},
    {'L', CLIENT, "62 (0001 92 (", "))"},
    {'M', CLIENT, "70 (0001 92 (", "))"},
    {'S', CLIENT, "82 (0001 (", ") <'f'> 01)"},
    {'s', SERVER, "90 (0001 (", ") 01)"},
    {'U', CLIENT, "a2 (0001 (", ") <'f'>)"},
    {'u', SERVER, "b0 (0001 (", ") 00)"},
    {'D', CLIENT, "e0 (00 (", "))"},
    {'X', CLIENT, "f0 (18 (", "))"},
};

static const struct mqtt_props *props_of(const struct mqtt_packet *p, char letter)
{
    switch (letter) {
    case 'C':
        return &p->connect.props;
    case 'W':
        return &p->connect.will_props;
    case 'c':
        return &p->connack.props;
    case 'P':
        return &p->publish.props;
    case 'S':
    case 'U':
        return &p->subscribe.props;
    case 's':
    case 'u':
        return &p->suback.props;
    case 'D':
    case 'X':
        return &p->reasoned.props;
    default:
        return &p->ack.props;
    }
}

/* Encodes what `text` decodes to; the bytes must be the same. */
static struct mqtt_packet check_round_trip(const char *text, uint8_t version, enum side side,
                                           struct slice *bytes)
{
    *bytes = notation_bytes(text);
    struct mqtt_packet packet = decoded(*bytes, version, side);
    struct buf out;
    buf_init(&out, PACKET_BYTES_MAX);
    cr_assert_eq(mqtt_encode(&packet, packet.type == MQTT_CONNECT ? packet.connect.version : version, &out),
                 ST_OK);
    cr_expect(slice_equal(buf_slice(&out), *bytes), "%s", text);
    buf_deinit(&out);
    return packet;
}

/* Property i, once or twice, in place k; with the method that authentication data and an AUTH want. */
static void write_property(size_t i, size_t k, bool twice, char *text, size_t size)
{
    uint32_t bit = property_table[i].bit;
    bool wants_method =
        bit == MQTT_HAS_AUTH_DATA || (property_places[k].letter == 'X' && bit != MQTT_HAS_AUTH_METHOD);
    snprintf(text, size, "%s %s %s %s %s", property_places[k].before, wants_method ? "15 <'SCRAM'>" : "",
             property_table[i].bytes, twice ? property_table[i].bytes : "", property_places[k].after);
}

Test(mqtt_packet, each_property_stands_in_its_packets_and_no_others)
{
    for (size_t i = 0; i < COUNT(property_table); i++) {
        for (size_t k = 0; k < COUNT(property_places); k++) {
            char letter = property_places[k].letter, text[256];
            write_property(i, k, false, text, sizeof text);
            if (strchr(property_table[i].packets, letter) == NULL) {
                struct packet_row row = {5, property_places[k].side, ST_INVALID, 0x81, 0, text, "2.2.2.2"};
                check_row(&row);
                continue;
            }
            struct slice bytes;
            struct mqtt_packet packet = check_round_trip(text, MQTT_V5, property_places[k].side, &bytes);
            cr_expect(props_of(&packet, letter)->present & property_table[i].bit, "%s", text);
            notation_free(bytes);
        }
    }
}

Test(mqtt_packet, only_user_property_and_subscription_identifier_repeat)
{
    for (size_t i = 0; i < COUNT(property_table); i++) {
        for (size_t k = 0; k < COUNT(property_places); k++) {
            char letter = property_places[k].letter, text[256];
            if (strchr(property_table[i].packets, letter) == NULL)
                continue;
            uint32_t bit = property_table[i].bit;
            bool repeats =
                bit == MQTT_HAS_USER_PROPERTY || (bit == MQTT_HAS_SUBSCRIPTION_ID && letter == 'P');
            write_property(i, k, true, text, sizeof text);
            struct packet_row row = {
                5,      property_places[k].side, repeats ? ST_OK : ST_INVALID, repeats ? 0 : 0x82, 0, text,
                "2.2.2"};
            check_row(&row);
        }
    }
}

Test(mqtt_packet, property_values_arrive_in_their_fields)
{
    struct slice bytes;
    struct mqtt_packet p = check_round_trip(
        "20 (01 00 (11 00000102 12 <'auto'> 13 001e 15 <'m'> 16 <ff> 1a <'i'> 1c <'s'> 1f <'r'> 21 0102 "
        "22 0304 24 01 25 00 27 00010000 28 01 29 00 2a 01 26 <'a'> <'b'> 26 <'c'> <>))",
        MQTT_V5, SERVER, &bytes);
    const struct mqtt_props *props = &p.connack.props;
    cr_expect(p.connack.session_present && p.connack.reason == 0);
    cr_expect_eq(props->session_expiry_s, 0x102);
    cr_expect(slice_equal_cstr(props->assigned_client_id, "auto"));
    cr_expect_eq(props->server_keep_alive_s, 30);
    cr_expect(slice_equal_cstr(props->auth_method, "m") && slice_equal_cstr(props->auth_data, "\xff"));
    cr_expect(slice_equal_cstr(props->response_info, "i") && slice_equal_cstr(props->server_reference, "s"));
    cr_expect(slice_equal_cstr(props->reason_string, "r"));
    cr_expect(props->receive_maximum == 0x102 && props->topic_alias_maximum == 0x304);
    cr_expect(props->maximum_qos == 1 && props->retain_available == 0);
    cr_expect_eq(props->maximum_packet_bytes, 0x10000);
    cr_expect(props->wildcard_available && !props->subscription_id_available && props->shared_available);
    size_t place = 0;
    struct slice name, value;
    cr_assert(mqtt_user_property_next(props->raw, &place, &name, &value));
    cr_expect(slice_equal_cstr(name, "a") && slice_equal_cstr(value, "b"));
    cr_assert(mqtt_user_property_next(props->raw, &place, &name, &value));
    cr_expect(slice_equal_cstr(name, "c") && value.len == 0);
    cr_expect_not(mqtt_user_property_next(props->raw, &place, &name, &value));
    notation_free(bytes);
}

Test(mqtt_packet, properties_without_their_bit_are_not_written)
{
    static const struct {
        uint32_t present;
        const char *want;
    } rows[] = {
        {0, "30 (<'t'> () 'x')"},
        {MQTT_HAS_MESSAGE_EXPIRY, "30 (<'t'> (02 00000001) 'x')"},
        {MQTT_HAS_USER_PROPERTY, "30 (<'t'> (26 <'a'> <'b'>) 'x')"},
        {MQTT_HAS_SUBSCRIPTION_ID, "30 (<'t'> (0b 01 0b 02) 'x')"},
    };
    struct slice bytes = notation_bytes("30 (<'t'> (02 00000001 0b 01 0b 02 26 <'a'> <'b'>) 'x')");
    struct mqtt_packet p = decoded(bytes, MQTT_V5, SERVER);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct slice want = notation_bytes(rows[i].want);
        struct buf out;
        buf_init(&out, PACKET_BYTES_MAX);
        p.publish.props.present = rows[i].present;
        cr_assert_eq(mqtt_encode(&p, MQTT_V5, &out), ST_OK);
        cr_expect(slice_equal(buf_slice(&out), want), "%s", rows[i].want);
        buf_deinit(&out);
        notation_free(want);
    }
    notation_free(bytes);
}

Test(mqtt_packet, absent_properties_read_as_zero)
{
    struct mqtt_packet p;
    memset(&p, 0xaa, sizeof p);
    struct slice bytes = notation_bytes("30 (<'t'> () 'x')");
    size_t used;
    uint8_t reason;
    struct mqtt_decode_rules rules = rules_of(MQTT_V5, CLIENT);
    cr_assert_eq(mqtt_decode(bytes, &rules, &p, &used, &reason), ST_OK);
    struct mqtt_props none = {0};
    cr_expect(props_equal(&p.publish.props, &none));
    cr_expect_eq(p.publish.packet_id, 0);
    notation_free(bytes);
}

/* --- fields --- */

Test(mqtt_packet, connect_fields)
{
    struct slice bytes;
    struct mqtt_packet p = check_round_trip("10 (<'MQTT'> 05 f6 0e10 (11 0000000a 21 0005) <'id'> "
                                            "(18 00000007 26 <'a'> <'b'>) <'w/t'> <'gone'> <'ann'> <'pw'>)",
                                            0, CLIENT, &bytes);
    const struct mqtt_connect *c = &p.connect;
    cr_expect(c->version == MQTT_V5 && c->clean_start && c->keep_alive_s == 3600);
    cr_expect(c->will && c->will_qos == 2 && c->will_retain && c->has_user_name && c->has_password);
    cr_expect(c->props.session_expiry_s == 10 && c->props.receive_maximum == 5);
    cr_expect(c->will_props.will_delay_s == 7 && c->will_props.present & MQTT_HAS_USER_PROPERTY);
    cr_expect(slice_equal_cstr(c->client_id, "id") && slice_equal_cstr(c->will_topic, "w/t"));
    cr_expect(slice_equal_cstr(c->will_payload, "gone") && slice_equal_cstr(c->user_name, "ann"));
    cr_expect(slice_equal_cstr(c->password, "pw"));
    notation_free(bytes);
}

Test(mqtt_packet, publish_fields_point_into_the_input)
{
    struct slice bytes;
    struct mqtt_packet p =
        check_round_trip("3b (<'a/b'> 1234 (23 0007 26 <'k'> <'v'>) 'hello')", MQTT_V5, CLIENT, &bytes);
    cr_expect(p.publish.dup && p.publish.retain && p.publish.qos == 1 && p.publish.packet_id == 0x1234);
    cr_expect_eq(p.publish.props.topic_alias, 7);
    cr_expect(slice_equal_cstr(p.publish.topic, "a/b") && p.publish.topic.data == bytes.data + 4);
    cr_expect(slice_equal_cstr(p.publish.payload, "hello"));
    cr_expect_eq(p.publish.payload.data + 5, bytes.data + bytes.len);
    notation_free(bytes);
}

Test(mqtt_packet, topics_are_walked_with_their_options)
{
    struct slice bytes;
    struct mqtt_packet p =
        check_round_trip("82 (0009 (0b 8002) <'a/+'> 2e <'#'> 00)", MQTT_V5, CLIENT, &bytes);
    struct mqtt_topic_request request;
    size_t place = 0;
    cr_expect(p.subscribe.packet_id == 9 && p.subscribe.count == 2 &&
              p.subscribe.props.subscription_id == 256);
    cr_assert(mqtt_topic_next(&p.subscribe, MQTT_V5, false, &place, &request));
    cr_expect(slice_equal_cstr(request.filter, "a/+") && request.qos == 2 && request.no_local);
    cr_expect(request.retain_as_published && request.retain_handling == 2);
    cr_assert(mqtt_topic_next(&p.subscribe, MQTT_V5, false, &place, &request));
    cr_expect(slice_equal_cstr(request.filter, "#") && request.qos == 0 && !request.no_local);
    cr_expect_not(mqtt_topic_next(&p.subscribe, MQTT_V5, false, &place, &request));
    notation_free(bytes);
}

Test(mqtt_packet, unsubscribe_topics_are_walked)
{
    struct slice bytes;
    struct mqtt_packet p = check_round_trip("a2 (0009 <'a'> <'b'>)", MQTT_V311, CLIENT, &bytes);
    struct mqtt_topic_request request;
    size_t place = 0;
    cr_assert(mqtt_topic_next(&p.subscribe, MQTT_V311, true, &place, &request));
    cr_expect(slice_equal_cstr(request.filter, "a"));
    cr_assert(mqtt_topic_next(&p.subscribe, MQTT_V311, true, &place, &request));
    cr_expect(slice_equal_cstr(request.filter, "b"));
    cr_expect_not(mqtt_topic_next(&p.subscribe, MQTT_V311, true, &place, &request));
    notation_free(bytes);
}

Test(mqtt_packet, unused_bits_of_31_do_not_reach_the_options)
{
    struct slice bytes = notation_bytes("82 (0001 <'a'> fd)");
    struct mqtt_packet p = decoded(bytes, MQTT_V31, CLIENT);
    struct mqtt_topic_request request;
    size_t place = 0;
    cr_assert(mqtt_topic_next(&p.subscribe, MQTT_V31, false, &place, &request));
    cr_expect(request.qos == 1 && !request.no_local && request.retain_handling == 0);
    notation_free(bytes);
}

Test(mqtt_packet, subscription_identifiers_after_the_first_are_kept)
{
    struct slice bytes;
    struct mqtt_packet p =
        check_round_trip("30 (<'t'> (0b 01 0b 8001 26 <'a'> <'b'> 0b 02) 'x')", MQTT_V5, SERVER, &bytes);
    cr_expect_eq(p.publish.props.subscription_id, 1);
    notation_free(bytes);
}

/* --- refusals --- */

Test(mqtt_packet, refused_connect_tells_the_version_when_it_is_known)
{
    static const struct {
        const char *bytes;
        uint8_t version;
    } rows[] = {
        {"10 (<'MQTT'> 05 03 003c () <'id'>)", 5},
        {"10 (<'MQTT'> 04 03 003c <'id'>)", 4},
        {"10 (<'MQIsdp'> 03 02 003c <>)", 3},
        {"10 (<'MQTT'> 09 02 003c () <'id'>)", 0},
        {"10 (<'MQTTX'> 05 02 003c () <'id'>)", 0},
        {"10 (<'MQTT'>)", 0},
        {"11 00", 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct slice bytes = notation_bytes(rows[i].bytes);
        struct mqtt_packet p;
        memset(&p, 0xaa, sizeof p);
        size_t used;
        uint8_t reason;
        struct mqtt_decode_rules rules = rules_of(0, CLIENT);
        cr_expect_eq(mqtt_decode(bytes, &rules, &p, &used, &reason), ST_INVALID);
        cr_expect(p.type == MQTT_CONNECT && p.connect.version == rows[i].version, "%s", rows[i].bytes);
        notation_free(bytes);
    }
}

Test(mqtt_packet, too_large_is_said_when_the_fixed_header_is_there)
{
    struct mqtt_decode_rules rules = {MQTT_V5, 12, false};
    struct mqtt_packet p;
    size_t used;
    uint8_t reason = 0;
    struct slice fits = notation_bytes("30 (<'t'> () 'sixchr')");
    cr_expect_eq(fits.len, 12);
    cr_expect_eq(mqtt_decode(fits, &rules, &p, &used, &reason), ST_OK);
    struct slice header = notation_bytes("30 0b");
    cr_expect_eq(mqtt_decode(header, &rules, &p, &used, &reason), ST_TOO_LARGE);
    cr_expect_eq(reason, MQTT_RC_PACKET_TOO_LARGE);
    notation_free(fits);
    notation_free(header);
}

static struct buf many_topics(unsigned count)
{
    struct buf topics;
    buf_init(&topics, PACKET_BYTES_MAX);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(buf_put(&topics, slice_of("\0\1a\1", 4)), ST_OK);
    return topics;
}

Test(mqtt_packet, filters_have_a_maximum)
{
    for (unsigned over = 0; over < 2; over++) {
        struct buf topics = many_topics(MQTT_SUBSCRIBE_TOPICS_MAX + over);
        struct mqtt_packet p = {.type = MQTT_SUBSCRIBE};
        p.subscribe = (struct mqtt_subscribe){1, {0}, MQTT_SUBSCRIBE_TOPICS_MAX + over, buf_slice(&topics)};
        struct buf out;
        buf_init(&out, PACKET_BYTES_MAX);
        cr_assert_eq(mqtt_encode(&p, MQTT_V5, &out), ST_OK);
        size_t used;
        uint8_t reason;
        struct mqtt_decode_rules rules = rules_of(MQTT_V5, CLIENT);
        cr_expect_eq(mqtt_decode(buf_slice(&out), &rules, &p, &used, &reason), over ? ST_TOO_LARGE : ST_OK);
        buf_deinit(&out);
        buf_deinit(&topics);
    }
}

/* --- encoding --- */

Test(mqtt_packet, each_type_round_trips_in_each_version)
{
    static const struct {
        enum side side;
        const char *v31, *v311, *v5;
    } rows[] = {
        {CLIENT, "10 (<'MQIsdp'> 03 f6 0001 <'i'> <'w'> <'p'> <'u'> <'s'>)",
         "10 (<'MQTT'> 04 f6 0001 <'i'> <'w'> <'p'> <'u'> <'s'>)",
         "10 (<'MQTT'> 05 f6 0001 () <'i'> () <'w'> <'p'> <'u'> <'s'>)"},
        {CLIENT, "10 (<'MQIsdp'> 03 00 0001 <'i'>)", "10 (<'MQTT'> 04 00 0001 <'i'>)",
         "10 (<'MQTT'> 05 00 0001 () <'i'>)"},
        {SERVER, "20 (00 05)", "20 (01 00)", "20 (01 00 ())"},
        {SERVER, "20 (00 01)", "20 (00 02)", "20 (00 87 (1f <'r'>))"},
        {CLIENT, "35 (<'t'> 0007 'x')", "3d (<'t'> 0007 'x')", "3d (<'t'> 0007 () 'x')"},
        {SERVER, "30 (<'t'>)", "31 (<'t'>)", "31 (<'t'> ())"},
        {CLIENT, "40 (0001)", "40 (0001)", "40 (0001)"},
        {SERVER, "50 (ffff)", "50 (ffff)", "50 (ffff 10)"},
        {CLIENT, "62 (0100)", "62 (0100)", "62 (0100 92 (1f <'r'>))"},
        {SERVER, "70 (0001)", "70 (0001)", "70 (0001 00 (26 <'a'> <'b'>))"},
        {CLIENT, "82 (0001 <'a'> 00 <'b'> 02)", "82 (0001 <'a'> 00 <'b'> 02)", "82 (0001 () <'a'> 1e)"},
        {SERVER, "90 (0001 00 02)", "90 (0001 80 01)", "90 (0001 () 8f 01)"},
        {CLIENT, "a2 (0001 <'a'> <'b'>)", "a2 (0001 <'a'> <'b'>)", "a2 (0001 () <'a'> <'b'>)"},
        {SERVER, "b0 (0001)", "b0 (0001)", "b0 (0001 () 11 00)"},
        {CLIENT, "c0 00", "c0 00", "c0 00"},
        {SERVER, "d0 00", "d0 00", "d0 00"},
        {CLIENT, "e0 00", "e0 00", "e0 (04)"},
        {CLIENT, NULL, NULL, "e0 (00 (11 00000001))"},
        {SERVER, NULL, NULL, "e0 (9c (1c <'s'>))"},
        {CLIENT, NULL, NULL, "f0 (19 (15 <'m'> 16 <'d'>))"},
        {SERVER, NULL, NULL, "f0 00"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *texts[] = {rows[i].v31, rows[i].v311, rows[i].v5};
        for (uint8_t k = 0; k < 3; k++) {
            if (texts[k] == NULL)
                continue;
            struct slice bytes;
            (void)check_round_trip(texts[k], (uint8_t)(MQTT_V31 + k), rows[i].side, &bytes);
            notation_free(bytes);
        }
    }
}

/* One packet of 5.0, written in an older version: no properties, and the codes that the version has. */
static void check_down(const char *from, enum side side, uint8_t version, const char *want)
{
    struct slice bytes = notation_bytes(from), expected = notation_bytes(want);
    struct mqtt_packet p = decoded(bytes, MQTT_V5, side);
    struct buf out;
    buf_init(&out, PACKET_BYTES_MAX);
    cr_assert_eq(mqtt_encode(&p, version, &out), ST_OK);
    cr_expect(slice_equal(buf_slice(&out), expected), "%s in version %u", from, version);
    buf_deinit(&out);
    notation_free(bytes);
    notation_free(expected);
}

Test(mqtt_packet, older_versions_get_what_they_know)
{
    check_down("33 (<'t'> 0001 (02 00000001 26 <'a'> <'b'>) 'x')", CLIENT, MQTT_V311, "33 (<'t'> 0001 'x')");
    check_down("40 (0001 80 (1f <'r'>))", CLIENT, MQTT_V311, "40 (0001)");
    check_down("90 (0001 () 01 87 8f)", SERVER, MQTT_V311, "90 (0001 01 80 80)");
    check_down("b0 (0001 () 11)", SERVER, MQTT_V31, "b0 (0001)");
    check_down("e0 (04)", CLIENT, MQTT_V311, "e0 00");
    check_down("20 (01 00 (21 0001))", SERVER, MQTT_V311, "20 (01 00)");
    check_down("20 (01 00 (21 0001))", SERVER, MQTT_V31, "20 (00 00)");
    static const uint8_t codes[][2] = {{0x84, 1}, {0x85, 2}, {0x86, 4}, {0x87, 5}, {0x88, 3}, {0x89, 3},
                                       {0x8a, 5}, {0x8c, 4}, {0x80, 3}, {0x97, 3}, {0x9c, 3}};
    for (size_t i = 0; i < COUNT(codes); i++) {
        char from[64], want[64];
        snprintf(from, sizeof from, "20 (00 %02x ())", codes[i][0]);
        snprintf(want, sizeof want, "20 (00 %02x)", codes[i][1]);
        check_down(from, SERVER, MQTT_V311, want);
    }
}

Test(mqtt_packet, full_buffer_is_left_alone)
{
    struct mqtt_packet p = {.type = MQTT_PUBLISH};
    p.publish.topic = slice_cstr("topic");
    p.publish.payload = slice_cstr("0123456789");
    struct buf out;
    buf_init(&out, 2 * (2 + 2 + 5 + 1 + 10) - 1);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_OK);
    size_t len = out.len;
    cr_expect_eq(len, 20);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_FULL);
    cr_expect_eq(out.len, len);
    cr_expect_eq(mqtt_encode(&p, MQTT_V311, &out), ST_OK); /* one byte less */
    cr_expect_eq(out.len, out.limit);
    buf_deinit(&out);
}

Test(mqtt_packet, sizes_over_the_protocol_are_refused)
{
    static uint8_t long_text[65536];
    memset(long_text, 'a', sizeof long_text);
    struct buf out;
    buf_init(&out, SIZE_MAX / 2);
    struct mqtt_packet p = {.type = MQTT_PUBLISH};
    p.publish.topic = slice_of(long_text, 65536);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_TOO_LARGE);
    p.publish.topic = slice_of(long_text, 65535);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_OK);
    buf_clear(&out);
    p.publish.props.present = MQTT_HAS_CONTENT_TYPE;
    p.publish.props.content_type = slice_of(long_text, 65536);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_TOO_LARGE);
    p.publish.props.present = 0;
    /* Only counted, never read: the payload need not be there. */
    p.publish.topic = slice_cstr("t");
    p.publish.payload = slice_of(long_text, MQTT_REMAINING_BYTES_MAX - 3 - 1 + 1);
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_TOO_LARGE);
    out.limit = 64; /* one byte less is only too much for this buffer */
    p.publish.payload.len -= 1;
    cr_expect_eq(mqtt_encode(&p, MQTT_V5, &out), ST_FULL);
    cr_expect_eq(out.len, 0);
    buf_deinit(&out);
}

Test(mqtt_packet, variable_byte_integers_take_the_bytes_of_table_1_1)
{
    static const struct {
        uint32_t value;
        const char *bytes;
    } rows[] = {
        {0, "00"},         {127, "7f"},         {128, "8001"},         {16383, "ff7f"},
        {16384, "808001"}, {2097151, "ffff7f"}, {2097152, "80808001"}, {268435455, "ffffff7f"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t out[4];
        struct slice want = notation_bytes(rows[i].bytes);
        size_t n = mqtt_varint_write(rows[i].value, out);
        cr_expect(slice_equal(slice_of(out, n), want), "%u", rows[i].value);
        cr_expect_eq(mqtt_varint_bytes(rows[i].value), n);
        notation_free(want);
    }
}
