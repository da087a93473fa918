#include "routing/courier.h"

#include <criterion/criterion.h>

enum { LOOPS = 2 };

static struct loop *loops[LOOPS];
static struct courier *couriers[LOOPS];
static char story[64];

struct letter {
    struct mail mail;
    char name;
    struct courier *courier; /* `then` goes by this one when the letter has arrived */
    unsigned to;
    struct letter *then;
    bool *mark;
};

static void setup(void)
{
    memset(story, 0, sizeof story);
    for (unsigned i = 0; i < LOOPS; i++) {
        cr_assert_eq(loop_create(clock_system(), i, &loops[i]), ST_OK);
        cr_assert_eq(courier_create(loops[i], &couriers[i]), ST_OK);
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        for (unsigned k = 0; k < LOOPS; k++)
            courier_meet(couriers[i], k, loops[k]);
        courier_start(couriers[i]);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        courier_destroy(couriers[i]);
        loop_destroy(loops[i]);
    }
}

TestSuite(courier, .init = setup, .fini = teardown);

/* True: it would come again without waiting. */
static bool turn(unsigned loop)
{
    loop_dispatch(loops[loop]);
    return loop_prepare(loops[loop]) == 0;
}

static void on_arrival(struct mail *mail)
{
    struct letter *l = LIST_OF(mail, struct letter, mail);
    story[strlen(story)] = l->name;
    if (l->mark)
        *l->mark = true;
    if (l->then)
        courier_send(l->courier, l->to, &l->then->mail);
}

static struct letter letter(char name)
{
    return (struct letter){.mail.on_arrival = on_arrival, .name = name};
}

Test(courier, an_own_letter_arrives_later_and_in_the_same_turn)
{
    struct letter a = letter('a');
    courier_send(couriers[0], 0, &a.mail);
    cr_expect_str_eq(story, "");
    cr_expect(courier_pending(couriers[0]));
    turn(0);
    cr_expect_str_eq(story, "a");
    cr_expect_not(courier_pending(couriers[0]));
}

Test(courier, letters_keep_their_order_to_each_loop)
{
    struct letter l[6] = {letter('a'), letter('b'), letter('c'), letter('d'), letter('e'), letter('f')};
    for (unsigned i = 0; i < 6; i++)
        courier_send(couriers[0], i % 2, &l[i].mail);
    turn(0);
    cr_expect_str_eq(story, "ace");
    turn(1);
    cr_expect_str_eq(story, "acebdf");
}

Test(courier, what_an_own_letter_sends_comes_behind_what_waits)
{
    struct letter a = letter('a'), b = letter('b'), c = letter('c');
    a.then = &c;
    a.courier = couriers[0];
    courier_send(couriers[0], 0, &a.mail);
    courier_send(couriers[0], 0, &b.mail);
    turn(0);
    cr_expect_str_eq(story, "abc");
}

Test(courier, a_letter_there_and_back_takes_no_waiting)
{
    struct letter there = letter('t'), back = letter('b');
    there.then = &back;
    there.courier = couriers[1];
    there.to = 0;
    courier_send(couriers[0], 1, &there.mail);
    cr_expect_not(turn(0), "nothing to do until the answer comes");
    turn(1);
    turn(0);
    cr_expect_str_eq(story, "tb");
}

static bool batch_open;
static unsigned batches_closed, letters_left;

/* As a group of shards does: what letters have left open is closed, and that makes a letter. */
static void close_batch(void *ctx)
{
    struct letter *l = ctx;
    if (!batch_open)
        return;
    batch_open = false;
    batches_closed++;
    if (letters_left > 0) {
        letters_left--;
        courier_send(couriers[0], 0, &l->mail);
    }
}

/* Rounds are limited; what is left then must not be slept on. */
Test(courier, never_waits_with_an_open_batch)
{
    for (unsigned chain = 0; chain < 20; chain++) {
        static struct letter opens;
        opens = letter('o');
        opens.mark = &batch_open;
        if (chain == 0)
            courier_before(couriers[0], close_batch, &opens);
        memset(story, 0, sizeof story);
        batch_open = true;
        batches_closed = 0;
        letters_left = chain;
        while (turn(0))
            ;
        cr_expect_not(batch_open, "chain=%u", chain);
        cr_expect_eq(batches_closed, chain + 1);
        cr_expect_eq(strlen(story), chain);
    }
}
