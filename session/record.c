#include "session/record.h"

#include "routing/topic.h"

#include <assert.h>

enum { VERSION = 1, HEAD_BYTES = 1 + 4 + 2, FILTER_HEAD_BYTES = 1 + 2 };
enum { KNOWN_FLAGS = RECORD_ACK | RECORD_RETAINED_OPEN };

static uint8_t *put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *to++ = (uint8_t)(value >> 8 * i);
    return to;
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

static enum status room(const struct buf *out, uint8_t *to, size_t bytes)
{
    if (to)
        return ST_OK;
    return out->len + bytes > out->limit ? ST_FULL : ST_NO_MEMORY;
}

enum status record_begin(struct buf *out, uint32_t epoch, unsigned lanes)
{
    uint8_t *to = buf_reserve(out, HEAD_BYTES);
    enum status st = room(out, to, HEAD_BYTES);
    if (st != ST_OK)
        return st;
    to = put_le(to, VERSION, 1);
    to = put_le(to, epoch, 4);
    put_le(to, lanes, 2);
    buf_advance(out, HEAD_BYTES);
    return ST_OK;
}

enum status record_put(struct buf *out, const struct record_filter *f)
{
    unsigned lanes = f->flags & RECORD_ACK ? f->lane_count : 0;
    size_t bytes = FILTER_HEAD_BYTES + f->filter.len + 8u * lanes;
    assert(f->filter.len <= UINT16_MAX && lanes <= PLACE_LANES_MAX);
    uint8_t *to = buf_reserve(out, bytes);
    enum status st = room(out, to, bytes);
    if (st != ST_OK)
        return st;
    to = put_le(to, f->flags, 1);
    to = put_le(to, f->filter.len, 2);
    memcpy(to, f->filter.data, f->filter.len);
    to += f->filter.len;
    for (unsigned i = 0; i < lanes; i++)
        to = put_le(to, f->next[i], 8);
    buf_advance(out, bytes);
    return ST_OK;
}

enum status record_open(struct slice bytes, size_t *place, uint32_t *epoch, unsigned *lanes)
{
    if (bytes.len < HEAD_BYTES || bytes.data[0] != VERSION)
        return ST_INVALID;
    uint64_t count = get_le(bytes.data + 5, 2);
    if (count == 0 || count > PLACE_LANES_MAX)
        return ST_INVALID;
    *epoch = (uint32_t)get_le(bytes.data + 1, 4);
    *lanes = (unsigned)count;
    *place = HEAD_BYTES;
    return ST_OK;
}

enum status record_next(struct slice bytes, size_t *place, unsigned lanes, struct record_filter *out)
{
    size_t left = bytes.len - *place;
    const uint8_t *at = bytes.data + *place;
    if (left == 0)
        return ST_NOT_FOUND;
    if (left < FILTER_HEAD_BYTES)
        return ST_INVALID;
    size_t len = get_le(at + 1, 2);
    if (len == 0 || (at[0] & ~KNOWN_FLAGS) != 0 || left < FILTER_HEAD_BYTES + len)
        return ST_INVALID;
    struct slice filter = slice_of(at + FILTER_HEAD_BYTES, len);
    unsigned lane, count = at[0] & RECORD_ACK ? topic_filter_partition(filter, lanes, &lane) ? 1 : lanes : 0;
    if (left < FILTER_HEAD_BYTES + len + 8u * count)
        return ST_INVALID;
    out->flags = at[0];
    out->filter = filter;
    out->lane_count = (uint16_t)count;
    for (unsigned i = 0; i < count; i++)
        out->next[i] = get_le(at + FILTER_HEAD_BYTES + len + 8u * i, 8);
    *place += FILTER_HEAD_BYTES + len + 8u * count;
    return ST_OK;
}
