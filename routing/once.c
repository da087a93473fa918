/* One table for both kinds: an entry is a producer with its window, or a key, whose window never has more
 * than one member. What a repetition must equal besides (member.check) is the topic of a producer's sequence
 * and the digest of a key's publish; topics are compared by hash64_stable, since notes outlive the process.
 * Who computes a collision of that public hash deceives only himself: the entry is his own.
 *
 * An entry stands in two lists: that of its kind, longest idle first, for forgetting; and that of all in the
 * order of their birth, for carrying, which goes through it in steps while publishes go on. */
#include "routing/once.h"

#include "core/hash.h"
#include "core/list.h"
#include "routing/hash_slots.h"
#include "routing/once_note.h"

#include <assert.h>
#include <stdlib.h>

enum {
    KINDS = 2,
    EXPIRE_A_FOLD = 4, /* at most; one is added at a time */
    LOAD_TIMES = 2,
    CARRY_LOOK_MAX = 4096, /* entries and members a call looks at, about */
};

struct entry {
    struct list idle; /* once.idle[kind], by `newest` */
    struct list all; /* once.all, by `born` */
    uint64_t hash, born;
    uint64_t newest; /* offset of its newest message */
    uint64_t last_ms; /* when that was published */
    uint64_t stored_low; /* no member's `stored` is lower */
    struct once_window window;
    uint8_t kind;
    uint16_t principal_len, name_len, topic_len;
    uint8_t bytes[]; /* principal, name, topic */
};

struct once {
    struct once_limits limits;
    struct once_counts counts;
    struct hash_slots slots;
    struct list idle[KINDS], all;
    uint64_t born;
    bool loading;
    struct {
        uint64_t upto, end; /* entries born at or after `end` need no note */
        struct list *at; /* the next one to look at; &all: none */
    } carry;
};

/* Whose entry it is. */
struct owner {
    enum once_kind kind;
    struct slice principal, name, topic;
};

enum status once_create(const struct once_limits *limits, struct once **out)
{
    struct once *o = calloc(1, sizeof *o);
    if (!o)
        return ST_NO_MEMORY;
    o->limits = *limits;
    for (unsigned i = 0; i < KINDS; i++)
        list_init(&o->idle[i]);
    list_init(&o->all);
    o->carry.at = &o->all;
    *out = o;
    return ST_OK;
}

static void entry_free(struct entry *e)
{
    once_window_deinit(&e->window);
    free(e);
}

void once_destroy(struct once *o)
{
    if (!o)
        return;
    LIST_EACH (it, &o->all)
        entry_free(LIST_OF(it, struct entry, all));
    hash_slots_deinit(&o->slots);
    free(o);
}

const struct once_counts *once_counts(const struct once *o)
{
    return &o->counts;
}

/* --- entries -------------------------------------------------------------------------------------- */

static uint64_t owner_hash(const struct owner *w)
{
    uint64_t parts[4] = {w->kind, hash64(w->name), w->principal.len ? hash64(w->principal) : 0,
                         w->topic.len ? hash64(w->topic) : 0};
    return hash64(slice_of(parts, sizeof parts));
}

static struct owner owner_of(const struct entry *e)
{
    const uint8_t *at = e->bytes;
    return (struct owner){.kind = (enum once_kind)e->kind,
                          .principal = slice_of(at, e->principal_len),
                          .name = slice_of(at + e->principal_len, e->name_len),
                          .topic = slice_of(at + e->principal_len + e->name_len, e->topic_len)};
}

static bool owner_equal(const struct owner *a, const struct owner *b)
{
    return a->kind == b->kind && slice_equal(a->name, b->name) && slice_equal(a->principal, b->principal) &&
           slice_equal(a->topic, b->topic);
}

static struct entry *entry_find(const struct once *o, const struct owner *w, uint64_t hash)
{
    size_t at;
    for (struct entry *e = hash_slots_first(&o->slots, hash, &at); e;
         e = hash_slots_next(&o->slots, hash, &at)) {
        struct owner other = owner_of(e);
        if (owner_equal(w, &other))
            return e;
    }
    return NULL;
}

static size_t names_bytes(const struct entry *e)
{
    return (size_t)e->principal_len + e->name_len + e->topic_len;
}

/* The record's head, and what of it is the same for every note. */
static uint64_t log_bytes(const struct entry *e)
{
    return 48 + once_note_bytes(names_bytes(e), e->window.count);
}

static void count_entry(struct once *o, const struct entry *e, bool there)
{
    uint64_t sign = there ? 1 : UINT64_MAX; /* added modulo 2^64 */
    *(e->kind == ONCE_PRODUCER ? &o->counts.producers : &o->counts.keys) += sign;
    o->counts.bytes +=
        sign * (sizeof *e + names_bytes(e) + once_window_bytes(&e->window) + 2 * sizeof(struct hash_slot));
    o->counts.log_bytes += sign * log_bytes(e);
}

static enum status entry_add(struct once *o, const struct owner *w, uint64_t hash, struct entry **out)
{
    size_t len = w->principal.len + w->name.len + w->topic.len;
    struct entry *e = calloc(1, sizeof *e + len);
    if (!e || hash_slots_reserve(&o->slots) != ST_OK) {
        free(e);
        return ST_NO_MEMORY;
    }
    e->kind = (uint8_t)w->kind;
    e->principal_len = (uint16_t)w->principal.len;
    e->name_len = (uint16_t)w->name.len;
    e->topic_len = (uint16_t)w->topic.len;
    const struct slice parts[3] = {w->principal, w->name, w->topic};
    uint8_t *at = e->bytes;
    for (unsigned i = 0; i < 3; i++) {
        if (parts[i].len > 0)
            memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    e->hash = hash;
    e->born = o->born++;
    e->stored_low = UINT64_MAX;
    hash_slots_insert(&o->slots, hash, e);
    list_push(&o->idle[e->kind], &e->idle);
    list_push(&o->all, &e->all);
    count_entry(o, e, true);
    *out = e;
    return ST_OK;
}

static void entry_drop(struct once *o, struct entry *e)
{
    if (o->carry.at == &e->all)
        o->carry.at = e->all.next;
    count_entry(o, e, false);
    hash_slots_remove(&o->slots, e->hash, e);
    list_unlink(&e->idle);
    list_unlink(&e->all);
    entry_free(e);
}

/* --- forgetting ----------------------------------------------------------------------------------- */

static bool is_over(const struct once *o, uint64_t last_ms, uint64_t now_ms)
{
    return now_ms >= last_ms && now_ms - last_ms >= o->limits.keep_ms;
}

static bool is_expired(const struct once *o, const struct entry *e, uint64_t now_ms)
{
    return is_over(o, e->last_ms, now_ms);
}

static struct entry *idlest_of(const struct once *o, unsigned kind)
{
    return list_empty(&o->idle[kind]) ? NULL : LIST_OF(o->idle[kind].next, struct entry, idle);
}

static void expire_some(struct once *o, uint64_t now_ms)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        struct entry *e;
        for (unsigned i = 0; i < EXPIRE_A_FOLD && (e = idlest_of(o, kind)) && is_expired(o, e, now_ms); i++)
            entry_drop(o, e);
    }
}

/* Who has to go first while the limits are `times` passed; NULL: nobody. */
static struct entry *next_to_forget(const struct once *o, uint64_t times)
{
    struct entry *producer = idlest_of(o, ONCE_PRODUCER), *key = idlest_of(o, ONCE_KEY);
    if (o->counts.producers > times * o->limits.producers_max)
        return producer;
    if (o->counts.keys > times * o->limits.keys_max)
        return key;
    if (o->counts.bytes <= times * o->limits.bytes_max)
        return NULL;
    if (!producer || !key)
        return producer ? producer : key;
    return producer->newest < key->newest ? producer : key;
}

/* `kept`: the one that is being folded in; a limit too small for one is no limit for it. */
static void forget_most_idle(struct once *o, const struct entry *kept)
{
    struct entry *e;
    while ((e = next_to_forget(o, 1)) && e != kept) {
        entry_drop(o, e);
        o->counts.forgotten++;
    }
}

static int compare_idle(const void *left, const void *right)
{
    const struct entry *a = *(struct entry *const *)left, *b = *(struct entry *const *)right;
    return a->newest < b->newest ? -1 : a->newest > b->newest;
}

/* Without memory the order stays that of the log: near enough. */
static void sort_idle(struct list *idle, uint64_t count)
{
    struct entry **entries = count > 1 ? malloc(count * sizeof *entries) : NULL;
    uint64_t n = 0;
    if (!entries)
        return;
    LIST_EACH (it, idle)
        entries[n++] = LIST_OF(it, struct entry, idle);
    assert(n == count);
    qsort(entries, n, sizeof(struct entry *), compare_idle);
    list_init(idle);
    for (uint64_t i = 0; i < n; i++)
        list_push(idle, &entries[i]->idle);
    free(entries);
}

static void settle_load(struct once *o)
{
    sort_idle(&o->idle[ONCE_PRODUCER], o->counts.producers);
    sort_idle(&o->idle[ONCE_KEY], o->counts.keys);
    forget_most_idle(o, NULL);
}

void once_load(struct once *o)
{
    assert(list_empty(&o->all));
    o->loading = true;
}

void once_loaded(struct once *o, uint64_t now_ms)
{
    assert(o->loading);
    o->loading = false;
    LIST_EACH (it, &o->all) {
        struct entry *e = LIST_OF(it, struct entry, all);
        if (is_expired(o, e, now_ms))
            entry_drop(o, e);
    }
    settle_load(o);
}

/* --- asking and folding --------------------------------------------------------------------------- */

static struct owner owner_of_msg(const struct msg *m, const struct once_id *id)
{
    return (struct owner){.kind = id->kind,
                          .principal = id->principal,
                          .name = id->name,
                          .topic = id->kind == ONCE_KEY ? msg_topic(m) : (struct slice){0}};
}

static struct once_member member_of_msg(const struct msg *m, const struct once_id *id)
{
    return (struct once_member){.sequence = id->kind == ONCE_KEY ? 0 : id->value,
                                .check = id->kind == ONCE_KEY ? id->value : hash64_stable(msg_topic(m)),
                                .offset = m->offset,
                                .stored = m->stored};
}

enum once_verdict once_ask(const struct once *o, const struct msg *m, uint64_t now_ms, uint64_t *offset)
{
    struct once_id id;
    if (!once_id_read(msg_props(m), &id))
        return ONCE_NEW;
    struct owner w = owner_of_msg(m, &id);
    struct once_member asked = member_of_msg(m, &id);
    struct entry *e = entry_find(o, &w, owner_hash(&w));
    if (!e || is_expired(o, e, now_ms))
        return ONCE_NEW;
    const struct once_member *found = once_window_find(&e->window, asked.sequence);
    if (!found)
        return once_window_below(&e->window, asked.sequence) ? ONCE_BELOW : ONCE_NEW;
    *offset = found->offset;
    return found->check == asked.check ? ONCE_DUPLICATE : ONCE_OTHER;
}

uint32_t once_sequences(const struct once *o, struct slice producer, uint64_t from, uint64_t *out)
{
    const struct owner w = {.kind = ONCE_PRODUCER, .name = producer};
    const struct entry *e = entry_find(o, &w, owner_hash(&w));
    uint32_t found = 0;
    for (uint32_t i = 0; e && i < e->window.count; i++) {
        uint64_t sequence = once_window_at(&e->window, i)->sequence;
        if (sequence >= from)
            out[found++] = sequence;
    }
    return found;
}

/* The entry of `w` for a message of that time, made if there is none. One that was over by then begins anew,
 * as it did when the message was published: its sequences may have begun again. */
static enum status entry_open(struct once *o, const struct owner *w, uint64_t time_ms, struct entry **out)
{
    uint64_t hash = owner_hash(w);
    *out = entry_find(o, w, hash);
    if (*out && is_expired(o, *out, time_ms)) {
        entry_drop(o, *out);
        *out = NULL;
    }
    return *out ? ST_OK : entry_add(o, w, hash, out);
}

static enum status entry_put(struct once *o, struct entry *e, const struct once_member *m, uint64_t time_ms)
{
    count_entry(o, e, false);
    enum status st = once_window_put(&e->window, m);
    count_entry(o, e, true);
    if (st != ST_OK)
        return st;
    if (m->stored < e->stored_low)
        e->stored_low = m->stored;
    if (time_ms > e->last_ms)
        e->last_ms = time_ms;
    if (m->offset >= e->newest) {
        e->newest = m->offset;
        list_unlink(&e->idle);
        list_push(&o->idle[e->kind], &e->idle);
    }
    return ST_OK;
}

/* The entry may be gone afterwards. */
static void entry_folded(struct once *o, const struct entry *e)
{
    if (!o->loading)
        forget_most_idle(o, e);
    else if (next_to_forget(o, LOAD_TIMES))
        settle_load(o);
}

enum status once_fold(struct once *o, const struct msg *m, uint64_t now_ms)
{
    struct once_id id;
    struct entry *e;
    if (!once_id_read(msg_props(m), &id))
        return ST_OK;
    if (!o->loading)
        expire_some(o, now_ms);
    else if (id.kind == ONCE_KEY && is_over(o, m->ts_ms, now_ms))
        return ST_OK;
    struct owner w = owner_of_msg(m, &id);
    struct once_member member = member_of_msg(m, &id);
    enum status st = entry_open(o, &w, m->ts_ms, &e);
    if (st != ST_OK)
        return st;
    st = entry_put(o, e, &member, m->ts_ms);
    if (e->window.count == 0)
        entry_drop(o, e);
    else
        entry_folded(o, e);
    return st;
}

/* Of a producer, also when it is old: what follows in the log may be younger. */
enum status once_fold_note(struct once *o, struct slice bytes, uint64_t stored, uint64_t now_ms)
{
    struct once_note n;
    struct entry *e;
    enum status st = once_note_read(bytes, &n);
    if (st != ST_OK || (n.kind == ONCE_KEY && is_over(o, n.last_ms, now_ms)))
        return st;
    struct owner w = {.kind = n.kind, .principal = n.principal, .name = n.name, .topic = n.topic};
    st = entry_open(o, &w, n.last_ms, &e);
    if (st != ST_OK)
        return st;
    for (uint32_t i = 0; i < n.count && st == ST_OK; i++) {
        struct once_member m = once_note_member(&n, i);
        m.stored = stored;
        st = entry_put(o, e, &m, n.last_ms);
    }
    if (e->window.count == 0)
        entry_drop(o, e);
    else
        entry_folded(o, e);
    return st;
}

/* --- carrying ------------------------------------------------------------------------------------- */

void once_carry_begin(struct once *o, uint64_t upto)
{
    o->carry.upto = upto;
    o->carry.end = o->born;
    o->carry.at = o->all.next;
}

/* What of it lies below, as a note. ST_NOT_FOUND: nothing. */
static enum status entry_note(struct entry *e, uint64_t upto, struct buf *note)
{
    struct owner w = owner_of(e);
    struct once_note n = {
        .kind = w.kind, .principal = w.principal, .name = w.name, .topic = w.topic, .last_ms = e->last_ms};
    bool any = false;
    uint64_t low = UINT64_MAX;
    enum status st = once_note_begin(note, &n);
    for (uint32_t i = 0; i < e->window.count && st == ST_OK; i++) {
        const struct once_member *m = once_window_at(&e->window, i);
        low = m->stored < low ? m->stored : low;
        if (m->stored >= upto)
            continue;
        any = true;
        st = once_note_add(note, m);
    }
    if (st == ST_OK)
        e->stored_low = low;
    return st == ST_OK && !any ? ST_NOT_FOUND : st;
}

enum status once_carry_next(struct once *o, uint64_t now_ms, struct buf *note)
{
    for (unsigned looked = 0; o->carry.at != &o->all; o->carry.at = o->carry.at->next) {
        struct entry *e = LIST_OF(o->carry.at, struct entry, all);
        if (e->born >= o->carry.end)
            break;
        if (looked >= CARRY_LOOK_MAX)
            return ST_AGAIN;
        looked++;
        if (e->stored_low >= o->carry.upto || is_expired(o, e, now_ms))
            continue;
        looked += e->window.count;
        enum status st = entry_note(e, o->carry.upto, note);
        if (st != ST_NOT_FOUND)
            return st;
    }
    o->carry.at = &o->all;
    return ST_NOT_FOUND;
}

void once_carried(struct once *o, uint64_t stored)
{
    assert(o->carry.at != &o->all);
    struct entry *e = LIST_OF(o->carry.at, struct entry, all);
    uint64_t low = UINT64_MAX;
    for (uint32_t i = 0; i < e->window.count; i++) {
        struct once_member *m = once_window_at(&e->window, i);
        if (m->stored < o->carry.upto)
            m->stored = stored;
        low = m->stored < low ? m->stored : low;
    }
    e->stored_low = low;
    o->carry.at = o->carry.at->next;
}

/* --- digest --------------------------------------------------------------------------------------- */

static uint64_t entry_digest(const struct entry *e)
{
    uint64_t digest = hash64_stable(slice_of(e->bytes, names_bytes(e))) + e->kind;
    for (uint32_t i = 0; i < e->window.count; i++) {
        const struct once_member *m = once_window_at(&e->window, i);
        const uint64_t parts[] = {digest, m->sequence, m->check, m->offset};
        digest = hash64_stable(slice_of(parts, sizeof parts));
    }
    return digest;
}

uint64_t once_state_digest(const struct once *o, uint64_t at_ms, uint64_t *entries)
{
    uint64_t sum = 0;
    *entries = 0;
    LIST_EACH (it, &o->all) {
        const struct entry *e = LIST_OF(it, struct entry, all);
        if (e->last_ms + o->limits.keep_ms <= at_ms)
            continue;
        ++*entries;
        sum += entry_digest(e);
    }
    return sum;
}
