/* One thread's event loop. Three things in here are easy to get wrong:
 *
 * A watch that is removed while its event lies harvested but not yet called. Removal goes through the
 * rest of the harvest and blanks its entries, so the memory may be freed at once. Its events are also
 * masked by what it wants now, because a callback may have changed that.
 *
 * A hook that removes itself or its neighbour. The walk keeps its next node in the loop, and removal
 * moves that along.
 *
 * Falling asleep over work. loop_prepare marks the mailbox asleep as its last act, after the hooks
 * (which may post) and only when it is going to say "wait"; loop_turn takes the mark back first thing
 * after the wait, before it takes letters. loop_stop is a letter like any other. */
#include "core/loop.h"

#include "core/logging.h"
#include "core/pool.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOP_HARVEST_MAX = 256 }; /* events a turn; what is left is still there in the next one */

struct loop {
    const struct clock *clock;
    unsigned index;
    int epoll_fd;
    struct mailbox mailbox;
    struct mail stop_mail;
    atomic_bool stopping;
    _Atomic(const void *) thread; /* this_thread() of its thread, NULL: none */

    struct timer_wheel timers;
    uint64_t now_ms, wall_ms;

    struct list hooks;
    struct list *hook_next; /* of the walk that is going on */
    bool turning; /* inside loop_turn's callbacks */

    unsigned event_next, event_count; /* the harvest; entries before event_next are done */
    struct epoll_event events[LOOP_HARVEST_MAX];
};

/* A thread's name that costs no call: the address of something that each has its own of. */
static const void *this_thread(void)
{
    static __thread char mark __attribute__((tls_model("initial-exec")));
    return &mark;
}

static void adopt_thread(struct loop *l)
{
    /* Relaxed: it is compared with the reader's own mark only, which no other thread stores. */
    atomic_store_explicit(&l->thread, this_thread(), memory_order_relaxed);
}

/* --- life --- */

static enum status epoll_add(int epoll_fd, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return ST_OK;
    log_error("epoll refused a descriptor fd=%d error=\"%s\"", fd, strerror(errno));
    return ST_IO;
}

/* It has done its work by waking the loop. */
static void on_stop_mail(struct mail *mail)
{
    (void)mail;
}

enum status loop_create(const struct clock *clock, unsigned index, struct loop **out)
{
    enum status st = ST_NO_MEMORY;
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return st;
    l->clock = clock;
    l->index = index;
    l->stop_mail.on_arrival = on_stop_mail;
    st = ST_IO;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0) {
        log_error("cannot make an epoll set error=\"%s\"", strerror(errno));
        goto fail_memory;
    }
    if ((st = mailbox_open(&l->mailbox)) != ST_OK)
        goto fail_epoll;
    if ((st = epoll_add(l->epoll_fd, l->mailbox.wake_fd, EPOLLIN, NULL)) != ST_OK)
        goto fail_mailbox;
    list_init(&l->hooks);
    l->hook_next = &l->hooks;
    loop_update_time(l);
    timer_wheel_init(&l->timers, l->now_ms);
    adopt_thread(l);
    *out = l;
    return ST_OK;

fail_mailbox:
    mailbox_close(&l->mailbox);
fail_epoll:
    close(l->epoll_fd);
fail_memory:
    free(l);
    return st;
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    assert(!l->turning);
    mailbox_close(&l->mailbox);
    close(l->epoll_fd);
    free(l);
}

/* --- a turn --- */

void loop_update_time(struct loop *l)
{
    l->now_ms = clock_mono_ms(l->clock);
    l->wall_ms = clock_wall_ms(l->clock);
}

static void dispatch_events(struct loop *l)
{
    while (l->event_next < l->event_count) {
        const struct epoll_event *event = &l->events[l->event_next++];
        struct loop_watch *w = event->data.ptr;
        if (!w) /* removed since, or the mailbox's eventfd, which mailbox_awake sees to */
            continue;
        uint32_t events = event->events & (w->events | EPOLLHUP | EPOLLERR);
        if (events)
            w->on_event(w, events);
    }
}

static void dispatch_mail(struct loop *l)
{
    struct mail *mail = mailbox_take(&l->mailbox);
    while (mail) {
        struct mail *next = mail->next; /* the letter is its receiver's from the call on */
        mail->on_arrival(mail);
        mail = next;
    }
}

/* Hooks that a hook adds run in the same walk. */
static bool run_hooks(struct loop *l)
{
    bool more = false;
    l->turning = true;
    for (l->hook_next = l->hooks.next; l->hook_next != &l->hooks;) {
        struct loop_hook *h = LIST_OF(l->hook_next, struct loop_hook, link);
        l->hook_next = h->link.next;
        more |= h->on_turn_end(h);
    }
    l->turning = false;
    return more;
}

static void loop_turn(struct loop *l, uint64_t wait_ms)
{
    assert(!l->turning); /* a callback must not run its own loop */
    adopt_thread(l);
    int timeout = wait_ms == UINT64_MAX ? -1 : wait_ms > INT_MAX ? INT_MAX : (int)wait_ms;
    int count = epoll_wait(l->epoll_fd, l->events, LOOP_HARVEST_MAX, timeout);
    assert(count >= 0 || errno == EINTR);
    l->event_next = 0;
    l->event_count = count < 0 ? 0 : (unsigned)count;
    mailbox_awake(&l->mailbox);
    loop_update_time(l);
    l->turning = true;
    dispatch_events(l);
    dispatch_mail(l);
    timer_wheel_advance(&l->timers, l->now_ms);
    l->turning = false;
}

void loop_dispatch(struct loop *l)
{
    loop_turn(l, 0);
}

/* The time is asked again: the hooks took some of it, and the turn before them. */
static uint64_t timer_wait_ms(struct loop *l)
{
    uint64_t next_ms = timer_wheel_next_ms(&l->timers);
    if (next_ms == UINT64_MAX)
        return UINT64_MAX;
    uint64_t now_ms = clock_mono_ms(l->clock);
    return next_ms > now_ms ? next_ms - now_ms : 0;
}

uint64_t loop_prepare(struct loop *l)
{
    assert(!l->turning);
    adopt_thread(l);
    if (run_hooks(l))
        return 0;
    uint64_t wait_ms = timer_wait_ms(l);
    if (wait_ms > 0 && !mailbox_sleep(&l->mailbox))
        return 0;
    return wait_ms;
}

void loop_run(struct loop *l)
{
    while (!loop_stopping(l))
        loop_turn(l, loop_prepare(l));
    run_hooks(l); /* what the last turn has made leaves too */
    atomic_store_explicit(&l->thread, NULL, memory_order_relaxed);
    pool_drain();
}

void loop_stop(struct loop *l)
{
    if (!atomic_exchange(&l->stopping, true))
        mailbox_post(&l->mailbox, &l->stop_mail);
}

/* --- questions --- */

int loop_poll_fd(const struct loop *l)
{
    return l->epoll_fd;
}

bool loop_has_work(const struct loop *l)
{
    struct pollfd p = {.fd = l->epoll_fd, .events = POLLIN};
    return atomic_load_explicit(&l->mailbox.head, memory_order_relaxed) != NULL || poll(&p, 1, 0) > 0;
}

bool loop_is_current(const struct loop *l)
{
    return atomic_load_explicit(&l->thread, memory_order_relaxed) == this_thread();
}

bool loop_stopping(const struct loop *l)
{
    return atomic_load(&l->stopping);
}

unsigned loop_index(const struct loop *l)
{
    return l->index;
}

struct timer_wheel *loop_timers(struct loop *l)
{
    return &l->timers;
}

uint64_t loop_now_ms(const struct loop *l)
{
    return l->now_ms;
}

uint64_t loop_wall_ms(const struct loop *l)
{
    return l->wall_ms;
}

const struct clock *loop_clock(const struct loop *l)
{
    return l->clock;
}

/* --- descriptors --- */

enum status loop_watch_add(struct loop *l, struct loop_watch *w, uint32_t events)
{
    assert(w->on_event);
    enum status st = epoll_add(l->epoll_fd, w->fd, events, w);
    if (st == ST_OK)
        w->events = events;
    return st;
}

void loop_watch_set(struct loop *l, struct loop_watch *w, uint32_t events)
{
    if (w->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = w};
    int rc = epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &event);
    assert(rc == 0); /* it fails only for a descriptor that was not added or is closed */
    w->events = events;
}

void loop_watch_remove(struct loop *l, struct loop_watch *w)
{
    int rc = epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    assert(rc == 0); /* close the descriptor after this, not before: it may have a new owner */
    for (unsigned i = l->event_next; i < l->event_count; i++)
        if (l->events[i].data.ptr == w)
            l->events[i].data.ptr = NULL;
    w->events = 0;
}

/* --- hooks, letters --- */

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
    assert(h->on_turn_end);
    list_push(&l->hooks, &h->link);
}

void loop_hook_remove(struct loop *l, struct loop_hook *h)
{
    if (l->hook_next == &h->link)
        l->hook_next = h->link.next;
    list_unlink(&h->link);
}

void loop_post(struct loop *l, struct mail *mail)
{
    mailbox_post(&l->mailbox, mail);
}

void loop_post_chain(struct loop *l, struct mail *first, struct mail *last)
{
    mailbox_post_chain(&l->mailbox, first, last);
}
