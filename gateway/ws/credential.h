/* Inside gateway/ws/: what a request of the public port says of who sends it. An upgrade to /ws, /sse and
 * /poll take the same:
 *
 *   Authorization: Bearer <token>, or Basic <user:password>
 *   ?ticket=       (POST /v1/tickets), not beside Authorization
 *   a cookie       (auth.cookie), where there is neither and the request is of a page that may
 *
 * Each is kept with the connection (conn->credential) until it is judged. Owning loop only. */
#ifndef TG_GATEWAY_WS_CREDENTIAL_H
#define TG_GATEWAY_WS_CREDENTIAL_H

#include "gateway/auth/auth.h"
#include "gateway/ws/conn.h"

/* False: answered. */
bool credential_read_authorization(struct conn *c);
bool credential_read_cookie(struct conn *c);

/* One "name=value" of the query. */
enum credential_argument { ARGUMENT_OTHER, ARGUMENT_TAKEN, ARGUMENT_REFUSED /* answered */ };
enum credential_argument credential_take_argument(struct conn *c, struct slice pair);

/* Judges what was kept, and forgets it. As auth_check. */
enum auth_verdict credential_check(struct conn *c, enum ticket_use use,
                                   void (*on_checked)(void *ctx, enum auth_verdict v, struct principal *p),
                                   void *ctx, struct principal **out, struct auth_check **pending);
void credential_drop(struct conn *c);

#endif
