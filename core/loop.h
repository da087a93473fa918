/* An event loop: one thread, its descriptors (epoll), its timers, its mailbox and the work that is
 * done once a turn. A turn is: wait; descriptors; letters; timers; then the turn hooks in the order
 * in which they were added (shards close their batch, edges deliver, connections flush). What a hook
 * posts to its own loop is handled in the next turn, which then does not wait.
 *
 * Nothing that runs on a loop may block: no disk, no name look-up, no lock held for longer than a
 * list splice.
 *
 * A loop runs by itself (loop_run) or inside another one that owns the thread (libev, for
 * libwebsockets): the host watches loop_poll_fd() for reading, calls loop_dispatch() when it is
 * readable or the time is over, and loop_prepare() right before it blocks. */
#ifndef TG_CORE_LOOP_H
#define TG_CORE_LOOP_H

#include "core/clock.h"
#include "core/mailbox.h"
#include "core/timer.h"

#include <sys/epoll.h>

struct loop;

/* A descriptor's place in the loop; embed it. Level triggered. */
struct loop_watch {
    int fd;
    uint32_t events;
    void (*on_event)(struct loop_watch *w, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR */
};

/* Work at the end of every turn; embed it. True: there is more to do, come again without waiting. */
struct loop_hook {
    struct list link;
    bool (*on_turn_end)(struct loop_hook *h);
};

/* `index` names the loop in its node, from 0. Each mail that arrives is told by its own on_arrival,
 * oldest first, on the loop's thread. */
enum status loop_create(const struct clock *clock, unsigned index, struct loop **out) MUST_CHECK;
void loop_destroy(struct loop *l); /* NULL is allowed; not while it runs */

/* Runs on the calling thread until loop_stop. */
void loop_run(struct loop *l);
void loop_stop(struct loop *l); /* any thread */

int loop_poll_fd(const struct loop *l);
/* Runs the turn hooks, then arms the wake-up. Milliseconds that the host may wait: 0 when there is
 * work, UINT64_MAX for ever. */
uint64_t loop_prepare(struct loop *l);
/* Takes what has happened, without waiting. The calling thread becomes the loop's thread. */
void loop_dispatch(struct loop *l);
/* A host that did work for the loop outside loop_dispatch (another library's callbacks) refreshes
 * the loop's time by this. */
void loop_update_time(struct loop *l);

/* Does something wait that the next turn will do at once: a descriptor, a letter? A system call. Loop's
 * thread. */
bool loop_has_work(const struct loop *l);

bool loop_is_current(const struct loop *l); /* does the calling thread run it? */
bool loop_stopping(const struct loop *l);
unsigned loop_index(const struct loop *l);
struct timer_wheel *loop_timers(struct loop *l);
uint64_t loop_now_ms(const struct loop *l); /* monotonic, of this turn; the wheel's time */
uint64_t loop_wall_ms(const struct loop *l); /* Unix, of this turn */
const struct clock *loop_clock(const struct loop *l);

/* ST_IO: epoll refused (logged). */
enum status loop_watch_add(struct loop *l, struct loop_watch *w, uint32_t events) MUST_CHECK;
void loop_watch_set(struct loop *l, struct loop_watch *w, uint32_t events);
/* May be called from any callback of the loop, also for a watch whose event is still to come in
 * this turn: it will not be called any more. The descriptor stays open and is the caller's. */
void loop_watch_remove(struct loop *l, struct loop_watch *w);

void loop_hook_add(struct loop *l, struct loop_hook *h);
void loop_hook_remove(struct loop *l, struct loop_hook *h);

/* Posts to the loop's mailbox. Any thread. */
void loop_post(struct loop *l, struct mail *mail);
void loop_post_chain(struct loop *l, struct mail *first, struct mail *last);

#endif
