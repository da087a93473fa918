/* What a node says of itself at $SYS/broker/... (PROTOCOL.md 3, the node's own topics): mosquitto's names for
 * what both have. Nothing of it is in the log; new subscribers get the newest values as retained messages.
 *
 * One a loop: each adds up the counters of all (core/metrics.h) for the clients of its own, so that no loop
 * waits for another. Owning loop only. */
#ifndef TG_GATEWAY_SYS_H
#define TG_GATEWAY_SYS_H

#include "gateway/edge.h"

struct sys;

/* Before the loop runs; begins with sys.interval_ms. */
enum status sys_create(struct edge *edge, struct sys **out) MUST_CHECK;
void sys_use_settings(struct sys *s); /* the edge has others */
void sys_destroy(struct sys *s); /* before the hub goes; NULL is allowed */

#endif
