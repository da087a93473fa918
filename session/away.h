/* Records of sessions that no connection of this node has (keeper.h): read without a claim, and written under
 * the attachment that they have, so that nothing is overwritten which a connection has written since. Owning
 * loop only. */
#ifndef TG_SESSION_AWAY_H
#define TG_SESSION_AWAY_H

#include "session/keeper.h"

enum { AWAY_TOPIC_BYTES = 9 + KEEPER_NAME_BYTES };

/* One record. Embedded; its owner keeps it until what was asked is answered. */
struct away {
    struct hub *hub;
    char topic[AWAY_TOPIC_BYTES];
    uint64_t attachment; /* of the record that was read */
    uint64_t expires_ms; /* the same; 0: never */
    struct read read;
    /* ST_OK with the record (borrowed), or ST_NOT_FOUND. */
    void (*on_read)(struct away *a, enum status status, struct slice record);
    /* ST_OK: durable. ST_GONE: it is another attachment's now, or it is not there any more. Else a status of
     * publish.status. */
    void (*on_written)(struct away *a, enum status status);
};

void away_init(struct away *a, struct hub *h, const char name[KEEPER_NAME_BYTES]);
/* on_read follows, not inside this call. */
void away_read(struct away *a);
/* Over the record that was read; an empty one ends the session. on_written follows, not inside this call.
 * ST_NO_MEMORY: it does not. */
enum status away_write(struct away *a, struct slice record, uint64_t expires_ms) MUST_CHECK;

/* With a log that nodes share: has the node whose incarnation has this session ended? False also where this
 * loop cannot know: the session's lane is not at home on it. */
bool away_holder_ended(const struct away *a, uint64_t incarnation);

/* All records of one lane, once, in pages. */
struct away_walk {
    struct hub *hub;
    unsigned lane;
    struct read read;
    /* For each, borrowed. */
    void (*on_record)(struct away_walk *w, const char name[KEEPER_NAME_BYTES], struct slice record);
    void (*on_end)(struct away_walk *w);
    bool enough; /* set at any time: no more records, on_end follows */
};
void away_walk_start(struct away_walk *w); /* hub, lane and callbacks are set */

#endif
