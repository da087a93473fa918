/* All lanes of a log folder as one run of messages, the oldest first: each lane in its own order, between
 * lanes by time. Read only (core/store/view.h). One thread. */
#ifndef TG_GATEWAY_CLI_MERGE_H
#define TG_GATEWAY_CLI_MERGE_H

#include "core/store/view.h"
#include "routing/position.h"

/* What is wanted. */
struct selection {
    const char *topic; /* a filter; NULL: all but session records, which mean nothing in another log */
    bool all_lanes;
    unsigned lane; /* else only this one */
    struct place from, to; /* offsets from <= o < to in each lane */
    uint64_t from_ms, to_ms; /* from_ms <= ts < to_ms */
    uint64_t max; /* so many messages */
    /* Also the carried records whose originals retention has removed: what is retained is then complete. They
     * come by their time, each once. Kept in memory, all of them. */
    bool carried;
};

struct merge;

enum status merge_open(struct view *v, const struct selection *wanted, struct merge **out,
                       struct buf *error) MUST_CHECK; /* statuses as walk_open */
void merge_close(struct merge *m); /* NULL is allowed */
/* WALK_MESSAGE: *msg, valid until the next call; WALK_FAULT: merge_fault; WALK_END; WALK_FAILED. */
enum walk_event merge_next(struct merge *m, struct msg **msg);
/* A fault as a line for people: what, which file, which offsets. Valid until the next call. */
const char *merge_fault(struct merge *m);

#endif
