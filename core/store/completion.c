/* The letter is embedded once a loop, so telling needs no memory and cannot fail. It says only "look": the
 * numbers are the lanes' durable_next and trim_wanted, read when it arrives. `posted` makes sure that it is
 * in the box once:
 *
 *   writer: move durable_next;  posted: false -> true? then post      (the reader: trim_wanted)
 *   loop:   posted -> false;    read durable_next
 *
 * A move that the loop's read misses comes after `posted` was cleared, so it posts again. */
#include "core/store/completion.h"

#include <stdlib.h>

struct completion {
    struct mail mail; /* in the loop's box while `posted` */
    atomic_bool posted;
    bool closed; /* the store is gone: do nothing */
    struct loop *loop;
    struct lane *lanes[STORE_LANES_MAX];
    unsigned lane_count;
    struct completion *next;
};

/* Letters that were still in a loop's box when their store was closed: the loop will look at them if it ever
 * runs again. Kept for ever, at most one a loop and store, and reachable, so that leak checkers see them. */
static struct completion *orphans;

static void on_arrival(struct mail *mail)
{
    struct completion *c = (struct completion *)mail; /* its first member */
    if (c->closed)
        return;
    atomic_exchange_explicit(&c->posted, false, memory_order_acq_rel); /* pairs with completion_post */
    for (unsigned i = 0; i < c->lane_count; i++) {
        lane_on_durable(c->lanes[i]);
        lane_on_trim_wanted(c->lanes[i]);
    }
}

void completion_post(struct completion *c)
{
    if (!atomic_exchange_explicit(&c->posted, true, memory_order_acq_rel)) /* pairs with on_arrival */
        loop_post(c->loop, &c->mail);
}

void completion_bind(struct completion **all, struct lane *l, struct loop *loop)
{
    struct completion *c = *all;
    while (c && c->loop != loop)
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->mail.on_arrival = on_arrival;
        c->loop = loop;
        c->next = *all;
        *all = c;
    }
    c->lanes[c->lane_count++] = l;
    l->completion = c;
}

void completions_release(struct completion *all)
{
    for (struct completion *c = all, *next; c; c = next) {
        next = c->next;
        c->closed = true;
        if (!atomic_load(&c->posted)) {
            free(c);
            continue;
        }
        c->next = orphans;
        orphans = c;
    }
}
