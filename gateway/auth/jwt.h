/* A JSON Web Token in compact form (RFC 7515, 7519), taken apart. What it says is not to be believed before a
 * key has verified it (keys.h). Pure; any thread. */
#ifndef TG_GATEWAY_AUTH_JWT_H
#define TG_GATEWAY_AUTH_JWT_H

#include "core/buf.h"

enum {
    JWT_BYTES_MAX = 8192, /* of the token: what a head of HTTP holds */
    JWT_HEADER_BYTES_MAX = 1024,
    JWT_KEY_ID_BYTES_MAX = 128,
    JWT_SIGNATURE_BYTES_MAX = 1024, /* RSA of 8,192 bits */
};

/* The algorithms there are. Everything else, "none" above all, is refused by name. */
enum jwt_alg { JWT_HS256, JWT_RS256, JWT_ES256, JWT_ALG_COUNT };
const char *jwt_alg_name(enum jwt_alg alg);

struct jwt {
    enum jwt_alg alg;
    bool has_key_id;
    uint8_t key_id[JWT_KEY_ID_BYTES_MAX];
    size_t key_id_len;
    struct slice signed_text; /* of the token: header and payload with the point between them */
    uint8_t signature[JWT_SIGNATURE_BYTES_MAX];
    size_t signature_len;
    struct buf payload; /* decoded */
};

/* Three parts of base64url with points between them, the first an object: a token rather than a password? */
bool jwt_looks_like(struct slice text);

/* `token` outlives `out`. ST_INVALID: malformed. ST_UNSUPPORTED: an algorithm that is not taken, or a header
 * with `crit` (RFC 7515, 4.1.11). ST_TOO_LARGE. ST_NO_MEMORY. `out` needs jwt_close after ST_OK only. */
enum status jwt_open(struct slice token, struct jwt *out) MUST_CHECK;
void jwt_close(struct jwt *j);

#endif
