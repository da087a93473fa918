/* Linear probing, with the home slot taken from the *top* bits of the hash. Twice as many slots then
 * keep the items in the same order, so growing reads and writes memory from left to right: 1 M items
 * move in about the time of a copy instead of a cache miss each. The whole hash stands in the slot:
 * probing does not touch the items, nor does growing.
 *
 * At most 3/4 of the slots are used. Removal moves later items of the run back instead of leaving
 * tombstones, so the cost of a look-up depends on what is in the index, never on its history.
 */
#include "routing/hash_slots.h"

#include <assert.h>
#include <stdlib.h>

enum { BITS_MIN = 3, BITS_MAX = 48 };

void hash_slots_deinit(struct hash_slots *h)
{
    free(h->slots);
    *h = (struct hash_slots){0};
}

static void place_item(struct hash_slots *h, uint64_t hash, void *item)
{
    const size_t mask = ((size_t)1 << h->bits) - 1;
    size_t at = hash_slots_home(h, hash);
    while (h->slots[at].item)
        at = (at + 1) & mask;
    h->slots[at] = (struct hash_slot){hash, item};
}

static enum status resize(struct hash_slots *h, unsigned bits)
{
    assert(bits >= BITS_MIN && bits <= BITS_MAX);
    struct hash_slots larger = {.count = h->count, .bits = bits};
    larger.slots = calloc((size_t)1 << bits, sizeof(*larger.slots));
    if (!larger.slots)
        return ST_NO_MEMORY;
    size_t slot_count = h->slots ? (size_t)1 << h->bits : 0;
    for (size_t i = 0; i < slot_count; i++) {
        if (h->slots[i].item)
            place_item(&larger, h->slots[i].hash, h->slots[i].item);
    }
    free(h->slots);
    *h = larger;
    return ST_OK;
}

enum status hash_slots_reserve(struct hash_slots *h)
{
    if (!h->slots)
        return resize(h, BITS_MIN);
    if (h->count + 1 > (size_t)3 << h->bits >> 2)
        return resize(h, h->bits + 1);
    return ST_OK;
}

void hash_slots_insert(struct hash_slots *h, uint64_t hash, void *item)
{
    assert(h->slots && item && h->count < (size_t)3 << h->bits >> 2);
    place_item(h, hash, item);
    h->count++;
}

/* Closes the hole at `hole`: an item further on in the run may move into it unless that would be before
 * its home. */
static void close_hole(struct hash_slots *h, size_t hole)
{
    const size_t mask = ((size_t)1 << h->bits) - 1;
    for (size_t at = (hole + 1) & mask; h->slots[at].item; at = (at + 1) & mask) {
        size_t home = hash_slots_home(h, h->slots[at].hash);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            h->slots[hole] = h->slots[at];
            hole = at;
        }
    }
    h->slots[hole] = (struct hash_slot){0, NULL};
}

void hash_slots_remove(struct hash_slots *h, uint64_t hash, const void *item)
{
    assert(h->slots && h->count > 0);
    const size_t mask = ((size_t)1 << h->bits) - 1;
    size_t at = hash_slots_home(h, hash);
    while (h->slots[at].item != item) {
        assert(h->slots[at].item);
        at = (at + 1) & mask;
    }
    close_hole(h, at);
    h->count--;
    /* Far below a half, so that an item that comes and goes does not resize each time. When there is no
     * memory for the smaller index the larger one stays. */
    if (h->count == 0)
        hash_slots_deinit(h);
    else if (h->bits > BITS_MIN && h->count < (size_t)1 << h->bits >> 3)
        (void)!resize(h, h->bits - 1);
}
