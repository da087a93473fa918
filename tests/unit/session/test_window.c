#include "session/window.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct window w;

static void teardown(void)
{
    window_deinit(&w);
}

TestSuite(window, .fini = teardown);

static uint16_t take(void)
{
    uint16_t id = 0;
    cr_assert_eq(window_take(&w, &id), ST_OK);
    return id;
}

/* Gives identifiers out and back until the next one is `id`. */
static void wind_to(uint16_t id)
{
    for (;;) {
        uint16_t got = take();
        cr_assert_eq(window_give_back(&w, got), ST_OK);
        if ((got == 65535 ? 1 : got + 1) == id)
            return;
    }
}

Test(window, gives_ascending_identifiers_from_1)
{
    window_init(&w, 10);
    for (uint16_t want = 1; want <= 10; want++)
        cr_expect_eq(take(), want);
}

Test(window, is_full_at_its_maximum_and_open_after_one_came_back)
{
    uint16_t id = 99;
    window_init(&w, 3);
    for (int i = 0; i < 3; i++)
        take();
    cr_expect_not(window_open(&w));
    cr_expect_eq(window_take(&w, &id), ST_AGAIN);
    cr_expect_eq(id, 99, "untouched unless ST_OK");
    cr_expect_eq(window_give_back(&w, 2), ST_OK);
    cr_expect(window_open(&w));
    cr_expect_eq(take(), 4);
}

Test(window, takes_back_only_what_is_in_flight)
{
    window_init(&w, 100);
    cr_expect_eq(window_give_back(&w, 1), ST_NOT_FOUND, "nothing given yet");
    take();
    take();
    cr_expect_eq(window_give_back(&w, 0), ST_NOT_FOUND);
    cr_expect_eq(window_give_back(&w, 3), ST_NOT_FOUND, "not given yet");
    cr_expect_eq(window_give_back(&w, 65535), ST_NOT_FOUND);
    cr_expect_eq(window_give_back(&w, 2), ST_OK);
    cr_expect_eq(window_give_back(&w, 2), ST_NOT_FOUND, "twice");
    cr_expect_eq(window_give_back(&w, 1), ST_OK);
    cr_expect_eq(window_give_back(&w, 1), ST_NOT_FOUND, "twice, and the range is empty");
    cr_expect_eq(w.count, 0);
}

Test(window, goes_from_65535_to_1)
{
    window_init(&w, 8);
    wind_to(65534);
    const uint16_t want[] = {65534, 65535, 1, 2};
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(take(), want[i]);
    cr_expect_eq(window_give_back(&w, 1), ST_OK);
    cr_expect_eq(window_give_back(&w, 1), ST_NOT_FOUND);
    cr_expect_eq(window_give_back(&w, 65534), ST_OK);
    cr_expect_eq(window_give_back(&w, 2), ST_OK);
    cr_expect_eq(window_give_back(&w, 65535), ST_OK);
    cr_expect_eq(w.count, 0);
    cr_expect_eq(w.span, 0);
}

Test(window, never_gives_an_identifier_twice_while_the_oldest_stays_open)
{
    uint16_t id;
    unsigned given = 1;
    window_init(&w, 65535);
    cr_assert_eq(take(), 1);
    for (; window_take(&w, &id) == ST_OK; given++) {
        cr_assert_neq(id, 1);
        cr_assert_eq(window_give_back(&w, id), ST_OK);
        cr_assert_lt(given, 70000u, "the range has an end");
    }
    cr_expect_eq(w.count, 1);
    cr_expect_eq(window_give_back(&w, 1), ST_OK);
    cr_expect_eq(window_take(&w, &id), ST_OK);
}

Test(window, holds_half_the_identifiers_at_once)
{
    uint16_t id;
    unsigned held = 0;
    window_init(&w, 65535);
    wind_to(50000);
    while (window_take(&w, &id) == ST_OK)
        held++;
    cr_assert_geq(held, 32767u);
    uint32_t first = 50000;
    for (unsigned i = 0; i < held; i++) {
        uint32_t n = first + i;
        cr_assert_eq(window_give_back(&w, (uint16_t)(n > 65535 ? n - 65535 : n)), ST_OK, "i=%u", i);
    }
    cr_expect_eq(w.count, 0);
}

/* Against an array of 65,536 marks. */
Test(window, random_against_a_model)
{
    enum { MAX = 300, STEPS = 200000 };
    unsigned seed = test_seed();
    static bool open[65536];
    unsigned count = 0;
    uint16_t next = 1;
    window_init(&w, MAX);
    for (unsigned step = 0; step < STEPS; step++) {
        uint16_t id = (uint16_t)rand_r(&seed);
        if (rand_r(&seed) % 2) {
            enum status st = window_take(&w, &id);
            if (st == ST_AGAIN && count < MAX) /* the oldest holds the range up */
                cr_assert_geq(w.span, 32768u, "step=%u", step);
            if (st != ST_OK)
                continue;
            cr_assert_eq(id, next, "step=%u", step);
            cr_assert_not(open[id], "step=%u", step);
            cr_assert_lt(count, (unsigned)MAX);
            open[id] = true;
            count++;
            next = next == 65535 ? 1 : (uint16_t)(next + 1);
            continue;
        }
        if (rand_r(&seed) % 4) /* mostly one near the newest */
            id = (uint16_t)(next - rand_r(&seed) % 400);
        cr_assert_eq(window_give_back(&w, id), open[id] ? ST_OK : ST_NOT_FOUND, "step=%u id=%u", step, id);
        count -= open[id];
        open[id] = false;
        cr_assert_eq(w.count, count, "step=%u", step);
    }
}
