/* GET /v1/presence/<topic>: who has a subscription for it (session/presence.h). */
#include "gateway/http/request.h"

#include "gateway/presence_json.h"

#include <stdlib.h>

enum { ANSWER_BYTES_MAX = 8 << 20 };

struct question {
    struct presence *presence;
    struct request *request; /* NULL: given up; freed when it is back */
    size_t len;
    uint8_t topic[];
};

static void on_counted(struct presence *p)
{
    struct question *q = p->owner;
    struct request *r = q->request;
    struct buf body;
    if (r) {
        r->pending = NULL;
        buf_init(&body, ANSWER_BYTES_MAX);
        struct json_out o = {.buf = &body, .status = ST_OK};
        presence_json_put(&o, p);
        json_out_literal(&o, "\n");
        if (o.status == ST_OK) {
            request_reply(r, 200, "application/json", &body);
        } else {
            buf_deinit(&body);
            request_unavailable(r, "no memory");
        }
    }
    presence_free(p);
    free(q);
}

void presence_begin(struct request *r)
{
    if (request_read_topic(r, NULL) && r->topic.len == 0)
        request_bad(r, "name a topic in the path or in ?topic=");
}

void presence_run(struct request *r)
{
    struct question *q = calloc(1, sizeof *q + r->topic.len);
    if (!q || presence_create(&q->presence) != ST_OK) {
        free(q);
        request_unavailable(r, "no memory");
        return;
    }
    q->request = r;
    q->len = r->topic.len;
    memcpy(q->topic, r->topic.data, r->topic.len);
    q->presence->topic = slice_of(q->topic, q->len);
    q->presence->on_counted = on_counted;
    q->presence->owner = q;
    r->pending = q;
    presence_ask(r->api->edge->hub, q->presence);
}

void presence_give_up(struct request *r)
{
    struct question *q = r->pending;
    q->request = NULL; /* it comes back some time, and is freed */
    r->pending = NULL;
    request_unavailable(r, "not all loops have answered in time");
}
