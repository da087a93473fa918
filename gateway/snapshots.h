/* Snapshots of a running node: the loops end their segments, a thread of its own links the files (core/store/
 * snapshot.h), and whoever asked is told. One at a time. All calls: the home loop, but create, stop and
 * destroy. */
#ifndef TG_GATEWAY_SNAPSHOTS_H
#define TG_GATEWAY_SNAPSHOTS_H

#include "core/store/snapshot.h"
#include "core/store/store.h"

struct snapshots;

/* loops[i] owns the lanes whose number is i modulo loop_count; loops[0] is home. Start-up. ST_NO_MEMORY. */
enum status snapshots_create(struct store *store, uint64_t snapshots_max, struct loop *const *loops,
                             unsigned loop_count, struct snapshots **out) MUST_CHECK;
/* Waits for the thread. The loops have ended, the store is still open. NULL is allowed. */
void snapshots_stop(struct snapshots *s);
void snapshots_destroy(struct snapshots *s); /* after the loops are gone; NULL is allowed */

struct snapshots_result {
    enum status status; /* of store_roll or store_snapshot */
    const struct snapshot_report *report;
    struct slice error; /* a line for people, perhaps empty */
};

/* ST_AGAIN: one is being made. ST_INVALID: the name is none. Else on_done is called, later. */
enum status snapshots_start(struct snapshots *s, const char *name,
                            void (*on_done)(void *ctx, const struct snapshots_result *result),
                            void *ctx) MUST_CHECK;
/* Nobody wants to be told any more; it is made all the same. */
void snapshots_forget(struct snapshots *s);

#endif
