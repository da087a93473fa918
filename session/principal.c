#include "session/principal.h"

#include "core/utf8.h"
#include "routing/topic.h"
#include "routing/user.h"

#include <assert.h>
#include <stdlib.h>

enum { ENCODED_BYTES_MAX = 3 * PRINCIPAL_USER_BYTES_MAX };

/* The texts of one that was created lie behind it, in one allocation. */
struct principal_memory {
    struct principal principal;
    uint8_t texts[];
};

static struct slice put_text(uint8_t **at, struct slice text)
{
    struct slice copy = slice_of(*at, text.len);
    if (text.len > 0)
        memcpy(*at, text.data, text.len);
    *at += text.len;
    return copy;
}

enum status principal_create(const struct principal_spec *spec, struct principal **out)
{
    struct buf encoded;
    if (spec->user.len > PRINCIPAL_USER_BYTES_MAX || spec->token_id.len > PRINCIPAL_TOKEN_ID_BYTES_MAX ||
        !utf8_valid_mqtt(spec->user) || !utf8_valid(spec->token_id))
        return ST_INVALID;
    buf_init(&encoded, ENCODED_BYTES_MAX + 1);
    enum status st = user_encode(spec->user, &encoded);
    struct principal_memory *m =
        st == ST_OK ? calloc(1, sizeof *m + spec->user.len + encoded.len + spec->token_id.len) : NULL;
    if (m) {
        uint8_t *at = m->texts;
        struct principal *p = &m->principal;
        atomic_init(&p->refs, 1);
        p->user = put_text(&at, spec->user);
        p->inbox_id = put_text(&at, buf_slice(&encoded));
        p->token_id = put_text(&at, spec->token_id);
        p->issued_ms = spec->issued_ms;
        p->expires_ms = spec->expires_ms;
        p->connections_max = spec->connections_max;
        p->admin = spec->admin;
        p->policy = acl_ref(spec->policy);
        p->own = acl_ref(spec->own);
        *out = p;
    }
    buf_deinit(&encoded);
    return m ? ST_OK : ST_NO_MEMORY;
}

struct principal *principal_anonymous(void)
{
    static struct principal anonymous = {.refs = 1};
    return principal_ref(&anonymous);
}

struct principal *principal_ref(struct principal *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void principal_unref(struct principal *p)
{
    /* Release what we have read; acquire what others have, before it is freed. The static one keeps the
     * reference that nobody has. */
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1)
        return;
    acl_unref(p->policy);
    acl_unref(p->own);
    free(p);
}

const char *access_denied_text(enum access_op op)
{
    static const char *const texts[ACL_OP_COUNT] = {
        [ACL_PUBLISH] = "neither the access rules (acl) nor the token permit to publish to this topic",
        [ACL_SUBSCRIBE] = "neither the access rules (acl) nor the token permit all that this filter matches",
        [ACL_HISTORY] =
            "neither the access rules (acl) nor the token permit to read the past of this topic; live may be",
        [ACL_PRESENCE] = "neither the access rules (acl) nor the token permit to see who is there",
    };
    return texts[op];
}

/* --- decisions ---------------------------------------------------------------------------------- */

static bool is_denied(const struct principal *p, const struct acl_asker *who, enum access_op op,
                      struct slice topic)
{
    return (p->policy && acl_denies(p->policy, who, op, topic)) ||
           (p->own && acl_denies(p->own, who, op, topic));
}

static bool rules_permit(const struct principal *p, const struct acl_asker *who, enum access_op op,
                         struct slice topic)
{
    const struct acl *granting = p->own ? p->own : p->policy;
    return granting && !is_denied(p, who, op, topic) && acl_allows(granting, who, op, topic);
}

static bool may_internal(const struct principal *p, const struct acl_asker *who, enum access_op op,
                         struct slice topic)
{
    struct slice user;
    bool open = principal_is_free(p) && p->user.len == 0;
    if (topic_user(topic, &user)) {
        if (op == ACL_PUBLISH)
            return open || rules_permit(p, who, op, topic);
        if (p->user.len > 0 && slice_equal(user, p->inbox_id) && !is_denied(p, who, op, topic))
            return true;
        return op == ACL_PRESENCE && (open || rules_permit(p, who, op, topic));
    }
    if (op == ACL_PUBLISH || !topic_system(topic))
        return false;
    return open || rules_permit(p, who, op, topic);
}

bool principal_may(const struct principal *p, enum access_op op, struct slice topic, struct slice client_id)
{
    const struct acl_asker who = {.user = p->user, .encoded_user = p->inbox_id, .client_id = client_id};
    assert(topic.len > 0);
    if (p->admin)
        return true;
    if (topic_internal(topic))
        return may_internal(p, &who, op, topic);
    return principal_is_free(p) || rules_permit(p, &who, op, topic);
}

bool principal_may_administer(const struct principal *p)
{
    return p->admin || (p->user.len == 0 && principal_is_free(p));
}
