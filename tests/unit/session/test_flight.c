#include "session/flight.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct flights f;

static void teardown(void)
{
    flights_deinit(&f);
}

TestSuite(flight, .fini = teardown);

static uint16_t take(void)
{
    uint16_t id = 0;
    struct flight *flight;
    cr_assert_eq(flights_take(&f, &id, &flight), ST_OK);
    cr_assert(flight->state == FLIGHT_SENT && flight->open && !flight->msg);
    return id;
}

/* Gives identifiers out and back until the next one is `id`. */
static void wind_to(uint16_t id)
{
    for (;;) {
        uint16_t got = take();
        flights_end(&f, got);
        if ((got == 65535 ? 1 : got + 1) == id)
            return;
    }
}

Test(flight, gives_ascending_identifiers_from_1)
{
    flights_init(&f, 10);
    for (uint16_t want = 1; want <= 10; want++)
        cr_expect_eq(take(), want);
}

Test(flight, is_full_at_its_maximum_and_open_after_one_came_back)
{
    uint16_t id = 99;
    struct flight *flight;
    flights_init(&f, 3);
    for (int i = 0; i < 3; i++)
        take();
    cr_expect(flights_full(&f));
    cr_expect_eq(flights_take(&f, &id, &flight), ST_AGAIN);
    cr_expect_eq(id, 99, "untouched unless ST_OK");
    flights_end(&f, 2);
    cr_expect_not(flights_full(&f));
    cr_expect_eq(take(), 4);
}

Test(flight, finds_only_what_is_in_flight)
{
    flights_init(&f, 100);
    cr_expect_null(flights_find(&f, 1), "nothing given yet");
    take();
    take();
    cr_expect_null(flights_find(&f, 0));
    cr_expect_null(flights_find(&f, 3), "not given yet");
    cr_expect_null(flights_find(&f, 65535));
    flights_end(&f, 2);
    cr_expect_null(flights_find(&f, 2), "ended");
    cr_expect_not_null(flights_find(&f, 1));
    flights_end(&f, 1);
    cr_expect_null(flights_find(&f, 1), "and the range is empty");
    cr_expect_eq(f.count, 0);
}

Test(flight, goes_from_65535_to_1)
{
    flights_init(&f, 8);
    wind_to(65534);
    const uint16_t want[] = {65534, 65535, 1, 2};
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(take(), want[i]);
    const uint16_t end[] = {1, 65534, 2, 65535};
    for (size_t i = 0; i < 4; i++)
        flights_end(&f, end[i]);
    cr_expect_eq(f.count, 0);
    cr_expect_eq(f.span, 0);
}

Test(flight, never_gives_an_identifier_twice_while_the_oldest_stays_open)
{
    uint16_t id;
    struct flight *flight;
    unsigned given = 1;
    flights_init(&f, 65535);
    cr_assert_eq(take(), 1);
    for (; flights_take(&f, &id, &flight) == ST_OK; given++) {
        cr_assert_neq(id, 1);
        flights_end(&f, id);
        cr_assert_lt(given, 70000u, "the range has an end");
    }
    cr_expect_eq(f.count, 1);
    flights_end(&f, 1);
    cr_expect_eq(flights_take(&f, &id, &flight), ST_OK);
}

/* Against an array of 65,536 marks; each place keeps what was put into it, while the ring grows. */
Test(flight, random_against_a_model)
{
    enum { MAX = 300, STEPS = 200000 };
    unsigned seed = test_seed();
    static uint64_t open[65536]; /* the offset, 0: none */
    unsigned count = 0;
    uint16_t next = 1;
    flights_init(&f, MAX);
    for (unsigned step = 0; step < STEPS; step++) {
        uint16_t id = (uint16_t)rand_r(&seed);
        struct flight *flight;
        if (rand_r(&seed) % 2) {
            enum status st = flights_take(&f, &id, &flight);
            if (st == ST_AGAIN && count < MAX) /* the oldest holds the range up */
                cr_assert_geq(f.span, 32768u, "step=%u", step);
            if (st != ST_OK)
                continue;
            cr_assert_eq(id, next, "step=%u", step);
            cr_assert_eq(open[id], 0u, "step=%u", step);
            cr_assert_lt(count, (unsigned)MAX);
            flight->offset = open[id] = step + 1;
            count++;
            next = next == 65535 ? 1 : (uint16_t)(next + 1);
            continue;
        }
        if (rand_r(&seed) % 4) /* mostly one near the newest */
            id = (uint16_t)(next - rand_r(&seed) % 400);
        flight = flights_find(&f, id);
        cr_assert_eq(flight != NULL, open[id] > 0, "step=%u id=%u", step, id);
        if (!flight)
            continue;
        cr_assert_eq(flight->offset, open[id]);
        flights_end(&f, id);
        count--;
        open[id] = 0;
        cr_assert_eq(f.count, count, "step=%u", step);
        cr_assert_eq(f.open, count, "step=%u", step);
    }
}

Test(flight, restores_what_was_left_with_its_gaps_and_goes_on_behind_it)
{
    const uint16_t ids[] = {65533, 65535, 1, 40};
    flights_init(&f, 5);
    for (unsigned i = 0; i < 4; i++) {
        const struct flight left = {.offset = 100 + i, .qos = 2, .state = FLIGHT_OWED};
        cr_assert_eq(flights_restore(&f, ids[i], &left), ST_OK);
    }
    cr_expect_eq(f.count, 4);
    cr_expect_eq(f.open, 0, "nothing of it was sent on this connection yet");
    cr_expect_null(flights_find(&f, 65534));
    cr_expect_null(flights_find(&f, 2));
    uint32_t place = 0;
    uint16_t id;
    for (unsigned i = 0; i < 4; i++) {
        struct flight *flight = flights_next(&f, &place, &id);
        cr_assert_not_null(flight);
        cr_expect_eq(id, ids[i]);
        cr_expect_eq(flight->offset, 100u + i);
        flights_reopen(&f, flight);
    }
    cr_expect_null(flights_next(&f, &place, &id));
    cr_expect_eq(f.open, 4);
    cr_expect_eq(take(), 41);
    cr_expect(flights_full(&f));
    flights_end(&f, 65533);
    cr_expect_eq(f.open, 4);
    cr_expect_eq(f.oldest, 65535);
}

Test(flight, refuses_what_cannot_have_been_left)
{
    const struct flight left = {.state = FLIGHT_OWED};
    flights_init(&f, 5);
    cr_expect_eq(flights_restore(&f, 0, &left), ST_INVALID);
    cr_assert_eq(flights_restore(&f, 100, &left), ST_OK);
    cr_expect_eq(flights_restore(&f, 100, &left), ST_INVALID, "twice");
    cr_expect_eq(flights_restore(&f, 99, &left), ST_INVALID, "not in order");
    cr_expect_eq(flights_restore(&f, 40000, &left), ST_INVALID, "too far");
    cr_expect_eq(f.count, 1);
}
