/* Time as a parameter. Only core/clock.c asks the kernel, so a test owns its time. */
#ifndef TG_CORE_CLOCK_H
#define TG_CORE_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*mono_ns)(void *ctx); /* never goes back; for intervals */
    uint64_t (*wall_ms)(void *ctx); /* Unix milliseconds; for records and people */
    void *ctx;
};

/* The kernel's clocks. Any thread; static storage. */
const struct clock *clock_system(void);

static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c->ctx);
}
static inline uint64_t clock_mono_ms(const struct clock *c)
{
    return c->mono_ns(c->ctx) / 1000000u;
}
static inline uint64_t clock_wall_ms(const struct clock *c)
{
    return c->wall_ms(c->ctx);
}

#endif
