#include "session/window.h"

#include <assert.h>
#include <stdlib.h>

enum { BITS_FIRST = 64, SPAN_MAX = 32768, IDS = 65535 };

void window_init(struct window *w, uint16_t max)
{
    assert(max > 0);
    *w = (struct window){.max = max, .oldest = 1, .next = 1};
}

void window_deinit(struct window *w)
{
    free(w->open);
    *w = (struct window){0};
}

static uint16_t id_after(uint16_t id)
{
    return id == IDS ? 1 : (uint16_t)(id + 1);
}

static uint64_t *word_of(const struct window *w, uint16_t id)
{
    return &w->open[(id & (w->bits - 1)) / 64];
}

static uint64_t bit_of(uint16_t id)
{
    return UINT64_C(1) << (id % 64);
}

/* A larger bitmap; identifiers keep their bit (id mod bits). The range crosses from 65,535 to 1, where id mod
 * bits skips 0: harmless, as `bits` is always larger than the range. */
static enum status window_grow(struct window *w)
{
    struct window larger = *w;
    larger.bits = w->bits ? w->bits * 2 : BITS_FIRST;
    larger.open = calloc(larger.bits / 64, sizeof *larger.open);
    if (!larger.open)
        return ST_AGAIN;
    uint16_t id = w->oldest;
    for (uint32_t i = 0; i < w->span; i++, id = id_after(id))
        if (*word_of(w, id) & bit_of(id))
            *word_of(&larger, id) |= bit_of(id);
    free(w->open);
    *w = larger;
    return ST_OK;
}

enum status window_take(struct window *w, uint16_t *id)
{
    if (w->count >= w->max || w->span >= SPAN_MAX)
        return ST_AGAIN;
    if (w->span + 2u > w->bits && window_grow(w) != ST_OK)
        return ST_AGAIN;
    *id = w->next;
    *word_of(w, w->next) |= bit_of(w->next);
    w->next = id_after(w->next);
    w->span++;
    w->count++;
    return ST_OK;
}

enum status window_give_back(struct window *w, uint16_t id)
{
    if (id == 0 || w->count == 0)
        return ST_NOT_FOUND;
    uint32_t place = id >= w->oldest ? (uint32_t)(id - w->oldest) : (uint32_t)(id + IDS - w->oldest);
    if (place >= w->span || !(*word_of(w, id) & bit_of(id)))
        return ST_NOT_FOUND;
    *word_of(w, id) &= ~bit_of(id);
    w->count--;
    while (w->span > 0 && !(*word_of(w, w->oldest) & bit_of(w->oldest))) {
        w->oldest = id_after(w->oldest);
        w->span--;
    }
    return ST_OK;
}
