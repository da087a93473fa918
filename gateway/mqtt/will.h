/* Inside gateway/mqtt/: will messages, of a connection or left by one. */
#ifndef TG_GATEWAY_MQTT_WILL_H
#define TG_GATEWAY_MQTT_WILL_H

#include "gateway/mqtt/conn_private.h"
#include "gateway/mqtt/record.h"

struct mqtt_will {
    struct msg *msg;
    uint32_t expiry_s, delay_s;
    uint64_t due_ms; /* 0: its connection has not ended */
    bool expires; /* an expiry was given */
};

void mqtt_will_free(struct mqtt_will *will); /* NULL is allowed */

/* To a record, borrowed, and back. ST_NO_MEMORY, ST_TOO_LARGE. */
void mqtt_will_record(const struct mqtt_will *will, struct record_will *out);
enum status mqtt_will_read(const struct record_will *from, struct mqtt_will **out) MUST_CHECK;

/* Gives it an identity, unless its client has: the same whenever the will of this attachment of this session
 * is published, and of no other. So one that is published again, because the node went down before the record
 * told, or by two who found it due at once, is known and not stored again. Without memory it has none. */
void mqtt_will_identify(struct edge *e, struct mqtt_will *will, uint64_t session_incarnation,
                        uint64_t attachment);

/* Publishes it, durably, whatever its QoS, and swallows it. `origin`: the session that leaves it, or 0.
 * on_published frees the letter. ST_NO_MEMORY: it is lost, and counted; nothing follows. */
enum status mqtt_will_publish(struct edge *e, struct mqtt_will *will, uint64_t origin, void *owner,
                              void (*on_published)(struct publish *p)) MUST_CHECK;

#endif
