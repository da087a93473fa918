/* What one bridge is to do: its item of `bridges` and those of `bridge_topics` that name it, as a copy, so
 * that it goes on while the configuration is read again. Immutable; any thread. */
#ifndef TG_GATEWAY_BRIDGE_PLAN_H
#define TG_GATEWAY_BRIDGE_PLAN_H

#include "gateway/settings.h"

struct bridge_plan {
    struct bridge_settings bridge;
    struct bridge_topic_settings *topics;
    size_t topic_count;
};

/* `index`: of the item in s->bridges. */
enum status bridge_plan_create(const struct settings *s, size_t index, struct bridge_plan **out) MUST_CHECK;
void bridge_plan_destroy(struct bridge_plan *p); /* NULL is allowed */
bool bridge_plan_equal(const struct bridge_plan *a, const struct bridge_plan *b);

/* Has it an item like this one, of that direction (sends or takes), so that a filter of `t` is one of its
 * own?
 */
bool bridge_plan_sends(const struct bridge_plan *p, const struct bridge_topic_settings *t);
bool bridge_plan_takes(const struct bridge_plan *p, const struct bridge_topic_settings *t);
/* Do both have the same session at the same remote? */
bool bridge_plan_same_session(const struct bridge_plan *a, const struct bridge_plan *b);

#endif
