#include "gateway/auth/scrypt.h"

#include "core/base64.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/random.h>

enum { LN_DEFAULT = 15, R_DEFAULT = 8, P_DEFAULT = 1, LN_MIN = 10, LN_MAX = 20, R_MAX = 16, P_MAX = 16 };
static const uint64_t memory_bytes_max = UINT64_C(1) << 30;

static uint64_t memory_bytes(const struct scrypt *s)
{
    return (UINT64_C(128) * s->r << s->ln) + (uint64_t)128 * s->r * s->p + (1 << 20);
}

static enum status derive(const struct scrypt *s, struct slice password, uint8_t out[SCRYPT_HASH_BYTES])
{
    return EVP_PBE_scrypt((const char *)password.data, password.len, s->salt, sizeof s->salt,
                          UINT64_C(1) << s->ln, s->r, s->p, memory_bytes(s), out, SCRYPT_HASH_BYTES) == 1
               ? ST_OK
               : ST_NO_MEMORY;
}

enum status scrypt_make(struct slice password, struct scrypt *out)
{
    *out = (struct scrypt){.ln = LN_DEFAULT, .r = R_DEFAULT, .p = P_DEFAULT};
    if (getrandom(out->salt, sizeof out->salt, 0) != (ssize_t)sizeof out->salt)
        return ST_IO;
    return derive(out, password, out->hash);
}

enum status scrypt_check(const struct scrypt *s, struct slice password)
{
    uint8_t hash[SCRYPT_HASH_BYTES];
    enum status st = derive(s, password, hash);
    if (st == ST_OK && CRYPTO_memcmp(hash, s->hash, sizeof hash) != 0)
        st = ST_FORBIDDEN;
    OPENSSL_cleanse(hash, sizeof hash);
    return st;
}

/* Standard base64 whose padding is left out. */
static enum status put_base64(struct slice bytes, struct buf *out)
{
    enum status st = base64_encode(bytes, out);
    while (st == ST_OK && out->len > 0 && out->data[out->len - 1] == '=')
        out->len--;
    return st;
}

enum status scrypt_write(const struct scrypt *s, struct buf *out)
{
    enum status st = buf_printf(out, "$scrypt$ln=%u,r=%u,p=%u$", s->ln, s->r, s->p);
    if (st == ST_OK)
        st = put_base64(slice_of(s->salt, sizeof s->salt), out);
    if (st == ST_OK)
        st = buf_put_byte(out, '$');
    return st == ST_OK ? put_base64(slice_of(s->hash, sizeof s->hash), out) : st;
}

/* Exactly `size` bytes, with the padding that is not written. */
static bool read_base64(struct slice text, uint8_t *bytes, size_t size)
{
    uint8_t padded[64], space[64];
    struct buf out = {.data = space, .cap = sizeof space, .limit = sizeof space};
    size_t len = (text.len + 3) / 4 * 4;
    if (text.len == 0 || len > sizeof padded)
        return false;
    memset(padded, '=', len);
    memcpy(padded, text.data, text.len);
    if (base64_decode(slice_of(padded, len), &out) != ST_OK || out.len != size)
        return false;
    memcpy(bytes, out.data, size);
    return true;
}

enum status scrypt_read(struct slice text, struct scrypt *out)
{
    enum { TEXT_BYTES_MAX = 256 };
    char copy[TEXT_BYTES_MAX + 1];
    unsigned ln, r, p;
    int used = 0;
    struct scrypt s;
    if (text.len > TEXT_BYTES_MAX || (text.len > 0 && memchr(text.data, '\0', text.len)))
        return ST_INVALID;
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    if (sscanf(copy, "$scrypt$ln=%2u,r=%2u,p=%2u$%n", &ln, &r, &p, &used) != 3 || used == 0 || ln < LN_MIN ||
        ln > LN_MAX || r < 1 || r > R_MAX || p < 1 || p > P_MAX)
        return ST_INVALID;
    s = (struct scrypt){.ln = (uint8_t)ln, .r = (uint8_t)r, .p = (uint8_t)p};
    struct slice rest = slice_from(slice_cstr(copy), (size_t)used);
    const uint8_t *mark = rest.len > 0 ? memchr(rest.data, '$', rest.len) : NULL;
    size_t salt_len = mark ? (size_t)(mark - rest.data) : 0;
    if (!mark || memory_bytes(&s) > memory_bytes_max ||
        !read_base64(slice_of(rest.data, salt_len), s.salt, sizeof s.salt) ||
        !read_base64(slice_from(rest, salt_len + 1), s.hash, sizeof s.hash))
        return ST_INVALID;
    *out = s;
    return ST_OK;
}
