/* Tokens of the node's own: HS256 under <data>/token.key. Any thread. */
#ifndef TG_GATEWAY_AUTH_MINT_H
#define TG_GATEWAY_AUTH_MINT_H

#include "core/buf.h"

struct mint_claims {
    struct slice user, token_id; /* token_id "" = none */
    uint64_t now_ms, ttl_ms; /* ttl_ms 0 = never expires */
    struct slice issuer, audience; /* "" = none */
    struct slice more; /* further claims, a JSON object that must name none of those; "" = none */
};

/* Appends the token. ST_INVALID: `more` is no such object. ST_FULL, ST_NO_MEMORY. */
enum status mint_token(struct slice secret, const struct mint_claims *claims, struct buf *out) MUST_CHECK;

#endif
