/* What a connection may publish, remembered by topic: rules are walked once a topic, not once a message. Of
 * the topics that share a place the newest stays; when they keep displacing each other there will be more
 * places, up to ACCESS_CACHE_PLACES_MAX (2 KiB a connection). Owning loop only; to be freed when the
 * principal changes.
 */
#ifndef TG_SESSION_ACCESS_CACHE_H
#define TG_SESSION_ACCESS_CACHE_H

#include "session/principal.h"

enum { ACCESS_CACHE_PLACES_MIN = 16, ACCESS_CACHE_PLACES_MAX = 256 };

/* hash64 of the topic with the verdict as its lowest bit. The hash is keyed and has 63 bits here: no client
 * finds two topics that agree in it. 0 = nothing. */
struct access_cache {
    uint32_t count; /* of places, a power of two */
    uint32_t displaced; /* so often since there are so many */
    uint64_t places[];
};

/* May `p` publish to the topic, which does not begin with '$'? *cache is NULL until it is needed; the caller
 * frees it. */
bool access_may_publish(struct access_cache **cache, const struct principal *p, struct slice topic,
                        struct slice client_id);

#endif
