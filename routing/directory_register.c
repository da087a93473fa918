/* This node's entries in Redis. Redis holds only what can be written again, so whatever is in doubt is
 * written again: after every lost link, when our own lease is missing, when more removals wait than are
 * allowed.
 *
 *      add -> [waiting] --HSET, PEXPIRE--> [written] -- near the end of entry_ms --> [waiting]
 *                 ^                             |
 *                 +------- register_again ------+
 *
 * Each writing-again has a number, the registration, which stands in each entry and, as the oldest that
 * counts, in the lease. While it goes on the entries of the one before still count, and the lease says that
 * it is not settled; once [waiting] is empty the lease says the new number. Commands of one link are done in
 * their order, so who reads that lease reads all the entries, and what was removed while Redis could not be
 * told (removals that were forgotten) does not count any more. Hence a removal may be forgotten, but never
 * silently kept.
 *
 * Entries are lent by their owners and linked, not copied: any number may wait without memory. Removals are
 * copies, for the entry goes home at once; they are what is bounded. */
#include "routing/directory_redis_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { UPDATES_OPEN_MAX = 1024, NUMBER_BYTES = 24 };

struct removal {
    struct list link;
    uint64_t connection, registration;
    size_t user_len;
    uint8_t user[];
};

static void drop_removals(struct directory_redis *d)
{
    LIST_EACH (node, &d->removals)
        free(LIST_OF(node, struct removal, link));
    list_init(&d->removals);
    d->removal_count = 0;
}

void register_forget(struct directory_redis *d)
{
    drop_removals(d);
    list_init(&d->waiting);
    list_init(&d->written);
}

static void to_waiting(struct directory_redis *d, struct directory_entry *e)
{
    list_push(&d->waiting, &e->shelf);
    d->waiting_count++;
    e->waits = true;
}

void register_add(struct directory_redis *d, struct directory_entry *e)
{
    e->registration = 0;
    to_waiting(d, e);
    d->entry_count++;
}

void register_again(struct directory_redis *d, enum metric why)
{
    drop_removals(d);
    LIST_EACH (node, &d->written) {
        struct directory_entry *e = LIST_OF(node, struct directory_entry, shelf);
        list_unlink(&e->shelf);
        to_waiting(d, e);
    }
    d->registration++;
    d->settled = false;
    register_figures(d); /* before it is counted: who waits for the count finds what is to be done */
    metric_add(d->metrics, why, 1);
}

void register_link_lost(struct directory_redis *d)
{
    d->updates_open = 0;
    d->settled = false;
}

void register_remove(struct directory_redis *d, struct directory_entry *e)
{
    list_unlink(&e->shelf);
    d->entry_count--;
    d->waiting_count -= e->waits ? 1 : 0;
    if (e->registration == 0 || !d->link) /* Redis has not got it, or will not have for long */
        return;
    struct removal *r = d->removal_count < d->o.pending_max ? malloc(sizeof *r + e->user.len) : NULL;
    if (!r) {
        register_again(d, M_DIRECTORY_AGAIN_OVERFLOW);
        directory_redis_send_lease(d);
        return;
    }
    r->connection = e->connection;
    r->registration = e->registration;
    r->user_len = e->user.len;
    memcpy(r->user, e->user.data, e->user.len);
    list_push(&d->removals, &r->link);
    d->removal_count++;
}

/* --- sending ------------------------------------------------------------------------------------------ */

static void on_updated(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    (void)subject;
    if (!d->link)
        return;
    if (redis_reply_is_error(r)) {
        directory_redis_refused(d, r);
        return;
    }
    assert(d->updates_open > 0);
    d->updates_open--;
}

static bool ask(struct directory_redis *d, const struct slice *words, unsigned count)
{
    if (!d->link || redis_link_ask(d->link, words, count, on_updated, d, NULL) != ST_OK)
        return false;
    d->updates_open++;
    return true;
}

static bool make_key(struct directory_redis *d, struct buf *key, struct slice user)
{
    return directory_key(d, key, "user", user) == ST_OK;
}

static enum status put_field(const struct directory_redis *d, uint64_t registration, uint64_t connection,
                             struct buf *out)
{
    struct directory_field f = {
        .incarnation = d->o.incarnation, .registration = registration, .connection = connection};
    snprintf(f.node, sizeof f.node, "%s", d->o.node);
    return directory_field_write(&f, out);
}

static bool send_removal(struct directory_redis *d, struct slice user, uint64_t registration,
                         uint64_t connection)
{
    struct buf key, field;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&field, DIRECTORY_FIELD_BYTES_MAX);
    bool sent = make_key(d, &key, user) && put_field(d, registration, connection, &field) == ST_OK;
    if (sent) {
        const struct slice words[] = {slice_cstr("HDEL"), buf_slice(&key), buf_slice(&field)};
        sent = ask(d, words, 3);
    }
    buf_deinit(&key);
    buf_deinit(&field);
    return sent;
}

static bool send_written(struct directory_redis *d, const struct directory_entry *e)
{
    struct directory_place place = {.since_ms = e->since_ms};
    struct buf key, field, value;
    char ms[NUMBER_BYTES];
    int ms_len = snprintf(ms, sizeof ms, "%lu", (unsigned long)d->o.entry_ms);
    snprintf(place.door, sizeof place.door, "%s", e->door);
    buf_init(&value, DIRECTORY_RECORD_BYTES_MAX);
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&field, DIRECTORY_FIELD_BYTES_MAX);
    bool sent = make_key(d, &key, e->user) && put_field(d, d->registration, e->connection, &field) == ST_OK &&
                directory_place_write(&place, &value) == ST_OK;
    if (sent) {
        const struct slice set[] = {slice_cstr("HSET"), buf_slice(&key), buf_slice(&field),
                                    buf_slice(&value)};
        const struct slice expire[] = {slice_cstr("PEXPIRE"), buf_slice(&key), slice_of(ms, (size_t)ms_len)};
        sent = ask(d, set, 4) && ask(d, expire, 3);
    }
    buf_deinit(&key);
    buf_deinit(&field);
    buf_deinit(&value);
    return sent;
}

/* The new one before the old one goes: in between it is there twice, never not at all. */
static bool send_entry(struct directory_redis *d, const struct directory_entry *e)
{
    return send_written(d, e) && (e->registration == 0 || e->registration == d->registration ||
                                  send_removal(d, e->user, e->registration, e->connection));
}

static bool send_one(struct directory_redis *d)
{
    if (!list_empty(&d->removals)) {
        struct removal *r = LIST_OF(d->removals.next, struct removal, link);
        if (!send_removal(d, slice_of(r->user, r->user_len), r->registration, r->connection))
            return false;
        list_unlink(&r->link);
        d->removal_count--;
        free(r);
        return true;
    }
    struct directory_entry *e = LIST_OF(d->waiting.next, struct directory_entry, shelf);
    if (!send_entry(d, e))
        return false;
    list_unlink(&e->shelf);
    list_push(&d->written, &e->shelf);
    d->waiting_count--;
    e->waits = false;
    e->written_ms = loop_now_ms(d->loop);
    e->registration = d->registration;
    return true;
}

void register_pump(struct directory_redis *d)
{
    while (d->link && d->updates_open < UPDATES_OPEN_MAX &&
           (!list_empty(&d->removals) || !list_empty(&d->waiting)))
        if (!send_one(d))
            break; /* no room now, or no memory: the next turn */
    if (d->link && !d->settled && list_empty(&d->waiting)) {
        d->settled = true;
        d->visible = d->registration;
        directory_redis_send_lease(d);
    }
}

void register_refresh(struct directory_redis *d, uint64_t now_ms)
{
    while (!list_empty(&d->written)) {
        struct directory_entry *e = LIST_OF(d->written.next, struct directory_entry, shelf);
        if (now_ms - e->written_ms < d->o.entry_ms / 2)
            return;
        list_unlink(&e->shelf);
        to_waiting(d, e);
    }
}

void register_figures(struct directory_redis *d)
{
    metric_set(d->metrics, M_DIRECTORY_ENTRIES, d->entry_count);
    metric_set(d->metrics, M_DIRECTORY_PENDING, d->waiting_count + d->removal_count + d->updates_open);
}
