#include "core/crew.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

struct crew {
    void (*fn)(void *ctx, unsigned worker, uint32_t n);
    void *ctx;
    uint32_t count;
    atomic_uint next; /* relaxed: only a number; what the calls have done is seen after the join */
};

struct crew_worker {
    struct crew *crew;
    unsigned number;
    pthread_t thread;
};

unsigned crew_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count > CREW_MAX ? (unsigned)CREW_MAX : (unsigned)count;
}

static void *work(void *arg)
{
    struct crew_worker *w = arg;
    struct crew *c = w->crew;
    uint32_t n;
    while ((n = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed)) < c->count)
        c->fn(c->ctx, w->number, n);
    return NULL;
}

void crew_run(unsigned workers, uint32_t count, void (*fn)(void *ctx, unsigned worker, uint32_t n), void *ctx)
{
    struct crew crew = {.fn = fn, .ctx = ctx, .count = count};
    struct crew_worker all[CREW_MAX];
    unsigned made = 1;
    assert(workers >= 1 && workers <= CREW_MAX);
    all[0] = (struct crew_worker){.crew = &crew};
    for (; made < workers && made < count; made++) {
        all[made] = (struct crew_worker){.crew = &crew, .number = made};
        if (pthread_create(&all[made].thread, NULL, work, &all[made]) != 0)
            break; /* then fewer do it all */
    }
    work(&all[0]);
    for (unsigned i = 1; i < made; i++)
        pthread_join(all[i].thread, NULL);
}
