/* The name is SHA-256 over a fixed prefix, the token and whose it is. Nothing secret goes in: against 128
 * random bits neither a table nor a search helps, and a key that lay beside the log would add nothing; all
 * nodes that read one log come to the same name without sharing a key. */
#include "gateway/ws/token.h"

#include "session/principal.h"

#include <assert.h>
#include <openssl/evp.h>
#include <sys/random.h>

enum { RANDOM_BYTES = TOKEN_BYTES / 2, DIGEST_BYTES = KEEPER_NAME_BYTES / 2 };

static void put_hex(const uint8_t *bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++) {
        *out++ = "0123456789abcdef"[bytes[i] >> 4];
        *out++ = "0123456789abcdef"[bytes[i] & 15];
    }
}

enum status token_make(char out[TOKEN_BYTES + 1])
{
    uint8_t random[RANDOM_BYTES];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return ST_IO;
    put_hex(random, sizeof random, out);
    out[TOKEN_BYTES] = '\0';
    return ST_OK;
}

bool token_valid(struct slice token)
{
    if (token.len != TOKEN_BYTES)
        return false;
    for (size_t i = 0; i < token.len; i++)
        if (!(token.data[i] >= '0' && token.data[i] <= '9') &&
            !(token.data[i] >= 'a' && token.data[i] <= 'f'))
            return false;
    return true;
}

enum status token_name(struct slice token, struct slice user, char out[KEEPER_NAME_BYTES])
{
    static const char prefix[] = "tidegate session\n";
    uint8_t bytes[sizeof prefix - 1 + TOKEN_BYTES + PRINCIPAL_USER_BYTES_MAX], digest[DIGEST_BYTES];
    size_t bytes_len = sizeof prefix - 1 + TOKEN_BYTES;
    unsigned len = sizeof digest;
    assert(user.len <= PRINCIPAL_USER_BYTES_MAX);
    memcpy(bytes, prefix, sizeof prefix - 1);
    memcpy(bytes + sizeof prefix - 1, token.data, TOKEN_BYTES);
    if (user.len > 0) /* the token has one length, so what follows is the user */
        memcpy(bytes + bytes_len, user.data, user.len);
    if (EVP_Digest(bytes, bytes_len + user.len, digest, &len, EVP_sha256(), NULL) != 1)
        return ST_NO_MEMORY;
    put_hex(digest, sizeof digest, out);
    return ST_OK;
}
