/* A look-up, with what our own node knows already in it:
 *
 *   SMEMBERS nodes
 *   MGET born young node:a node:b ...   HSCAN user 0      when the names are there; HSCAN again while there
 * is more
 *
 * An entry counts while its node has a lease of the same incarnation, and a registration that is not older
 * than the lease says. The leases are read before the entries: the other way round, a node that settles in
 * between would have only entries of before. Ours are not looked at: the node itself knows better.
 *
 * What does not count is removed, so that what the dead have left goes where somebody comes by: at once, when
 * the lease shows that its like does not come back; when there is no lease, only after another look at it,
 * for the node may have come back between MGET and HSCAN. What was seen before that second look and had no
 * lease then is of a registration that a node does not go on with.
 *
 * The answer is stale when Redis is away, when it is not the data we have written into or is young (`born`,
 * `young`; directory_redis.c), or when a node that lives has not registered all it has. */
#include "routing/directory_redis_private.h"

#include <assert.h>
#include <stdlib.h>

enum { SCAN_STEPS_MAX = 16, SWEEP_MAX = 64, ROOM_FOR_LOOKS = 16 };
enum { KEYS_BYTES_MAX = 128 << 10, FIRST_ENTRIES = 16 };

struct seen {
    struct directory_field field;
    struct directory_place place;
};

/* Fields of one user that do not count. */
struct sweep {
    struct list link; /* d->sweeps: its reply may never come */
    size_t user_len;
    unsigned count;
    struct directory_field fields[SWEEP_MAX];
    uint8_t user[];
};

struct look {
    struct list link;
    struct directory_redis *d;
    struct directory_find *find;
    unsigned owed; /* replies */
    unsigned steps;
    bool incomplete; /* something was not as it has to be, or more than we look at */
    bool young, lost; /* what MGET has said */
    struct directory_node *nodes; /* those with a lease */
    uint32_t node_count;
    struct slice *names; /* of all, in the order of the MGET; bytes in `keys` */
    uint32_t name_count;
    struct buf keys;
    struct seen *seen;
    size_t seen_count, seen_cap;
};

static void look_free(struct look *l)
{
    list_unlink(&l->link);
    buf_deinit(&l->keys);
    free(l->names);
    free(l->nodes);
    free(l->seen);
    free(l);
}

/* --- the answer ----------------------------------------------------------------------------------------- */

static int compare_found(const void *a, const void *b)
{
    const struct directory_found *x = a, *y = b;
    if (x->since_ms != y->since_ms)
        return x->since_ms < y->since_ms ? -1 : 1;
    int names = strcmp(x->node, y->node);
    if (names != 0)
        return names;
    return x->connection < y->connection ? -1 : x->connection > y->connection;
}

/* Ours, which are in `f`, and those of others, oldest first: the same order at every node. One allocation,
 * the others' texts at its end. */
static void merge(struct directory_find *f, const struct directory_remote *remotes, size_t count)
{
    size_t all = f->found_count + count;
    if (count == 0)
        return;
    struct directory_found *found = malloc(all * sizeof *found + count * sizeof *remotes);
    if (!found) {
        f->status = ST_NO_MEMORY;
        return;
    }
    struct directory_remote *texts = (struct directory_remote *)(void *)(found + all);
    memcpy(texts, remotes, count * sizeof *remotes);
    if (f->found_count > 0)
        memcpy(found, f->found, f->found_count * sizeof *found);
    for (size_t i = 0; i < count; i++)
        found[f->found_count + i] = (struct directory_found){.connection = texts[i].connection,
                                                             .since_ms = texts[i].since_ms,
                                                             .incarnation = texts[i].incarnation,
                                                             .door = texts[i].door,
                                                             .node = texts[i].node};
    qsort(found, all, sizeof *found, compare_found);
    free(f->found);
    f->found = found;
    f->found_count = (uint32_t)(all < DIRECTORY_FOUND_MAX ? all : DIRECTORY_FOUND_MAX);
    f->total += count;
}

static void give_nodes(struct directory_redis *d, struct directory_find *f)
{
    if (d->node_count == 0)
        return;
    f->nodes = malloc(d->node_count * sizeof *f->nodes);
    if (!f->nodes) {
        f->status = ST_NO_MEMORY;
        return;
    }
    memcpy(f->nodes, d->nodes, d->node_count * sizeof *f->nodes);
    f->node_count = d->node_count;
}

/* Redis is away: what it said when it was last asked. */
static void answer_from_memory(struct directory_redis *d, struct directory_find *f)
{
    const struct directory_remote *remotes;
    size_t count;
    f->shared = f->stale = true;
    if (f->user.len == 0) {
        f->as_of_ms = d->nodes_as_of_ms;
        give_nodes(d, f);
    } else if (directory_cache_get(d->cache, f->user, &f->as_of_ms, &remotes, &count)) {
        merge(f, remotes, count);
    }
    directory_redis_found(d, f);
}

/* --- what has come together ------------------------------------------------------------------------------
 */

static const struct directory_node *node_of(const struct look *l, const char *name)
{
    for (uint32_t i = 0; i < l->node_count; i++)
        if (strcmp(l->nodes[i].id, name) == 0)
            return &l->nodes[i];
    return NULL;
}

/* Of a look whose link went down nothing is left: its replies never come. */
static bool refused(struct directory_redis *d, const struct redisReply *r)
{
    if (!redis_reply_is_error(r))
        return false;
    directory_redis_refused(d, r);
    return true;
}

static void on_ignored(void *ctx, void *subject, const struct redisReply *r)
{
    (void)subject;
    (void)refused(ctx, r);
}

static void sweep_now(struct directory_redis *d, const struct sweep *w)
{
    struct slice words[2 + SWEEP_MAX] = {slice_cstr("HDEL")};
    struct buf bytes;
    size_t at;
    buf_init(&bytes, DIRECTORY_KEY_BYTES_MAX + SWEEP_MAX * DIRECTORY_FIELD_BYTES_MAX);
    enum status st = directory_key(d, &bytes, "user", slice_of(w->user, w->user_len));
    size_t ends[1 + SWEEP_MAX] = {bytes.len};
    for (unsigned i = 0; i < w->count && st == ST_OK; i++) {
        st = directory_field_write(&w->fields[i], &bytes);
        ends[1 + i] = bytes.len;
    }
    at = 0;
    for (unsigned i = 0; i <= w->count && st == ST_OK; i++) {
        words[1 + i] = slice_of(bytes.data + at, ends[i] - at);
        at = ends[i];
    }
    if (st == ST_OK && d->link && w->count > 0)
        st = redis_link_ask(d->link, words, 2 + w->count, on_ignored, d, NULL);
    if (st == ST_OK && d->link)
        metric_add(d->metrics, M_DIRECTORY_SWEPT, w->count);
    buf_deinit(&bytes);
}

static void on_second_look(void *ctx, void *subject, const struct redisReply *r)
{
    struct sweep *w = subject;
    list_unlink(&w->link);
    if (!refused(ctx, r) && redis_reply_is_nil(r))
        sweep_now(ctx, w);
    free(w);
}

/* `w` is taken over. */
static void sweep_if_gone(struct directory_redis *d, const char *node, struct sweep *w)
{
    struct buf key;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    enum status st = directory_key(d, &key, "node", slice_cstr(node));
    const struct slice words[] = {slice_cstr("GET"), buf_slice(&key)};
    if (st == ST_OK && d->link)
        st = redis_link_ask(d->link, words, 2, on_second_look, d, w);
    buf_deinit(&key);
    if (st == ST_OK && d->link)
        list_push(&d->sweeps, &w->link);
    else
        free(w);
}

static int compare_seen(const void *a, const void *b)
{
    const struct directory_field *x = &((const struct seen *)a)->field, *y = &((const struct seen *)b)->field;
    int names = strcmp(x->node, y->node);
    if (names != 0)
        return names;
    if (x->incarnation != y->incarnation)
        return x->incarnation < y->incarnation ? -1 : 1;
    return x->connection < y->connection ? -1 : x->connection > y->connection;
}

/* HSCAN may show a field twice, and a connection that is being registered again has two. */
static void drop_twins(struct seen *seen, size_t *count)
{
    size_t kept = 0;
    if (*count > 0)
        qsort(seen, *count, sizeof *seen, compare_seen);
    for (size_t i = 0; i < *count; i++)
        if (kept == 0 || compare_seen(&seen[i], &seen[kept - 1]) != 0)
            seen[kept++] = seen[i];
    *count = kept;
}

enum fate { LIVES, OVER, NO_LEASE };

static enum fate fate_of(const struct look *l, const struct directory_field *f)
{
    const struct directory_redis *d = l->d;
    if (strcmp(f->node, d->o.node) == 0)
        return f->incarnation == d->o.incarnation && f->registration >= d->visible ? LIVES : OVER;
    const struct directory_node *n = node_of(l, f->node);
    if (!n)
        return NO_LEASE;
    return n->incarnation == f->incarnation && f->registration >= n->registration ? LIVES : OVER;
}

/* Those of the look that share a fate, and with it a node if one is named; NULL: none, or no memory. */
static struct sweep *collect(const struct look *l, enum fate fate, const char *node)
{
    struct slice user = l->find->user;
    struct sweep *w = calloc(1, sizeof *w + user.len);
    if (!w)
        return NULL;
    w->user_len = user.len;
    memcpy(w->user, user.data, user.len);
    for (size_t i = 0; i < l->seen_count && w->count < SWEEP_MAX; i++) {
        const struct directory_field *f = &l->seen[i].field;
        if (fate_of(l, f) == fate && (!node || strcmp(f->node, node) == 0))
            w->fields[w->count++] = *f;
    }
    return w;
}

static void sweep(const struct look *l)
{
    const char *gone = NULL;
    bool over = false;
    for (size_t i = 0; i < l->seen_count; i++) {
        enum fate fate = fate_of(l, &l->seen[i].field);
        over |= fate == OVER;
        if (fate == NO_LEASE)
            gone = l->seen[i].field.node; /* one node at a time */
    }
    struct sweep *now = over ? collect(l, OVER, NULL) : NULL;
    struct sweep *later = gone ? collect(l, NO_LEASE, gone) : NULL;
    if (now)
        sweep_now(l->d, now);
    free(now);
    if (later)
        sweep_if_gone(l->d, gone, later);
}

/* Those of others that live, by malloc; NULL: none, or no memory (told by the find's status). */
static struct directory_remote *living(struct look *l, size_t *count)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->seen_count; i++)
        if (fate_of(l, &l->seen[i].field) == LIVES && strcmp(l->seen[i].field.node, l->d->o.node) != 0)
            l->seen[kept++] = l->seen[i];
    drop_twins(l->seen, &kept);
    l->seen_count = kept;
    struct directory_remote *remotes = kept > 0 ? calloc(kept, sizeof *remotes) : NULL;
    *count = remotes ? kept : 0;
    if (kept > 0 && !remotes)
        l->find->status = ST_NO_MEMORY;
    for (size_t i = 0; i < *count; i++) {
        const struct seen *s = &l->seen[i];
        memcpy(remotes[i].node, s->field.node, sizeof remotes[i].node);
        memcpy(remotes[i].door, s->place.door, sizeof remotes[i].door);
        remotes[i].incarnation = s->field.incarnation;
        remotes[i].connection = s->field.connection;
        remotes[i].since_ms = s->place.since_ms;
    }
    return remotes;
}

static int compare_nodes(const void *a, const void *b)
{
    const struct directory_node *x = a, *y = b;
    return strcmp(x->id, y->id);
}

static void keep_nodes(struct look *l, uint64_t now_ms)
{
    struct directory_redis *d = l->d;
    if (!l->nodes)
        return; /* no memory: the answer is stale anyway */
    qsort(l->nodes, l->node_count, sizeof *l->nodes, compare_nodes);
    free(d->nodes);
    d->nodes = l->nodes;
    d->node_count = l->node_count;
    d->nodes_as_of_ms = now_ms;
    l->nodes = NULL;
    l->node_count = 0;
}

static bool all_settled(const struct look *l)
{
    for (uint32_t i = 0; i < l->node_count; i++)
        if (!l->nodes[i].settled && strcmp(l->nodes[i].id, l->d->o.node) != 0)
            return false;
    return true;
}

static void conclude(struct look *l)
{
    struct directory_redis *d = l->d;
    struct directory_find *f = l->find;
    uint64_t now = loop_wall_ms(d->loop);
    size_t count = 0;
    f->shared = true;
    f->stale = l->young || l->lost || l->incomplete || !all_settled(l);
    f->as_of_ms = now;
    if (f->user.len > 0) {
        if (!l->lost)
            sweep(l);
        struct directory_remote *remotes = living(l, &count);
        directory_cache_put(d->cache, f->user, now, remotes, count);
        merge(f, remotes, count);
        free(remotes);
    }
    keep_nodes(l, now);
    if (f->user.len == 0)
        give_nodes(d, f);
    look_free(l);
    directory_redis_found(d, f);
}

/* Redis has refused, or memory is short. */
static void give_up(struct look *l)
{
    struct directory_redis *d = l->d;
    struct directory_find *f = l->find;
    look_free(l);
    answer_from_memory(d, f);
}

static void one_less(struct look *l)
{
    assert(l->owed > 0);
    if (--l->owed == 0)
        conclude(l);
}

/* --- replies ----------------------------------------------------------------------------------------------
 */

static bool ask(struct look *l, const struct slice *words, unsigned count,
                void (*on_reply)(void *ctx, void *subject, const struct redisReply *r))
{
    if (!l->d->link || redis_link_ask(l->d->link, words, count, on_reply, l->d, l) != ST_OK) {
        l->incomplete = true;
        return false;
    }
    l->owed++;
    return true;
}

static void sweep_node(struct look *l, struct slice name)
{
    struct directory_redis *d = l->d;
    struct buf key;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    if (directory_key(d, &key, "nodes", (struct slice){0}) == ST_OK) {
        const struct slice words[] = {slice_cstr("SREM"), buf_slice(&key), name};
        enum status st = redis_link_ask(d->link, words, 3, on_ignored, d, NULL);
        (void)st; /* somebody else will come by */
    }
    buf_deinit(&key);
}

static void take_node(struct look *l, struct slice name, const struct redisReply *r)
{
    struct directory_node *n = &l->nodes[l->node_count];
    bool self = slice_equal_cstr(name, l->d->o.node);
    *n = (struct directory_node){0};
    if (redis_reply_is_nil(r)) {
        if (self)
            l->lost = true;
        else
            sweep_node(l, name);
        return;
    }
    if (directory_node_read(redis_reply_text(r), n) != ST_OK) {
        l->incomplete = true;
        return;
    }
    memcpy(n->id, name.data, name.len);
    l->node_count++;
}

static void on_leases(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    struct look *l = subject;
    if (refused(d, r))
        return;
    if (redis_reply_count(r) != 2 + l->name_count) {
        l->incomplete = true;
        one_less(l);
        return;
    }
    l->lost = !slice_equal_cstr(redis_reply_text(redis_reply_at(r, 0)), d->run);
    l->young = !redis_reply_is_nil(redis_reply_at(r, 1));
    for (uint32_t i = 0; i < l->name_count; i++)
        take_node(l, l->names[i], redis_reply_at(r, 2 + i));
    if (!node_of(l, d->o.node))
        l->lost = true;
    if (l->lost)
        d->lease_due_ms = 0; /* it looks at once what has happened */
    one_less(l);
}

/* The keys of the MGET, one behind the other in l->keys; false: no memory. */
static bool make_keys(struct look *l, const struct redisReply *r, struct slice *words)
{
    size_t ends[2 + DIRECTORY_NODES_MAX], starts[DIRECTORY_NODES_MAX];
    unsigned count = 0;
    const struct directory_redis *d = l->d;
    if (directory_key(d, &l->keys, "born", (struct slice){0}) != ST_OK)
        return false;
    ends[count++] = l->keys.len;
    if (directory_key(d, &l->keys, "young", (struct slice){0}) != ST_OK)
        return false;
    ends[count++] = l->keys.len;
    for (size_t i = 0; i < redis_reply_count(r); i++) {
        struct slice name = redis_reply_text(redis_reply_at(r, i));
        if (name.len == 0 || name.len > DIRECTORY_NODE_BYTES_MAX || memchr(name.data, 0, name.len) ||
            l->name_count == DIRECTORY_NODES_MAX) {
            l->incomplete = true;
            continue;
        }
        if (directory_key(d, &l->keys, "node", name) != ST_OK)
            return false;
        starts[l->name_count++] = l->keys.len - name.len;
        ends[count++] = l->keys.len;
    }
    for (unsigned i = 0; i < count; i++) {
        size_t from = i > 0 ? ends[i - 1] : 0;
        words[1 + i] = slice_of(l->keys.data + from, ends[i] - from);
        if (i >= 2)
            l->names[i - 2] = slice_of(l->keys.data + starts[i - 2], ends[i] - starts[i - 2]);
    }
    return true;
}

static void take_entry(struct look *l, struct slice field, struct slice value)
{
    if (l->seen_count == l->seen_cap) {
        size_t cap = l->seen_cap > 0 ? l->seen_cap * 2 : FIRST_ENTRIES;
        struct seen *seen = realloc(l->seen, cap * sizeof *seen);
        if (!seen) {
            l->incomplete = true;
            return;
        }
        l->seen = seen;
        l->seen_cap = cap;
    }
    struct seen *s = &l->seen[l->seen_count];
    if (directory_field_read(field, &s->field) == ST_OK && directory_place_read(value, &s->place) == ST_OK)
        l->seen_count++; /* else it was not written by us */
}

static void ask_scan(struct look *l, struct slice cursor);

static void on_scanned(void *ctx, void *subject, const struct redisReply *r)
{
    struct look *l = subject;
    const struct redisReply *pairs = redis_reply_at(r, 1);
    struct slice cursor = redis_reply_text(redis_reply_at(r, 0));
    if (refused(ctx, r))
        return;
    for (size_t i = 0; i + 1 < redis_reply_count(pairs); i += 2)
        take_entry(l, redis_reply_text(redis_reply_at(pairs, i)),
                   redis_reply_text(redis_reply_at(pairs, i + 1)));
    if (!slice_equal_cstr(cursor, "0")) {
        if (cursor.len > 0 && l->steps < SCAN_STEPS_MAX)
            ask_scan(l, cursor);
        else
            l->incomplete = true;
    }
    one_less(l);
}

static void ask_scan(struct look *l, struct slice cursor)
{
    struct buf key;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    l->steps++;
    if (directory_key(l->d, &key, "user", l->find->user) == ST_OK) {
        const struct slice words[] = {slice_cstr("HSCAN"), buf_slice(&key), cursor, slice_cstr("COUNT"),
                                      slice_cstr("1000")};
        (void)ask(l, words, 5, on_scanned);
    } else {
        l->incomplete = true;
    }
    buf_deinit(&key);
}

static void on_names(void *ctx, void *subject, const struct redisReply *r)
{
    struct look *l = subject;
    struct slice words[1 + 2 + DIRECTORY_NODES_MAX] = {slice_cstr("MGET")};
    size_t most = redis_reply_count(r) < DIRECTORY_NODES_MAX ? redis_reply_count(r) : DIRECTORY_NODES_MAX;
    if (refused(ctx, r))
        return;
    l->names = calloc(most + 1, sizeof *l->names);
    l->nodes = calloc(most + 1, sizeof *l->nodes);
    if (!l->names || !l->nodes || !make_keys(l, r, words) || !ask(l, words, 3 + l->name_count, on_leases))
        l->incomplete = true;
    if (l->find->user.len > 0)
        ask_scan(l, slice_cstr("0"));
    one_less(l);
}

static void ask_first(struct look *l)
{
    struct buf key;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    bool asked = false;
    if (directory_key(l->d, &key, "nodes", (struct slice){0}) == ST_OK) {
        const struct slice words[] = {slice_cstr("SMEMBERS"), buf_slice(&key)};
        asked = ask(l, words, 2, on_names);
    }
    buf_deinit(&key);
    if (!asked)
        give_up(l);
}

/* --- the port ----------------------------------------------------------------------------------------------
 */

void look_begin(struct directory_redis *d, struct directory_find *f)
{
    list_init(&f->queue);
    if (d->link)
        list_push(&d->asking, &f->queue);
    else
        answer_from_memory(d, f);
}

/* Updates leave most of the link's places to look-ups, so these wait for each other only. */
void look_pump(struct directory_redis *d)
{
    while (d->link && !list_empty(&d->asking) &&
           redis_link_open_count(d->link) + ROOM_FOR_LOOKS < REDIS_LINK_OPEN_MAX) {
        struct directory_find *f = LIST_OF(d->asking.next, struct directory_find, queue);
        struct look *l = calloc(1, sizeof *l);
        list_unlink(&f->queue);
        if (!l) {
            answer_from_memory(d, f);
            continue;
        }
        l->d = d;
        l->find = f;
        buf_init(&l->keys, KEYS_BYTES_MAX);
        list_init(&l->link);
        list_push(&d->looking, &l->link);
        ask_first(l);
    }
}

static void forget_sweeps(struct directory_redis *d)
{
    LIST_EACH (node, &d->sweeps)
        free(LIST_OF(node, struct sweep, link));
    list_init(&d->sweeps);
}

void look_forget(struct directory_redis *d)
{
    forget_sweeps(d);
    while (!list_empty(&d->looking))
        look_free(LIST_OF(d->looking.next, struct look, link));
}

void look_link_lost(struct directory_redis *d)
{
    while (!list_empty(&d->looking))
        give_up(LIST_OF(d->looking.next, struct look, link));
    forget_sweeps(d);
    while (!list_empty(&d->asking)) {
        struct directory_find *f = LIST_OF(d->asking.next, struct directory_find, queue);
        list_unlink(&f->queue);
        answer_from_memory(d, f);
    }
}
