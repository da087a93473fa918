/* Whose connection it is: tokens in hello and auth, and what a change of rights means to subscriptions.
 *
 * A token that cannot be judged at once leaves its line unhandled and reading rests; when the verdict is
 * there the line is parsed again and finds it (serve_judge). */
#include "gateway/gate.h"
#include "gateway/ws/credential.h"
#include "gateway/ws/serve.h"

#include <stdlib.h>

/* --- verdicts ----------------------------------------------------------------------------------- */

static void on_checked(void *ctx, enum auth_verdict v, struct principal *p)
{
    struct conn *c = ctx;
    c->check = NULL;
    c->judged = true;
    c->verdict = v;
    c->named = v == AUTH_OK ? p : NULL;
    conn_touch(c); /* reading goes on */
}

enum auth_verdict serve_judge(struct conn *c, struct slice token, struct principal **out)
{
    const struct auth_credential credential = {.is_token = true, .secret = token};
    if (!c->judged)
        return auth_check(c->door->edge->auth, &credential, on_checked, c, out, &c->check);
    *out = c->named;
    c->named = NULL;
    c->judged = false;
    return c->verdict;
}

void serve_unauthorized(struct conn *c, struct ws_id id, enum auth_verdict v)
{
    if (auth_temporary(v))
        serve_later(c, id, "unavailable", auth_text(v));
    else
        serve_error(c, id, "unauthorized", auth_text(v));
    conn_close(c, (uint16_t)auth_close_code(v), auth_close_text(v), END_PROTOCOL);
}

/* Who has a name already may say it again, no other; then the reference to `p` is given back. A proxy's
 * certificate says nothing about who speaks through it. */
static enum auth_verdict same_user(struct conn *c, enum auth_verdict v, struct principal *p)
{
    bool named = c->token[0] || (!c->nameless && c->principal->user.len > 0);
    if (v != AUTH_OK || !named || slice_equal(p->user, c->principal->user))
        return v;
    principal_unref(p);
    auth_failed(c->door->edge->auth, AUTH_OTHER_USER);
    return AUTH_OTHER_USER;
}

bool serve_identify(struct conn *c, const struct ws_request *r)
{
    struct principal *p;
    enum auth_verdict v = serve_judge(c, r->token, &p);
    if (v == AUTH_PENDING)
        return false;
    v = same_user(c, v, p);
    if (v != AUTH_OK) {
        serve_unauthorized(c, serve_id(r), v);
        return false;
    }
    return serve_become(c, p);
}

bool serve_enter(struct conn *c, const struct principal *p)
{
    struct edge *e = c->door->edge;
    if (c->user_place || p->user.len == 0)
        return true; /* it came before, and is of the same user */
    c->user_place = gate_user(e, p->user);
    uint32_t wait_ms = gate_connect_wait_ms(e, c->user_place);
    if (wait_ms == 0)
        return true;
    serve_over_rate(c, (struct ws_id){0}, gate_connect_text, wait_ms);
    conn_close(c, 4005, "connection rate exceeded", END_LIMIT);
    return false;
}

bool serve_become(struct conn *c, struct principal *p)
{
    conn_become(c, p);
    if (!serve_enter(c, p))
        return false;
    if (session_identify(c->session, p->user,
                         principal_connections_max(p, c->door->settings->limit_user_connections)) == ST_OK)
        return true;
    conn_break(c);
    return false;
}

/* --- what the upgrade has brought ------------------------------------------------------------------- */

static void take_credential(struct conn *c, enum auth_verdict v, struct principal *p)
{
    v = same_user(c, v, p);
    if (v == AUTH_OK)
        (void)serve_become(c, p); /* else it breaks */
    else
        serve_unauthorized(c, (struct ws_id){0}, v);
}

static void on_credential(void *ctx, enum auth_verdict v, struct principal *p)
{
    struct conn *c = ctx;
    c->check = NULL;
    take_credential(c, v, p);
    conn_touch(c); /* reading goes on */
}

void serve_credential(struct conn *c)
{
    struct principal *p;
    enum auth_verdict v = credential_check(c, TICKET_ONCE, on_credential, c, &p, &c->check);
    if (v != AUTH_PENDING)
        take_credential(c, v, p);
}

/* --- auth --------------------------------------------------------------------------------------- */

/* Filters that the new rights do not cover, each {u16 length, bytes}: they cannot be ended while they are
 * walked. */
struct lost_filters {
    struct conn *conn;
    struct buf filters;
    enum status status;
};

static void find_lost(void *ctx, struct subscription *sub)
{
    struct lost_filters *l = ctx;
    struct slice filter = subscription_filter(sub);
    const uint16_t len = (uint16_t)filter.len;
    if (l->status != ST_OK || conn_may(l->conn, ACL_SUBSCRIBE, filter))
        return;
    l->status = buf_put(&l->filters, slice_of(&len, sizeof len));
    if (l->status == ST_OK)
        l->status = buf_put(&l->filters, filter);
}

static void end_lost(struct lost_filters *l)
{
    struct conn *c = l->conn;
    uint16_t len;
    for (size_t at = 0; at < l->filters.len && c->state == CONN_OPEN; at += sizeof len + len) {
        memcpy(&len, l->filters.data + at, sizeof len);
        struct slice filter = slice_of(l->filters.data + at + sizeof len, len);
        serve_end_subscription(c, filter);
        serve_put(c, ws_put_end(&c->door->scratch, filter, "forbidden", access_denied_text(ACL_SUBSCRIBE)));
    }
}

void serve_auth(struct conn *c, const struct ws_request *r)
{
    if (!serve_identify(c, r))
        return;
    if (r->has_id)
        serve_put(c, ws_put_authenticated(&c->door->scratch, serve_id(r), c->principal->user));
    serve_review(c);
}

void serve_review(struct conn *c)
{
    struct lost_filters lost = {.conn = c, .status = ST_OK};
    buf_init(&lost.filters, SIZE_MAX / 2);
    session_each(c->session, find_lost, &lost);
    if (lost.status == ST_OK)
        end_lost(&lost);
    else
        conn_break(c); /* rather than go on with rights that are gone */
    buf_deinit(&lost.filters);
}
