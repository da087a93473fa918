/* Frame buffers and the frame header's codec.
 *
 * A buffer begins small and doubles, so that a lane with one record a second keeps a kilobyte and one
 * with a million a quarter of a megabyte; a lane opens its next frame as large as its last one was.
 * Buffers are dropped by the reader thread or the loop and taken by loops, so the free list is common
 * and has a lock: once a frame, not once a record. */
#include "core/store/frame.h"

#include "core/crc32c.h"
#include "core/store/segment.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_CLASS_NONE = 255, CRC_FROM = 8 };

void frame_pool_init(struct frame_pool *p, uint64_t kept_bytes_max)
{
    *p = (struct frame_pool){.kept_bytes_max = kept_bytes_max};
    pthread_mutex_init(&p->lock, NULL);
}

void frame_pool_deinit(struct frame_pool *p)
{
    for (unsigned i = 0; i < FRAME_CLASSES; i++) {
        for (struct frame *f = p->free[i], *next; f; f = next) {
            next = f->next;
            free(f);
        }
    }
    pthread_mutex_destroy(&p->lock);
    memset(p, 0, sizeof *p);
}

static uint8_t class_of(uint64_t cap)
{
    for (unsigned i = 0; i < FRAME_CLASSES; i++) {
        if (cap <= (uint64_t)1 << (FRAME_CLASS_SHIFT_MIN + i))
            return (uint8_t)i;
    }
    return FRAME_CLASS_NONE;
}

static struct frame *take_free(struct frame_pool *p, uint8_t size_class)
{
    pthread_mutex_lock(&p->lock);
    struct frame *f = p->free[size_class];
    if (f) {
        p->free[size_class] = f->next;
        p->kept_bytes -= f->cap;
    }
    pthread_mutex_unlock(&p->lock);
    return f;
}

static struct frame *buffer_alloc(struct frame_pool *p, uint64_t cap)
{
    uint8_t size_class = class_of(cap);
    struct frame *f = NULL;
    if (size_class != FRAME_CLASS_NONE) {
        cap = (uint64_t)1 << (FRAME_CLASS_SHIFT_MIN + size_class);
        f = take_free(p, size_class);
    }
    if (!f)
        f = malloc(sizeof *f + cap);
    if (!f)
        return NULL;
    f->size_class = size_class;
    f->cap = cap;
    f->pool = p;
    return f;
}

static void buffer_free(struct frame *f)
{
    struct frame_pool *p = f->pool;
    bool kept = false;
    if (f->size_class != FRAME_CLASS_NONE) {
        pthread_mutex_lock(&p->lock);
        kept = p->kept_bytes + f->cap <= p->kept_bytes_max;
        if (kept) {
            f->next = p->free[f->size_class];
            p->free[f->size_class] = f;
            p->kept_bytes += f->cap;
        }
        pthread_mutex_unlock(&p->lock);
    }
    if (!kept)
        free(f);
}

enum status frame_create(struct frame_pool *p, struct lane *lane, struct segment *segment, uint64_t cap,
                         struct frame **out)
{
    struct frame *f = buffer_alloc(p, cap);
    if (!f)
        return ST_NO_MEMORY;
    struct frame empty = {.pool = p,
                          .lane = lane,
                          .segment = segment_ref(segment),
                          .cap = f->cap,
                          .size_class = f->size_class,
                          .len = sizeof(struct frame_header)};
    memcpy(f, &empty, offsetof(struct frame, bytes));
    atomic_init(&f->refs, 1);
    *out = f;
    return ST_OK;
}

enum status frame_grow(struct frame **f, uint64_t cap)
{
    struct frame *old = *f;
    if (cap <= old->cap)
        return ST_OK;
    struct frame *new = buffer_alloc(old->pool, cap);
    if (!new)
        return ST_NO_MEMORY;
    uint8_t size_class = new->size_class;
    uint64_t new_cap = new->cap;
    memcpy(new, old, offsetof(struct frame, bytes) + old->len);
    new->size_class = size_class;
    new->cap = new_cap;
    buffer_free(old);
    *f = new;
    return ST_OK;
}

void frame_unref(struct frame *f)
{
    /* acq_rel: the last one to drop it sees what the others did before they dropped it. */
    if (atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    segment_unref(f->segment);
    buffer_free(f);
}

void frame_close(struct frame *f, uint64_t segment_epoch, uint64_t synced_below)
{
    struct frame_header h = {
        .frame_bytes = (uint32_t)f->len,
        .segment_epoch = segment_epoch,
        .base_offset = f->base_offset,
        .record_count = f->record_count,
        .flags = f->control ? FRAME_CONTROL : 0,
        .base_time_ms = f->base_time_ms,
        .synced_below = synced_below,
        .body_bytes = (uint32_t)(f->len - sizeof h),
    };
    assert(f->len % 8 == 0 && f->len <= FRAME_BYTES_MAX);
    frame_header_encode(&h, f->bytes);
}

static uint32_t header_crc(const uint8_t *bytes)
{
    uint32_t crc = crc32c(0, bytes + CRC_FROM, sizeof(struct frame_header) - CRC_FROM);
    return crc32c(crc, bytes, sizeof(uint32_t));
}

void frame_header_encode(struct frame_header *h, uint8_t *out)
{
    memcpy(out, h, sizeof *h);
    h->crc = header_crc(out);
    memcpy(out, h, sizeof *h);
}

enum status frame_header_decode_any(const uint8_t *bytes, uint64_t room, struct frame_header *out)
{
    struct frame_header h;
    memcpy(&h, bytes, sizeof h);
    if (h.crc != header_crc(bytes))
        return ST_CORRUPT;
    uint64_t least = (uint64_t)h.record_count * sizeof(struct record_header);
    bool sane = (h.flags & ~(uint32_t)FRAME_FLAGS_KNOWN) == 0 && h.body_bytes % 8 == 0 &&
                h.frame_bytes == (uint64_t)h.body_bytes + sizeof h && h.frame_bytes <= FRAME_BYTES_MAX &&
                h.frame_bytes <= room && h.body_bytes >= least && (h.record_count > 0 || h.body_bytes == 0) &&
                h.base_offset <= UINT64_MAX - h.record_count;
    if (!sane)
        return ST_CORRUPT;
    *out = h;
    return ST_OK;
}

enum status frame_header_decode(const uint8_t *bytes, uint64_t room, uint64_t segment_epoch,
                                struct frame_header *out)
{
    struct frame_header h;
    memcpy(&h, bytes, sizeof h);
    /* The epoch first: it is compared at every multiple of 8 while looking for a frame. */
    if (h.segment_epoch != segment_epoch)
        return ST_CORRUPT;
    return frame_header_decode_any(bytes, room, out);
}
