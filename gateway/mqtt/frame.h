/* A message as the bytes of a PUBLISH to a client, for every kind of receiver. Pure; any thread. */
#ifndef TG_GATEWAY_MQTT_FRAME_H
#define TG_GATEWAY_MQTT_FRAME_H

#include "core/msg.h"

struct frame_shape {
    uint8_t version;
    uint8_t qos;
    bool dup, retain;
    bool topic_known; /* the alias alone says it */
    uint16_t packet_id; /* with QoS 1 and 2 */
    uint16_t alias; /* 0: none */
    uint32_t subscription_id; /* 0: none */
};

struct frame_plan {
    struct frame_shape shape;
    uint64_t now_ms; /* Unix time: what is left of the expiry */
    uint32_t props_bytes, remaining_bytes;
    size_t bytes; /* of the packet */
};

/* How large it will be. False: over the protocol's size. */
bool frame_plan(const struct msg *m, const struct frame_shape *shape, uint64_t now_ms,
                struct frame_plan *out);
/* Writes plan->bytes bytes. */
void frame_write(const struct msg *m, const struct frame_plan *plan, uint8_t *out);

/* Of a frame with QoS 1 or 2 and the topic's name: writes the identifier, and the flags of the first byte. */
void frame_stamp(uint8_t *frame, const struct msg *m, const struct frame_shape *shape);

#endif
