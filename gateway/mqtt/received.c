#include "gateway/mqtt/received.h"

#include <assert.h>
#include <stdlib.h>

enum { CAP_FIRST = 8 };

void received_deinit(struct received_ids *r)
{
    free(r->slots);
    *r = (struct received_ids){0};
}

/* Where it is, or the free slot where it would be. */
static struct received *slot_of(const struct received_ids *r, uint16_t id)
{
    uint32_t at = id & (r->cap - 1);
    while (r->slots[at].state != RECEIVED_NONE && r->slots[at].id != id)
        at = (at + 1) & (r->cap - 1);
    return &r->slots[at];
}

struct received *received_find(const struct received_ids *r, uint16_t id)
{
    if (r->count == 0)
        return NULL;
    struct received *slot = slot_of(r, id);
    return slot->state == RECEIVED_NONE ? NULL : slot;
}

/* Never more than half full: there is always a free slot, and runs are short. */
static enum status received_grow(struct received_ids *r)
{
    struct received_ids larger = {.cap = r->cap ? r->cap * 2 : CAP_FIRST, .count = r->count};
    if (r->count * 2 + 2 <= r->cap)
        return ST_OK;
    larger.slots = calloc(larger.cap, sizeof *larger.slots);
    if (!larger.slots)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < r->cap; i++)
        if (r->slots[i].state != RECEIVED_NONE)
            *slot_of(&larger, r->slots[i].id) = r->slots[i];
    free(r->slots);
    *r = larger;
    return ST_OK;
}

struct received *received_add(struct received_ids *r, uint16_t id)
{
    if (received_grow(r) != ST_OK)
        return NULL;
    struct received *slot = slot_of(r, id);
    assert(slot->state == RECEIVED_NONE);
    *slot = (struct received){.id = id, .state = RECEIVED_STORING};
    r->count++;
    return slot;
}

void received_remove(struct received_ids *r, uint16_t id)
{
    struct received *slot = received_find(r, id);
    assert(slot);
    uint32_t hole = (uint32_t)(slot - r->slots), at = hole;
    r->count--;
    r->slots[hole] = (struct received){0};
    /* What comes behind moves up, unless it would then stand before its own place. */
    for (;;) {
        at = (at + 1) & (r->cap - 1);
        if (r->slots[at].state == RECEIVED_NONE)
            return;
        uint32_t home = r->slots[at].id & (r->cap - 1);
        if (((at - home) & (r->cap - 1)) < ((at - hole) & (r->cap - 1)))
            continue;
        r->slots[hole] = r->slots[at];
        r->slots[at] = (struct received){0};
        hole = at;
    }
}

struct received *received_next(const struct received_ids *r, uint32_t *place)
{
    while (*place < r->cap) {
        struct received *slot = &r->slots[(*place)++];
        if (slot->state != RECEIVED_NONE)
            return slot;
    }
    return NULL;
}
