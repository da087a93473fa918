#include "gateway/auth/auth.h"

#include "core/loop.h"
#include "gateway/auth/claims.h"
#include "gateway/auth/key_file.h"
#include "gateway/auth/keys.h"

#include <stdlib.h>

struct auth_office {
    const struct settings *settings;
    struct keys *own; /* of <data>/token.key */
    struct acl *policy; /* NULL: the configuration has no rules */
    struct principal *anonymous, *admin;
};

struct auth {
    struct auth_office *office;
    struct loop *loop;
    struct metrics *metrics;
};

/* --- the node's --------------------------------------------------------------------------------- */

static enum status load_own_key(struct auth_office *o, struct buf *error)
{
    uint8_t secret[TOKEN_KEY_BYTES];
    enum status st = key_file_load(o->settings->data_dir, secret, error);
    if (st == ST_OK)
        st = keys_create(&o->own);
    if (st == ST_OK)
        st = keys_add_secret(o->own, (struct slice){0}, slice_of(secret, sizeof secret));
    explicit_bzero(secret, sizeof secret);
    return st;
}

static enum status make_principals(struct auth_office *o)
{
    const struct principal_spec anonymous = {.policy = o->policy},
                                admin = {.admin = true, .policy = o->policy};
    enum status st = principal_create(&anonymous, &o->anonymous);
    return st == ST_OK ? principal_create(&admin, &o->admin) : st;
}

enum status auth_office_create(const struct settings *s, struct auth_office **out, struct buf *error)
{
    struct auth_office *o = calloc(1, sizeof *o);
    if (!o)
        return ST_NO_MEMORY;
    o->settings = s;
    enum status st = load_own_key(o, error);
    if (st == ST_OK)
        st = make_principals(o);
    if (st != ST_OK) {
        auth_office_destroy(o);
        return st;
    }
    *out = o;
    return ST_OK;
}

void auth_office_destroy(struct auth_office *o)
{
    if (!o)
        return;
    principal_unref(o->anonymous);
    principal_unref(o->admin);
    acl_unref(o->policy);
    keys_unref(o->own);
    free(o);
}

/* --- a loop's ----------------------------------------------------------------------------------- */

enum status auth_create(struct auth_office *o, struct loop *loop, struct metrics *m, struct auth **out)
{
    struct auth *a = calloc(1, sizeof *a);
    if (!a)
        return ST_NO_MEMORY;
    *a = (struct auth){.office = o, .loop = loop, .metrics = m};
    *out = a;
    return ST_OK;
}

void auth_destroy(struct auth *a)
{
    free(a);
}

struct principal *auth_anonymous(const struct auth *a)
{
    return a ? principal_ref(a->office->anonymous) : principal_anonymous();
}

struct principal *auth_admin(const struct auth *a)
{
    return a ? principal_ref(a->office->admin) : principal_anonymous();
}

bool auth_takes_anonymous(const struct auth *a, bool loopback)
{
    (void)a;
    return loopback;
}

void auth_failed(struct auth *a, enum auth_verdict v)
{
    if (a)
        auth_count(a->metrics, v);
}

/* --- tokens ------------------------------------------------------------------------------------- */

static enum auth_verdict verify(const struct auth_office *o, const struct jwt *token)
{
    switch ((int)keys_verify(o->own, token)) {
    case ST_OK:
        return AUTH_OK;
    case ST_NOT_FOUND:
        return AUTH_UNKNOWN_KEY;
    default:
        return AUTH_SIGNATURE;
    }
}

enum auth_verdict auth_office_judge(const struct auth_office *o, struct slice text, uint64_t now_ms,
                                    struct principal **out)
{
    struct jwt token;
    const struct claims_rules rules = {.issuers = "", .audiences = "", .policy = o->policy};
    enum status st = jwt_open(text, &token);
    if (st != ST_OK)
        return st == ST_UNSUPPORTED ? AUTH_ALGORITHM : st == ST_NO_MEMORY ? AUTH_NO_MEMORY : AUTH_MALFORMED;
    enum auth_verdict v = verify(o, &token);
    if (v == AUTH_OK)
        v = claims_read(buf_slice(&token.payload), &rules, now_ms, out);
    jwt_close(&token);
    return v;
}

enum auth_verdict auth_token(struct auth *a, struct slice text, struct principal **out)
{
    enum auth_verdict v =
        a ? auth_office_judge(a->office, text, loop_wall_ms(a->loop), out) : AUTH_UNKNOWN_KEY;
    auth_failed(a, v);
    return v;
}
