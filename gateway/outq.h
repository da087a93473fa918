/* The output of one connection: bounded, and sent in one write a turn.
 *
 *   [ owned chunks left from an earlier turn | what this turn adds ]
 *
 * What this turn adds is either one borrowed span of the loop's scratch space (a fan-out hands the same
 * bytes to 10,000 connections: no copy at all while the spans are adjacent) or copied into chunks.
 * At the end of the turn everything goes out by one writev; what the socket does not take is owned.
 * Owning loop only. What carries the bytes is the stream's affair (stream.h). */
#ifndef TG_GATEWAY_OUTQ_H
#define TG_GATEWAY_OUTQ_H

#include "core/list.h"
#include "core/slice.h"
#include "core/status.h"
#include "gateway/stream.h"

#include <sys/uio.h>

struct outq_chunk;
struct outq {
    struct outq_chunk *first, *last;
    struct slice span; /* borrowed, until the end of the turn; comes after the chunks */
    uint32_t bytes; /* chunks and span together */
    uint32_t bytes_max;
    struct list dirty; /* the door's list of connections to flush this turn */
};

void outq_init(struct outq *q, uint32_t bytes_max);
void outq_deinit(struct outq *q); /* frees what is queued; unlinks `dirty` */

/* Is there room for `len` more? A queue that is empty takes one item of any size. */
static inline int outq_has_room(const struct outq *q, size_t len)
{
    return q->bytes == 0 || q->bytes + len <= q->bytes_max;
}
/* Scratch bytes that stay valid until the turn ends. Without regard to bytes_max (ask outq_has_room).
 * ST_NO_MEMORY. */
enum status outq_put_span(struct outq *q, struct slice scratch) MUST_CHECK;
/* Copies. ST_NO_MEMORY. */
enum status outq_put(struct outq *q, struct slice bytes) MUST_CHECK;
/* `len` contiguous bytes to write into, now part of the queue. NULL: no memory. */
uint8_t *outq_reserve(struct outq *q, size_t len) MUST_CHECK;

/* Gathers at most `most` pieces from the front; returns how many. */
int outq_gather(const struct outq *q, struct iovec *pieces, int most);
/* `n` bytes from the front are sent. */
void outq_sent(struct outq *q, size_t n);
/* Copies a borrowed span into chunks; before the turn ends, if not everything was sent. ST_NO_MEMORY. */
enum status outq_own(struct outq *q) MUST_CHECK;

/* Sends as much as the stream takes. ST_OK: empty. ST_AGAIN: the rest is owned, wait until it is writable.
 * ST_CLOSED: the peer has gone. *sent = bytes. */
enum status outq_flush(struct outq *q, struct stream *stream, size_t *sent) MUST_CHECK;

#endif
