#include "core/loop.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A clock that stands until it is told. */
static uint64_t fake_ns, fake_wall;

static uint64_t fake_mono_ns(void *ctx)
{
    (void)ctx;
    return fake_ns;
}

static uint64_t fake_wall_ms(void *ctx)
{
    (void)ctx;
    return fake_wall;
}

static const struct clock fake_clock = {.mono_ns = fake_mono_ns, .wall_ms = fake_wall_ms};

static struct loop *l;
static char order[64]; /* what happened, a letter each */

static void note(char what)
{
    size_t len = strlen(order);
    cr_assert_lt(len, sizeof order - 1);
    order[len] = what;
}

static void setup(void)
{
    fake_ns = 5000000000;
    fake_wall = 1700000000000;
    memset(order, 0, sizeof order);
    cr_assert_eq(loop_create(&fake_clock, 3, &l), ST_OK);
}

static void teardown(void)
{
    loop_destroy(l);
}

TestSuite(loop, .init = setup, .fini = teardown);

struct end {
    struct loop_watch watch;
    int peer_fd;
    char name;
    unsigned calls;
    uint32_t last_events;
    void (*then)(struct end *e);
};

static void on_event(struct loop_watch *w, uint32_t events)
{
    struct end *e = LIST_OF(w, struct end, watch);
    e->calls++;
    e->last_events = events;
    note(e->name);
    if (e->then)
        e->then(e);
}

static struct end *end_open(char name, uint32_t events)
{
    struct end *e = calloc(1, sizeof *e);
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    *e = (struct end){.watch = {.fd = fds[0], .on_event = on_event}, .peer_fd = fds[1], .name = name};
    cr_assert_eq(loop_watch_add(l, &e->watch, events), ST_OK);
    return e;
}

static void end_close(struct end *e)
{
    loop_watch_remove(l, &e->watch);
    close(e->watch.fd);
    close(e->peer_fd);
    free(e);
}

static void feed(struct end *e)
{
    cr_assert_eq(write(e->peer_fd, "x", 1), 1);
}

struct letter {
    struct mail mail;
    char name;
    void (*then)(struct letter *letter);
};

static void on_arrival(struct mail *mail)
{
    struct letter *letter = (struct letter *)mail;
    note(letter->name);
    if (letter->then)
        letter->then(letter);
}

static struct letter letter_named(char name)
{
    return (struct letter){.mail.on_arrival = on_arrival, .name = name};
}

struct hook {
    struct loop_hook hook;
    char name;
    unsigned more; /* so many times: come again */
    void (*then)(struct hook *h);
};

static bool on_turn_end(struct loop_hook *hook)
{
    struct hook *h = LIST_OF(hook, struct hook, hook);
    note(h->name);
    if (h->then)
        h->then(h);
    if (h->more == 0)
        return false;
    h->more--;
    return true;
}

static void hook_add(struct hook *h, char name)
{
    *h = (struct hook){.hook.on_turn_end = on_turn_end, .name = name};
    loop_hook_add(l, &h->hook);
}

static void on_timer(struct timer *t)
{
    (void)t;
    note('t');
}

Test(loop, a_turn_is_descriptors_letters_timers_hooks)
{
    struct hook first, second;
    hook_add(&first, '1');
    hook_add(&second, '2');
    struct timer timer;
    timer_init(&timer, on_timer);
    timer_arm(loop_timers(l), &timer, loop_now_ms(l));
    struct letter a = letter_named('a'), b = letter_named('b'), c = letter_named('c');
    loop_post(l, &a.mail);
    b.mail.next = &c.mail;
    loop_post_chain(l, &b.mail, &c.mail);
    struct end *e = end_open('e', EPOLLIN);
    feed(e);
    loop_dispatch(l);
    cr_assert_str_eq(order, "eabct");
    cr_assert_eq(loop_prepare(l), UINT64_MAX, "what is still readable is for epoll to say");
    cr_assert_str_eq(order, "eabct12");
    end_close(e);
}

Test(loop, knows_its_number_and_its_times)
{
    cr_assert_eq(loop_index(l), 3);
    cr_assert_eq(loop_clock(l), &fake_clock);
    cr_assert(loop_now_ms(l) == 5000 && loop_wall_ms(l) == 1700000000000);
    fake_ns += 10000000;
    fake_wall += 11;
    cr_assert_eq(loop_now_ms(l), 5000, "time stands within a turn");
    loop_update_time(l);
    cr_assert(loop_now_ms(l) == 5010 && loop_wall_ms(l) == 1700000000011);
    fake_ns += 1000000;
    loop_dispatch(l);
    cr_assert_eq(loop_now_ms(l), 5011);
}

Test(loop, waits_for_ever_when_there_is_nothing)
{
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    loop_dispatch(l);
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    cr_assert_eq(loop_prepare(l), UINT64_MAX, "also when the host asks again without a turn between");
}

Test(loop, waits_until_the_next_timer)
{
    struct timer timer;
    timer_init(&timer, on_timer);
    timer_arm(loop_timers(l), &timer, 5100);
    uint64_t wait_ms = loop_prepare(l);
    cr_assert(wait_ms >= 100 && wait_ms < 100 + TIMER_TICK_MS, "%lu", wait_ms);
    fake_ns += 60000000; /* the hooks or the host took their time: the rest is less */
    wait_ms = loop_prepare(l);
    cr_assert(wait_ms >= 40 && wait_ms < 40 + TIMER_TICK_MS, "%lu", wait_ms);
    fake_ns += 44000000;
    cr_assert_eq(loop_prepare(l), 0);
    loop_dispatch(l);
    cr_assert_str_eq(order, "t");
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
}

Test(loop, does_not_wait_while_a_hook_has_more)
{
    struct hook h;
    hook_add(&h, 'h');
    h.more = 2;
    cr_assert_eq(loop_prepare(l), 0);
    loop_dispatch(l);
    cr_assert_eq(loop_prepare(l), 0);
    loop_dispatch(l);
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    cr_assert_str_eq(order, "hhh");
}

static struct letter late;

static void post_late(struct hook *h)
{
    h->then = NULL;
    loop_post(l, &late.mail);
}

Test(loop, what_a_hook_posts_comes_in_the_next_turn_without_waiting)
{
    struct hook h;
    hook_add(&h, 'h');
    h.then = post_late;
    late = letter_named('l');
    cr_assert_eq(loop_prepare(l), 0);
    loop_dispatch(l);
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    cr_assert_str_eq(order, "hlh");
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

Test(loop, a_post_makes_the_poll_descriptor_readable_only_when_asleep)
{
    struct letter a = letter_named('a'), b = letter_named('b');
    loop_post(l, &a.mail);
    cr_assert_not(readable(loop_poll_fd(l)), "nobody sleeps: a wake would be for nothing");
    loop_dispatch(l);
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    cr_assert_not(readable(loop_poll_fd(l)));
    loop_post(l, &b.mail);
    cr_assert(readable(loop_poll_fd(l)));
    loop_dispatch(l);
    cr_assert_not(readable(loop_poll_fd(l)), "the wake is used up");
    cr_assert_str_eq(order, "ab");
}

Test(loop, a_wake_survives_a_second_prepare)
{
    struct letter a = letter_named('a');
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    loop_post(l, &a.mail);
    cr_assert_eq(loop_prepare(l), 0, "the host woke for something else and comes round again");
    loop_dispatch(l);
    cr_assert_str_eq(order, "a");
    cr_assert_eq(loop_prepare(l), UINT64_MAX);
    cr_assert_not(readable(loop_poll_fd(l)));
}

static struct end *victims[2];

static void close_the_other(struct end *e)
{
    for (int i = 0; i < 2; i++)
        if (victims[i] && victims[i] != e) {
            end_close(victims[i]);
            victims[i] = NULL;
        }
}

Test(loop, a_watch_removed_and_freed_in_a_callback_is_not_called_any_more)
{
    for (int i = 0; i < 2; i++) {
        victims[i] = end_open((char)('0' + i), EPOLLIN);
        victims[i]->then = close_the_other;
        feed(victims[i]);
    }
    loop_dispatch(l);
    cr_assert_eq(strlen(order), 1);
    loop_dispatch(l);
    cr_assert_eq(strlen(order), 2, "the one that is left goes on");
    close_the_other(NULL);
}

static struct end *heir;

/* The new watch very likely gets the memory and the descriptor number of the old one. */
static void replace_the_other(struct end *e)
{
    close_the_other(e);
    if (!heir)
        heir = end_open('n', EPOLLIN);
}

Test(loop, a_new_watch_does_not_inherit_the_event_of_the_old)
{
    for (int i = 0; i < 2; i++) {
        victims[i] = end_open((char)('0' + i), EPOLLIN);
        victims[i]->then = replace_the_other;
        feed(victims[i]);
    }
    loop_dispatch(l);
    cr_assert_eq(strlen(order), 1);
    cr_assert_eq(heir->calls, 0);
    feed(heir);
    loop_dispatch(l);
    cr_assert_eq(heir->calls, 1);
    end_close(heir);
    close_the_other(NULL);
}

static void close_self(struct end *e)
{
    end_close(e);
}

Test(loop, a_watch_may_remove_itself)
{
    struct end *e = end_open('e', EPOLLIN | EPOLLOUT);
    e->then = close_self;
    loop_dispatch(l);
    loop_dispatch(l);
    cr_assert_str_eq(order, "e");
}

static void mute_the_other(struct end *e)
{
    for (int i = 0; i < 2; i++)
        if (victims[i] != e)
            loop_watch_set(l, &victims[i]->watch, 0);
}

Test(loop, an_event_that_is_no_longer_wanted_is_not_told)
{
    for (int i = 0; i < 2; i++) {
        victims[i] = end_open((char)('0' + i), EPOLLIN);
        victims[i]->then = mute_the_other;
        feed(victims[i]);
    }
    loop_dispatch(l);
    cr_assert_eq(strlen(order), 1);
    for (int i = 0; i < 2; i++)
        end_close(victims[i]);
}

Test(loop, tells_readiness_and_the_end)
{
    struct end *e = end_open('e', EPOLLIN);
    loop_dispatch(l);
    cr_assert_eq(e->calls, 0);
    loop_watch_set(l, &e->watch, EPOLLIN | EPOLLOUT);
    loop_dispatch(l);
    cr_assert_eq(e->last_events, EPOLLOUT);
    feed(e);
    loop_dispatch(l);
    cr_assert_eq(e->last_events, EPOLLIN | EPOLLOUT);
    loop_watch_set(l, &e->watch, 0);
    loop_dispatch(l);
    cr_assert_eq(e->calls, 2);
    shutdown(e->peer_fd, SHUT_RDWR);
    loop_dispatch(l);
    cr_assert(e->last_events & EPOLLHUP);
    end_close(e);
}

Test(loop, more_ready_descriptors_than_one_harvest_all_get_their_turn)
{
    enum { ENDS = 400 };
    struct end *ends[ENDS];
    for (int i = 0; i < ENDS; i++) {
        ends[i] = end_open('e', EPOLLIN);
        feed(ends[i]);
    }
    for (int turn = 0; turn < 3; turn++) {
        memset(order, 0, sizeof order);
        for (int i = 0; i < ENDS; i++)
            ends[i]->name = 0; /* not noted: they are too many */
        loop_dispatch(l);
    }
    for (int i = 0; i < ENDS; i++) {
        cr_assert_gt(ends[i]->calls, 0, "descriptor %d starves", i);
        end_close(ends[i]);
    }
}

Test(loop, refuses_what_epoll_refuses)
{
    struct loop_watch w = {.fd = -1, .on_event = on_event};
    cr_assert_eq(loop_watch_add(l, &w, EPOLLIN), ST_IO);
}

static struct hook hooks[3];

static void remove_self(struct hook *h)
{
    loop_hook_remove(l, &h->hook);
}

static void remove_next(struct hook *h)
{
    h->then = NULL;
    loop_hook_remove(l, &h[1].hook);
}

static void remove_previous(struct hook *h)
{
    h->then = NULL;
    loop_hook_remove(l, &h[-1].hook);
}

Test(loop, hooks_may_be_removed_while_they_run)
{
    static const struct {
        unsigned who;
        void (*then)(struct hook *h);
        const char *want;
    } rows[] = {
        {0, remove_self, "abcbc"},     {1, remove_self, "abcac"}, {2, remove_self, "abcab"},
        {0, remove_next, "acac"},      {1, remove_next, "abab"},  {1, remove_previous, "abcbc"},
        {2, remove_previous, "abcac"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        memset(order, 0, sizeof order);
        for (unsigned h = 0; h < 3; h++)
            hook_add(&hooks[h], (char)('a' + h));
        hooks[rows[i].who].then = rows[i].then;
        cr_assert_eq(loop_prepare(l), UINT64_MAX);
        cr_assert_eq(loop_prepare(l), UINT64_MAX);
        cr_assert_str_eq(order, rows[i].want, "row %zu: %s", i, order);
        for (unsigned h = 0; h < 3; h++)
            loop_hook_remove(l, &hooks[h].hook);
    }
}

Test(loop, takes_letters_left_after_the_end)
{
    struct letter a = letter_named('a');
    loop_stop(l);
    cr_assert(loop_stopping(l));
    loop_run(l);
    loop_post(l, &a.mail);
    loop_dispatch(l);
    cr_assert_str_eq(order, "a");
}

static void stop_here(struct letter *letter)
{
    (void)letter;
    loop_stop(l);
    loop_stop(l);
}

Test(loop, finishes_the_turn_in_which_it_is_stopped)
{
    struct hook h;
    hook_add(&h, 'h');
    struct letter a = letter_named('a'), b = letter_named('b');
    a.then = stop_here;
    loop_post(l, &a.mail);
    loop_post(l, &b.mail);
    loop_run(l);
    cr_assert_str_eq(order, "habh");
}

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static atomic_bool was_current;

static void on_thread(struct letter *letter)
{
    (void)letter;
    atomic_store(&was_current, loop_is_current(l));
    loop_stop(l);
}

Test(loop, is_current_only_in_its_thread)
{
    cr_assert(loop_is_current(l), "its maker's until somebody runs it");
    pthread_t thread;
    struct letter a = letter_named('a');
    a.then = on_thread;
    loop_post(l, &a.mail);
    cr_assert_eq(pthread_create(&thread, NULL, run, l), 0);
    pthread_join(thread, NULL);
    cr_assert(atomic_load(&was_current));
    cr_assert_not(loop_is_current(l));
    loop_dispatch(l);
    cr_assert(loop_is_current(l), "the thread that dispatches takes it over");
}

Test(loop, the_systems_clock_goes_on)
{
    const struct clock *c = clock_system();
    uint64_t before = clock_mono_ns(c);
    cr_assert_gt(clock_wall_ms(c), 1700000000000);
    cr_assert_geq(clock_mono_ns(c), before);
    cr_assert_geq(clock_mono_ms(c), before / 1000000);
    struct loop *other;
    cr_assert_eq(loop_create(c, 0, &other), ST_OK);
    loop_destroy(other);
    loop_destroy(NULL);
}
