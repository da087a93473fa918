#include "gateway/auth/mint.h"

#include "core/base64.h"
#include "gateway/auth/keys.h"

#include <jansson.h>
#include <stdlib.h>

/* False: no memory, or there is one of that name already. Takes over `value`. */
static bool put(json_t *claims, const char *name, json_t *value)
{
    if (value && !json_object_get(claims, name))
        return json_object_set_new(claims, name, value) == 0;
    json_decref(value);
    return false;
}

static bool put_text(json_t *claims, const char *name, struct slice text)
{
    return text.len == 0 || put(claims, name, json_stringn((const char *)text.data, text.len));
}

static json_t *make_claims(const struct mint_claims *c)
{
    json_t *claims = c->more.len > 0
                         ? json_loadb((const char *)c->more.data, c->more.len, JSON_REJECT_DUPLICATES, NULL)
                         : json_object();
    if (json_is_object(claims) && put_text(claims, "sub", c->user) && put_text(claims, "jti", c->token_id) &&
        put_text(claims, "iss", c->issuer) && put_text(claims, "aud", c->audience) &&
        put(claims, "iat", json_integer((json_int_t)(c->now_ms / 1000))) &&
        (c->ttl_ms == 0 || put(claims, "exp", json_integer((json_int_t)((c->now_ms + c->ttl_ms) / 1000)))))
        return claims;
    json_decref(claims);
    return NULL;
}

enum status mint_token(struct slice secret, const struct mint_claims *claims, struct buf *out)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    uint8_t signature[32];
    size_t before = out->len;
    json_t *object = make_claims(claims);
    char *payload = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!payload)
        return ST_INVALID;
    enum status st = base64url_encode(slice_cstr(header), out);
    if (st == ST_OK)
        st = buf_put_byte(out, '.');
    if (st == ST_OK)
        st = base64url_encode(slice_cstr(payload), out);
    if (st == ST_OK)
        st = keys_sign_hs256(secret, slice_from(buf_slice(out), before), signature);
    if (st == ST_OK)
        st = buf_put_byte(out, '.');
    if (st == ST_OK)
        st = base64url_encode(slice_of(signature, sizeof signature), out);
    free(payload);
    return st;
}
