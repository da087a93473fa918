/* What a connection may publish, remembered by topic: rules are walked once a topic, not once a message. Of
 * the topics that share a place the newest stays. Owning loop only; to be freed when the principal changes.
 */
#ifndef TG_SESSION_ACCESS_CACHE_H
#define TG_SESSION_ACCESS_CACHE_H

#include "session/principal.h"

enum { ACCESS_CACHE_PLACES = 16 };

/* hash64 of the topic with the verdict as its lowest bit. The hash is keyed and has 63 bits here: no client
 * finds two topics that agree in it. 0 = nothing. */
struct access_cache {
    uint64_t places[ACCESS_CACHE_PLACES];
};

/* May `p` publish to the topic, which does not begin with '$'? *cache is NULL until it is needed; the caller
 * frees it. */
bool access_may_publish(struct access_cache **cache, const struct principal *p, struct slice topic,
                        struct slice client_id);

#endif
