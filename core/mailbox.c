/* A stack that writers push to and the reader takes whole and turns round: that gives FIFO for each
 * writer, and there is no ABA because nobody ever pops one.
 *
 * Sleeping. Both sides write one word and then read the other's (Dekker):
 *
 *   writer: push letter;    read `asleep`, wake if set
 *   reader: set `asleep`;   read `head`, do not block if there is a letter
 *
 * With all four sequentially consistent at least one of them sees the other. Of several writers the
 * one whose exchange takes `asleep` back to false writes to the eventfd: one write a sleep.
 *
 * That write may come late, even after the reader has woken for another reason. The reader therefore
 * counts: each time it finds its mark taken, one write is owed, and only while some are owed does it
 * read the eventfd. So a turn that nobody interrupted costs no system call here, and a late write
 * cannot leave the descriptor readable for ever. */
#include "core/mailbox.h"

#include "core/logging.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum status mailbox_open(struct mailbox *box)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0) {
        log_error("cannot make an eventfd error=\"%s\"", strerror(errno));
        return ST_IO;
    }
    *box = (struct mailbox){.wake_fd = fd};
    return ST_OK;
}

void mailbox_close(struct mailbox *box)
{
    close(box->wake_fd);
    *box = (struct mailbox){.wake_fd = -1};
}

static void push(struct mailbox *box, struct mail *newest, struct mail *oldest)
{
    struct mail *head = atomic_load_explicit(&box->head, memory_order_relaxed);
    do
        oldest->next = head;
    /* seq_cst: before the load of `asleep` below. Releases the letters to the exchange in mailbox_take. */
    while (!atomic_compare_exchange_weak_explicit(&box->head, &head, newest, memory_order_seq_cst,
                                                  memory_order_relaxed));
    /* The plain load first: the exchange is dear, and the reader is mostly awake. */
    if (atomic_load(&box->asleep) && atomic_exchange(&box->asleep, false)) {
        uint64_t one = 1;
        ssize_t written = write(box->wake_fd, &one, sizeof one);
        assert(written == (ssize_t)sizeof one); /* EAGAIN would need 2^64 wakes that nobody read */
    }
}

void mailbox_post(struct mailbox *box, struct mail *mail)
{
    push(box, mail, mail);
}

/* Turns a chain round; returns its new first. */
static struct mail *reverse(struct mail *mail)
{
    struct mail *reversed = NULL;
    while (mail) {
        struct mail *next = mail->next;
        mail->next = reversed;
        reversed = mail;
        mail = next;
    }
    return reversed;
}

void mailbox_post_chain(struct mailbox *box, struct mail *first, struct mail *last)
{
    assert(!last->next);
    struct mail *newest = reverse(first);
    assert(newest == last);
    push(box, newest, first);
}

struct mail *mailbox_take(struct mailbox *box)
{
    /* A letter that this look misses comes next time: mailbox_sleep looks properly. */
    if (!atomic_load_explicit(&box->head, memory_order_relaxed))
        return NULL;
    /* Acquire: the letters' contents, released by push. */
    return reverse(atomic_exchange_explicit(&box->head, NULL, memory_order_acquire));
}

static void take_mark_back(struct mailbox *box)
{
    if (!box->armed)
        return;
    box->armed = false;
    if (!atomic_exchange(&box->asleep, false))
        box->wakes_owed++;
}

bool mailbox_sleep(struct mailbox *box)
{
    take_mark_back(box);
    box->armed = true;
    /* seq_cst, both: see the top; the other side is push. */
    atomic_store(&box->asleep, true);
    if (!atomic_load(&box->head))
        return true;
    take_mark_back(box);
    return false;
}

void mailbox_awake(struct mailbox *box)
{
    take_mark_back(box);
    if (box->wakes_owed == 0)
        return;
    uint64_t count;
    ssize_t got = read(box->wake_fd, &count, sizeof count);
    if (got < 0) {
        assert(errno == EAGAIN || errno == EINTR); /* the write is still to come */
        return;
    }
    assert(count <= box->wakes_owed);
    box->wakes_owed -= count;
}
