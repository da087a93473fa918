/* Topic policies: what the configuration says of the topics that match a filter. The first that matches wins.
 *
 * A set is immutable but for its cache of topics, so each loop has its own. Owning loop only. */
#ifndef TG_ROUTING_POLICY_H
#define TG_ROUTING_POLICY_H

#include "core/msg.h"

struct topic_policy {
    struct slice filter;
    bool unstored; /* handed over to who is there, and never in the log */
    bool after_sync; /* nobody gets it before it is durable */
    uint64_t ttl_ms; /* expiry of messages without one, and the longest for all; 0 = none */
    uint64_t retention_ms; /* the past does not reach back further; 0 = as far as the log */
};

struct policies;

/* Copies the rows. With none: *out is NULL, and nothing is ever looked up. ST_NO_MEMORY. */
enum status policies_create(const struct topic_policy *rows, size_t count, struct policies **out) MUST_CHECK;
void policies_destroy(struct policies *p); /* NULL is allowed */

/* NULL: none matches. */
const struct topic_policy *policies_find(struct policies *p, struct slice topic, uint64_t topic_hash);

static inline const struct topic_policy *policy_of(struct policies *p, const struct msg *m)
{
    return p ? policies_find(p, msg_topic(m), m->topic_hash) : NULL;
}

#endif
