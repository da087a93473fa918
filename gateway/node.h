/* A node: the store, the loops with their shards, hubs and doors, and their threads. Made and ended by the
 * main thread; while it runs the main thread only waits for signals. */
#ifndef TG_GATEWAY_NODE_H
#define TG_GATEWAY_NODE_H

#include "gateway/settings.h"

struct auth_office;
struct bridges;
struct node;

/* Opens the log (recovering it), the listeners and the doors; nothing is served yet. `error` gets one line
 * for the operator. ST_EXISTS: a port or the data folder is in use. ST_FORBIDDEN: no permission. ST_IO,
 * ST_CORRUPT, ST_INVALID ... as store_open. `settings` outlives the node: after
 * node_use_settings too, for what is not live. */
enum status node_create(const struct settings *settings, struct node **out, struct buf *error) MUST_CHECK;

/* Starts the threads, writes <data>/pid and <data>/ports, and becomes ready. */
enum status node_start(struct node *n, struct buf *error) MUST_CHECK;

/* While it runs: every loop goes over to `next`, which outlives the node or the next call; when this returns
 * none reads the former settings any more. `next` differs in live keys only (settings_succeed). ST_NO_MEMORY:
 * nothing has changed. The thread that started the node. */
enum status node_use_settings(struct node *n, const struct settings *next) MUST_CHECK;

/* The certificates that the settings name are read again, as a part of a reload (reload.h), for the
 * handshakes to come; connections that stand stay. Without certificates at its start a node has no TLS ports,
 * and there is nothing to do. */
enum status node_prepare_tls(void *node, const struct settings *next, struct buf *error) MUST_CHECK;
void node_commit_tls(void *node);
void node_abandon_tls(void *node);

/* Whom keys and rules belong to, for auth_office_prepare and the like. */
struct auth_office *node_auth(struct node *n);
struct bridges *node_bridges(struct node *n); /* for bridges_prepare and the like */

/* Has every loop done something since the call before this one, and has the log's writer not been at one
 * piece of work for longer than `patience_ms`? Asks the loops anew. */
bool node_moves(struct node *n, uint64_t patience_ms);

/* Another node has declared this one dead (lost_nodes.h): nothing that it writes counts any more. SIGTERM has
 * been sent to the process. */
bool node_told_down(const struct node *n);

/* A drain (PROTOCOL.md 4), by steps of the thread that started the node: /readyz says so; the loops tell
 * their clients to go; whether all have gone or at least been told and answered. node_stop ends it at any
 * moment, and waits for publishes under way for drain.max_ms unless it is to hurry. */
void node_announce_drain(struct node *n);
void node_drain(struct node *n);
bool node_drained(const struct node *n);
void node_hurry(struct node *n);

/* Says goodbye to all connections, waits at most a second for their queues, ends the threads, closes the log
 * (so that the next start is clean) and removes pid and ports. Frees the node. NULL is allowed. */
void node_stop(struct node *n);

#endif
