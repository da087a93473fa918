#include "session/drops.h"

#include "core/hash.h"

#include <assert.h>
#include <stdlib.h>

enum { BUCKETS_MIN = 64, NAME_BYTES_MAX = 64 };

struct drops {
    uint32_t max, count, bucket_count; /* bucket_count is a power of two */
    uint64_t evicted;
    struct list entries; /* the newest last */
    struct drop *buckets[];
};

const char *drop_reason(enum metric why)
{
    static const char *const names[METRIC_COUNT] = {
        [M_DROPPED_QUEUE_FULL] = "queue_full", [M_DROPPED_EXPIRED] = "expired",
        [M_DROPPED_TOO_LARGE] = "too_large",   [M_DROPPED_RETENTION] = "retention",
        [M_DROPPED_UNSTORED] = "unstored",     [M_DROPPED_LAG] = "lag",
        [M_DROPPED_DAMAGED] = "damaged",       [M_DROPPED_EPOCH] = "epoch",
        [M_DROPPED_SESSION] = "session",       [M_REFUSED_RATE] = "rate",
    };
    return names[why];
}

enum status drops_create(uint32_t max, struct drops **out)
{
    uint32_t buckets = BUCKETS_MIN;
    *out = NULL;
    if (max == 0)
        return ST_OK;
    while (buckets < max && buckets < UINT32_C(1) << 20)
        buckets *= 2;
    struct drops *d = calloc(1, sizeof *d + buckets * sizeof(struct drop *));
    if (!d)
        return ST_NO_MEMORY;
    d->max = max;
    d->bucket_count = buckets;
    list_init(&d->entries);
    *out = d;
    return ST_OK;
}

static struct drop **bucket_of(struct drops *d, uint64_t hash)
{
    return &d->buckets[hash & (d->bucket_count - 1)];
}

static void forget(struct drops *d, struct drop *drop)
{
    struct drop **at = bucket_of(d, drop->hash);
    while (*at != drop)
        at = &(*at)->next_in_bucket;
    *at = drop->next_in_bucket;
    list_unlink(&drop->link);
    d->count--;
    free(drop);
}

void drops_destroy(struct drops *d)
{
    if (!d)
        return;
    while (!list_empty(&d->entries))
        forget(d, LIST_OF(d->entries.next, struct drop, link));
    free(d);
}

static bool is_of(const struct drop *drop, const struct drop_note *n)
{
    return drop->session == n->session && drop->why == n->why && drop->lane == n->lane &&
           slice_equal(drop->filter, n->filter);
}

static struct drop *find(struct drops *d, const struct drop_note *n, uint64_t hash)
{
    struct drop *drop = *bucket_of(d, hash);
    while (drop && !(drop->hash == hash && is_of(drop, n)))
        drop = drop->next_in_bucket;
    return drop;
}

static struct drop *make(struct drops *d, const struct drop_note *n, uint64_t hash, uint64_t wall_ms)
{
    size_t name_len = n->name.len < NAME_BYTES_MAX ? n->name.len : NAME_BYTES_MAX;
    struct drop *drop = malloc(sizeof *drop + n->filter.len + name_len);
    if (!drop)
        return NULL;
    *drop = (struct drop){.hash = hash,
                          .session = n->session,
                          .why = n->why,
                          .lane = (uint16_t)n->lane,
                          .from = n->from,
                          .to = n->to,
                          .first_ms = wall_ms,
                          .filter = slice_of(drop->text, n->filter.len),
                          .name = slice_of(drop->text + n->filter.len, name_len)};
    if (n->filter.len > 0)
        memcpy(drop->text, n->filter.data, n->filter.len);
    if (name_len > 0)
        memcpy(drop->text + n->filter.len, n->name.data, name_len);
    list_init(&drop->link);
    if (d->count == d->max) {
        forget(d, LIST_OF(d->entries.next, struct drop, link));
        d->evicted++;
    }
    drop->next_in_bucket = *bucket_of(d, hash);
    *bucket_of(d, hash) = drop;
    d->count++;
    return drop;
}

void drops_note(struct drops *d, const struct drop_note *n, uint64_t wall_ms)
{
    if (!d || n->count == 0)
        return;
    /* A flood is of one subscription and reason: the newest entry most often. */
    struct drop *newest = list_empty(&d->entries) ? NULL : LIST_OF(d->entries.prev, struct drop, link);
    struct drop *drop = newest && is_of(newest, n) ? newest : NULL;
    if (!drop) {
        uint64_t hash = hash64(n->filter) ^ n->session * UINT64_C(0x9e3779b97f4a7c15) ^
                        ((uint64_t)n->why << 32 | (uint64_t)n->lane << 8);
        drop = find(d, n, hash);
        if (!drop)
            drop = make(d, n, hash, wall_ms);
        if (!drop) {
            d->evicted++; /* no memory: as good as pushed out at once */
            return;
        }
        list_unlink(&drop->link);
        assert(d->entries.prev); /* a ring; the analyser does not see that */
        list_push(&d->entries, &drop->link);
    }
    drop->count += n->count;
    drop->last_ms = wall_ms;
    drop->from = n->from < drop->from ? n->from : drop->from;
    drop->to = n->to > drop->to ? n->to : drop->to;
}

void drops_each(struct drops *d, void (*on_drop)(void *ctx, const struct drop *drop), void *ctx)
{
    if (!d)
        return;
    for (struct list *node = d->entries.prev; node != &d->entries; node = node->prev)
        on_drop(ctx, LIST_OF(node, struct drop, link));
}

uint32_t drops_count(const struct drops *d)
{
    return d ? d->count : 0;
}

uint64_t drops_evicted(const struct drops *d)
{
    return d ? d->evicted : 0;
}
