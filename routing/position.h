/* Positions and bookmarks: a place in the log as clients hold it (PROTOCOL.md, beginning).
 *
 *   position  <epoch:8 hex><lane:4 hex>.<offset:16 hex>         one record in one lane
 *   bookmark  b<epoch:8 hex>.<next:hex>[-<next:hex>...]         one "next offset" a lane
 *
 * Lower case, fixed width: of two positions with equal text before the dot the greater string is
 * later. Inside, both become a `struct place`: for each lane the next offset to read. */
#ifndef TG_ROUTING_POSITION_H
#define TG_ROUTING_POSITION_H

#include "core/buf.h"

enum {
    POSITION_BYTES = 8 + 4 + 1 + 16,
    PLACE_LANES_MAX = 64,
    BOOKMARK_BYTES_MAX = 1 + 8 + 17 * PLACE_LANES_MAX
};

struct place {
    uint32_t lane_count;
    uint64_t next[PLACE_LANES_MAX];
};

/* Writes exactly POSITION_BYTES, no NUL. */
void position_write(uint32_t epoch, unsigned lane, uint64_t offset, char *out);
/* Writes at most BOOKMARK_BYTES_MAX; returns the length. */
size_t bookmark_write(uint32_t epoch, const struct place *place, char *out);

/* Folds one client text (position or bookmark) into `place` (lane_count set, next[] 0 = from the
 * beginning): a position at offset o gives next >= o + 1 in its lane, a bookmark its next in all;
 * of several the newest counts. Strictly after, always.
 * ST_INVALID: not such a text, or a lane that does not exist. ST_GONE: another epoch. */
enum status place_fold(struct place *place, uint32_t epoch, struct slice text) MUST_CHECK;

/* The same for a read that goes back: next[] begins as UINT64_MAX (from the end), all below it is read. A
 * position at offset o gives next <= o, a bookmark its next; of several the oldest counts. Strictly before,
 * always. */
enum status place_fold_before(struct place *place, uint32_t epoch, struct slice text) MUST_CHECK;

/* "time:<ms>": decimal, 0 to 2^53-1, no sign, no leading zeros. False: not such a text. */
bool place_time_read(struct slice text, uint64_t *time_ms);

#endif
