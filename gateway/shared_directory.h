/* The directory in Redis as the settings name it (directory.redis.*), and what the node says of itself there.
 */
#ifndef TG_GATEWAY_SHARED_DIRECTORY_H
#define TG_GATEWAY_SHARED_DIRECTORY_H

#include "core/buf.h"

struct directory_redis;
struct node_facts;
struct settings;
struct shared_directory;

/* ST_INVALID: `error` says which key, and why. */
enum status shared_directory_check(const struct settings *s, struct buf *error) MUST_CHECK;

/* NULL in `out` when the settings name no Redis. `facts` outlives it. ST_INVALID: the certificates, told in
 * `error`. */
enum status shared_directory_create(const struct settings *s, const struct node_facts *facts,
                                    struct shared_directory **out, struct buf *error) MUST_CHECK;
struct directory_redis *shared_directory_redis(const struct shared_directory *d); /* NULL of NULL */
void shared_directory_destroy(struct shared_directory *d); /* says goodbye; NULL is allowed */

/* For `tidegate doctor`: does one attempt succeed? Waits for it. ST_NOT_FOUND: no Redis is configured. ST_IO:
 * no; `why` says for what reason. */
enum status shared_directory_probe(const struct settings *s, struct buf *why) MUST_CHECK;

/* What /v1/nodes and the lease call the state of a node. */
const char *node_state(const struct node_facts *f);

#endif
