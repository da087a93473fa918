/* Why on_released is late enough: RELEASE is answered by the loop that keeps the identifier, and an earlier
 * notice of a take-over left that loop before, in the same FIFO. So when the answer arrives no notice is
 * under way. */
#include "session/registry.h"

#include "core/hash.h"
#include "core/list.h"

#include <assert.h>
#include <stdlib.h>

enum { BUCKETS_FIRST = 64 };

struct registry {
    struct courier *courier;
    struct claim **buckets;
    size_t bucket_count, count; /* power of two */
    unsigned loop_count;
    struct registry *shares[LOOPS_MAX];
};

static struct claim **bucket_of(const struct registry *r, uint64_t hash)
{
    return &r->buckets[(hash >> 8) & (r->bucket_count - 1)];
}

/* Twice the buckets; without memory the chains only get longer. */
static void registry_grow(struct registry *r)
{
    struct registry larger = *r;
    larger.bucket_count = r->bucket_count * 2;
    larger.buckets = calloc(larger.bucket_count, sizeof *larger.buckets);
    if (!larger.buckets)
        return;
    for (size_t i = 0; i < r->bucket_count; i++) {
        while (r->buckets[i]) {
            struct claim *c = r->buckets[i];
            r->buckets[i] = c->next_in_bucket;
            struct claim **to = bucket_of(&larger, c->hash);
            c->next_in_bucket = *to;
            *to = c;
        }
    }
    free(r->buckets);
    *r = larger;
}

static void claim_drop(struct registry *r, struct claim **place)
{
    struct claim *c = *place;
    *place = c->next_in_bucket;
    c->held = false;
    r->count--;
}

static void taken_arrived(struct mail *mail)
{
    struct claim *c = LIST_OF(mail, struct claim, taken);
    c->on_taken_over(c);
}

static void claimed_arrived_home(struct mail *mail)
{
    struct claim *c = LIST_OF(mail, struct claim, mail);
    c->on_claimed(c);
}

static void released_arrived_home(struct mail *mail)
{
    struct claim *c = LIST_OF(mail, struct claim, mail);
    c->on_released(c);
}

static void claim_grant(struct registry *r, struct claim *c)
{
    c->mail.on_arrival = claimed_arrived_home;
    courier_send(r->courier, c->home, &c->mail);
}

static void claim_arrived(struct mail *mail)
{
    struct claim *c = LIST_OF(mail, struct claim, mail);
    struct registry *r = c->share;
    bool waits = false;
    for (struct claim **place = bucket_of(r, c->hash); *place; place = &(*place)->next_in_bucket) {
        struct claim *holder = *place;
        if (holder->hash != c->hash || !slice_equal(holder->id, c->id))
            continue;
        claim_drop(r, place);
        holder->taken.on_arrival = taken_arrived;
        courier_send(r->courier, holder->home, &holder->taken);
        waits = c->patient;
        holder->heir = waits ? c : NULL;
        break;
    }
    if (r->count >= r->bucket_count)
        registry_grow(r);
    struct claim **place = bucket_of(r, c->hash);
    c->next_in_bucket = *place;
    *place = c;
    c->held = true;
    r->count++;
    if (!waits)
        claim_grant(r, c);
}

static void release_arrived(struct mail *mail)
{
    struct claim *c = LIST_OF(mail, struct claim, mail);
    struct registry *r = c->share;
    for (struct claim **place = bucket_of(r, c->hash); c->held && *place; place = &(*place)->next_in_bucket) {
        if (*place == c) {
            claim_drop(r, place);
            break;
        }
    }
    if (c->heir)
        claim_grant(r, c->heir);
    mail->on_arrival = released_arrived_home;
    courier_send(r->courier, c->home, mail);
}

void registry_claim(struct registry *r, struct claim *c)
{
    c->hash = hash64(c->id);
    unsigned to = (unsigned)(c->hash % r->loop_count);
    c->home = (uint16_t)courier_index(r->courier);
    c->share = r->shares[to];
    c->held = false;
    c->heir = NULL;
    c->mail.on_arrival = claim_arrived;
    courier_send(r->courier, to, &c->mail);
}

void registry_release(struct registry *r, struct claim *c)
{
    c->mail.on_arrival = release_arrived;
    courier_send(r->courier, (unsigned)(c->hash % r->loop_count), &c->mail);
}

/* To the loop that keeps the identifier, and from there to whoever holds it. */
struct moved {
    struct mail mail;
    struct registry *share;
    struct claim *holder;
    uint64_t offset, hash;
    size_t len;
    uint8_t id[]; /* \0, then the topic: as keepers claim it */
};

static void moved_arrived_home(struct mail *mail)
{
    struct moved *m = LIST_OF(mail, struct moved, mail);
    m->holder->on_attached_elsewhere(m->holder, m->offset);
    free(m);
}

/* The holder is there until its RELEASE is answered from here, behind this letter. */
static void moved_arrived(struct mail *mail)
{
    struct moved *m = LIST_OF(mail, struct moved, mail);
    struct registry *r = m->share;
    struct claim *c = *bucket_of(r, m->hash);
    while (c && (c->hash != m->hash || !slice_equal(c->id, slice_of(m->id, m->len))))
        c = c->next_in_bucket;
    if (!c || !c->on_attached_elsewhere) {
        free(m);
        return;
    }
    m->holder = c;
    mail->on_arrival = moved_arrived_home;
    courier_send(r->courier, c->home, mail);
}

void registry_attached_elsewhere(struct registry *r, struct slice topic, uint64_t offset)
{
    struct moved *m = calloc(1, sizeof *m + topic.len + 1);
    if (!m)
        abort();
    m->len = topic.len + 1;
    memcpy(m->id + 1, topic.data, topic.len);
    m->hash = hash64(slice_of(m->id, m->len));
    m->offset = offset;
    unsigned to = (unsigned)(m->hash % r->loop_count);
    m->share = r->shares[to];
    m->mail.on_arrival = moved_arrived;
    courier_send(r->courier, to, &m->mail);
}

enum status registry_create(struct courier *courier, struct registry **out)
{
    struct registry *r = calloc(1, sizeof *r);
    if (!r)
        return ST_NO_MEMORY;
    r->courier = courier;
    r->bucket_count = BUCKETS_FIRST;
    r->buckets = calloc(r->bucket_count, sizeof *r->buckets);
    if (!r->buckets) {
        free(r);
        return ST_NO_MEMORY;
    }
    *out = r;
    return ST_OK;
}

void registry_destroy(struct registry *r)
{
    if (!r)
        return;
    free(r->buckets);
    free(r);
}

void registry_meet(struct registry *r, unsigned loop_index, struct registry *other, unsigned loop_count)
{
    assert(loop_index < loop_count && loop_count <= LOOPS_MAX);
    r->shares[loop_index] = other;
    r->loop_count = loop_count;
}

size_t registry_count(const struct registry *r)
{
    return r->count;
}
