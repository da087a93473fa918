/* Letters between loops. The order rule (courier.h) holds because a letter for another loop keeps its
 * place in one chain a destination, a letter for the own loop its place in one queue, and both are only
 * ever emptied from the front. */
#include "routing/courier.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ROUNDS_A_TURN = 4, /* then descriptors get their turn again */
    LETTERS_A_ROUND = 16384, /* own letters handled before the doors flush */
};

struct chain {
    struct mail *first, *last;
};

struct courier {
    struct loop *loop;
    unsigned index, peer_count, before_count;
    struct {
        void (*call)(void *ctx);
        void *ctx;
    } before[COURIER_BEFORE_MAX];
    struct chain own;
    struct {
        struct loop *loop;
        struct chain out;
    } peers[LOOPS_MAX];
    struct loop_hook hook;
};

static void chain_push(struct chain *c, struct mail *mail)
{
    mail->next = NULL;
    if (c->last)
        c->last->next = mail;
    else
        c->first = mail;
    c->last = mail;
}

/* Handles at most LETTERS_A_ROUND own letters. False: there were none. */
static bool courier_empty_own(struct courier *c)
{
    if (!c->own.first)
        return false;
    for (unsigned n = 0; c->own.first && n < LETTERS_A_ROUND; n++) {
        struct mail *mail = c->own.first;
        c->own.first = mail->next;
        if (!c->own.first)
            c->own.last = NULL;
        mail->next = NULL;
        mail->on_arrival(mail);
    }
    return true;
}

static bool courier_turn(struct loop_hook *hook)
{
    struct courier *c = LIST_OF(hook, struct courier, hook);
    bool more = true;
    for (unsigned round = 0; more && round < ROUNDS_A_TURN; round++) {
        for (unsigned i = 0; i < c->before_count; i++)
            c->before[i].call(c->before[i].ctx);
        more = courier_empty_own(c);
    }
    for (unsigned i = 0; i < c->peer_count; i++) {
        struct chain *out = &c->peers[i].out;
        if (!out->first)
            continue;
        loop_post_chain(c->peers[i].loop, out->first, out->last);
        *out = (struct chain){0};
    }
    /* Letters of the last round may have been published by: the shards close their batches in the next turn,
     * which must not be waited for. */
    return more;
}

enum status courier_create(struct loop *loop, struct courier **out)
{
    struct courier *c = calloc(1, sizeof *c);
    if (!c)
        return ST_NO_MEMORY;
    c->loop = loop;
    c->index = loop_index(loop);
    list_init(&c->hook.link);
    c->hook.on_turn_end = courier_turn;
    *out = c;
    return ST_OK;
}

void courier_destroy(struct courier *c)
{
    if (!c)
        return;
    if (!list_empty(&c->hook.link))
        loop_hook_remove(c->loop, &c->hook);
    free(c);
}

void courier_meet(struct courier *c, unsigned index, struct loop *loop)
{
    assert(index < LOOPS_MAX);
    c->peers[index].loop = loop;
    if (index >= c->peer_count)
        c->peer_count = index + 1;
}

void courier_send(struct courier *c, unsigned to, struct mail *mail)
{
    assert(to < c->peer_count && mail->on_arrival);
    chain_push(to == c->index ? &c->own : &c->peers[to].out, mail);
}

void courier_before(struct courier *c, void (*before)(void *ctx), void *ctx)
{
    assert(c->before_count < COURIER_BEFORE_MAX);
    c->before[c->before_count].call = before;
    c->before[c->before_count++].ctx = ctx;
}

void courier_start(struct courier *c)
{
    loop_hook_add(c->loop, &c->hook);
}

bool courier_pending(const struct courier *c)
{
    for (unsigned i = 0; i < c->peer_count; i++)
        if (c->peers[i].out.first)
            return true;
    return c->own.first != NULL;
}

unsigned courier_index(const struct courier *c)
{
    return c->index;
}

struct loop *courier_loop(const struct courier *c)
{
    return c->loop;
}
