/* One record = one message. Topic, key, properties and payload lie in a struct msg in the order in
 * which they are stored, so the parts are one copy. Everything that decides what a reader sees is under
 * the CRC, the padding too: a flipped bit anywhere makes the record invalid, never different. */
#include "core/store/record.h"

#include "core/crc32c.h"
#include "core/hash.h"

enum { CRC_BYTES = sizeof(uint32_t), HEADER_BYTES = sizeof(struct record_header) };

uint32_t record_seed(uint64_t segment_epoch, uint64_t frame_base_offset)
{
    uint64_t place[2] = {segment_epoch, frame_base_offset};
    return crc32c(0, place, sizeof place);
}

static uint64_t msg_parts_bytes(const struct msg *m)
{
    return (uint64_t)m->topic_len + m->key_len + m->props_len + m->payload_len;
}

static uint8_t flags_of(const struct msg *m, bool carried)
{
    return (uint8_t)((m->expires_ms ? RECORD_EXPIRES : 0) | (carried ? RECORD_CARRIED : 0));
}

static uint64_t msg_record_bytes(const struct msg *m, uint8_t flags)
{
    return HEADER_BYTES + record_optional_bytes(flags) + msg_parts_bytes(m);
}

uint64_t record_stored_bytes(const struct msg *m)
{
    return align8(msg_record_bytes(m, flags_of(m, false)));
}

uint64_t record_carried_bytes(const struct msg *m)
{
    return align8(msg_record_bytes(m, flags_of(m, true)));
}

static void seal(uint8_t *out, uint32_t seed, size_t stored)
{
    uint32_t crc = crc32c(seed, out + CRC_BYTES, stored - CRC_BYTES);
    memcpy(out, &crc, sizeof crc);
}

static uint8_t bits_of(const struct msg *m)
{
    assert(m->qos <= 2 && m->content <= CONTENT_JSON);
    unsigned bits = m->qos | (unsigned)m->content << RECORD_CONTENT_SHIFT;
    bits |= m->flags & MSG_RETAIN ? RECORD_RETAIN : 0u;
    bits |= m->flags & MSG_PFI_UTF8 ? RECORD_PFI_UTF8 : 0u;
    bits |= m->flags & MSG_TYPE_GIVEN ? RECORD_TYPE_GIVEN : 0u;
    return (uint8_t)bits;
}

static void encode(const struct msg *m, uint8_t flags, uint32_t delta, uint64_t time_ms, uint32_t seed,
                   uint8_t *out)
{
    uint64_t exact = msg_record_bytes(m, flags), stored = align8(exact);
    assert(exact <= RECORD_BYTES_MAX && props_valid(msg_props(m)));
    struct record_header h = {
        .record_bytes = (uint32_t)exact,
        .offset_delta = delta,
        .topic_id = hash64_stable(msg_topic(m)),
        .time_ms = time_ms,
        .topic_bytes = m->topic_len,
        .key_bytes = m->key_len,
        .props_bytes = m->props_len,
        .bits = bits_of(m),
        .flags = flags,
    };
    /* The padding first: the parts then overwrite what is not padding. */
    memset(out + stored - 8, 0, 8);
    memcpy(out, &h, sizeof h);
    uint8_t *p = out + sizeof h;
    if (flags & RECORD_EXPIRES) {
        memcpy(p, &m->expires_ms, sizeof m->expires_ms);
        p += sizeof m->expires_ms;
    }
    if (flags & RECORD_CARRIED) {
        memcpy(p, &m->offset, sizeof m->offset);
        p += sizeof m->offset;
    }
    memcpy(p, m->bytes, msg_parts_bytes(m));
    seal(out, seed, stored);
}

void record_encode(const struct msg *m, uint32_t delta, uint32_t seed, uint8_t *out)
{
    encode(m, flags_of(m, false), delta, m->ts_ms, seed, out);
}

void record_encode_unplaced(const struct msg *m, uint32_t seed, uint8_t *out)
{
    encode(m, flags_of(m, false), 0, 0, seed, out);
}

void record_encode_carried(const struct msg *m, uint32_t delta, uint32_t seed, uint8_t *out)
{
    assert(m->flags & MSG_RETAIN);
    encode(m, flags_of(m, true), delta, m->ts_ms, seed, out);
}

uint32_t record_internal_bytes(struct slice payload)
{
    return (uint32_t)align8(HEADER_BYTES + payload.len);
}

void record_encode_internal(struct slice payload, uint64_t time_ms, uint32_t delta, uint32_t seed,
                            uint8_t *out)
{
    uint32_t stored = record_internal_bytes(payload);
    struct record_header h = {
        .record_bytes = (uint32_t)(HEADER_BYTES + payload.len),
        .offset_delta = delta,
        .time_ms = time_ms,
        .flags = RECORD_INTERNAL,
    };
    memset(out + stored - 8, 0, 8);
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, payload.data, payload.len);
    seal(out, seed, stored);
}

uint32_t record_claimed_bytes(const uint8_t *bytes, uint64_t room)
{
    struct record_header h;
    memcpy(&h, bytes, sizeof h);
    uint64_t least =
        HEADER_BYTES + record_optional_bytes(h.flags) + (uint64_t)h.topic_bytes + h.key_bytes + h.props_bytes;
    uint64_t stored = align8(h.record_bytes);
    if (h.record_bytes < least || h.record_bytes > RECORD_BYTES_MAX || stored > room)
        return 0;
    return (uint32_t)stored;
}

enum status record_decode(struct slice bytes, uint32_t seed, uint64_t frame_base_offset, struct record *out)
{
    struct record_header h;
    if (bytes.len < sizeof h || record_claimed_bytes(bytes.data, bytes.len) != bytes.len)
        return ST_CORRUPT;
    memcpy(&h, bytes.data, sizeof h);
    if (crc32c(seed, bytes.data + CRC_BYTES, bytes.len - CRC_BYTES) != h.crc)
        return ST_CORRUPT;
    unsigned content = (h.bits >> RECORD_CONTENT_SHIFT) & 3u;
    if ((h.flags & ~RECORD_FLAGS_KNOWN) != 0 || (h.bits & RECORD_QOS_MASK) > 2 || content > CONTENT_JSON)
        return ST_CORRUPT;

    const uint8_t *p = bytes.data + sizeof h;
    uint64_t expires_ms = 0, offset = frame_base_offset + h.offset_delta, original = offset;
    bool internal = (h.flags & RECORD_INTERNAL) != 0, carried = (h.flags & RECORD_CARRIED) != 0;
    if (h.flags & RECORD_EXPIRES) {
        memcpy(&expires_ms, p, sizeof expires_ms);
        p += sizeof expires_ms;
    }
    if (carried) {
        memcpy(&original, p, sizeof original);
        p += sizeof original;
        if (original >= offset || !(h.bits & RECORD_RETAIN) || internal)
            return ST_CORRUPT;
    }
    const uint8_t *key = p + h.topic_bytes, *props = key + h.key_bytes, *payload = props + h.props_bytes;
    if (h.props_bytes > 0 && !props_valid(slice_of(props, h.props_bytes)))
        return ST_CORRUPT;
    /* Field by field: a struct that is made aside and copied costs more than all else here, because wide
     * loads right behind narrow stores wait for them. */
    out->offset = offset;
    out->original = original;
    out->topic_id = h.topic_id;
    out->time_ms = h.time_ms;
    out->expires_ms = expires_ms;
    out->stored_bytes = (uint32_t)bytes.len;
    out->bits = h.bits;
    out->internal = internal;
    out->carried = carried;
    out->topic = slice_of(p, h.topic_bytes);
    out->key = slice_of(key, h.key_bytes);
    out->props = slice_of(props, h.props_bytes);
    out->payload = slice_of(payload, (size_t)(bytes.data + h.record_bytes - payload));
    return ST_OK;
}

/* The complement of the topic_id of `$user/<id>`, which is a topic with a list of its own. */
bool record_inbox_list(struct slice topic, uint64_t *list_id)
{
    static const char prefix[] = "$user/";
    size_t end = sizeof prefix - 1;
    if (!slice_starts_with(topic, slice_of(prefix, end)))
        return false;
    while (end < topic.len && topic.data[end] != '/')
        end++;
    *list_id = ~hash64_stable(slice_of(topic.data, end));
    return end > sizeof prefix - 1;
}

enum status record_to_msg(const struct record *r, uint32_t partition, struct msg **out)
{
    struct msg *m;
    enum status st = msg_create(r->topic, r->key, r->props, r->payload, &m);
    if (st != ST_OK)
        return st;
    m->content = (r->bits >> RECORD_CONTENT_SHIFT) & 3u;
    m->qos = r->bits & RECORD_QOS_MASK;
    m->flags = (uint8_t)((r->bits & RECORD_RETAIN ? MSG_RETAIN : 0) |
                         (r->bits & RECORD_PFI_UTF8 ? MSG_PFI_UTF8 : 0) |
                         (r->bits & RECORD_TYPE_GIVEN ? MSG_TYPE_GIVEN : 0) | (r->internal ? MSG_NOTE : 0));
    m->partition = partition;
    m->offset = r->original;
    m->stored = r->offset;
    m->ts_ms = r->time_ms;
    m->expires_ms = r->expires_ms;
    *out = m;
    return ST_OK;
}
