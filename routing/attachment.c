#include "routing/attachment.h"

void attachment_write(uint64_t attachment, char out[ATTACHMENT_BYTES])
{
    for (unsigned i = 0; i < ATTACHMENT_BYTES; i++)
        out[i] = "0123456789abcdef"[attachment >> (60 - 4 * i) & 15];
}

enum status attachment_read(struct slice key, uint64_t *out)
{
    uint64_t value = 0;
    if (key.len != ATTACHMENT_BYTES)
        return ST_INVALID;
    for (unsigned i = 0; i < ATTACHMENT_BYTES; i++) {
        uint8_t c = key.data[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return ST_INVALID;
    }
    *out = value;
    return ST_OK;
}
