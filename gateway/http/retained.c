/* GET /v1/retained/<filter>: a page of retained messages. DELETE /v1/retained/<topic>: publishes the empty
 * message with RETAIN that clears a topic (MQTT 5.0, 3.3.1.3), after a look whether there is one. */
#include "gateway/http/request.h"

#include "core/json.h"

#include <stdlib.h>

enum { ANSWER_OVERHEAD_BYTES = 128 };

struct removal {
    struct read read;
    struct request *request; /* NULL: given up; freed when its letter is back */
    struct edge *edge;
    size_t topic_len;
    uint8_t topic[];
};

/* --- GET ---------------------------------------------------------------------------------------- */

static void on_parameter(struct request *r, struct slice name, struct slice value)
{
    if (!page_parameter(r, name, value))
        request_unknown_parameter(r, name, "; there are topic, from and max");
}

void retained_begin(struct request *r)
{
    bool named;
    if (r->deletes) {
        named = request_read_topic(r, NULL);
    } else {
        page_defaults(r);
        r->page.retained = true;
        named = request_read_filter(r, on_parameter);
    }
    if (named && r->topic.len == 0)
        request_bad(r, r->deletes ? "name a topic in the path or in ?topic="
                                  : "name a topic filter in the path ('#' is %23 there) or in ?topic=");
    else if (named && !r->deletes)
        page_settle(r);
}

/* --- DELETE ------------------------------------------------------------------------------------- */

/* The answer is about to be made. */
static struct request *removal_end(struct removal *d)
{
    struct request *r = d->request;
    if (r)
        r->pending = NULL;
    free(d);
    return r;
}

static void reply_removed(struct request *r, const struct msg *m)
{
    struct buf body;
    char position[POSITION_BYTES];
    position_write(r->api->edge->facts->epoch, m->partition, m->offset, position);
    buf_init(&body, 6 * r->topic.len + ANSWER_OVERHEAD_BYTES);
    enum status st = buf_put_cstr(&body, "{\"topic\":");
    if (st == ST_OK)
        st = json_put_string(&body, r->topic);
    if (st == ST_OK)
        st = buf_printf(&body, ",\"pos\":\"%.*s\"}\n", POSITION_BYTES, position);
    if (st != ST_OK) /* it is removed all the same: the status says so */
        buf_clear(&body);
    request_reply(r, 200, "application/json", &body);
}

static void on_published(struct publish *p)
{
    struct request *r = removal_end(p->owner);
    if (r && p->status == ST_OK)
        reply_removed(r, p->msg);
    else if (r)
        publish_refuse(r, p->status);
    publish_free(p);
}

static enum status make_publish(const struct removal *d, struct publish **out)
{
    struct msg *m;
    enum status st = msg_create(slice_of(d->topic, d->topic_len), (struct slice){0}, (struct slice){0},
                                (struct slice){0}, &m);
    if (st != ST_OK)
        return st;
    m->content = CONTENT_BINARY;
    m->qos = 1;
    m->flags = MSG_RETAIN;
    m->accepted_ns = clock_mono_ns(loop_clock(d->edge->loop));
    st = publish_create(m, out);
    if (st != ST_OK)
        msg_unref(m);
    return st;
}

static void refuse_rate(struct removal *d, const struct problem *over)
{
    metric_add(d->edge->metrics, M_RECEIVED_HTTP, 1);
    metric_add(d->edge->metrics, M_REFUSED_RATE, 1);
    request_refuse(removal_end(d), over);
}

static void on_found(struct read *read)
{
    struct removal *d = LIST_OF(read, struct removal, read);
    struct publish *p;
    struct problem over;
    if (!d->request) {
        free(d);
    } else if (read->store.found == 0) {
        request_refuse(removal_end(d), &(struct problem){.status = 404,
                                                         .code = "not_found",
                                                         .detail = "this topic has no retained message"});
    } else if (!publish_admitted(d->request, &over)) {
        refuse_rate(d, &over);
    } else if (make_publish(d, &p) != ST_OK) {
        request_unavailable(removal_end(d), "no memory");
    } else {
        metric_add(d->edge->metrics, M_RECEIVED_HTTP, 1);
        p->wait = true;
        p->on_published = on_published;
        p->owner = d;
        hub_publish(d->edge->hub, p);
    }
}

static void removal_run(struct request *r)
{
    struct removal *d = calloc(1, sizeof *d + r->topic.len);
    if (!d) {
        request_unavailable(r, "no memory");
        return;
    }
    d->request = r;
    d->edge = r->api->edge;
    d->topic_len = r->topic.len;
    memcpy(d->topic, r->topic.data, r->topic.len);
    struct store_read *s = &d->read.store;
    s->topic = slice_of(d->topic, d->topic_len);
    s->lane = topic_partition(s->topic, hub_lane_count(d->edge->hub));
    s->to = UINT64_MAX;
    s->count_only = true;
    d->read.on_read = on_found;
    r->pending = d;
    hub_read_retained(d->edge->hub, &d->read);
}

void retained_run(struct request *r)
{
    if (r->deletes)
        removal_run(r);
    else
        page_run(r);
}

void retained_give_up(struct request *r)
{
    if (!r->deletes) {
        page_give_up(r);
        return;
    }
    struct removal *d = r->pending;
    d->request = NULL;
    r->pending = NULL;
    request_refuse(r,
                   &(struct problem){.status = 503,
                                     .code = "unavailable",
                                     .detail = "the log has not said in time whether the removal is durable",
                                     .retry_ms = RETRY_MS,
                                     .members = "\"unknown\":true"});
}
