/* Passwords as scrypt (RFC 7914) keeps them, in the PHC text form:
 *
 *   $scrypt$ln=15,r=8,p=1$<salt>$<hash>      base64 without padding; N = 2^ln
 *
 * Takes some 60 ms and 32 MiB: never on a loop. Any thread. */
#ifndef TG_GATEWAY_AUTH_SCRYPT_H
#define TG_GATEWAY_AUTH_SCRYPT_H

#include "core/buf.h"

enum { SCRYPT_SALT_BYTES = 16, SCRYPT_HASH_BYTES = 32, PASSWORD_BYTES_MAX = 1024 };

struct scrypt {
    uint8_t ln, r, p;
    uint8_t salt[SCRYPT_SALT_BYTES], hash[SCRYPT_HASH_BYTES];
};

/* With a fresh salt. ST_IO: no random bytes. ST_NO_MEMORY. */
enum status scrypt_make(struct slice password, struct scrypt *out) MUST_CHECK;
/* Is it the password? Takes as long whatever differs. ST_FORBIDDEN: no. ST_NO_MEMORY. */
enum status scrypt_check(const struct scrypt *s, struct slice password) MUST_CHECK;
enum status scrypt_write(const struct scrypt *s, struct buf *out) MUST_CHECK;
/* ST_INVALID: another form, or costs beyond what is reasonable (ln 10 to 20, r and p 1 to 16, 1 GiB). */
enum status scrypt_read(struct slice text, struct scrypt *out) MUST_CHECK;

#endif
