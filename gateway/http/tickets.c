/* POST /v1/tickets: a ticket that opens one WebSocket, /ws?ticket=..., as somebody.
 *
 *   {"user":"ann","claims":{...},"ttl_ms":30000}    by an administrator: a user, with claims as a token has
 * them
 *   {} or nothing, "ttl_ms"                         by a user, for himself: with all that his credential says
 */
#include "core/json.h"
#include "gateway/http/request.h"

#include "gateway/auth/tickets.h"

#include <jansson.h>
#include <stdlib.h>

enum { ANSWER_BYTES_MAX = 256 };

static const char *const bad_body =
    "the body is empty, or a JSON object of user, claims (an object without sub) and ttl_ms "
    "(1 to 600000), and nothing else";

static void refuse_claims(struct request *r, enum auth_verdict v)
{
    if (v == AUTH_NO_MEMORY)
        request_unavailable(r, "no memory");
    else
        request_bad(r, auth_text(v));
}

/* The user that an administrator names. NULL: refused. */
static struct principal *named(struct request *r, json_t *user, const json_t *claims)
{
    struct principal *p = NULL;
    json_t *all = claims ? json_deep_copy(claims) : json_object();
    if (all && !json_object_get(all, "iat")) /* a revocation of before does not concern it */
        (void)json_object_set_new(all, "iat", json_real((double)loop_wall_ms(r->api->edge->loop) / 1000));
    char *text = all && !json_object_get(all, "sub") && json_object_set(all, "sub", user) == 0
                     ? json_dumps(all, JSON_COMPACT)
                     : NULL;
    if (!text)
        request_bad(r, bad_body);
    else {
        enum auth_verdict v = auth_claims(r->api->edge->auth, slice_cstr(text), &p);
        if (v != AUTH_OK)
            refuse_claims(r, v);
    }
    free(text);
    json_decref(all);
    return r->answer.status == 0 ? p : NULL;
}

/* Whom the ticket is for, with a reference. NULL: refused. */
static struct principal *whom(struct request *r, json_t *body)
{
    json_t *user = json_object_get(body, "user"), *claims = json_object_get(body, "claims");
    struct slice own = r->principal->user;
    struct slice name =
        json_is_string(user) ? slice_of(json_string_value(user), json_string_length(user)) : own;
    if (principal_may_administer(r->principal) && user)
        return named(r, user, claims);
    if (own.len > 0 && !claims && slice_equal(name, own))
        return principal_ref(r->principal);
    if (principal_may_administer(r->principal))
        request_bad(r, "name a user");
    else
        request_refuse(
            r, &(struct problem){
                   .status = 403,
                   .code = "forbidden",
                   .detail = "a ticket for another user, or with claims, is made by an administrator"});
    return NULL;
}

static void reply(struct request *r, struct principal *p, uint64_t ttl_ms)
{
    char ticket[TICKET_BYTES + 1];
    struct buf body;
    uint64_t until_ms = loop_wall_ms(r->api->edge->loop) + ttl_ms;
    enum status st = auth_ticket(r->api->edge->auth, p, until_ms, ticket);
    if (st == ST_FULL) {
        request_refuse(r, &(struct problem){.status = 503,
                                            .code = "quota_exceeded",
                                            .detail = "limit.tickets are out and not used",
                                            .retry_ms = RETRY_MS});
        return;
    }
    buf_init(&body, ANSWER_BYTES_MAX);
    if (st == ST_OK)
        st = buf_printf(&body, "{\"ticket\":\"%s\",\"expires\":%lu}\n", ticket, (unsigned long)until_ms);
    if (st == ST_OK) {
        request_reply(r, 200, "application/json", &body);
    } else {
        buf_deinit(&body);
        request_unavailable(r, "no memory");
    }
}

void tickets_begin(struct request *r)
{
    if (!r->api->edge->auth)
        request_unsupported(r, "this node knows no users");
}

void tickets_run(struct request *r)
{
    struct slice text = buf_slice(&r->body);
    json_t *body = text.len == 0 ? json_object() : NULL;
    if (json_valid(text)) /* it knows limit.json_depth */
        body = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *ttl = json_object_get(body, "ttl_ms"), *user = json_object_get(body, "user"),
                 *claims = json_object_get(body, "claims");
    buf_deinit(&r->body);
    request_release(r, r->kept_bytes);
    if (!json_is_object(body) || json_object_size(body) != (size_t) !!ttl + !!user + !!claims ||
        (user && !json_is_string(user)) || (claims && !json_is_object(claims)) ||
        (ttl &&
         (!json_is_integer(ttl) || json_integer_value(ttl) < 1 || json_integer_value(ttl) > TICKET_MS_MAX))) {
        request_bad(r, bad_body);
    } else {
        struct principal *p = whom(r, body);
        if (p)
            reply(r, p, ttl ? (uint64_t)json_integer_value(ttl) : TICKET_MS_DEFAULT);
        principal_unref(p);
    }
    json_decref(body);
}
