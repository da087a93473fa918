/* How much may come in (PROTOCOL.md 2, Rates): rates of connects and publishes by address, by user and of the
 * node, and the open connections of an address. One gate a node; its functions are called by any loop with
 * its own edge, whose settings say the rates. What it refuses is counted here; saying so is the door's.
 *
 * An edge without a gate (tests of doors) lets everything pass. */
#ifndef TG_GATEWAY_GATE_H
#define TG_GATEWAY_GATE_H

#include "core/buckets.h"
#include "gateway/edge.h"

struct gate;

/* Room for at least `entries` addresses and users together. ST_NO_MEMORY. */
enum status gate_create(uint64_t entries, struct gate **out) MUST_CHECK;
void gate_destroy(struct gate *g); /* nobody holds a place any more. NULL is allowed */

/* A new socket, before anything is spent on it. False: over the rate of its address or of the node; close it.
 */
bool gate_admits(const struct edge *e, int fd);
/* It is one of its address's connections until gate_leave. *out NULL: it has no peer, or one that is exempt.
 * ST_FULL: limit.address_connections. */
enum status gate_enter(const struct edge *e, int fd, struct bucket_place **out) MUST_CHECK;
/* The place of a user, until gate_leave. NULL: nobody. */
struct bucket_place *gate_user(const struct edge *e, struct slice user);
void gate_leave(struct bucket_place *p); /* NULL is allowed. Any thread */

/* A user comes in. 0, or how many ms too early. */
uint32_t gate_connect_wait_ms(const struct edge *e, struct bucket_place *user);
/* One message. 0: a token of each has been taken. Else how many ms until there is one, and nothing is taken.
 * Either may be NULL. */
uint32_t gate_publish_wait_ms(const struct edge *e, struct bucket_place *address, struct bucket_place *user);
/* The same for one whose place nobody holds. */
uint32_t gate_publish_as(const struct edge *e, struct slice user);
/* Of the user, else of the node: so many messages in so many seconds. */
struct gate_policy {
    uint64_t quota, window_s;
};
struct gate_policy gate_publish_policy(const struct edge *e, struct slice user);
/* Words of refusals. */
extern const char gate_publish_text[], gate_connect_text[];

/* Settings: NULL, or the item of limit.address_exempt that is no address or prefix; it ends at a '\n'. */
const char *gate_exempt_flaw(const char *list);

#endif
