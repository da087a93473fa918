/* part: mqtt */
/* Properties of MQTT 5.0, of any packet's owner. Claimed of what is taken:
 *   - what is present may stand in that packet, once, or as often as it likes where it may be repeated;
 *   - encoded it is no longer than it was, decodes to the same, and is then a fixed point;
 *   - user properties are walked in order, and none is gained or lost.
 * Of what is refused: by 0x81, 0x82 or 0x94. Nothing is read beyond the end (an exact copy). */
#include "gateway/mqtt/packet_internal.h"
#include "unit/mqtt/packet_equal.h"

#include <assert.h>
#include <stdlib.h>

static size_t user_properties(struct slice raw)
{
    struct slice name, value;
    size_t place = 0, count = 0;
    while (mqtt_user_property_next(raw, &place, &name, &value)) {
        assert(utf8_valid_mqtt(name) && utf8_valid_mqtt(value));
        count++;
    }
    return count;
}

static struct slice encode(uint8_t owner, const struct mqtt_props *props, size_t room, uint8_t *out)
{
    struct writer w = {0};
    mqtt_props_encode(&w, owner, props);
    assert(!w.too_large && w.bytes <= room);
    size_t bytes = w.bytes;
    w.at = out;
    w.bytes = 0;
    w.list_count = 0;
    mqtt_props_encode(&w, owner, props);
    assert(w.bytes == bytes);
    return slice_of(out, bytes);
}

static void check_taken(uint8_t owner, const struct mqtt_props *props, size_t used)
{
    uint8_t *first = malloc(used), *second = malloc(used);
    struct mqtt_props again;
    assert(first && second);
    struct slice bytes = encode(owner, props, used, first);
    struct reader r = {bytes.data, bytes.data + bytes.len};
    assert(mqtt_props_decode(&r, owner, &again) == MQTT_RC_SUCCESS && r.at == r.end);
    assert(props_equal(props, &again));
    assert(user_properties(props->raw) == user_properties(again.raw));
    assert((user_properties(props->raw) > 0) == ((props->present & MQTT_HAS_USER_PROPERTY) != 0));
    assert(slice_equal(bytes, encode(owner, &again, used, second)));
    assert(mqtt_props_empty(props) == (bytes.len == 1));
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name; it has no header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mqtt_props props;
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert(copy);
    if (size > 0)
        memcpy(copy, data, size);
    for (uint8_t owner = MQTT_WILL; owner < MQTT_TYPE_COUNT; owner++) {
        struct reader r = {copy, copy + size};
        uint8_t reason = mqtt_props_decode(&r, owner, &props);
        if (reason == MQTT_RC_SUCCESS)
            check_taken(owner, &props, (size_t)(r.at - copy));
        else
            assert(reason == MQTT_RC_MALFORMED_PACKET || reason == MQTT_RC_PROTOCOL_ERROR ||
                   reason == MQTT_RC_TOPIC_ALIAS_INVALID);
    }
    free(copy);
    return 0;
}
