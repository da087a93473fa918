/* Two structures under one roof. Literal filters: an index by the hash of the whole name, because a
 * name without wildcards needs no walk by levels; two cache misses find 1 of 1,000,000. Filters with
 * wildcards: a trie (filter_trie.c), asked only when there are any.
 *
 *    topic --hash--> slot --> struct literal { entries, name }         its own array, if alone
 *      \------ trie (cache) --> sets of matching wildcard filters      else copied to `result`
 *
 * Most topics match exactly one filter; then the array of that filter is the answer and nothing is
 * copied. Matching cannot fail: `result` is reserved when an entry is linked, for the largest literal
 * filter seen and the most that wildcard filters can add.
 */
#include "routing/filter_table.h"

#include "core/hash.h"
#include "routing/filter_set.h"
#include "routing/filter_trie.h"
#include "routing/hash_slots.h"
#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

struct literal {
    struct filter_set set; /* first: entries point to it */
    uint64_t hash;
    uint16_t len;
    uint8_t name[];
};

struct filter_table {
    struct hash_slots literals;
    struct filter_trie *trie;
    size_t entry_count;
    size_t wildcard_entry_count;
    size_t literal_peak, wildcard_peak; /* most entries of one filter, ever */
    size_t literal_bytes, array_bytes;

    struct filter_entry **result;
    size_t result_max;
};

enum status filter_table_create(struct filter_table **out)
{
    struct filter_table *t = calloc(1, sizeof(*t));
    if (!t)
        return ST_NO_MEMORY;
    enum status st = filter_trie_create(&t->trie);
    if (st != ST_OK) {
        free(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void filter_table_destroy(struct filter_table *t)
{
    if (!t)
        return;
    size_t slot_count = t->literals.slots ? (size_t)1 << t->literals.bits : 0;
    for (size_t i = 0; i < slot_count; i++) {
        struct literal *l = t->literals.slots[i].item;
        if (l) {
            filter_set_deinit(&l->set);
            free(l);
        }
    }
    hash_slots_deinit(&t->literals);
    filter_trie_destroy(t->trie);
    free(t->result);
    free(t);
}

/* -- literal filters --------------------------------------------------------------------------- */

static size_t literal_size(size_t name_len)
{
    size_t size = offsetof(struct literal, name) + name_len;
    return size < sizeof(struct literal) ? sizeof(struct literal) : size;
}

static struct literal *literal_find(const struct filter_table *t, struct slice name, uint64_t hash)
{
    size_t at;
    struct literal *l = hash_slots_first(&t->literals, hash, &at);
    while (l && !slice_equal(name, slice_of(l->name, l->len)))
        l = hash_slots_next(&t->literals, hash, &at);
    return l;
}

static enum status literal_take(struct filter_table *t, struct slice name, struct filter_set **out)
{
    assert(name.len > 0 && name.len <= UINT16_MAX);
    uint64_t hash = hash64(name);
    struct literal *l = literal_find(t, name, hash);
    if (l) {
        *out = &l->set;
        return ST_OK;
    }
    if (hash_slots_reserve(&t->literals) != ST_OK)
        return ST_NO_MEMORY;
    l = malloc(literal_size(name.len));
    if (!l)
        return ST_NO_MEMORY;
    l->set = (struct filter_set){.home = FILTER_LITERAL};
    l->hash = hash;
    l->len = (uint16_t)name.len;
    memcpy(l->name, name.data, name.len);
    hash_slots_insert(&t->literals, hash, l);
    t->literal_bytes += literal_size(name.len);
    *out = &l->set;
    return ST_OK;
}

static void literal_give(struct filter_table *t, struct filter_set *set)
{
    if (set->count > 0)
        return;
    struct literal *l = (struct literal *)(void *)set;
    hash_slots_remove(&t->literals, l->hash, l);
    t->literal_bytes -= literal_size(l->len);
    free(l);
}

/* -- entries ----------------------------------------------------------------------------------- */

static enum status set_take(struct filter_table *t, struct slice filter, struct filter_set **out)
{
    return topic_filter_literal(filter) ? literal_take(t, filter, out)
                                        : filter_trie_take(t->trie, filter, out);
}

static void set_give(struct filter_table *t, struct filter_set *set)
{
    if (set->home == FILTER_LITERAL)
        literal_give(t, set);
    else
        filter_trie_give(t->trie, set);
}

/* Room for the largest possible result. Without wildcards nothing is ever copied. */
static enum status reserve_result(struct filter_table *t)
{
    if (t->wildcard_entry_count == 0)
        return ST_OK;
    size_t wildcards = filter_trie_hits_max(t->trie) * t->wildcard_peak;
    if (wildcards > t->wildcard_entry_count)
        wildcards = t->wildcard_entry_count;
    size_t needed = t->literal_peak + wildcards;
    if (needed <= t->result_max)
        return ST_OK;
    size_t more = t->result_max * 2 > needed ? t->result_max * 2 : needed;
    struct filter_entry **result = realloc(t->result, more * sizeof(struct filter_entry *));
    if (!result)
        return ST_NO_MEMORY;
    t->result = result;
    t->result_max = more;
    return ST_OK;
}

enum status filter_table_link(struct filter_table *t, struct slice filter, struct filter_entry *e)
{
    assert(!e->node);
    struct filter_set *set = NULL;
    enum status st = set_take(t, filter, &set);
    if (st != ST_OK)
        return st;
    st = filter_set_add(set, e, &t->array_bytes);
    if (st != ST_OK) {
        set_give(t, set);
        return st;
    }
    t->entry_count++;
    size_t *peak = set->home == FILTER_LITERAL ? &t->literal_peak : &t->wildcard_peak;
    if (set->count > *peak)
        *peak = set->count;
    if (set->home != FILTER_LITERAL)
        t->wildcard_entry_count++;
    st = reserve_result(t);
    if (st != ST_OK)
        filter_table_unlink(t, e);
    return st;
}

void filter_table_unlink(struct filter_table *t, struct filter_entry *e)
{
    struct filter_set *set = e->node;
    if (!set)
        return;
    filter_set_remove(set, e, &t->array_bytes);
    t->entry_count--;
    if (set->home != FILTER_LITERAL)
        t->wildcard_entry_count--;
    set_give(t, set);
}

struct filter_entry *filter_table_find(struct filter_table *t, struct slice filter)
{
    struct filter_set *set;
    if (topic_filter_literal(filter)) {
        struct literal *l = literal_find(t, filter, hash64(filter));
        set = l ? &l->set : NULL;
    } else {
        set = filter_trie_find(t->trie, filter);
    }
    return set ? filter_set_entries(set)[0] : NULL;
}

size_t filter_table_count(const struct filter_table *t)
{
    return t->entry_count;
}

size_t filter_table_bytes(const struct filter_table *t)
{
    return sizeof(*t) + hash_slots_bytes(&t->literals) + t->literal_bytes + t->array_bytes +
           t->result_max * sizeof(struct filter_entry *) + filter_trie_bytes(t->trie);
}

/* -- matching ---------------------------------------------------------------------------------- */

static struct filter_matches set_matches(struct filter_set *set)
{
    return (struct filter_matches){filter_set_entries(set), set->count};
}

static void result_add(struct filter_table *t, size_t *count, struct filter_set *set)
{
    assert(set->count <= t->result_max - *count);
    memcpy(t->result + *count, filter_set_entries(set), set->count * sizeof(struct filter_entry *));
    *count += set->count;
}

struct filter_matches filter_table_match(struct filter_table *t, struct slice topic)
{
    uint64_t hash = hash64(topic);
    /* The slot comes from memory while the trie is walked: at 1 M filters that hides one miss of two. */
    hash_slots_prefetch(&t->literals, hash);
    struct filter_hits hits = filter_trie_match(t->trie, topic, hash);
    struct literal *literal = literal_find(t, topic, hash);
    if (hits.count == 0)
        return literal ? set_matches(&literal->set) : (struct filter_matches){NULL, 0};
    if (hits.count == 1 && !literal)
        return set_matches(hits.sets[0]);
    size_t count = 0;
    if (literal)
        result_add(t, &count, &literal->set);
    for (size_t i = 0; i < hits.count; i++)
        result_add(t, &count, hits.sets[i]);
    return (struct filter_matches){t->result, count};
}
