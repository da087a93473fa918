/* Refusals come in an order that tells a stranger least and protects us first: framing that could be read in
 * two ways, then who asks, then what for. */
#include "gateway/http/request.h"

#include "core/logging.h"
#include "gateway/auth/authorization.h"
#include "gateway/unknown.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const char bad_percent[] = "a '%' in the query must be followed by two hexadecimal digits";

struct request *request_create(struct api *api, struct slice raw_target)
{
    struct request *r = calloc(1, sizeof *r + 2 * raw_target.len);
    if (!r)
        return NULL;
    r->api = api;
    r->principal = auth_anonymous(api->edge->auth);
    list_init(&r->link);
    snprintf(r->id, sizeof r->id, "%lx-%lx", (unsigned long)api->edge->facts->incarnation,
             (unsigned long)api->requests++);
    r->body_max = api->edge->settings->limit_message_bytes;
    r->raw_len = raw_target.len;
    if (raw_target.len > 0)
        memcpy(r->texts, raw_target.data, raw_target.len);
    return r;
}

void request_free(struct request *r)
{
    if (!r)
        return;
    assert(!r->pending);
    auth_abandon(r->check);
    list_unlink(&r->link);
    request_release(r, r->kept_bytes);
    buf_deinit(&r->body);
    buf_deinit(&r->made);
    buf_deinit(&r->answer.body);
    principal_unref(r->principal);
    free(r);
}

bool request_keep(struct request *r, uint64_t bytes)
{
    if (bytes > r->api->kept_bytes_max - r->api->kept_bytes)
        return false;
    r->kept_bytes += bytes;
    r->api->kept_bytes += bytes;
    return true;
}

void request_release(struct request *r, uint64_t bytes)
{
    assert(bytes <= r->kept_bytes);
    r->kept_bytes -= bytes;
    r->api->kept_bytes -= bytes;
}

bool read_number(struct slice text, uint64_t *out)
{
    enum { DIGITS_MAX = 16 };
    uint64_t value = 0;
    if (text.len == 0 || text.len > DIGITS_MAX || text.data[0] == '0')
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    if (value >= UINT64_C(1) << 53)
        return false;
    *out = value;
    return true;
}

/* --- answers ------------------------------------------------------------------------------------ */

bool request_is_answered(const struct request *r)
{
    return r->answer.status != 0;
}

void request_reply(struct request *r, unsigned status, const char *type, struct buf *body)
{
    struct metrics *m = r->api->edge->metrics;
    assert(!request_is_answered(r));
    auth_abandon(r->check);
    r->check = NULL;
    r->answer.status = status;
    r->answer.type = type;
    r->answer.body = *body;
    *body = (struct buf){0};
    metric_add(m, status < 300 ? M_HTTP_2XX : status < 500 ? M_HTTP_4XX : M_HTTP_5XX, 1);
    if (r->state == REQUEST_WAITING) {
        r->state = REQUEST_ANSWERED;
        list_push(&r->api->answered, &r->link);
    }
}

struct slice request_id(const struct request *r)
{
    return slice_cstr(r->id);
}

/* What is the server's affair. */
static void log_failure(const struct request *r, const struct problem *p)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    if (p->status >= 500 && p->status != 501 && p->status != 505 && log_permitted(&limit, &held))
        log_warn("request refused status=%u code=%s request_id=%s held=%lu", p->status, p->code, r->id,
                 (unsigned long)held);
}

void request_refuse(struct request *r, const struct problem *p)
{
    struct buf body;
    struct problem named = *p;
    named.request_id = r->id;
    log_failure(r, p);
    buf_init(&body, PROBLEM_BYTES_MAX);
    if (problem_put(&body, &named) != ST_OK)
        buf_clear(&body); /* no memory: the status alone has to do */
    r->answer.retry_ms = p->retry_ms;
    request_reply(r, p->status, problem_media_type, &body);
}

void request_bad(struct request *r, const char *detail)
{
    request_refuse(r, &(struct problem){.status = 400, .code = "bad_request", .detail = detail});
}

void request_unsupported(struct request *r, const char *detail)
{
    request_refuse(r, &(struct problem){.status = 501, .code = "unsupported", .detail = detail});
}

void request_not_found(struct request *r, const char *detail)
{
    request_refuse(r, &(struct problem){.status = 404, .code = "not_found", .detail = detail});
}

void request_unavailable(struct request *r, const char *detail)
{
    request_refuse(
        r, &(struct problem){.status = 503, .code = "unavailable", .detail = detail, .retry_ms = RETRY_MS});
}

/* --- head --------------------------------------------------------------------------------------- */

/* RFC 9110, 5.5; RFC 9112, 2.2 and 5.2. Whoever is before us may have taken it for something else, so what
 * follows on the connection is not looked at. */
static void refuse_unread(struct request *r)
{
    request_bad(r, "the head has a NUL, a bare CR, a folded line or a field without a name");
    r->answer.last = true;
}

/* ADR 1: what the library reads in a way of its own never reaches it. False: refused. */
static bool check_framing(struct request *r, const struct request_line *line)
{
    const struct head *h = &r->head;
    if (line->head_bytes > line->head_bytes_max || line->unread || h->bad_name)
        metric_add(r->api->edge->metrics,
                   line->head_bytes > line->head_bytes_max ? M_HTTP_HEADS_LARGE : M_HTTP_HEADS_BAD, 1);
    if (line->head_bytes > line->head_bytes_max)
        request_refuse(
            r, &(struct problem){.status = 431,
                                 .code = "too_large",
                                 .detail = "the request's head is larger than limit.http_head_bytes"});
    else if (line->unread)
        refuse_unread(r);
    else if (h->bad_name)
        request_bad(r, "a header field's name is not a token");
    else if (h->repeated)
        request_bad(r, "a header field that may be given once was given twice");
    else if (head_has(h, HEAD_TRANSFER_ENCODING))
        request_refuse(r, &(struct problem){.status = 411,
                                            .code = "bad_request",
                                            .detail = "send the body with Content-Length, not with "
                                                      "Transfer-Encoding"});
    else if (strcmp(line->version, "HTTP/1.1") != 0)
        request_refuse(
            r, &(struct problem){.status = 505, .code = "unsupported", .detail = "HTTP/1.1 is spoken here"});
    else
        return true;
    return false;
}

static void become(struct request *r, struct principal *p)
{
    principal_unref(r->principal);
    r->principal = p;
}

static void on_checked(void *ctx, enum auth_verdict v, struct principal *p);

static void refuse_credential(struct request *r, enum auth_verdict v)
{
    request_refuse(r, &(struct problem){.status = auth_temporary(v) ? 503 : 401,
                                        .code = auth_temporary(v) ? "unavailable" : "unauthorized",
                                        .detail = auth_text(v),
                                        .retry_ms = auth_temporary(v) ? RETRY_MS : 0});
}

static enum auth_verdict judge(struct request *r, enum access_credential kind, struct slice text)
{
    enum { BASIC_BYTES_MAX = 8192 };
    uint8_t bytes[BASIC_BYTES_MAX];
    struct buf space = {.data = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    struct auth_credential credential = {.is_token = kind == CREDENTIAL_TOKEN, .secret = text};
    struct principal *p;
    if (kind == CREDENTIAL_BASIC &&
        !authorization_split_basic(text, &space, &credential.user, &credential.secret)) {
        auth_failed(r->api->edge->auth, AUTH_PASSWORD);
        return AUTH_PASSWORD;
    }
    enum auth_verdict v = auth_check(r->api->edge->auth, &credential, on_checked, r, &p, &r->check);
    explicit_bzero(bytes, sizeof bytes);
    if (v == AUTH_OK)
        become(r, p);
    return v;
}

/* The place permits it; who is it? True: he is known, or will be. */
static bool identify(struct request *r)
{
    struct slice text;
    enum access_credential kind = access_credential(&r->api->access, &r->head, &text);
    enum auth_verdict v = AUTH_OK;
    assert(kind != CREDENTIAL_BAD); /* access_judge has said so */
    if (kind == CREDENTIAL_KEY)
        become(r, auth_admin(r->api->edge->auth));
    else if (kind != CREDENTIAL_NONE)
        v = judge(r, kind, text);
    if (v != AUTH_OK && v != AUTH_PENDING)
        refuse_credential(r, v);
    return !request_is_answered(r);
}

/* Who watches over the node may ask whether it lives. */
static bool is_probe(const struct request *r)
{
    static const char *const probes[] = {"/healthz", "/livez", "/readyz"};
    for (size_t i = 0; r->api->probes_open && i < sizeof probes / sizeof *probes; i++)
        if (slice_equal_cstr(r->asked, probes[i]))
            return true;
    return false;
}

static bool check_access(struct request *r)
{
    enum access access = access_judge(&r->api->access, &r->head);
    if (access == ACCESS_GRANTED || (access == ACCESS_NEEDS_KEY && is_probe(r)))
        return identify(r);
    if (access == ACCESS_FORWARDED || access == ACCESS_NEEDS_KEY || access == ACCESS_BAD_KEY)
        auth_failed(r->api->edge->auth, access == ACCESS_BAD_KEY ? AUTH_PASSWORD : AUTH_ANONYMOUS);
    bool forbidden = access == ACCESS_BAD_HOST || access == ACCESS_BAD_ORIGIN;
    request_refuse(r, &(struct problem){.status = forbidden ? 403 : 401,
                                        .code = forbidden ? "forbidden" : "unauthorized",
                                        .detail = access_text(access)});
    return false;
}

/* Is `method` one of "GET, HEAD"? */
static bool allows(const char *allow, const char *method)
{
    size_t len = strlen(method);
    for (const char *at = allow; *at;) {
        size_t name = strcspn(at, ",");
        if (name == len && memcmp(at, method, len) == 0)
            return true;
        at += name;
        at += strspn(at, ", ");
    }
    return false;
}

static bool check_route_rights(struct request *r)
{
    if (r->route->for_users || r->check || principal_may_administer(r->principal))
        return true;
    request_refuse(r, &(struct problem){.status = 403,
                                        .code = "forbidden",
                                        .detail =
                                            "this resource is for administrators: the api.key as bearer, or "
                                            "a token with \"tidegate\":{\"admin\":true}"});
    return false;
}

static bool find_route(struct request *r, const char *method)
{
    r->deletes = strcmp(method, "DELETE") == 0;
    enum target_flaw flaw = target_parse(r->asked, r->texts + r->raw_len, &r->target);
    if (flaw != TARGET_FINE) {
        request_bad(r, target_flaw_text(flaw));
        return false;
    }
    r->route = route_find(r->target.path);
    if (!r->route) {
        request_refuse(r,
                       &(struct problem){.status = 404, .code = "not_found", .detail = "no such resource"});
    } else if (!r->route->allow) {
        request_unsupported(r, "this build does not have this resource, see /v1/capabilities");
    } else if (r->target.trailing_slash) {
        request_bad(r, target_flaw_text(TARGET_EMPTY_SEGMENT));
    } else if (!check_route_rights(r)) {
        return false;
    } else if (!allows(r->route->allow, method)) {
        r->answer.allow = r->route->allow;
        request_refuse(r, &(struct problem){.status = 405,
                                            .code = "bad_request",
                                            .detail = "this resource has no such method, see Allow"});
    }
    r->posts = strcmp(method, "POST") == 0;
    return !request_is_answered(r);
}

/* The declared length: digits, as the library has checked. */
static bool read_length(struct slice text, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || value > UINT64_MAX / 16)
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return text.len > 0;
}

static bool check_body(struct request *r, uint64_t length)
{
    const struct head *h = &r->head;
    if (head_has(h, HEAD_EXPECT) &&
        (h->fields[HEAD_EXPECT].len != 12 ||
         strncasecmp((const char *)h->fields[HEAD_EXPECT].data, "100-continue", 12) != 0))
        request_refuse(r, &(struct problem){.status = 417,
                                            .code = "bad_request",
                                            .detail = "Expect can only be 100-continue"});
    else if (length > r->body_max)
        request_refuse(r, &(struct problem){.status = 413,
                                            .code = "too_large",
                                            .detail = "the body is larger than limit.message_bytes, or with "
                                                      "a batch limit.batch_bytes"});
    else
        return true;
    return false;
}

/* True: the answer can wait until the body has been read and thrown away, also one of nothing: to the library
 * an answer at the head is one that nothing may follow. A peer that waits for "100 Continue" has not sent its
 * body. */
static bool may_discard(const struct request *r, bool framed, uint64_t length)
{
    return framed && length <= r->body_max && (length == 0 || !head_has(&r->head, HEAD_EXPECT));
}

void request_unknown_parameter(struct request *r, struct slice name, const char *more)
{
    char text[UNKNOWN_TEXT_BYTES];
    unknown_parameter_text(name, more, text);
    request_bad(r, text);
}

bool request_publishes(const struct request *r)
{
    return r->route->run == publish_run || (r->route->run == users_run && r->posts);
}

/* What takes no parameters says so. */
static void refuse_parameters(struct request *r)
{
    struct slice name, value;
    enum status st = target_parameter(&r->target, &name, &value);
    if (st == ST_OK)
        request_unknown_parameter(r, name, "");
    else if (st == ST_INVALID)
        request_bad(r, bad_percent);
}

static void look_at_target(struct request *r, const char *method, uint64_t length)
{
    if (!find_route(r, method))
        return;
    if (r->route->begin)
        r->route->begin(r);
    if (!request_is_answered(r) && !r->parameters_read)
        refuse_parameters(r);
    if (!request_is_answered(r) && check_body(r, length) && length > 0 && !(r->route->takes_body && r->posts))
        request_bad(r, "this request has no body");
    if (request_is_answered(r) && request_publishes(r))
        publish_count_refused(r);
}

void request_head(struct request *r, const struct request_line *line)
{
    uint64_t length = 0;
    struct slice id = r->head.fields[HEAD_REQUEST_ID], authority;
    assert(r->state == REQUEST_NEW);
    if (request_id_valid(id))
        snprintf(r->id, sizeof r->id, "%.*s", SLICE_ARG(id));
    r->asked = slice_of(r->texts, r->raw_len);
    bool framed = check_framing(r, line);
    if (target_take_authority(&r->asked, &authority)) /* RFC 9112, 3.2.2: Host does not count */
        r->head.fields[HEAD_HOST] = authority;
    if (framed && head_has(&r->head, HEAD_CONTENT_LENGTH) &&
        !read_length(r->head.fields[HEAD_CONTENT_LENGTH], &length)) {
        request_bad(r, "Content-Length is not a number");
        framed = false;
    }
    if (framed && check_access(r))
        look_at_target(r, line->method, length);
    if (request_is_answered(r)) {
        r->state = may_discard(r, framed, length) ? REQUEST_DISCARDING : REQUEST_ANSWERED;
        return;
    }
    buf_init(&r->body, length > 0 ? (size_t)length : 1);
    r->state = REQUEST_READING;
}

/* --- topic and parameters ----------------------------------------------------------------------- */

/* Those given so far. Unknown ones are refused at once, so there are never more than the names that exist. */
struct parameters_seen {
    struct slice names[8];
    unsigned count;
};

/* False: given twice, and refused. */
static bool note_parameter(struct request *r, struct parameters_seen *seen, struct slice name)
{
    for (unsigned i = 0; i < seen->count; i++)
        if (slice_equal(seen->names[i], name)) {
            request_bad(r, "a query parameter is given twice");
            return false;
        }
    assert(seen->count < sizeof seen->names / sizeof seen->names[0]);
    seen->names[seen->count++] = name;
    return true;
}

static void read_parameters(struct request *r, bool *in_query,
                            void (*on_parameter)(struct request *r, struct slice name, struct slice value))
{
    struct slice name, value;
    struct parameters_seen seen = {.count = 0};
    enum status st;
    r->parameters_read = true;
    while ((st = target_parameter(&r->target, &name, &value)) == ST_OK && !request_is_answered(r)) {
        if (!note_parameter(r, &seen, name))
            continue;
        if (slice_equal_cstr(name, "topic")) {
            if (r->topic.len > 0)
                request_bad(r, "the topic is given twice");
            *in_query = true;
            r->topic = value;
        } else if (on_parameter) {
            on_parameter(r, name, value);
        } else {
            request_unknown_parameter(r, name, "");
        }
    }
    if (st == ST_INVALID && !request_is_answered(r))
        request_bad(r, bad_percent);
}

void request_read_parameters(struct request *r,
                             void (*on_parameter)(struct request *r, struct slice name, struct slice value))
{
    bool in_query;
    read_parameters(r, &in_query, on_parameter);
}

static bool check_right(struct request *r)
{
    if (principal_may(r->principal, r->op, r->topic, (struct slice){0}))
        return true;
    bool inbox = topic_internal(r->topic) && r->op != ACL_PUBLISH;
    request_refuse(
        r, &(struct problem){.status = 403,
                             .code = "forbidden",
                             .detail = inbox ? "an inbox is its user's own; anonymous callers have none"
                                             : access_denied_text(r->op)});
    return false;
}

bool request_require(struct request *r, enum access_op op)
{
    r->requires = true;
    r->op = op;
    return r->check || check_right(r);
}

static void check_topic(struct request *r)
{
    enum access_op op = r->deletes ? ACL_PUBLISH : r->route->op;
    struct slice user;
    if (topic_internal(r->topic) && (op == ACL_PUBLISH || !topic_user(r->topic, &user)))
        request_refuse(r, &(struct problem){.status = 403,
                                            .code = "forbidden",
                                            .detail = "topics that begin with $ are the node's own"});
    else
        (void)request_require(r, op);
}

static bool read_topic(struct request *r, bool (*valid)(struct slice text, const struct topic_limits *limits),
                       const char *invalid,
                       void (*on_parameter)(struct request *r, struct slice name, struct slice value))
{
    bool in_query = false;
    r->topic = slice_from(r->target.path, strlen(r->route->path) + 1);
    read_parameters(r, &in_query, on_parameter);
    if (request_is_answered(r))
        return false;
    if (!in_query && r->topic.len == 0)
        return true; /* none given: the route knows what that means */
    if (!valid(r->topic, &r->api->topic))
        request_bad(r, invalid);
    else
        check_topic(r);
    return !request_is_answered(r);
}

bool request_read_topic(struct request *r,
                        void (*on_parameter)(struct request *r, struct slice name, struct slice value))
{
    return read_topic(r, topic_name_valid, "the topic is not a topic name within the limits", on_parameter);
}

bool request_read_filter(struct request *r,
                         void (*on_parameter)(struct request *r, struct slice name, struct slice value))
{
    return read_topic(r, topic_filter_valid, "the filter is not a topic filter within the limits",
                      on_parameter);
}

/* --- body --------------------------------------------------------------------------------------- */

void request_body(struct request *r, struct slice bytes)
{
    metric_add(r->api->edge->metrics, M_BYTES_IN_HTTP, bytes.len);
    if (r->state != REQUEST_READING)
        return;
    if (request_keep(r, bytes.len) && buf_put(&r->body, bytes) == ST_OK)
        return;
    r->state = REQUEST_DISCARDING;
    request_release(r, r->kept_bytes);
    buf_deinit(&r->body);
    request_unavailable(r, "too many bodies are being received");
    if (request_publishes(r))
        publish_count_refused(r);
}

void request_end(struct request *r)
{
    if (r->state == REQUEST_READING) {
        r->state = REQUEST_WAITING;
        if (r->check) /* on_checked goes on */
            return;
        r->route->run(r);
        if (r->state == REQUEST_ANSWERED) /* at once: it need not be called again */
            list_unlink(&r->link);
    } else {
        assert(r->state == REQUEST_DISCARDING);
        r->state = REQUEST_ANSWERED;
    }
}

/* Who asks is known now. What could be looked at before has been (request_head); what depends on him follows.
 */
static void on_checked(void *ctx, enum auth_verdict v, struct principal *p)
{
    struct request *r = ctx;
    r->check = NULL;
    if (v != AUTH_OK)
        refuse_credential(r, v);
    else
        become(r, p);
    if (!request_is_answered(r) && check_route_rights(r) && r->requires)
        (void)check_right(r);
    if (!request_is_answered(r)) {
        if (r->state == REQUEST_WAITING)
            r->route->run(r);
        return;
    }
    if (request_publishes(r))
        publish_count_refused(r);
    if (r->state == REQUEST_READING) { /* the rest of the body is thrown away */
        r->state = REQUEST_DISCARDING;
        request_release(r, r->kept_bytes);
        buf_deinit(&r->body);
    }
}

void request_give_up(struct request *r)
{
    assert(r->state == REQUEST_WAITING && (r->pending || r->check));
    if (r->check) {
        auth_abandon(r->check);
        r->check = NULL;
        request_unavailable(r, "the credential was not checked in time");
        return;
    }
    r->route->give_up(r);
    assert(r->state == REQUEST_ANSWERED && !r->pending);
}
