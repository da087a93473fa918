#include "routing/share_record.h"

enum { VERSION = 1, HEAD_BYTES = 1 + 4 + 8, COUNT_BYTES = 4, VALUE_BYTES = 8 };

static void put_le(struct buf *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out->data[out->len++] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

static enum status room(struct buf *out, size_t bytes)
{
    if (buf_reserve(out, bytes))
        return ST_OK;
    return out->len + bytes > out->limit ? ST_FULL : ST_NO_MEMORY;
}

enum status share_record_begin(struct buf *out, uint32_t epoch, uint64_t next)
{
    enum status st = room(out, HEAD_BYTES);
    if (st != ST_OK)
        return st;
    put_le(out, VERSION, 1);
    put_le(out, epoch, 4);
    put_le(out, next, 8);
    return ST_OK;
}

enum status share_record_run(struct buf *out, uint32_t count)
{
    enum status st = room(out, COUNT_BYTES + (size_t)count * VALUE_BYTES);
    if (st == ST_OK)
        put_le(out, count, COUNT_BYTES);
    return st;
}

void share_record_value(struct buf *out, uint64_t value)
{
    put_le(out, value, VALUE_BYTES);
}

uint64_t share_record_at(struct slice run, size_t index)
{
    return get_le(run.data + index * VALUE_BYTES, VALUE_BYTES);
}

/* False: there is less than it says. */
static bool take_run(struct slice *rest, struct slice *run)
{
    if (rest->len < COUNT_BYTES)
        return false;
    uint64_t bytes = get_le(rest->data, COUNT_BYTES) * VALUE_BYTES;
    *rest = slice_from(*rest, COUNT_BYTES);
    if (bytes > rest->len)
        return false;
    *run = slice_of(rest->data, (size_t)bytes);
    *rest = slice_from(*rest, (size_t)bytes);
    return true;
}

enum status share_record_read(struct slice bytes, struct share_record *out)
{
    *out = (struct share_record){0};
    if (bytes.len < HEAD_BYTES || bytes.data[0] != VERSION)
        return ST_INVALID;
    out->epoch = (uint32_t)get_le(bytes.data + 1, 4);
    out->next = get_le(bytes.data + 5, 8);
    struct slice rest = slice_from(bytes, HEAD_BYTES);
    if (!take_run(&rest, &out->kept) || !take_run(&rest, &out->open) || !take_run(&rest, &out->passed) ||
        rest.len > 0)
        return ST_INVALID;
    for (size_t i = 0; i < share_record_count(out->open); i++)
        if (share_record_at(out->open, i) >= out->next)
            return ST_INVALID;
    for (size_t i = 1; i < share_record_count(out->passed); i++)
        if (share_record_at(out->passed, i) <= share_record_at(out->passed, i - 1))
            return ST_INVALID;
    return ST_OK;
}
