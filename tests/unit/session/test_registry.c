#include "session/registry.h"

#include "fakes/seed.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

/* Loops driven by the test, one turn at a time, all on this thread: every order can be made. */
enum { LOOPS = 3, CLIENTS = 8 };

static struct loop *loops[LOOPS];
static struct courier *couriers[LOOPS];
static struct registry *registries[LOOPS];

struct client {
    struct claim claim;
    char id[16];
    char story[16]; /* c: claimed, t: taken over, r: released */
};

static void setup(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        cr_assert_eq(loop_create(clock_system(), i, &loops[i]), ST_OK);
        cr_assert_eq(courier_create(loops[i], &couriers[i]), ST_OK);
        cr_assert_eq(registry_create(couriers[i], &registries[i]), ST_OK);
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        for (unsigned k = 0; k < LOOPS; k++) {
            courier_meet(couriers[i], k, loops[k]);
            registry_meet(registries[i], k, registries[k], LOOPS);
        }
        courier_start(couriers[i]);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        registry_destroy(registries[i]);
        courier_destroy(couriers[i]);
        loop_destroy(loops[i]);
    }
}

TestSuite(registry, .init = setup, .fini = teardown);

static void turn(unsigned loop)
{
    loop_dispatch(loops[loop]);
    loop_prepare(loops[loop]);
}

static void settle(void)
{
    for (unsigned n = 0; n < 6; n++)
        for (unsigned i = 0; i < LOOPS; i++)
            turn(i);
}

static void add(struct claim *claim, char what)
{
    struct client *c = LIST_OF(claim, struct client, claim);
    size_t len = strlen(c->story);
    cr_assert_lt(len, sizeof c->story - 1);
    c->story[len] = what;
}

static void on_claimed(struct claim *c)
{
    add(c, 'c');
}

static void on_taken_over(struct claim *c)
{
    add(c, 't');
}

static void on_released(struct claim *c)
{
    add(c, 'r');
}

static void client_claim(struct client *c, unsigned loop, const char *id)
{
    memset(c, 0, sizeof *c);
    snprintf(c->id, sizeof c->id, "%s", id);
    c->claim.id = slice_cstr(c->id);
    c->claim.on_claimed = on_claimed;
    c->claim.on_taken_over = on_taken_over;
    c->claim.on_released = on_released;
    registry_claim(registries[loop], &c->claim);
}

/* One that waits for the release of whoever is before it. */
static void client_claim_patiently(struct client *c, unsigned loop, const char *id)
{
    client_claim(c, loop, id);
    c->claim.patient = true; /* the letter is still on its way: nothing is a call */
}

static size_t held(void)
{
    size_t n = 0;
    for (unsigned i = 0; i < LOOPS; i++)
        n += registry_count(registries[i]);
    return n;
}

Test(registry, answers_never_inside_the_call)
{
    struct client a;
    for (unsigned i = 0; i < LOOPS; i++) {
        char id[8];
        snprintf(id, sizeof id, "c%u", i);
        client_claim(&a, 0, id); /* some of them are at home on loop 0 */
        cr_expect_str_eq(a.story, "");
        settle();
        cr_expect_str_eq(a.story, "c");
        registry_release(registries[0], &a.claim);
        cr_expect_str_eq(a.story, "c");
        settle();
        cr_expect_str_eq(a.story, "cr");
    }
    cr_expect_eq(held(), 0);
}

Test(registry, a_second_claim_takes_over_from_any_loop)
{
    for (unsigned first = 0; first < LOOPS; first++) {
        for (unsigned second = 0; second < LOOPS; second++) {
            struct client a, b;
            client_claim(&a, first, "client");
            settle();
            client_claim(&b, second, "client");
            settle();
            cr_expect_str_eq(a.story, "ct");
            cr_expect_str_eq(b.story, "c");
            cr_expect_eq(held(), 1);
            registry_release(registries[first], &a.claim);
            registry_release(registries[second], &b.claim);
            settle();
            cr_expect_str_eq(a.story, "ctr");
            cr_expect_str_eq(b.story, "cr");
            cr_expect_eq(held(), 0);
        }
    }
}

Test(registry, other_identifiers_are_left_alone)
{
    struct client a, b, c;
    client_claim(&a, 0, "a");
    client_claim(&b, 1, "A");
    client_claim(&c, 2, "");
    settle();
    cr_expect_str_eq(a.story, "c");
    cr_expect_str_eq(b.story, "c");
    cr_expect_str_eq(c.story, "c");
    cr_expect_eq(held(), 3);
}

Test(registry, a_take_over_that_crosses_a_release_comes_before_released)
{
    /* Both in flight at once, in either order at the registry. */
    for (int release_first = 0; release_first < 2; release_first++) {
        struct client a, b;
        client_claim(&a, 0, "crossing");
        settle();
        if (release_first)
            registry_release(registries[0], &a.claim);
        client_claim(&b, 1, "crossing");
        if (!release_first)
            registry_release(registries[0], &a.claim);
        for (unsigned n = 0; n < 6; n++) { /* loop 1 posts before loop 0 does, or after */
            turn(release_first ? 0 : 1);
            turn(release_first ? 1 : 0);
            turn(2);
        }
        cr_expect(strcmp(a.story, "cr") == 0 || strcmp(a.story, "ctr") == 0, "%s", a.story);
        cr_expect_str_eq(b.story, "c");
        registry_release(registries[1], &b.claim);
        settle();
        cr_expect_eq(held(), 0);
    }
}

Test(registry, grows_and_keeps_everything)
{
    enum { MANY = 1000 };
    struct client *all = calloc(MANY, sizeof *all);
    struct client again;
    for (unsigned i = 0; i < MANY; i++) {
        char id[16];
        snprintf(id, sizeof id, "client-%u", i);
        client_claim(&all[i], i % LOOPS, id);
    }
    settle();
    cr_expect_eq(held(), MANY);
    for (unsigned i = 0; i < MANY; i += 97) {
        client_claim(&again, 0, all[i].id);
        settle();
        cr_expect_str_eq(all[i].story, "ct", "i=%u", i);
        registry_release(registries[0], &again.claim);
        settle();
    }
    for (unsigned i = 0; i < MANY; i++)
        registry_release(registries[i % LOOPS], &all[i].claim);
    settle();
    cr_expect_eq(held(), 0);
    free(all);
}

/* Clients that come, are thrown out and go, while loops run in any order. Of one identifier the last claim
 * that reached the registry holds it; nothing is told after `released`, nothing twice. */
Test(registry, random_claims_and_releases)
{
    struct client clients[CLIENTS];
    enum { FREE, CLAIMING, RELEASING } state[CLIENTS] = {FREE};
    unsigned home[CLIENTS];
    unsigned seed = test_seed();
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)rand_r(&seed) % CLIENTS;
        if (state[i] == FREE) {
            home[i] = (unsigned)rand_r(&seed) % LOOPS;
            client_claim(&clients[i], home[i], rand_r(&seed) % 2 ? "x" : "y");
            state[i] = CLAIMING;
        } else if (state[i] == CLAIMING && clients[i].story[0] == 'c') {
            registry_release(registries[home[i]], &clients[i].claim);
            state[i] = RELEASING;
        }
        turn((unsigned)rand_r(&seed) % LOOPS);
        for (unsigned k = 0; k < CLIENTS; k++) {
            if (state[k] == FREE)
                continue;
            const char *s = clients[k].story;
            cr_assert(!strcmp(s, "") || !strcmp(s, "c") || !strcmp(s, "ct") || !strcmp(s, "cr") ||
                          !strcmp(s, "ctr"),
                      "step=%u %s", step, s);
            if (state[k] == RELEASING && strchr(s, 'r')) {
                cr_assert_not(clients[k].claim.held);
                state[k] = FREE;
                memset(&clients[k], 0xa5, sizeof clients[k]); /* a late letter would show */
            }
        }
        cr_assert_leq(held(), 2u);
    }
    settle();
}

Test(registry, a_patient_claim_waits_for_the_release)
{
    for (unsigned first = 0; first < LOOPS; first++) {
        struct client a, b, c;
        client_claim_patiently(&a, first, "client");
        settle();
        cr_expect_str_eq(a.story, "c", "nobody was before it");
        client_claim_patiently(&b, 1, "client");
        settle();
        client_claim_patiently(&c, 2, "client");
        settle();
        cr_expect_str_eq(a.story, "ct");
        cr_expect_str_eq(b.story, "t", "taken over before it was its turn");
        cr_expect_str_eq(c.story, "");
        registry_release(registries[first], &a.claim);
        settle();
        cr_expect_str_eq(a.story, "ctr");
        cr_expect_str_eq(b.story, "tc", "it is told all the same");
        cr_expect_str_eq(c.story, "");
        registry_release(registries[1], &b.claim);
        settle();
        cr_expect_str_eq(b.story, "tcr");
        cr_expect_str_eq(c.story, "c");
        cr_expect_eq(held(), 1);
        registry_release(registries[2], &c.claim);
        settle();
        cr_expect_eq(held(), 0);
    }
}
