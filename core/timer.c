/* A hierarchical timer wheel (Varghese and Lauck, 1987).
 *
 * A timer due at tick D lies, while D is less than 256^(L+1) ticks away, on level L in slot
 * (D / 256^L) mod 256. A slot of level L spans 256^L ticks; when time reaches its first tick, its
 * timers are laid out anew, one level lower or more (cascade):
 *
 *   level 0   |now|   |   |   |   |     one tick a slot; slot `now` holds what is overdue
 *   level 1   | 256 ticks | 256 ticks | ...
 *   level 2   |      65536 ticks      | ...
 *
 * Invariant: on level 0 slots from `now` on, once round, hold ticks now to now + 255; on higher
 * levels the slots after the current one, once round, so that a slot belongs to one stretch of time
 * only. It holds because time never passes the first tick of an occupied slot: advance goes from one
 * such tick to the next (found in the bitmaps), however far it has to go.
 *
 * Due timers are first collected and then fired, when the wheel already stands at its new time. So a
 * callback may arm and cancel what it likes, and what it arms for the past fires at the next advance,
 * not in this one: a timer that re-arms itself for "now" cannot hold the loop. */
#include "core/timer.h"

#include <assert.h>

enum { SLOT_BITS = 8, WORDS = TIMER_SLOTS / 64 };

static const uint64_t HORIZON_TICKS = (UINT64_C(1) << SLOT_BITS * TIMER_LEVELS) - 1;

static void occupy(struct timer_wheel *w, unsigned level, unsigned slot, struct list *node)
{
    list_push(&w->slots[level][slot], node);
    w->occupied[level][slot / 64] |= UINT64_C(1) << slot % 64;
}

static void empty_slot(struct timer_wheel *w, unsigned level, unsigned slot, struct list *to)
{
    list_splice(to, &w->slots[level][slot]);
    w->occupied[level][slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

/* Rounds up: a timer never fires early. */
static uint64_t due_tick(const struct timer *t)
{
    return t->due_ms / TIMER_TICK_MS + (t->due_ms % TIMER_TICK_MS != 0);
}

static void place(struct timer_wheel *w, struct timer *t)
{
    uint64_t tick = due_tick(t);
    if (tick < w->now_tick)
        tick = w->now_tick;
    /* Beyond the horizon a timer waits in the farthest slot and is placed again from there. */
    if (tick - w->now_tick > HORIZON_TICKS)
        tick = w->now_tick + HORIZON_TICKS;
    unsigned level = 0;
    while ((tick - w->now_tick) >> SLOT_BITS * (level + 1) != 0)
        level++;
    occupy(w, level, (unsigned)(tick >> SLOT_BITS * level) % TIMER_SLOTS, &t->link);
}

/* The link's old slot may have become empty: then both neighbours were the slot's head. A timer that
 * has been collected for firing has neighbours outside the wheel. */
static void unplace(struct timer_wheel *w, struct timer *t)
{
    struct list *head = t->link.next;
    list_unlink(&t->link);
    struct list *first = &w->slots[0][0];
    if (!list_empty(head) || head < first || head >= first + TIMER_LEVELS * TIMER_SLOTS)
        return;
    size_t index = (size_t)(head - first);
    w->occupied[index / TIMER_SLOTS][index % TIMER_SLOTS / 64] &= ~(UINT64_C(1) << index % 64);
}

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ms)
{
    *w = (struct timer_wheel){.now_tick = now_ms / TIMER_TICK_MS};
    for (unsigned level = 0; level < TIMER_LEVELS; level++)
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++)
            list_init(&w->slots[level][slot]);
}

void timer_init(struct timer *t, void (*on_fire)(struct timer *t))
{
    assert(on_fire);
    list_init(&t->link);
    t->due_ms = 0;
    t->on_fire = on_fire;
}

void timer_arm(struct timer_wheel *w, struct timer *t, uint64_t due_ms)
{
    timer_cancel(w, t);
    t->due_ms = due_ms;
    place(w, t);
    w->count++;
}

void timer_cancel(struct timer_wheel *w, struct timer *t)
{
    if (!timer_armed(t))
        return;
    assert(w->count > 0);
    unplace(w, t);
    w->count--;
}

/* Steps from `from`, going round, to the first occupied slot; TIMER_SLOTS when there is none. */
static unsigned steps_to_occupied(const uint64_t occupied[WORDS], unsigned from)
{
    unsigned word = from / 64, bit = from % 64;
    uint64_t bits = occupied[word] & ~UINT64_C(0) << bit;
    for (unsigned i = 0; i <= WORDS; i++) {
        if (bits)
            return (word * 64 + (unsigned)__builtin_ctzll(bits) - from) % TIMER_SLOTS;
        word = (word + 1) % WORDS;
        bits = occupied[word]; /* the fifth look sees the first word again, its low part */
    }
    return TIMER_SLOTS;
}

/* The first tick of the earliest occupied slot: nothing fires before it, and no layout changes. */
static uint64_t next_tick(const struct timer_wheel *w)
{
    uint64_t next = UINT64_MAX;
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        /* On the higher levels the current slot comes last: what it holds is one round away. */
        uint64_t from = (w->now_tick >> SLOT_BITS * level) + (level > 0);
        unsigned steps = steps_to_occupied(w->occupied[level], (unsigned)(from % TIMER_SLOTS));
        if (steps == TIMER_SLOTS)
            continue;
        uint64_t tick = (from + steps) << SLOT_BITS * level;
        if (tick < next)
            next = tick;
    }
    return next;
}

static void cascade(struct timer_wheel *w)
{
    for (unsigned level = 1; level < TIMER_LEVELS; level++) {
        if (w->now_tick & ((UINT64_C(1) << SLOT_BITS * level) - 1))
            return;
        struct list moving;
        list_init(&moving);
        empty_slot(w, level, (unsigned)(w->now_tick >> SLOT_BITS * level) % TIMER_SLOTS, &moving);
        while (!list_empty(&moving)) {
            struct timer *t = LIST_OF(moving.next, struct timer, link);
            list_unlink(&t->link);
            place(w, t);
        }
    }
}

static void collect(struct timer_wheel *w, uint64_t until_tick, struct list *due)
{
    for (;;) {
        empty_slot(w, 0, (unsigned)(w->now_tick % TIMER_SLOTS), due);
        uint64_t next = next_tick(w);
        if (next > until_tick)
            break;
        w->now_tick = next;
        cascade(w);
    }
    w->now_tick = until_tick;
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms)
{
    uint64_t tick = now_ms / TIMER_TICK_MS;
    struct list due;
    list_init(&due);
    collect(w, tick < w->now_tick ? w->now_tick : tick, &due);
    while (!list_empty(&due)) {
        struct timer *t = LIST_OF(due.next, struct timer, link);
        list_unlink(&t->link);
        w->count--;
        t->on_fire(t);
    }
}

uint64_t timer_wheel_next_ms(const struct timer_wheel *w)
{
    uint64_t tick = next_tick(w);
    return tick > UINT64_MAX / TIMER_TICK_MS ? UINT64_MAX : tick * TIMER_TICK_MS;
}
