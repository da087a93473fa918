/* part: mqtt */
/* The MQTT decoder on any bytes, in all versions and both directions. Claimed of whatever it takes:
 *   - it encodes to a packet that decodes to the same (packet_equal.h), and is then a fixed point;
 *   - no byte is gained or lost, except in packets whose end may be left out;
 *   - where there is only one way to write it, the bytes are the same.
 * Of what it refuses: the reason is one that our answer, CONNACK or DISCONNECT, may carry. Of what it waits
 * for: more bytes never change an answer already given. The input is copied to memory of just its size, so
 * that reading beyond it is seen. */
#include <assert.h>
#include <stdlib.h>

#include "gateway/mqtt/packet_internal.h"
#include "unit/mqtt/packet_equal.h"

enum { PACKET_BYTES_MAX = 1 << 16, PREFIXES_ALL_BELOW = 64 };

struct answer {
    enum status status;
    uint8_t reason;
    size_t used;
    struct mqtt_packet packet;
};

static struct answer decode(struct slice input, const struct mqtt_decode_rules *rules)
{
    struct answer a;
    a.status = mqtt_decode(input, rules, &a.packet, &a.used, &a.reason);
    return a;
}

/* The same over an exact copy, of which nothing is kept. */
static struct answer decode_copy(struct slice input, const struct mqtt_decode_rules *rules)
{
    uint8_t *copy = malloc(input.len > 0 ? input.len : 1);
    assert(copy != NULL);
    memcpy(copy, input.data, input.len);
    struct answer a = decode(slice_of(copy, input.len), rules);
    free(copy);
    return a;
}

static uint32_t presence(const struct mqtt_packet *p, uint32_t *will)
{
    *will = 0;
    switch (p->type) {
    case MQTT_CONNECT:
        *will = p->connect.will_props.present;
        return p->connect.props.present;
    case MQTT_CONNACK:
        return p->connack.props.present;
    case MQTT_PUBLISH:
        return p->publish.props.present;
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
        return p->subscribe.props.present;
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
        return p->suback.props.present;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return p->ack.props.present;
    case MQTT_DISCONNECT:
    case MQTT_AUTH:
        return p->reasoned.props.present;
    case MQTT_PINGREQ:
    case MQTT_PINGRESP:
        break;
    }
    return 0;
}

/* Properties of two kinds may stand in any order. */
static bool one_way_to_write(const struct mqtt_packet *p, uint8_t version)
{
    uint32_t will, present = presence(p, &will);
    return version > MQTT_V31 && __builtin_popcount(present) <= 1 && __builtin_popcount(will) <= 1;
}

static bool end_may_be_left_out(enum mqtt_type type)
{
    return (type >= MQTT_PUBACK && type <= MQTT_PUBCOMP) || type >= MQTT_DISCONNECT;
}

static void check_taken(struct slice input, const struct mqtt_decode_rules *rules, const struct answer *a)
{
    const struct mqtt_packet *p = &a->packet;
    uint8_t version = p->type == MQTT_CONNECT ? p->connect.version : rules->version;
    struct buf first, second;
    buf_init(&first, PACKET_BYTES_MAX);
    buf_init(&second, PACKET_BYTES_MAX);
    assert(a->used <= input.len && a->reason == MQTT_RC_SUCCESS);
    assert(mqtt_encode(p, version, &first) == ST_OK);
    assert(first.len == a->used || (first.len < a->used && end_may_be_left_out(p->type)));
    if (first.len == a->used && one_way_to_write(p, version))
        assert(memcmp(first.data, input.data, a->used) == 0);
    struct answer again = decode(buf_slice(&first), rules);
    assert(again.status == ST_OK && again.used == first.len && packet_equal(p, &again.packet));
    assert(mqtt_encode(&again.packet, version, &second) == ST_OK);
    assert(slice_equal(buf_slice(&first), buf_slice(&second)));
    buf_deinit(&first);
    buf_deinit(&second);
}

static void check_refused(struct slice input, const struct answer *a)
{
    uint8_t answer_type = input.data[0] >> 4 == MQTT_CONNECT ? MQTT_CONNACK : MQTT_DISCONNECT;
    assert(a->status == ST_INVALID || a->status == ST_TOO_LARGE);
    assert((a->status == ST_TOO_LARGE) == (a->reason == MQTT_RC_PACKET_TOO_LARGE));
    assert(a->reason >= 0x80 && mqtt_reason_allowed(answer_type, true, a->reason));
}

/* `part` is a true prefix of what `whole` is the answer to. */
static void check_prefix(struct slice part, const struct mqtt_decode_rules *rules, const struct answer *whole)
{
    struct answer a = decode_copy(part, rules);
    if (a.status == ST_AGAIN) {
        assert(a.used == 0 || a.used > part.len);
        assert(whole->status == ST_TOO_LARGE || a.used == 0 || whole->used == 0 || whole->used == a.used);
    } else {
        assert(a.status == whole->status && a.reason == whole->reason && a.used == whole->used);
    }
}

static void check(struct slice input, const struct mqtt_decode_rules *rules)
{
    struct answer a = decode(input, rules);
    if (a.status == ST_OK)
        check_taken(input, rules, &a);
    else if (a.status != ST_AGAIN)
        check_refused(input, &a);
    else
        assert(a.used == 0 ? input.len < 5 : a.used > input.len && a.used <= PACKET_BYTES_MAX);
    size_t step = input.len < PREFIXES_ALL_BELOW ? 1 : input.len / 16;
    for (size_t len = 0; len < input.len; len += step)
        check_prefix(slice_of(input.data, len), rules, &a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name; it has no header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    for (uint8_t version = MQTT_V31; version <= MQTT_V5; version++) {
        for (unsigned from_server = 0; from_server < 2; from_server++) {
            struct mqtt_decode_rules rules = {version, PACKET_BYTES_MAX, from_server != 0};
            check(slice_of(copy, size), &rules);
        }
    }
    free(copy);
    return 0;
}
