/* Packet identifiers of QoS 2 messages that a client has published and not released yet (MQTT 5.0, 4.3.3): a
 * PUBLISH with one of them is a repetition. Pure; owning loop only. */
#ifndef TG_GATEWAY_MQTT_RECEIVED_H
#define TG_GATEWAY_MQTT_RECEIVED_H

#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

enum received_state {
    RECEIVED_NONE,
    RECEIVED_STORING, /* the message is under way to the disk; PUBREC follows */
    RECEIVED_STORED, /* PUBREC has been sent */
    RECEIVED_RELEASING, /* PUBREL has come; PUBCOMP waits until that is durable */
    RECEIVED_UNSURE, /* of an earlier connection: whether it is stored its sequence tells */
};

struct received {
    uint64_t sequence; /* under which the message was stored; 0: none is needed */
    uint16_t id;
    uint8_t state; /* enum received_state */
    bool covered; /* the owner's: the record that is being written knows of it */
};

struct received_ids {
    struct received *slots; /* open addressing; cap is a power of two, or 0 */
    uint32_t cap, count;
};

void received_deinit(struct received_ids *r);
struct received *received_find(const struct received_ids *r, uint16_t id); /* NULL: none */
/* It is not there yet; state RECEIVED_STORING. Good until the next add or remove. NULL: no memory. */
struct received *received_add(struct received_ids *r, uint16_t id);
void received_remove(struct received_ids *r, uint16_t id); /* it is there */
/* In any order; *place starts at 0. NULL at the end. */
struct received *received_next(const struct received_ids *r, uint32_t *place);

#endif
