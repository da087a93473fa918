/* Which records of a mirror are void (topic_log.h, `hide`): offsets that only ascend, kept in memory and
 * found again by the fold at each start. The lane's loop adds; any thread asks, without a lock. */
#ifndef TG_CORE_STORE_VOIDS_H
#define TG_CORE_STORE_VOIDS_H

#include "core/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { VOIDS_CHUNK = 1024, VOIDS_CHUNKS_MAX = 16384 };
#define VOIDS_MAX ((uint64_t)VOIDS_CHUNK * VOIDS_CHUNKS_MAX)

struct voids {
    uint64_t count_max;
    _Atomic uint64_t count; /* the loop writes (release) behind what it counts, others read (acquire) */
    uint64_t *chunks[VOIDS_CHUNKS_MAX]; /* VOIDS_CHUNK each; those below `count` do not change */
};

/* `count_max` at most VOIDS_MAX. ST_NO_MEMORY. */
enum status voids_create(uint64_t count_max, struct voids **out) MUST_CHECK;
void voids_destroy(struct voids *v); /* NULL is allowed */
/* Not below what was added last; the same once more changes nothing. ST_FULL: there are count_max.
 * ST_NO_MEMORY. */
enum status voids_add(struct voids *v, uint64_t offset) MUST_CHECK;
static inline uint64_t voids_count(const struct voids *v)
{
    return atomic_load_explicit(&v->count, memory_order_acquire);
}
/* How many lie in from <= offset < to. Any thread. */
uint64_t voids_between(const struct voids *v, uint64_t from, uint64_t to);
/* Any thread; NULL has none. */
static inline bool voids_has(const struct voids *v, uint64_t offset)
{
    return v && voids_count(v) > 0 && voids_between(v, offset, offset + 1) > 0;
}

#endif
