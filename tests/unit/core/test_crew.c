#include "core/crew.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

enum { COUNT = 5000 };

struct tally {
    atomic_uint calls[COUNT];
    atomic_bool busy[CREW_MAX];
    atomic_uint mistakes;
    unsigned workers;
};

static void count_call(void *ctx, unsigned worker, uint32_t n)
{
    struct tally *t = ctx;
    bool alone = worker < t->workers && !atomic_exchange(&t->busy[worker], true);
    t->mistakes += !alone;
    t->calls[n]++;
    atomic_store(&t->busy[worker], false);
}

Test(crew, calls_once_for_each_number_whatever_its_size)
{
    static struct tally t;
    for (unsigned workers = 1; workers <= CREW_MAX; workers++) {
        t = (struct tally){.workers = workers};
        crew_run(workers, COUNT, count_call, &t);
        cr_assert_eq(t.mistakes, 0, "%u workers", workers);
        for (unsigned i = 0; i < COUNT; i++)
            cr_assert_eq(t.calls[i], 1, "%u workers: %u called %u times", workers, i, t.calls[i]);
    }
}

Test(crew, has_nothing_to_do_for_nothing)
{
    static struct tally t = {.workers = 4};
    crew_run(4, 0, count_call, &t);
    cr_assert_eq(t.calls[0], 0);
    cr_assert(crew_cpus() >= 1 && crew_cpus() <= CREW_MAX);
}
