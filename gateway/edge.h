/* What a door gets from its loop. One edge a loop; made by node.c, outlives the doors. */
#ifndef TG_GATEWAY_EDGE_H
#define TG_GATEWAY_EDGE_H

#include "gateway/auth/auth.h"
#include "gateway/settings.h"
#include "session/hub.h"
#include "session/registry.h"

/* What a bridge (gateway/bridge/) tells of itself. Written by its thread, read by any. */
struct bridge_figures {
    const char *name;
    atomic_bool connected;
    _Atomic(const char *) why; /* it is not; NULL: no attempt has failed yet */
    _Atomic uint64_t since_ms; /* Unix time from which on that is so */
    _Atomic uint64_t in, out, dropped, reconnects;
};
/* All of them, in the order of the configuration. */
struct bridge_list {
    size_t count;
    const struct bridge_figures *each[];
};
/* Why a bridge is not connected. */
enum bridge_trouble {
    BRIDGE_TROUBLE_UNREACHABLE, /* no such host, nobody listens, no answer */
    BRIDGE_TROUBLE_TLS,
    BRIDGE_TROUBLE_CREDENTIALS, /* the remote does not know us */
    BRIDGE_TROUBLE_REFUSED, /* it does not want us, or our subscriptions or messages */
    BRIDGE_TROUBLE_LOST, /* a connection that stood has ended */
    BRIDGE_TROUBLE_OWN, /* the own node, its log or its memory */
};

/* Facts of the node that any loop may read; set before the loops run, except the atomics. */
struct node_facts {
    const struct settings *settings; /* those of the start: only what is not live may be read there */
    const struct store *store; /* for what any thread may ask it; NULL: none (tests) */
    uint64_t started_wall_ms;
    uint32_t epoch;
    uint64_t incarnation;
    unsigned lane_count;
    atomic_bool ready; /* /readyz */
    atomic_bool drain_wanted; /* SIGTERM has come, or is on its way from the API */
    atomic_bool draining; /* clients will be told to go, /readyz answers 503 */
    atomic_bool told_down; /* by another node of the log: the process ends, to be started again */
    atomic_bool stopping; /* the end: doors say goodbye at once */
    atomic_uint connections; /* of the public doors, against connections_max */
    atomic_uint api_connections; /* of the private API, against api_connections_max */
    /* As configured, or what the descriptor limit allows. */
    atomic_ullong connections_max; /* a reload may change it; relaxed: it orders nothing */
    uint64_t api_connections_max;
    uint16_t mqtt_port, http_port, api_port;
    uint16_t mqtts_port, https_port; /* 0: no TLS */
    _Atomic(const struct bridge_list *) bridges; /* for reports; good for one turn of a loop (bridges.c) */
    struct directory_redis *directory; /* that nodes share; NULL: there is none */
    const struct log_kafka *kafka; /* for what any thread may ask it; NULL: the log is this node's own */
};

/* Of a node that has been: was it this one? Nodes of one log know each other's by its upper half. */
static inline bool facts_own_past(const struct node_facts *f, uint64_t incarnation)
{
    return incarnation != f->incarnation && (!f->kafka || incarnation >> 32 == f->incarnation >> 32);
}

struct gate;
struct mqtt_door;
struct principal;
struct stream;
struct snapshots;
struct tls_server;

struct edge {
    struct loop *loop;
    struct hub *hub;
    struct registry *registry; /* of client identifiers */
    struct auth *auth; /* who is it? May be NULL: anonymous clients only */
    struct metrics *metrics;
    struct node_facts *facts;
    const struct settings *settings; /* a reload puts others here, in a turn of this loop: do not keep it */
    struct gate *gate; /* the node's; NULL: everything may come in */
    struct snapshots *snapshots; /* the node's; for the home loop's door */
    struct tls_server *tls; /* NULL: no certificate is configured */
    /* What speaks MQTT over WebSocket goes to the MQTT door, which sets both. The stream is taken over, and
     * the reference to `who` (whom its certificate names, or NULL); `nameless`: it may not stay anonymous. */
    struct mqtt_door *mqtt;
    void (*mqtt_take)(struct mqtt_door *d, struct stream *io, struct principal *who, bool nameless);
};

/* --- doors: each creates its listener-side state on an edge; destroy closes all its connections ---- */
enum status mqtt_door_create(struct edge *edge, int listen_fd /* taken over */,
                             struct mqtt_door **out) MUST_CHECK;
enum status mqtt_door_listen_tls(struct mqtt_door *d, int listen_fd /* taken over */) MUST_CHECK;
void mqtt_door_start(struct mqtt_door *d); /* once, right before its loop runs */
/* A drain: new ones are told that there is no service (CONNACK 0x88, 3); then calls tell at most *most
 * connections (which becomes what is left of that) to go as soon as what they have published is answered. How
 * many are still to be told, or have answers due. */
void mqtt_door_drain_begin(struct mqtt_door *d, uint64_t spread_ms);
unsigned mqtt_door_drain(struct mqtt_door *d, unsigned *most);
/* An incarnation of another node has ended in this lane of the loop: what follows for its sessions. */
void mqtt_door_lane_lost(struct mqtt_door *d, unsigned lane);
void mqtt_door_stop(struct mqtt_door *d); /* no new ones; DISCONNECT 0x8B to 5.0 clients, close */
void mqtt_door_destroy(struct mqtt_door *d); /* NULL is allowed */

/* The public HTTP port: /ws, /demo/. It runs on libwebsockets, which needs libev to own the thread: the
 * door is also what runs the loop. */
struct web_door;
enum status web_door_create(struct edge *edge, int listen_fd, struct web_door **out,
                            struct buf *error) MUST_CHECK;
/* Pairs of descriptors that WebSocket handshakes of one loop may need at a time, beside its connections. */
enum { FRONT_PAIRS_MAX = 16 };
enum status web_door_listen_tls(struct web_door *d, int listen_fd /* taken over */) MUST_CHECK;
void web_door_run(
    struct web_door *d); /* runs the edge's loop inside libev on the calling thread until loop_stop */
void web_door_use_settings(struct web_door *d); /* the edge has others */
void web_door_drain_begin(struct web_door *d, uint64_t spread_ms); /* over which they are to come back */
unsigned web_door_drain(struct web_door *d, unsigned *most);
void web_door_stop(struct web_door *d); /* bye 4000, close */
void web_door_destroy(struct web_door *d);

/* The private API. On loop 0 only. */
struct api_door;
enum status api_door_create(struct edge *edge, int listen_fd, struct api_door **out,
                            struct buf *error) MUST_CHECK;
void api_door_use_settings(struct api_door *d); /* the edge has others */
void api_door_stop(struct api_door *d);
void api_door_destroy(struct api_door *d);

struct echo_door;
enum status echo_door_create(struct edge *edge, int listen_fd, struct echo_door **out) MUST_CHECK;
void echo_door_destroy(struct echo_door *d);

#endif
