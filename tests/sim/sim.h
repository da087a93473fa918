/* A cluster in one process, for the checker of the promise (docs/CLUSTER.md): nodes with the shards, hubs,
 * keepers and registries that the daemon has, over a log whose order the simulation gives, and a directory of
 * leases. One thread, one source of chance: the same seed is the same run.
 *
 *   log.c     proposals on their way, the order, what comes twice or is lost; what each node gets, and when
 *   node.c    a node's life: start, crash, freeze and return, its end by NODE_DOWN
 *   client.c  sessions: connect anywhere, subscribe, get, acknowledge, end; a small door of its own
 *   check.c   what was promised, in words that know nothing of the code
 *   cluster.c the random schedule, and the quiet end */
#ifndef TG_TESTS_SIM_H
#define TG_TESTS_SIM_H

#include "fakes/fake_topic_log.h"
#include "routing/proposal.h"
#include "session/keeper.h"
#include "session/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NODES = 3,
    LANES = 3,
    CLIENTS = 8,
    FILTERS = 6,
    TOPICS = 6,
    PRODUCERS = 4,
    SEQUENCES = 4096,
    WAY_MAX = 64,
    WINDOW = 6,
    INCARNATIONS_MAX = 4096,
    EPOCH = 7,
};

/* --- what all share ----------------------------------------------------------------------------------- */

extern uint64_t sim_step;
extern const char *const sim_filters[FILTERS];
extern const char *const sim_topics[TOPICS];
unsigned below(unsigned n); /* by chance, 0 to n - 1 */
void sim_seed(uint64_t seed);
/* Prints seed and step, and ends the program. */
_Noreturn void sim_fail(const char *says, ...) __attribute__((format(printf, 1, 2)));
#define REQUIRE(what, ...)                                                                                   \
    do {                                                                                                     \
        if (!(what))                                                                                         \
            sim_fail(__VA_ARGS__);                                                                           \
    } while (0)

/* --- log.c -------------------------------------------------------------------------------------------- */

struct ordered {
    struct msg *msg; /* as it was proposed */
    uint64_t ts_ms;
    bool is_void; /* check.c */
    int topic; /* of a message, an index into sim_topics; -1: none */
};
struct sim_lane {
    struct ordered *records; /* by offset */
    uint64_t count, cap;
};
extern struct sim_lane sim_lanes[LANES];

struct node;
void log_reset(void);
enum status log_propose(struct node *n, unsigned lane, struct msg *m);
void log_order_some(struct node *n, unsigned lane); /* the next that the node has proposed there */
bool log_bring(struct node *n, unsigned lane); /* the next record, if there is one */
void log_drop_way(struct node *n, bool reaches); /* what is under way is lost, or ordered after all */

/* --- node.c ------------------------------------------------------------------------------------------- */

struct way {
    struct msg *msgs[WAY_MAX];
    unsigned count;
};
struct node {
    unsigned index;
    bool up, frozen, cut; /* cut: nothing that it proposes gets out; it is being killed */
    bool down_read; /* its own end has come: it drops its connections as soon as it can */
    uint64_t wall_ms, mono_ms;
    struct clock clock;
    struct fake_log log; /* the mirror, outlives the node */
    struct way ways[LANES];
    struct loop *loop;
    struct courier *courier;
    struct shard_group *group;
    struct shard_map map;
    struct hub *hub;
    struct registry *registry;
    struct metrics *metrics;
    unsigned open; /* publishes that will be answered */
};
extern struct node sim_nodes[NODES];
void node_init(struct node *n, unsigned index);
void node_start(struct node *n);
void node_kill(struct node *n, bool mirror_lost);
void node_deinit(struct node *n);
void node_turn(struct node *n);
void node_settle(struct node *n); /* turns until nothing moves */
/* Says that this node is dead, whether it is or not, in each lane at some time: `by` proposes it. */
void node_report_dead(struct node *by, const struct node *dead);
/* Its own end has been read: all connections go, and it has another incarnation. */
void node_be_born_again(struct node *n);

/* --- client.c ----------------------------------------------------------------------------------------- */

struct client;
void clients_reset(void);
void client_step(struct client *c); /* something that a client may do */
struct client *some_client(void);
void clients_close_taken(struct node *n); /* the door's flush */
void clients_drop_node(struct node *n); /* all connections of the node end, without a word */
bool clients_quiet(void); /* one step towards: all connected, nothing unacknowledged. True: so it is */
void clients_check_end(void);
bool clients_publish(struct node *n); /* something; false: the node takes nothing */
const char *client_name(unsigned index);

/* --- check.c ------------------------------------------------------------------------------------------ */

void check_reset(void);
/* The record at this place has just been ordered. */
void check_ordered(unsigned lane, uint64_t offset);
/* A try to publish: its number, which is its payload. */
unsigned check_try(unsigned topic);
void check_acknowledged(unsigned lane, uint64_t offset, bool session);
/* The next message of this filter at or behind `from`; UINT64_MAX: none yet. */
uint64_t check_next_owed(unsigned filter, unsigned lane, uint64_t from);
/* A message has been handed to a connection: is it what was sent? */
void check_genuine(const struct msg *m, unsigned lane);
void check_digests(void);
void check_replicas(void); /* at rest: and their sessions and nodes are those of the log */
/* A connection of this incarnation of a node serves the client: the log has attached it there. */
void check_served(unsigned client, uint64_t incarnation);
void check_deinit(void);
extern struct check_counts {
    uint64_t records, voids, messages, acknowledged, delivered, takeovers, attaches, ends;
} check_counts;

#endif
