#include "gateway/mqtt/received.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* Against an array of 65,536 marks. */
Test(mqtt_received, random_against_a_model)
{
    enum { STEPS = 100000 };
    unsigned seed = test_seed();
    static uint64_t model[65536];
    struct received_ids r = {0};
    uint32_t count = 0;
    for (unsigned step = 1; step <= STEPS; step++) {
        /* Runs that collide, and some from all over. */
        uint16_t id =
            (uint16_t)(rand_r(&seed) % 8 ? (rand_r(&seed) % 64) * 256 + rand_r(&seed) % 8 : rand_r(&seed));
        struct received *got = received_find(&r, id);
        cr_assert_eq(got != NULL, model[id] > 0, "step=%u", step);
        if (!got) {
            got = received_add(&r, id);
            cr_assert_not_null(got);
            cr_assert(got->id == id && got->state == RECEIVED_STORING);
            got->sequence = model[id] = step;
            count++;
        } else {
            cr_assert_eq(got->sequence, model[id], "step=%u", step);
            if (rand_r(&seed) % 2)
                continue;
            received_remove(&r, id);
            model[id] = 0;
            count--;
        }
        cr_assert_eq(r.count, count);
    }
    uint32_t place = 0, seen = 0;
    for (struct received *got; (got = received_next(&r, &place)); seen++)
        cr_assert_eq(got->sequence, model[got->id]);
    cr_expect_eq(seen, count);
    received_deinit(&r);
    cr_expect_null(received_find(&r, 1));
}
