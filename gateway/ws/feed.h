/* Inside gateway/ws/: a GET that is answered by messages: /sse, which goes on for ever, and /poll, one page.
 *
 *   http.c           the whole request -> feed_request; nothing is answered yet
 *   door.c           at the end of the turn the socket becomes a feed's, as a WebSocket's does (conn.h)
 *   feed.c           its life: who it is, subscribing, output, time, the end
 *   feed_deliver.c   messages (transport.h), events and bookmarks; the page of a poll
 *
 * A feed has a session of the hub like any connection: a slow reader becomes a cursor in the log. Owning loop
 * only. */
#ifndef TG_GATEWAY_WS_FEED_H
#define TG_GATEWAY_WS_FEED_H

#include "gateway/auth/auth.h"
#include "gateway/request_id.h"
#include "gateway/ws/conn.h"
#include "gateway/ws/feed_request.h"

enum { FEED_ORIGIN_BYTES = 256 };

/* What http.c has found; the connection's until the feed takes it over. */
struct feed_opening {
    struct feed_request request;
    bool nameless; /* anonymous where that is not offered */
    char request_id[REQUEST_ID_BYTES];
    size_t origin_len;
    char origin[FEED_ORIGIN_BYTES]; /* permitted; empty: the request has none */
};

enum feed_state {
    FEED_JUDGING, /* its credential is being looked at */
    FEED_SUBSCRIBING, /* not all subscriptions are in place: there is no answer yet */
    FEED_OPEN, /* the head is out */
    FEED_ENDING, /* the rest goes out, then our half is shut; waits for the peer's end */
};

struct feed {
    struct web_door *door;
    struct conn *conn; /* whose socket it is; it owns the feed */
    struct list turn; /* door->feeds_turn: something to do at the end of the turn */
    struct feed_opening *opening;
    enum feed_state state;
    struct loop_watch watch;
    struct outq out;
    struct timer timer;
    struct auth_check *check;
    struct principal *principal;
    struct session *session;
    bool blocked; /* the socket took not all */
    bool starved; /* a delivery found no room: session_room is owed */
    bool broken; /* no memory for what it must get */
    bool shut;
    enum conn_end end; /* FEED_ENDING: as what it counts */
    bool finished; /* poll: the page is to be answered at the end of the turn */
    bool moved; /* sse: messages have gone out since the last bookmark */
    unsigned placed, live; /* subscriptions that are in place; that are live */
    uint32_t waiting_bytes; /* of this queue in M_OUT_QUEUE_BYTES */
    struct place at; /* where "now" was */
    uint32_t count; /* poll: messages in `page` */
    struct buf page;
    struct buf gaps; /* poll: objects with commas between them */
    bool stranger; /* `from` is a position of another epoch */
    uint64_t id_hash; /* of the newest bookmark */
    uint64_t last_out_ms, progress_ms, id_ms, deadline_ms;
};

/* Makes c->feed of c->opening_feed: from here on c->io is read and written by it. ST_NO_MEMORY, ST_IO.
 */
enum status feed_open(struct conn *c) MUST_CHECK;
/* The connection ends: all but the descriptor. For conn.c. NULL is allowed. */
enum metric feed_disconnects(const struct feed *f); /* the block of its door; NULL is allowed */
void feed_close(struct feed *f);
/* At the end of the turn. True: work has come up for the next one. `f` may be gone after it. */
bool feed_turn_end(struct feed *f);
void feed_touch(struct feed *f);
/* Says why and ends: `bye` of an event stream, an error of what has not been answered. `f` may not be used.
 */
void feed_goodbye(struct feed *f, uint16_t code, const char *why);

/* --- feed_deliver.c --- */
/* The session and its subscriptions. Answered, when it cannot be. */
void feed_subscribe(struct feed *f);
/* An error instead of the answer; it ends. */
void feed_refuse(struct feed *f, int status, const char *code, const char *detail, uint32_t retry_ms);
/* Whether its principal may still have all that it was given. */
bool feed_permitted(const struct feed *f);
/* An id-only block, when there is a place to tell of. */
void feed_put_bookmark(struct feed *f);
void feed_answer_page(struct feed *f);
/* Head of the answer; `more`: further fields, each with its CRLF. */
void feed_head(struct feed *f, int status, const char *type, const char *more);
void feed_put_bye(struct feed *f, uint16_t code, const char *why);
/* Queues a copy. */
void feed_put(struct feed *f, struct slice bytes);

#endif
