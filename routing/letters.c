#include "routing/letters.h"

#include "core/pool.h"

#include <assert.h>
#include <stdlib.h>

enum status run_create(unsigned lane, uint32_t cap, struct run **out)
{
    uint8_t pool_class;
    struct run *r = pool_alloc(sizeof *r + cap * sizeof r->msgs[0], &pool_class);
    if (!r)
        return ST_NO_MEMORY;
    atomic_init(&r->refs, 1);
    r->pool_class = pool_class;
    r->lane = (uint16_t)lane;
    r->count = 0;
    r->cap = cap;
    *out = r;
    return ST_OK;
}

void run_unref(struct run *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < r->count; i++)
        msg_unref(r->msgs[i]);
    pool_free(r, r->pool_class);
}

enum metric publish_outcome(enum status status, const struct msg *m, bool duplicate)
{
    switch ((int)status) {
    case ST_OK:
        return duplicate ? M_DUPLICATES : m->flags & MSG_UNSTORED ? M_UNSTORED : M_STORED;
    case ST_QUOTA:
        return M_REFUSED_QUOTA;
    case ST_UNSUPPORTED:
        return M_REFUSED_UNSUPPORTED;
    case ST_EXPIRED:
        return M_PUBLISH_UNKNOWN;
    case ST_CONFLICT:
    case ST_EXISTS:
    case ST_AGAIN:
        return M_REFUSED_CONFLICT;
    default:
        return M_REFUSED_UNAVAILABLE;
    }
}

enum status publish_create(struct msg *m, struct publish **out)
{
    uint8_t pool_class;
    struct publish *p = pool_alloc(sizeof *p, &pool_class);
    if (!p)
        return ST_NO_MEMORY;
    *p = (struct publish){.msg = m, .pool_class = pool_class};
    *out = p;
    return ST_OK;
}

void publish_free(struct publish *p)
{
    msg_unref(p->msg);
    pool_free(p, p->pool_class);
}

void read_release(struct read *r)
{
    for (uint64_t i = 0; r->store.msgs && i < r->store.found; i++)
        msg_unref(r->store.msgs[i]);
    free(r->store.msgs);
    r->store.msgs = NULL;
    r->store.found = 0;
}

void deliver_free(struct deliver *d)
{
    run_unref(d->run);
    pool_free(d, d->pool_class);
}

void share_give_free(struct share_give *g)
{
    pool_free(g, g->pool_class);
}
