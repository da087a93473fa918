/* Topic names and topic filters (MQTT 5.0, 4.7), the same at every door. Pure functions, any thread. */
#ifndef TG_ROUTING_TOPIC_H
#define TG_ROUTING_TOPIC_H

#include "core/slice.h"

struct topic_limits {
    uint32_t bytes_max; /* default 1,024; at most 65,535 */
    uint32_t levels_max; /* default 32 */
};

/* A topic name: 1 to bytes_max bytes of UTF-8 without U+0000, no '+' or '#', at most levels_max levels. */
bool topic_name_valid(struct slice name, const struct topic_limits *limits);
/* A topic filter: as above, but '+' alone in its level and '#' alone in the last level. */
bool topic_filter_valid(struct slice filter, const struct topic_limits *limits);
bool topic_filter_literal(struct slice filter); /* no wildcard: matches one topic name */

/* MQTT 5.0, 4.7.1 and 4.7.2: '#' matches the parent level too; a filter that begins with a wildcard
 * never matches a name that begins with '$'. Both valid. */
bool topic_matches(struct slice filter, struct slice name);

/* Takes the first level (which may be empty) off `rest`; false when none is left. "a/" has two levels.
 * Works on names and filters; afterwards rest->data is NULL once the last level has been taken. */
static inline bool topic_level_next(struct slice *rest, struct slice *level)
{
    if (!rest->data)
        return false;
    const uint8_t *slash = rest->len > 0 ? memchr(rest->data, '/', rest->len) : NULL;
    if (!slash) {
        *level = *rest;
        *rest = (struct slice){NULL, 0};
        return true;
    }
    *level = slice_of(rest->data, (size_t)(slash - rest->data));
    *rest = slice_from(*rest, level->len + 1);
    return true;
}

/* The name begins with '$'. */
static inline bool topic_internal(struct slice name)
{
    return name.len > 0 && name.data[0] == '$';
}
/* A name or filter of what the node says of itself, $SYS/... */
static inline bool topic_system(struct slice name)
{
    return slice_starts_with(name, slice_cstr("$SYS/"));
}
/* "$user/<id>" or "$user/<id>/...": the user id as written in the topic (percent-encoded). */
bool topic_user(struct slice name, struct slice *user);

/* "$share/<name>/<filter>" (MQTT 5.0, 4.8.2): its filter, which is not looked at. False: the name is empty or
 * has a wildcard, or no filter follows. */
bool topic_share_filter(struct slice text, struct slice *filter);

/* A name or filter within one inbox: its `$user/<id>`. */
bool topic_inbox_filter(struct slice filter, struct slice *inbox);
/* "$inbox/<id>": the record of an inbox's cursor (routing/inbox.h), the node's own. */
bool topic_inbox_record(struct slice name);

/* What decides the partition: the user id of $user/<id>[/...] and of $inbox/<id>, else the whole name. */
unsigned topic_partition(struct slice name, unsigned partition_count);
/* True: all that matches the filter lies in one partition: it is literal, or of one user's inbox. */
bool topic_filter_partition(struct slice filter, unsigned partition_count, unsigned *partition);

#endif
