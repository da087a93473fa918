/* Inside gateway/mqtt/: what is still to be done for sessions that no connection has.
 *
 * A will with a delay waits here, and is published when its time comes and its client has not come back. What
 * a node that was killed left behind is found at start in the sessions' records: the connections of that time
 * have ended without a word, so their wills are sent, or their delays begin, and so does the expiry of their
 * sessions. Owning loop only. */
#ifndef TG_GATEWAY_MQTT_AFTERLIFE_H
#define TG_GATEWAY_MQTT_AFTERLIFE_H

#include "gateway/mqtt/conn_private.h"
#include "session/keeper.h"

struct mqtt_afterlife;

/* With a log that nodes share every node does this for the sessions of one that has ended there (START,
 * NODE_DOWN). What they write is conditional on the record that they have read, so one begins the delay, and
 * the others wait for its end too, as the first may be lost by then. The will has an identity: of those that
 * several publish one counts. Nothing is done while this node is behind, as it would not know who is back. */
enum status afterlife_create(struct mqtt_door *d, struct mqtt_afterlife **out) MUST_CHECK; /* ST_NO_MEMORY */
/* Once, right before the loop runs: looks at the records of the lanes that are at home on it. Not in
 * afterlife_create, because the letter of a start that fails later would be freed by nobody. */
void afterlife_start(struct mqtt_afterlife *a);
/* An incarnation of another node has ended in this lane, which is at home here. Nothing follows inside. */
void afterlife_lane_lost(struct mqtt_afterlife *a, unsigned lane);
void afterlife_destroy(struct mqtt_afterlife *a); /* the loop has ended; NULL is allowed */
/* A will that is not due yet, swallowed; the session's record holds it too. */
void afterlife_add(struct mqtt_afterlife *a, const char name[KEEPER_NAME_BYTES], struct mqtt_will *will);

#endif
