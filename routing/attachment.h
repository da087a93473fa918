/* Which attachment wrote a session record. A session's state is a keyed record at `$session/<name>`: an
 * internal message with RETAIN whose key is the number of the attachment it belongs to, 16 hexadecimal
 * digits. Each attachment has a greater number than the one before, so that what an older one still writes is
 * known and refused (ARCHITECTURE.md 4). Pure, any thread. */
#ifndef TG_ROUTING_ATTACHMENT_H
#define TG_ROUTING_ATTACHMENT_H

#include "core/slice.h"
#include "core/status.h"

enum { ATTACHMENT_BYTES = 16 };

void attachment_write(uint64_t attachment, char out[ATTACHMENT_BYTES]); /* no NUL */
enum status attachment_read(struct slice key, uint64_t *out) MUST_CHECK; /* ST_INVALID */

/* A topic of session records. */
static inline bool topic_session(struct slice topic)
{
    static const char prefix[] = "$session/";
    return slice_starts_with(topic, slice_of(prefix, sizeof prefix - 1));
}

/* Records of the node itself: those, cursors of inboxes (inbox_record.h), revocations
 * (gateway/auth/revocations.h), groups that are kept and starts and ends of nodes (proposal.h). Places and
 * facts of this log, no messages. */
static inline bool topic_own(struct slice topic)
{
    static const char revoked[] = "$revoked/", inbox[] = "$inbox/", group[] = "$group/", node[] = "$node/";
    return topic_session(topic) || slice_starts_with(topic, slice_of(revoked, sizeof revoked - 1)) ||
           slice_starts_with(topic, slice_of(inbox, sizeof inbox - 1)) ||
           slice_starts_with(topic, slice_of(group, sizeof group - 1)) ||
           slice_starts_with(topic, slice_of(node, sizeof node - 1));
}

#endif
