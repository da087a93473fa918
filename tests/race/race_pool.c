/* Messages made in one thread, read and dropped in others: contents stay whole while referenced, and
 * nothing leaks when each thread drains its lists. */
#include "core/mailbox.h"
#include "core/msg.h"
#include "core/pool.h"
#include "race/check.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS = 3, MAKERS = 2, MESSAGES = 30000, PAYLOAD_MAX = 10000, DEADLINE_MS = 20000 };

struct delivery {
    struct mail mail;
    struct msg *msg;
    uint8_t pool_class;
};

static struct mailbox boxes[READERS];

static void *make_messages(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    uint8_t payload[PAYLOAD_MAX];
    for (unsigned i = 0; i < MESSAGES; i++) {
        /* Mostly small, some in every class, some beyond the largest. */
        size_t len = (size_t)rand_r(&seed) % (i % 16 ? 200 : PAYLOAD_MAX);
        memset(payload, (int)(i & 0xff), len);
        struct msg *m;
        CHECK(msg_create(slice_cstr("a/b"), slice_of(&i, sizeof i), slice_cstr(NULL), slice_of(payload, len),
                         &m) == ST_OK);
        for (unsigned reader = 0; reader < READERS; reader++) {
            uint8_t pool_class;
            struct delivery *d = pool_alloc(sizeof *d, &pool_class);
            CHECK(d);
            *d = (struct delivery){.msg = msg_ref(m), .pool_class = pool_class};
            mailbox_post(&boxes[reader], &d->mail);
        }
        msg_unref(m);
    }
    pool_drain();
    return NULL;
}

static void read_message(struct delivery *d)
{
    struct slice payload = msg_payload(d->msg), key = msg_key(d->msg);
    unsigned i;
    CHECK(key.len == sizeof i && slice_equal_cstr(msg_topic(d->msg), "a/b"));
    memcpy(&i, key.data, sizeof i);
    for (size_t at = 0; at < payload.len; at++)
        CHECK(payload.data[at] == (i & 0xff));
    msg_unref(d->msg);
    pool_free(d, d->pool_class);
}

static void *read_messages(void *arg)
{
    struct mailbox *box = arg;
    for (unsigned got = 0; got < MESSAGES * MAKERS;) {
        struct mail *mail = mailbox_take(box);
        if (!mail && mailbox_sleep(box)) {
            struct pollfd poll_fd = {.fd = box->wake_fd, .events = POLLIN};
            CHECK(poll(&poll_fd, 1, DEADLINE_MS) == 1);
            mailbox_awake(box);
        }
        while (mail) {
            struct mail *next = mail->next;
            read_message((struct delivery *)mail);
            got++;
            mail = next;
        }
    }
    pool_drain();
    return NULL;
}

int main(void)
{
    pthread_t readers[READERS], makers[MAKERS];
    unsigned seeds[MAKERS];
    for (unsigned i = 0; i < READERS; i++) {
        CHECK(mailbox_open(&boxes[i]) == ST_OK);
        CHECK(pthread_create(&readers[i], NULL, read_messages, &boxes[i]) == 0);
    }
    for (unsigned i = 0; i < MAKERS; i++) {
        seeds[i] = i + 1;
        CHECK(pthread_create(&makers[i], NULL, make_messages, &seeds[i]) == 0);
    }
    for (unsigned i = 0; i < MAKERS; i++)
        pthread_join(makers[i], NULL);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    for (unsigned i = 0; i < READERS; i++)
        mailbox_close(&boxes[i]);
    return 0;
}
