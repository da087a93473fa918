#include "session/access_cache.h"

#include "core/hash.h"

#include <stdlib.h>

bool access_may_publish(struct access_cache **cache, const struct principal *p, struct slice topic,
                        struct slice client_id)
{
    if (principal_is_free(p))
        return true;
    if (!*cache)
        *cache = calloc(1, sizeof **cache);
    if (!*cache) /* no memory: then without */
        return principal_may(p, ACL_PUBLISH, topic, client_id);
    uint64_t hash = hash64(topic);
    uint64_t *place = &(*cache)->places[(hash >> 1) % ACCESS_CACHE_PLACES];
    if ((*place ^ hash) >> 1 != 0 || *place == 0)
        *place = (hash & ~UINT64_C(1)) | principal_may(p, ACL_PUBLISH, topic, client_id);
    return *place & 1;
}
