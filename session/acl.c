/* Rules are few and decisions are kept by whoever asks often (session/access_cache.h), so a list is walked
 * from its start to its end. %c is replaced when a rule is asked, as one list serves all connections of a
 * user.
 *
 *   rule "rooms/%u/#"  asked by user "a/b"  ->  "rooms/a%2Fb/#"
 *
 * A name or an identifier that begins with '$' must not turn "%u/#" into "$SYS/#": such a rule is passed
 * over. */
#include "session/acl.h"

#include "routing/topic.h"
#include "routing/user.h"

#include <assert.h>
#include <stdlib.h>

enum { EXPANDED_BYTES_MAX = 2 * 65536 };

struct acl {
    atomic_uint refs;
    size_t count;
    uint8_t *texts;
    struct acl_rule rules[];
};

/* --- filters ------------------------------------------------------------------------------------ */

static bool level_is(struct slice level, char c)
{
    return level.len == 1 && level.data[0] == (uint8_t)c;
}

static bool begins_wild(struct slice filter)
{
    return filter.len > 0 && (filter.data[0] == '+' || filter.data[0] == '#');
}

/* MQTT 5.0, 4.7.2: one begins with a wildcard, the other with '$': no name is matched by both. */
static bool apart_by_dollar(struct slice a, struct slice b)
{
    return (begins_wild(a) && topic_internal(b)) || (begins_wild(b) && topic_internal(a));
}

bool filter_covers(struct slice outer, struct slice inner)
{
    struct slice a, b;
    if (apart_by_dollar(outer, inner))
        return false;
    for (;;) {
        bool more = topic_level_next(&outer, &a);
        if (more && level_is(a, '#')) /* and the parent level, when `inner` ends here */
            return true;
        if (!topic_level_next(&inner, &b))
            return !more;
        if (!more || level_is(b, '#'))
            return false;
        if (!level_is(a, '+') && (level_is(b, '+') || !slice_equal(a, b)))
            return false;
    }
}

bool filter_meets(struct slice x, struct slice y)
{
    struct slice a, b;
    if (apart_by_dollar(x, y))
        return false;
    for (;;) {
        bool more_x = topic_level_next(&x, &a), more_y = topic_level_next(&y, &b);
        if ((more_x && level_is(a, '#')) || (more_y && level_is(b, '#')))
            return true;
        if (!more_x || !more_y)
            return more_x == more_y;
        if (!level_is(a, '+') && !level_is(b, '+') && !slice_equal(a, b))
            return false;
    }
}

/* --- placeholders ------------------------------------------------------------------------------- */

/* 'u', 'c', or 0: no placeholder begins at `at`. */
static char placeholder_at(struct slice topic, size_t at)
{
    if (topic.data[at] != '%' || at + 1 == topic.len)
        return 0;
    char c = (char)topic.data[at + 1];
    return c == 'u' || c == 'c' ? c : 0;
}

static bool has_placeholder(struct slice topic)
{
    for (size_t i = 0; i < topic.len; i++)
        if (placeholder_at(topic, i))
            return true;
    return false;
}

enum status acl_topic_put(struct slice topic, const struct acl_asker *who, struct buf *out)
{
    enum status st = ST_OK;
    for (size_t i = 0; i < topic.len && st == ST_OK; i++) {
        char c = placeholder_at(topic, i);
        if (c && (c == 'u' ? who->encoded_user.len : who->client_id.len) == 0)
            return ST_NOT_FOUND;
        st = c == 'u'   ? buf_put(out, who->encoded_user)
             : c == 'c' ? user_encode(who->client_id, out)
                        : buf_put_byte(out, topic.data[i]);
        i += c != 0;
    }
    if (st == ST_OK && topic_internal(buf_slice(out)) && !topic_internal(topic))
        st = ST_NOT_FOUND;
    return st;
}

bool acl_topic_valid(struct slice topic)
{
    static const struct topic_limits any = {UINT16_MAX, UINT16_MAX};
    const struct acl_asker sample = {
        .user = slice_cstr("x"), .encoded_user = slice_cstr("x"), .client_id = slice_cstr("x")};
    struct buf text;
    buf_init(&text, EXPANDED_BYTES_MAX);
    bool valid = acl_topic_put(topic, &sample, &text) == ST_OK && topic_filter_valid(buf_slice(&text), &any);
    buf_deinit(&text);
    return valid &&
           (!topic_internal(topic) || slice_starts_with(topic, slice_cstr("$user/")) || topic_system(topic));
}

/* --- lists -------------------------------------------------------------------------------------- */

static uint8_t *put_text(uint8_t *at, struct slice *text)
{
    if (text->len > 0)
        memcpy(at, text->data, text->len);
    text->data = at;
    return at + text->len;
}

enum status acl_create(const struct acl_rule *rules, size_t count, struct acl **out)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (!acl_topic_valid(rules[i].topic))
            return ST_INVALID;
        bytes += rules[i].topic.len + rules[i].user.len;
    }
    struct acl *a = calloc(1, sizeof *a + count * sizeof a->rules[0]);
    if (!a)
        return ST_NO_MEMORY;
    a->texts = malloc(bytes + 1);
    if (!a->texts) {
        free(a);
        return ST_NO_MEMORY;
    }
    atomic_init(&a->refs, 1);
    a->count = count;
    uint8_t *at = a->texts;
    for (size_t i = 0; i < count; i++) {
        a->rules[i] = rules[i];
        at = put_text(at, &a->rules[i].topic);
        at = put_text(at, &a->rules[i].user);
    }
    *out = a;
    return ST_OK;
}

static bool rule_equal(const struct acl_rule *a, const struct acl_rule *b)
{
    return a->who == b->who && a->denies == b->denies && a->ops == b->ops &&
           slice_equal(a->topic, b->topic) && slice_equal(a->user, b->user);
}

bool acl_equal(const struct acl *a, const struct acl *b)
{
    if (!a || !b || a->count != b->count)
        return a == b;
    for (size_t i = 0; i < a->count; i++)
        if (!rule_equal(&a->rules[i], &b->rules[i]))
            return false;
    return true;
}

struct acl *acl_ref(struct acl *a)
{
    if (a)
        atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    return a;
}

void acl_unref(struct acl *a)
{
    /* Release what we have read; acquire what others have, before it is freed. */
    if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) > 1)
        return;
    free(a->texts);
    free(a);
}

/* --- decisions ---------------------------------------------------------------------------------- */

static bool concerns(const struct acl_rule *r, const struct acl_asker *who)
{
    switch (r->who) {
    case ACL_EVERYBODY:
        return true;
    case ACL_ANONYMOUS:
        return who->user.len == 0;
    case ACL_USERS:
        return who->user.len > 0;
    case ACL_USER:
        return who->user.len > 0 && slice_equal(r->user, who->user);
    default:
        assert(false);
        return false;
    }
}

/* No memory for the text of a rule: one that denies counts, one that allows does not. */
static bool rule_applies(const struct acl_rule *r, const struct acl_asker *who, struct slice topic)
{
    if (!has_placeholder(r->topic))
        return r->denies ? filter_meets(r->topic, topic) : filter_covers(r->topic, topic);
    struct buf text;
    buf_init(&text, EXPANDED_BYTES_MAX);
    enum status st = acl_topic_put(r->topic, who, &text);
    bool applies = st == ST_OK && (r->denies ? filter_meets(buf_slice(&text), topic)
                                             : filter_covers(buf_slice(&text), topic));
    if (st != ST_OK && st != ST_NOT_FOUND)
        applies = r->denies;
    buf_deinit(&text);
    return applies;
}

static bool any_applies(const struct acl *a, bool denies, const struct acl_asker *who, enum access_op op,
                        struct slice topic)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct acl_rule *r = &a->rules[i];
        if (r->denies == denies && (r->ops & 1u << op) && concerns(r, who) && rule_applies(r, who, topic))
            return true;
    }
    return false;
}

bool acl_denies(const struct acl *a, const struct acl_asker *who, enum access_op op, struct slice topic)
{
    return any_applies(a, true, who, op, topic);
}

bool acl_allows(const struct acl *a, const struct acl_asker *who, enum access_op op, struct slice topic)
{
    return any_applies(a, false, who, op, topic);
}
