/* The protocol of a connection: lines in, answers out. Each request with an `id` is answered once, here or,
 * when it waits for the log or a shard, by subscribe.c, publish.c and page.c. */
#include "gateway/ws/serve.h"

#include "routing/topic.h"

#include <assert.h>

enum { RETRY_MS = 500 };

/* --- what requests have in common --------------------------------------------------------------- */

struct ws_id serve_id(const struct ws_request *r)
{
    return (struct ws_id){.given = r->has_id, .value = r->id};
}

void serve_put(struct conn *c, enum status encoded)
{
    struct buf *scratch = &c->door->scratch;
    if (encoded == ST_OK)
        conn_put_text(c, buf_slice(scratch));
    else
        conn_break(c);
    buf_clear(scratch);
}

void serve_error(struct conn *c, struct ws_id id, const char *code, const char *detail)
{
    const struct ws_error e = {.code = code, .detail = detail};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

void serve_later(struct conn *c, struct ws_id id, const char *code, const char *detail)
{
    const struct ws_error e = {.code = code, .detail = detail, .retry_ms = RETRY_MS, .temporary = true};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

void serve_unknown(struct conn *c, struct ws_id id, const char *detail)
{
    const struct ws_error e = {
        .code = "unavailable", .detail = detail, .retry_ms = RETRY_MS, .temporary = true, .unknown = true};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

void serve_over_rate(struct conn *c, struct ws_id id, const char *detail, uint32_t wait_ms)
{
    const struct ws_error e = {
        .code = "rate_limited", .detail = detail, .retry_ms = wait_ms, .temporary = true};
    serve_put(c, ws_put_error(&c->door->scratch, id, &e));
}

struct topic_limits serve_limits(const struct conn *c)
{
    const struct settings *s = c->door->settings;
    return (struct topic_limits){(uint32_t)s->limit_topic_bytes, (uint32_t)s->limit_topic_levels};
}

/* Folds what the client gave. ST_GONE: *stranger is a position of another epoch. */
enum status serve_fold(const struct conn *c, const struct ws_request *r, struct place *place,
                       struct slice *stranger)
{
    *place = (struct place){.lane_count = hub_lane_count(c->door->hub)};
    for (unsigned i = 0; r->reverse && i < place->lane_count; i++)
        place->next[i] = UINT64_MAX;
    for (unsigned i = 0; i < r->after_count; i++) {
        *stranger = r->after[i];
        enum status st = r->reverse ? place_fold_before(place, c->door->epoch, r->after[i])
                                    : place_fold(place, c->door->epoch, r->after[i]);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

bool serve_refuse_topic(struct conn *c, const struct ws_request *r, enum access_op op)
{
    struct slice user;
    bool internal = topic_internal(r->topic), inbox = topic_user(r->topic, &user);
    bool system = op == ACL_SUBSCRIBE && topic_system(r->topic);
    if (internal && !inbox && !system)
        serve_error(c, serve_id(r), "unsupported", "topics that begin with $ are the node's own");
    else if (system && c->door->settings->sys_interval_ms == 0)
        serve_error(c, serve_id(r), "unsupported", "sys.interval_ms is 0: this node says nothing at $SYS/");
    else if (system && (r->ack || r->start != WS_START_LIVE))
        serve_error(c, serve_id(r), "unsupported", "$SYS/ has no past and no acknowledgements: from is live");
    else if (conn_may(c, op, r->topic))
        return false;
    else if (inbox)
        serve_error(
            c, serve_id(r), "forbidden",
            "an inbox is its user's own: $user/<your user name> and below; anonymous clients have none");
    else
        serve_error(c, serve_id(r), "forbidden", access_denied_text(op));
    return true;
}

/* Nobody stays anonymous on this connection. True: the request is not heard. */
static bool serve_refuse_nameless(struct conn *c, const struct ws_request *r)
{
    if (!c->nameless || r->operation == WS_OP_HEARTBEAT ||
        ((r->operation == WS_OP_HELLO || r->operation == WS_OP_AUTH) && r->token.data))
        return false;
    auth_failed(c->door->edge->auth, AUTH_ANONYMOUS);
    serve_unauthorized(c, serve_id(r), AUTH_ANONYMOUS);
    return true;
}

/* --- lines -------------------------------------------------------------------------------------- */

static void serve_request(struct conn *c, const struct ws_request *r)
{
    if (r->operation == WS_OP_PUB)
        metric_add(c->door->metrics, M_RECEIVED_WS, 1);
    c->spoke |= r->operation != WS_OP_HEARTBEAT && r->operation != WS_OP_NONE;
    if (serve_refuse_nameless(c, r)) {
        if (r->operation == WS_OP_PUB)
            metric_add(c->door->metrics, M_REFUSED_FORBIDDEN, 1);
        return;
    }
    if (r->refused) {
        if (r->operation == WS_OP_PUB)
            metric_add(c->door->metrics,
                       strcmp(r->refused, "unsupported") == 0 ? M_REFUSED_UNSUPPORTED : M_REFUSED_INVALID, 1);
        serve_error(c, serve_id(r), r->refused, r->detail);
        return;
    }
    switch (r->operation) {
    case WS_OP_HEARTBEAT:
        conn_put_text(c, slice_of("{}", 2));
        break;
    case WS_OP_HELLO:
        serve_hello(c, r);
        break;
    case WS_OP_SUB:
        serve_sub(c, r);
        break;
    case WS_OP_UNSUB:
        serve_unsub(c, r);
        break;
    case WS_OP_PUB:
        serve_pub(c, r);
        break;
    case WS_OP_GET:
        serve_get(c, r);
        break;
    case WS_OP_ACK:
        serve_ack(c, r);
        break;
    case WS_OP_CREDIT:
        serve_credit(c, r);
        break;
    case WS_OP_WHO:
        serve_who(c, r);
        break;
    case WS_OP_AUTH:
        serve_auth(c, r);
        break;
    case WS_OP_NONE:
    case WS_OP_OTHER: /* always refused */
    default:
        assert(false);
    }
}

static bool is_blank(struct slice line)
{
    for (size_t i = 0; i < line.len; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
            return false;
    return true;
}

static void serve_line(struct conn *c, struct slice line)
{
    struct ws_request request;
    if (is_blank(line)) /* a message may end with a line break */
        return;
    switch ((int)ws_request_parse(line, &c->door->texts, &request)) {
    case ST_OK:
        serve_request(c, &request);
        break;
    case ST_INVALID:
        serve_error(c, (struct ws_id){0}, "bad_request", "a line must be one JSON object, its id an integer");
        if (++c->bad_lines >= CONN_BAD_LINES_MAX)
            conn_close(c, 4201, "too many bad lines", END_PROTOCOL);
        break;
    default:
        conn_break(c);
    }
}

size_t serve_lines(struct conn *c, struct slice text)
{
    size_t done = 0;
    while (done < text.len && !conn_is_full(c)) {
        struct slice rest = slice_from(text, done);
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        serve_line(c, slice_of(rest.data, len));
        if (c->check) /* the line is handled again when it is known whose it is */
            break;
        done += end ? len + 1 : len;
    }
    return done;
}
