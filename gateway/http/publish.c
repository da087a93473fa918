/* POST /v1/publish. The head says where to and how, the body is the payload as is. The answer leaves when the
 * record is durable; with Tidegate-Wait: accepted when the log has taken it. */
#include "gateway/http/request.h"

#include "core/json.h"
#include "core/utf8.h"
#include "gateway/content.h"
#include "gateway/http/once_key.h"
#include "gateway/http/trace.h"

#include <assert.h>
#include <strings.h>

enum { TYPE_BYTES_MAX = 1024, ANSWER_OVERHEAD_BYTES = 128 };

/* --- head --------------------------------------------------------------------------------------- */

static bool begins_with(struct slice text, const char *start)
{
    size_t len = strlen(start);
    return text.len >= len && strncasecmp((const char *)text.data, start, len) == 0;
}

static bool is(struct slice text, const char *want)
{
    return text.len == strlen(want) && begins_with(text, want);
}

/* What PROTOCOL.md 2 names and this build does not have. NULL: none of it is asked for. */
static const char *unsupported_part(const struct request *r)
{
    const struct head *h = &r->head;
    if (head_has(h, HEAD_DELIVER_AT))
        return "Tidegate-Deliver-At is not in this build";
    if (head_has(h, HEAD_CE_SPECVERSION) ||
        begins_with(h->fields[HEAD_CONTENT_TYPE], "application/cloudevents"))
        return "CloudEvents are not in this build";
    return NULL;
}

static bool read_wait(struct request *r)
{
    struct slice wait = r->head.fields[HEAD_WAIT];
    bool accepted = head_has(&r->head, HEAD_WAIT) && is(wait, "accepted");
    /* Who asks whether it is a repetition is answered when that is certain. */
    r->publish.accepted = accepted && !head_has(&r->head, HEAD_IDEMPOTENCY_KEY);
    return !head_has(&r->head, HEAD_WAIT) || accepted || is(wait, "durable");
}

/* NULL: there is nothing wrong with the fields. */
static const char *bad_part(struct request *r)
{
    const struct head *h = &r->head;
    uint8_t space[ONCE_NAME_BYTES_MAX];
    struct slice key;
    if (h->unknown_tidegate)
        return "there is no such Tidegate-* header field; there are Tidegate-Key, Tidegate-Ttl-Ms, "
               "Tidegate-Retain and Tidegate-Wait";
    if (h->fields[HEAD_CONTENT_TYPE].len > TYPE_BYTES_MAX || !utf8_valid_mqtt(h->fields[HEAD_CONTENT_TYPE]))
        return "Content-Type must be UTF-8 of at most 1,024 bytes";
    if (h->fields[HEAD_KEY].len > r->api->topic.bytes_max || !utf8_valid_mqtt(h->fields[HEAD_KEY]))
        return "Tidegate-Key must be UTF-8, no longer than a topic may be";
    if (head_has(h, HEAD_TTL_MS) && !read_number(h->fields[HEAD_TTL_MS], &r->publish.ttl_ms))
        return "Tidegate-Ttl-Ms must be an integer from 1 to 2^53-1";
    if (head_has(h, HEAD_RETAIN) && !is(h->fields[HEAD_RETAIN], "1") && !is(h->fields[HEAD_RETAIN], "0"))
        return "Tidegate-Retain can be 1 or 0";
    if (!read_wait(r))
        return "Tidegate-Wait can be accepted or durable";
    if (head_has(h, HEAD_IDEMPOTENCY_KEY) && !once_key_read(h->fields[HEAD_IDEMPOTENCY_KEY], space, &key))
        return "Idempotency-Key must be UTF-8 of 1 to 255 bytes";
    return NULL;
}

/* Is it of this media type, whatever its parameters? */
static bool media_type_is(struct slice type, const char *want)
{
    size_t len = strlen(want);
    return begins_with(type, want) &&
           (type.len == len || type.data[len] == ';' || type.data[len] == ' ' || type.data[len] == '\t');
}

/* Without a topic it is a batch. */
static void begin_batch(struct request *r)
{
    const struct head *h = &r->head;
    struct slice type = h->fields[HEAD_CONTENT_TYPE];
    static const enum head_field own[] = {HEAD_KEY, HEAD_TTL_MS, HEAD_RETAIN, HEAD_IDEMPOTENCY_KEY};
    r->publish.batch = true;
    r->body_max = r->api->edge->settings->limit_batch_bytes;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (head_has(h, own[i])) {
            request_bad(r, "Tidegate-Key, Tidegate-Ttl-Ms, Tidegate-Retain and Idempotency-Key are of one "
                           "message: in a batch each names its own as key, ttl_ms, retain, idempotency_key");
            return;
        }
    if (r->publish.accepted)
        request_unsupported(r, "a batch is answered when its messages are durable");
    else if (media_type_is(type, "application/x-ndjson") || media_type_is(type, "application/ndjson") ||
             media_type_is(type, "application/jsonl"))
        r->publish.form = BATCH_LINES;
    else if (type.len == 0 || media_type_is(type, "application/json") ||
             media_type_is(type, "application/x-www-form-urlencoded")) /* curl -d says so of everything */
        r->publish.form = BATCH_DOCUMENT;
    else
        request_refuse(r, &(struct problem){.status = 415,
                                            .code = "unsupported",
                                            .detail = "without a topic the body is a batch: application/json "
                                                      "or application/x-ndjson"});
}

void publish_begin(struct request *r)
{
    if (request_read_topic(r, NULL))
        publish_look_at_head(r);
}

void publish_look_at_head(struct request *r)
{
    const char *unsupported = unsupported_part(r);
    const char *bad = unsupported ? NULL : bad_part(r);
    if (unsupported)
        request_unsupported(r, unsupported);
    else if (bad)
        request_bad(r, bad);
    else if (head_has(&r->head, HEAD_CONTENT_ENCODING) &&
             !is(r->head.fields[HEAD_CONTENT_ENCODING], "identity"))
        request_refuse(r, &(struct problem){.status = 415,
                                            .code = "unsupported",
                                            .detail = "a body with a Content-Encoding is not taken: a "
                                                      "subscriber would not know of it"});
    else if (r->topic.len == 0)
        begin_batch(r);
}

enum metric publish_refusal(unsigned status)
{
    switch (status) {
    case 409:
    case 422:
        return M_REFUSED_CONFLICT;
    case 403:
        return M_REFUSED_FORBIDDEN;
    case 413:
        return M_REFUSED_LIMIT;
    case 415:
    case 501:
        return M_REFUSED_UNSUPPORTED;
    case 503:
        return M_REFUSED_UNAVAILABLE;
    default:
        return M_REFUSED_INVALID;
    }
}

void publish_count_refused(struct request *r)
{
    struct metrics *m = r->api->edge->metrics;
    if (r->answer.status == 405)
        return; /* not a publish */
    metric_add(m, M_RECEIVED_HTTP, 1);
    metric_add(m, publish_refusal(r->answer.status), 1);
}

/* --- message ------------------------------------------------------------------------------------ */

static size_t put_once_key(const struct request *r, struct slice type, uint8_t *out)
{
    const struct head *h = &r->head;
    uint8_t space[ONCE_NAME_BYTES_MAX];
    struct once_id id = {.kind = ONCE_KEY,
                         .principal = r->principal->user,
                         .value = once_digest(buf_slice(&r->body), type, h->fields[HEAD_KEY],
                                              is(h->fields[HEAD_RETAIN], "1"))};
    bool valid = once_key_read(h->fields[HEAD_IDEMPOTENCY_KEY], space, &id.name);
    assert(valid); /* publish_begin has seen to it */
    return once_id_write(&id, out);
}

/* ST_INVALID: the body is not what its type says. */
static enum status make_msg(struct request *r, struct msg **out)
{
    const struct head *h = &r->head;
    struct loop *loop = r->api->edge->loop;
    struct slice type = h->fields[HEAD_CONTENT_TYPE], trace = h->fields[HEAD_TRACEPARENT];
    uint8_t props[2 * PROP_HEAD_BYTES + TYPE_BYTES_MAX + TRACE_BYTES + ONCE_PROP_BYTES_MAX];
    size_t props_len = 0;
    enum content_class content;
    struct msg *m;
    if (is(type, "application/x-www-form-urlencoded")) /* curl -d says so of everything */
        type = (struct slice){0};
    enum status st = content_classify(type, buf_slice(&r->body), &content);
    if (st != ST_OK)
        return st;
    if (type.len > 0)
        props_len += props_put(props, PROP_CONTENT_TYPE, type);
    if (trace_valid(trace))
        props_len += props_put(props + props_len, PROP_TRACE, trace);
    if (head_has(h, HEAD_IDEMPOTENCY_KEY))
        props_len += put_once_key(r, type, props + props_len);
    st = msg_create(r->topic, h->fields[HEAD_KEY], slice_of(props, props_len), buf_slice(&r->body), &m);
    if (st != ST_OK)
        return st;
    m->content = (uint8_t)content;
    m->qos = 1;
    m->flags = type.len > 0 ? MSG_TYPE_GIVEN : 0;
    if (is(r->head.fields[HEAD_RETAIN], "1"))
        m->flags |= MSG_RETAIN;
    if (head_has(h, HEAD_IDEMPOTENCY_KEY))
        m->flags |= MSG_ONCE;
    m->expires_ms = r->publish.ttl_ms > 0 ? loop_wall_ms(loop) + r->publish.ttl_ms : 0;
    m->accepted_ns = clock_mono_ns(loop_clock(loop));
    *out = m;
    return ST_OK;
}

/* --- answer ------------------------------------------------------------------------------------- */

static const char json_type[] = "application/json";

/* `m` NULL: accepted, which has no position yet. */
static void reply_ok(struct request *r, const struct msg *m, bool duplicate)
{
    struct buf body;
    char position[POSITION_BYTES];
    buf_init(&body, 6 * r->topic.len + ANSWER_OVERHEAD_BYTES);
    enum status st = buf_put_cstr(&body, "{\"topic\":");
    if (st == ST_OK)
        st = json_put_string(&body, r->topic);
    if (st == ST_OK && m && (m->flags & MSG_UNSTORED))
        st = buf_put_cstr(&body, ",\"stored\":false,\"dup\":false");
    else if (st == ST_OK && m) {
        position_write(r->api->edge->facts->epoch, m->partition, m->offset, position);
        st = buf_printf(&body, ",\"pos\":\"%.*s\",\"dup\":%s", POSITION_BYTES, position,
                        duplicate ? "true" : "false");
    }
    if (st == ST_OK)
        st = buf_put_cstr(&body, "}\n");
    if (st != ST_OK) /* it is stored all the same: the status says so */
        buf_clear(&body);
    request_reply(r, m ? 200 : 202, json_type, &body);
}

struct problem publish_problem(enum status status)
{
    static const struct problem unavailable = {.status = 503,
                                               .code = "unavailable",
                                               .detail = "the log does not take it now; nothing was stored",
                                               .retry_ms = RETRY_MS};
    static const struct problem rows[ST_COUNT] = {
        [ST_NO_SPACE] = {503, "storage_full", "the disk is full", RETRY_MS, NULL},
        [ST_UNSUPPORTED] = {501, "unsupported",
                            "this topic is not stored, so nothing can be retained there, or stored once", 0,
                            NULL},
        [ST_QUOTA] = {503, "quota_exceeded", "limit.retained or limit.retained_bytes is reached", 0, NULL},
        [ST_AGAIN] = {409, "conflict", "the first request with this Idempotency-Key is not durable yet",
                      RETRY_MS, NULL},
        [ST_EXISTS] = {422, "conflict",
                       "this Idempotency-Key was used for another body, Content-Type, Tidegate-Key or "
                       "Tidegate-Retain",
                       0, NULL},
        [ST_CONFLICT] = {409, "conflict",
                         "seq is older than what is remembered of this producer, or was used for another "
                         "topic",
                         0, NULL},
    };
    return rows[status].code ? rows[status] : unavailable;
}

void publish_refuse(struct request *r, enum status status)
{
    struct problem p = publish_problem(status);
    request_refuse(r, &p);
}

static void on_published(struct publish *p)
{
    struct request *r = p->owner;
    if (r) {
        r->pending = NULL;
        if (p->status == ST_OK)
            reply_ok(r, p->msg, p->duplicate);
        else
            publish_refuse(r, p->status);
    }
    publish_free(p);
}

void publish_give_up(struct request *r)
{
    if (r->publish.batch) {
        batch_give_up(r);
        return;
    }
    struct publish *p = r->pending;
    p->owner = NULL; /* it comes back some time, and is then only freed */
    r->pending = NULL;
    request_refuse(r,
                   &(struct problem){.status = 503,
                                     .code = "unavailable",
                                     .detail = "the log has not said in time whether the message is durable",
                                     .retry_ms = RETRY_MS,
                                     .members = "\"unknown\":true"});
}

static void no_memory(struct request *r)
{
    metric_add(r->api->edge->metrics, M_REFUSED_UNAVAILABLE, 1);
    request_unavailable(r, "no memory");
}

void publish_run(struct request *r)
{
    struct edge *e = r->api->edge;
    struct msg *m;
    struct publish *p;
    if (r->publish.batch) {
        batch_run(r);
        return;
    }
    enum status st = make_msg(r, &m);
    buf_deinit(&r->body);
    request_release(r, r->kept_bytes);
    metric_add(e->metrics, M_RECEIVED_HTTP, 1);
    if (st == ST_INVALID) {
        metric_add(e->metrics, M_REFUSED_INVALID, 1);
        request_bad(r, "Content-Type says JSON, and the body is not valid JSON");
    } else if (st != ST_OK) {
        no_memory(r);
    } else if (r->publish.accepted) {
        st = hub_publish_lazy(e->hub, m); /* counts a refusal itself */
        if (st == ST_OK)
            reply_ok(r, NULL, false);
        else
            publish_refuse(r, st);
    } else if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        no_memory(r);
    } else {
        p->wait = true;
        p->on_published = on_published;
        p->owner = r;
        r->pending = p;
        hub_publish(e->hub, p);
    }
}
