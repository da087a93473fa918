/* The seed of a random test: another one each run, printed, and given again by TEST_SEED=n. */
#ifndef TG_TESTS_SEED_H
#define TG_TESTS_SEED_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static inline unsigned test_seed(void)
{
    const char *given = getenv("TEST_SEED");
    unsigned seed =
        given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL) * 31 + (unsigned)getpid();
    printf("TEST_SEED=%u\n", seed);
    fflush(stdout);
    return seed;
}

#endif
