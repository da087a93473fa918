/* A window over the file, filled by pread: at least `ahead` bytes at a time, so that a walk over
 * neighbours costs a call per window and a jump to one record costs one small read. Not a mapping: a disk
 * error in a mapping is a signal, here it is an answer. */
#include "core/store/source.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_KEPT_BYTES_MAX = 4 << 20 };

void source_init(struct source *s)
{
    *s = (struct source){.files = store_files_system(), .fd = -1};
}

void source_deinit(struct source *s)
{
    free(s->window);
    memset(s, 0, sizeof *s);
    s->fd = -1;
}

void source_open(struct source *s, int fd, uint64_t end, const struct frame *memory,
                 const struct frame *memory_end)
{
    s->fd = fd;
    s->end = end;
    s->memory = memory;
    s->memory_hint = memory;
    s->memory_end = memory_end;
    s->ahead = SOURCE_AHEAD_BYTES;
    s->window_len = 0;
    /* One giant record must not keep its size for ever. */
    if (s->window_cap > WINDOW_KEPT_BYTES_MAX) {
        free(s->window);
        s->window = NULL;
        s->window_cap = 0;
    }
}

static const uint8_t *from_memory(struct source *s, uint64_t position, uint64_t len)
{
    /* Walks go forward; the hint saves the way through thousands of small frames at every step. */
    const struct frame *f = position >= s->memory_hint->position ? s->memory_hint : s->memory;
    for (; f && f != s->memory_end; f = f->reader_next) {
        if (position >= f->position + f->len)
            continue;
        s->memory_hint = f;
        bool whole = position >= f->position && position + len <= f->position + f->len;
        return whole ? f->bytes + (position - f->position) : NULL;
    }
    return NULL;
}

static bool window_reserve(struct source *s, uint64_t bytes)
{
    if (bytes <= s->window_cap)
        return true;
    uint8_t *bigger = realloc(s->window, bytes);
    if (!bigger)
        return false;
    s->window = bigger;
    s->window_cap = bytes;
    return true;
}

static bool window_fill(struct source *s, uint64_t position, uint64_t bytes)
{
    s->window_at = position;
    s->window_len = 0;
    ssize_t n = files_read_all(s->files, s->fd, s->window, bytes, (off_t)position);
    if (n < 0)
        return false;
    s->window_len = (uint64_t)n;
    return true;
}

const uint8_t *source_get(struct source *s, uint64_t position, uint64_t len, bool *failed)
{
    if (position > s->end || len > s->end - position)
        return NULL;
    /* What is in memory may not be on file yet; nothing lies across the border, which is a frame's. */
    if (s->memory && position >= s->memory->position)
        return from_memory(s, position, len);
    if (position >= s->window_at && position + len <= s->window_at + s->window_len)
        return s->window + (position - s->window_at);
    if (s->fd < 0)
        return NULL;
    uint64_t bytes = len > s->ahead ? len : s->ahead;
    if (bytes > s->end - position)
        bytes = s->end - position;
    if (!window_reserve(s, bytes) || !window_fill(s, position, bytes)) {
        *failed = true;
        return NULL;
    }
    return s->window_len >= len ? s->window : NULL;
}
