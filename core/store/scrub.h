/* Reads sealed segments again, slowly and for ever, so that rot is known before somebody needs what it has
 * hit. It changes nothing: a read checks each record anyway and answers what does not verify as damage.
 * Reader thread. */
#ifndef TG_CORE_STORE_SCRUB_H
#define TG_CORE_STORE_SCRUB_H

#include "core/store/lane.h"
#include "core/store/volume.h"

enum { SCRUB_FOUND_MAX = 256 };

/* Records that do not verify. */
struct scrub_found {
    unsigned lane;
    uint64_t from, to;
    bool seen; /* in this cycle */
};

struct scrub {
    const struct store_options *options;
    struct metrics *metrics;
    struct source source;
    uint64_t next_at_ms; /* monotonic */
    uint64_t cycle_begun_ms;
    unsigned lane; /* where it is */
    uint64_t base_offset; /* of the segment, or where the next one is looked for */
    uint64_t position, next_offset; /* in it; position 0: at its beginning */
    uint64_t damaged, damaged_before; /* records, in this cycle and in the last whole one */
    uint64_t damaged_told, cycle_told; /* to the gauges */
    struct scrub_found found[SCRUB_FOUND_MAX]; /* that were logged: what stays damaged is not logged again */
    unsigned found_count;
    bool more_told; /* that there are too many to know them all */
};

void scrub_init(struct scrub *s, const struct store_options *options, struct metrics *metrics);
void scrub_deinit(struct scrub *s);

/* A step, when one is due: about 64 KiB. `shelves` and `lanes` are lane_count of them. */
void scrub_turn(struct scrub *s, const struct shelf *shelves, struct lane *lanes);
/* Milliseconds until one is due; UINT64_MAX: never. */
uint64_t scrub_due_ms(const struct scrub *s);

#endif
