/* The trie of wildcard filters.
 *
 *    root --"a"--> (a) --"+"--> (a/+) --"c"--> (a/+/c)          one node a prefix of levels
 *                   \ below: entries of "a/#"   \ here: entries of "a/+/c"
 *
 * A node has no map of its children. All edges stand in one index, keyed by (parent, hash of the level);
 * '+' is an edge like another ('+' cannot be a level of a topic name, so a walk cannot take it for one).
 * '#' is no edge: its entries sit in the parent as `below`, which saves a node for the most frequent
 * filter, $user/<id>/#, and makes "# matches the parent level too" fall out by itself. A node is one
 * cache line. It lives as long as it has entries or children.
 *
 * A walk goes depth first with at most two branches a level (the level itself and '+'). Its stack, the
 * hashes of the levels and the result are reserved when a filter is added: matching cannot fail.
 *
 * With '+' at every level the branches of a walk double with each level, and traffic repeats its topics:
 * the result of a walk is kept in a cache by topic name (filter_cache.c).
 */
#include "routing/filter_trie.h"

#include "core/hash.h"
#include "routing/filter_cache.h"
#include "routing/hash_slots.h"
#include "routing/topic.h"

#include <assert.h>
#include <stdlib.h>

enum { NODE_BYTES = 64, CHUNK_NODES = 64, TEXT_INLINE_BYTES = 16 };

struct trie_node {
    struct filter_set here; /* the filter that ends with this level */
    struct filter_set below; /* the filter that goes on with '#' */
    struct trie_node *parent; /* NULL: the root, or free */
    union {
        char inside[TEXT_INLINE_BYTES];
        char *text;
        struct trie_node *next_free;
    };
    uint32_t child_count; /* '+' included */
    uint16_t text_len; /* up to TEXT_INLINE_BYTES: inside */
    bool plus; /* one of the children is '+' */
};
static_assert(sizeof(struct trie_node) == NODE_BYTES, "a node is one cache line");

struct chunk {
    struct trie_node nodes[CHUNK_NODES];
    struct chunk *next;
};

struct level {
    struct slice text;
    uint64_t hash;
    bool hashed;
};

struct frame {
    struct trie_node *node;
    uint32_t depth;
};

struct filter_trie {
    struct trie_node root;
    struct hash_slots edges;
    struct chunk *chunks;
    struct trie_node *free_nodes;
    size_t node_count; /* without the root */
    size_t filter_count;
    size_t text_bytes, chunk_bytes;
    uint64_t plus_hash;

    struct filter_cache cache;

    /* For walks: room for `depth_max` levels and one more, and for all sets of a result. */
    uint32_t depth_max;
    struct level *levels;
    struct frame *stack;
    struct filter_set **hits;
    size_t hits_max;
};

enum status filter_trie_create(struct filter_trie **out)
{
    struct filter_trie *t = calloc(1, sizeof(*t));
    if (!t)
        return ST_NO_MEMORY;
    t->root.here.home = FILTER_HERE;
    t->root.below.home = FILTER_BELOW;
    t->plus_hash = hash64(slice_cstr("+"));
    *out = t;
    return ST_OK;
}

static const char *node_text(const struct trie_node *n)
{
    return n->text_len <= TEXT_INLINE_BYTES ? n->inside : n->text;
}

static void node_deinit(struct filter_trie *t, struct trie_node *n)
{
    if (n->text_len > TEXT_INLINE_BYTES) {
        t->text_bytes -= n->text_len;
        free(n->text);
    }
    filter_set_deinit(&n->here);
    filter_set_deinit(&n->below);
}

static void chunks_free(struct filter_trie *t)
{
    while (t->chunks) {
        struct chunk *next = t->chunks->next;
        free(t->chunks);
        t->chunks = next;
    }
    t->free_nodes = NULL;
    t->chunk_bytes = 0;
}

void filter_trie_destroy(struct filter_trie *t)
{
    if (!t)
        return;
    for (struct chunk *c = t->chunks; c; c = c->next) {
        for (size_t i = 0; i < CHUNK_NODES; i++) {
            if (c->nodes[i].parent)
                node_deinit(t, &c->nodes[i]);
        }
    }
    node_deinit(t, &t->root);
    chunks_free(t);
    hash_slots_deinit(&t->edges);
    filter_cache_deinit(&t->cache);
    free(t->levels);
    free(t->stack);
    free(t->hits);
    free(t);
}

/* -- nodes ------------------------------------------------------------------------------------- */

static enum status chunk_add(struct filter_trie *t)
{
    struct chunk *c = aligned_alloc(NODE_BYTES, sizeof(*c) + NODE_BYTES - sizeof(*c) % NODE_BYTES);
    if (!c)
        return ST_NO_MEMORY;
    memset(c->nodes, 0, sizeof(c->nodes));
    for (size_t i = CHUNK_NODES; i > 0; i--) {
        c->nodes[i - 1].next_free = t->free_nodes;
        t->free_nodes = &c->nodes[i - 1];
    }
    c->next = t->chunks;
    t->chunks = c;
    t->chunk_bytes += sizeof(*c);
    return ST_OK;
}

/* Level hashes are keyed and unknown outside, parents are addresses; the mixing spreads the few bits in
 * which addresses differ over those that choose the slot. */
static uint64_t edge_key(const struct trie_node *parent, uint64_t level_hash)
{
    uint64_t key = level_hash ^ ((uint64_t)(uintptr_t)parent * 0x9e3779b97f4a7c15U);
    key = (key ^ key >> 32) * 0xd6e8feb86659fd93U;
    return key ^ key >> 32;
}

static struct trie_node *child_find(const struct filter_trie *t, const struct trie_node *parent,
                                    struct slice level, uint64_t level_hash)
{
    uint64_t key = edge_key(parent, level_hash);
    size_t at;
    struct trie_node *n = hash_slots_first(&t->edges, key, &at);
    for (; n; n = hash_slots_next(&t->edges, key, &at)) {
        if (n->parent == parent && slice_equal(level, slice_of(node_text(n), n->text_len)))
            return n;
    }
    return NULL;
}

static bool level_is(struct slice level, char c)
{
    return level.len == 1 && level.data[0] == (uint8_t)c;
}

static enum status child_create(struct filter_trie *t, struct trie_node *parent, struct slice level,
                                uint64_t level_hash, struct trie_node **out)
{
    if (hash_slots_reserve(&t->edges) != ST_OK || (!t->free_nodes && chunk_add(t) != ST_OK))
        return ST_NO_MEMORY;
    char *text = NULL;
    if (level.len > TEXT_INLINE_BYTES && !(text = malloc(level.len)))
        return ST_NO_MEMORY;

    struct trie_node *n = t->free_nodes;
    t->free_nodes = n->next_free;
    *n = (struct trie_node){.here.home = FILTER_HERE, .below.home = FILTER_BELOW, .parent = parent};
    n->text_len = (uint16_t)level.len;
    if (text) {
        n->text = text;
        t->text_bytes += level.len;
    }
    if (level.len > 0)
        memcpy(text ? text : n->inside, level.data, level.len);
    hash_slots_insert(&t->edges, edge_key(parent, level_hash), n);
    parent->child_count++;
    parent->plus = parent->plus || level_is(level, '+');
    t->node_count++;
    *out = n;
    return ST_OK;
}

/* Drops `n` and every ancestor that is left with neither entries nor children. */
static void prune(struct filter_trie *t, struct trie_node *n)
{
    while (n != &t->root && n->child_count == 0 && n->here.count == 0 && n->below.count == 0) {
        struct trie_node *parent = n->parent;
        struct slice level = slice_of(node_text(n), n->text_len);
        if (level_is(level, '+'))
            parent->plus = false;
        hash_slots_remove(&t->edges, edge_key(parent, hash64(level)), n);
        node_deinit(t, n);
        *n = (struct trie_node){.next_free = t->free_nodes};
        t->free_nodes = n;
        parent->child_count--;
        t->node_count--;
        n = parent;
    }
    if (t->node_count == 0)
        chunks_free(t);
}

/* -- filters ----------------------------------------------------------------------------------- */

static enum status reserve_depth(struct filter_trie *t, uint32_t depth)
{
    if (t->levels && depth <= t->depth_max)
        return ST_OK;
    struct level *levels = realloc(t->levels, (depth + 1U) * sizeof(*levels));
    if (!levels)
        return ST_NO_MEMORY;
    t->levels = levels;
    /* Each turn takes one frame and puts at most two, one level deeper. */
    struct frame *stack = realloc(t->stack, (depth + 2U) * sizeof(*stack));
    if (!stack)
        return ST_NO_MEMORY;
    t->stack = stack;
    t->depth_max = depth;
    return ST_OK;
}

/* At depth d at most 2^d nodes lie on a topic's paths, each with a `below`, the last ones with a `here`:
 * shallow tries, however many filters they hold, answer with few. */
size_t filter_trie_hits_max(const struct filter_trie *t)
{
    size_t paths = t->depth_max < 30 ? (size_t)4 << t->depth_max : SIZE_MAX;
    return paths < t->filter_count ? paths : t->filter_count;
}

/* For one filter more than there are. */
static enum status reserve_hits(struct filter_trie *t)
{
    size_t needed = filter_trie_hits_max(t) + 1;
    if (needed <= t->hits_max)
        return ST_OK;
    size_t more = t->hits_max * 2 > needed ? t->hits_max * 2 : needed;
    struct filter_set **hits = realloc(t->hits, more * sizeof(struct filter_set *));
    if (!hits)
        return ST_NO_MEMORY;
    t->hits = hits;
    t->hits_max = more;
    return ST_OK;
}

static enum status reserve(struct filter_trie *t, struct slice filter)
{
    uint32_t depth = 0;
    struct slice level;
    while (topic_level_next(&filter, &level))
        depth++;
    enum status st = reserve_depth(t, depth);
    if (st == ST_OK)
        st = reserve_hits(t);
    return st;
}

enum status filter_trie_take(struct filter_trie *t, struct slice filter, struct filter_set **out)
{
    assert(filter.len > 0 && filter.len <= UINT16_MAX);
    enum status st = reserve(t, filter);
    if (st != ST_OK)
        return st;
    struct trie_node *n = &t->root, *child = NULL;
    struct slice level;
    bool below = false;
    while (topic_level_next(&filter, &level) && !(below = level_is(level, '#'))) {
        uint64_t hash = hash64(level);
        child = child_find(t, n, level, hash);
        if (!child && child_create(t, n, level, hash, &child) != ST_OK) {
            prune(t, n);
            return ST_NO_MEMORY;
        }
        n = child;
    }
    struct filter_set *set = below ? &n->below : &n->here;
    if (set->count == 0) {
        t->filter_count++;
        filter_cache_clear(&t->cache);
    }
    *out = set;
    return ST_OK;
}

static struct trie_node *set_node(struct filter_set *set)
{
    size_t offset = set->home == FILTER_BELOW ? offsetof(struct trie_node, below) : 0;
    return (struct trie_node *)(void *)((char *)set - offset);
}

void filter_trie_give(struct filter_trie *t, struct filter_set *set)
{
    if (set->count > 0)
        return;
    t->filter_count--;
    filter_cache_clear(&t->cache);
    prune(t, set_node(set));
}

struct filter_set *filter_trie_find(struct filter_trie *t, struct slice filter)
{
    struct trie_node *n = &t->root;
    struct slice level;
    bool below = false;
    while (topic_level_next(&filter, &level) && !(below = level_is(level, '#'))) {
        n = child_find(t, n, level, hash64(level));
        if (!n)
            return NULL;
    }
    struct filter_set *set = below ? &n->below : &n->here;
    return set->count > 0 ? set : NULL;
}

size_t filter_trie_bytes(const struct filter_trie *t)
{
    size_t walk = t->levels ? (t->depth_max + 1U) * sizeof(*t->levels) : 0;
    walk += t->stack ? (t->depth_max + 2U) * sizeof(*t->stack) : 0;
    return sizeof(*t) + hash_slots_bytes(&t->edges) + t->chunk_bytes + t->text_bytes + walk +
           t->hits_max * sizeof(struct filter_set *) + filter_cache_bytes(&t->cache);
}

/* -- matching ---------------------------------------------------------------------------------- */

/* As many levels as any filter has, and one more to tell that the topic goes on. */
static uint32_t split(struct filter_trie *t, struct slice topic)
{
    uint32_t count = 0;
    struct slice level;
    while (count <= t->depth_max && topic_level_next(&topic, &level))
        t->levels[count++] = (struct level){.text = level};
    return count;
}

static uint64_t level_hash(struct level *level)
{
    if (!level->hashed) {
        level->hash = hash64(level->text);
        level->hashed = true;
    }
    return level->hash;
}

static size_t walk(struct filter_trie *t, struct slice topic)
{
    const uint32_t level_count = split(t, topic);
    const struct slice plus = slice_cstr("+");
    size_t hit_count = 0, stacked = 0;
    t->stack[stacked++] = (struct frame){&t->root, 0};
    while (stacked > 0) {
        struct frame at = t->stack[--stacked];
        struct trie_node *n = at.node;
        /* MQTT 5.0, 4.7.2: a wildcard at the beginning does not match a name that begins with '$'. */
        bool wildcards = at.depth > 0 || !topic_internal(topic);
        if (n->below.count > 0 && wildcards)
            t->hits[hit_count++] = &n->below;
        if (at.depth == level_count) {
            if (n->here.count > 0)
                t->hits[hit_count++] = &n->here;
            continue;
        }
        struct trie_node *child;
        if (n->plus && wildcards && (child = child_find(t, n, plus, t->plus_hash)))
            t->stack[stacked++] = (struct frame){child, at.depth + 1};
        if (n->child_count <= n->plus)
            continue;
        struct level *level = &t->levels[at.depth];
        if ((child = child_find(t, n, level->text, level_hash(level))))
            t->stack[stacked++] = (struct frame){child, at.depth + 1};
    }
    return hit_count;
}

struct filter_hits filter_trie_match(struct filter_trie *t, struct slice topic, uint64_t topic_hash)
{
    struct filter_hits hits = {NULL, 0};
    if (t->filter_count == 0 || filter_cache_get(&t->cache, topic, topic_hash, &hits))
        return hits;
    hits = (struct filter_hits){t->hits, walk(t, topic)};
    filter_cache_put(&t->cache, topic, topic_hash, hits);
    return hits;
}
