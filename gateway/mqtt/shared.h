/* Shared subscriptions of sessions that have a record (keep.h), the door's side of
 * routing/shard_share_kept.c: what a group has given is the group's until the client has acknowledged it (QoS
 * 1), or until the session's record has it and the group knows (QoS 2): only then it is sent, and waits for
 * this client alone.
 *
 *   QoS 2: HELD --the record is durable--> TAKE --the group's record is durable--> SENT
 *
 * Owning loop only. */
#ifndef TG_GATEWAY_MQTT_SHARED_H
#define TG_GATEWAY_MQTT_SHARED_H

#include "gateway/mqtt/conn_private.h"
#include "gateway/mqtt/record.h"

struct mqtt_shared_left {
    struct share_ticket *ticket;
    uint16_t lane;
};

/* The session outlives the connection (its record is not only for a will): by which name groups know it. 0:
 * it does not. */
uint64_t mqtt_shared_name(const struct mqtt_conn *c);
/* The filter that topics are compared with: access is judged by it. */
struct slice mqtt_shared_matched(struct slice filter);
/* A message that is held, of this subscription. */
void mqtt_shared_mark(struct flight *flight, const struct subscription *sub);
/* What is held and what the durable record has is told to the groups; mqtt_keep_go_on follows. */
void mqtt_shared_take(struct mqtt_conn *c, uint64_t from, uint64_t to);
/* The connection ends: nothing more comes, and the group gets back what it has not acknowledged, but what may
 * be in its record only when that is written (mqtt_shared_return). */
void mqtt_shared_leave(struct mqtt_conn *c);
void mqtt_shared_return(struct mqtt_conn *c);
/* The session of this record has ended, and had no connection. */
void mqtt_shared_release(struct mqtt_conn *c, struct slice record);
/* Start-up, after shard_fold of all lanes. */
void mqtt_shared_recall(const struct shard_map *map);

#endif
