/* What a record says of its own proposing, where the order of records is given elsewhere (docs/CLUSTER.md):
 * who proposed it, and on what it was based. A property of the message (PROP_PROPOSAL), so that it stands in
 * the log; a log that gives offsets at once has none. Pure; any thread.
 *
 *   u8 condition, u64 incarnation, u64 sequence, u64 based_on; little endian */
#ifndef TG_ROUTING_PROPOSAL_H
#define TG_ROUTING_PROPOSAL_H

#include "core/msg.h"

enum proposal_condition { /* the record is void unless .. when it comes out of the log */
                          PROPOSAL_FREE, /* nothing; but a publish with an identity (once_id.h) is void when
                                            it is known by then */
                          PROPOSAL_UPDATE, /* the newest record of its session is the one at `based_on` - 1,
                                              of the same attachment */
                          PROPOSAL_ATTACH, /* the same; 0: the session has none. And its attachment is greater
                                              than that one's */
                          PROPOSAL_INBOX, /* it moves the cursor forward */
                          /* At `$node/<name>`; these are no messages and no state of a key: */
                          PROPOSAL_START, /* its incarnation has not ended. Those before it of the node end */
                          PROPOSAL_DOWN, /* the node's incarnation `based_on` is alive. It ends */
};

struct proposal {
    enum proposal_condition condition;
    uint64_t incarnation; /* of the node, a new one each start */
    uint64_t sequence; /* of that in the lane: one more for each record that it proposes */
    uint64_t based_on;
};

/* Of a node, not of a message or a key. */
static inline bool proposal_of_node(const struct proposal *p)
{
    return p->condition == PROPOSAL_START || p->condition == PROPOSAL_DOWN;
}

enum { PROPOSAL_BYTES = 1 + 8 + 8 + 8 };

/* The message once more, with that property. ST_TOO_LARGE, ST_NO_MEMORY. */
enum status proposal_stamp(const struct msg *m, const struct proposal *p, struct msg **out) MUST_CHECK;
/* False: there is none that is well formed. */
bool proposal_read(struct slice props, struct proposal *out);

#endif
