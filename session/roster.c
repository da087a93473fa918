#include "session/roster.h"

#include <assert.h>
#include <stdlib.h>

enum { ROSTER_FIRST = 16 };

void roster_deinit(struct roster *r)
{
    free(r->entries);
    *r = (struct roster){0};
}

enum status roster_add(struct roster *r, uint64_t id, struct session *s)
{
    assert(r->count == 0 || id > r->entries[r->count - 1].id);
    if (r->count == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : ROSTER_FIRST;
        struct roster_entry *entries = realloc(r->entries, cap * sizeof *entries);
        if (!entries)
            return ST_NO_MEMORY;
        r->entries = entries;
        r->cap = cap;
    }
    r->entries[r->count++] = (struct roster_entry){id, s};
    return ST_OK;
}

size_t roster_after(const struct roster *r, uint64_t id)
{
    size_t from = 0, to = r->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (r->entries[middle].id <= id)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* NULL: no such number was ever there, or its place is gone. */
static struct roster_entry *place_of(const struct roster *r, uint64_t id)
{
    size_t behind = roster_after(r, id);
    return behind > 0 && r->entries[behind - 1].id == id ? &r->entries[behind - 1] : NULL;
}

struct session *roster_find(const struct roster *r, uint64_t id)
{
    const struct roster_entry *e = place_of(r, id);
    return e ? e->session : NULL;
}

static void close_holes(struct roster *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->entries[i].session)
            r->entries[kept++] = r->entries[i];
    r->count = kept;
    r->holes = 0;
}

void roster_remove(struct roster *r, uint64_t id)
{
    struct roster_entry *e = place_of(r, id);
    assert(e && e->session);
    e->session = NULL;
    if (++r->holes > ROSTER_FIRST && r->holes > r->count / 2)
        close_holes(r);
}
