/* Inside gateway/ws/: the time in which a connection of the public port speaks HTTP.
 *
 *   peer <--stream--> [ front ] <--socket pair--> libwebsockets
 *
 * The front reads whole request heads (head.h), one after the other, and sends the answers that http.c makes.
 * libwebsockets hears of a connection only when it is to become a WebSocket: it gets a handshake that is
 * ours, of which all that a peer has said in it has been checked, and answers 101. Then the stream is taken
 * out of the front, and is as any other. */
#ifndef TG_GATEWAY_WS_FRONT_H
#define TG_GATEWAY_WS_FRONT_H

#include "gateway/request_id.h"
#include "gateway/ws/conn.h"
#include "gateway/ws/head.h"

enum front_state {
    FRONT_READS, /* requests, and sends their answers; what follows is read when an answer is out */
    FRONT_WAITS, /* for a pair: all are in use */
    FRONT_UPGRADES, /* libwebsockets has the handshake */
    FRONT_OPENS, /* it becomes a feed at the end of the turn */
    FRONT_LINGERS, /* the last answer is out and our half is shut; waits for the peer's end, or a second */
};

struct front {
    struct web_door *door;
    struct conn *conn; /* whose it is */
    enum front_state state;
    bool last; /* nothing is read behind the request in hand */
    bool early; /* there were bytes behind an upgrade */
    struct stream io;
    struct loop_watch watch; /* of io */
    struct loop_watch inner; /* our end of the pair; fd -1: there is none */
    struct buf input; /* what has been read and not handled */
    size_t scanned; /* of it, by web_head_read */
    uint64_t skip_bytes; /* of a body that nobody wants */
    const struct web_head *request; /* in hand; NULL: none */
    char request_id[REQUEST_ID_BYTES];
    struct outq out;
    struct slice file; /* static bytes, behind `out` */
    struct buf handshake; /* FRONT_WAITS */
    struct list paired; /* door->paired, or door->unpaired */
    struct list turn; /* door->fronts: more requests are here than one turn handles */
};

/* Takes the stream over and becomes c->front. ST_NO_MEMORY, ST_IO: the stream is closed. */
enum status front_open(struct conn *c, struct stream *io) MUST_CHECK;
void front_drop(struct front *f); /* with its stream. NULL is allowed */

/* The answer to the request in hand: `text`, and behind it a file. */
void front_answer(struct front *f, struct slice text, struct slice file);
/* The request in hand is a handshake that may be answered. `protocol`: NULL, none was asked for. */
void front_upgrade(struct front *f, const char *key, const char *protocol);

/* Of a connection whose 101 has been answered, or that becomes a feed: stream and what is still to be sent go
 * to `c`, and the front is gone. True: the peer has sent frames behind its handshake (RFC 6455, 4.1 says it
 * must wait), which are lost. */
bool front_hand_over(struct conn *c);
/* libwebsockets has closed its side without a 101. */
void front_declined(struct conn *c);

/* At the end of a turn: pairs that are free again, and requests that were too many for the turn before. True:
 * there are more. */
bool front_turn_end(struct web_door *d);

#endif
