/* What an MQTT client acknowledges of its user's inbox, `$user/<id>/#` as a whole, moves the inbox's cursor
 * (session/inbox.h), as WebSockets do (gateway/ws/inbox.c).
 *
 * Flights of the subscription that is followed are marked (FLIGHT_INBOX). The cursor lies at the first marked
 * one that is open, or behind the last that was acknowledged when none is. Marks are given in the order of
 * offsets, and stand in the session's record with the flights: what an earlier connection of the session has
 * sent and nobody has acknowledged holds the cursor back.
 *
 * A subscription is followed when it began at the cursor, at a place that the client has named, or with the
 * present when nothing was unread: else it would count as seen what nobody has seen. Owning loop only. */
#ifndef TG_GATEWAY_MQTT_INBOX_H
#define TG_GATEWAY_MQTT_INBOX_H

#include "gateway/mqtt/conn_private.h"
#include "session/inbox.h"

struct pending_suback;

/* A SUBSCRIBE that waits for the place where it begins (subscribe.c). */
struct mqtt_inbox_wish {
    struct pending_suback *pending; /* NULL: none */
    uint32_t index; /* of its reason */
    bool at_cursor; /* asked for; else it wants the present */
    struct subscription_options options;
};

struct mqtt_inbox {
    struct inbox *cursor;
    const struct subscription *followed; /* NULL: none */
    uint64_t next; /* behind the last marked flight that was acknowledged; 0: none was */
    uint16_t first; /* identifier of the first marked flight; 0: none is open */
    bool finding;
    struct mqtt_inbox_wish wish;
    size_t filter_len;
    uint8_t filter[]; /* `$user/<id>/#` */
};

/* Is it all of the inbox of the connection's user? */
bool mqtt_inbox_is_whole(const struct mqtt_conn *c, struct slice filter);
/* c->inbox is there afterwards. ST_NO_MEMORY. */
enum status mqtt_inbox_open(struct mqtt_conn *c) MUST_CHECK;
/* From now on what is acknowledged of this subscription of all of it moves the cursor. Without memory it does
 * not. */
void mqtt_inbox_follow(struct mqtt_conn *c, const struct subscription *sub);
/* Not any more: it ends. What is in flight of it still counts. */
void mqtt_inbox_leave(struct mqtt_conn *c, const struct subscription *sub);
static inline bool mqtt_inbox_follows(const struct mqtt_conn *c, const struct subscription *sub)
{
    return c->inbox && c->inbox->followed == sub;
}
/* A message of the followed subscription is in flight under this identifier. */
void mqtt_inbox_sent(struct mqtt_conn *c, uint16_t packet_id);
/* The flight is about to end: acknowledged, or dropped with a count. */
void mqtt_inbox_done(struct mqtt_conn *c, uint16_t packet_id, const struct flight *flight);
/* The flights of an earlier connection are there. */
void mqtt_inbox_restore(struct mqtt_conn *c);
void mqtt_inbox_end(struct mqtt_conn *c);

#endif
