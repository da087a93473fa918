/* A segment as loop and writer share it: where frames go. Its header's bytes and its file's name.
 * The loop makes it when the one before is full and never touches the disk; the writer opens the file
 * when the first frame for it arrives. Refcounted: frames and the lane hold it. */
#ifndef TG_CORE_STORE_SEGMENT_H
#define TG_CORE_STORE_SEGMENT_H

#include "core/slice.h"
#include "core/status.h"
#include "core/store/format.h"

#include <stdatomic.h>

struct segment {
    atomic_uint refs;
    struct segment_header header;
    uint64_t file_bytes; /* to preallocate */
};

/* `header` with every field but magic, version, segment_epoch and crc, which are filled in.
 * References: 1. ST_NO_MEMORY; ST_IO: no random numbers. */
enum status segment_create(const struct segment_header *header, uint64_t file_bytes,
                           struct segment **out) MUST_CHECK;
static inline struct segment *segment_ref(struct segment *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}
void segment_unref(struct segment *s); /* any thread; NULL is allowed */

/* The header as it goes into a file that was a segment `life` times before. */
struct segment_header segment_header_of(const struct segment *s, uint32_t life);

/* ST_CORRUPT: damaged. ST_UNSUPPORTED: a newer version or an unknown flag. */
enum status segment_header_decode(const uint8_t *bytes, struct segment_header *out) MUST_CHECK;

enum { SEGMENT_NAME_BYTES = 20 + 4 + 1 };
/* "00000000000000000000.seg"; `suffix` is "seg", "idx" or "bad". */
void segment_name(uint64_t base_offset, const char *suffix, char out[SEGMENT_NAME_BYTES]);
/* False: not such a name. */
bool segment_name_parse(const char *name, const char *suffix, uint64_t *base_offset);

#endif
