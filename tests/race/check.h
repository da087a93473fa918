/* For the plain programs of this folder: a claim that is not true ends the test. */
#ifndef TG_TESTS_RACE_CHECK_H
#define TG_TESTS_RACE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(claim)                                                                                         \
    do {                                                                                                     \
        if (!(claim)) {                                                                                      \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #claim);                            \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
