/* part: auth
 * A token from its bytes to a principal: nothing that is not signed gets through, and whatever is in a signed
 * one, claims are refused or make a principal whose rights can be asked. The first byte says what the rest
 * is: a token as it comes, or claims that are signed here. */
#include "core/base64.h"
#include "gateway/auth/claims.h"
#include "gateway/auth/keys.h"

#include <assert.h>
#include <stdlib.h>

static const uint8_t secret[32] = "0123456789abcdef0123456789abcde";
static const uint8_t header[] = "{\"alg\":\"HS256\"}";

static struct keys *own_keys(void)
{
    static struct keys *k;
    if (!k) {
        enum status st = keys_create(&k);
        assert(st == ST_OK);
        st = keys_add_secret(k, (struct slice){0}, slice_of(secret, sizeof secret));
        assert(st == ST_OK);
    }
    return k;
}

static void judge_claims(struct slice payload)
{
    static const struct claims_rules rules = {.issuers = "", .audiences = ""};
    static const char *const topics[] = {"a", "a/b", "$user/x", "$SYS/x", "#", "+/+", "$user/+"};
    struct principal *p;
    if (claims_read(payload, &rules, UINT64_C(1700000000000), &p) != AUTH_OK)
        return;
    assert(p->user.len > 0 && p->user.len <= PRINCIPAL_USER_BYTES_MAX);
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        for (unsigned op = 0; op < ACL_OP_COUNT; op++) {
            bool may = principal_may(p, (enum access_op)op, slice_cstr(topics[i]), slice_cstr("c"));
            /* Somebody else's inbox is read by administrators alone. */
            assert(!may || p->admin || i != 6 || op == ACL_PUBLISH || op == ACL_PRESENCE);
        }
    principal_unref(p);
}

static void signed_token(struct slice payload)
{
    struct buf token;
    struct jwt t;
    uint8_t mac[32];
    buf_init(&token, 1 << 20);
    enum status st = base64url_encode(slice_of(header, sizeof header - 1), &token);
    st = st == ST_OK ? buf_put_byte(&token, '.') : st;
    st = st == ST_OK ? base64url_encode(payload, &token) : st;
    st = st == ST_OK ? keys_sign_hs256(slice_of(secret, sizeof secret), buf_slice(&token), mac) : st;
    st = st == ST_OK ? buf_put_byte(&token, '.') : st;
    st = st == ST_OK ? base64url_encode(slice_of(mac, sizeof mac), &token) : st;
    if (st == ST_OK && jwt_open(buf_slice(&token), &t) == ST_OK) {
        st = keys_verify(own_keys(), &t);
        assert(st == ST_OK);
        assert(slice_equal(buf_slice(&t.payload), payload));
        judge_claims(buf_slice(&t.payload));
        jwt_close(&t);
    }
    buf_deinit(&token);
}

static void any_token(struct slice text)
{
    struct jwt t;
    struct buf error;
    (void)jwt_looks_like(text);
    if (jwt_open(text, &t) == ST_OK) {
        enum status st = keys_verify(own_keys(), &t);
        assert(st != ST_OK); /* who finds one has broken HMAC-SHA-256 */
        jwt_close(&t);
    }
    struct keys *k;
    buf_init(&error, 4096);
    if (keys_create(&k) == ST_OK && keys_add(k, text, &error) == ST_OK)
        assert(keys_count(k) > 0);
    keys_unref(k);
    buf_deinit(&error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice rest = slice_of(data + 1, size - 1);
    if (data[0] & 1)
        signed_token(rest);
    else
        any_token(rest);
    return 0;
}
