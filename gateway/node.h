/* A node: the store, the loops with their shards, hubs and doors, and their threads. Made and ended by the
 * main thread; while it runs the main thread only waits for signals. */
#ifndef TG_GATEWAY_NODE_H
#define TG_GATEWAY_NODE_H

#include "gateway/settings.h"

struct node;

/* Opens the log (recovering it), the listeners and the doors; nothing is served yet. `error` gets one line
 * for the operator. ST_EXISTS: a port or the data folder is in use. ST_FORBIDDEN: no permission. ST_IO,
 * ST_CORRUPT, ST_INVALID ... as store_open. `settings` outlives the node. */
enum status node_create(const struct settings *settings, struct node **out, struct buf *error) MUST_CHECK;

/* Starts the threads, writes <data>/pid and <data>/ports, and becomes ready. */
enum status node_start(struct node *n, struct buf *error) MUST_CHECK;

/* Reads the certificates that `s` names again, for the handshakes to come; connections that stand stay. All
 * or nothing: on any other status than ST_OK the old ones stay and `error` says which file and why. Without
 * certificates at its start a node has no TLS ports, and there is nothing to do: ST_OK. Main thread. */
enum status node_reload_tls(struct node *n, const struct settings *s, struct buf *error) MUST_CHECK;

/* Says goodbye to all connections, waits at most a second for their queues, ends the threads, closes the log
 * (so that the next start is clean) and removes pid and ports. Frees the node. NULL is allowed. */
void node_stop(struct node *n);

#endif
