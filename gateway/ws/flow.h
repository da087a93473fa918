/* How much a connection may be sent (PROTOCOL.md 1, window and credit), and which of its ack messages are not
 * acknowledged yet. Pure; owning loop only.
 *
 * The window counts messages, and bytes of their objects' text as sent (without the frame's header), of all
 * subscriptions. What an acknowledgement covers returns its share; `credit` returns or adds the rest. */
#ifndef TG_GATEWAY_WS_FLOW_H
#define TG_GATEWAY_WS_FLOW_H

#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { FLOW_NUMBER_MAX_BITS = 53 }; /* credit never exceeds 2^53-1, as no integer of the protocol does */

/* How far one ack subscription has been acknowledged, a lane. Counted: the connection's subscription holds
 * one reference, each of its unacknowledged messages another. */
struct tally {
    uint32_t refs;
    uint16_t first_lane, lane_count;
    /* Where the places come from: not known yet; of the subscription that this one replaces, until its own
     * are known; its own. */
    enum { TALLY_UNPLACED, TALLY_INHERITED, TALLY_OWN } places;
    uint64_t retained_open; /* unacknowledged messages of the walk over what is retained */
    struct tally_lane {
        uint64_t acked; /* all below is acknowledged (or was never sent) */
        uint64_t open; /* unacknowledged messages */
    } lanes[];
};
struct tally *tally_create(unsigned first_lane, unsigned lane_count); /* NULL: no memory. One reference */
void tally_unref(struct tally *t); /* NULL is allowed */
static inline struct tally_lane *tally_lane(struct tally *t, unsigned lane)
{
    return &t->lanes[lane - t->first_lane];
}
/* All below `next` has been handed over: with nothing open there, it is as good as acknowledged. Never moves
 * back. */
void tally_reached(struct tally *t, unsigned lane, uint64_t next);

/* One dimension of the window. `left` falls below 0 by a message that is larger than the whole window. */
struct flow_credit {
    bool bounded;
    int64_t left, size; /* size: the window when nothing is out */
};

struct flow {
    struct flow_credit msgs, bytes;
    uint64_t sent, acked; /* `n` of the newest ack message; all up to here are acknowledged */
    uint32_t open_max; /* sent - acked is never more */
    struct flow_entry {
        struct tally *tally;
        uint64_t offset;
        uint32_t bytes;
        uint16_t lane;
        uint8_t kind; /* enum flow_kind */
    } * ring; /* cyclic by n; only while something is open */
    uint32_t cap; /* of the ring, a power of two */
    bool waiting; /* a message found no room: the session wants to know when there may be some */
};

void flow_init(struct flow *f, uint32_t open_max);
void flow_deinit(struct flow *f); /* gives the tallies' references back */

/* hello.window. 0 is a window too: nothing comes until there is credit. */
void flow_set_msgs(struct flow *f, uint64_t msgs);
void flow_set_bytes(struct flow *f, uint64_t bytes);
static inline bool flow_bounded(const struct flow *f)
{
    return f->msgs.bounded || f->bytes.bounded;
}
/* May a message of `bytes` be sent now? */
bool flow_admits(const struct flow *f, uint64_t bytes, bool ack);
/* It is sent; it was admitted. */
void flow_spend(struct flow *f, uint64_t bytes);
/* The same of an ack message; its number is f->sent then. Takes a reference to the tally. ST_NO_MEMORY: as if
 * not called. */
enum flow_kind {
    FLOW_STORED, /* its offset is a place */
    FLOW_RETAINED, /* of the walk over what is retained */
    FLOW_UNSTORED, /* it is in no log: its offset is nobody's */
};
struct flow_sent {
    struct tally *tally;
    uint64_t offset;
    uint32_t bytes;
    unsigned lane;
    enum flow_kind kind;
};
enum status flow_spend_numbered(struct flow *f, const struct flow_sent *s) MUST_CHECK;

/* Acknowledges all up to `n`; *count = how many that were, 0 for what is acknowledged already. ST_INVALID:
 * beyond what was sent. */
enum status flow_ack(struct flow *f, uint64_t n, uint64_t *count) MUST_CHECK;
/* ST_INVALID: the window would exceed 2^53-1; nothing is added then. What is not bounded needs none. */
enum status flow_add(struct flow *f, uint64_t msgs, uint64_t bytes) MUST_CHECK;

#endif
