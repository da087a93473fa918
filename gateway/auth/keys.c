/* Keys and signatures by OpenSSL 3 (ADR 9). A JWK becomes a key by its numbers (OSSL_PARAM); an ECDSA
 * signature of a token is two numbers of 32 bytes (RFC 7518, 3.4), OpenSSL wants them in DER. */
#include "gateway/auth/keys.h"

#include "core/base64.h"
#include "core/json.h"

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    SECRET_BYTES_MIN = 32,
    SECRET_BYTES_MAX = 1024,
    RSA_BITS_MIN = 2048,
    RSA_BITS_MAX = 8192,
    NUMBER_BYTES_MAX = 1024, /* of a JWK */
    P256_BYTES = 32,
    DER_BYTES_MAX = 2 * P256_BYTES + 16,
};

struct key {
    enum jwt_alg alg;
    bool has_id;
    uint8_t id[JWT_KEY_ID_BYTES_MAX];
    size_t id_len;
    EVP_PKEY *public_key; /* RS256, ES256 */
    uint8_t *secret; /* HS256 */
    size_t secret_len;
};

struct keys {
    atomic_uint refs;
    size_t count;
    struct key keys[KEYS_MAX];
};

/* --- sets --------------------------------------------------------------------------------------- */

enum status keys_create(struct keys **out)
{
    struct keys *k = calloc(1, sizeof *k);
    if (!k)
        return ST_NO_MEMORY;
    atomic_init(&k->refs, 1);
    *out = k;
    return ST_OK;
}

struct keys *keys_ref(struct keys *k)
{
    if (k)
        atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

static void key_drop(struct key *key)
{
    EVP_PKEY_free(key->public_key);
    if (key->secret)
        OPENSSL_cleanse(key->secret, key->secret_len);
    free(key->secret);
}

void keys_unref(struct keys *k)
{
    /* Release what we have read; acquire what others have, before it is freed. */
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < k->count; i++)
        key_drop(&k->keys[i]);
    free(k);
}

size_t keys_count(const struct keys *k)
{
    return k ? k->count : 0;
}

/* A new key at the end, counted once it is whole. NULL: too many, or too long a name. */
static struct key *next_key(struct keys *k, enum jwt_alg alg, struct slice id)
{
    if (k->count == KEYS_MAX || id.len > JWT_KEY_ID_BYTES_MAX)
        return NULL;
    struct key *key = &k->keys[k->count];
    *key = (struct key){.alg = alg, .has_id = id.data != NULL, .id_len = id.len};
    if (key->has_id)
        memcpy(key->id, id.data, id.len);
    return key;
}

enum status keys_add_secret(struct keys *k, struct slice key_id, struct slice secret)
{
    if (secret.len < SECRET_BYTES_MIN || secret.len > SECRET_BYTES_MAX)
        return ST_INVALID;
    struct key *key = next_key(k, JWT_HS256, key_id);
    if (!key)
        return ST_FULL;
    key->secret = malloc(secret.len);
    if (!key->secret)
        return ST_NO_MEMORY;
    memcpy(key->secret, secret.data, secret.len);
    key->secret_len = secret.len;
    k->count++;
    return ST_OK;
}

/* Takes over `public_key` when ST_OK. ST_UNSUPPORTED: of no use here. */
static enum status add_public(struct keys *k, struct slice key_id, EVP_PKEY *public_key)
{
    enum jwt_alg alg;
    char group[32] = "";
    if (EVP_PKEY_is_a(public_key, "RSA")) {
        int bits = EVP_PKEY_get_bits(public_key);
        if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
            return ST_UNSUPPORTED;
        alg = JWT_RS256;
    } else if (EVP_PKEY_is_a(public_key, "EC") &&
               EVP_PKEY_get_group_name(public_key, group, sizeof group, NULL) == 1 &&
               (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0)) {
        alg = JWT_ES256;
    } else {
        return ST_UNSUPPORTED;
    }
    struct key *key = next_key(k, alg, key_id);
    if (!key)
        return ST_FULL;
    key->public_key = public_key;
    k->count++;
    return ST_OK;
}

/* --- PEM ---------------------------------------------------------------------------------------- */

/* What one block of PEM holds. NULL: neither a public key nor a certificate. */
static EVP_PKEY *public_key_of(const char *name, const uint8_t *der, long len)
{
    EVP_PKEY *key = NULL;
    if (strcmp(name, "PUBLIC KEY") == 0) {
        key = d2i_PUBKEY(NULL, &der, len);
    } else if (strcmp(name, "CERTIFICATE") == 0) {
        X509 *certificate = d2i_X509(NULL, &der, len);
        key = certificate ? X509_get_pubkey(certificate) : NULL;
        X509_free(certificate);
    }
    return key;
}

static enum status add_pem(struct keys *k, struct slice text, struct buf *error)
{
    BIO *bio = BIO_new_mem_buf(text.len > 0 ? (const char *)text.data : "", (int)text.len);
    char *name, *header;
    unsigned char *der;
    long len;
    size_t before = k->count;
    enum status st = bio ? ST_OK : ST_NO_MEMORY;
    while (st == ST_OK && PEM_read_bio(bio, &name, &header, &der, &len) == 1) {
        EVP_PKEY *key = public_key_of(name, der, len);
        st = key ? add_public(k, (struct slice){0}, key) : ST_UNSUPPORTED;
        if (st != ST_OK) {
            EVP_PKEY_free(key);
            enum status told = buf_printf(
                error, "a block '%s' is no public key or certificate of RSA (2,048 to 8,192 bits) or P-256",
                name);
            (void)told;
            st = st == ST_UNSUPPORTED ? ST_INVALID : st;
        }
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_clear_free(der, (size_t)(len > 0 ? len : 0));
    }
    ERR_clear_error();
    BIO_free(bio);
    if (st == ST_OK && k->count == before) {
        st = buf_put_cstr(error, "it holds no whole block of PEM (-----BEGIN PUBLIC KEY-----)");
        st = ST_INVALID;
    }
    return st;
}

/* --- JWK ---------------------------------------------------------------------------------------- */

static struct slice member_text(const json_t *jwk, const char *name)
{
    const json_t *v = json_object_get(jwk, name);
    return json_is_string(v) ? slice_of(json_string_value(v), json_string_length(v)) : (struct slice){0};
}

/* A member in base64url as bytes of `space`; empty when it is absent or no such text. */
static struct slice member_bytes(const json_t *jwk, const char *name, uint8_t space[NUMBER_BYTES_MAX])
{
    struct buf out = {.data = space, .cap = NUMBER_BYTES_MAX, .limit = NUMBER_BYTES_MAX};
    struct slice text = member_text(jwk, name);
    if (!text.data || base64url_decode(text, &out) != ST_OK)
        return (struct slice){0};
    return buf_slice(&out);
}

/* NULL: no memory, or nothing that OpenSSL takes for a key. */
static EVP_PKEY *key_from_params(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *rsa_from_jwk(const json_t *jwk)
{
    uint8_t n_space[NUMBER_BYTES_MAX], e_space[NUMBER_BYTES_MAX];
    struct slice n = member_bytes(jwk, "n", n_space), e = member_bytes(jwk, "e", e_space);
    if (n.len == 0 || e.len == 0 || e.len > 8)
        return NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *modulus = BN_bin2bn(n.data, (int)n.len, NULL), *exponent = BN_bin2bn(e.data, (int)e.len, NULL);
    EVP_PKEY *key = NULL;
    if (build && modulus && exponent && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) == 1)
        key = key_from_params("RSA", build);
    BN_free(modulus);
    BN_free(exponent);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static EVP_PKEY *ec_from_jwk(const json_t *jwk)
{
    uint8_t x_space[NUMBER_BYTES_MAX], y_space[NUMBER_BYTES_MAX], point[1 + 2 * P256_BYTES] = {0x04};
    struct slice x = member_bytes(jwk, "x", x_space), y = member_bytes(jwk, "y", y_space);
    if (!slice_equal_cstr(member_text(jwk, "crv"), "P-256") || x.len != P256_BYTES || y.len != P256_BYTES)
        return NULL;
    memcpy(point + 1, x.data, P256_BYTES);
    memcpy(point + 1 + P256_BYTES, y.data, P256_BYTES);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (build && OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point) == 1)
        key = key_from_params("EC", build);
    OSSL_PARAM_BLD_free(build);
    return key;
}

/* The key says what it is for: `use` and `alg`, when they are given, must agree with what we would do. */
static bool jwk_is_for(const json_t *jwk, const char *alg)
{
    struct slice use = member_text(jwk, "use"), named = member_text(jwk, "alg");
    return (!use.data || slice_equal_cstr(use, "sig")) && (!named.data || slice_equal_cstr(named, alg));
}

static enum status add_jwk(struct keys *k, const json_t *jwk)
{
    struct slice type = member_text(jwk, "kty"), id = member_text(jwk, "kid");
    EVP_PKEY *key = NULL;
    if (slice_equal_cstr(type, "oct") && jwk_is_for(jwk, "HS256")) {
        uint8_t space[NUMBER_BYTES_MAX];
        enum status st = keys_add_secret(k, id, member_bytes(jwk, "k", space));
        OPENSSL_cleanse(space, sizeof space);
        return st == ST_INVALID ? ST_UNSUPPORTED : st;
    }
    if (slice_equal_cstr(type, "RSA") && jwk_is_for(jwk, "RS256"))
        key = rsa_from_jwk(jwk);
    else if (slice_equal_cstr(type, "EC") && jwk_is_for(jwk, "ES256"))
        key = ec_from_jwk(jwk);
    ERR_clear_error();
    enum status st = key ? add_public(k, id, key) : ST_UNSUPPORTED;
    if (st != ST_OK)
        EVP_PKEY_free(key);
    return st;
}

static enum status add_jwk_set(struct keys *k, struct slice text, struct buf *error)
{
    json_error_t flaw;
    json_t *root = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &flaw), *jwk;
    if (root && !json_valid(text)) {
        json_decref(root);
        root = NULL;
        snprintf(flaw.text, sizeof flaw.text, "its JSON is nested deeper than limit.json_depth");
    }
    json_t *list = json_object_get(root, "keys");
    size_t before = k->count, i;
    enum status st = ST_OK;
    json_array_foreach(list, i, jwk)
    {
        st = add_jwk(k, jwk);
        if (st != ST_OK && st != ST_UNSUPPORTED)
            break;
        st = ST_OK;
    }
    if (!root || !json_is_array(list))
        st = buf_printf(error, "it is no JWK set: %s",
                        root ? "an object with an array \"keys\" is wanted" : flaw.text);
    else if (st == ST_FULL)
        st = buf_printf(error, "it holds too many keys (at most %d in all)", KEYS_MAX);
    else if (st == ST_OK && k->count == before)
        st = buf_put_cstr(error, "none of its keys can verify HS256, RS256 or ES256");
    json_decref(root);
    if (error->len > 0)
        return ST_INVALID;
    return st;
}

enum status keys_add(struct keys *k, struct slice text, struct buf *error)
{
    size_t at = 0;
    while (at < text.len &&
           (text.data[at] == ' ' || text.data[at] == '\t' || text.data[at] == '\r' || text.data[at] == '\n'))
        at++;
    if (text.len > KEYS_FILE_BYTES_MAX) {
        enum status told = buf_put_cstr(error, "it is too large");
        (void)told;
        return ST_INVALID;
    }
    return at < text.len && text.data[at] == '{' ? add_jwk_set(k, text, error) : add_pem(k, text, error);
}

/* --- signatures --------------------------------------------------------------------------------- */

enum status keys_sign_hs256(struct slice secret, struct slice text, uint8_t out[32])
{
    unsigned len = 32;
    return HMAC(EVP_sha256(), secret.data, (int)secret.len, text.data, text.len, out, &len) ? ST_OK
                                                                                            : ST_NO_MEMORY;
}

static bool verify_hs256(const struct key *key, const struct jwt *t)
{
    uint8_t want[32];
    return t->signature_len == sizeof want &&
           keys_sign_hs256(slice_of(key->secret, key->secret_len), t->signed_text, want) == ST_OK &&
           CRYPTO_memcmp(want, t->signature, sizeof want) == 0;
}

static bool verify_digest(EVP_PKEY *key, struct slice signature, struct slice text)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(ctx, signature.data, signature.len, text.data, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

static bool verify_es256(const struct key *key, const struct jwt *t)
{
    uint8_t der[DER_BYTES_MAX], *at = der;
    if (t->signature_len != 2 * P256_BYTES)
        return false;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(t->signature, P256_BYTES, NULL),
           *s = BN_bin2bn(t->signature + P256_BYTES, P256_BYTES, NULL);
    bool good = false;
    if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = s = NULL; /* the pair's now */
        int len = i2d_ECDSA_SIG(pair, NULL);
        if (len > 0 && len <= DER_BYTES_MAX && i2d_ECDSA_SIG(pair, &at) == len)
            good = verify_digest(key->public_key, slice_of(der, (size_t)len), t->signed_text);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(pair);
    return good;
}

static bool verify_with(const struct key *key, const struct jwt *t)
{
    switch (key->alg) {
    case JWT_HS256:
        return verify_hs256(key, t);
    case JWT_RS256:
        return verify_digest(key->public_key, slice_of(t->signature, t->signature_len), t->signed_text);
    case JWT_ES256:
        return verify_es256(key, t);
    case JWT_ALG_COUNT:
    default:
        return false;
    }
}

enum status keys_verify(const struct keys *k, const struct jwt *t)
{
    struct slice id = slice_of(t->key_id, t->key_id_len);
    unsigned tried = 0;
    for (size_t i = 0; k && i < k->count && tried < KEYS_TRIED_MAX; i++) {
        const struct key *key = &k->keys[i];
        if (key->alg != t->alg ||
            (t->has_key_id && key->has_id && !slice_equal(id, slice_of(key->id, key->id_len))))
            continue;
        tried++;
        if (verify_with(key, t))
            return ST_OK;
    }
    return tried > 0 ? ST_FORBIDDEN : ST_NOT_FOUND;
}
