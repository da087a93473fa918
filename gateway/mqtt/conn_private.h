/* Inside gateway/mqtt/: one MQTT connection and its door.
 *
 *   door.c     accepting, the flush at the end of a turn, stopping
 *   conn.c     bytes in, timers, closing
 *   refusal.h  what is said to those who are not taken
 *   connect.c  CONNECT and what follows from it
 *   publish.c  PUBLISH from the client, its PUBACK or PUBREC
 *   acks.c     acknowledgements from the client; PUBREL and PUBCOMP of both directions
 *   subscribe.c SUBSCRIBE, UNSUBSCRIBE
 *   deliver.c  messages to the client (transport.h)
 *   inbox.h    what its acknowledgements say of its user's inbox
 *   keep.h     sessions that outlive their connection
 *   will.c     the message that is published when the connection ends without a word
 *
 * Owning loop only. */
#ifndef TG_GATEWAY_MQTT_CONN_PRIVATE_H
#define TG_GATEWAY_MQTT_CONN_PRIVATE_H

#include "gateway/acceptor.h"
#include "gateway/edge.h"
#include "gateway/mqtt/alias.h"
#include "gateway/mqtt/packet.h"
#include "gateway/mqtt/received.h"
#include "gateway/outq.h"
#include "session/flight.h"
#include "session/access_cache.h"
#include "session/principal.h"
#include "session/registry.h"

enum { MQTT_READ_BYTES = 65536 };

struct bucket_place;
struct tls_port;

struct mqtt_door {
    struct edge *edge;
    struct acceptor *acceptor;
    struct tls_port *tls; /* NULL: none */
    struct list conns;
    struct list dirty; /* connections with output of this turn (outq.dirty) */
    struct list dead; /* closed ones that wait for letters */
    struct list refused; /* those that are not taken (refusal.h) */
    unsigned refused_count;
    bool draining; /* nobody is taken any more */
    uint64_t drain_spread_ms, drain_told; /* over which they are to come back; how many have been told */
    struct mqtt_afterlife *afterlife; /* of sessions that no connection has */
    struct loop_hook flush;
    struct auth_watcher watcher; /* of revocations */
    uint32_t packet_bytes_max; /* announced */
    uint64_t next_assigned_id;
    struct buf scratch; /* for packets made one at a time */
    uint8_t read[MQTT_READ_BYTES];
};

enum mqtt_state {
    MQTT_STATE_NEW, /* no CONNECT yet */
    MQTT_STATE_CHECKING, /* CONNECT waits, unhandled, for what its credential is worth */
    MQTT_STATE_CLAIMING, /* CONNECT is accepted; waits for its client identifier */
    MQTT_STATE_CONNECTED,
    MQTT_STATE_CLOSING, /* nothing is read any more; the queue goes out, then our half is shut */
    MQTT_STATE_LINGERING, /* shut; waits for the peer's end so that a last packet is not lost to a reset */
    MQTT_STATE_DEAD, /* socket closed; memory waits for letters */
};

/* A publish that waits for the disk, in the order of arrival: PUBACKs and PUBRECs leave in that order
 * (MQTT-4.6.0-2, -3). */
struct mqtt_open_publish {
    uint16_t packet_id;
    uint8_t qos;
    bool counted; /* by c->received, too */
    uint8_t done;
    uint8_t reason;
    uint8_t status; /* enum status, of the log */
};

struct mqtt_conn {
    struct mqtt_door *door;
    struct session *session;
    struct principal *principal; /* never NULL */
    struct access_cache *access; /* of `principal`; NULL until it is needed */
    struct bucket_place *address_place, *user_place; /* at the gate; may be NULL */
    uint64_t rate_until_ms; /* publish_paused: the client is over its rate until then; 0 = it is not */
    struct auth_check *check; /* MQTT_STATE_CHECKING */
    bool judged; /* `verdict` is the CONNECT's, which is handled again; `principal` is its own then */
    enum auth_verdict verdict;
    struct outq out;
    struct stream io;
    struct loop_watch watch; /* of io.fd */
    enum mqtt_state state;
    uint8_t version;
    bool reading; /* EPOLLIN wanted */
    bool nameless; /* may not stay anonymous */
    bool publish_paused;
    bool draining; /* told to go: nothing is read any more; it ends when its publishes are answered */
    bool claimed; /* the registry knows this connection: RELEASE is due */
    bool problem_information; /* reason strings are wanted (3.1.2.11.7) */
    bool no_local; /* has asked for No Local: its messages say in the log whose they are (PROP_ORIGIN) */
    bool in_event; /* its memory stays until the event has been handled */
    bool broken; /* no memory for something that the client must be told: the flush closes it */
    uint32_t queued_counted; /* what M_OUT_QUEUE_BYTES holds of ours */
    uint32_t letters; /* under way, that point to it: claims, reads, its record */
    uint32_t client_packet_max;
    struct flights flights; /* QoS 1 and 2 to the client */
    struct received_ids received; /* QoS 2 from it */
    uint16_t receive_max; /* of these and QoS 1 together, as announced */
    struct aliases aliases_in, aliases_out; /* from the client, to it */
    struct mqtt_will *will; /* NULL: none, or not any more */

    struct mqtt_open_publish *open; /* ring */
    uint32_t open_cap; /* power of two */
    uint64_t open_head, open_tail; /* head: the oldest */
    uint32_t open_counted; /* of them in `received` too */
    uint32_t publish_letters; /* PUBLISHes that will still come back */

    struct buf in; /* an incomplete packet */
    struct timer timer;
    uint64_t last_in_ms, last_progress_ms, state_deadline_ms;
    uint32_t keep_alive_ms; /* 0: none; already 1.5 times */

    struct mqtt_connect_kept *kept; /* between CONNECT and CONNACK */
    struct mqtt_inbox *inbox; /* its part in its user's (inbox.h); NULL: it has none */
    struct mqtt_keep *keep; /* its session has a record; NULL: it ends with the connection */
    bool established; /* CONNACK with success was sent */
    bool taken; /* another has the client identifier already: its CONNACK is its end */
    struct claim claim;
    struct buf client_id;
    struct list link; /* door->conns or ->dead */
};

/* --- conn.c --- */
/* Takes the stream over, its place at the gate, and the reference to `who` (NULL: nobody yet). */
void mqtt_conn_open(struct mqtt_door *d, struct stream *io, struct bucket_place *place, struct principal *who,
                    bool nameless);
/* Ends it: session and identifier are given back, the socket is closed when the queue has gone out (or at
 * once when `now`). `metric`: why. Safe to call again. Not inside transport_ops.deliver. */
void mqtt_conn_close(struct mqtt_conn *c, enum metric why, bool now);
/* 5.0: DISCONNECT with `reason` once CONNACK was sent; else nothing. Then close. `words` (NULL: none) say
 * what the code does not; they are the Reason String of a client that wants any. */
void mqtt_conn_refuse_saying(struct mqtt_conn *c, uint8_t reason, const char *words, enum metric why);
void mqtt_conn_refuse(struct mqtt_conn *c, uint8_t reason, enum metric why);
/* Words for a packet that is about to be sent. NULL, and a client that wants none (3.1.2.11.7): nothing. */
void mqtt_conn_say(const struct mqtt_conn *c, struct mqtt_props *props, const char *words);
/* Once it has been told to go: it goes when nothing is owed to it. */
void mqtt_conn_drain_step(struct mqtt_conn *c);
/* Encodes into the queue and marks it dirty. What is larger than the client's Maximum Packet Size goes
 * without its words; what is so even then is the end of the connection. */
void mqtt_conn_send(struct mqtt_conn *c, const struct mqtt_packet *p);
void mqtt_conn_send_bytes(struct mqtt_conn *c, struct slice bytes);
static inline void mqtt_conn_dirty(struct mqtt_conn *c)
{
    if (list_empty(&c->out.dirty))
        list_push(&c->door->dirty, &c->out.dirty);
}
/* What epoll should watch, after a change of state, queue or pause. */
void mqtt_conn_rewatch(struct mqtt_conn *c);
void mqtt_conn_rearm(struct mqtt_conn *c);
void mqtt_conn_flush(struct mqtt_conn *c);
/* The client has taken something: what waited goes on. */
void mqtt_conn_has_got_room(struct mqtt_conn *c);
/* Room for a message of `len` bytes? What this turn has queued is no reason to say no while the socket takes
 * it: it is sent first. Inside transport_ops.deliver too: nothing is closed here. */
bool mqtt_conn_has_room(struct mqtt_conn *c, size_t len);
void mqtt_conn_free_if_done(struct mqtt_conn *c);
/* Goes on with packets that were kept while the connection could not take any. */
void mqtt_conn_continue(struct mqtt_conn *c);
/* Gives the client identifier back to the registry, once. */
void mqtt_claim_return(struct mqtt_conn *c);
/* All that is left of it is written: the client identifier is free. */
void mqtt_conn_detached(struct mqtt_conn *c);

/* Is the client read? Not while publishes wait for the disk, and not while it does not take what it is told:
 * answers (PUBACK, PINGRESP ...) are not dropped, so they must not be asked for without end. */
static inline bool mqtt_conn_hears(const struct mqtt_conn *c)
{
    return c->reading && !c->publish_paused && !c->draining && c->out.bytes <= c->out.bytes_max;
}

static inline bool mqtt_conn_may(const struct mqtt_conn *c, enum access_op op, struct slice topic)
{
    return principal_may(c->principal, op, topic, buf_slice(&c->client_id));
}

static inline bool mqtt_conn_active(const struct mqtt_conn *c)
{
    return c->state == MQTT_STATE_CONNECTED;
}

/* --- packet handlers: they may close the connection --- */
void mqtt_handle_connect(struct mqtt_conn *c, const struct mqtt_connect *p);
void mqtt_handle_publish(struct mqtt_conn *c, const struct mqtt_publish *p);
void mqtt_handle_puback(struct mqtt_conn *c, const struct mqtt_ack *p);
void mqtt_handle_pubrec(struct mqtt_conn *c, const struct mqtt_ack *p);
void mqtt_handle_pubrel(struct mqtt_conn *c, const struct mqtt_ack *p);
void mqtt_handle_pubcomp(struct mqtt_conn *c, const struct mqtt_ack *p);
/* A message of a shared subscription is done with, or (`again`) is to go to another member. Others: nothing.
 */
void mqtt_flight_settle(struct mqtt_conn *c, struct flight *flight, bool again);
void mqtt_handle_subscribe(struct mqtt_conn *c, const struct mqtt_subscribe *p);
void mqtt_handle_unsubscribe(struct mqtt_conn *c, const struct mqtt_subscribe *p);
void mqtt_connect_forget(struct mqtt_conn *c); /* frees what is kept between CONNECT and CONNACK */
/* What waited for the session's record: CONNACK with success; or one with a reason, and the end. */
void mqtt_connect_done(struct mqtt_conn *c, bool session_present);
/* A session expiry as the client asks for it -> as the settings allow it. */
uint32_t mqtt_expiry_allowed(const struct mqtt_conn *c, uint32_t asked_s);
void mqtt_connect_refuse(struct mqtt_conn *c, uint8_t reason, const char *why);

/* --- publish.c --- */
/* A PUBLISH that is to be acknowledged is over the rate: it stays unread, and so does what is behind it. */
bool mqtt_publish_waits(struct mqtt_conn *c);
/* Goes on with what the client has sent, if nothing stands against it any more. */
void mqtt_publish_unpause(struct mqtt_conn *c);
/* What is wrong with the message: the reason for the client; *why is how it counts. 0 = nothing. */
uint8_t mqtt_publish_objection(struct mqtt_conn *c, const struct mqtt_publish *p, enum metric *why);
/* ST_OK, or *reason. */
enum status mqtt_publish_message(struct mqtt_conn *c, const struct mqtt_publish *p, struct msg **out,
                                 uint8_t *reason) MUST_CHECK;
/* What PROP_ORIGIN holds for this client. Stable, as a later process reads it. */
uint64_t mqtt_origin(const struct mqtt_conn *c);

/* --- will.c --- */
/* Keeps the will of a CONNECT that has one. 0, or the reason why it cannot be. */
uint8_t mqtt_will_keep(struct mqtt_conn *c, const struct mqtt_connect *p);
/* The client has said goodbye, or was never let in. */
void mqtt_will_forget(struct mqtt_conn *c);

/* --- subscribe.c --- */
void mqtt_on_subscribed(void *conn, struct subscription *sub, const struct place *at, uint64_t replay);
/* May this client have shared subscriptions? Its place in a group would not outlive the connection: so only
 * when nothing does. */
bool mqtt_shared_available(const struct mqtt_conn *c);
/* What was held until the session's record knows of it begins. */
void mqtt_subscriptions_begin(struct mqtt_conn *c);
/* The client has gone: SUBACKs that still wait are forgotten. */
void mqtt_subacks_forget(struct mqtt_conn *c);

/* --- deliver.c --- */
extern const struct transport_ops mqtt_transport;
/* A flight that was held (keep.h) is sent. */
void mqtt_deliver_held(struct mqtt_conn *c, uint16_t packet_id, struct flight *flight);

#endif
