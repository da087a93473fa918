/* Who frees a look-up is settled by one exchange of `state`: the thread, when it was cancelled while it ran;
 * else the letter that the thread has posted. So a thread that hangs in a name server's silence never touches
 * a loop that has gone, and nobody waits for it. */
#include "core/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNNING, ENDED, CANCELLED, HOST_BYTES = 256 };

struct resolve {
    struct mail mail;
    struct loop *loop;
    void (*on_resolved)(void *ctx, const struct resolve_answer *a); /* NULL: cancelled after its end */
    void *ctx;
    pthread_t thread;
    atomic_int state; /* the thread's exchange and that of resolve_cancel: the first one wins */
    char host[HOST_BYTES], port[8];
    struct resolve_answer answer;
};

static void answer_arrived(struct mail *mail)
{
    struct resolve *r = LIST_OF(mail, struct resolve, mail);
    if (r->on_resolved) {
        pthread_join(r->thread, NULL); /* it has posted: nothing is left for it to do */
        r->on_resolved(r->ctx, &r->answer);
    }
    free(r);
}

static void look_up(struct resolve *r)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(r->host, r->port, &hints, &found);
    r->answer.why = code != 0 ? gai_strerror(code) : "it has no address";
    for (const struct addrinfo *a = found; a && r->answer.count < RESOLVE_ADDRESSES_MAX; a = a->ai_next) {
        struct resolve_address *to = &r->answer.addresses[r->answer.count++];
        memcpy(&to->address, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
    }
    if (found)
        freeaddrinfo(found);
}

static void *resolve_thread(void *ctx)
{
    struct resolve *r = ctx;
    int running = RUNNING;
    (void)pthread_setname_np(pthread_self(), "resolve");
    look_up(r);
    if (atomic_compare_exchange_strong(&r->state, &running, ENDED))
        loop_post(r->loop, &r->mail);
    else
        free(r);
    return NULL;
}

enum status resolve_start(struct loop *loop, const char *host, uint16_t port,
                          void (*on_resolved)(void *ctx, const struct resolve_answer *a), void *ctx,
                          struct resolve **out)
{
    struct resolve *r = strlen(host) < HOST_BYTES ? calloc(1, sizeof *r) : NULL;
    if (!r)
        return ST_NO_MEMORY;
    r->loop = loop;
    r->mail.on_arrival = answer_arrived;
    r->on_resolved = on_resolved;
    r->ctx = ctx;
    memcpy(r->host, host, strlen(host) + 1);
    snprintf(r->port, sizeof r->port, "%u", (unsigned)port);
    if (pthread_create(&r->thread, NULL, resolve_thread, r) != 0) {
        free(r);
        return ST_NO_MEMORY;
    }
    *out = r;
    return ST_OK;
}

void resolve_cancel(struct resolve *r)
{
    int running = RUNNING;
    if (!r)
        return;
    pthread_t thread = r->thread; /* after the exchange the look-up may be gone */
    if (atomic_compare_exchange_strong(&r->state, &running, CANCELLED)) {
        pthread_detach(thread);
        return;
    }
    r->on_resolved = NULL;
    /* The letter is posted, or about to be: wait for that, which is no longer than a post. */
    pthread_join(thread, NULL);
}
