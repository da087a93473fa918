/* A loop's part of a drain: its clients are told to go elsewhere, so many a second, each when what it has
 * published is answered. Owning loop only. */
#ifndef TG_GATEWAY_DRAIN_H
#define TG_GATEWAY_DRAIN_H

#include "gateway/edge.h"

enum { DRAIN_SPREAD_MS = 4000 }; /* at least */

/* Spread, so that all the clients of a node do not come back at once. */
static inline uint32_t drain_retry_ms(uint64_t spread_ms, uint64_t seed)
{
    enum { LEAST_MS = 500 };
    return (uint32_t)(LEAST_MS + seed * 2654435761u % spread_ms);
}

struct drain {
    struct edge *edge;
    struct web_door *web;
    struct mqtt_door *mqtt;
    struct timer timer;
    uint64_t rate; /* connections a second, of this loop and all others together; 0 = all at once */
    unsigned loop_count;
    uint64_t last_ms;
    uint64_t credit; /* thousandths of a connection, times loop_count */
    atomic_uint *drained; /* counts the loops that are done */
};

/* No new connections from here on. */
void drain_begin(struct drain *d);
void drain_end(struct drain *d); /* whether it is done or not; safe when it has not begun */

#endif
