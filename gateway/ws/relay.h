/* Inside gateway/ws/: the time in which a TLS connection speaks HTTP.
 *
 *   peer <--TLS--> [ relay ] <--socket pair--> libwebsockets
 *
 * libwebsockets sees a plain connection that has one whole request head; so it needs no TLS of its own, and
 * whoever sends slowly never gets as far. A WebSocket's stream is taken out of the relay when its 101 is
 * there, and is then like any other; a page passes through it. */
#ifndef TG_GATEWAY_WS_RELAY_H
#define TG_GATEWAY_WS_RELAY_H

#include "gateway/ws/conn.h"

/* Takes the stream over and becomes c->relay. ST_NO_MEMORY, ST_IO: the stream is closed. */
enum status relay_open(struct conn *c, struct stream *io) MUST_CHECK;

/* Of a connection whose 101 has been answered: stream and what is still to be sent go to `c`, and the relay
 * and libwebsockets' side are gone. True: the peer has sent frames behind its request (RFC 6455, 4.1 says it
 * must wait), which are lost. */
bool relay_hand_over(struct conn *c);

/* libwebsockets has answered and closed: what it has said still goes out. c->relay is NULL after it. */
void relay_orphan(struct conn *c);
void relay_drop(struct relay *r); /* now. NULL is allowed */
void relay_drop_all(struct web_door *d);

#endif
