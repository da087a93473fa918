/* A message: immutable, reference counted, one pooled allocation for topic, key, properties and
 * payload. Fan-out to 10,000 sessions is 10,000 deliveries and no copy.
 *
 * Life: msg_create fills it; until it is handed to a shard the creator may set the fields marked
 * (creator); the shard of its partition sets `offset` and `ts_ms`; from then on nothing changes.
 * ref/unref: any thread. */
#ifndef TG_CORE_MSG_H
#define TG_CORE_MSG_H

#include "core/slice.h"
#include "core/status.h"

#include <stdatomic.h>

/* What the payload is; decided once, at the door (PROTOCOL.md 2, "Content class"). Stored. */
enum content_class { CONTENT_BINARY = 0, CONTENT_TEXT = 1, CONTENT_JSON = 2 };

enum {
    MSG_RETAIN = 1 << 0, /* published with RETAIN */
    MSG_PFI_UTF8 = 1 << 1, /* MQTT 5.0 Payload Format Indicator 1 was given */
    MSG_TYPE_GIVEN = 1 << 2, /* the content class was declared, not guessed */
    MSG_UNSTORED = 1 << 3, /* of a topic that is not stored: it has no position. Set by the shard */
    MSG_ONCE = 1 << 4, /* PROP_PRODUCER or PROP_IDEMPOTENCY is there: the shard must look. Not stored; not set
                          in what is read from the log */
    MSG_STATE = 1 << 6, /* to be stored while messages are refused on a full disk, as long as the room that is
                           kept for it lasts. Not stored; not set in what is read from the log */
    MSG_NOTE = 1 << 5, /* no message: a note of the lane's owner (store_note), which is the payload */
};

enum {
    MSG_TOPIC_BYTES_MAX = 65535,
    MSG_KEY_BYTES_MAX = 65535,
    MSG_PROPS_BYTES_MAX = 65535,
    PROP_HEAD_BYTES = 3, /* of a property: u8 type, u16 length */
};

/* Properties are a run of {u8 type, u16 length little endian, bytes}, in the order they were given;
 * the same bytes stand in the log record (FORMAT.md). */
enum msg_prop {
    PROP_CONTENT_TYPE = 1,
    PROP_TRACE = 2, /* W3C traceparent */
    PROP_RESPONSE_TOPIC = 4, /* MQTT 5.0, 3.3.2.3.5 */
    PROP_CORRELATION = 5, /* MQTT 5.0, 3.3.2.3.6 */
    PROP_PRODUCER = 6, /* routing/once_id.h */
    PROP_USER = 8, /* {u16 name length, name, value}; repeated, order kept */
    PROP_PUBLISHER = 9, /* attested publisher */
    PROP_ORIGIN = 10, /* u64 hash64_stable of the MQTT client identifier; only if it asked for No Local */
    PROP_IDEMPOTENCY = 11, /* routing/once_id.h */
    PROP_PROPOSAL = 12, /* routing/proposal.h; only in logs whose order is given elsewhere */
};

struct msg {
    atomic_uint refs;
    uint8_t content; /* enum content_class (creator) */
    uint8_t qos; /* 0 to 2, as published (creator) */
    uint8_t flags; /* MSG_* (creator) */
    uint8_t pool_class;
    uint32_t partition; /* (creator) */
    uint16_t topic_len, key_len, props_len;
    uint32_t payload_len;
    uint64_t topic_hash; /* hash64 of the topic */
    uint64_t offset; /* in its partition; set by the shard */
    uint64_t stored; /* of the record that holds it: `offset`, or that of its newest carried copy (FORMAT.md
                        5). Changes; the shard's loop only */
    uint64_t ts_ms; /* Unix time when it was given its offset */
    uint64_t expires_ms; /* Unix time after which nobody gets it, 0 = never (creator) */
    uint64_t origin; /* connection that published it, for No Local; 0 = unknown; not stored (creator) */
    uint64_t accepted_ns; /* monotonic time of arrival, for latency figures; 0 = from the log (creator) */
    uint8_t bytes[]; /* topic, key, properties, payload */
};

/* Copies all four parts. References: 1. ST_TOO_LARGE: a part is over the maximum above or the
 * payload over UINT32_MAX. ST_NO_MEMORY. */
enum status msg_create(struct slice topic, struct slice key, struct slice props, struct slice payload,
                       struct msg **out) MUST_CHECK;

static inline struct msg *msg_ref(struct msg *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}
void msg_unref(struct msg *m); /* NULL is allowed */

static inline struct slice msg_topic(const struct msg *m)
{
    return (struct slice){m->bytes, m->topic_len};
}
static inline struct slice msg_key(const struct msg *m)
{
    return (struct slice){m->bytes + m->topic_len, m->key_len};
}
static inline struct slice msg_props(const struct msg *m)
{
    return (struct slice){m->bytes + m->topic_len + m->key_len, m->props_len};
}
static inline struct slice msg_payload(const struct msg *m)
{
    return (struct slice){m->bytes + m->topic_len + m->key_len + m->props_len, m->payload_len};
}

/* Walks properties: *place starts at 0. False at the end (or at a malformed entry, which msg_create's
 * callers and the log reader have excluded by props_valid). */
bool props_next(struct slice props, size_t *place, enum msg_prop *type, struct slice *value);
bool props_valid(struct slice props);
/* Writes a property, PROP_HEAD_BYTES and the value's; returns their number. The value has at most 65,535. */
size_t props_put(uint8_t *out, enum msg_prop type, struct slice value);
/* The first property of that type; false when there is none. */
bool props_find(struct slice props, enum msg_prop type, struct slice *value);

#endif
