/* One bridge to another MQTT broker (docs/PROTOCOL.md 7, ADR 11): a thread with two connections, one to the
 * remote (remote.h) and one to our own MQTT door (local.h). The main thread makes, starts and stops it; all
 * of them together are bridges.h. */
#ifndef TG_GATEWAY_BRIDGE_BRIDGE_H
#define TG_GATEWAY_BRIDGE_BRIDGE_H

#include "gateway/bridge/plan.h"
#include "gateway/edge.h"

struct bridge;

struct bridge_home {
    struct edge *edge; /* whose door it comes by */
    const char *node_id; /* outlives the bridge */
    size_t message_bytes_max;
};

/* Takes the plan, also when it fails. ST_INVALID with a line: a file of it cannot be read. */
enum status bridge_create(const struct bridge_home *home, struct bridge_plan *plan, struct metrics *metrics,
                          struct bridge **out, struct buf *error) MUST_CHECK;
/* Joined, or never started. Its metrics are the caller's again. NULL is allowed. */
void bridge_destroy(struct bridge *b);

const struct bridge_plan *bridge_plan_of(const struct bridge *b);
struct bridge_figures *bridge_figures_of(struct bridge *b);
struct metrics *bridge_metrics_of(struct bridge *b);
struct bridge **bridge_next(struct bridge *b); /* for a list of the owner's */

/* Its thread, which waits to be released. */
enum status bridge_start(struct bridge *b) MUST_CHECK;
/* Now it connects; first it waits for `former`, of the same name, and takes its session over. NULL: none. */
void bridge_release(struct bridge *b, struct bridge *former);
/* It takes nothing new, settles what is under way for at most two seconds, and ends.
 * `expiry_ms`: it is removed, so its session ends too, after that time; 0: another one takes its place. */
void bridge_leave(struct bridge *b, uint64_t expiry_ms);
void bridge_stop(struct bridge *b); /* it ends now: what is under way is owed to the next start */
/* Waits for its thread, if it was started; again: nothing. Not with a bridge that another has as `former`. */
void bridge_join(struct bridge *b);
/* Has its thread ended and been waited for? Without waiting. */
bool bridge_gone(struct bridge *b);

#endif
