/* A few threads for one piece of work that falls into independent parts, while the caller waits: start-up and
 * tools, never a loop. */
#ifndef TG_CORE_CREW_H
#define TG_CORE_CREW_H

#include <stdint.h>

enum { CREW_MAX = 8 };

/* As many as this process has CPUs, CREW_MAX at most. */
unsigned crew_cpus(void);

/* Calls fn(ctx, worker, n) once for each n below `count`, begun in ascending order, from `workers` threads
 * (1 to CREW_MAX; fewer when they cannot be made), one of which is the caller's. `worker` is below `workers`
 * and one call at a time has it. Returns when all calls have. */
void crew_run(unsigned workers, uint32_t count, void (*fn)(void *ctx, unsigned worker, uint32_t n),
              void *ctx);

#endif
