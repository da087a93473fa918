/* One message that is to be published, as a JSON object (PROTOCOL.md 2, batches): {"topic", "data" | "text" |
 * "b64", "key", "type", "ttl_ms", "retain", "producer", "seq", "idempotency_key"}. `null` is as good as
 * absent, but for `data`; unknown members are refused. Pure, any thread. */
#ifndef TG_GATEWAY_PUBLISH_ITEM_H
#define TG_GATEWAY_PUBLISH_ITEM_H

#include "core/buf.h"
#include "core/msg.h"
#include "routing/once_id.h"

enum { ITEM_TYPE_BYTES_MAX = 1024 };

struct publish_item {
    /* NULL, or a code of PROTOCOL.md 1 and a sentence: it cannot be published. The rest of the struct is then
     * not to be used. */
    const char *refused, *detail;
    struct slice topic; /* present; not checked as a topic name */
    struct slice payload; /* JSON as written; text and binary decoded */
    enum content_class content;
    bool has_payload;
    struct slice key, type;
    struct slice producer; /* has_sequence with it, and not without it */
    bool has_sequence;
    uint64_t sequence;
    struct slice once_key; /* Idempotency-Key; data NULL: none. Never together with a producer */
    struct slice user_props; /* PROP_USER properties, encoded */
    bool retain;
    uint64_t ttl_ms; /* 0: for ever */
};

/* Slices point into `object` or `texts`, which is cleared first and must have a limit of at least twice the
 * object's length. ST_OK: `out` is filled (see `refused`; also for what is no JSON object). ST_NO_MEMORY. */
enum status publish_item_parse(struct slice object, struct buf *texts, struct publish_item *out) MUST_CHECK;

enum { ITEM_PROPS_BYTES_MAX = PROP_HEAD_BYTES + ITEM_TYPE_BYTES_MAX + ONCE_PROP_BYTES_MAX };
/* The message's properties: its content type and what makes it the same one when it comes again. At most
 * ITEM_PROPS_BYTES_MAX bytes; returns their number. `type` fits. */
size_t publish_item_props(const struct publish_item *item, struct slice principal, uint8_t *out);
/* The other fields that a message has of it. Once it is created: `content`, `qos`, `flags`, `expires_ms`. */
void publish_item_mark(const struct publish_item *item, uint64_t wall_ms, struct msg *m);

#endif
