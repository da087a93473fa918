/* What a bridge carries (`bridge_topics` in the configuration): which topics, under which name on the other
 * side, and what must not come back. Pure functions, any thread. */
#ifndef TG_GATEWAY_BRIDGE_TOPICS_H
#define TG_GATEWAY_BRIDGE_TOPICS_H

#include "gateway/settings.h"

/* User properties (MQTT 5.0) by which a message tells where it has been: left the node of that id by a
 * bridge, entered it by one. */
#define BRIDGE_LEFT    "tg-left"
#define BRIDGE_ENTERED "tg-entered"

/* Might one topic name match both? Both valid. */
bool bridge_filters_overlap(struct slice a, struct slice b);

/* Does the item send this topic of ours, and as what? `remote` gets the name. */
bool bridge_topic_out(const struct bridge_topic_settings *t, struct slice local, struct buf *remote);
/* Does it take this topic of the remote's, and as what? */
bool bridge_topic_in(const struct bridge_topic_settings *t, struct slice remote, struct buf *local);
static inline bool bridge_topic_sends(const struct bridge_topic_settings *t)
{
    return t->direction != BRIDGE_IN;
}
static inline bool bridge_topic_takes(const struct bridge_topic_settings *t)
{
    return t->direction != BRIDGE_OUT;
}
/* prefix + filter, appended. */
enum status bridge_topic_filter(const char *prefix, const char *filter, struct buf *out) MUST_CHECK;

/* Rules between `bridges` and `bridge_topics`. ST_INVALID with a line. */
enum status bridge_settings_check(const struct settings *s, struct buf *error) MUST_CHECK;
/* Of one row, for the option table (core/config.h). */
const char *bridge_flaw(const void *rows, size_t count);
const char *bridge_topic_flaw(const void *rows, size_t count);

#endif
