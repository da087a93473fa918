#include "gateway/auth/tickets.h"

#include "core/hash.h"
#include "core/list.h"
#include "routing/hash_slots.h"

#include <stdlib.h>
#include <sys/random.h>

struct ticket {
    struct list link; /* tickets->fresh or ->spent */
    bool spent; /* it has opened an event stream */
    struct principal *principal;
    uint64_t until_ms;
    char text[TICKET_BYTES];
};

struct tickets {
    struct hash_slots slots;
    struct list fresh; /* for the sweep */
    struct list spent; /* the one not used for longest first */
    uint64_t count;
};

enum status tickets_create(struct tickets **out)
{
    struct tickets *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    list_init(&t->fresh);
    list_init(&t->spent);
    *out = t;
    return ST_OK;
}

static uint64_t hash_of(const char text[TICKET_BYTES])
{
    return hash64(slice_of(text, TICKET_BYTES));
}

static void drop(struct tickets *t, struct ticket *k)
{
    hash_slots_remove(&t->slots, hash_of(k->text), k);
    list_unlink(&k->link);
    principal_unref(k->principal);
    free(k);
    t->count--;
}

static void sweep_list(struct tickets *t, struct list *all, uint64_t now_ms)
{
    LIST_EACH (node, all) {
        struct ticket *k = LIST_OF(node, struct ticket, link);
        if (now_ms >= k->until_ms)
            drop(t, k);
    }
}

static void sweep(struct tickets *t, uint64_t now_ms)
{
    sweep_list(t, &t->fresh, now_ms);
    sweep_list(t, &t->spent, now_ms);
}

void tickets_destroy(struct tickets *t)
{
    if (!t)
        return;
    sweep(t, UINT64_MAX);
    hash_slots_deinit(&t->slots);
    free(t);
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
    if (t->count >= most && !list_empty(&t->spent))
        drop(t, LIST_OF(t->spent.next, struct ticket, link));
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
    list_push(&t->fresh, &k->link);
    hash_slots_insert(&t->slots, hash_of(k->text), k);
    t->count++;
    memcpy(out, k->text, TICKET_BYTES);
    out[TICKET_BYTES] = '\0';
    return ST_OK;
}

static struct principal *use_ticket(struct tickets *t, struct ticket *k, enum ticket_use use, uint64_t now_ms)
{
    bool good = now_ms < k->until_ms;
    if (good && k->spent && use != TICKET_STREAM_AGAIN)
        return NULL;
    struct principal *p = good ? principal_ref(k->principal) : NULL;
    if (!good || use == TICKET_ONCE) {
        drop(t, k);
        return p;
    }
    k->spent = true;
    k->until_ms = now_ms + TICKET_STREAM_MS;
    list_unlink(&k->link);
    list_push(&t->spent, &k->link);
    return p;
}

/* Found by a keyed hash: how long a search takes says nothing of which tickets there are. */
struct principal *tickets_take(struct tickets *t, struct slice ticket, enum ticket_use use, uint64_t now_ms)
{
    size_t at;
    if (ticket.len != TICKET_BYTES)
        return NULL;
    uint64_t hash = hash64(ticket);
    for (struct ticket *k = hash_slots_first(&t->slots, hash, &at); k;
         k = hash_slots_next(&t->slots, hash, &at)) {
        if (memcmp(k->text, ticket.data, TICKET_BYTES) != 0)
            continue;
        return use_ticket(t, k, use, now_ms);
    }
    return NULL;
}
