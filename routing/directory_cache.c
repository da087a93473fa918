/* One place for each hash of a user, the later answer wins. When the bytes are used up, the places are
 * emptied in turn, so an answer stays about as long as it takes to fill them all. */
#include "routing/directory_cache.h"

#include "core/hash.h"

#include <stdlib.h>

enum { PLACE_BYTES = 512, PLACES_MIN = 64 };

struct answer {
    uint64_t as_of_ms;
    size_t count, user_len, bytes;
    struct directory_remote remotes[];
    /* then the user's bytes */
};

struct directory_cache {
    uint64_t bytes, bytes_max;
    size_t place_count, hand;
    struct answer *places[];
};

enum status directory_cache_create(uint64_t bytes_max, struct directory_cache **out)
{
    size_t places = PLACES_MIN + (size_t)(bytes_max / PLACE_BYTES);
    struct directory_cache *c = calloc(1, sizeof *c + places * sizeof c->places[0]);
    if (!c)
        return ST_NO_MEMORY;
    c->place_count = places;
    c->bytes_max = bytes_max;
    *out = c;
    return ST_OK;
}

static void empty_place(struct directory_cache *c, size_t place)
{
    if (!c->places[place])
        return;
    c->bytes -= c->places[place]->bytes;
    free(c->places[place]);
    c->places[place] = NULL;
}

void directory_cache_destroy(struct directory_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->place_count; i++)
        empty_place(c, i);
    free(c);
}

static size_t place_of(const struct directory_cache *c, struct slice user)
{
    return (size_t)(hash64(user) % c->place_count);
}

void directory_cache_put(struct directory_cache *c, struct slice user, uint64_t as_of_ms,
                         const struct directory_remote *remotes, size_t count)
{
    size_t place = place_of(c, user), bytes = sizeof(struct answer) + count * sizeof *remotes + user.len;
    empty_place(c, place);
    if (bytes > c->bytes_max)
        return;
    while (c->bytes + bytes > c->bytes_max) {
        empty_place(c, c->hand);
        c->hand = (c->hand + 1) % c->place_count;
    }
    struct answer *a = malloc(bytes);
    if (!a)
        return;
    *a = (struct answer){.as_of_ms = as_of_ms, .count = count, .user_len = user.len, .bytes = bytes};
    if (count > 0)
        memcpy(a->remotes, remotes, count * sizeof *remotes);
    memcpy(a->remotes + count, user.data, user.len);
    c->places[place] = a;
    c->bytes += bytes;
}

bool directory_cache_get(const struct directory_cache *c, struct slice user, uint64_t *as_of_ms,
                         const struct directory_remote **remotes, size_t *count)
{
    const struct answer *a = c->places[place_of(c, user)];
    if (!a || !slice_equal(slice_of(a->remotes + a->count, a->user_len), user))
        return false;
    *as_of_ms = a->as_of_ms;
    *remotes = a->remotes;
    *count = a->count;
    return true;
}

uint64_t directory_cache_bytes(const struct directory_cache *c)
{
    return c->bytes;
}
