#include "gateway/auth/revocations.h"

#include "core/hash.h"
#include "core/json.h"
#include "routing/hash_slots.h"
#include "routing/user.h"

#include <stdlib.h>

static const char prefix[] = "$revoked/";

struct entry {
    struct entry *next; /* all, for the sweep */
    struct revocation what; /* its name lies behind */
    uint8_t name[];
};

struct revocations {
    struct hash_slots slots;
    struct entry *all;
    size_t count, sweep_at;
};

enum status revocations_create(struct revocations **out)
{
    enum { SWEEP_FIRST = 1024 };
    struct revocations *r = calloc(1, sizeof *r);
    if (!r)
        return ST_NO_MEMORY;
    r->sweep_at = SWEEP_FIRST;
    *out = r;
    return ST_OK;
}

void revocations_destroy(struct revocations *r)
{
    if (!r)
        return;
    while (r->all) {
        struct entry *e = r->all;
        r->all = e->next;
        free(e);
    }
    hash_slots_deinit(&r->slots);
    free(r);
}

/* --- the table ---------------------------------------------------------------------------------- */

/* A user and a token of one name are told apart when they are compared. */
static struct entry *find(const struct revocations *r, struct slice name, bool of_token)
{
    size_t at;
    uint64_t hash = hash64(name);
    for (struct entry *e = hash_slots_first(&r->slots, hash, &at); e;
         e = hash_slots_next(&r->slots, hash, &at))
        if (e->what.of_token == of_token && slice_equal(e->what.name, name))
            return e;
    return NULL;
}

static bool lapsed(const struct revocation *what, uint64_t now_ms)
{
    return what->until_ms != 0 && now_ms >= what->until_ms;
}

static void sweep(struct revocations *r, uint64_t now_ms)
{
    for (struct entry **at = &r->all; *at;) {
        struct entry *e = *at;
        if (!lapsed(&e->what, now_ms)) {
            at = &e->next;
            continue;
        }
        *at = e->next;
        hash_slots_remove(&r->slots, hash64(e->what.name), e);
        r->count--;
        free(e);
    }
    r->sweep_at = 2 * r->count + 1024;
}

enum status revocations_put(struct revocations *r, const struct revocation *what, uint64_t now_ms)
{
    struct entry *e = find(r, what->name, what->of_token);
    if (e) {
        e->what.at_ms = what->at_ms > e->what.at_ms ? what->at_ms : e->what.at_ms;
        e->what.until_ms = what->until_ms;
        return ST_OK;
    }
    if (r->count >= r->sweep_at)
        sweep(r, now_ms);
    e = calloc(1, sizeof *e + what->name.len);
    if (!e || hash_slots_reserve(&r->slots) != ST_OK) {
        free(e);
        return ST_NO_MEMORY;
    }
    e->what = *what;
    if (what->name.len > 0)
        memcpy(e->name, what->name.data, what->name.len);
    e->what.name = slice_of(e->name, what->name.len);
    e->next = r->all;
    r->all = e;
    hash_slots_insert(&r->slots, hash64(e->what.name), e);
    r->count++;
    return ST_OK;
}

size_t revocations_count(const struct revocations *r)
{
    return r->count;
}

bool revocation_concerns(const struct revocation *what, const struct principal *p, uint64_t now_ms)
{
    if (lapsed(what, now_ms))
        return false;
    if (what->of_token)
        return p->token_id.len > 0 && slice_equal(what->name, p->token_id);
    return p->user.len > 0 && slice_equal(what->name, p->user) && p->issued_ms <= what->at_ms;
}

bool revocations_have(const struct revocations *r, const struct principal *p, uint64_t now_ms)
{
    if (r->count == 0)
        return false;
    const struct entry *user = find(r, p->user, false), *token = find(r, p->token_id, true);
    return (user && revocation_concerns(&user->what, p, now_ms)) ||
           (token && revocation_concerns(&token->what, p, now_ms));
}

/* --- the record --------------------------------------------------------------------------------- */

enum status revocation_write(const struct revocation *what, struct buf *topic, struct buf *payload)
{
    enum status st = buf_put_cstr(topic, prefix);
    if (st == ST_OK)
        st = buf_put_cstr(topic, what->of_token ? "token/" : "user/");
    if (st == ST_OK)
        st = user_encode(what->name, topic);
    if (st == ST_OK)
        st = buf_put_cstr(payload, what->of_token ? "{\"token_id\":" : "{\"user\":");
    if (st == ST_OK)
        st = json_put_string(payload, what->name);
    if (st == ST_OK)
        st = buf_printf(payload, ",\"at\":%lu", (unsigned long)what->at_ms);
    if (st == ST_OK && what->until_ms != 0)
        st = buf_printf(payload, ",\"until\":%lu", (unsigned long)what->until_ms);
    return st == ST_OK ? buf_put_byte(payload, '}') : st;
}

bool revocation_topic(struct slice topic)
{
    return slice_starts_with(topic, slice_cstr(prefix));
}

enum status revocation_read(const struct msg *m, struct buf *text, struct revocation *out)
{
    struct json_value name, at, until;
    struct slice payload = msg_payload(m);
    struct revocation what = {.of_token = json_find(payload, "token_id", &name) == ST_OK};
    buf_clear(text);
    if ((!what.of_token && json_find(payload, "user", &name) != ST_OK) || json_text(name, text) != ST_OK ||
        text->len == 0 || json_find(payload, "at", &at) != ST_OK || json_uint(at, &what.at_ms) != ST_OK)
        return ST_INVALID;
    if (json_find(payload, "until", &until) == ST_OK && json_uint(until, &what.until_ms) != ST_OK)
        return ST_INVALID;
    what.name = buf_slice(text);
    *out = what;
    return ST_OK;
}
