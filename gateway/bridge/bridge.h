/* Bridges to other MQTT brokers (`bridges`, `bridge_topics`; docs/PROTOCOL.md 7, ADR 11): a thread for each,
 * with two connections, one to the remote (remote.h) and one to our own MQTT door (local.h). The main thread
 * makes, starts and stops them. */
#ifndef TG_GATEWAY_BRIDGE_BRIDGE_H
#define TG_GATEWAY_BRIDGE_BRIDGE_H

#include "gateway/edge.h"

struct bridges;

/* `edge`: whose door they come by. ST_INVALID with a line: a file of a bridge cannot be read. With none
 * configured *out is NULL. Their figures are in edge->facts. */
enum status bridges_create(const struct settings *s, struct edge *edge, struct bridges **out,
                           struct buf *error) MUST_CHECK;
enum status bridges_start(struct bridges *b) MUST_CHECK; /* the loops run */
void bridges_stop(struct bridges *b); /* waits for the threads; again: nothing; NULL is allowed */
void bridges_destroy(struct bridges *b); /* stopped; NULL is allowed */

#endif
