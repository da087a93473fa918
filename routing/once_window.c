/* A sorted ring. Sequences nearly always come in ascending order: one is added at the end and, when the
 * window is full, its first leaves. A late one moves those above it up by one place, 32 KB at most. */
#include "routing/once_window.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void once_window_deinit(struct once_window *w)
{
    free(w->ring);
    memset(w, 0, sizeof *w);
}

/* How many have a lower sequence. */
static uint32_t place_of(const struct once_window *w, uint64_t sequence)
{
    uint32_t low = 0, high = w->count;
    if (high > 0 && once_window_at(w, high - 1)->sequence < sequence)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (once_window_at(w, middle)->sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct once_member *once_window_find(const struct once_window *w, uint64_t sequence)
{
    uint32_t i = place_of(w, sequence);
    if (i == w->count || once_window_at(w, i)->sequence != sequence)
        return NULL;
    return once_window_at(w, i);
}

bool once_window_below(const struct once_window *w, uint64_t sequence)
{
    return w->count == ONCE_WINDOW && sequence < once_window_at(w, 0)->sequence;
}

static enum status grow(struct once_window *w)
{
    uint32_t cap = w->cap ? w->cap * 2 : 1;
    struct once_member *ring = malloc(cap * sizeof *ring);
    if (!ring)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < w->count; i++)
        ring[i] = *once_window_at(w, i);
    free(w->ring);
    w->ring = ring;
    w->cap = cap;
    w->first = 0;
    return ST_OK;
}

static void update(struct once_member *old, const struct once_member *m)
{
    uint64_t stored = old->stored > m->stored ? old->stored : m->stored;
    if (m->offset >= old->offset)
        *old = *m;
    old->stored = stored;
}

enum status once_window_put(struct once_window *w, const struct once_member *m)
{
    struct once_member *old = once_window_find(w, m->sequence);
    if (old) {
        update(old, m);
        return ST_OK;
    }
    if (once_window_below(w, m->sequence))
        return ST_OK;
    if (w->count == ONCE_WINDOW) {
        w->first = (w->first + 1) & (w->cap - 1);
        w->count--;
    }
    if (w->count == w->cap && grow(w) != ST_OK)
        return ST_NO_MEMORY;
    uint32_t place = place_of(w, m->sequence);
    for (uint32_t i = w->count; i > place; i--)
        *once_window_at(w, i) = *once_window_at(w, i - 1);
    *once_window_at(w, place) = *m;
    w->count++;
    return ST_OK;
}
