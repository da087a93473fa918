/* Private to the MQTT codec (packet*.c): the reader, and the tables that both directions share.
 *
 * Inside the codec an error is just its reason code: a function that returns `uint8_t` returns
 * MQTT_RC_SUCCESS (0) or the code to tell the peer. */
#ifndef TG_GATEWAY_MQTT_PACKET_INTERNAL_H
#define TG_GATEWAY_MQTT_PACKET_INTERNAL_H

#include "core/utf8.h"
#include "gateway/mqtt/packet.h"

enum {
    MQTT_STRING_BYTES_MAX = 65535,
    MQTT_WILL = 0, /* owner of the will properties of a CONNECT; no packet has type 0 */
    MQTT_TYPE_COUNT = 16,
    MQTT_NEVER = 255 /* a version that no connection has */
};

struct mqtt_type_rule {
    uint8_t flags; /* low half of the first byte (2.1.3); PUBLISH has its own meaning for it */
    uint8_t checked, checked_31; /* the bits of it that must be so; 3.1 calls most of them "not used" */
    uint8_t from_client, from_server; /* the first version that has this type in this direction */
};
extern const struct mqtt_type_rule mqtt_type_rules[MQTT_TYPE_COUNT];

/* 5.0, 2.4 and the "sent by" columns of the packets' own tables. */
bool mqtt_reason_allowed(uint8_t type, bool from_server, uint8_t reason);

/* 4.7.1: a topic name holds no wildcard, 4.7.3: and is not empty. */
bool mqtt_topic_name_valid(struct slice topic);

/* What is left of a packet, or of a part of it. A take that fails leaves the reader anywhere: the packet
 * is refused then. */
struct reader {
    const uint8_t *at, *end;
};

static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

static inline bool reader_take_u8(struct reader *r, uint8_t *out)
{
    if (reader_left(r) < 1)
        return false;
    *out = *r->at++;
    return true;
}

static inline bool reader_take_u16(struct reader *r, uint16_t *out)
{
    if (reader_left(r) < 2)
        return false;
    *out = (uint16_t)(r->at[0] << 8 | r->at[1]);
    r->at += 2;
    return true;
}

static inline bool reader_take_u32(struct reader *r, uint32_t *out)
{
    if (reader_left(r) < 4)
        return false;
    *out = (uint32_t)r->at[0] << 24 | (uint32_t)r->at[1] << 16 | (uint32_t)r->at[2] << 8 | r->at[3];
    r->at += 4;
    return true;
}

/* 1.5.6 */
static inline bool reader_take_binary(struct reader *r, struct slice *out)
{
    uint16_t bytes;
    if (!reader_take_u16(r, &bytes) || bytes > reader_left(r))
        return false;
    *out = slice_of(r->at, bytes);
    r->at += bytes;
    return true;
}

/* 1.5.4 */
static inline bool reader_take_text(struct reader *r, struct slice *out)
{
    return reader_take_binary(r, out) && utf8_valid_mqtt(*out);
}

/* 1.5.5: ST_AGAIN at the end of the bytes; ST_INVALID when longer than 4 bytes or than it needs to be. */
static inline enum status reader_take_varint(struct reader *r, uint32_t *out)
{
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        uint8_t byte;
        if (!reader_take_u8(r, &byte))
            return ST_AGAIN;
        value |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return byte == 0 && shift > 0 ? ST_INVALID : ST_OK;
        }
    }
    return ST_INVALID;
}

/* Emits bytes, or only counts them while `at` is NULL: the layout of each packet is then written down
 * once and serves for its length too. A packet holds at most two lists of properties; the counting run
 * notes their lengths for the run that writes. */
struct writer {
    uint8_t *at;
    size_t bytes;
    bool too_large; /* a string over 65,535 bytes was met */
    uint8_t list_count; /* of property lists, so far in this run */
    uint32_t list_bytes[2];
};

static inline void writer_put_u8(struct writer *w, uint8_t value)
{
    if (w->at != NULL)
        *w->at++ = value;
    w->bytes += 1;
}

static inline void writer_put_u16(struct writer *w, uint16_t value)
{
    writer_put_u8(w, (uint8_t)(value >> 8));
    writer_put_u8(w, (uint8_t)value);
}

static inline void writer_put_u32(struct writer *w, uint32_t value)
{
    writer_put_u16(w, (uint16_t)(value >> 16));
    writer_put_u16(w, (uint16_t)value);
}

static inline void writer_put_varint(struct writer *w, uint32_t value)
{
    if (w->at != NULL)
        w->at += mqtt_varint_write(value, w->at);
    w->bytes += mqtt_varint_bytes(value);
}

static inline void writer_put_bytes(struct writer *w, struct slice bytes)
{
    if (w->at != NULL && bytes.len > 0) {
        memcpy(w->at, bytes.data, bytes.len);
        w->at += bytes.len;
    }
    w->bytes += bytes.len;
}

/* Strings and binary data: 2 bytes of length, then the bytes. */
static inline void writer_put_string(struct writer *w, struct slice bytes)
{
    w->too_large |= bytes.len > MQTT_STRING_BYTES_MAX;
    writer_put_u16(w, (uint16_t)bytes.len);
    writer_put_bytes(w, bytes);
}

/* Takes the property length and the properties of `owner`, an enum mqtt_type or MQTT_WILL. */
uint8_t mqtt_props_decode(struct reader *r, uint8_t owner, struct mqtt_props *out);
/* Puts the same. Asserts that `owner` may have them and that each value is in its range. */
void mqtt_props_encode(struct writer *w, uint8_t owner, const struct mqtt_props *props);
/* Nothing would follow the property length. */
bool mqtt_props_empty(const struct mqtt_props *props);

#endif
