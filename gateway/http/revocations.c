/* POST /v1/revocations: {"user":"..."} or {"token_id":"..."}, and perhaps "until":<Unix ms>.
 *
 *   -> a retained message at $revoked/... -> durable -> every loop by letter: its desk knows it, its doors
 * close whom it concerns -> 200
 *
 * So when the answer is there no loop serves the revoked any more, and no restart forgets it. */
#include "gateway/http/request.h"

#include "gateway/auth/revocations.h"

#include <jansson.h>
#include <stdlib.h>

struct revoking {
    struct hub_visit visit;
    struct request *request; /* NULL: given up; freed when all is back */
    struct edge *edge;
    struct revocation what;
    struct buf payload;
    size_t len;
    uint8_t name[];
};

static void revoking_free(struct revoking *v)
{
    buf_deinit(&v->payload);
    free(v);
}

/* The answer is about to be made. */
static struct request *revoking_end(struct revoking *v)
{
    struct request *r = v->request;
    if (r)
        r->pending = NULL;
    return r;
}

static void on_visit(struct hub_visit *visit, struct hub *h)
{
    struct revoking *v = LIST_OF(visit, struct revoking, visit);
    auth_revoke(auth_desk(v->edge->auth, loop_index(hub_loop(h))), &v->what);
}

static void on_back(struct hub_visit *visit)
{
    struct revoking *v = LIST_OF(visit, struct revoking, visit);
    struct request *r = revoking_end(v);
    if (r) {
        if (buf_put_byte(&v->payload, '\n') != ST_OK) /* it is revoked all the same: the status says so */
            buf_clear(&v->payload);
        request_reply(r, 200, "application/json", &v->payload);
    }
    revoking_free(v);
}

static void on_published(struct publish *p)
{
    struct revoking *v = p->owner;
    if (p->status == ST_OK) {
        v->visit.on_visit = on_visit;
        v->visit.on_back = on_back;
        hub_visit_all(v->edge->hub, &v->visit);
    } else {
        struct request *r = revoking_end(v);
        if (r)
            publish_refuse(r, p->status);
        revoking_free(v);
    }
    publish_free(p);
}

static enum status make_publish(struct revoking *v, struct publish **out)
{
    struct buf topic;
    struct msg *m;
    buf_init(&topic, REVOCATION_RECORD_BYTES_MAX);
    enum status st = revocation_write(&v->what, &topic, &v->payload);
    if (st == ST_OK)
        st = msg_create(buf_slice(&topic), (struct slice){0}, (struct slice){0}, buf_slice(&v->payload), &m);
    buf_deinit(&topic);
    if (st != ST_OK)
        return st;
    m->content = CONTENT_JSON;
    m->qos = 1;
    m->flags = MSG_RETAIN;
    m->expires_ms = v->what.until_ms;
    m->accepted_ns = clock_mono_ns(loop_clock(v->edge->loop));
    st = publish_create(m, out);
    if (st != ST_OK)
        msg_unref(m);
    return st;
}

/* --- the body ----------------------------------------------------------------------------------- */

static struct slice text_of(const json_t *v)
{
    return json_is_string(v) ? slice_of(json_string_value(v), json_string_length(v)) : (struct slice){0};
}

/* NULL: refused. */
static struct revoking *read_body(struct request *r)
{
    struct slice body = buf_slice(&r->body);
    json_t *root = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *until = json_object_get(root, "until");
    struct slice user = text_of(json_object_get(root, "user")),
                 token = text_of(json_object_get(root, "token_id"));
    struct slice name = user.len > 0 ? user : token;
    uint64_t now_ms = loop_wall_ms(r->api->edge->loop);
    struct revoking *v = NULL;
    if ((user.len > 0) == (token.len > 0) || json_object_size(root) != 1 + (size_t) !!until ||
        name.len > PRINCIPAL_USER_BYTES_MAX)
        request_bad(r,
                    "the body is a JSON object with user or token_id, of 1 to 256 bytes, and perhaps until, "
                    "and nothing else");
    else if (until && (!json_is_integer(until) || json_integer_value(until) < 0 ||
                       (uint64_t)json_integer_value(until) <= now_ms))
        request_bad(r, "until must be Unix milliseconds that are still to come");
    else if (!(v = calloc(1, sizeof *v + name.len)))
        request_unavailable(r, "no memory");
    if (v) {
        memcpy(v->name, name.data, name.len);
        v->request = r;
        v->edge = r->api->edge;
        v->what = (struct revocation){.name = slice_of(v->name, name.len),
                                      .of_token = token.len > 0,
                                      .at_ms = now_ms,
                                      .until_ms = (uint64_t)json_integer_value(until)};
        buf_init(&v->payload, REVOCATION_RECORD_BYTES_MAX);
    }
    json_decref(root);
    return v;
}

void revocations_begin(struct request *r)
{
    if (!r->api->edge->auth)
        request_unsupported(r, "this node knows no users");
}

void revocations_run(struct request *r)
{
    struct publish *p;
    struct revoking *v = read_body(r);
    buf_deinit(&r->body);
    request_release(r, r->kept_bytes);
    if (!v)
        return;
    if (auth_revocations_full(r->api->edge->auth)) {
        revoking_free(v);
        request_refuse(
            r, &(struct problem){.status = 503,
                                 .code = "quota_exceeded",
                                 .detail = "limit.revocations is reached; give revocations an until"});
    } else if (make_publish(v, &p) != ST_OK) {
        revoking_free(v);
        request_unavailable(r, "no memory");
    } else {
        metric_add(r->api->edge->metrics, M_RECEIVED_HTTP, 1);
        p->wait = true;
        p->on_published = on_published;
        p->owner = v;
        r->pending = v;
        hub_publish(r->api->edge->hub, p);
    }
}

void revocations_give_up(struct request *r)
{
    struct revoking *v = r->pending;
    v->request = NULL;
    r->pending = NULL;
    request_refuse(
        r, &(struct problem){.status = 503,
                             .code = "unavailable",
                             .detail = "the log has not said in time whether the revocation is durable",
                             .retry_ms = RETRY_MS,
                             .members = "\"unknown\":true"});
}
