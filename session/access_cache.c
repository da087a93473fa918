#include "session/access_cache.h"

#include "core/hash.h"

#include <stdlib.h>

enum { GROWTH = 4 };

static uint64_t *place_of(struct access_cache *c, uint64_t hash)
{
    return &c->places[(hash >> 1) & (c->count - 1)];
}

static struct access_cache *make(uint32_t count)
{
    struct access_cache *c = calloc(1, sizeof *c + count * sizeof c->places[0]);
    if (c)
        c->count = count;
    return c;
}

/* Without memory it stays as it is. */
static void grow(struct access_cache **cache)
{
    struct access_cache *old = *cache, *c = make(old->count * GROWTH);
    old->displaced = 0;
    if (!c)
        return;
    for (uint32_t i = 0; i < old->count; i++)
        if (old->places[i] != 0)
            *place_of(c, old->places[i]) = old->places[i];
    free(old);
    *cache = c;
}

bool access_may_publish(struct access_cache **cache, const struct principal *p, struct slice topic,
                        struct slice client_id)
{
    if (principal_is_free(p))
        return true;
    if (!*cache)
        *cache = make(ACCESS_CACHE_PLACES_MIN);
    if (!*cache) /* no memory: then without */
        return principal_may(p, ACL_PUBLISH, topic, client_id);
    uint64_t hash = hash64(topic);
    uint64_t *place = place_of(*cache, hash);
    if ((*place ^ hash) >> 1 == 0 && *place != 0)
        return *place & 1;
    if (*place != 0 && ++(*cache)->displaced >= (*cache)->count && (*cache)->count < ACCESS_CACHE_PLACES_MAX)
        grow(cache);
    place = place_of(*cache, hash);
    *place = (hash & ~UINT64_C(1)) | principal_may(p, ACL_PUBLISH, topic, client_id);
    return *place & 1;
}
