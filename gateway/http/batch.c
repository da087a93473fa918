/* POST /v1/publish with several messages. Not atomic: each is a publish of its own with an outcome of its
 * own, and the answer has them in the order in which they were given, when the last of them is known.
 *
 *   split     the body into items; nothing is published before all of it has proved to be a batch
 *   publish   one after the other, at most limit.publish_open on their way
 *   repeat    those whose Idempotency-Key was under way, once: in most cases the first was in this batch
 *   reply
 *
 * A body may be megabytes and its items thousands, so a turn of the loop does STEP_BYTES of the work and the
 * door comes back for the rest (api_work). Publishes of one turn leave in one frame, and whatever number of
 * frames has come when the disk is ready shares its sync: a batch is a group commit without doing anything
 * for it. Memory: the body, counted as any body is, then an entry an item and the text of the answer, both
 * counted by request_keep before they are made. */
#include "gateway/http/request.h"

#include "gateway/http/batch_split.h"
#include "gateway/http/cloud_event.h"
#include "gateway/json_out.h"
#include "gateway/publish_item.h"

#include <assert.h>
#include <stdlib.h>

enum {
    STEP_BYTES = 512 * 1024, /* of work in a turn: some milliseconds */
    SPLIT_COST = 32, /* what an item costs however small it is, in bytes of work */
    PUBLISH_COST = 256,
    SPLIT_SHARE = 4, /* a byte that is only scanned costs so much less */
    ANSWER_ITEM_BYTES = 320, /* a result is never longer: the longest detail is below 200 */
    ANSWER_ITEM_USUAL_BYTES = 128,
    ANSWER_EXTRA_BYTES = 1024,
};

enum item_state { ITEM_NEW, ITEM_OPEN, ITEM_STORED, ITEM_DUPLICATE, ITEM_UNSTORED, ITEM_FAILED };

struct item {
    uint64_t at; /* in the body; then the offset in its lane */
    const char *code, *detail; /* ITEM_FAILED; static */
    uint32_t len;
    uint32_t retry_ms;
    uint16_t status; /* ITEM_FAILED */
    uint16_t lane;
    uint8_t state;
    bool unknown;
};

struct batch {
    struct list link; /* api->working, or api->orphans when it was given up */
    struct api *api;
    struct request *request; /* NULL: given up; freed when its publishes are back */
    struct buf body;
    struct buf texts; /* decoded strings of the item in hand */
    struct batch_split split;
    struct slice topic; /* BATCH_ONE: for the answer */
    struct slice request_id;
    bool split_done;
    bool repeated;
    uint32_t next; /* the first item that has not been published */
    uint32_t open; /* publishes on their way */
    uint32_t count, cap;
    struct item *items;
    struct mail *again; /* publishes whose key was under way */
};

static void batch_drop_again(struct batch *b)
{
    while (b->again) {
        struct publish *p = LIST_OF(b->again, struct publish, mail);
        b->again = b->again->next;
        publish_free(p);
    }
}

static void batch_drop_texts(struct batch *b)
{
    buf_deinit(&b->body);
    buf_deinit(&b->texts);
    free(b->items);
    b->items = NULL;
}

static void batch_free(struct batch *b)
{
    assert(b->open == 0 && !b->again);
    list_unlink(&b->link);
    batch_drop_texts(b);
    free(b);
}

/* There is something to do for the door to come back for. */
static void batch_wake(struct batch *b)
{
    if (list_empty(&b->link))
        list_push(&b->api->working, &b->link);
}

/* --- outcomes ----------------------------------------------------------------------------------- */

static void item_fail(struct item *item, const struct problem *p)
{
    item->state = ITEM_FAILED;
    item->status = (uint16_t)p->status;
    item->code = p->code;
    item->detail = p->detail;
    item->retry_ms = p->retry_ms;
}

/* Refused before it went anywhere. */
static void item_refuse(struct batch *b, struct item *item, unsigned status, const char *code,
                        const char *detail)
{
    metric_add(b->api->edge->metrics, M_RECEIVED_HTTP, 1);
    metric_add(b->api->edge->metrics, publish_refusal(status), 1);
    item_fail(item, &(struct problem){.status = status, .code = code, .detail = detail});
}

static void item_no_memory(struct batch *b, struct item *item)
{
    item_refuse(b, item, 503, "unavailable", "no memory");
    item->retry_ms = RETRY_MS;
}

static void item_settle(struct item *item, const struct publish *p)
{
    if (p->status != ST_OK) {
        struct problem problem = publish_problem(p->status);
        item->unknown = p->status == ST_EXPIRED;
        item_fail(item, &problem);
        return;
    }
    item->state = p->duplicate                     ? ITEM_DUPLICATE
                  : (p->msg->flags & MSG_UNSTORED) ? ITEM_UNSTORED
                                                   : ITEM_STORED;
    item->at = p->msg->offset;
    item->lane = (uint16_t)p->msg->partition;
}

/* --- answer ------------------------------------------------------------------------------------- */

static void put_failure(struct json_out *o, const struct item *item)
{
    json_out_literal(o, "{\"status\":");
    json_out_number(o, item->status);
    json_out_literal(o, ",\"code\":");
    json_out_string(o, slice_cstr(item->code));
    if (item->detail) {
        json_out_literal(o, ",\"detail\":");
        json_out_string(o, slice_cstr(item->detail));
    }
    if (item->retry_ms > 0) {
        json_out_literal(o, ",\"retry_ms\":");
        json_out_number(o, item->retry_ms);
    }
    if (item->unknown)
        json_out_literal(o, ",\"unknown\":true");
    json_out_literal(o, "}");
}

/* The rest of an object, with its end. */
static void put_outcome(struct json_out *o, uint32_t epoch, const struct item *item)
{
    if (item->state == ITEM_UNSTORED) {
        json_out_literal(o, "\"stored\":false,\"dup\":false}");
        return;
    }
    json_out_literal(o, "\"pos\":");
    json_out_position(o, epoch, item->lane, item->at);
    if (item->state == ITEM_DUPLICATE)
        json_out_literal(o, ",\"dup\":true}");
    else
        json_out_literal(o, ",\"dup\":false}");
}

static void put_result(struct json_out *o, uint32_t epoch, const struct item *item)
{
    if (item->state == ITEM_FAILED) {
        put_failure(o, item);
        return;
    }
    json_out_literal(o, "{");
    put_outcome(o, epoch, item);
}

/* When nothing was published the answer is a problem too, the first item's. */
static void put_problem(struct json_out *o, const struct item *first, const struct slice *request_id)
{
    json_out_literal(o, "\"type\":\"about:blank\",\"title\":");
    json_out_string(o, slice_cstr(problem_title(first->status)));
    json_out_literal(o, ",\"status\":");
    json_out_number(o, first->status);
    json_out_literal(o, ",\"code\":");
    json_out_string(o, slice_cstr(first->code));
    if (first->detail) {
        json_out_literal(o, ",\"detail\":");
        json_out_string(o, slice_cstr(first->detail));
    }
    if (request_id->len > 0) {
        json_out_literal(o, ",\"request_id\":");
        json_out_string(o, *request_id);
    }
}

static void put_results(struct json_out *o, const struct batch *b, uint32_t failed)
{
    json_out_literal(o, "\"ok\":");
    json_out_number(o, b->count - failed);
    json_out_literal(o, ",\"failed\":");
    json_out_number(o, failed);
    json_out_literal(o, ",\"results\":[");
    for (uint32_t i = 0; i < b->count; i++) {
        if (i > 0)
            json_out_literal(o, ",");
        put_result(o, b->api->edge->facts->epoch, &b->items[i]);
    }
    json_out_literal(o, "]}\n");
}

/* One event is answered as a message of its own. */
static void put_one(struct json_out *o, const struct batch *b)
{
    const struct item *item = &b->items[0];
    if (item->state == ITEM_FAILED) {
        put_problem(o, item, &b->request_id);
        if (item->retry_ms > 0) {
            json_out_literal(o, ",\"retry_ms\":");
            json_out_number(o, item->retry_ms);
        }
        json_out_put(o, slice_cstr(item->unknown ? ",\"unknown\":true}\n" : "}\n"));
        return;
    }
    json_out_literal(o, "\"topic\":");
    json_out_string(o, b->topic);
    json_out_literal(o, ",");
    put_outcome(o, b->api->edge->facts->epoch, item);
    json_out_literal(o, "\n");
}

/* All outcomes are known. */
static void batch_reply(struct batch *b)
{
    struct request *r = b->request;
    struct buf body;
    struct json_out o = {.buf = &body, .status = ST_OK};
    uint32_t failed = 0;
    for (uint32_t i = 0; i < b->count; i++)
        failed += b->items[i].state == ITEM_FAILED;
    bool none = failed > 0 && failed == b->count;
    b->request_id = request_id(r);
    buf_init(&body, (size_t)b->count * ANSWER_ITEM_BYTES + ANSWER_EXTRA_BYTES + 6 * b->topic.len);
    json_out_literal(&o, "{");
    if (r->publish.form == BATCH_ONE) {
        put_one(&o, b);
    } else {
        if (none) {
            put_problem(&o, &b->items[0], &b->request_id);
            json_out_literal(&o, ",");
        }
        put_results(&o, b, failed);
    }
    if (o.status != ST_OK) /* no memory: the status alone has to do */
        buf_clear(&body);
    r->pending = NULL;
    b->request = NULL;
    if (none)
        r->answer.retry_ms = b->items[0].retry_ms;
    request_reply(r,
                  none         ? b->items[0].status
                  : failed > 0 ? 207
                               : 200,
                  none ? problem_media_type : "application/json", &body);
}

/* --- splitting ---------------------------------------------------------------------------------- */

/* The whole of it is refused; nothing was published. */
static void batch_refuse(struct batch *b, const struct problem *problem)
{
    struct request *r = b->request;
    r->pending = NULL;
    b->request = NULL;
    batch_free(b);
    request_refuse(r, problem);
    publish_count_refused(r);
}

static bool batch_grow(struct batch *b)
{
    uint32_t cap = b->cap ? b->cap * 2 : 16;
    uint64_t extra = (uint64_t)(cap - b->cap) * (sizeof(struct item) + ANSWER_ITEM_USUAL_BYTES);
    if (!request_keep(b->request, extra))
        return false;
    struct item *items = realloc(b->items, cap * sizeof *items);
    if (!items)
        return false;
    b->items = items;
    b->cap = cap;
    return true;
}

/* ST_OK: kept. */
static enum status batch_keep_item(struct batch *b, struct slice text)
{
    if (b->count >= b->api->edge->settings->limit_batch_messages)
        return ST_TOO_LARGE;
    if (b->count == b->cap && !batch_grow(b))
        return ST_FULL;
    b->items[b->count++] =
        (struct item){.at = (uint64_t)(text.data - b->body.data), .len = (uint32_t)text.len};
    return ST_OK;
}

static void batch_not_split(struct batch *b, enum status why)
{
    static const struct problem none = {
        .status = 400,
        .code = "bad_request",
        .detail = "the body is not {\"messages\":[...]}: valid JSON, each message at most 64 levels deep"};
    static const struct problem many = {.status = 413,
                                        .code = "too_large",
                                        .detail = "the batch has more than limit.batch_messages messages"};
    static const struct problem full = {.status = 503,
                                        .code = "unavailable",
                                        .detail = "too many batches are being published",
                                        .retry_ms = RETRY_MS};
    batch_refuse(b, why == ST_TOO_LARGE ? &many : why == ST_FULL ? &full : &none);
}

/* ST_OK: all of it is split. ST_AGAIN: the step is over. Else the batch has been refused and is gone. */
static enum status batch_split_some(struct batch *b, int64_t *left)
{
    struct slice item;
    enum status st = ST_OK;
    while (*left > 0 && st == ST_OK) {
        size_t before = b->split.place;
        st = batch_split_next(&b->split, buf_slice(&b->body), &item);
        if (st == ST_OK)
            st = batch_keep_item(b, item);
        *left -= SPLIT_COST + (int64_t)((b->split.place - before) / SPLIT_SHARE);
    }
    if (st == ST_OK)
        return ST_AGAIN;
    if (st != ST_NOT_FOUND) {
        batch_not_split(b, st);
        return st;
    }
    b->split_done = true;
    return ST_OK;
}

/* --- publishing --------------------------------------------------------------------------------- */

static void on_published(struct publish *p);

static void batch_send(struct batch *b, struct publish *p)
{
    p->on_published = on_published;
    b->open++;
    metric_add(b->api->edge->metrics, M_RECEIVED_HTTP, 1);
    hub_publish(b->api->edge->hub, p);
}

/* A batch that was given up ends with the last of its publishes. */
static void batch_release(struct batch *b)
{
    if (b->open == 0)
        batch_free(b);
}

static void on_published(struct publish *p)
{
    struct batch *b = p->owner;
    b->open--;
    if (!b->request) {
        publish_free(p);
        batch_release(b);
        return;
    }
    if (p->status == ST_AGAIN && !b->repeated) {
        p->mail.next = b->again;
        b->again = &p->mail;
    } else {
        item_settle(&b->items[p->tag], p);
        publish_free(p);
    }
    /* Half of the window at a time, so that publishes leave in large frames; or all is back. */
    if (b->open == 0 || (b->next < b->count && b->open <= b->api->edge->settings->limit_publish_open / 2))
        batch_wake(b);
}

/* True: refused. */
static bool item_check(struct batch *b, struct item *item, const struct publish_item *m)
{
    struct problem p;
    if (!publish_objection(b->request, m, &p) && publish_admitted(b->request, &p))
        return false;
    item_refuse(b, item, p.status, p.code, p.detail);
    item->retry_ms = p.retry_ms;
    return true;
}

static enum status make_publish(struct batch *b, const struct publish_item *item, struct publish **out)
{
    struct msg *m;
    enum status st = publish_make_msg(b->request, item, &m);
    if (st != ST_OK)
        return st;
    if (b->request->publish.events && item->type.len == 0)
        m->flags &= (uint8_t)~MSG_TYPE_GIVEN;
    st = publish_create(m, out);
    if (st != ST_OK)
        msg_unref(m);
    return st;
}

static enum status item_parse(struct batch *b, struct slice text, struct publish_item *out)
{
    struct request *r = b->request;
    enum status st = r->publish.events ? cloud_event_parse(text, r->topic, &b->texts, out)
                                       : publish_item_parse(text, &b->texts, out);
    if (st == ST_OK && r->publish.form == BATCH_ONE && r->topic.len == 0 && !out->refused) {
        buf_init(&r->made, out->topic.len + 1); /* for the answer */
        if (buf_put(&r->made, out->topic) == ST_OK)
            b->topic = buf_slice(&r->made);
    }
    return st;
}

static void batch_publish(struct batch *b, uint32_t index)
{
    struct item *item = &b->items[index];
    struct publish_item parsed;
    struct publish *p;
    struct slice text = slice_of(b->body.data + item->at, item->len);
    if (item_parse(b, text, &parsed) != ST_OK) {
        item_no_memory(b, item);
    } else if (item_check(b, item, &parsed)) {
        return;
    } else if (make_publish(b, &parsed, &p) != ST_OK) {
        item_no_memory(b, item);
    } else {
        p->wait = true;
        p->owner = b;
        p->tag = index;
        item->state = ITEM_OPEN;
        batch_send(b, p);
    }
}

static void batch_publish_some(struct batch *b, int64_t *left)
{
    uint64_t window = b->api->edge->settings->limit_publish_open;
    while (*left > 0 && b->next < b->count && b->open < window) {
        *left -= PUBLISH_COST + (int64_t)b->items[b->next].len;
        batch_publish(b, b->next++);
    }
    if (b->next < b->count)
        return;
    request_release(b->request, b->body.len);
    buf_deinit(&b->body);
    buf_deinit(&b->texts);
}

/* What came back because its key was under way: whatever of this batch has it is durable by now. */
static void batch_repeat(struct batch *b)
{
    struct mail *first = b->again;
    b->again = NULL;
    b->repeated = true;
    while (first) {
        struct publish *p = LIST_OF(first, struct publish, mail);
        first = first->next;
        batch_send(b, p);
    }
}

/* --- the whole ---------------------------------------------------------------------------------- */

/* As much as a turn has time for. The batch may be gone after it. */
static void batch_step(struct batch *b)
{
    int64_t left = STEP_BYTES;
    enum status st = b->split_done ? ST_OK : batch_split_some(b, &left);
    if (st != ST_OK && st != ST_AGAIN)
        return;
    if (b->split_done && b->next < b->count)
        batch_publish_some(b, &left);
    if (!b->split_done || (left <= 0 && b->next < b->count)) {
        batch_wake(b);
    } else if (b->open == 0 && b->again) {
        batch_repeat(b);
    } else if (b->open == 0 && b->next == b->count) {
        batch_reply(b);
        batch_free(b);
    }
}

bool api_work(struct api *api)
{
    struct list now;
    bool any = !list_empty(&api->working);
    list_init(&now);
    list_splice(&now, &api->working);
    while (!list_empty(&now)) {
        struct batch *b = LIST_OF(now.next, struct batch, link);
        list_unlink(&b->link);
        batch_step(b);
    }
    return any;
}

void batch_run(struct request *r)
{
    struct batch *b = calloc(1, sizeof *b);
    if (!b) {
        request_unavailable(r, "no memory");
        publish_count_refused(r);
        return;
    }
    list_init(&b->link);
    b->api = r->api;
    b->request = r;
    b->body = r->body;
    r->body = (struct buf){0};
    b->split = batch_split_begin(r->publish.form);
    buf_init(&b->texts, CLOUD_EVENT_TEXTS * b->body.len + CLOUD_EVENT_EXTRA);
    b->topic = r->topic;
    r->pending = b;
    batch_step(b);
}

/* What is on its way may be stored or not; what is not will not be. */
static void give_up_item(struct item *item)
{
    item_fail(item, &(struct problem){.status = 503,
                                      .code = "unavailable",
                                      .detail = "the log has not said in time whether the message is durable",
                                      .retry_ms = RETRY_MS});
    item->unknown = true;
}

void batch_give_up(struct request *r)
{
    struct batch *b = r->pending;
    struct problem late = {.status = 503,
                           .code = "unavailable",
                           .detail = "there was no time to publish it: it was not stored",
                           .retry_ms = RETRY_MS};
    for (struct mail *at = b->again; at; at = at->next) {
        struct problem busy = publish_problem(ST_AGAIN);
        item_fail(&b->items[LIST_OF(at, struct publish, mail)->tag], &busy);
    }
    batch_drop_again(b);
    if (!b->split_done) {
        batch_refuse(b, &late);
        return;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->items[i].state == ITEM_OPEN)
            give_up_item(&b->items[i]);
        else if (b->items[i].state == ITEM_NEW)
            item_fail(&b->items[i], &late);
    }
    batch_reply(b);
    batch_drop_texts(b);
    list_unlink(&b->link);
    list_push(&b->api->orphans, &b->link);
    batch_release(b);
}

void api_drop_orphans(struct api *api)
{
    while (!list_empty(&api->orphans)) {
        struct batch *b = LIST_OF(api->orphans.next, struct batch, link);
        b->open = 0;
        batch_free(b);
    }
}
