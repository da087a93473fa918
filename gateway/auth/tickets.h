/* Tickets: 128 random bits that stand for a principal once, for some seconds, in memory. One table a node, at
 * its home desk. Owning loop only.
 *
 * A browser's EventSource comes back by itself to the URL that it was given, ticket and all. So a ticket that
 * has opened an event stream is spent for everything else, but opens that again for TICKET_STREAM_MS from its
 * last use on. Such tickets give way to new ones: those not used for longest first. */
#ifndef TG_GATEWAY_AUTH_TICKETS_H
#define TG_GATEWAY_AUTH_TICKETS_H

#include "session/principal.h"

enum {
    TICKET_BYTES = 32,
    TICKET_MS_DEFAULT = 30000,
    TICKET_MS_MAX = 600000,
    TICKET_STREAM_MS = 24 * 3600 * 1000,
};

/* What for: one connection, an event stream, or one that goes on (it has a Last-Event-ID). */
enum ticket_use { TICKET_ONCE, TICKET_STREAM, TICKET_STREAM_AGAIN };

struct tickets;
enum status tickets_create(struct tickets **out) MUST_CHECK;
void tickets_destroy(struct tickets *t); /* NULL is allowed */
/* Takes a reference of its own. ST_FULL: `most` are out, also after those that have lapsed were let go.
 * ST_IO: no random bytes. ST_NO_MEMORY. `out` gets a NUL. */
enum status tickets_put(struct tickets *t, struct principal *p, uint64_t until_ms, uint64_t now_ms,
                        uint64_t most, char out[TICKET_BYTES + 1]) MUST_CHECK;
/* The principal, with a reference for the caller; the ticket is gone, or spent. NULL: unknown, used or
 * lapsed.
 */
struct principal *tickets_take(struct tickets *t, struct slice ticket, enum ticket_use use, uint64_t now_ms);

#endif
