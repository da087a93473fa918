/* A frame: what one flush of a lane appended, as it stands on disk, in one refcounted buffer that the
 * loop fills, the writer writes and the reader reads. Full until it is closed by its loop; immutable
 * from then on. */
#ifndef TG_CORE_STORE_FRAME_H
#define TG_CORE_STORE_FRAME_H

#include "core/mailbox.h"
#include "core/status.h"
#include "core/store/format.h"

#include <pthread.h>
#include <stdatomic.h>

struct lane;
struct segment;

enum { FRAME_CLASS_SHIFT_MIN = 10, FRAME_CLASSES = 10 }; /* 1 KiB to 512 KiB; larger ones are not kept */

/* Free buffers of all lanes. The lock guards a list splice. */
struct frame_pool {
    pthread_mutex_t lock;
    struct frame *free[FRAME_CLASSES];
    uint64_t kept_bytes, kept_bytes_max;
};

struct frame {
    struct mail to_writer, to_reader; /* a frame is on both ways at once */
    struct frame *next; /* in a list of whoever has it at the time; the free list, the writer's batch */
    struct frame *reader_next; /* the reader's list of frames not yet written */
    struct frame_pool *pool;
    struct lane *lane;
    struct segment *segment; /* a reference */
    atomic_uint refs;
    uint32_t seed; /* of its records */
    uint64_t position; /* in the segment's file */
    uint64_t base_offset;
    uint64_t base_time_ms;
    uint64_t opened_ms; /* the loop's monotonic time */
    uint64_t cap; /* of bytes[] */
    uint64_t limit; /* it may grow to so many bytes: the segment ends, or it is large enough */
    uint64_t len; /* header and records so far */
    uint32_t record_count;
    uint8_t size_class;
    bool wait; /* somebody waits for it to be durable */
    bool control;
    uint8_t bytes[] __attribute__((aligned(8)));
};

void frame_pool_init(struct frame_pool *p, uint64_t kept_bytes_max);
void frame_pool_deinit(struct frame_pool *p);

/* A frame with room for `cap` bytes at least and space for its header left free (len = header's).
 * References: 1; segment is referenced. ST_NO_MEMORY. */
enum status frame_create(struct frame_pool *p, struct lane *lane, struct segment *segment, uint64_t cap,
                         struct frame **out) MUST_CHECK;
/* Makes room for `cap` bytes by a larger buffer; the frame may move. Only while it is open. */
enum status frame_grow(struct frame **f, uint64_t cap) MUST_CHECK;
static inline void frame_ref(struct frame *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
}
void frame_unref(struct frame *f); /* any thread */

static inline uint64_t frame_next_offset(const struct frame *f)
{
    return f->base_offset + f->record_count;
}

/* Fills in the header; the frame is complete. */
void frame_close(struct frame *f, uint64_t segment_epoch, uint64_t synced_below);

/* Header codec. `h` with every field but crc. */
void frame_header_encode(struct frame_header *h, uint8_t *out);
/* ST_CORRUPT: not a valid header of this segment (FORMAT.md 3); `room`: bytes of the file from here. */
enum status frame_header_decode(const uint8_t *bytes, uint64_t room, uint64_t segment_epoch,
                                struct frame_header *out) MUST_CHECK;
/* The same, before the segment's epoch is known. */
enum status frame_header_decode_any(const uint8_t *bytes, uint64_t room, struct frame_header *out) MUST_CHECK;

#endif
