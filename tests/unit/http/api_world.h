/* The private API without sockets, over a hub and the fake log: requests are asked and answered a turn at a
 * time. One loop. */
#ifndef TG_TESTS_API_WORLD_H
#define TG_TESTS_API_WORLD_H

#include "fakes/exchange.h"
#include "gateway/http/request.h"

#include <jansson.h>

struct api_world {
    struct exchange x;
    struct settings settings;
    struct node_facts facts;
    struct edge edge;
    struct api api;
};

static inline void api_open(struct api_world *w, unsigned lane_count)
{
    static char node_id[] = "n1";
    exchange_open(&w->x, 1, lane_count);
    w->settings = (struct settings){
        .node_id = node_id,
        .limit_message_bytes = 1 << 20,
        .limit_topic_bytes = 64,
        .limit_topic_levels = 8,
        .limit_history_count = 50,
        .limit_publish_open = 64,
        .limit_batch_messages = 1000,
        .limit_batch_bytes = 4 << 20,
    };
    w->facts = (struct node_facts){.settings = &w->settings, .epoch = 7, .lane_count = lane_count};
    w->edge = (struct edge){
        .loop = w->x.loops[0],
        .hub = w->x.hubs[0],
        .metrics = w->x.metrics[0],
        .facts = &w->facts,
        .settings = &w->settings,
    };
    w->api = (struct api){
        .edge = &w->edge,
        .access = {.key = "", .hosts = "", .origins = "", .loopback_only = true},
        .topic = {64, 8},
        .kept_bytes_max = 8 << 20,
    };
    list_init(&w->api.answered);
    list_init(&w->api.working);
    list_init(&w->api.orphans);
}

static inline void api_close(struct api_world *w)
{
    exchange_close(&w->x);
    cr_expect_eq(w->api.kept_bytes, 0);
    cr_expect_eq(w->api.pages_open, 0);
    cr_expect(list_empty(&w->api.answered));
    cr_expect(list_empty(&w->api.orphans));
}

/* A request up to its end. `fields`: "Name: value\n..."; Host is added, Content-Length too. */
static inline struct request *api_ask(struct api_world *w, const char *method, const char *target,
                                      const char *fields, struct slice body)
{
    struct request *r = request_create(&w->api, slice_cstr(target));
    const struct request_line line = {method, "HTTP/1.1", 100, 8192, false};
    char length[32];
    cr_assert(r);
    snprintf(length, sizeof length, "%zu", body.len);
    head_add(&r->head, slice_cstr("Host"), slice_cstr("localhost"));
    if (body.len > 0)
        head_add(&r->head, slice_cstr("Content-Length"), slice_cstr(length));
    for (const char *at = fields; *at;) {
        size_t len = strcspn(at, "\n"), name = strcspn(at, ":");
        head_add(&r->head, slice_of(at, name), slice_of(at + name + 1, len - name - 1));
        at += len + (at[len] == '\n');
    }
    request_head(r, &line);
    if (r->state == REQUEST_ANSWERED)
        return r;
    if (body.len > 0)
        request_body(r, body);
    request_end(r);
    return r;
}

/* What a door does with requests that have waited. */
static inline void api_take_answered(struct api_world *w)
{
    while (!list_empty(&w->api.answered))
        list_unlink(w->api.answered.next);
}

static inline struct request *api_settle(struct api_world *w, struct request *r)
{
    do
        exchange_settle(&w->x);
    while (api_work(&w->api));
    cr_assert_eq(r->state, REQUEST_ANSWERED);
    api_take_answered(w);
    return r;
}

/* The answer's body; the caller decrefs. Frees the request. */
static inline json_t *api_answer(struct request *r, unsigned status)
{
    json_error_t error;
    json_t *body = json_loadb((const char *)r->answer.body.data, r->answer.body.len, 0, &error);
    cr_assert(body, "%s: %.*s", error.text, SLICE_ARG(buf_slice(&r->answer.body)));
    cr_assert_eq(r->answer.status, status, "%u: %.*s", r->answer.status,
                 SLICE_ARG(buf_slice(&r->answer.body)));
    request_free(r);
    return body;
}

static inline const char *text_of(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

#endif
