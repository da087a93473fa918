/* Many writers, one reader: no letter is lost, each writer's come in order, and a reader that sleeps is
 * woken. A lost wake shows as a poll that runs into its deadline; nothing here waits by time. */
#include "core/mailbox.h"
#include "race/check.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITERS = 6, LETTERS = 40000, CHAIN_MAX = 5, ROUNDS = 200000, DEADLINE_MS = 10000 };

struct letter {
    struct mail mail;
    unsigned writer, sequence;
};

struct writer {
    pthread_t thread;
    struct mailbox *box;
    unsigned id, seed;
};

static struct letter *make(unsigned writer, unsigned sequence)
{
    struct letter *letter = malloc(sizeof *letter);
    CHECK(letter);
    *letter = (struct letter){.writer = writer, .sequence = sequence};
    return letter;
}

static void wait_for_mail(struct mailbox *box)
{
    if (mailbox_sleep(box)) {
        struct pollfd poll_fd = {.fd = box->wake_fd, .events = POLLIN};
        CHECK(poll(&poll_fd, 1, DEADLINE_MS) == 1);
        mailbox_awake(box);
    }
}

static void *write_letters(void *arg)
{
    struct writer *w = arg;
    for (unsigned sequence = 0; sequence < LETTERS;) {
        unsigned count = 1 + (unsigned)rand_r(&w->seed) % CHAIN_MAX;
        struct letter *first = make(w->id, sequence++), *last = first;
        for (; count > 1 && sequence < LETTERS; count--) {
            struct letter *next = make(w->id, sequence++);
            last->mail.next = &next->mail;
            last = next;
        }
        if (first == last)
            mailbox_post(w->box, &first->mail);
        else
            mailbox_post_chain(w->box, &first->mail, &last->mail);
        if (rand_r(&w->seed) % 8 == 0) /* lets the reader run dry and fall asleep */
            sched_yield();
    }
    return NULL;
}

static void many_writers_lose_nothing(unsigned seed)
{
    struct mailbox box;
    CHECK(mailbox_open(&box) == ST_OK);
    struct writer writers[WRITERS];
    unsigned expected[WRITERS] = {0};
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.box = &box, .id = i, .seed = seed + i};
        CHECK(pthread_create(&writers[i].thread, NULL, write_letters, &writers[i]) == 0);
    }
    for (unsigned long got = 0; got < (unsigned long)WRITERS * LETTERS;) {
        struct mail *mail = mailbox_take(&box);
        if (!mail)
            wait_for_mail(&box);
        while (mail) {
            struct mail *next = mail->next;
            struct letter *letter = (struct letter *)mail;
            CHECK(letter->writer < WRITERS && letter->sequence == expected[letter->writer]);
            expected[letter->writer]++;
            got++;
            free(letter);
            mail = next;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    CHECK(!mailbox_take(&box));
    mailbox_close(&box);
}

/* One letter at a time, posted just when the reader is about to fall asleep: both wait for a random
 * moment after the last one was received. No other letter follows that would hide a lost wake. */
static atomic_uint received;

static void dawdle(unsigned *seed)
{
    for (unsigned steps = (unsigned)rand_r(seed) % 512; steps > 0; steps--)
        atomic_load(&received);
}

static void *receive_one_by_one(void *arg)
{
    struct mailbox *box = arg;
    unsigned seed = 77;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct mail *mail;
        while (!(mail = mailbox_take(box)))
            wait_for_mail(box);
        CHECK(!mail->next);
        atomic_store(&received, round + 1);
        dawdle(&seed);
    }
    return NULL;
}

static void each_sleeper_is_woken(unsigned seed)
{
    struct mailbox box;
    CHECK(mailbox_open(&box) == ST_OK);
    pthread_t reader;
    CHECK(pthread_create(&reader, NULL, receive_one_by_one, &box) == 0);
    struct letter letter = {.writer = 0};
    for (unsigned round = 0; round < ROUNDS; round++) {
        mailbox_post(&box, &letter.mail);
        for (unsigned spins = 0; atomic_load(&received) != round + 1; spins++)
            if (spins > 1000) /* the reader may need this core */
                sched_yield();
        dawdle(&seed);
    }
    pthread_join(reader, NULL);
    mailbox_close(&box);
}

int main(void)
{
    many_writers_lose_nothing(1);
    each_sleeper_is_woken(1);
    return 0;
}
