/* The bridges of a node (`bridges`, `bridge_topics`; docs/PROTOCOL.md 7). The main thread makes, starts,
 * changes and stops them. */
#ifndef TG_GATEWAY_BRIDGE_BRIDGES_H
#define TG_GATEWAY_BRIDGE_BRIDGES_H

#include "gateway/edge.h"

struct bridges;

/* `edge`: whose door they come by. ST_INVALID with a line: a file of a bridge cannot be read. What they tell
 * of themselves is in edge->facts. */
enum status bridges_create(const struct settings *s, struct edge *edge, struct bridges **out,
                           struct buf *error) MUST_CHECK;
enum status bridges_start(struct bridges *b) MUST_CHECK; /* the loops run */
void bridges_stop(struct bridges *b); /* waits for the threads; again: nothing; NULL is allowed */
void bridges_destroy(struct bridges *b); /* stopped; NULL is allowed */

/* A part of a reload (reload.h), `bridges` is a struct bridges. Bridges whose items are the same go on
 * undisturbed; the others end, settled, before those of the same name begin. A commit waits for nobody. */
enum status bridges_prepare(void *bridges, const struct settings *next, struct buf *error) MUST_CHECK;
void bridges_commit(void *bridges);
void bridges_abandon(void *bridges);

#endif
