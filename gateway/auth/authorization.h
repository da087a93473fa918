/* The Authorization field of a request (RFC 9110, 11.6.2), at whatever port it comes. Pure; any thread. */
#ifndef TG_GATEWAY_AUTH_AUTHORIZATION_H
#define TG_GATEWAY_AUTH_AUTHORIZATION_H

#include "core/buf.h"

enum authorization { AUTHORIZATION_OTHER, AUTHORIZATION_BEARER, AUTHORIZATION_BASIC };

/* The scheme, whose name has no case, and what follows it, which is not empty. OTHER: another scheme, or
 * nothing. */
enum authorization authorization_read(struct slice value, struct slice *text);
/* What follows Basic (RFC 7617): base64 of "user:password". False: it is not. The texts are in `space`,
 * which holds a secret from then on. */
bool authorization_split_basic(struct slice text, struct buf *space, struct slice *user,
                               struct slice *password);

#endif
