#include "core/clock.h"

#include <assert.h>
#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);
    assert(rc == 0);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t system_mono_ns(void *ctx)
{
    (void)ctx;
    return read_ns(CLOCK_MONOTONIC);
}

static uint64_t system_wall_ms(void *ctx)
{
    (void)ctx;
    return read_ns(CLOCK_REALTIME) / 1000000u;
}

const struct clock *clock_system(void)
{
    static const struct clock kernel = {.mono_ns = system_mono_ns, .wall_ms = system_wall_ms};
    return &kernel;
}
