#include "routing/filter_set.h"

#include <assert.h>
#include <stdlib.h>

enum { BITS_MAX = 31 };

static size_t array_bytes(unsigned bits)
{
    return bits == 0 ? 0 : sizeof(struct filter_entry *) << bits;
}

static enum status grow(struct filter_set *s, size_t *bytes)
{
    if (s->bits == BITS_MAX)
        return ST_NO_MEMORY;
    unsigned bits = s->bits + 1U;
    struct filter_entry **many = realloc(s->bits == 0 ? NULL : s->many, array_bytes(bits));
    if (!many)
        return ST_NO_MEMORY;
    if (s->bits == 0)
        many[0] = s->one;
    *bytes += array_bytes(bits) - array_bytes(s->bits);
    s->many = many;
    s->bits = (uint8_t)bits;
    return ST_OK;
}

/* To half, when three quarters are empty: growing again is then as far away as shrinking again. */
static void shrink(struct filter_set *s, size_t *bytes)
{
    unsigned bits = s->count <= 1 ? 0 : s->bits - 1U;
    if (bits == 0) {
        struct filter_entry *one = s->count == 1 ? s->many[0] : NULL;
        free(s->many);
        s->one = one;
    } else {
        struct filter_entry **many = realloc(s->many, array_bytes(bits));
        if (!many)
            return; /* the larger array serves as well */
        s->many = many;
    }
    *bytes -= array_bytes(s->bits) - array_bytes(bits);
    s->bits = (uint8_t)bits;
}

enum status filter_set_add(struct filter_set *s, struct filter_entry *e, size_t *bytes)
{
    assert(!e->node);
    if (s->count == (uint32_t)1 << s->bits) {
        enum status st = grow(s, bytes);
        if (st != ST_OK)
            return st;
    }
    filter_set_entries(s)[s->count] = e;
    e->node = s;
    e->place = s->count++;
    return ST_OK;
}

void filter_set_remove(struct filter_set *s, struct filter_entry *e, size_t *bytes)
{
    struct filter_entry **entries = filter_set_entries(s);
    assert(e->node == s && e->place < s->count && entries[e->place] == e);
    struct filter_entry *last = entries[--s->count];
    entries[e->place] = last;
    last->place = e->place;
    e->node = NULL;
    e->place = 0;
    if (s->bits > 0 && (s->count <= 1 || s->count < (uint32_t)1 << s->bits >> 2))
        shrink(s, bytes);
}

void filter_set_deinit(struct filter_set *s)
{
    if (s->bits > 0)
        free(s->many);
    *s = (struct filter_set){0};
}
