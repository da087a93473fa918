/* Live: open addressing on topic_id, each slot with its topic's places: one place stands in the slot (most
 * topics of a large system are inboxes with a record a segment), more in an array that doubles. Names are
 * strangers' and topic_id's hash key is public, so a slot is chosen by a secret of the process: else
 * a publisher could compute topics that all fall into one place.
 *
 * Of a whole segment: posting_sort.c gathers and sorts, and then it is what an index file is, two arrays. */
#include "core/store/topic_index.h"

#include "core/store/record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { SLOTS_MIN = 64 };

struct slot {
    uint64_t topic_id;
    uint32_t count; /* 0: free */
    uint32_t cap; /* of `many`; 0: the place is in `one` */
    union {
        struct index_place one;
        struct index_place *many;
    };
};

struct topic_index {
    struct slot *slots; /* NULL: of a whole segment */
    uint64_t secret;
    uint32_t slot_count; /* a power of two */
    struct posting_sort *gathered; /* of a whole segment, until it is settled; somebody else's */
    struct postings sorted; /* and then */
    uint32_t topic_count, posting_count;
    struct index_place *frames;
    uint32_t frame_count, frame_cap;
    struct index_range *bad;
    uint32_t bad_count, bad_cap;
};

enum status topic_index_create_whole(struct posting_sort *sort, struct topic_index **out)
{
    struct topic_index *x = calloc(1, sizeof *x);
    if (!x)
        return ST_NO_MEMORY;
    sort->count = 0;
    x->gathered = sort;
    *out = x;
    return ST_OK;
}

enum status topic_index_settle(struct topic_index *x)
{
    if (x->slots || x->sorted.places)
        return ST_OK;
    enum status st = posting_sort_finish(x->gathered, &x->sorted);
    x->gathered = NULL;
    if (st == ST_OK)
        x->topic_count = x->sorted.topic_count;
    return st;
}

enum status topic_index_create(struct topic_index **out)
{
    struct topic_index *x = calloc(1, sizeof *x);
    if (!x)
        return ST_NO_MEMORY;
    x->slot_count = SLOTS_MIN;
    x->slots = calloc(x->slot_count, sizeof *x->slots);
    if (!x->slots) {
        free(x);
        return ST_NO_MEMORY;
    }
    /* Without random numbers the table is only easier to attack. */
    if (getrandom(&x->secret, sizeof x->secret, 0) != (ssize_t)sizeof x->secret)
        x->secret = (uint64_t)(uintptr_t)x;
    x->secret |= 1;
    *out = x;
    return ST_OK;
}

void topic_index_destroy(struct topic_index *x)
{
    if (!x)
        return;
    for (uint32_t i = 0; i < x->slot_count; i++) {
        if (x->slots[i].cap)
            free(x->slots[i].many);
    }
    free(x->slots);
    free(x->sorted.topics);
    free(x->sorted.places);
    free(x->frames);
    free(x->bad);
    free(x);
}

static struct slot *slot_of(const struct topic_index *x, struct slot *slots, uint32_t slot_count,
                            uint64_t topic_id)
{
    __extension__ unsigned __int128 product = (unsigned __int128)(topic_id ^ x->secret) * (x->secret * 2 + 1);
    uint32_t at = (uint32_t)((uint64_t)(product >> 64) ^ (uint64_t)product) & (slot_count - 1);
    while (slots[at].count && slots[at].topic_id != topic_id)
        at = (at + 1) & (slot_count - 1);
    return &slots[at];
}

static enum status grow_slots(struct topic_index *x)
{
    uint32_t count = x->slot_count * 2;
    struct slot *slots = calloc(count, sizeof *slots);
    if (!slots)
        return ST_NO_MEMORY;
    for (uint32_t i = 0; i < x->slot_count; i++) {
        if (x->slots[i].count)
            *slot_of(x, slots, count, x->slots[i].topic_id) = x->slots[i];
    }
    free(x->slots);
    x->slots = slots;
    x->slot_count = count;
    return ST_OK;
}

static enum status slot_append(struct slot *s, struct index_place place)
{
    if (s->cap == 0) {
        struct index_place *many = malloc(4 * sizeof *many);
        if (!many)
            return ST_NO_MEMORY;
        many[0] = s->one;
        s->many = many;
        s->cap = 4;
    } else if (s->count == s->cap) {
        struct index_place *many = realloc(s->many, (size_t)s->cap * 2 * sizeof *many);
        if (!many)
            return ST_NO_MEMORY;
        s->many = many;
        s->cap *= 2;
    }
    s->many[s->count++] = place;
    return ST_OK;
}

static enum status slots_add(struct topic_index *x, uint64_t topic_id, struct index_place place)
{
    if (x->topic_count >= x->slot_count / 10 * 7) {
        enum status st = grow_slots(x);
        if (st != ST_OK)
            return st;
    }
    struct slot *s = slot_of(x, x->slots, x->slot_count, topic_id);
    if (s->count == 0) {
        *s = (struct slot){.topic_id = topic_id, .count = 1, .one = place};
        x->topic_count++;
    } else {
        enum status st = slot_append(s, place);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

enum status topic_index_add(struct topic_index *x, uint64_t topic_id, struct index_place place)
{
    assert(x->slots || x->gathered);
    enum status st =
        x->slots ? slots_add(x, topic_id, place) : posting_sort_add(x->gathered, topic_id, place);
    x->posting_count += st == ST_OK;
    return st;
}

/* Makes room for one more of `size` bytes. */
static enum status reserve(void **array, uint32_t count, uint32_t *cap, size_t size)
{
    if (count < *cap)
        return ST_OK;
    uint32_t more = *cap ? *cap * 2 : 16;
    void *bigger = realloc(*array, more * size);
    if (!bigger)
        return ST_NO_MEMORY;
    *array = bigger;
    *cap = more;
    return ST_OK;
}

enum status topic_index_add_record(struct topic_index *x, uint64_t topic_id, struct slice topic,
                                   struct index_place place)
{
    uint64_t list_id;
    enum status st = topic_index_add(x, topic_id, place);
    return st == ST_OK && record_inbox_list(topic, &list_id) ? topic_index_add(x, list_id, place) : st;
}

enum status topic_index_add_frame(struct topic_index *x, struct index_place place)
{
    if (x->frame_count && place.place - x->frames[x->frame_count - 1].place < INDEX_FRAME_DISTANCE / 8)
        return ST_OK;
    void *array = x->frames;
    enum status st = reserve(&array, x->frame_count, &x->frame_cap, sizeof *x->frames);
    x->frames = array;
    if (st == ST_OK)
        x->frames[x->frame_count++] = place;
    return st;
}

enum status topic_index_add_bad(struct topic_index *x, struct index_range range)
{
    void *array = x->bad;
    enum status st = reserve(&array, x->bad_count, &x->bad_cap, sizeof *x->bad);
    x->bad = array;
    if (st == ST_OK)
        x->bad[x->bad_count++] = range;
    return st;
}

static const struct index_place *slot_places(const struct slot *s)
{
    return s->cap ? s->many : &s->one;
}

struct index_places topic_index_find(const struct topic_index *x, uint64_t topic_id)
{
    if (!x->slots) {
        const struct postings *p = &x->sorted;
        uint32_t at = index_topics_below(p->topics, p->topic_count, topic_id);
        bool there = at < p->topic_count && p->topics[at].topic_id == topic_id;
        return there ? (struct index_places){p->places + p->topics[at].first, p->topics[at].count}
                     : (struct index_places){NULL, 0};
    }
    const struct slot *s = slot_of(x, x->slots, x->slot_count, topic_id);
    return (struct index_places){s->count ? slot_places(s) : NULL, s->count};
}

struct index_places topic_index_frames(const struct topic_index *x)
{
    return (struct index_places){x->frames, x->frame_count};
}

const struct index_range *topic_index_bad(const struct topic_index *x, uint32_t *count)
{
    *count = x->bad_count;
    return x->bad;
}

uint32_t topic_index_topic_count(const struct topic_index *x)
{
    return x->topic_count;
}

uint32_t topic_index_posting_count(const struct topic_index *x)
{
    return x->posting_count;
}

struct postings topic_index_sorted(const struct topic_index *x)
{
    assert(x->slots || x->sorted.places);
    return x->slots ? (struct postings){.topic_count = x->topic_count, .place_count = x->posting_count}
                    : x->sorted;
}

static int compare_topics(const void *a, const void *b)
{
    const struct index_topic *x = a, *y = b;
    return x->topic_id < y->topic_id ? -1 : x->topic_id > y->topic_id;
}

void topic_index_export(const struct topic_index *x, struct index_topic *topics, struct index_place *postings)
{
    if (!x->slots) {
        const struct postings *p = &x->sorted;
        assert(p->places);
        memcpy(topics, p->topics, p->topic_count * sizeof *topics);
        memcpy(postings, p->places, p->place_count * sizeof *postings);
        return;
    }
    /* `first` carries the slot's number through the sort. */
    uint32_t n = 0, placed = 0;
    for (uint32_t i = 0; i < x->slot_count; i++) {
        if (x->slots[i].count)
            topics[n++] = (struct index_topic){x->slots[i].topic_id, i, x->slots[i].count};
    }
    qsort(topics, n, sizeof *topics, compare_topics);
    for (uint32_t i = 0; i < n; i++) {
        const struct slot *s = &x->slots[topics[i].first];
        memcpy(postings + placed, slot_places(s), s->count * sizeof *postings);
        topics[i].first = placed;
        placed += s->count;
    }
}
