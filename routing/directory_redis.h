/* The directory that nodes share by a Redis. On top of directory_local.c, which stays what a node knows of
 * itself: this one writes the node's entries there, under a lease, and adds to each look-up what other nodes
 * have written.
 *
 * It has a thread of its own, with a loop. An entry is lent to it, and back at its owner before Redis has
 * heard of it: nobody waits for Redis but look-ups, and these no longer than its timeout. */
#ifndef TG_ROUTING_DIRECTORY_REDIS_H
#define TG_ROUTING_DIRECTORY_REDIS_H

#include "routing/directory.h"
#include "routing/directory_record.h"
#include "routing/redis_home.h"

struct loop;

struct directory_redis_options {
    struct redis_home_options home;
    const char *prefix; /* of every key */
    const char *node; /* DIRECTORY_NODE_BYTES_MAX at most */
    uint64_t incarnation;
    uint64_t lease_ms; /* a node that has not been heard of for so long is gone */
    uint64_t entry_ms; /* what nobody writes again for so long goes by itself */
    uint64_t pending_max; /* removals that wait; above, everything is registered again */
    uint64_t cache_bytes;
    void (*describe)(void *ctx, struct directory_node *self); /* state, version, figures; its thread */
    void *ctx;
};

struct directory_redis;

/* The options are copied, what they point to outlives it. ST_NO_MEMORY, ST_IO. */
enum status directory_redis_create(const struct directory_redis_options *o,
                                   struct directory_redis **out) MUST_CHECK;
/* Before the start: the loops that its answers go to. */
void directory_redis_meet(struct directory_redis *d, unsigned loop_index, struct loop *loop);
struct directory_beyond directory_redis_beyond(struct directory_redis *d);
enum status directory_redis_start(struct directory_redis *d) MUST_CHECK; /* its thread; ST_NO_MEMORY */

bool directory_redis_up(const struct directory_redis *d); /* any thread */
/* Any thread: nothing that it was lent is on its way back. */
bool directory_redis_idle(const struct directory_redis *d);

/* Says goodbye to Redis, for half a second at most, and ends the thread. Entries are forgotten, wherever they
 * are. NULL is allowed. */
void directory_redis_destroy(struct directory_redis *d);

#endif
