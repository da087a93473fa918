#include "session/flight.h"

#include <assert.h>
#include <stdlib.h>

enum { CAP_FIRST = 8, SPAN_MAX = 32768, IDS = 65535 };

void flights_init(struct flights *f, uint16_t max)
{
    assert(max > 0);
    *f = (struct flights){.max = max, .oldest = 1, .next = 1};
}

void flights_deinit(struct flights *f)
{
    uint32_t place = 0;
    uint16_t id;
    for (struct flight *flight; (flight = flights_next(f, &place, &id));)
        msg_unref(flight->msg);
    free(f->ring);
    *f = (struct flights){0};
}

static uint16_t id_behind(uint16_t id, uint32_t steps)
{
    uint32_t sum = id + steps;
    return (uint16_t)(sum > IDS ? sum - IDS : sum);
}

static uint32_t steps_between(uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)(to - from) : (uint32_t)(to + IDS - from);
}

static struct flight *place_of(const struct flights *f, uint16_t id)
{
    return &f->ring[id & (f->cap - 1)];
}

/* Room for a range of `span`. Identifiers keep their place (id mod cap). The range crosses from 65,535 to 1,
 * where id mod cap skips 0: harmless, as `cap` is always larger than the range. */
static enum status flights_grow(struct flights *f, uint32_t span)
{
    struct flights larger = *f;
    if (span + 2 <= f->cap)
        return ST_OK;
    while (larger.cap < span + 2)
        larger.cap = larger.cap ? larger.cap * 2 : CAP_FIRST;
    larger.ring = calloc(larger.cap, sizeof *larger.ring);
    if (!larger.ring)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < f->span; i++) {
        uint16_t id = id_behind(f->oldest, i);
        *place_of(&larger, id) = *place_of(f, id);
    }
    free(f->ring);
    *f = larger;
    return ST_OK;
}

enum status flights_take(struct flights *f, uint16_t *id, struct flight **out)
{
    if (flights_full(f) || f->span >= SPAN_MAX || flights_grow(f, f->span + 1u) != ST_OK)
        return ST_AGAIN;
    *id = f->next;
    *out = place_of(f, f->next);
    **out = (struct flight){.state = FLIGHT_SENT, .open = true};
    f->next = id_behind(f->next, 1);
    f->span++;
    f->count++;
    f->open++;
    return ST_OK;
}

struct flight *flights_find(const struct flights *f, uint16_t id)
{
    if (id == 0 || steps_between(f->oldest, id) >= f->span)
        return NULL;
    struct flight *flight = place_of(f, id);
    return flight->state == FLIGHT_NONE ? NULL : flight;
}

void flights_end(struct flights *f, uint16_t id)
{
    struct flight *flight = flights_find(f, id);
    assert(flight);
    f->count--;
    f->open = (uint16_t)(f->open - flight->open);
    msg_unref(flight->msg);
    *flight = (struct flight){0};
    while (f->span > 0 && place_of(f, f->oldest)->state == FLIGHT_NONE) {
        f->oldest = id_behind(f->oldest, 1);
        f->span--;
    }
}

enum status flights_restore(struct flights *f, uint16_t id, const struct flight *flight)
{
    assert(flight->state != FLIGHT_NONE && !flight->open);
    if (id == 0)
        return ST_INVALID;
    if (f->count == 0)
        f->oldest = f->next = id;
    uint32_t skipped = steps_between(f->next, id);
    if (f->span + skipped + 1 > SPAN_MAX)
        return ST_INVALID;
    if (flights_grow(f, f->span + skipped + 1) != ST_OK)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < skipped; i++)
        *place_of(f, id_behind(f->next, i)) = (struct flight){0};
    *place_of(f, id) = *flight;
    f->span = (uint16_t)(f->span + skipped + 1);
    f->next = id_behind(id, 1);
    f->count++;
    return ST_OK;
}

void flights_reopen(struct flights *f, struct flight *flight)
{
    assert(!flight->open);
    flight->open = true;
    f->open++;
}

struct flight *flights_next(const struct flights *f, uint32_t *place, uint16_t *id)
{
    while (*place < f->span) {
        *id = id_behind(f->oldest, (*place)++);
        struct flight *flight = place_of(f, *id);
        if (flight->state != FLIGHT_NONE)
            return flight;
    }
    return NULL;
}

struct flight *flights_behind(const struct flights *f, uint16_t *id)
{
    /* One that has left the range lies before all that is in it. */
    uint32_t steps = *id == 0 ? f->span : steps_between(f->oldest, *id);
    uint32_t place = steps < f->span ? steps + 1 : 0;
    return flights_next(f, &place, id);
}
