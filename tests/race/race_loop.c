/* Loops in threads of their own, one of them inside a host: letters that wander from loop to loop and
 * from foreign threads all arrive, in turns that mostly sleep, and loop_stop from anywhere ends them. */
#include "core/loop.h"
#include "race/check.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOPS = 4, POSTERS = 3, LETTERS = 2000, HOPS = 20, DEADLINE_MS = 20000 };

struct wanderer {
    struct mail mail;
    unsigned hops, at;
};

/* What is here belongs to the loop's thread; main looks after it has joined that. */
struct station {
    struct loop *loop;
    pthread_t thread;
    struct loop_hook hook;
    struct timer timer;
    unsigned long turns, arrived, ticks;
};

static struct station stations[LOOPS];
static atomic_ulong finished;

static void on_wanderer(struct mail *mail)
{
    struct wanderer *w = (struct wanderer *)mail;
    CHECK(loop_is_current(stations[w->at].loop));
    stations[w->at].arrived++;
    if (++w->hops < HOPS) {
        w->at = (w->at + 1) % LOOPS;
        loop_post(stations[w->at].loop, &w->mail);
        return;
    }
    free(w);
    if (atomic_fetch_add(&finished, 1) + 1 == (unsigned long)POSTERS * LETTERS)
        for (unsigned i = 0; i < LOOPS; i++)
            loop_stop(stations[i].loop);
}

static bool on_turn_end(struct loop_hook *h)
{
    struct station *s = LIST_OF(h, struct station, hook);
    CHECK(loop_is_current(s->loop));
    return ++s->turns % 16 == 0; /* now and then: once more without waiting */
}

static void on_tick(struct timer *t)
{
    struct station *s = LIST_OF(t, struct station, timer);
    s->ticks++;
    timer_arm(loop_timers(s->loop), t, loop_now_ms(s->loop) + 5);
}

static void *run(void *arg)
{
    struct station *s = arg;
    loop_run(s->loop);
    return NULL;
}

/* As libev would run it. No timer is armed in this one, so a lost wake would run into the deadline. */
static void *host(void *arg)
{
    struct station *s = arg;
    while (!loop_stopping(s->loop)) {
        uint64_t wait_ms = loop_prepare(s->loop);
        struct pollfd poll_fd = {.fd = loop_poll_fd(s->loop), .events = POLLIN};
        CHECK(wait_ms == 0 || wait_ms == UINT64_MAX);
        CHECK(poll(&poll_fd, 1, wait_ms ? DEADLINE_MS : 0) == 1 || wait_ms == 0);
        loop_dispatch(s->loop);
    }
    return NULL;
}

static void *post(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    for (unsigned i = 0; i < LETTERS; i++) {
        struct wanderer *w = malloc(sizeof *w);
        CHECK(w);
        *w = (struct wanderer){.mail.on_arrival = on_wanderer, .at = (unsigned)rand_r(&seed) % LOOPS};
        CHECK(!loop_is_current(stations[w->at].loop));
        loop_post(stations[w->at].loop, &w->mail);
        if (i % 4 == 0)
            sched_yield();
    }
    return NULL;
}

int main(void)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        struct station *s = &stations[i];
        CHECK(loop_create(clock_system(), i, &s->loop) == ST_OK);
        s->hook.on_turn_end = on_turn_end;
        loop_hook_add(s->loop, &s->hook);
        timer_init(&s->timer, on_tick);
        if (i > 1)
            timer_arm(loop_timers(s->loop), &s->timer, loop_now_ms(s->loop) + 1);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        CHECK(pthread_create(&stations[i].thread, NULL, i == 0 ? host : run, &stations[i]) == 0);
    pthread_t posters[POSTERS];
    unsigned seeds[POSTERS];
    for (unsigned i = 0; i < POSTERS; i++) {
        seeds[i] = i + 1;
        CHECK(pthread_create(&posters[i], NULL, post, &seeds[i]) == 0);
    }
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(posters[i], NULL);
    unsigned long arrived = 0;
    for (unsigned i = 0; i < LOOPS; i++) {
        pthread_join(stations[i].thread, NULL);
        CHECK(loop_stopping(stations[i].loop) && stations[i].turns > 0);
        arrived += stations[i].arrived;
    }
    CHECK(arrived == (unsigned long)POSTERS * LETTERS * HOPS);
    for (unsigned i = 0; i < LOOPS; i++) {
        if (timer_armed(&stations[i].timer))
            timer_cancel(loop_timers(stations[i].loop), &stations[i].timer);
        loop_destroy(stations[i].loop);
    }
    return 0;
}
