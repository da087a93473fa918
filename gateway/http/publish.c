/* POST /v1/publish. The head says where to and how, the body is the payload as is. The answer leaves when the
 * record is durable; with Tidegate-Wait: accepted when the log has taken it. */
#include "gateway/http/request.h"

#include "core/json.h"
#include "core/utf8.h"
#include "gateway/content.h"
#include "gateway/gate.h"
#include "gateway/http/cloud_event.h"
#include "gateway/http/once_key.h"
#include "gateway/http/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

enum { TYPE_BYTES_MAX = 1024, ANSWER_OVERHEAD_BYTES = 128, TEXTS_BYTES_MAX = 128 * 1024 };

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
    return NULL;
}

static bool read_wait(struct request *r)
{
    struct slice wait = r->head.fields[HEAD_WAIT];
    bool accepted = head_has(&r->head, HEAD_WAIT) && is(wait, "accepted");
    /* Who asks whether it is a repetition is answered when that is certain. */
    r->publish.accepted = accepted && !head_has(&r->head, HEAD_IDEMPOTENCY_KEY) && r->head.ce_count == 0;
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

/* What stands in the head of one message. True: it is given, and refused. */
static bool refuse_own_fields(struct request *r)
{
    const struct head *h = &r->head;
    static const enum head_field own[] = {HEAD_KEY, HEAD_TTL_MS, HEAD_RETAIN, HEAD_IDEMPOTENCY_KEY};
    r->publish.batch = true;
    r->body_max = r->api->edge->settings->limit_batch_bytes;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (head_has(h, own[i])) {
            request_bad(r, "Tidegate-Key, Tidegate-Ttl-Ms, Tidegate-Retain and Idempotency-Key are of one "
                           "message: in a batch each names its own as key, ttl_ms, retain, idempotency_key");
            return true;
        }
    if (r->publish.accepted)
        request_unsupported(r, "a batch is answered when its messages are durable");
    return r->publish.accepted;
}

/* CloudEvents, structured mode: one is a batch of one. */
static void begin_events(struct request *r)
{
    struct slice type = r->head.fields[HEAD_CONTENT_TYPE];
    bool one = media_type_is(type, "application/cloudevents+json");
    if (!one && !media_type_is(type, "application/cloudevents-batch+json")) {
        request_refuse(r, &(struct problem){.status = 415,
                                            .code = "unsupported",
                                            .detail = "of CloudEvents the JSON format is taken, "
                                                      "application/cloudevents+json or -batch+json"});
        return;
    }
    r->publish.form = one ? BATCH_ONE : BATCH_ARRAY;
    r->publish.events = true;
    (void)refuse_own_fields(r);
}

/* Without a topic it is a batch. */
static void begin_batch(struct request *r)
{
    struct slice type = r->head.fields[HEAD_CONTENT_TYPE];
    if (refuse_own_fields(r))
        return;
    if (media_type_is(type, "application/x-ndjson") || media_type_is(type, "application/ndjson") ||
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
    else if (begins_with(r->head.fields[HEAD_CONTENT_TYPE], "application/cloudevents"))
        begin_events(r);
    else if (r->topic.len == 0 && r->head.ce_count == 0)
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
    case 429:
        return M_REFUSED_RATE;
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

/* The body as a message. ST_INVALID: item->refused says why. `texts` has what is decoded. */
static enum status read_item(struct request *r, struct buf *texts, uint8_t space[ONCE_NAME_BYTES_MAX],
                             struct publish_item *item)
{
    const struct head *h = &r->head;
    struct slice type = h->fields[HEAD_CONTENT_TYPE];
    enum status st = ST_OK;
    if (is(type, "application/x-www-form-urlencoded")) /* curl -d says so of everything */
        type = (struct slice){0};
    *item = (struct publish_item){.topic = r->topic,
                                  .key = h->fields[HEAD_KEY],
                                  .type = type,
                                  .payload = buf_slice(&r->body),
                                  .has_payload = true,
                                  .retain = is(h->fields[HEAD_RETAIN], "1"),
                                  .ttl_ms = r->publish.ttl_ms};
    if (content_classify(type, item->payload, &item->content) != ST_OK) {
        item->refused = "bad_request";
        item->detail = "Content-Type says JSON, and the body is not valid JSON";
    } else if (h->ce_count > 0) {
        st = cloud_event_read_head(h, texts, item);
    }
    if (st != ST_OK || item->refused)
        return st != ST_OK ? st : ST_INVALID;
    if (head_has(h, HEAD_IDEMPOTENCY_KEY)) {
        bool valid = once_key_read(h->fields[HEAD_IDEMPOTENCY_KEY], space, &item->once_key);
        assert(valid); /* publish_begin has seen to it */
    }
    return ST_OK;
}

enum status publish_make_msg(const struct request *r, const struct publish_item *item, struct msg **out)
{
    struct loop *loop = r->api->edge->loop;
    struct slice trace = r->head.fields[HEAD_TRACEPARENT], user = item->user_props;
    uint8_t few[ITEM_PROPS_BYTES_MAX + PROP_HEAD_BYTES + TRACE_BYTES], *props = few;
    struct msg *m;
    if (user.len > 0 && !(props = malloc(sizeof few + user.len)))
        return ST_NO_MEMORY;
    size_t len = publish_item_props(item, r->principal->user, props);
    if (trace_valid(trace))
        len += props_put(props + len, PROP_TRACE, trace);
    if (user.len > 0)
        memcpy(props + len, user.data, user.len);
    enum status st = msg_create(item->topic, item->key, slice_of(props, len + user.len), item->payload, &m);
    if (props != few)
        free(props);
    if (st != ST_OK)
        return st;
    publish_item_mark(item, loop_wall_ms(loop), m);
    m->accepted_ns = clock_mono_ns(loop_clock(loop));
    *out = m;
    return ST_OK;
}

/* ST_INVALID, ST_FORBIDDEN: it has been refused. */
static enum status make_msg(struct request *r, struct msg **out)
{
    struct buf texts;
    struct publish_item item;
    struct problem objection;
    uint8_t space[ONCE_NAME_BYTES_MAX];
    buf_init(&texts, TEXTS_BYTES_MAX);
    enum status st = read_item(r, &texts, space, &item);
    if (st == ST_INVALID) {
        request_bad(r, item.detail);
    } else if (st == ST_OK && r->topic.len == 0 && publish_objection(r, &item, &objection)) {
        request_refuse(r, &objection);
        st = ST_FORBIDDEN;
    } else if (st == ST_OK) {
        st = publish_make_msg(r, &item, out);
    }
    if (st == ST_OK && r->topic.len == 0) { /* the event's subject was it */
        buf_init(&r->made, item.topic.len);
        if (buf_put(&r->made, item.topic) == ST_OK)
            r->topic = buf_slice(&r->made);
    }
    if (st == ST_OK && item.type.len == 0)
        (*out)->flags &= (uint8_t)~MSG_TYPE_GIVEN;
    buf_deinit(&texts);
    return st;
}

bool publish_objection(const struct request *r, const struct publish_item *item, struct problem *out)
{
    const struct api *api = r->api;
    *out = (struct problem){.status = 400, .code = "bad_request"};
    if (item->refused) {
        out->status = strcmp(item->refused, "unsupported") == 0 ? 501 : 400;
        out->code = item->refused;
        out->detail = item->detail;
    } else if (!topic_name_valid(item->topic, &api->topic)) {
        out->detail = "topic is not a topic name within the limits";
    } else if (item->topic.data != r->topic.data && topic_internal(item->topic)) {
        *out =
            (struct problem){403, "forbidden", "topics that begin with $ are the node's own", 0, NULL, NULL};
    } else if (item->topic.data != r->topic.data &&
               !principal_may(r->principal, ACL_PUBLISH, item->topic, (struct slice){0})) {
        *out = (struct problem){403, "forbidden", access_denied_text(ACL_PUBLISH), 0, NULL, NULL};
    } else if (item->payload.len > api->edge->settings->limit_message_bytes) {
        *out = (struct problem){413, "too_large", "the payload is over limit.message_bytes", 0, NULL, NULL};
    } else if (item->key.len > api->topic.bytes_max) {
        *out = (struct problem){413, "too_large", "key is longer than a topic may be", 0, NULL, NULL};
    }
    return out->detail != NULL;
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
        [ST_EXPIRED] = {.status = 503,
                        .code = "unavailable",
                        .detail = "the log has not said in time whether it has the message",
                        .retry_ms = RETRY_MS,
                        .members = "\"unknown\":true"},
        [ST_CLOSED] = {503, "unavailable", "the log cannot be reached; nothing was stored", RETRY_MS, NULL,
                       NULL},
        [ST_NO_SPACE] = {503, "storage_full", "the disk is full", RETRY_MS, NULL, NULL},
        [ST_UNSUPPORTED] = {501, "unsupported",
                            "this topic is not stored, so nothing can be retained there, or stored once", 0,
                            NULL, NULL},
        [ST_QUOTA] = {503, "quota_exceeded", "limit.retained or limit.retained_bytes is reached", 0, NULL,
                      NULL},
        [ST_AGAIN] = {409, "conflict", "the first request with this Idempotency-Key is not durable yet",
                      RETRY_MS, NULL, NULL},
        [ST_EXISTS] = {422, "conflict",
                       "this Idempotency-Key was used for another body, Content-Type, Tidegate-Key or "
                       "Tidegate-Retain",
                       0, NULL, NULL},
        [ST_CONFLICT] = {409, "conflict",
                         "seq is older than what is remembered of this producer, or was used for another "
                         "topic",
                         0, NULL, NULL},
    };
    return rows[status].code ? rows[status] : unavailable;
}

bool publish_admitted(const struct request *r, struct problem *out)
{
    uint32_t wait_ms = gate_publish_as(r->api->edge, r->principal->user);
    *out = (struct problem){429, "rate_limited", gate_publish_text, wait_ms, NULL, NULL};
    return wait_ms == 0;
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
    struct problem over;
    enum status st = ST_FORBIDDEN;
    if (publish_admitted(r, &over))
        st = make_msg(r, &m);
    else
        request_refuse(r, &over);
    buf_deinit(&r->body);
    request_release(r, r->kept_bytes);
    metric_add(e->metrics, M_RECEIVED_HTTP, 1);
    if (st == ST_INVALID || st == ST_FORBIDDEN) {
        metric_add(e->metrics, publish_refusal(r->answer.status), 1);
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
