/* Which sets a topic name matched last time. Private to the filter table. Bounded: a fixed number of
 * places, names and results up to a fixed size; what does not fit is walked for again. The memory is
 * taken at the first put. Owning loop only. */
#ifndef TG_ROUTING_FILTER_CACHE_H
#define TG_ROUTING_FILTER_CACHE_H

#include "routing/filter_set.h"

struct cached;

/* Zeroes are an empty cache. */
struct filter_cache {
    struct cached *places;
    uint32_t generation;
};

void filter_cache_deinit(struct filter_cache *c);

/* The sets found are the cache's, valid until the next put. */
bool filter_cache_get(const struct filter_cache *c, struct slice topic, uint64_t topic_hash,
                      struct filter_hits *hits);
void filter_cache_put(struct filter_cache *c, struct slice topic, uint64_t topic_hash,
                      struct filter_hits hits);

/* A filter has appeared or disappeared: forgets everything, in constant time. */
void filter_cache_clear(struct filter_cache *c);

size_t filter_cache_bytes(const struct filter_cache *c);

#endif
