/* Two arrays: those that are alive, which are looked through for each record and are as many as there are
 * nodes, and a ring of those that have ended. */
#include "routing/incarnations.h"

#include "core/hash.h"

#include <assert.h>
#include <stdlib.h>

struct life {
    uint64_t incarnation, sequence; /* of its newest record of state; 0: none */
    uint64_t passed; /* which of all records of state that was */
    uint8_t node_len;
    uint8_t node[NODE_NAME_BYTES_MAX];
};

struct incarnations {
    unsigned live_count;
    struct life live[INCARNATIONS_LIVE];
    uint64_t passed; /* records of state */
    uint64_t ended_count; /* ever */
    uint64_t ended[INCARNATIONS_ENDED]; /* ring */
};

enum status incarnations_create(struct incarnations **out)
{
    struct incarnations *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    *out = t;
    return ST_OK;
}

void incarnations_destroy(struct incarnations *t)
{
    free(t);
}

static unsigned ended_kept(const struct incarnations *t)
{
    return t->ended_count < INCARNATIONS_ENDED ? (unsigned)t->ended_count : INCARNATIONS_ENDED;
}

static struct slice life_node(const struct life *l)
{
    return slice_of(l->node, l->node_len);
}

/* live_count: there is none. */
static unsigned live_index(const struct incarnations *t, uint64_t incarnation)
{
    unsigned i = 0;
    while (i < t->live_count && t->live[i].incarnation != incarnation)
        i++;
    return i;
}

static void live_end(struct incarnations *t, unsigned i)
{
    t->ended[t->ended_count++ % INCARNATIONS_ENDED] = t->live[i].incarnation;
    t->live_count--;
    memmove(&t->live[i], &t->live[i + 1], (t->live_count - i) * sizeof t->live[0]);
}

/* That which has said nothing for longest. */
static unsigned live_silent(const struct incarnations *t)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < t->live_count; i++)
        if (t->live[i].passed < t->live[oldest].passed)
            oldest = i;
    return oldest;
}

static struct life *live_make(struct incarnations *t, uint64_t incarnation)
{
    unsigned i = live_index(t, incarnation);
    if (i < t->live_count)
        return &t->live[i];
    if (t->live_count == INCARNATIONS_LIVE)
        live_end(t, live_silent(t));
    struct life *l = &t->live[t->live_count++];
    *l = (struct life){.incarnation = incarnation};
    return l;
}

bool incarnations_ended(const struct incarnations *t, uint64_t incarnation)
{
    if (live_index(t, incarnation) < t->live_count)
        return false;
    for (unsigned i = 0; i < ended_kept(t); i++)
        if (t->ended[i] == incarnation)
            return true;
    return false;
}

bool incarnations_introduced(const struct incarnations *t, uint64_t incarnation)
{
    unsigned i = live_index(t, incarnation);
    return i < t->live_count && t->live[i].node_len > 0;
}

bool incarnations_pass(struct incarnations *t, uint64_t incarnation, uint64_t sequence)
{
    struct life *l = live_make(t, incarnation);
    if (sequence <= l->sequence)
        return false;
    l->sequence = sequence;
    l->passed = ++t->passed;
    return true;
}

bool incarnations_start(struct incarnations *t, struct slice node, uint64_t incarnation,
                        void (*on_ended)(void *ctx, uint64_t incarnation), void *ctx)
{
    if (node.len > NODE_NAME_BYTES_MAX || incarnations_ended(t, incarnation))
        return false;
    for (unsigned i = 0; i < t->live_count;) {
        uint64_t other = t->live[i].incarnation;
        if (other == incarnation || !slice_equal(life_node(&t->live[i]), node)) {
            i++;
            continue;
        }
        live_end(t, i);
        on_ended(ctx, other);
    }
    struct life *l = live_make(t, incarnation);
    l->node_len = (uint8_t)node.len;
    if (node.len > 0)
        memcpy(l->node, node.data, node.len);
    return true;
}

bool incarnations_end(struct incarnations *t, struct slice node, uint64_t incarnation)
{
    unsigned i = live_index(t, incarnation);
    if (i == t->live_count || !slice_equal(life_node(&t->live[i]), node))
        return false;
    live_end(t, i);
    return true;
}

void incarnations_each(const struct incarnations *t,
                       void (*on_live)(void *ctx, struct slice node, uint64_t incarnation), void *ctx)
{
    for (unsigned i = 0; i < t->live_count; i++)
        on_live(ctx, life_node(&t->live[i]), t->live[i].incarnation);
}

uint64_t incarnations_digest(const struct incarnations *t)
{
    uint64_t digest = 0;
    for (unsigned i = 0; i < t->live_count; i++) {
        const struct life *l = &t->live[i];
        const uint64_t parts[] = {l->incarnation, l->sequence, hash64_stable(life_node(l))};
        digest = digest * 31 + hash64_stable(slice_of(parts, sizeof parts));
    }
    for (unsigned i = 0; i < ended_kept(t); i++)
        digest = digest * 31 + t->ended[(t->ended_count - 1 - i) % INCARNATIONS_ENDED];
    return digest;
}
