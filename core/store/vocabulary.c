#include "core/store/vocabulary.h"

#include "core/hash.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_MIN = 256, RECORDS_A_NAME = 8 };
static const uint64_t ALLOWANCE_FIRST = 1 << 20, ALLOWANCE_MAX = 4 << 20; /* names that may be matched */

struct word {
    uint64_t topic_id;
    uint32_t len;
    uint8_t text[];
};

struct vocabulary {
    uint64_t bytes_max, bytes, secret;
    struct word **words; /* in the order of learning */
    uint32_t count, cap;
    uint32_t *slots; /* number of the word + 1; 0: free */
    uint32_t slot_count; /* power of two, at least twice `count` */
    bool full;
    uint64_t allowance, uses;
    struct plan *plans;
    uint32_t plan_count;
};

enum status vocabulary_create(uint64_t bytes_max, struct vocabulary **out)
{
    struct vocabulary *v = calloc(1, sizeof *v);
    if (!v)
        return ST_NO_MEMORY;
    v->bytes_max = bytes_max;
    v->allowance = ALLOWANCE_FIRST;
    v->secret = hash64(slice_of((const uint8_t *)&v, sizeof v)) | 1;
    *out = v;
    return ST_OK;
}

static void vocabulary_clear(struct vocabulary *v)
{
    for (uint32_t i = 0; i < v->count; i++)
        free(v->words[i]);
    free(v->words);
    free(v->slots);
    free(v->plans);
    *v = (struct vocabulary){.bytes_max = v->bytes_max, .secret = v->secret, .allowance = v->allowance};
}

void vocabulary_destroy(struct vocabulary *v)
{
    if (!v)
        return;
    vocabulary_clear(v);
    free(v);
}

bool vocabulary_trimmed(struct vocabulary *v)
{
    if (!v->full)
        return false;
    vocabulary_clear(v);
    return true;
}

uint64_t vocabulary_bytes(const struct vocabulary *v)
{
    return v->bytes;
}

/* --- names -------------------------------------------------------------------------------------- */

static struct slice word_text(const struct word *w)
{
    return slice_of(w->text, w->len);
}

/* Mixed with a secret of the process: nobody can aim at a slot. */
static uint32_t *slot_of(const struct vocabulary *v, uint64_t topic_id, struct slice topic)
{
    __extension__ unsigned __int128 product = (unsigned __int128)(topic_id ^ v->secret) * (v->secret * 2 + 1);
    uint32_t at = (uint32_t)((uint64_t)(product >> 64) ^ (uint64_t)product) & (v->slot_count - 1);
    for (;; at = (at + 1) & (v->slot_count - 1)) {
        const struct word *w = v->slots[at] ? v->words[v->slots[at] - 1] : NULL;
        if (!w || (w->topic_id == topic_id && slice_equal(word_text(w), topic)))
            return &v->slots[at];
    }
}

static bool grow_slots(struct vocabulary *v)
{
    uint32_t slot_count = v->slot_count ? v->slot_count * 2 : SLOTS_MIN;
    uint32_t *old = v->slots, *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return false;
    v->slots = slots;
    v->slot_count = slot_count;
    for (uint32_t i = 0; i < v->count; i++)
        *slot_of(v, v->words[i]->topic_id, word_text(v->words[i])) = i + 1;
    free(old);
    return true;
}

static bool grow_words(struct vocabulary *v)
{
    uint32_t cap = v->cap ? v->cap * 2 : SLOTS_MIN / 2;
    struct word **words = realloc(v->words, cap * sizeof(struct word *));
    if (!words)
        return false;
    v->words = words;
    v->cap = cap;
    return true;
}

bool vocabulary_learn(struct vocabulary *v, uint64_t topic_id, struct slice topic)
{
    /* A word, its pointer and two slots, and what malloc adds. */
    uint64_t bytes = sizeof(struct word) + topic.len + sizeof(struct word *) + 4 * sizeof(uint32_t) + 16;
    if (v->count * 2 >= v->slot_count && (v->full || !grow_slots(v)))
        return false;
    uint32_t *slot = slot_of(v, topic_id, topic);
    if (*slot)
        return true;
    v->full = v->full || v->bytes + bytes > v->bytes_max;
    if (v->full || (v->count == v->cap && !grow_words(v)))
        return false;
    struct word *w = malloc(sizeof *w + topic.len);
    if (!w)
        return false;
    w->topic_id = topic_id;
    w->len = (uint32_t)topic.len;
    if (topic.len > 0)
        memcpy(w->text, topic.data, topic.len);
    v->words[v->count++] = w;
    *slot = v->count;
    v->bytes += bytes;
    return true;
}

/* --- plans -------------------------------------------------------------------------------------- */

void vocabulary_earn(struct vocabulary *v, uint64_t records)
{
    v->allowance += records / RECORDS_A_NAME;
    if (v->allowance > ALLOWANCE_MAX)
        v->allowance = ALLOWANCE_MAX;
}

static struct plan *plan_find(struct vocabulary *v, uint64_t hash, struct slice filter)
{
    for (uint32_t i = 0; i < v->plan_count; i++) {
        struct plan *p = &v->plans[i];
        if (p->hash == hash && slice_equal(slice_of(p->filter, p->filter_len), filter))
            return p;
    }
    return NULL;
}

/* A new one, or that which has not been used for longest. NULL: no memory, or another filter's plan would go
 * before there is an allowance for this one. */
static struct plan *plan_make(struct vocabulary *v, uint64_t hash, struct slice filter)
{
    if (filter.len > PLAN_FILTER_BYTES_MAX || v->count > v->allowance)
        return NULL;
    if (!v->plans && !(v->plans = calloc(PLANS_MAX, sizeof *v->plans)))
        return NULL;
    struct plan *p = &v->plans[0];
    if (v->plan_count < PLANS_MAX)
        p = &v->plans[v->plan_count++];
    else
        for (uint32_t i = 1; i < PLANS_MAX; i++)
            p = v->plans[i].used < p->used ? &v->plans[i] : p;
    p->hash = hash;
    p->dense_base = 0;
    p->seen = 0;
    p->filter_len = (uint16_t)filter.len;
    p->list_count = 0;
    p->broad = false;
    memcpy(p->filter, filter.data, filter.len);
    return p;
}

static void plan_add(struct plan *p, uint64_t topic_id)
{
    for (unsigned i = 0; i < p->list_count; i++)
        if (p->lists[i] == topic_id)
            return;
    if (p->list_count == PLAN_LISTS_MAX)
        p->broad = true;
    else
        p->lists[p->list_count++] = topic_id;
}

bool vocabulary_is_broad(struct vocabulary *v, struct slice filter)
{
    const struct plan *p = plan_find(v, hash64(filter), filter);
    return p && p->broad;
}

struct plan *vocabulary_plan(struct vocabulary *v, struct slice filter,
                             bool (*wants)(void *ctx, struct slice topic), void *ctx)
{
    uint64_t hash = hash64(filter);
    struct plan *p = plan_find(v, hash, filter);
    if (!p && !(p = plan_make(v, hash, filter)))
        return NULL;
    p->used = ++v->uses;
    if (p->broad || v->count - p->seen > v->allowance)
        return NULL;
    for (; p->seen < v->count && !p->broad; p->seen++, v->allowance--) {
        const struct word *w = v->words[p->seen];
        if (wants(ctx, word_text(w)))
            plan_add(p, w->topic_id);
    }
    return p->broad ? NULL : p;
}
