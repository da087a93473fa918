/* Timer wheel: arm, re-arm and cancel in O(1), for a keep-alive on each of 100,000 connections.
 * Four levels of 256 slots at 4 ms: 1 s, 4.4 min, 18.6 h, 198 days; longer is clamped. A timer never
 * fires early; it may fire up to one tick (4 ms) late. Owning loop only. */
#ifndef TG_CORE_TIMER_H
#define TG_CORE_TIMER_H

#include "core/list.h"

#include <stdint.h>

enum { TIMER_TICK_MS = 4, TIMER_LEVELS = 4, TIMER_SLOTS = 256 };

struct timer {
    struct list link; /* self-pointing when not armed */
    uint64_t due_ms;
    void (*on_fire)(struct timer *t); /* not armed any more when called; may arm itself or free it */
};

struct timer_wheel {
    uint64_t now_tick;
    uint64_t count; /* armed timers */
    uint64_t occupied[TIMER_LEVELS][TIMER_SLOTS / 64]; /* a bit for each slot that holds a timer */
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ms);

void timer_init(struct timer *t, void (*on_fire)(struct timer *t));
/* Arms, or moves when armed. due_ms in the past fires at the next advance. */
void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t due_ms);
void timer_cancel(struct timer_wheel *w, struct timer *t); /* safe when not armed */
static inline bool timer_armed(const struct timer *t)
{
    return !list_empty(&t->link);
}

/* Fires all that are due at now_ms. Callbacks may arm and cancel any timer. */
void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms);
/* A lower bound of the time of the next timer, UINT64_MAX when there is none: sleep until then. */
uint64_t timer_wheel_next_ms(const struct timer_wheel *w);

#endif
