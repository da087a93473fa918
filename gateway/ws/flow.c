/* Acknowledgements are cumulative, so what is open is always the run acked+1 .. sent: a ring indexed by the
 * number, of as many places as were ever open at once, at most open_max.
 *
 * A lane's place in a tally only moves over what has been acknowledged: offsets of one subscription and lane
 * are sent in ascending order, so everything sent below an acknowledged offset is acknowledged too. Messages
 * of a retained walk lie at old offsets and move no place; they are only counted. What is not stored has no
 * place at all. */
#include "gateway/ws/flow.h"

#include <assert.h>
#include <stdlib.h>

enum { RING_FIRST = 16, RING_KEPT = 64 };

static const int64_t CREDIT_MAX = (INT64_C(1) << FLOW_NUMBER_MAX_BITS) - 1;

/* --- tallies ------------------------------------------------------------------------------------ */

struct tally *tally_create(unsigned first_lane, unsigned lane_count)
{
    struct tally *t = calloc(1, sizeof *t + lane_count * sizeof t->lanes[0]);
    if (!t)
        return NULL;
    t->refs = 1;
    t->first_lane = (uint16_t)first_lane;
    t->lane_count = (uint16_t)lane_count;
    return t;
}

void tally_unref(struct tally *t)
{
    if (t && --t->refs == 0)
        free(t);
}

void tally_reached(struct tally *t, unsigned lane, uint64_t next)
{
    struct tally_lane *l = tally_lane(t, lane);
    if (l->open == 0 && next > l->acked)
        l->acked = next;
}

/* --- the ring ----------------------------------------------------------------------------------- */

static struct flow_entry *entry_of(const struct flow *f, uint64_t n)
{
    return &f->ring[n & (f->cap - 1)];
}

static enum status ring_grow(struct flow *f)
{
    struct flow larger = *f;
    if (f->sent - f->acked < f->cap)
        return ST_OK;
    larger.cap = f->cap ? f->cap * 2 : RING_FIRST;
    larger.ring = malloc(larger.cap * sizeof *larger.ring);
    if (!larger.ring)
        return ST_NO_MEMORY;
    for (uint64_t n = f->acked + 1; n <= f->sent; n++)
        *entry_of(&larger, n) = *entry_of(f, n);
    free(f->ring);
    *f = larger;
    return ST_OK;
}

/* A burst does not keep its memory; a small ring does, for what comes and goes one by one. */
static void ring_shrink(struct flow *f)
{
    if (f->sent > f->acked || f->cap <= RING_KEPT)
        return;
    free(f->ring);
    f->ring = NULL;
    f->cap = 0;
}

/* --- life, window ------------------------------------------------------------------------------- */

void flow_init(struct flow *f, uint32_t open_max)
{
    *f = (struct flow){.open_max = open_max};
}

void flow_deinit(struct flow *f)
{
    for (uint64_t n = f->acked + 1; n <= f->sent; n++)
        tally_unref(entry_of(f, n)->tally);
    free(f->ring);
    *f = (struct flow){0};
}

void flow_set_msgs(struct flow *f, uint64_t msgs)
{
    f->msgs = (struct flow_credit){.bounded = true, .left = (int64_t)msgs, .size = (int64_t)msgs};
}

void flow_set_bytes(struct flow *f, uint64_t bytes)
{
    f->bytes = (struct flow_credit){.bounded = true, .left = (int64_t)bytes, .size = (int64_t)bytes};
}

bool flow_admits(const struct flow *f, uint64_t bytes, bool ack)
{
    const struct flow_credit *b = &f->bytes;
    if (ack && f->sent - f->acked >= f->open_max)
        return false;
    if (f->msgs.bounded && f->msgs.left <= 0)
        return false;
    /* A window of which nothing is out admits one message however large, or it could never come. */
    return !b->bounded || b->left >= (int64_t)bytes || (b->size > 0 && b->left >= b->size);
}

void flow_spend(struct flow *f, uint64_t bytes)
{
    if (f->msgs.bounded)
        f->msgs.left--;
    if (f->bytes.bounded)
        f->bytes.left -= (int64_t)bytes;
}

enum status flow_spend_numbered(struct flow *f, const struct flow_sent *s)
{
    if (ring_grow(f) != ST_OK)
        return ST_NO_MEMORY;
    *entry_of(f, ++f->sent) = (struct flow_entry){.tally = s->tally,
                                                  .offset = s->offset,
                                                  .bytes = s->bytes,
                                                  .lane = (uint16_t)s->lane,
                                                  .kind = (uint8_t)s->kind};
    s->tally->refs++;
    if (s->kind == FLOW_RETAINED)
        s->tally->retained_open++;
    else if (s->kind == FLOW_STORED)
        tally_lane(s->tally, s->lane)->open++;
    flow_spend(f, s->bytes);
    return ST_OK;
}

/* --- what the client returns -------------------------------------------------------------------- */

/* A window that has got more than it ever had is larger from now on. */
static void credit_return(struct flow_credit *c, int64_t n)
{
    if (!c->bounded)
        return;
    c->left = c->left > CREDIT_MAX - n ? CREDIT_MAX : c->left + n;
    if (c->left > c->size)
        c->size = c->left;
}

static void entry_acked(struct flow *f, const struct flow_entry *e)
{
    if (e->kind == FLOW_RETAINED) {
        e->tally->retained_open--;
    } else if (e->kind == FLOW_STORED) {
        struct tally_lane *l = tally_lane(e->tally, e->lane);
        assert(l->open > 0);
        l->open--;
        if (e->offset + 1 > l->acked)
            l->acked = e->offset + 1;
    }
    tally_unref(e->tally);
    credit_return(&f->msgs, 1);
    credit_return(&f->bytes, e->bytes);
}

enum status flow_ack(struct flow *f, uint64_t n, uint64_t *count)
{
    if (n > f->sent)
        return ST_INVALID;
    *count = 0;
    while (f->acked < n) {
        f->acked++;
        entry_acked(f, entry_of(f, f->acked));
        ++*count;
    }
    ring_shrink(f);
    return ST_OK;
}

static bool credit_fits(const struct flow_credit *c, uint64_t n)
{
    return !c->bounded || (n <= (uint64_t)CREDIT_MAX && c->left <= CREDIT_MAX - (int64_t)n);
}

enum status flow_add(struct flow *f, uint64_t msgs, uint64_t bytes)
{
    if (!credit_fits(&f->msgs, msgs) || !credit_fits(&f->bytes, bytes))
        return ST_INVALID;
    credit_return(&f->msgs, (int64_t)msgs);
    credit_return(&f->bytes, (int64_t)bytes);
    return ST_OK;
}
