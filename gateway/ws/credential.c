/* A token never stands in a URL: it would stand in logs and histories. A ticket may, for it is good once. */
#include "gateway/ws/credential.h"

#include "gateway/auth/authorization.h"
#include "gateway/ws/front.h"
#include "gateway/ws/http.h"

#include <string.h>

enum { CREDENTIAL_BYTES_MAX = 8192, SITE_BYTES_MAX = 32 };

void credential_drop(struct conn *c)
{
    if (c->credential.len > 0)
        explicit_bzero(c->credential.data, c->credential.len);
    buf_deinit(&c->credential);
    c->credential_kind = CREDENTIAL_OF_NOBODY;
}

static bool keep(struct conn *c, enum conn_credential kind, struct slice text)
{
    credential_drop(c);
    buf_init(&c->credential, CREDENTIAL_BYTES_MAX);
    c->credential_kind = kind;
    return buf_put(&c->credential, text) == ST_OK ||
           http_answer_problem(c, 400, "bad_request", "the credential is too long", NULL);
}

/* --- Authorization ------------------------------------------------------------------------------ */

static bool refuse_authorization(struct conn *c)
{
    auth_failed(c->door->edge->auth, AUTH_MALFORMED);
    return http_answer_problem(
        c, 401, "unauthorized",
        "Authorization must be Bearer and a token, or Basic and user:password in base64",
        "WWW-Authenticate: Bearer\r\n");
}

/* "user:password" is kept as it is decoded. */
static bool keep_basic(struct conn *c, struct slice text)
{
    uint8_t bytes[CREDENTIAL_BYTES_MAX];
    struct buf space = {.data = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    struct slice user, password;
    bool good = authorization_split_basic(text, &space, &user, &password)
                    ? keep(c, CREDENTIAL_OF_PASSWORD, buf_slice(&space))
                    : refuse_authorization(c);
    explicit_bzero(bytes, sizeof bytes);
    return good;
}

bool credential_read_authorization(struct conn *c)
{
    const struct web_head *h = c->front->request;
    struct slice text;
    if (!web_head_has(h, WEB_AUTHORIZATION))
        return true;
    if (c->speaks_mqtt)
        return http_answer_problem(c, 501, "unsupported", "MQTT has its CONNECT: no Authorization at /mqtt",
                                   NULL);
    enum authorization kind = h->given[WEB_AUTHORIZATION] == 1
                                  ? authorization_read(h->fields[WEB_AUTHORIZATION], &text)
                                  : AUTHORIZATION_OTHER;
    return kind == AUTHORIZATION_BEARER  ? keep(c, CREDENTIAL_OF_TOKEN, text)
           : kind == AUTHORIZATION_BASIC ? keep_basic(c, text)
                                         : refuse_authorization(c);
}

/* --- the query ---------------------------------------------------------------------------------- */

static bool name_is(struct slice pair, const char *name)
{
    struct slice start = slice_cstr(name);
    return slice_starts_with(pair, start) && (pair.len == start.len || pair.data[start.len] == '=');
}

enum credential_argument credential_take_argument(struct conn *c, struct slice pair)
{
    static const char ticket[] = "ticket";
    static const char *const tokens[] = {"token", "access_token", "jwt", "auth"};
    bool good = true;
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens && good; i++)
        if (name_is(pair, tokens[i]))
            good = http_answer_problem(
                c, 400, "bad_request",
                "a token must not stand in a URL: say it in hello or Authorization, or use a ticket "
                "(POST /v1/tickets)",
                NULL);
    if (!good)
        return ARGUMENT_REFUSED;
    if (!name_is(pair, ticket))
        return ARGUMENT_OTHER;
    if (c->speaks_mqtt)
        good = http_answer_problem(c, 501, "unsupported", "tickets open /ws and /sse; MQTT has its CONNECT",
                                   NULL);
    else if (c->credential_kind != CREDENTIAL_OF_NOBODY)
        good = http_answer_problem(c, 400, "bad_request",
                                   "a ticket stands alone: without Authorization, and once", NULL);
    else
        good = keep(c, CREDENTIAL_OF_TICKET, slice_from(pair, sizeof ticket));
    return good ? ARGUMENT_TAKEN : ARGUMENT_REFUSED;
}

/* --- cookies ------------------------------------------------------------------------------------ */

/* The value of a cookie (RFC 6265, 4.2.1); data NULL: there is none of that name. */
static struct slice find_cookie(const char *list, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = list + strspn(list, " ;"); *at; at += strspn(at, " ;")) {
        size_t len = strcspn(at, ";");
        if (len > name_len && strncmp(at, name, name_len) == 0 && at[name_len] == '=')
            return slice_of(at + name_len + 1, len - name_len - 1);
        at += len;
    }
    return (struct slice){0};
}

/* A browser sends cookies wherever the page comes from, so they count only beside an Origin, which has been
 * found to be ours or listed, or where the browser says that the page is of the same origin (it does not send
 * Origin then with a GET). No page can set either field. */
static bool is_of_a_page_that_may(struct conn *c)
{
    const struct web_head *h = c->front->request;
    char site[SITE_BYTES_MAX];
    if (web_head_has(h, WEB_ORIGIN))
        return true;
    return web_head_copy(h, WEB_FETCH_SITE, site, sizeof site) && strcmp(site, "same-origin") == 0;
}

bool credential_read_cookie(struct conn *c)
{
    char cookies[CREDENTIAL_BYTES_MAX];
    const char *name = c->door->settings->auth_cookie;
    if (!name[0] || c->credential_kind != CREDENTIAL_OF_NOBODY || !is_of_a_page_that_may(c) ||
        !web_head_copy(c->front->request, WEB_COOKIE, cookies, sizeof cookies))
        return true;
    struct slice token = find_cookie(cookies, name);
    return token.len == 0 || keep(c, CREDENTIAL_OF_TOKEN, token);
}

/* --- verdicts ----------------------------------------------------------------------------------- */

enum auth_verdict credential_check(struct conn *c, enum ticket_use use,
                                   void (*on_checked)(void *ctx, enum auth_verdict v, struct principal *p),
                                   void *ctx, struct principal **out, struct auth_check **pending)
{
    struct slice text = buf_slice(&c->credential);
    struct auth_credential credential = {.is_token = c->credential_kind == CREDENTIAL_OF_TOKEN,
                                         .is_ticket = c->credential_kind == CREDENTIAL_OF_TICKET,
                                         .ticket_use = use,
                                         .secret = text};
    if (c->credential_kind == CREDENTIAL_OF_PASSWORD) {
        const uint8_t *colon = memchr(text.data, ':', text.len); /* keep_basic has found it */
        credential.user = slice_of(text.data, (size_t)(colon - text.data));
        credential.secret = slice_from(text, credential.user.len + 1);
    }
    enum auth_verdict v = auth_check(c->door->edge->auth, &credential, on_checked, ctx, out, pending);
    credential_drop(c);
    return v;
}
