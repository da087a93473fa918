/* Which lives of nodes write into a lane whose order is given elsewhere (docs/CLUSTER.md): a part of the
 * shard's state, a fold over its records. Each start of a node is an incarnation, which counts the records
 * that it proposes. START and NODE_DOWN end incarnations: what such a one has proposed and comes behind its
 * end is void, whoever still believes in it. Of what changes the state only the first copy counts: a sequence
 * that is not beyond the newest of its incarnation is one that the backend has repeated.
 *
 * An incarnation that was never introduced by START is known from its first record of state on, and belongs
 * to no node. The shard's loop only. */
#ifndef TG_ROUTING_INCARNATIONS_H
#define TG_ROUTING_INCARNATIONS_H

#include "core/slice.h"
#include "core/status.h"

enum {
    NODE_NAME_BYTES_MAX = 64,
    INCARNATIONS_LIVE = 64, /* the one that has been silent for longest ends when there are more */
    INCARNATIONS_ENDED = 256, /* so many are remembered, those that have ended last */
};

struct incarnations;

enum status incarnations_create(struct incarnations **out) MUST_CHECK; /* ST_NO_MEMORY */
void incarnations_destroy(struct incarnations *t); /* NULL is allowed */

bool incarnations_ended(const struct incarnations *t, uint64_t incarnation);
bool incarnations_introduced(const struct incarnations *t,
                             uint64_t incarnation); /* alive, and its node is known */
/* A record of state: is it the first of its sequence? It is the newest from now on, then. */
bool incarnations_pass(struct incarnations *t, uint64_t incarnation, uint64_t sequence);

/* START: the others of this node have ended. `on_ended` for each, inside. False: the incarnation itself has
 * ended, and nothing has happened. */
bool incarnations_start(struct incarnations *t, struct slice node, uint64_t incarnation,
                        void (*on_ended)(void *ctx, uint64_t incarnation), void *ctx);
/* NODE_DOWN. False: no such incarnation of this node is alive. */
bool incarnations_end(struct incarnations *t, struct slice node, uint64_t incarnation);

/* Calls back for each that is alive. `node` is empty when nobody has said it. */
void incarnations_each(const struct incarnations *t,
                       void (*on_live)(void *ctx, struct slice node, uint64_t incarnation), void *ctx);
uint64_t incarnations_digest(const struct incarnations *t);

#endif
