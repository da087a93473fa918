#include "gateway/auth/tickets.h"

#include "core/hash.h"
#include "routing/hash_slots.h"

#include <stdlib.h>
#include <sys/random.h>

struct ticket {
    struct ticket *next, **place; /* all, for the sweep */
    struct principal *principal;
    uint64_t until_ms;
    char text[TICKET_BYTES];
};

struct tickets {
    struct hash_slots slots;
    struct ticket *all;
    uint64_t count;
};

enum status tickets_create(struct tickets **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? ST_OK : ST_NO_MEMORY;
}

static uint64_t hash_of(const char text[TICKET_BYTES])
{
    return hash64(slice_of(text, TICKET_BYTES));
}

static void drop(struct tickets *t, struct ticket *k)
{
    hash_slots_remove(&t->slots, hash_of(k->text), k);
    *k->place = k->next;
    if (k->next)
        k->next->place = k->place;
    principal_unref(k->principal);
    free(k);
    t->count--;
}

void tickets_destroy(struct tickets *t)
{
    if (!t)
        return;
    while (t->all)
        drop(t, t->all);
    hash_slots_deinit(&t->slots);
    free(t);
}

static void sweep(struct tickets *t, uint64_t now_ms)
{
    struct ticket *next;
    for (struct ticket *k = t->all; k; k = next) {
        next = k->next;
        if (now_ms >= k->until_ms)
            drop(t, k);
    }
}

static enum status draw(char text[TICKET_BYTES])
{
    uint8_t random[TICKET_BYTES / 2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return ST_IO;
    for (size_t i = 0; i < sizeof random; i++) {
        text[2 * i] = "0123456789abcdef"[random[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[random[i] & 15];
    }
    return ST_OK;
}

enum status tickets_put(struct tickets *t, struct principal *p, uint64_t until_ms, uint64_t now_ms,
                        uint64_t most, char out[TICKET_BYTES + 1])
{
    if (t->count >= most)
        sweep(t, now_ms);
    if (t->count >= most)
        return ST_FULL;
    struct ticket *k = calloc(1, sizeof *k);
    if (!k || hash_slots_reserve(&t->slots) != ST_OK) {
        free(k);
        return ST_NO_MEMORY;
    }
    enum status st = draw(k->text);
    if (st != ST_OK) {
        free(k);
        return st;
    }
    k->principal = principal_ref(p);
    k->until_ms = until_ms;
    k->next = t->all;
    k->place = &t->all;
    if (t->all)
        t->all->place = &k->next;
    t->all = k;
    hash_slots_insert(&t->slots, hash_of(k->text), k);
    t->count++;
    memcpy(out, k->text, TICKET_BYTES);
    out[TICKET_BYTES] = '\0';
    return ST_OK;
}

/* Found by a keyed hash: how long a search takes says nothing of which tickets there are. */
struct principal *tickets_take(struct tickets *t, struct slice ticket, uint64_t now_ms)
{
    size_t at;
    if (ticket.len != TICKET_BYTES)
        return NULL;
    uint64_t hash = hash64(ticket);
    for (struct ticket *k = hash_slots_first(&t->slots, hash, &at); k;
         k = hash_slots_next(&t->slots, hash, &at)) {
        if (memcmp(k->text, ticket.data, TICKET_BYTES) != 0)
            continue;
        struct principal *p = now_ms < k->until_ms ? principal_ref(k->principal) : NULL;
        drop(t, k);
        return p;
    }
    return NULL;
}
