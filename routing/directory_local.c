/* The directory of one node. A user's entries live on the loop that his name's hash chooses; ADD, REMOVE and
 * FIND travel there as letters and come back as their own answers, so there is nothing to lock and nobody
 * waits (session/registry.c does the same for client identifiers).
 *
 *   buckets -> known user -> entries, by age */
#include "routing/directory.h"

#include "core/hash.h"
#include "routing/courier.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUCKETS_FIRST = 64 };

struct known {
    struct known *next_in_bucket;
    uint64_t hash;
    struct list entries; /* struct directory_entry */
    uint32_t count;
    size_t len;
    uint8_t user[];
};

struct directory_local {
    struct courier *courier;
    const char *node;
    uint64_t incarnation;
    struct directory_beyond beyond; /* find NULL: nobody */
    struct known **buckets;
    size_t bucket_count, count; /* power of two; users */
    unsigned loop_count;
    struct directory_local *shares[LOOPS_MAX];
};

static struct known **bucket_of(const struct directory_local *d, uint64_t hash)
{
    return &d->buckets[(hash >> 8) & (d->bucket_count - 1)];
}

/* Where the pointer to the user's node is, or would be. */
static struct known **find_place(const struct directory_local *d, uint64_t hash, struct slice user)
{
    struct known **place = bucket_of(d, hash);
    while (*place && ((*place)->hash != hash || !slice_equal(slice_of((*place)->user, (*place)->len), user)))
        place = &(*place)->next_in_bucket;
    return place;
}

/* Twice the buckets; without memory the chains only get longer. */
static void grow(struct directory_local *d)
{
    struct directory_local larger = *d;
    larger.bucket_count = d->bucket_count * 2;
    larger.buckets = calloc(larger.bucket_count, sizeof *larger.buckets);
    if (!larger.buckets)
        return;
    for (size_t i = 0; i < d->bucket_count; i++) {
        while (d->buckets[i]) {
            struct known *k = d->buckets[i];
            d->buckets[i] = k->next_in_bucket;
            struct known **to = bucket_of(&larger, k->hash);
            k->next_in_bucket = *to;
            *to = k;
        }
    }
    free(d->buckets);
    *d = larger;
}

/* The user's node, made when there is none. NULL: no memory. */
static struct known *known_of(struct directory_local *d, uint64_t hash, struct slice user)
{
    struct known **place = find_place(d, hash, user);
    if (*place)
        return *place;
    struct known *k = calloc(1, sizeof *k + user.len);
    if (!k)
        return NULL;
    k->hash = hash;
    list_init(&k->entries);
    k->len = user.len;
    memcpy(k->user, user.data, user.len);
    *place = k;
    if (++d->count > d->bucket_count)
        grow(d);
    return k;
}

static void forget_if_empty(struct directory_local *d, struct known *k)
{
    if (k->count > 0)
        return;
    struct known **place = find_place(d, k->hash, slice_of(k->user, k->len));
    *place = k->next_in_bucket;
    d->count--;
    free(k);
}

/* --- letters ------------------------------------------------------------------------------------ */

static void added_arrived_home(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    e->on_added(e);
}

static void removed_arrived_home(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    e->on_removed(e);
}

static void found_arrived_home(struct mail *mail)
{
    struct directory_find *f = LIST_OF(mail, struct directory_find, mail);
    f->on_found(f);
}

static void add_arrived(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    struct directory_local *d = e->share;
    struct known *k = known_of(d, hash64(e->user), e->user);
    e->known = NULL;
    e->status = !k ? ST_NO_MEMORY : e->user_max > 0 && k->count >= e->user_max ? ST_QUOTA : ST_OK;
    if (e->status == ST_OK) {
        e->known = k;
        list_push(&k->entries, &e->link);
        k->count++;
        if (d->beyond.find) {
            d->beyond.entered(d->beyond.ctx, e);
            return;
        }
    }
    mail->on_arrival = added_arrived_home;
    courier_send(d->courier, e->home, mail);
}

static void remove_arrived(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    struct directory_local *d = e->share;
    struct known *k = e->known;
    list_unlink(&e->link);
    k->count--;
    forget_if_empty(d, k);
    if (d->beyond.find) {
        d->beyond.left(d->beyond.ctx, e);
        return;
    }
    mail->on_arrival = removed_arrived_home;
    courier_send(d->courier, e->home, mail);
}

static void collect(const struct directory_local *d, const struct known *k, struct directory_find *f)
{
    uint32_t most = k->count < DIRECTORY_FOUND_MAX ? k->count : DIRECTORY_FOUND_MAX;
    f->total = k->count;
    f->found = calloc(most, sizeof *f->found);
    if (!f->found) {
        f->status = ST_NO_MEMORY;
        return;
    }
    LIST_EACH (node, &k->entries) {
        const struct directory_entry *e = LIST_OF(node, struct directory_entry, link);
        if (f->found_count == most)
            break;
        f->found[f->found_count++] = (struct directory_found){.connection = e->connection,
                                                              .since_ms = e->since_ms,
                                                              .incarnation = d->incarnation,
                                                              .door = e->door,
                                                              .node = d->node};
    }
}

static void find_arrived(struct mail *mail)
{
    struct directory_find *f = LIST_OF(mail, struct directory_find, mail);
    struct directory_local *d = f->share;
    const struct known *k = *find_place(d, hash64(f->user), f->user);
    if (k)
        collect(d, k, f);
    if (d->beyond.find) {
        d->beyond.find(d->beyond.ctx, f);
        return;
    }
    mail->on_arrival = found_arrived_home;
    courier_send(d->courier, f->home, mail);
}

/* --- the port ----------------------------------------------------------------------------------- */

static struct directory_local *share_of(struct directory_local *d, struct slice user, unsigned *loop_index)
{
    assert(d->loop_count > 0);
    *loop_index = (unsigned)(hash64(user) % d->loop_count);
    return d->shares[*loop_index];
}

static void send_entry(struct directory_local *d, struct directory_entry *e,
                       void (*on_arrival)(struct mail *mail))
{
    unsigned to;
    e->share = share_of(d, e->user, &to);
    e->home = (uint16_t)courier_index(d->courier);
    e->mail.on_arrival = on_arrival;
    courier_send(d->courier, to, &e->mail);
}

static void local_add(void *ctx, struct directory_entry *e)
{
    list_init(&e->link);
    send_entry(ctx, e, add_arrived);
}

static void local_remove(void *ctx, struct directory_entry *e)
{
    assert(e->known);
    send_entry(ctx, e, remove_arrived);
}

static void local_find(void *ctx, struct directory_find *f)
{
    struct directory_local *d = ctx;
    unsigned to;
    f->share = share_of(d, f->user, &to);
    f->home = (uint16_t)courier_index(d->courier);
    directory_find_clear(f);
    f->mail.on_arrival = find_arrived;
    courier_send(d->courier, to, &f->mail);
}

struct directory directory_local_port(struct directory_local *d)
{
    static const struct directory_ops ops = {.add = local_add, .remove = local_remove, .find = local_find};
    return (struct directory){&ops, d};
}

size_t connection_id_write(const char *node, uint64_t incarnation, uint64_t connection, char *out,
                           size_t size)
{
    int len = snprintf(out, size, "%s-%lx-%lu", node, (unsigned long)incarnation, (unsigned long)connection);
    return len > 0 && (size_t)len < size ? (size_t)len : 0;
}

static int digit_value(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Takes "-<digits>" off the end. As we write it only: no sign, no leading zeros, lower case. */
static bool take_number(struct slice *text, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    size_t at = text->len;
    while (at > 0 && text->data[at - 1] != '-')
        at--;
    if (at == 0 || at == text->len || (text->data[at] == '0' && text->len - at > 1))
        return false;
    for (size_t i = at; i < text->len; i++) {
        unsigned digit = (unsigned)digit_value(text->data[i]);
        if (digit >= base || value > (UINT64_MAX - digit) / base)
            return false;
        value = value * base + digit;
    }
    *text = slice_of(text->data, at - 1);
    *out = value;
    return true;
}

bool connection_id_read(struct slice text, struct slice *node, uint64_t *incarnation, uint64_t *connection)
{
    if (!take_number(&text, 10, connection) || !take_number(&text, 16, incarnation))
        return false;
    *node = text;
    return true;
}

/* --- life --------------------------------------------------------------------------------------- */

enum status directory_local_create(struct courier *courier, const char *node, uint64_t incarnation,
                                   struct directory_local **out)
{
    struct directory_local *d = calloc(1, sizeof *d);
    if (!d)
        return ST_NO_MEMORY;
    d->courier = courier;
    d->node = node;
    d->incarnation = incarnation;
    d->bucket_count = BUCKETS_FIRST;
    d->buckets = calloc(d->bucket_count, sizeof *d->buckets);
    if (!d->buckets) {
        free(d);
        return ST_NO_MEMORY;
    }
    *out = d;
    return ST_OK;
}

void directory_local_destroy(struct directory_local *d)
{
    if (!d)
        return;
    for (size_t i = 0; i < d->bucket_count; i++) {
        while (d->buckets[i]) {
            struct known *k = d->buckets[i];
            d->buckets[i] = k->next_in_bucket;
            free(k);
        }
    }
    free(d->buckets);
    free(d);
}

void directory_local_meet(struct directory_local *d, unsigned loop_index, struct directory_local *other,
                          unsigned loop_count)
{
    assert(loop_index < loop_count && loop_count <= LOOPS_MAX);
    d->shares[loop_index] = other;
    d->loop_count = loop_count;
}

void directory_local_set_beyond(struct directory_local *d, const struct directory_beyond *b)
{
    d->beyond = *b;
}

size_t directory_local_users(const struct directory_local *d)
{
    return d->count;
}
