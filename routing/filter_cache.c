/* One place for each value of the topmost bits of the topic's hash; the newer topic wins. A place counts
 * only while its generation is the current one, so forgetting everything is an increment.
 *
 * What is kept are sets, not entries: only a filter that appears or disappears makes the cache stale, not
 * another subscriber of a filter that is there. The name is kept beside its hash: a collision is seen,
 * not believed. Losing the cache for want of memory costs walks, nothing else.
 */
#include "routing/filter_cache.h"

#include <assert.h>
#include <stdlib.h>

enum {
    PLACE_BITS = 11, /* 2,048 places of 128 bytes */
    NAME_BYTES_MAX = 64,
    SETS_MAX = 6
};

struct cached {
    uint64_t hash;
    uint32_t generation;
    uint16_t name_len; /* 0: never filled */
    uint16_t count;
    struct filter_set *sets[SETS_MAX];
    uint8_t name[NAME_BYTES_MAX];
};
static_assert(sizeof(struct cached) == 128, "two cache lines: what decides, and the name");

void filter_cache_deinit(struct filter_cache *c)
{
    free(c->places);
    *c = (struct filter_cache){0};
}

static struct cached *place_of(const struct filter_cache *c, uint64_t topic_hash)
{
    return &c->places[topic_hash >> (64 - PLACE_BITS)];
}

bool filter_cache_get(const struct filter_cache *c, struct slice topic, uint64_t topic_hash,
                      struct filter_hits *hits)
{
    if (!c->places)
        return false;
    const struct cached *p = place_of(c, topic_hash);
    if (p->generation != c->generation || p->hash != topic_hash ||
        !slice_equal(topic, slice_of(p->name, p->name_len)))
        return false;
    *hits = (struct filter_hits){p->sets, p->count};
    return true;
}

void filter_cache_put(struct filter_cache *c, struct slice topic, uint64_t topic_hash,
                      struct filter_hits hits)
{
    if (topic.len > NAME_BYTES_MAX || hits.count > SETS_MAX)
        return;
    if (!c->places) {
        c->places = calloc((size_t)1 << PLACE_BITS, sizeof(*c->places));
        if (!c->places)
            return;
    }
    struct cached *p = place_of(c, topic_hash);
    p->hash = topic_hash;
    p->generation = c->generation;
    p->name_len = (uint16_t)topic.len;
    p->count = (uint16_t)hits.count;
    memcpy(p->name, topic.data, topic.len);
    if (hits.count > 0)
        memcpy(p->sets, hits.sets, hits.count * sizeof(struct filter_set *));
}

void filter_cache_clear(struct filter_cache *c)
{
    if (++c->generation != 0 || !c->places)
        return;
    /* Once in 2^32 changes an old place would look fresh: now none is left. */
    memset(c->places, 0, sizeof(*c->places) << PLACE_BITS);
}

size_t filter_cache_bytes(const struct filter_cache *c)
{
    return c->places ? sizeof(*c->places) << PLACE_BITS : 0;
}
