/* The port through which a session speaks to its connection; each door (mqtt, ws) implements it.
 * All calls on the loop of the connection. Inside `deliver` the door must not subscribe, unsubscribe or end
 * a session (the hub is walking its tables): it marks the connection and does so at its flush. */
#ifndef TG_SESSION_TRANSPORT_H
#define TG_SESSION_TRANSPORT_H

#include "core/msg.h"
#include "routing/position.h"

struct session;
struct subscription;

/* Bytes of one message as a door frames it, made once for all receivers of that kind and handed to
 * each of them. They lie in the loop's scratch space until the turn ends (after the doors' flush). */
enum wire_kind {
    WIRE_MQTT3_QOS0,
    WIRE_MQTT5_QOS0,
    WIRE_MQTT3_QOS1,
    WIRE_MQTT5_QOS1,
    WIRE_WS, /* subscription filter == topic */
    WIRE_WS_SUB, /* with "sub": valid for one channel */
    WIRE_SSE, /* a block of an event stream */
    WIRE_KINDS
};

struct delivery {
    struct msg *msg; /* borrowed; ref to keep */
    struct slice wires[WIRE_KINDS]; /* data NULL: not made yet; made and kept by the door */
    bool retained; /* sent because of a new subscription, as the topic's retained message */
    struct share_ticket *ticket; /* of a shared subscription: a door that waits for the client's
                                    acknowledgement takes it (NULL then), and gives it to hub_settle */
    bool live; /* false: read from the log for one cursor */
};

/* Positions of a lane that a subscription will not get. */
struct gap {
    unsigned lane;
    uint64_t from, to; /* offsets, inclusive */
    uint64_t count; /* of positions, whatever topic they had; lag: of messages that match */
    const char *why; /* retention, damaged; lag: over limit.lag_messages; epoch: of a future that this log
                        does not have */
};

/* What a door knows of a connection, for people. */
enum { ADDRESS_BYTES_MAX = 64 };
struct connection_facts {
    struct slice client_id; /* MQTT */
    struct slice
        session; /* the name of what outlives the connection: of a WebSocket's, the hash of its token */
    struct slice address; /* of the peer, "127.0.0.1:50000", "[::1]:50000" */
    uint64_t queued_bytes; /* that its socket has not taken */
    uint64_t unacknowledged; /* messages */
    char texts[ADDRESS_BYTES_MAX + 64]; /* of the door, for what it has to write first */
};

struct transport_ops {
    /* Offers a message.
     *   ST_OK     it is in the connection's queue
     *   ST_AGAIN  no room; nothing was taken. The subscription becomes a cursor at this message, and the
     *             door calls session_room() when there is room again
     *   ST_NOT_FOUND  it is not for this connection (No Local); delivery goes on behind it
     *   ST_FULL   the door dropped it (QoS 0 overflow), ST_TOO_LARGE (larger than the client accepts); the
     * hub counts it, and delivery goes on behind it */
    enum status (*deliver)(void *conn, struct subscription *sub, struct delivery *d);
    /* The subscription is in place in all lanes; `at` is where "now" was; `replay` = messages that will
     * be replayed first (0 for live). Messages come only after this call. */
    void (*subscribed)(void *conn, struct subscription *sub, const struct place *at, uint64_t replay);
    /* The replay has reached the present in all lanes, at `at`. Called once, also right after subscribed
     * when there was nothing to replay. */
    void (*live)(void *conn, struct subscription *sub, const struct place *at);
    /* Not before subscribed, and before whatever is delivered from behind it. */
    void (*gap)(void *conn, struct subscription *sub, const struct gap *gap);
    /* The user of session_identify has as many connections as he may have: this one is to be closed. Not
     * inside session_identify. */
    void (*too_many)(void *conn);
    /* He has not: it is one of his connections now. Not inside session_identify. NULL: nobody waits for it.
     */
    void (*admitted)(void *conn);
    /* Fills in what it knows; the rest is empty. */
    void (*describe)(void *conn, struct connection_facts *out);
    /* An operator wants it closed. */
    void (*kick)(void *conn);
    const char *door; /* "ws", "mqtt", "sse", "poll" */
    /* What people call it, for the ledger of drops; empty: nothing. Borrowed for the call. */
    struct slice (*name)(void *conn);
};

#endif
