/* The durable state of an MQTT session as bytes: what stands in its record (`$session/<name>`, FORMAT.md).
 * Version 2 of session records; version 1 is a WebSocket's (session/record.h). Pure, any thread.
 *
 *   u8  version 2
 *   u32 log epoch of the places, u16 lanes of the log
 *   u64 incarnation of the node whose connection has the session, 0: none has
 *   u64 incarnation of the session, u64 releases (QoS 2 from the client, gateway/mqtt/keep.h)
 *   u32 session expiry in seconds, 0xFFFFFFFF: never
 *   u64 Unix ms at which it has expired, 0: a connection has it, or never
 *   u16 length, client identifier
 *   u8  flags: 1 = has a will, 2 = its last connection ended with its node
 *   a will:
 *     u32 delay in seconds, u64 Unix ms at which it is due (0: the connection has not ended)
 *     u8 has an expiry, u32 expiry in seconds, u8 QoS, u8 content class, u8 message flags
 *     u16 topic length, u16 key length, u16 properties length, u32 payload length, the four
 *   u16 count of QoS 2 messages from the client that are not released, each
 *     u16 packet identifier, u8 stored: 1, perhaps: 0, u64 sequence
 *   u16 count of messages in flight to it, in the order of sending, each
 *     u16 packet identifier, u8 QoS, u8 state (session/flight.h), u8 flags, u16 lane, u64 offset
 *     u32 subscription identifier
 *     with flag 16, of a shared subscription: u64 stable hash of its filter
 *   a run of filters, each
 *     u8 options: QoS, 4 = no local, 8 = retain as published, 16 = walks over retained messages,
 *        32 = moves the cursor of its user's inbox
 *     u32 subscription identifier, u16 length, filter
 *     u64 next offset of each lane the filter has messages in
 *     with 16: u64 place of the walk in each of these lanes, all ones: it has ended
 *
 * Little endian. */
#ifndef TG_GATEWAY_MQTT_RECORD_H
#define TG_GATEWAY_MQTT_RECORD_H

#include "core/buf.h"
#include "core/msg.h"
#include "gateway/mqtt/received.h"
#include "routing/position.h"
#include "session/flight.h"

#define RECORD_NEVER UINT32_MAX
/* A record with a will that is not due yet outlives its session by this: who publishes it finds it. */
enum { RECORD_WILL_GRACE_MS = 3600 * 1000 };

struct record_will {
    uint32_t delay_s, expiry_s;
    uint64_t due_ms; /* 0: the connection has not ended */
    bool expires;
    uint8_t qos, content, flags;
    struct slice topic, key, props, payload;
};

struct record_head {
    uint32_t epoch;
    unsigned lanes;
    uint64_t node_incarnation, session_incarnation, releases;
    uint32_t expiry_s;
    uint64_t expires_ms; /* 0: a connection has it, or never */
    struct slice client_id;
    bool unclean; /* its last connection ended with its node */
    bool has_will;
    struct record_will will;
};

struct record_subscription {
    uint8_t qos;
    bool no_local, retain_as_published, walking, inbox;
    uint32_t subscription_id;
    struct slice filter; /* a valid filter when it was written; whoever reads checks it again */
    unsigned first_lane, lane_count;
    struct place next, walk; /* of these lanes; walk: with `walking` */
};

/* Each adds whole or not at all. ST_FULL: over the buffer's limit. ST_NO_MEMORY. */
enum status mqtt_record_begin(struct buf *out, const struct record_head *head) MUST_CHECK;
/* After the head, in this order, each once. */
enum status mqtt_record_put_received(struct buf *out, const struct received_ids *ids) MUST_CHECK;
/* But for those with QoS 1 of a shared subscription, which are the group's. */
enum status mqtt_record_put_flights(struct buf *out, const struct flights *flights) MUST_CHECK;
enum status mqtt_record_put_subscription(struct buf *out, const struct record_subscription *s) MUST_CHECK;

/* Reading. All slices point into `bytes`. */
struct record_reader {
    struct slice rest;
    unsigned lanes;
    uint32_t left; /* of the part that is being read */
};
/* ST_INVALID: not such bytes. */
enum status mqtt_record_open(struct slice bytes, struct record_reader *r, struct record_head *out) MUST_CHECK;
/* The parts in their order, each to its end: ST_NOT_FOUND. ST_INVALID. */
enum status mqtt_record_next_received(struct record_reader *r, struct received *out) MUST_CHECK;
enum status mqtt_record_next_flight(struct record_reader *r, uint16_t *id, struct flight *out) MUST_CHECK;
enum status mqtt_record_next_subscription(struct record_reader *r,
                                          struct record_subscription *out) MUST_CHECK;

/* Is all of it well formed, of this epoch and number of lanes? `filters`: where the filters begin. */
bool mqtt_record_valid(struct slice bytes, uint32_t epoch, unsigned lanes, struct slice *filters);

#endif
