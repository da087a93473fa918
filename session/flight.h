/* Messages in flight to one receiver, by packet identifier (MQTT 5.0, 2.2.1, 4.3 and 4.9): sent, or about to
 * be, and not finished. Identifiers are given in ascending order (1 to 65,535, then 1 again), so the state is
 * a range with a place for each identifier in it, and the order of the range is the order of sending. It
 * takes memory only while something is in flight. Owning loop only. */
#ifndef TG_SESSION_FLIGHT_H
#define TG_SESSION_FLIGHT_H

#include "core/msg.h"

enum flight_state {
    FLIGHT_NONE, /* the identifier is free */
    FLIGHT_HELD, /* waits to be sent: who gets what must be durable first */
    FLIGHT_SENT, /* PUBLISH is out: PUBACK or PUBREC ends that */
    FLIGHT_RECEIVED, /* QoS 2: PUBREC has come; PUBREL waits until that is durable */
    FLIGHT_RELEASED, /* QoS 2: PUBREL is out: PUBCOMP ends it */
    FLIGHT_OWED, /* PUBLISH was out on an earlier connection, and is to be sent again on this one */
};

enum {
    FLIGHT_RETAIN = 1, /* RETAIN of the packet */
    FLIGHT_UNSTORED = 2, /* the message is not in the log: it cannot be had again */
    FLIGHT_COVERED = 4, /* the owner's: the record that is being written knows of its state */
    FLIGHT_INBOX = 8, /* the owner's: its end moves the cursor of an inbox */
    FLIGHT_SHARED = 16, /* the owner's: of a shared subscription, `group` says which */
    FLIGHT_TAKING = 32, /* the owner's: its group is being told that it is the session's (hub.h) */
};

struct flight {
    uint64_t offset; /* where the message is */
    struct msg *msg; /* one reference; FLIGHT_HELD only */
    struct share_ticket *ticket; /* the owner's: of a shared subscription (hub.h, hub_settle) */
    uint64_t group; /* FLIGHT_SHARED: hash64_stable of its filter */
    uint32_t subscription_id;
    uint16_t lane;
    uint8_t qos; /* 1, 2 */
    uint8_t state; /* enum flight_state */
    uint8_t flags;
    bool open; /* counts against `max` */
};

struct flights {
    uint16_t max; /* that may be open at a time: 1 to 65,535 */
    uint16_t count; /* in flight */
    uint16_t open; /* of these sent on this connection, or about to be */
    uint16_t oldest,
        next; /* identifiers oldest .. next-1 (cyclic) have been given and the oldest is in flight */
    uint16_t span; /* how many that are */
    struct flight *ring; /* cyclic over `cap` by identifier */
    uint32_t cap; /* power of two */
};

void flights_init(struct flights *f, uint16_t max);
void flights_deinit(struct flights *f);

/* The next identifier, its place zeroed but for `open` and state FLIGHT_SENT. ST_AGAIN: `max` are open (or
 * the oldest has not been finished for so long that the range is used up). The place is good until the next
 * take. */
enum status flights_take(struct flights *f, uint16_t *id, struct flight **out) MUST_CHECK;
static inline bool flights_full(const struct flights *f)
{
    return f->open >= f->max;
}
/* NULL: that identifier is not in flight. */
struct flight *flights_find(const struct flights *f, uint16_t id);
void flights_end(struct flights *f, uint16_t id); /* it is in flight */

/* One that an earlier connection has left, in the order of sending; before any take. ST_INVALID: the
 * identifier is 0, or does not come behind the ones before. ST_NO_MEMORY. */
enum status flights_restore(struct flights *f, uint16_t id, const struct flight *flight) MUST_CHECK;
/* It is sent on this connection from now on. */
void flights_reopen(struct flights *f, struct flight *flight);

/* In the order of sending; *place starts at 0. NULL at the end. */
struct flight *flights_next(const struct flights *f, uint32_t *place, uint16_t *id);
/* The first behind *id, also when that has ended since (0: the first of all); *id is set to its identifier.
 */
struct flight *flights_behind(const struct flights *f, uint16_t *id);

#endif
