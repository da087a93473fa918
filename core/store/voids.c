#include "core/store/voids.h"

#include <assert.h>
#include <stdlib.h>

enum status voids_create(uint64_t count_max, struct voids **out)
{
    assert(count_max <= VOIDS_MAX);
    struct voids *v = calloc(1, sizeof *v);
    if (!v)
        return ST_NO_MEMORY;
    v->count_max = count_max;
    atomic_init(&v->count, 0);
    *out = v;
    return ST_OK;
}

void voids_destroy(struct voids *v)
{
    if (!v)
        return;
    for (unsigned i = 0; i < VOIDS_CHUNKS_MAX && v->chunks[i]; i++)
        free(v->chunks[i]);
    free(v);
}

static uint64_t voids_at(const struct voids *v, uint64_t i)
{
    return v->chunks[i / VOIDS_CHUNK][i % VOIDS_CHUNK];
}

enum status voids_add(struct voids *v, uint64_t offset)
{
    uint64_t count = atomic_load_explicit(&v->count, memory_order_relaxed); /* this thread writes it */
    if (count > 0 && voids_at(v, count - 1) >= offset) {
        assert(voids_at(v, count - 1) == offset);
        return ST_OK;
    }
    if (count >= v->count_max)
        return ST_FULL;
    uint64_t **chunk = &v->chunks[count / VOIDS_CHUNK];
    if (!*chunk && !(*chunk = malloc(VOIDS_CHUNK * sizeof **chunk)))
        return ST_NO_MEMORY;
    (*chunk)[count % VOIDS_CHUNK] = offset;
    atomic_store_explicit(&v->count, count + 1, memory_order_release); /* pairs with voids_count */
    return ST_OK;
}

/* How many of the first `count` are below. */
static uint64_t voids_below(const struct voids *v, uint64_t count, uint64_t offset)
{
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (voids_at(v, middle) < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t voids_between(const struct voids *v, uint64_t from, uint64_t to)
{
    uint64_t count = voids_count(v);
    return voids_below(v, count, to) - voids_below(v, count, from);
}
