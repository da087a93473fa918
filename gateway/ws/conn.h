/* Inside gateway/ws/: one connection of the public port, and the door that owns it. Owning loop only.
 *
 *   front.c, head.c, http.c  what comes before: HTTP; door.c: the handshake, by libwebsockets
 *   conn.c                   life of a connection: taking over, closing, ping, stall
 *   input.c, output.c        its socket: frames in, queue out
 *   serve.c                  the protocol: lines, requests; subscribe.c, ack.c, publish.c, page.c: operations
 *   resume.c, keep.c         hello, and the session that outlives the connection
 */
#ifndef TG_GATEWAY_WS_CONN_H
#define TG_GATEWAY_WS_CONN_H

#include "gateway/drain.h"
#include "gateway/edge.h"
#include "gateway/outq.h"
#include "gateway/ws/flow.h"
#include "gateway/ws/frame.h"
#include "gateway/ws/reply.h"
#include "gateway/ws/token.h"
#include "session/access_cache.h"
#include "session/principal.h"

struct bucket_place;
struct lws;
struct opening;
struct feed;
struct feed_opening;
struct inbox;
struct files;
struct host;
struct front;
struct tls_port;

enum {
    CONN_READ_BYTES = 64 * 1024, /* one recv; shared by all connections of a loop */
    CONN_READS_OPEN_MAX = 8, /* pages of history under way a connection */
    CONN_BAD_LINES_MAX = 10, /* PROTOCOL.md 1: the tenth closes */
    CONN_ENVELOPE_BYTES = 16 * 1024, /* what a message may be larger than its payload's limit */
    CONN_CLOSE_WAIT_MS = 5000, /* for the peer's close frame, or for its reading ours */
};

/* Why a connection ended; each has its counter. */
enum conn_end {
    END_CLIENT,
    END_PROTOCOL,
    END_TIMEOUT,
    END_LIMIT,
    END_SERVER,
    END_NETWORK,
    END_EXPIRED,
    END_REVOKED,
};

enum conn_state {
    CONN_HTTP, /* the front has the socket */
    CONN_FRESH, /* 101 is out; ours from the end of the turn on */
    CONN_OPEN,
    CONN_CLOSING, /* our close frame is queued; nothing but that goes out any more */
    CONN_FEED, /* /sse, /poll: the feed has the socket */
    CONN_DEAD, /* no socket; only publishes and reads under way still point here */
};

struct web_door {
    struct edge *edge;
    struct loop *loop;
    struct hub *hub;
    struct metrics *metrics;
    const struct settings *settings;
    struct host *host;
    struct acceptor *acceptor;
    struct tls_port *tls; /* NULL: none */
    struct files *files;
    struct loop_hook hook;
    struct auth_watcher watcher; /* of revocations */
    struct list conns; /* all with a socket */
    struct list buried; /* those without one to which publishes and reads under way still point */
    struct list fronts; /* front.turn: those with requests for the next turn */
    struct list unpaired; /* front.paired: those that wait for a socket pair, or cannot go on */
    unsigned pair_count; /* in use */
    struct list fresh;
    struct list dirty; /* outq.dirty: something to send, or to resume */
    struct list feeds_turn; /* feed.turn: the same of feeds (feed.h) */
    uint64_t drain_spread_ms; /* over which clients that are told to go are to come back */
    uint64_t problems; /* errors answered by HTTP so far: the next one's number */
    uint32_t epoch;
    uint32_t message_bytes_max; /* of a WebSocket message */
    struct buf scratch; /* encoders; empty between calls */
    struct buf texts; /* decoded strings of the request in hand */
    uint8_t *input; /* CONN_READ_BYTES */
};

/* It takes no clients any more: requests are answered 503, and the connection ends behind them. */
static inline bool web_door_leaves(const struct web_door *d)
{
    return d->drain_spread_ms > 0 || atomic_load(&d->edge->facts->stopping);
}

/* When a client that is sent away is to come again. `seed`: another for each. */
static inline uint32_t web_door_retry_ms(const struct web_door *d, uint64_t seed)
{
    return drain_retry_ms(d->drain_spread_ms > 0 ? d->drain_spread_ms : DRAIN_SPREAD_MS, seed);
}

enum conn_credential {
    CREDENTIAL_OF_NOBODY,
    CREDENTIAL_OF_TOKEN,
    CREDENTIAL_OF_TICKET,
    CREDENTIAL_OF_PASSWORD, /* "user:password" */
};

struct conn {
    struct web_door *door;
    struct lws *wsi; /* NULL: libwebsockets has nothing of it */
    struct front *front; /* while it speaks HTTP */
    enum conn_state state;
    enum conn_end end; /* CONN_CLOSING: why */
    bool watched; /* our loop watches the descriptor */
    bool blocked; /* the socket took not all: wait for EPOLLOUT */
    bool paused; /* reading rests: publishes, reads or output wait */
    bool draining; /* told to go: nothing is read any more; it ends when all it asked for is answered */
    bool starved; /* a delivery found no room: session_room is owed */
    bool lines_ready; /* `message` is whole and waits to be handled */
    bool peer_closed; /* its close frame is here */
    bool deaf; /* what comes in is thrown away: we have lost the frames' boundaries */
    bool shut; /* our side of the socket is shut down */
    bool broken; /* no memory for what it must get: dies at the end of the turn */
    uint8_t bad_lines;
    uint32_t refs; /* socket, publishes, reads */
    uint32_t publish_open, reads_open;
    uint32_t waiting_bytes; /* of this queue in M_OUT_QUEUE_BYTES */
    uint64_t cut_bytes; /* from the front of the queue to the end of the frame that is half sent */
    struct list link; /* door->conns, then door->buried */
    struct list turn; /* door->fresh */
    struct stream io; /* fd -1: the front has it */
    struct loop_watch watch; /* of io.fd */
    struct timer timer;
    struct outq out;
    struct ws_reader reader;
    struct buf message; /* a message in pieces, or its lines not yet handled */
    size_t lines_done; /* bytes of `message` that have been handled */
    struct buf unread; /* input that came in the read in which reading was paused */
    struct session *session;
    struct principal *principal; /* never NULL */
    struct access_cache *access; /* of `principal`; NULL until it is needed */
    struct bucket_place *address_place, *user_place; /* at the gate; may be NULL */
    struct auth_check *check; /* a token is being judged: reading rests, its line is kept */
    bool judged; /* it was: `verdict`, and `named` when AUTH_OK, wait for the line to be handled again */
    enum auth_verdict verdict;
    struct principal *named;
    struct buf credential; /* of the request that opened it (credential.h), until it is judged */
    enum conn_credential credential_kind;
    bool nameless; /* anonymous where that is not offered: only a hello with a token is heard */
    bool spoke; /* it has made a request; one that never does is closed */
    struct flow flow;
    char token[TOKEN_BYTES + 1]; /* of the session; empty before hello */
    struct keeper *keeper; /* of its record; NULL: nothing durable is wanted yet */
    struct inbox *inbox; /* of its user; NULL: it has not asked for it */
    struct tally *inbox_tally; /* what is acknowledged of this moves the inbox's cursor; NULL: nothing does */
    struct opening *opening; /* hello is being answered: reading rests */
    struct list leaving; /* struct leaving: unsub requests that wait for the record */
    bool over; /* the client has ended the session: close code 1000 */
    struct list subscribing; /* struct subscribing: sub requests not yet answered */
    uint64_t opened_ms, last_in_ms, last_out_ms, progress_ms;
    uint64_t ping_sent_ms; /* not answered yet; 0 = none */
    uint64_t read_ns; /* when the bytes in hand came, for latency figures */
    bool speaks_mqtt; /* /mqtt: handed over to the MQTT door when the 101 is out */
    struct feed_opening *opening_feed; /* CONN_HTTP: becomes a feed at the end of the turn */
    struct feed *feed; /* CONN_FEED */
};

/* --- conn.c: life, closing, time ---------------------------------------------------------------- */

struct conn *conn_create(struct web_door *d); /* NULL: no memory. State CONN_HTTP, timer armed */
void conn_ref(struct conn *c);
void conn_unref(struct conn *c);
void conn_free(struct conn *c); /* whatever still points to it: the loop has ended */
static inline uint64_t conn_now(const struct conn *c)
{
    return loop_now_ms(c->door->loop);
}
/* Hands libwebsockets its end of a pair, with a handshake in it. `c` may be gone after it. */
void conn_adopt(struct conn *c, int fd);
/* The upgrade is done: from here on c->io is read and written by us. ST_IO, ST_NO_MEMORY. */
enum status conn_take_over(struct conn *c) MUST_CHECK;
/* Something to send, or something that paused reading has ended: look at it at the end of the turn. */
void conn_touch(struct conn *c);
/* That look. True: work has come up for the next turn. `c` may be gone after it. */
bool conn_turn_end(struct conn *c);
void conn_become(struct conn *c, struct principal *p); /* takes the reference over */
/* Drops the socket now. `c` may be gone after it. */
void conn_kill(struct conn *c, enum conn_end why);
/* libwebsockets drops it: nothing of the socket may be touched any more. */
void conn_lost(struct conn *c);
/* Says bye (code 4000 and up) and sends a close frame; the rest happens by itself. */
void conn_close(struct conn *c, uint16_t code, const char *why, enum conn_end end);
/* A drain: says goodbye (4001) when nothing is owed to the client any more. */
void conn_drain(struct conn *c);
/* The close frame is queued. */
void conn_enter_closing(struct conn *c, enum conn_end end);

/* --- output.c ----------------------------------------------------------------------------------- */

/* One object as a text message of its own. Out of memory ends the connection. */
void conn_put_text(struct conn *c, struct slice object);
/* Queues a frame that lies in the hub's scratch space. */
enum status conn_put_frame(struct conn *c, struct slice frame) MUST_CHECK;
void conn_queue(struct conn *c, enum ws_opcode opcode, struct slice payload);
void conn_queue_close(struct conn *c, uint16_t code, const char *why);
void conn_drop_queue(struct conn *c); /* but for the rest of a frame that is half sent */
void conn_break(struct conn *c); /* no memory for what it must get: ends at the end of the turn */
bool conn_flush(struct conn *c); /* false: the peer has gone */
void conn_watch(struct conn *c); /* after `paused` or `blocked` has changed */

/* --- input.c ------------------------------------------------------------------------------------ */

void conn_read(struct conn *c); /* `c` may be gone after it */
bool conn_is_full(const struct conn *c); /* no further line may be handled now */
bool conn_may_resume(const struct conn *c);
void conn_resume(struct conn *c);

/* --- serve.c, subscribe.c ----------------------------------------------------------------------- */

/* Handles lines until there are none or reading must pause; returns the bytes handled. */
size_t serve_lines(struct conn *c, struct slice text);
enum status serve_begin(struct conn *c) MUST_CHECK; /* the session. ST_NO_MEMORY */
/* What the upgrade has brought: the connection becomes whom it names, or is closed. */
void serve_credential(struct conn *c);
void serve_end(struct conn *c); /* the session and what waits for it; safe when there is none */

#endif
