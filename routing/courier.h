/* Carries letters between the loops of a node.
 *
 * Each loop has one courier. A letter for another loop joins a chain that is posted once a turn; a
 * letter for the own loop joins a local queue that the courier empties in its turn hook, so that an
 * answer never comes back inside the call that asked, and the order of letters from one loop to
 * another is the order in which they were sent, also when both are the same loop. That order is what
 * keeps DELIVER, ATTACHED and LIVE apart (ARCHITECTURE.md 4).
 *
 * Owning loop only, except courier_meet (before the loops run). */
#ifndef TG_ROUTING_COURIER_H
#define TG_ROUTING_COURIER_H

#include "core/loop.h"

enum { LOOPS_MAX = 64 };

struct courier;

enum status courier_create(struct loop *loop, struct courier **out) MUST_CHECK;
void courier_destroy(struct courier *c); /* NULL is allowed; letters inside are dropped unopened */
/* Tells the courier the loop of another index. Every courier meets every loop, its own too. */
void courier_meet(struct courier *c, unsigned index, struct loop *loop);

/* The letter is gone; on the loop `to` its on_arrival is called. */
void courier_send(struct courier *c, unsigned to, struct mail *mail);

/* Called at the beginning of each round of the turn hook: a group of shards closes its batches and sends
 * its DELIVER letters here. A round that left letters for the own loop is followed by another, so that what
 * an edge publishes while it handles a letter leaves in the same turn. At most COURIER_BEFORE_MAX. */
enum { COURIER_BEFORE_MAX = 4 };
void courier_before(struct courier *c, void (*before)(void *ctx), void *ctx);

/* Adds the hook that posts and empties. Before the hooks of the doors. */
void courier_start(struct courier *c);
/* Letters wait that the next turn must take: a hook that runs after the courier's and may have sent some
 * returns this, so that the loop does not sleep on them. */
bool courier_pending(const struct courier *c);
unsigned courier_index(const struct courier *c);
struct loop *courier_loop(const struct courier *c);

#endif
