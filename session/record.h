/* The durable state of a session as bytes: what stands in its record (FORMAT.md). Its filters, and how far
 * each that is acknowledged has been acknowledged. Pure, any thread.
 *
 *   u8  version 1
 *   u32 log epoch of the places, u16 lanes of the log
 *   a run of filters, each:
 *     u8  flags: 1 = ack, 2 = the retained messages it began with are not all acknowledged yet
 *     u16 length, filter
 *     with ack: u64 next offset of each lane the filter has messages in (1 for a literal one and one of an
 * inbox, else all)
 *
 * Little endian. */
#ifndef TG_SESSION_RECORD_H
#define TG_SESSION_RECORD_H

#include "core/buf.h"
#include "routing/position.h"

enum { RECORD_ACK = 1, RECORD_RETAINED_OPEN = 2 };

struct record_filter {
    uint8_t flags;
    struct slice filter; /* a valid filter when it was written; whoever reads checks it again */
    uint16_t lane_count; /* with ack: of next[] */
    uint64_t next[PLACE_LANES_MAX];
};

/* ST_FULL: over the buffer's limit, nothing was added. ST_NO_MEMORY. */
enum status record_begin(struct buf *out, uint32_t epoch, unsigned lanes) MUST_CHECK;
enum status record_put(struct buf *out, const struct record_filter *f) MUST_CHECK;

/* ST_INVALID: not such bytes. *place is where the first filter stands. */
enum status record_open(struct slice bytes, size_t *place, uint32_t *epoch, unsigned *lanes) MUST_CHECK;
/* ST_NOT_FOUND at the end, ST_INVALID. `lanes` as record_open said. The filter lies inside `bytes`. */
enum status record_next(struct slice bytes, size_t *place, unsigned lanes,
                        struct record_filter *out) MUST_CHECK;

#endif
