/* PUBLISH, 3.3:
 *
 *   flags (1) | remaining length | topic | packet identifier (QoS 1, 2) | 5.0: properties | payload
 *
 * Properties are written twice, the first time into nothing: their length stands in front of them. */
#include "gateway/mqtt/frame.h"

#include "gateway/mqtt/packet.h"

#include <string.h>

/* Counts what it would write while `at` is NULL. */
struct pen {
    uint8_t *at;
    size_t bytes;
};

static void put(struct pen *p, const void *bytes, size_t len)
{
    if (p->at && len > 0) {
        memcpy(p->at, bytes, len);
        p->at += len;
    }
    p->bytes += len;
}

static void put_u8(struct pen *p, uint8_t value)
{
    put(p, &value, 1);
}

static void put_u16(struct pen *p, uint16_t value)
{
    put(p, (const uint8_t[]){(uint8_t)(value >> 8), (uint8_t)value}, 2);
}

static void put_varint(struct pen *p, uint32_t value)
{
    uint8_t bytes[4];
    put(p, bytes, mqtt_varint_write(value, bytes));
}

static void put_text(struct pen *p, struct slice text)
{
    put_u16(p, (uint16_t)text.len);
    put(p, text.data, text.len);
}

/* What is left of the message's time, in seconds, rounded up: 3.3.2.3.3. Other doors take longer times. */
static uint32_t seconds_left(const struct msg *m, uint64_t now_ms)
{
    uint64_t left = m->expires_ms > now_ms ? (m->expires_ms - now_ms + 999) / 1000 : 0;
    return left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

/* {u16 name length, name, value}, little endian -> two strings, big endian */
static void put_user_property(struct pen *p, struct slice value)
{
    size_t name_len = (size_t)value.data[0] | (size_t)value.data[1] << 8;
    put_u8(p, 0x26);
    put_text(p, slice_of(value.data + 2, name_len));
    put_text(p, slice_from(value, 2 + name_len));
}

static void put_props(struct pen *p, const struct msg *m, const struct frame_shape *shape, uint64_t now_ms)
{
    static const uint8_t ids[] = {
        [PROP_CONTENT_TYPE] = 0x03, [PROP_RESPONSE_TOPIC] = 0x08, [PROP_CORRELATION] = 0x09};
    size_t place = 0;
    enum msg_prop type;
    struct slice value;
    if (m->flags & MSG_PFI_UTF8)
        put(p, (const uint8_t[]){0x01, 0x01}, 2);
    if (m->expires_ms) {
        uint32_t left = seconds_left(m, now_ms);
        put_u8(p, 0x02);
        put_u16(p, (uint16_t)(left >> 16));
        put_u16(p, (uint16_t)left);
    }
    if (shape->subscription_id) {
        put_u8(p, 0x0b);
        put_varint(p, shape->subscription_id);
    }
    if (shape->alias) {
        put_u8(p, 0x23);
        put_u16(p, shape->alias);
    }
    while (props_next(msg_props(m), &place, &type, &value)) {
        if (type == PROP_USER) {
            put_user_property(p, value);
        } else if ((size_t)type < sizeof ids && ids[type]) {
            put_u8(p, ids[type]);
            put_text(p, value);
        }
    }
}

bool frame_plan(const struct msg *m, const struct frame_shape *shape, uint64_t now_ms, struct frame_plan *out)
{
    struct pen count = {0};
    size_t remaining = 2u + (shape->topic_known ? 0u : m->topic_len) + (shape->qos > 0 ? 2u : 0u);
    if (shape->version == MQTT_V5) {
        put_props(&count, m, shape, now_ms);
        if (count.bytes > MQTT_REMAINING_BYTES_MAX)
            return false;
        remaining += mqtt_varint_bytes((uint32_t)count.bytes) + count.bytes;
    }
    remaining += m->payload_len;
    if (remaining > MQTT_REMAINING_BYTES_MAX)
        return false;
    *out = (struct frame_plan){.shape = *shape,
                               .now_ms = now_ms,
                               .props_bytes = (uint32_t)count.bytes,
                               .remaining_bytes = (uint32_t)remaining,
                               .bytes = 1 + mqtt_varint_bytes((uint32_t)remaining) + remaining};
    return true;
}

static uint8_t first_byte(const struct frame_shape *s)
{
    return (uint8_t)(0x30 | s->dup << 3 | s->qos << 1 | s->retain);
}

void frame_write(const struct msg *m, const struct frame_plan *plan, uint8_t *out)
{
    const struct frame_shape *shape = &plan->shape;
    struct pen p = {.at = out};
    put_u8(&p, first_byte(shape));
    put_varint(&p, plan->remaining_bytes);
    put_text(&p, shape->topic_known ? (struct slice){0} : msg_topic(m));
    if (shape->qos > 0)
        put_u16(&p, shape->packet_id);
    if (shape->version == MQTT_V5) {
        put_varint(&p, plan->props_bytes);
        put_props(&p, m, shape, plan->now_ms);
    }
    put(&p, m->bytes + m->topic_len + m->key_len + m->props_len, m->payload_len);
}

void frame_stamp(uint8_t *frame, const struct msg *m, const struct frame_shape *shape)
{
    size_t header = 1;
    while (frame[header] & 0x80)
        header++;
    frame[0] = first_byte(shape);
    if (shape->qos > 0) {
        uint8_t *place = frame + header + 1 + 2 + m->topic_len;
        place[0] = (uint8_t)(shape->packet_id >> 8);
        place[1] = (uint8_t)shape->packet_id;
    }
}
