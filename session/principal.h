/* A principal: who a connection or request is, and what he may do. Immutable and counted; made by
 * gateway/auth, held by every connection and request (never NULL there). Any thread. */
#ifndef TG_SESSION_PRINCIPAL_H
#define TG_SESSION_PRINCIPAL_H

#include "session/acl.h"

enum { PRINCIPAL_USER_BYTES_MAX = 256, PRINCIPAL_TOKEN_ID_BYTES_MAX = 256 };

struct principal {
    struct slice user; /* "" = anonymous: no user, no inbox */
    struct slice inbox_id; /* the user as in $user/<id> (routing/user.h) */
    struct slice token_id; /* jti; may be empty */
    uint64_t issued_ms, expires_ms; /* Unix ms; 0 = not said, never */
    uint32_t connections_max; /* of the user at a time; 0 = no bound */
    bool admin; /* api.key, or a token that says so: may do everything */
    struct acl *policy; /* rules of the configuration; NULL: it has none */
    struct acl *own; /* what the token allows; NULL: it says nothing of that */
    atomic_uint refs;
};

struct principal_spec {
    struct slice user, token_id;
    uint64_t issued_ms, expires_ms;
    uint32_t connections_max;
    bool admin;
    struct acl *policy, *own; /* the principal takes references of its own; NULL is allowed */
};

/* Copies. ST_INVALID: a user that is too long, or no UTF-8, or holds U+0000. ST_NO_MEMORY. */
enum status principal_create(const struct principal_spec *spec, struct principal **out) MUST_CHECK;
/* The anonymous one of a node without access rules; static. */
struct principal *principal_anonymous(void);
struct principal *principal_ref(struct principal *p);
void principal_unref(struct principal *p); /* NULL is allowed */

static inline bool principal_is_anonymous(const struct principal *p)
{
    return p->user.len == 0 && !p->admin;
}

/* Of the user at a time: what the token says, but not more than `limit` unless that is 0; 0 = any number. */
static inline uint32_t principal_connections_max(const struct principal *p, uint64_t limit)
{
    return (uint32_t)(p->connections_max > 0 && (limit == 0 || p->connections_max < limit)
                          ? p->connections_max
                          : limit);
}

/* What is told to who may not, by operation: what, why, what to do. Static. */
const char *access_denied_text(enum access_op op);

/* Without rules of the configuration and of his token: every topic that does not begin with '$'; his own
 * inbox
 * ($user/<id>, literally, and below) to subscribe to; anonymous ones also $SYS/, to publish to inboxes, and
 * to see whose connections there are, which the private API alone offers. With rules: what they say, his own
 * inbox unless they deny it; an access list of the token stands in for what the configuration allows, never
 * for what it denies. `client_id`: "" = none. */
bool principal_may(const struct principal *p, enum access_op op, struct slice topic_or_filter,
                   struct slice client_id);
/* May he do what concerns the whole node (connections, tickets, revocations ...)? admin, and anonymous ones
 * of a node without access rules. */
bool principal_may_administer(const struct principal *p);
/* May he do anything with every topic that does not begin with '$'? Then a publish needs no look at rules. */
static inline bool principal_is_free(const struct principal *p)
{
    return p->admin || (!p->policy && !p->own);
}

#endif
