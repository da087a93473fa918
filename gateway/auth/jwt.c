/* The header decides nothing but which keys are tried: a key belongs to one algorithm (keys.c), so a token
 * that calls itself HS256 is never checked with the public half of an RSA key, and "none" has no keys at all.
 */
#include "gateway/auth/jwt.h"

#include "core/base64.h"
#include "core/json.h"

static const char *const names[JWT_ALG_COUNT] = {"HS256", "RS256", "ES256"};

const char *jwt_alg_name(enum jwt_alg alg)
{
    return names[alg];
}

static bool split(struct slice token, struct slice parts[3])
{
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *point = token.len > 0 ? memchr(token.data, '.', token.len) : NULL;
        if ((i < 2) != (point != NULL))
            return false;
        size_t len = point ? (size_t)(point - token.data) : token.len;
        parts[i] = slice_of(token.data, len);
        token = slice_from(token, len + 1);
    }
    return true;
}

static bool is_base64url(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
              c == '_'))
            return false;
    }
    return true;
}

bool jwt_looks_like(struct slice text)
{
    struct slice parts[3];
    /* '{' in base64 begins with 'e'. */
    return split(text, parts) && parts[0].len > 0 && parts[0].data[0] == 'e' && is_base64url(parts[0]) &&
           is_base64url(parts[1]) && is_base64url(parts[2]);
}

/* Texts of the header are compared as written but for escapes: a name of an algorithm has none. */
static enum status read_alg(struct json_value v, enum jwt_alg *out)
{
    struct slice text =
        v.type == JSON_IS_STRING ? slice_of(v.raw.data + 1, v.raw.len - 2) : (struct slice){0};
    for (unsigned i = 0; i < JWT_ALG_COUNT; i++)
        if (slice_equal_cstr(text, names[i])) {
            *out = (enum jwt_alg)i;
            return ST_OK;
        }
    return ST_UNSUPPORTED;
}

static enum status read_key_id(struct json_value v, struct jwt *out)
{
    struct buf text = {.data = out->key_id, .cap = sizeof out->key_id, .limit = sizeof out->key_id};
    if (out->has_key_id || json_text(v, &text) != ST_OK)
        return ST_INVALID;
    out->has_key_id = true;
    out->key_id_len = text.len;
    return ST_OK;
}

static enum status read_header(struct slice text, struct jwt *out)
{
    uint8_t space[JWT_HEADER_BYTES_MAX];
    struct buf header = {.data = space, .cap = sizeof space, .limit = sizeof space};
    bool has_alg = false, has_crit = false;
    size_t place = 0;
    struct slice key;
    struct json_value value;
    enum status st, alg = ST_INVALID;
    if (base64url_decode(text, &header) != ST_OK)
        return ST_INVALID;
    while ((st = json_member(buf_slice(&header), &place, &key, &value)) == ST_OK) {
        if (json_key_is(key, "alg")) {
            if (has_alg) /* two meanings of one token */
                return ST_INVALID;
            has_alg = true;
            alg = read_alg(value, &out->alg);
        } else if (json_key_is(key, "kid")) {
            if (read_key_id(value, out) != ST_OK)
                return ST_INVALID;
        } else if (json_key_is(key, "crit")) {
            has_crit = true;
        }
    }
    if (st != ST_NOT_FOUND || !has_alg)
        return ST_INVALID;
    return has_crit ? ST_UNSUPPORTED : alg;
}

enum status jwt_open(struct slice token, struct jwt *out)
{
    struct slice parts[3];
    if (token.len > JWT_BYTES_MAX)
        return ST_TOO_LARGE;
    if (!split(token, parts))
        return ST_INVALID;
    *out = (struct jwt){.signed_text = slice_of(token.data, parts[0].len + 1 + parts[1].len)};
    enum status st = read_header(parts[0], out);
    if (st != ST_OK)
        return st;
    struct buf signature = {
        .data = out->signature, .cap = sizeof out->signature, .limit = sizeof out->signature};
    if (base64url_decode(parts[2], &signature) != ST_OK)
        return ST_INVALID;
    out->signature_len = signature.len;
    buf_init(&out->payload, JWT_BYTES_MAX);
    st = base64url_decode(parts[1], &out->payload);
    if (st != ST_OK)
        buf_deinit(&out->payload);
    return st == ST_OK || st == ST_NO_MEMORY ? st : ST_INVALID;
}

void jwt_close(struct jwt *j)
{
    buf_deinit(&j->payload);
}
