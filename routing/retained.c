/* Two views of the same entries: a hash table by topic, and a row in the order of offsets. A message that is
 * published always has the greatest offset so far, so the row only grows at its end; what it replaces leaves
 * a hole, and when half of the row is holes it is closed up. A walk finds its place in the row by bisection.
 * While the log is read at the start there is only the table, for a carried message comes late; then the row
 * is made of it. */
#include "routing/retained.h"

#include "core/hash.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS_FIRST = 64, ROW_FIRST = 64 };

struct retained {
    struct retained_limits limits;
    uint64_t count, bytes;
    struct msg **slots; /* open addressing, linear; power of two, at most 2/3 full */
    uint64_t slot_count;
    struct row_entry {
        uint64_t offset;
        uint64_t expires_ms; /* the message's, 0 = never: looking for what has expired touches only the row */
        struct msg *msg; /* the table's; NULL: a hole */
    } * row;
    uint64_t row_len, row_cap, holes;
    uint64_t expiring; /* entries with expires_ms */
    uint64_t swept; /* retained_expire goes on at this offset */
    bool loading; /* there is no row yet */
};

static uint64_t cost(const struct msg *m)
{
    return sizeof *m + m->topic_len + m->key_len + m->props_len + m->payload_len;
}

enum status retained_create(const struct retained_limits *limits, struct retained **out)
{
    struct retained *r = calloc(1, sizeof *r);
    if (!r)
        return ST_NO_MEMORY;
    r->limits = *limits;
    *out = r;
    return ST_OK;
}

void retained_destroy(struct retained *r)
{
    if (!r)
        return;
    for (uint64_t i = 0; i < r->slot_count; i++)
        msg_unref(r->slots[i]);
    free(r->slots);
    free(r->row);
    free(r);
}

void retained_each(const struct retained *r, void (*on_message)(void *ctx, const struct msg *m), void *ctx)
{
    for (uint64_t i = 0; i < r->slot_count; i++)
        if (r->slots[i])
            on_message(ctx, r->slots[i]);
}

/* --- by topic ------------------------------------------------------------------------------------- */

/* The slot of the topic, or the free one where it would go. */
static uint64_t slot_of(const struct retained *r, struct slice topic, uint64_t hash)
{
    uint64_t i = hash & (r->slot_count - 1);
    while (r->slots[i] && !(r->slots[i]->topic_hash == hash && slice_equal(msg_topic(r->slots[i]), topic)))
        i = (i + 1) & (r->slot_count - 1);
    return i;
}

static enum status slots_grow(struct retained *r)
{
    if (r->slot_count > 0 && (r->count + 1) * 3 <= r->slot_count * 2)
        return ST_OK;
    struct retained larger = {.slot_count = r->slot_count ? r->slot_count * 2 : SLOTS_FIRST};
    larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
    if (!larger.slots)
        return ST_NO_MEMORY;
    for (uint64_t i = 0; i < r->slot_count; i++)
        if (r->slots[i])
            larger.slots[slot_of(&larger, msg_topic(r->slots[i]), r->slots[i]->topic_hash)] = r->slots[i];
    free(r->slots);
    r->slots = larger.slots;
    r->slot_count = larger.slot_count;
    return ST_OK;
}

/* Takes an entry out without leaving a mark: later ones of its run move up if their own place allows. */
static void slot_clear(struct retained *r, uint64_t i)
{
    uint64_t mask = r->slot_count - 1;
    for (uint64_t k = (i + 1) & mask; r->slots[k]; k = (k + 1) & mask) {
        uint64_t home = r->slots[k]->topic_hash & mask;
        if (((k - home) & mask) >= ((k - i) & mask)) {
            r->slots[i] = r->slots[k];
            i = k;
        }
    }
    r->slots[i] = NULL;
}

/* --- by offset ------------------------------------------------------------------------------------ */

/* The first entry at or above the offset. */
static uint64_t row_find(const struct retained *r, uint64_t offset)
{
    uint64_t low = 0, high = r->row_len;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->row[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void row_close_up(struct retained *r)
{
    uint64_t to = 0;
    for (uint64_t i = 0; i < r->row_len; i++)
        if (r->row[i].msg)
            r->row[to++] = r->row[i];
    r->row_len = to;
    r->holes = 0;
}

static enum status row_grow(struct retained *r)
{
    if (r->row_len < r->row_cap)
        return ST_OK;
    uint64_t cap = r->row_cap ? r->row_cap * 2 : ROW_FIRST;
    struct row_entry *row = realloc(r->row, cap * sizeof *row);
    if (!row)
        return ST_NO_MEMORY;
    r->row = row;
    r->row_cap = cap;
    return ST_OK;
}

/* --- the fold ------------------------------------------------------------------------------------- */

static void retained_drop(struct retained *r, uint64_t slot)
{
    struct msg *old = r->slots[slot];
    if (!r->loading) {
        uint64_t place = row_find(r, old->offset);
        assert(place < r->row_len && r->row[place].msg == old);
        r->row[place].msg = NULL;
        r->holes++;
    }
    slot_clear(r, slot);
    r->count--;
    r->bytes -= cost(old);
    r->expiring -= old->expires_ms != 0;
    msg_unref(old);
}

static void row_tidy(struct retained *r)
{
    if (r->holes > ROW_FIRST && r->holes * 2 > r->row_len)
        row_close_up(r);
}

bool retained_has_room(const struct retained *r, const struct msg *m)
{
    if (m->payload_len == 0)
        return true;
    const struct msg *old = retained_get(r, msg_topic(m));
    uint64_t less = old ? cost(old) : 0;
    return r->count - (old ? 1 : 0) < r->limits.count_max && r->bytes - less + cost(m) <= r->limits.bytes_max;
}

enum status retained_fold(struct retained *r, struct msg *m)
{
    if (slots_grow(r) != ST_OK || (!r->loading && row_grow(r) != ST_OK))
        return ST_NO_MEMORY;
    assert(r->loading || r->row_len == 0 || m->offset > r->row[r->row_len - 1].offset);
    uint64_t slot = slot_of(r, msg_topic(m), m->topic_hash);
    if (r->slots[slot]) {
        retained_drop(r, slot);
        slot = slot_of(r, msg_topic(m), m->topic_hash);
    }
    if (m->payload_len > 0) {
        r->slots[slot] = msg_ref(m);
        if (!r->loading)
            r->row[r->row_len++] = (struct row_entry){m->offset, m->expires_ms, m};
        r->count++;
        r->bytes += cost(m);
        r->expiring += m->expires_ms != 0;
    }
    row_tidy(r);
    return ST_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct row_entry *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void retained_load(struct retained *r)
{
    assert(r->count == 0 && r->row_len == 0);
    r->loading = true;
}

enum status retained_loaded(struct retained *r)
{
    assert(r->loading);
    if (r->count > r->row_cap) {
        struct row_entry *row = malloc(r->count * sizeof *row);
        if (!row)
            return ST_NO_MEMORY;
        free(r->row);
        r->row = row;
        r->row_cap = r->count;
    }
    for (uint64_t i = 0; i < r->slot_count; i++)
        if (r->slots[i])
            r->row[r->row_len++] =
                (struct row_entry){r->slots[i]->offset, r->slots[i]->expires_ms, r->slots[i]};
    if (r->row_len > 0)
        qsort(r->row, r->row_len, sizeof *r->row, compare_entries);
    r->loading = false;
    return ST_OK;
}

uint64_t retained_count(const struct retained *r)
{
    return r->count;
}

uint64_t retained_bytes(const struct retained *r)
{
    return r->bytes;
}

struct msg *retained_get(const struct retained *r, struct slice topic)
{
    return r->slot_count == 0 ? NULL : r->slots[slot_of(r, topic, hash64(topic))];
}

static bool has_expired(const struct row_entry *e, uint64_t now_ms)
{
    return e->expires_ms != 0 && now_ms >= e->expires_ms;
}

static void row_drop(struct retained *r, const struct row_entry *e)
{
    retained_drop(r, slot_of(r, msg_topic(e->msg), e->msg->topic_hash));
}

uint32_t retained_walk(struct retained *r, uint64_t from, uint64_t to,
                       bool (*wants)(void *ctx, struct slice topic), void *ctx, uint64_t now_ms,
                       struct msg **msgs, uint32_t most, uint64_t *next)
{
    uint32_t found = 0;
    uint64_t i = row_find(r, from);
    for (unsigned seen = 0; i < r->row_len && r->row[i].offset < to && seen < RETAINED_STEP; i++, seen++) {
        const struct row_entry *e = &r->row[i];
        if (msgs && found == most)
            break;
        if (e->msg && has_expired(e, now_ms))
            row_drop(r, e);
        if (!e->msg || (wants && !wants(ctx, msg_topic(e->msg))))
            continue;
        if (msgs)
            msgs[found] = msg_ref(e->msg);
        found++;
    }
    *next = i < r->row_len && r->row[i].offset < to ? r->row[i].offset : from > to ? from : to;
    return found;
}

uint32_t retained_stored_below(const struct retained *r, uint64_t from, uint64_t upto, uint64_t now_ms,
                               struct msg **msgs, uint32_t most, uint64_t bytes_max, uint64_t *next)
{
    uint32_t found = 0;
    uint64_t i = row_find(r, from), bytes = 0;
    /* What is stored below `upto` was published below it. */
    for (unsigned seen = 0; i < r->row_len && r->row[i].offset < upto && seen < RETAINED_STEP; i++, seen++) {
        const struct row_entry *e = &r->row[i];
        if (!e->msg || e->msg->stored >= upto || has_expired(e, now_ms))
            continue;
        if (found == most || bytes >= bytes_max)
            break;
        bytes += cost(e->msg);
        msgs[found++] = msg_ref(e->msg);
    }
    *next = i < r->row_len && r->row[i].offset < upto ? r->row[i].offset : from > upto ? from : upto;
    return found;
}

uint64_t retained_expiring(const struct retained *r)
{
    return r->expiring;
}

bool retained_expire(struct retained *r, uint64_t now_ms)
{
    uint64_t i = row_find(r, r->swept);
    if (r->expiring == 0)
        i = r->row_len;
    for (unsigned seen = 0; i < r->row_len && seen < RETAINED_STEP; i++, seen++)
        if (r->row[i].msg && has_expired(&r->row[i], now_ms))
            row_drop(r, &r->row[i]);
    bool end = i == r->row_len;
    r->swept = end ? 0 : r->row[i].offset;
    row_tidy(r);
    return end;
}
