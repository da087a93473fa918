/* Where bytes of a segment come from when they are read: its file through a window, and, for what has
 * been appended but not yet written, the frames in memory. One reader thread. */
#ifndef TG_CORE_STORE_SOURCE_H
#define TG_CORE_STORE_SOURCE_H

#include "core/store/files.h"
#include "core/store/frame.h"

#include <stdbool.h>
#include <stdint.h>

enum { SOURCE_AHEAD_BYTES = 256 << 10 };

struct source {
    const struct store_files *files; /* source_init: the kernel's; whoever has a port puts it here */
    int fd; /* -1: nothing on file */
    uint64_t end; /* bytes that belong to the log; nothing is read behind */
    const struct frame *memory, *memory_end; /* this segment's frames in memory, by reader_next; NULL: none */
    const struct frame *memory_hint; /* where the last look into memory ended */
    uint8_t *window;
    uint64_t window_cap, window_at, window_len;
    uint32_t ahead; /* bytes to read at least; source_open sets SOURCE_AHEAD_BYTES */
};

void source_init(struct source *s); /* nothing to read yet */
void source_deinit(struct source *s); /* does not close fd */
/* Turns to other bytes; keeps the window's memory. memory_end is not part of it. */
void source_open(struct source *s, int fd, uint64_t end, const struct frame *memory,
                 const struct frame *memory_end);

/* `len` bytes at `position`, valid until the next call. NULL: not there, or the disk cannot read them
 * (then *failed is set), or no memory for so many (likewise). */
const uint8_t *source_get(struct source *s, uint64_t position, uint64_t len, bool *failed);

/* What of it is at hand already: *len bytes, 0 or more. For walks that take many small pieces. */
static inline const uint8_t *source_peek(const struct source *s, uint64_t position, uint64_t *len)
{
    bool inside = !s->memory && position - s->window_at < s->window_len;
    *len = inside ? s->window_at + s->window_len - position : 0;
    return inside ? s->window + (position - s->window_at) : NULL;
}

#endif
