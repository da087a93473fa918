/* An open-addressing index from a 64-bit hash to items that the caller owns and compares. Private to
 * the filter table and the shard. Equal hashes may stand for different items; the caller looks at all of
 * them. Owning loop only. */
#ifndef TG_ROUTING_HASH_SLOTS_H
#define TG_ROUTING_HASH_SLOTS_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_slot {
    uint64_t hash;
    void *item; /* NULL: free */
};

/* Zeroes are an empty index that holds no memory. */
struct hash_slots {
    struct hash_slot *slots;
    size_t count;
    unsigned bits; /* 2^bits slots, when there are any */
};

void hash_slots_deinit(struct hash_slots *h);

/* Makes room for one more, so that the next insert cannot fail. ST_NO_MEMORY. */
enum status hash_slots_reserve(struct hash_slots *h) MUST_CHECK;
void hash_slots_insert(struct hash_slots *h, uint64_t hash, void *item);
void hash_slots_remove(struct hash_slots *h, uint64_t hash, const void *item); /* it must be there */

static inline size_t hash_slots_bytes(const struct hash_slots *h)
{
    return h->slots ? sizeof(struct hash_slot) << h->bits : 0;
}

/* _first and _next walk the items of a hash: *at is set by _first; NULL: no more. */
static inline size_t hash_slots_home(const struct hash_slots *h, uint64_t hash)
{
    return (size_t)(hash >> (64 - h->bits));
}
static inline void hash_slots_prefetch(const struct hash_slots *h, uint64_t hash)
{
    if (h->slots)
        __builtin_prefetch(&h->slots[hash_slots_home(h, hash)]);
}
static inline void *hash_slots_next(const struct hash_slots *h, uint64_t hash, size_t *at)
{
    const size_t mask = ((size_t)1 << h->bits) - 1;
    for (;;) {
        const struct hash_slot *slot = &h->slots[*at];
        if (!slot->item)
            return NULL;
        *at = (*at + 1) & mask;
        if (slot->hash == hash)
            return slot->item;
    }
}
static inline void *hash_slots_first(const struct hash_slots *h, uint64_t hash, size_t *at)
{
    if (!h->slots)
        return NULL;
    *at = hash_slots_home(h, hash);
    return hash_slots_next(h, hash, at);
}

#endif
