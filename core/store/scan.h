/* A walk over a segment that believes nothing: frames, records, and what lies damaged between them.
 * Recovery, the making of an index and reading in order are this one walk. */
#ifndef TG_CORE_STORE_SCAN_H
#define TG_CORE_STORE_SCAN_H

#include "core/store/record.h"
#include "core/store/source.h"

enum scan_event {
    SCAN_FRAME, /* a valid header: `frame`, `frame_position` */
    SCAN_RECORD, /* a valid record of it: `record`, `record_position` */
    SCAN_BAD, /* offsets bad_from to bad_to (exclusive) do not verify. The damage begins in or at the
                 frame at `bad_position`, whose first offset is `bad_frame_offset` */
    SCAN_END, /* nothing valid follows; `position` is the end of the last valid frame */
};

struct scan {
    struct source *source;
    uint64_t segment_epoch;
    uint64_t base_offset; /* of the segment */
    uint64_t position; /* of the next frame header */
    uint64_t next_offset; /* which it should have */
    uint64_t noise_end; /* behind the last byte that is not zero and belongs to no valid frame */
    bool reused; /* set it after scan_init: what belongs to no valid frame may be of the file's earlier lives,
                    and only what carries the segment's epoch counts as noise */
    bool io_failed; /* something could not be read (besides what does not verify) */

    struct frame_header frame;
    uint64_t frame_position;
    struct record record;
    uint64_t record_position;
    uint64_t bad_from, bad_to, bad_position, bad_frame_offset;

    bool in_frame;
    bool frame_held; /* a header was found behind a gap; it is told after the gap */
    uint32_t seed;
    uint32_t record_index; /* that the next record should have */
    uint64_t body_at, body_end;
    uint64_t search_bytes; /* checked in this frame without success */
};

/* Starts at a frame header: `position`, whose first offset should be `next_offset`. */
void scan_init(struct scan *s, struct source *source, uint64_t segment_epoch, uint64_t base_offset,
               uint64_t position, uint64_t next_offset);
enum scan_event scan_next(struct scan *s);
/* Goes to the next frame without looking at the rest of this one. */
void scan_skip_frame(struct scan *s);

#endif
