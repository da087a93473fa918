/* What became of a credential, and how each door says so. Pure; any thread. */
#ifndef TG_GATEWAY_AUTH_VERDICT_H
#define TG_GATEWAY_AUTH_VERDICT_H

#include "core/metrics.h"

enum auth_verdict {
    AUTH_OK,
    AUTH_MALFORMED, /* no token */
    AUTH_ALGORITHM, /* "none", or another that is not taken */
    AUTH_UNKNOWN_KEY, /* no key of that name and algorithm */
    AUTH_SIGNATURE,
    AUTH_EXPIRED,
    AUTH_NOT_YET,
    AUTH_ISSUER,
    AUTH_AUDIENCE,
    AUTH_CLAIMS, /* no subject, or a claim that is not what it must be */
    AUTH_OTHER_USER, /* named beside the token, or of the connection so far */
    AUTH_PASSWORD, /* no such user or a wrong password: nobody is told which */
    AUTH_ANONYMOUS, /* none was given where one is needed */
    AUTH_REVOKED,
    AUTH_TICKET, /* unknown, used or lapsed */
    AUTH_NO_MEMORY,
    AUTH_BUSY, /* too many passwords are being checked */
    AUTH_PENDING, /* not known yet */
    AUTH_VERDICT_COUNT
};

/* What, why, and what to do, for the client. Never says whether a user exists. */
const char *auth_text(enum auth_verdict v);
/* Of a WebSocket (PROTOCOL.md 1): 4200 do not come back with this, 4100 get a new token first. */
unsigned auth_close_code(enum auth_verdict v);
const char *auth_close_text(enum auth_verdict v); /* a word or three for `bye` and the close frame */
/* Is it the time, and not the credential as such? Then MQTT says 0x87 / 5, else 0x86 / 4. */
bool auth_lapsed(enum auth_verdict v);
/* Another attempt with the same credential may be taken. */
bool auth_temporary(enum auth_verdict v);
void auth_count(struct metrics *m, enum auth_verdict v);

#endif
