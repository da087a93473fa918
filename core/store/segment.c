#include "core/store/segment.h"

#include "core/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NAME_DIGITS = 20 };

static uint32_t header_crc(const struct segment_header *h)
{
    return crc32c(0, h, offsetof(struct segment_header, crc));
}

enum status segment_create(const struct segment_header *header, uint64_t file_bytes, struct segment **out)
{
    struct segment *s = malloc(sizeof *s);
    if (!s)
        return ST_NO_MEMORY;
    *s = (struct segment){.header = *header, .file_bytes = file_bytes};
    atomic_init(&s->refs, 1);
    memcpy(s->header.magic, SEGMENT_MAGIC, sizeof s->header.magic);
    s->header.version = FORMAT_VERSION;
    if (getrandom(&s->header.segment_epoch, sizeof s->header.segment_epoch, 0) !=
        (ssize_t)sizeof s->header.segment_epoch) {
        free(s);
        return ST_IO;
    }
    s->header.crc = header_crc(&s->header);
    *out = s;
    return ST_OK;
}

void segment_unref(struct segment *s)
{
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        free(s);
}

struct segment_header segment_header_of(const struct segment *s, uint32_t life)
{
    struct segment_header h = s->header;
    h.life = life;
    h.crc = header_crc(&h);
    return h;
}

enum status segment_header_decode(const uint8_t *bytes, struct segment_header *out)
{
    struct segment_header h;
    memcpy(&h, bytes, sizeof h);
    if (memcmp(h.magic, SEGMENT_MAGIC, sizeof h.magic) != 0 || h.crc != header_crc(&h))
        return ST_CORRUPT;
    if (h.version > FORMAT_VERSION || h.flags != 0)
        return ST_UNSUPPORTED;
    *out = h;
    return ST_OK;
}

void segment_name(uint64_t base_offset, const char *suffix, char out[SEGMENT_NAME_BYTES])
{
    snprintf(out, SEGMENT_NAME_BYTES, "%0*llu.%.3s", NAME_DIGITS, (unsigned long long)base_offset, suffix);
}

bool segment_name_parse(const char *name, const char *suffix, uint64_t *base_offset)
{
    uint64_t value = 0;
    for (int i = 0; i < NAME_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(name[i] - '0'), &value))
            return false;
    }
    if (name[NAME_DIGITS] != '.' || strcmp(name + NAME_DIGITS + 1, suffix) != 0)
        return false;
    *base_offset = value;
    return true;
}
