/* The in-flight window of one receiver: packet identifiers of messages that are sent and not yet acknowledged
 * (MQTT 5.0, 2.2.1 and 4.9). Identifiers are given in ascending order (1 to 65,535, then 1 again), so the
 * state is a range and a bit for each identifier in it; it takes memory only while something is in flight.
 * Owning loop only. */
#ifndef TG_SESSION_WINDOW_H
#define TG_SESSION_WINDOW_H

#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

struct window {
    uint16_t max; /* messages in flight, 1 to 65,535 */
    uint16_t count; /* in flight now */
    uint16_t oldest, next; /* identifiers oldest .. next-1 (cyclic) have been given and the oldest is open */
    uint16_t span; /* how many that are */
    uint64_t *open; /* a bit for each identifier of the range, cyclic over `bits` */
    uint32_t bits; /* power of two */
};

void window_init(struct window *w, uint16_t max);
void window_deinit(struct window *w);

/* ST_AGAIN: full (or the oldest has not been acknowledged for so long that the range is used up). */
enum status window_take(struct window *w, uint16_t *id) MUST_CHECK;
/* ST_NOT_FOUND: that identifier is not in flight. */
enum status window_give_back(struct window *w, uint16_t id) MUST_CHECK;
static inline bool window_open(const struct window *w)
{
    return w->count < w->max;
}

#endif
