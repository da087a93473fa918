/* Letters between threads: many writers, one reader, FIFO for each writer.
 *
 * A letter embeds a `struct mail`; the box only links. A writer wakes the reader's eventfd only when
 * the reader has said that it sleeps: a real wake costs 16 us of CPU, a needless write 0.3 us, none
 * is free (ARCHITECTURE.md 1). */
#ifndef TG_CORE_MAILBOX_H
#define TG_CORE_MAILBOX_H

#include "core/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Embed it. A mail knows what to do when it arrives: the reading loop calls on_arrival. The box only
 * links; whoever posts sets on_arrival first. */
struct mail {
    struct mail *next;
    void (*on_arrival)(struct mail *mail);
};

struct mailbox {
    _Atomic(struct mail *) head; /* newest first; the reader turns it round */
    atomic_bool asleep; /* set by the reader before it blocks, cleared by whoever wakes it */
    int wake_fd; /* eventfd, non-blocking */
    bool armed; /* reader's: mailbox_sleep said true, mailbox_awake has not come yet */
    uint64_t wakes_owed; /* reader's: writes to wake_fd that were begun and not read yet */
};

enum status mailbox_open(struct mailbox *box) MUST_CHECK; /* ST_IO: no descriptor left */
void mailbox_close(struct mailbox *box); /* letters inside are the owner's affair */

/* Any thread. The letter is gone. */
void mailbox_post(struct mailbox *box, struct mail *mail);
/* A chain first -> ... -> last (NULL-terminated) in one step; arrives in that order. Any thread. */
void mailbox_post_chain(struct mailbox *box, struct mail *first, struct mail *last);

/* Reader: all letters, oldest first, as a NULL-terminated chain; NULL when there is none. */
struct mail *mailbox_take(struct mailbox *box);

/* Reader, before it blocks on wake_fd. False: there are letters, do not block. */
bool mailbox_sleep(struct mailbox *box);
/* Reader, after it has woken: clears the mark and the eventfd. Take letters after this call, not
 * before: the other order loses one posted in between. */
void mailbox_awake(struct mailbox *box);

#endif
