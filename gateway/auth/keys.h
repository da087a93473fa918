/* Keys that verify tokens. A set is immutable once it is shared, and counted; any thread then. A key belongs
 * to one algorithm. */
#ifndef TG_GATEWAY_AUTH_KEYS_H
#define TG_GATEWAY_AUTH_KEYS_H

#include "gateway/auth/jwt.h"

enum { KEYS_MAX = 64, KEYS_FILE_BYTES_MAX = 256 * 1024, KEYS_TRIED_MAX = 8 };

struct keys;

enum status keys_create(struct keys **out) MUST_CHECK;
struct keys *keys_ref(struct keys *k); /* NULL is allowed */
void keys_unref(struct keys *k); /* NULL is allowed */
size_t keys_count(const struct keys *k); /* NULL is allowed */

/* A secret of HS256: at least 32 bytes (RFC 7518, 3.2). ST_INVALID, ST_FULL, ST_NO_MEMORY. */
enum status keys_add_secret(struct keys *k, struct slice key_id, struct slice secret) MUST_CHECK;
/* PEM (a public key or a certificate, RSA from 2,048 bits or P-256; several may follow each other) or a JWK
 * set (RFC 7517). Keys of a set that are of no use here (other kinds, for encryption) are passed over.
 * ST_INVALID: neither, or no key of use in it; `error` gets what is wrong. */
enum status keys_add(struct keys *k, struct slice text, struct buf *error) MUST_CHECK;

/* ST_OK: a key of the token's algorithm has signed it. ST_FORBIDDEN: one that could have has not.
 * ST_NOT_FOUND: there is no key of this algorithm and key identifier. A token without an identifier is tried
 * with every key of its algorithm (KEYS_TRIED_MAX), one with an identifier with those of that name and those
 * without any. `keys` NULL: as an empty set. */
enum status keys_verify(const struct keys *k, const struct jwt *token) MUST_CHECK;
/* HMAC-SHA-256 as HS256 signs. ST_NO_MEMORY. */
enum status keys_sign_hs256(struct slice secret, struct slice text, uint8_t out[32]) MUST_CHECK;

#endif
