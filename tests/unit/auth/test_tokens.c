/* Tokens from their bytes to a principal. Made here by OpenSSL and our own base64, checked by what keys, jwt
 * and claims say; those of another library are checked in tests/e2e. */
#include "core/base64.h"
#include "core/json.h"
#include "gateway/auth/claims.h"
#include "gateway/auth/keys.h"
#include "gateway/auth/mint.h"

#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/ecdsa.h>
#include <openssl/pem.h>

enum { NOW_S = 1700000000 };
static const uint64_t now_ms = NOW_S * UINT64_C(1000) + 500;
static const char secret_text[] = "0123456789abcdef0123456789abcdef";

static struct slice secret(void)
{
    return slice_of(secret_text, 32);
}

static struct keys *secret_keys(void)
{
    struct keys *k;
    cr_assert_eq(keys_create(&k), ST_OK);
    cr_assert_eq(keys_add_secret(k, (struct slice){0}, secret()), ST_OK);
    return k;
}

static void put_part(struct buf *b, const char *text, char end)
{
    cr_assert_eq(base64url_encode(slice_cstr(text), b), ST_OK);
    if (end)
        cr_assert_eq(buf_put_byte(b, (uint8_t)end), ST_OK);
}

/* header.payload. and no signature yet */
static struct buf unsigned_token(const char *header, const char *payload)
{
    struct buf b;
    buf_init(&b, 65536);
    put_part(&b, header, '.');
    put_part(&b, payload, 0);
    return b;
}

static struct buf hs256(const char *header, const char *payload)
{
    uint8_t mac[32];
    struct buf b = unsigned_token(header, payload);
    cr_assert_eq(keys_sign_hs256(secret(), buf_slice(&b), mac), ST_OK);
    cr_assert_eq(buf_put_byte(&b, '.'), ST_OK);
    cr_assert_eq(base64url_encode(slice_of(mac, 32), &b), ST_OK);
    return b;
}

/* By a private key; ES256 as two numbers. */
static struct buf by_key(EVP_PKEY *key, bool ec, const char *header, const char *payload)
{
    uint8_t der[1024], numbers[64];
    size_t len = sizeof der;
    struct buf b = unsigned_token(header, payload);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    cr_assert_eq(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    cr_assert_eq(EVP_DigestSign(ctx, der, &len, b.data, b.len), 1);
    EVP_MD_CTX_free(ctx);
    struct slice signature = slice_of(der, len);
    if (ec) {
        const uint8_t *at = der;
        ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)len);
        cr_assert(pair && BN_bn2binpad(ECDSA_SIG_get0_r(pair), numbers, 32) == 32 &&
                  BN_bn2binpad(ECDSA_SIG_get0_s(pair), numbers + 32, 32) == 32);
        ECDSA_SIG_free(pair);
        signature = slice_of(numbers, 64);
    }
    cr_assert_eq(buf_put_byte(&b, '.'), ST_OK);
    cr_assert_eq(base64url_encode(signature, &b), ST_OK);
    return b;
}

static struct buf pem_of(EVP_PKEY *key)
{
    struct buf b;
    char *text;
    BIO *bio = BIO_new(BIO_s_mem());
    cr_assert_eq(PEM_write_bio_PUBKEY(bio, key), 1);
    long len = BIO_get_mem_data(bio, &text);
    buf_init(&b, 65536);
    cr_assert_eq(buf_put(&b, slice_of(text, (size_t)len)), ST_OK);
    BIO_free(bio);
    return b;
}

static enum status add(struct keys *k, struct slice text)
{
    struct buf error;
    buf_init(&error, 1024);
    enum status st = keys_add(k, text, &error);
    cr_expect_eq(st == ST_OK, error.len == 0, "%.*s", SLICE_ARG(buf_slice(&error)));
    buf_deinit(&error);
    return st;
}

/* What keys say of a token; ST_INVALID and the like when it cannot be opened. Frees it. */
static enum status verified(const struct keys *k, struct buf token)
{
    struct jwt t;
    enum status st = jwt_open(buf_slice(&token), &t);
    if (st == ST_OK) {
        st = keys_verify(k, &t);
        jwt_close(&t);
    }
    buf_deinit(&token);
    return st;
}

static const char plain[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", subject[] = "{\"sub\":\"ann\"}";

Test(tokens, one_that_was_signed_is_good_and_no_other)
{
    struct keys *k = secret_keys();
    cr_expect_eq(verified(k, hs256(plain, subject)), ST_OK);
    cr_expect_eq(verified(k, hs256("{\"typ\":\"JWT\",\"alg\":\"HS256\",\"kid\":\"any\"}", subject)), ST_OK);
    struct buf good = hs256(plain, subject);
    for (size_t i = 0; i < good.len; i++) { /* every letter counts */
        struct buf t = hs256(plain, subject);
        t.data[i] = t.data[i] == 'A' ? 'B' : 'A';
        if (!slice_equal(buf_slice(&t), buf_slice(&good)))
            cr_expect_neq(verified(k, t), ST_OK, "byte %zu", i);
        else
            buf_deinit(&t);
    }
    for (size_t len = 0; len < good.len; len++) {
        struct buf t = hs256(plain, subject);
        t.len = len;
        cr_expect_neq(verified(k, t), ST_OK, "cut to %zu", len);
    }
    buf_deinit(&good);
    keys_unref(k);
}

Test(tokens, headers_that_are_not_taken)
{
    static const struct {
        const char *header;
        enum status want;
    } rows[] = {
        {"{\"alg\":\"none\"}", ST_UNSUPPORTED},
        {"{\"alg\":\"None\"}", ST_UNSUPPORTED},
        {"{\"alg\":\"hs256\"}", ST_UNSUPPORTED},
        {"{\"alg\":\"HS512\"}", ST_UNSUPPORTED},
        {"{\"alg\":null}", ST_UNSUPPORTED},
        {"{\"alg\":[\"HS256\"]}", ST_UNSUPPORTED},
        {"{\"alg\":\"HS256\",\"alg\":\"none\"}", ST_INVALID},
        {"{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", ST_UNSUPPORTED},
        {"{\"alg\":\"HS256\",\"kid\":5}", ST_INVALID},
        {"{}", ST_INVALID},
        {"[]", ST_INVALID},
        {"{\"alg\":\"HS256\"", ST_INVALID},
        {"", ST_INVALID},
    };
    struct keys *k = secret_keys();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(verified(k, hs256(rows[i].header, subject)), rows[i].want, "%s", rows[i].header);
    struct buf bare = unsigned_token("{\"alg\":\"none\"}", subject);
    cr_assert_eq(buf_put_byte(&bare, '.'), ST_OK);
    cr_expect_eq(verified(k, bare), ST_UNSUPPORTED);
    cr_expect_eq(verified(k, hs256("{\"alg\":\"RS256\"}", subject)), ST_NOT_FOUND);
    keys_unref(k);
}

Test(tokens, public_keys_of_pem_and_no_confusion)
{
    static const char rs[] = "{\"alg\":\"RS256\"}", es[] = "{\"alg\":\"ES256\"}";
    EVP_PKEY *rsa = EVP_RSA_gen(2048), *ec = EVP_EC_gen("P-256"), *small = EVP_RSA_gen(1024),
             *p384 = EVP_EC_gen("P-384"), *other = EVP_RSA_gen(2048);
    struct buf rsa_pem = pem_of(rsa), ec_pem = pem_of(ec), small_pem = pem_of(small), p384_pem = pem_of(p384),
               both;
    struct keys *k;
    cr_assert_eq(keys_create(&k), ST_OK);
    buf_init(&both, 65536);
    cr_assert_eq(buf_put(&both, buf_slice(&rsa_pem)), ST_OK);
    cr_assert_eq(buf_put(&both, buf_slice(&ec_pem)), ST_OK);
    cr_expect_eq(add(k, buf_slice(&small_pem)), ST_INVALID);
    cr_expect_eq(add(k, buf_slice(&p384_pem)), ST_INVALID);
    cr_expect_eq(add(k, slice_cstr("hello")), ST_INVALID);
    cr_expect_eq(add(k, (struct slice){0}), ST_INVALID);
    cr_expect_eq(keys_count(k), 0u);
    cr_expect_eq(verified(k, by_key(rsa, false, rs, subject)), ST_NOT_FOUND);
    cr_assert_eq(add(k, buf_slice(&both)), ST_OK);
    cr_expect_eq(keys_count(k), 2u);
    cr_expect_eq(verified(k, by_key(rsa, false, rs, subject)), ST_OK);
    cr_expect_eq(verified(k, by_key(ec, true, es, subject)), ST_OK);
    cr_expect_eq(verified(k, by_key(ec, false, es, subject)), ST_FORBIDDEN, "DER is not what RFC 7518 says");
    cr_expect_eq(verified(k, by_key(other, false, rs, subject)), ST_FORBIDDEN);
    cr_expect_eq(verified(k, by_key(rsa, false, es, subject)), ST_FORBIDDEN);
    cr_expect_eq(verified(k, by_key(ec, true, rs, subject)), ST_FORBIDDEN);
    /* The public key as the secret of an HMAC: there is no secret here, and nobody takes one for it. */
    uint8_t mac[32];
    struct buf confused = unsigned_token(plain, subject);
    cr_assert_eq(keys_sign_hs256(buf_slice(&rsa_pem), buf_slice(&confused), mac), ST_OK);
    cr_assert_eq(buf_put_byte(&confused, '.'), ST_OK);
    cr_assert_eq(base64url_encode(slice_of(mac, 32), &confused), ST_OK);
    cr_expect_eq(verified(k, confused), ST_NOT_FOUND);
    buf_deinit(&rsa_pem);
    buf_deinit(&ec_pem);
    buf_deinit(&small_pem);
    buf_deinit(&p384_pem);
    buf_deinit(&both);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(small);
    EVP_PKEY_free(p384);
    EVP_PKEY_free(other);
    keys_unref(k);
}

static void put_number(struct buf *b, const char *name, const BIGNUM *n, int width)
{
    uint8_t bytes[512];
    int len = width ? BN_bn2binpad(n, bytes, width) : BN_bn2bin(n, bytes);
    cr_assert_gt(len, 0);
    cr_assert_eq(buf_printf(b, ",\"%s\":\"", name), ST_OK);
    cr_assert_eq(base64url_encode(slice_of(bytes, (size_t)len), b), ST_OK);
    cr_assert_eq(buf_put_byte(b, '"'), ST_OK);
}

static void put_jwk(struct buf *b, const char *id, EVP_PKEY *key, bool ec, const char *more)
{
    static const char *const names[2][2] = {{"n", "e"}, {"qx", "qy"}};
    BIGNUM *first = NULL, *second = NULL;
    cr_assert_eq(EVP_PKEY_get_bn_param(key, names[ec][0], &first), 1);
    cr_assert_eq(EVP_PKEY_get_bn_param(key, names[ec][1], &second), 1);
    cr_assert_eq(buf_printf(b, "%s{\"kty\":\"%s\",\"kid\":\"%s\"%s", b->len > 10 ? "," : "",
                            ec ? "EC" : "RSA", id, more),
                 ST_OK);
    put_number(b, ec ? "x" : "n", first, ec ? 32 : 0);
    put_number(b, ec ? "y" : "e", second, ec ? 32 : 0);
    cr_assert_eq(buf_put_byte(b, '}'), ST_OK);
    BN_free(first);
    BN_free(second);
}

Test(tokens, keys_of_a_jwk_set_by_their_names)
{
    EVP_PKEY *one = EVP_RSA_gen(2048), *two = EVP_RSA_gen(2048), *ec = EVP_EC_gen("P-256");
    struct buf set;
    struct keys *k;
    cr_assert_eq(keys_create(&k), ST_OK);
    buf_init(&set, 65536);
    cr_assert_eq(buf_put_cstr(&set, "{\"keys\":["), ST_OK);
    put_jwk(&set, "one", one, false, ",\"use\":\"sig\",\"alg\":\"RS256\"");
    put_jwk(&set, "two", two, false, "");
    put_jwk(&set, "ec", ec, true, ",\"crv\":\"P-256\"");
    put_jwk(&set, "enc", two, false, ",\"use\":\"enc\"");
    cr_assert_eq(
        buf_put_cstr(
            &set, ",{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"},{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"),
        ST_OK);
    cr_assert_eq(add(k, buf_slice(&set)), ST_OK);
    cr_expect_eq(keys_count(k), 3u);
    static const char named[][40] = {
        "{\"alg\":\"RS256\",\"kid\":\"one\"}", "{\"alg\":\"RS256\",\"kid\":\"two\"}",
        "{\"alg\":\"RS256\",\"kid\":\"enc\"}", "{\"alg\":\"ES256\",\"kid\":\"ec\"}",
        "{\"alg\":\"ES256\",\"kid\":\"one\"}", "{\"alg\":\"RS256\"}"};
    cr_expect_eq(verified(k, by_key(one, false, named[0], subject)), ST_OK);
    cr_expect_eq(verified(k, by_key(two, false, named[1], subject)), ST_OK);
    cr_expect_eq(verified(k, by_key(two, false, named[0], subject)), ST_FORBIDDEN);
    cr_expect_eq(verified(k, by_key(two, false, named[2], subject)), ST_NOT_FOUND);
    cr_expect_eq(verified(k, by_key(ec, true, named[3], subject)), ST_OK);
    cr_expect_eq(verified(k, by_key(ec, true, named[4], subject)), ST_NOT_FOUND);
    cr_expect_eq(verified(k, by_key(two, false, named[5], subject)), ST_OK);
    cr_expect_eq(add(k, slice_cstr("{\"keys\":[]}")), ST_INVALID);
    cr_expect_eq(add(k, slice_cstr("{\"keys\":{}}")), ST_INVALID);
    cr_expect_eq(add(k, slice_cstr("{\"keys\":[")), ST_INVALID);
    buf_deinit(&set);
    EVP_PKEY_free(one);
    EVP_PKEY_free(two);
    EVP_PKEY_free(ec);
    keys_unref(k);
}

/* --- claims ------------------------------------------------------------------------------------- */

static const struct claims_rules strict = {
    .issuers = "https://a\nhttps://b", .audiences = "tide\ngate", .leeway_ms = 2000};
static const struct claims_rules open_rules = {.issuers = "", .audiences = ""};

static enum auth_verdict judged(const struct claims_rules *rules, const char *claims)
{
    struct principal *p;
    enum auth_verdict v = claims_read(slice_cstr(claims), rules, now_ms, &p);
    if (v == AUTH_OK)
        principal_unref(p);
    return v;
}

Test(claims, are_judged)
{
    static const struct {
        const struct claims_rules *rules;
        const char *claims;
        enum auth_verdict want;
    } rows[] = {
        {&open_rules, "{\"sub\":\"a\"}", AUTH_OK},
        {&open_rules, "{\"sub\":\"\"}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":5}", AUTH_CLAIMS},
        {&open_rules, "{}", AUTH_CLAIMS},
        {&open_rules, "[]", AUTH_MALFORMED},
        {&open_rules, "", AUTH_MALFORMED},
        {&open_rules, "{\"sub\":\"a\",\"sub\":\"b\"}", AUTH_MALFORMED},
        {&open_rules, "{\"sub\":\"a\\u0000b\"}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"exp\":1700000001}", AUTH_OK},
        {&open_rules, "{\"sub\":\"a\",\"exp\":1700000000.6}", AUTH_OK},
        {&open_rules, "{\"sub\":\"a\",\"exp\":1700000000.5}", AUTH_EXPIRED},
        {&open_rules, "{\"sub\":\"a\",\"exp\":1700000000}", AUTH_EXPIRED},
        {&open_rules, "{\"sub\":\"a\",\"exp\":0}", AUTH_EXPIRED},
        {&open_rules, "{\"sub\":\"a\",\"exp\":-1}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"exp\":\"1800000000\"}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"exp\":null}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"exp\":1e300}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"nbf\":1700000000}", AUTH_OK},
        {&open_rules, "{\"sub\":\"a\",\"nbf\":1700000001}", AUTH_NOT_YET},
        {&open_rules, "{\"sub\":\"a\",\"iat\":true}", AUTH_CLAIMS},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://b\",\"aud\":\"gate\"}", AUTH_OK},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":[\"x\",\"tide\"]}", AUTH_OK},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://\",\"aud\":\"gate\"}", AUTH_ISSUER},
        {&strict, "{\"sub\":\"a\",\"aud\":\"gate\"}", AUTH_ISSUER},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\\nhttps://b\",\"aud\":\"gate\"}", AUTH_ISSUER},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\"}", AUTH_AUDIENCE},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":[]}", AUTH_AUDIENCE},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":\"tid\"}", AUTH_AUDIENCE},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":\"tide\",\"exp\":1699999999}", AUTH_OK},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":\"tide\",\"exp\":1699999998}", AUTH_EXPIRED},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":\"tide\",\"nbf\":1700000002}", AUTH_OK},
        {&strict, "{\"sub\":\"a\",\"iss\":\"https://a\",\"aud\":\"tide\",\"nbf\":1700000003}", AUTH_NOT_YET},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":[]}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"sub\":\"x\"}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"sub\":[\"a#\"]}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"sub\":[5]}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"max_conns\":0}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"max_conns\":2}}", AUTH_OK},
        {&open_rules, "{\"sub\":\"a\",\"tidegate\":{\"admin\":1}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"acl\":{\"all\":[\"a/#/b\"]}}", AUTH_CLAIMS},
        {&open_rules, "{\"sub\":\"a\",\"channels\":[\"chat#42\",\"$x\",7]}",
         AUTH_OK}, /* no topics here: they grant nothing */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum auth_verdict got = judged(rows[i].rules, rows[i].claims);
        cr_expect_eq(got, rows[i].want, "%s: %d", rows[i].claims, got);
    }
}

/* `before`, arrays inside one another, `after` */
static struct buf nested(const char *before, int arrays, const char *after)
{
    struct buf b;
    buf_init(&b, 4096);
    cr_assert_eq(buf_printf(&b, "%s%.*s%.*s%s", before, arrays, "[[[[[[[[", arrays, "]]]]]]]]", after),
                 ST_OK);
    return b;
}

Test(claims, and_key_sets_are_nested_as_deep_as_is_allowed)
{
    struct keys *k;
    json_limit_depth(6);
    cr_assert_eq(keys_create(&k), ST_OK);
    for (int over = 0; over < 2; over++) {
        struct buf claims = nested("{\"sub\":\"a\",\"x\":", 5 + over, "}");
        struct buf set = nested("{\"x\":", 5 + over, ",\"keys\":[]}"), error;
        buf_init(&error, 256);
        cr_assert_eq(buf_put_byte(&claims, 0), ST_OK);
        enum auth_verdict v = judged(&open_rules, (const char *)claims.data);
        cr_expect_eq(v, over ? AUTH_MALFORMED : AUTH_OK, "%s: %d", (const char *)claims.data, v);
        cr_expect_eq(keys_add(k, buf_slice(&set), &error), ST_INVALID); /* at the depth: it has no key */
        cr_assert_eq(buf_put_byte(&error, 0), ST_OK);
        cr_expect_eq(strstr((const char *)error.data, "limit.json_depth") != NULL, over == 1, "%s",
                     (const char *)error.data);
        buf_deinit(&claims);
        buf_deinit(&set);
        buf_deinit(&error);
    }
    keys_unref(k);
    json_limit_depth(JSON_DEPTH_MAX);
}

Test(claims, say_what_is_permitted_whether_they_expire_or_not)
{
    /* P publish, S subscribe, H history, W presence */
    static const struct {
        const char *claims, *topic, *want;
    } rows[] = {
        {"", "a/1", "PSHW"},
        {",\"tidegate\":{\"max_conns\":3}", "a/1", "PSHW"},
        {",\"tidegate\":{\"sub\":[\"a/+\"]}", "a/1", "SHW"},
        {",\"tidegate\":{\"sub\":[\"a/+\"]}", "b", ""},
        {",\"tidegate\":{\"sub\":[\"a/+\"],\"hist\":[]}", "a/1", "SW"},
        {",\"tidegate\":{\"sub\":[\"a/+\"],\"hist\":[\"a/2\"]}", "a/2", "SHW"},
        {",\"tidegate\":{\"pub\":[\"u/%u/#\"]}", "u/ann/x", "P"},
        {",\"tidegate\":{\"pub\":[\"u/%u/#\"]}", "u/bob/x", ""},
        {",\"tidegate\":{\"pub\":[]}", "a", ""},
        {",\"acl\":{\"all\":[\"x/${username}/#\"]}", "x/ann/1", "PSHW"},
        {",\"acl\":{\"pub\":[\"t\"],\"sub\":[\"s\"]}", "t", "P"},
        {",\"acl\":{\"pub\":[\"t\"],\"sub\":[\"s\"]}", "s", "SHW"},
        {",\"channels\":[\"news\",\"chat#1\"]", "news", "SHW"},
        {",\"channels\":[]", "news", ""},
        {",\"tidegate\":{\"admin\":true,\"pub\":[]}", "a", "PSHW"},
    };
    static const char letters[] = "PSHW";
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct principal *p;
        char claims[512], got[8] = "";
        snprintf(claims, sizeof claims, "{\"sub\":\"ann\"%s%s}", i % 2 ? ",\"exp\":1800000000" : "",
                 rows[i / 2].claims);
        cr_assert_eq(claims_read(slice_cstr(claims), &open_rules, now_ms, &p), AUTH_OK, "%s", claims);
        for (unsigned op = 0; op < ACL_OP_COUNT; op++)
            if (principal_may(p, (enum access_op)op, slice_cstr(rows[i / 2].topic), (struct slice){0}))
                strncat(got, &letters[op], 1);
        cr_expect_str_eq(got, rows[i / 2].want, "%s of %s: %s", claims, rows[i / 2].topic, got);
        cr_expect(principal_may(p, ACL_SUBSCRIBE, slice_cstr("$user/ann"), (struct slice){0}));
        principal_unref(p);
    }
}

Test(claims, who_and_until_when)
{
    struct principal *p;
    cr_assert_eq(
        claims_read(
            slice_cstr(
                "{\"sub\":\"a/b\",\"jti\":\"7\",\"iat\":1600000000.25,\"exp\":1800000000,\"tidegate\":{"
                "\"max_conns\":3}}"),
            &open_rules, now_ms, &p),
        AUTH_OK);
    cr_expect(slice_equal_cstr(p->user, "a/b") && slice_equal_cstr(p->inbox_id, "a%2Fb") &&
              slice_equal_cstr(p->token_id, "7"));
    cr_expect_eq(p->issued_ms, UINT64_C(1600000000250));
    cr_expect_eq(p->expires_ms, UINT64_C(1800000000000));
    cr_expect_eq(p->connections_max, 3u);
    cr_expect_not(p->admin);
    principal_unref(p);
}

Test(tokens, of_our_own_making)
{
    struct keys *k = secret_keys();
    struct buf token;
    struct mint_claims claims = {.user = slice_cstr("ann"),
                                 .token_id = slice_cstr("j"),
                                 .now_ms = now_ms,
                                 .ttl_ms = 60000,
                                 .more = slice_cstr("{\"tidegate\":{\"pub\":[\"a\"]}}")};
    buf_init(&token, JWT_BYTES_MAX);
    cr_assert_eq(mint_token(secret(), &claims, &token), ST_OK);
    cr_expect(jwt_looks_like(buf_slice(&token)));
    cr_expect_eq(verified(k, token), ST_OK);
    buf_init(&token, JWT_BYTES_MAX);
    claims.more = slice_cstr("{\"sub\":\"bob\"}");
    cr_expect_eq(mint_token(secret(), &claims, &token), ST_INVALID);
    claims.more = slice_cstr("[]");
    cr_expect_eq(mint_token(secret(), &claims, &token), ST_INVALID);
    buf_deinit(&token);
    keys_unref(k);
    static const char *const passwords[] = {"",        "a.b.c",   "eyJ.eyJ", "e.e.e.e",
                                            "e.a b.c", "e==.a.b", "hunter2"};
    for (size_t i = 0; i < sizeof passwords / sizeof *passwords; i++)
        cr_expect_not(jwt_looks_like(slice_cstr(passwords[i])), "%s", passwords[i]);
}
