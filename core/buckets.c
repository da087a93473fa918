/* The table is an array of sets of WAYS places; a key's hash (keyed: no stranger chooses it) names the set
 * and is its tag there. Keys are not kept: 40 bits of the tag and those of the set tell them apart.
 *
 *   hold     the set has the tag           -> one more holder, by compare and exchange of `owner`
 *            else an idle place            -> it gets the tag, with one holder
 *            else                          -> the shared place
 *
 * Two loops that bring the same new key at the same moment may both put it in. Who has just done so looks
 * once more, and takes his back when there is another: of the two at least one sees it. */
#include "core/buckets.h"

#include "core/hash.h"

#include <assert.h>
#include <stdlib.h>

enum { WAYS = 32, HOLDER_BITS = 24, ATTEMPTS = 16 };

static const uint64_t HOLDERS_MAX = (UINT64_C(1) << HOLDER_BITS) - 1;

struct buckets {
    struct bucket_place shared;
    uint64_t set_count; /* a power of two */
    struct bucket_place places[];
};

enum status buckets_create(uint64_t count, struct buckets **out)
{
    uint64_t sets = 1;
    while (sets * WAYS < count && sets < UINT64_C(1) << HOLDER_BITS)
        sets *= 2;
    struct buckets *b = calloc(1, sizeof *b + sets * WAYS * sizeof(struct bucket_place));
    if (!b)
        return ST_NO_MEMORY;
    b->set_count = sets;
    *out = b;
    return ST_OK;
}

void buckets_destroy(struct buckets *b)
{
    free(b);
}

uint64_t buckets_count(const struct buckets *b)
{
    return b->set_count * WAYS;
}

uint64_t bucket_holders(const struct bucket_place *p)
{
    return atomic_load(&p->owner) & HOLDERS_MAX;
}

void buckets_release(struct bucket_place *p)
{
    if (!p)
        return;
    uint64_t before = atomic_fetch_sub(&p->owner, 1); /* in one order with the exchanges of hold */
    assert((before & HOLDERS_MAX) > 0);
}

/* One more holder, as long as it is the tag's. ST_FULL, or ST_GONE: it is another's by now. */
static enum status join(struct bucket_place *p, uint64_t tag, uint64_t most)
{
    uint64_t owner = atomic_load(&p->owner);
    do {
        uint64_t holders = owner & HOLDERS_MAX;
        if (owner >> HOLDER_BITS != tag)
            return ST_GONE;
        if (holders == HOLDERS_MAX || (most > 0 && holders >= most))
            return ST_FULL;
    } while (!atomic_compare_exchange_weak(&p->owner, &owner, owner + 1));
    return ST_OK;
}

static struct bucket_place *find(struct bucket_place *set, const struct bucket_place *end, uint64_t tag)
{
    for (struct bucket_place *p = set; p < end; p++)
        if (atomic_load(&p->owner) >> HOLDER_BITS == tag)
            return p;
    return NULL;
}

static bool is_idle(const struct bucket_place *p, uint64_t now_ns)
{
    for (int kind = 0; kind < BUCKET_KINDS; kind++)
        if (atomic_load(&p->full_at_ns[kind]) > now_ns)
            return false;
    return bucket_holders(p) == 0;
}

/* An idle place becomes the tag's, with one holder. NULL: there is none, or another was faster. */
static struct bucket_place *settle(struct bucket_place *set, const struct bucket_place *end, uint64_t tag,
                                   uint64_t now_ns, bool *none)
{
    for (struct bucket_place *p = set; p < end; p++) {
        uint64_t owner = atomic_load(&p->owner);
        if ((owner & HOLDERS_MAX) == 0 && is_idle(p, now_ns))
            return atomic_compare_exchange_strong(&p->owner, &owner, tag << HOLDER_BITS | 1) ? p : NULL;
    }
    *none = true;
    return NULL;
}

/* Nobody's again, unless somebody has come meanwhile. */
static void retreat(struct bucket_place *p, uint64_t tag)
{
    uint64_t own = tag << HOLDER_BITS | 1;
    if (!atomic_compare_exchange_strong(&p->owner, &own, 0))
        buckets_release(p);
}

struct bucket_place *buckets_hold(struct buckets *b, struct slice key, uint64_t most, uint64_t now_ns,
                                  bool *shared)
{
    uint64_t hash = hash64(key), tag = hash >> HOLDER_BITS;
    struct bucket_place *set = &b->places[(hash & (b->set_count - 1)) * WAYS], *end = set + WAYS;
    bool none = false;
    tag += tag == 0; /* 0 = nobody's */
    *shared = false;
    for (int n = 0; n < ATTEMPTS && !none; n++) {
        struct bucket_place *p = find(set, end, tag);
        if (p) {
            enum status st = join(p, tag, most);
            if (st != ST_GONE)
                return st == ST_OK ? p : NULL;
            continue;
        }
        p = settle(set, end, tag, now_ns, &none);
        if (p && !find(set, p, tag) && !find(p + 1, end, tag))
            return p;
        if (p)
            retreat(p, tag);
    }
    *shared = true;
    return join(&b->shared, 0, most) == ST_OK ? &b->shared : NULL;
}

/* --- tokens ------------------------------------------------------------------------------------- */

/* An empty bucket has all its tokens ahead, and what a slower rate has put behind that does not count. */
static uint64_t full_at(const struct bucket_place *p, enum bucket_kind kind, const struct bucket_rate *rate,
                        uint64_t now_ns)
{
    uint64_t at = atomic_load(&p->full_at_ns[kind]), most = now_ns + rate->burst * rate->interval_ns;
    return at < now_ns ? now_ns : at > most ? most : at;
}

uint64_t bucket_wait_ns(const struct bucket_place *p, enum bucket_kind kind, const struct bucket_rate *rate,
                        uint64_t now_ns)
{
    if (rate->interval_ns == 0)
        return 0;
    uint64_t free_until = now_ns + (rate->burst - 1) * rate->interval_ns, at = full_at(p, kind, rate, now_ns);
    return at > free_until ? at - free_until : 0;
}

void bucket_take(struct bucket_place *p, enum bucket_kind kind, const struct bucket_rate *rate,
                 uint64_t now_ns)
{
    uint64_t seen = atomic_load(&p->full_at_ns[kind]), next;
    if (rate->interval_ns == 0)
        return;
    do {
        uint64_t most = now_ns + rate->burst * rate->interval_ns;
        uint64_t at = seen < now_ns ? now_ns : seen > most ? most : seen;
        next = at + rate->interval_ns;
    } while (!atomic_compare_exchange_weak(&p->full_at_ns[kind], &seen, next));
}
