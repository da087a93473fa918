/* Connections that are not taken, above limit.connections or during a drain: a client that is closed without
 * a word takes that for a broken network and comes back at once. So its CONNECT is looked at as far as its
 * version, and answered; what follows is read and thrown away, lest a reset overtakes the answer. There are
 * at most mqtt.refused_max of them, each for mqtt.connect_timeout_ms; they count nowhere else. Owning loop
 * only. */
#ifndef TG_GATEWAY_MQTT_REFUSAL_H
#define TG_GATEWAY_MQTT_REFUSAL_H

#include "gateway/mqtt/conn_private.h"

/* Takes the stream over. `reason`: of CONNACK 5.0; before it "server unavailable". */
void mqtt_refusal_open(struct mqtt_door *d, struct stream *io, uint8_t reason);
void mqtt_refusals_close(struct mqtt_door *d);

/* The protocol level of a CONNECT that begins with these bytes. ST_AGAIN: more of them are needed (never more
 * than MQTT_REFUSAL_HEAD_BYTES). ST_INVALID: it is none. Pure. */
enum { MQTT_REFUSAL_HEAD_BYTES = 14 };
enum status mqtt_refusal_level(struct slice head, uint8_t *level) MUST_CHECK;

#endif
