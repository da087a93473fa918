/* What makes a publish the same one when it comes again (PROTOCOL.md 1 and 2): a producer and its sequence,
 * or an Idempotency-Key. A door writes it as a property of the message, so that it stands in the log; the
 * shard reads it. Pure; any thread. */
#ifndef TG_ROUTING_ONCE_ID_H
#define TG_ROUTING_ONCE_ID_H

#include "core/msg.h"

enum once_kind { ONCE_PRODUCER, ONCE_KEY };

enum {
    ONCE_NAME_BYTES_MAX = 255, /* of a producer or a key; at least 1 */
    ONCE_PRINCIPAL_BYTES_MAX = 1024,
    ONCE_PROP_BYTES_MAX = 3 + 8 + 2 + ONCE_PRINCIPAL_BYTES_MAX + ONCE_NAME_BYTES_MAX,
};
#define ONCE_SEQUENCE_MAX ((UINT64_C(1) << 53) - 1)

struct once_id {
    enum once_kind kind;
    struct slice principal; /* who publishes; empty: anonymous */
    struct slice name; /* the producer, or the key */
    uint64_t value; /* the sequence; of a key the digest of what was published under it */
};

/* Writes the property, its head too (core/msg.h), at most ONCE_PROP_BYTES_MAX bytes; returns its length. The
 * creator of the message also sets MSG_ONCE. */
size_t once_id_write(const struct once_id *id, uint8_t *out);
/* The identity in a message's properties. False: there is none that is well formed. */
bool once_id_read(struct slice props, struct once_id *out);

/* The digest of a key's publish: the same for the same payload, content type, message key and RETAIN, in
 * every process, for ever. */
uint64_t once_digest(struct slice payload, struct slice type, struct slice key, bool retain);

/* Is it one that a client may give: 1 to ONCE_NAME_BYTES_MAX bytes of UTF-8 without U+0000? */
bool once_name_valid(struct slice name);
/* A sequence as text: decimal, 0 to ONCE_SEQUENCE_MAX, no sign, no leading zeros. False: not such a text. */
bool once_sequence_read(struct slice text, uint64_t *out);

#endif
