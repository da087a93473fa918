/* A connection's part in its user's inbox. The inbox has one cursor, which lies with its partition
 * (letters.h, INBOX) and which any connection of the user moves: when one has acknowledged everything below a
 * place, it counts as seen by the user. The cursor never goes back.
 *
 *   inbox_create -> inbox_find   where does a connection begin? -> on_found
 *                   inbox_moved  everything below has been acknowledged
 *                   inbox_close  a last word; frees itself when its letters are back
 *
 * A user who comes back gets what is not older than keep_ms and at most the newest keep_messages; what else
 * lies above the cursor is skipped, with a count. Costs a letter under way however much is acknowledged.
 * Owning loop only. */
#ifndef TG_SESSION_INBOX_H
#define TG_SESSION_INBOX_H

#include "session/hub.h"

struct inbox;

struct inbox_limits {
    uint64_t keep_ms, keep_messages; /* 0 = no end */
};

struct inbox_place {
    bool known; /* there is a cursor */
    unsigned lane;
    uint64_t cursor; /* with `known`: below it everything has been acknowledged */
    uint64_t next; /* where to begin */
    uint64_t unread; /* messages from there on; expired ones count */
    uint64_t skipped; /* messages between the cursor and `next`; where their index is gone: positions */
};

/* `inbox_id`: the user as in topics (user_encode), copied. `owner` is passed to on_found. ST_NO_MEMORY. */
enum status inbox_create(struct hub *h, const struct inbox_limits *limits, struct slice inbox_id, void *owner,
                         struct inbox **out) MUST_CHECK;
/* One at a time. on_found follows, not inside this call, unless it is closed before. ST_OK, or what a read
 * may end with. */
void inbox_find(struct inbox *i,
                void (*on_found)(void *owner, enum status status, const struct inbox_place *place));
void inbox_moved(struct inbox *i, uint64_t next, uint64_t count);
void inbox_close(struct inbox *i); /* NULL is allowed */

#endif
