#include "routing/inbox_record.h"

enum { VERSION = 1 };

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

void inbox_record_write(uint32_t epoch, uint64_t next, uint8_t out[INBOX_RECORD_BYTES])
{
    out[0] = VERSION;
    put_le(out + 1, epoch, 4);
    put_le(out + 5, next, 8);
}

enum status inbox_record_read(struct slice bytes, uint32_t epoch, uint64_t *next)
{
    if (bytes.len != INBOX_RECORD_BYTES || bytes.data[0] != VERSION)
        return ST_INVALID;
    if (get_le(bytes.data + 1, 4) != epoch)
        return ST_GONE;
    *next = get_le(bytes.data + 5, 8);
    return ST_OK;
}
