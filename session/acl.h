/* Access rules (PROTOCOL.md 6): who may do what with which topics. A list is immutable and counted; any
 * thread. A rule's topic is a filter in which %u stands for the user and %c for the client identifier, both
 * as they stand in topics (routing/user.h), so that neither can bring a level or a wildcard of its own.
 *
 * What is asked for may be a filter too. It is allowed when it lies wholly inside the filter of one rule that
 * allows, and denied as soon as it shares one topic name with a rule that denies. Both are judged level by
 * level, and never too generously: of "#" and "+/#", which match the same names, only the first is inside of
 * the other's kind. */
#ifndef TG_SESSION_ACL_H
#define TG_SESSION_ACL_H

#include "core/buf.h"

#include <stdatomic.h>

enum access_op {
    ACL_PUBLISH,
    ACL_SUBSCRIBE, /* live messages, and what is retained */
    ACL_HISTORY, /* reading the past: history, get, a subscription that begins elsewhere than live */
    ACL_PRESENCE, /* who else is there */
    ACL_OP_COUNT
};
enum { ACL_ANY_OP = (1 << ACL_OP_COUNT) - 1 };

enum acl_who { ACL_EVERYBODY, ACL_ANONYMOUS, ACL_USERS /* whoever is not anonymous */, ACL_USER };

struct acl_rule {
    enum acl_who who;
    struct slice user; /* ACL_USER */
    bool denies;
    uint8_t ops; /* bits 1 << enum access_op */
    struct slice topic; /* a filter, with %u and %c */
};

/* Who asks. */
struct acl_asker {
    struct slice user; /* "" = anonymous */
    struct slice encoded_user; /* as in topics */
    struct slice client_id; /* as the client has sent it; "" = it has none */
};

struct acl;

/* Copies. ST_INVALID: a topic that is no filter (acl_topic_valid). ST_NO_MEMORY. */
enum status acl_create(const struct acl_rule *rules, size_t count, struct acl **out) MUST_CHECK;
bool acl_equal(const struct acl *a, const struct acl *b); /* the same rules in the same order; NULL is none */
struct acl *acl_ref(struct acl *a); /* NULL is allowed */
void acl_unref(struct acl *a); /* NULL is allowed */

/* `topic`: a valid topic name or filter. */
bool acl_denies(const struct acl *a, const struct acl_asker *who, enum access_op op, struct slice topic);
bool acl_allows(const struct acl *a, const struct acl_asker *who, enum access_op op, struct slice topic);

/* Appends `topic` with %u and %c replaced. ST_NOT_FOUND: nobody stands for one of them, or it would begin
 * with
 * `$` only then; part of it may have been added. */
enum status acl_topic_put(struct slice topic, const struct acl_asker *who, struct buf *out) MUST_CHECK;
/* Could it be a rule's topic: a filter once %u and %c are replaced, and below $ only $user/ and $SYS? */
bool acl_topic_valid(struct slice topic);

/* Every name that `inner` matches is matched by `outer` (may say no where that is so; see above). */
bool filter_covers(struct slice outer, struct slice inner);
/* There may be a name that both match. Never wrong when it says no. */
bool filter_meets(struct slice a, struct slice b);

#endif
