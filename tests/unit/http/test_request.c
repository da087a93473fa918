/* A request's head and what is refused by it: everything that needs no log. */
#include "gateway/http/request.h"

#include <criterion/criterion.h>
#include <jansson.h>

static struct settings settings = {
    .node_id = (char[]){"n1"},
    .limit_message_bytes = 1000,
    .limit_topic_bytes = 64,
    .limit_topic_levels = 8,
    .limit_history_count = 50,
};
static struct node_facts facts = {.epoch = 7, .lane_count = 4};
static struct edge edge = {.facts = &facts, .settings = &settings};
static struct api api;

static void setup(void)
{
    edge.metrics = metrics_register();
    api = (struct api){
        .edge = &edge,
        .access = {.key = "", .hosts = "", .origins = "", .loopback_only = true},
        .topic = {64, 8},
        .kept_bytes_max = 1500,
    };
    list_init(&api.answered);
}

/* Fields as "Name: value\n...". Host is added. */
static struct request *make(const char *method, const char *target, const char *fields)
{
    struct request *r = request_create(&api, slice_cstr(target));
    struct request_line line = {method, "HTTP/1.1", 100, 8192, false};
    head_add(&r->head, slice_cstr("Host"), slice_cstr("localhost"));
    for (const char *at = fields; *at;) {
        size_t len = strcspn(at, "\n"), name = strcspn(at, ":");
        head_add(&r->head, slice_of(at, name), slice_of(at + name + 1, len - name - 1));
        at += len + (at[len] == '\n');
    }
    request_head(r, &line);
    return r;
}

static bool answer_is(const struct request *r, unsigned status, const char *code)
{
    json_error_t error;
    json_t *body = json_loadb((const char *)r->answer.body.data, r->answer.body.len, 0, &error);
    bool ok = r->answer.status == status && body &&
              json_integer_value(json_object_get(body, "status")) == (json_int_t)status &&
              strcmp(json_string_value(json_object_get(body, "code")), code) == 0 &&
              strcmp(json_string_value(json_object_get(body, "type")), "about:blank") == 0 &&
              strlen(json_string_value(json_object_get(body, "title"))) > 0 &&
              strlen(json_string_value(json_object_get(body, "detail"))) > 0 &&
              strcmp(r->answer.type, "application/problem+json") == 0;
    json_decref(body);
    return ok;
}

Test(http_request, refuses_by_the_head, .init = setup)
{
    static const struct {
        const char *method, *target, *fields;
        unsigned status;
        const char *code;
    } rows[] = {
        {"GET", "/", "", 404, "not_found"},
        {"GET", "/v1", "", 404, "not_found"},
        {"GET", "/healthz2", "", 404, "not_found"},
        {"GET", "/healthz/a", "", 404, "not_found"},
        {"GET", "/v1/publisher", "", 404, "not_found"},
        {"POST", "/healthz", "", 405, "bad_request"},
        {"GET", "/v1/publish/a", "", 405, "bad_request"},
        {"HEA", "/healthz", "", 405, "bad_request"},
        {"GET, HEAD", "/healthz", "", 405, "bad_request"},
        {"get", "/healthz", "", 405, "bad_request"},
        {"", "/healthz", "", 405, "bad_request"},
        {"GET", "/v1/users", "", 400, "bad_request"},
        {"GET", "/v1/users?user=", "", 400, "bad_request"},
        {"GET", "/v1/users/u1/messages", "", 404, "not_found"},
        {"GET", "/v1/users/u1/x", "", 404, "not_found"},
        {"GET", "/v1/users/u1?user=u1", "", 400, "bad_request"},
        {"GET", "/v1/users/u1?topic=a", "", 400, "bad_request"},
        {"GET", "/v1/users/u1?x=a", "", 400, "bad_request"},
        {"GET", "/v1/users/%FF", "", 400, "bad_request"},
        {"GET", "/v1/users/a%2Fb", "", 400, "bad_request"},
        {"DELETE", "/v1/users/u1", "", 405, "bad_request"},
        {"POST", "/v1/users", "", 400, "bad_request"},
        {"POST", "/v1/users/u1", "", 404, "not_found"},
        {"POST", "/v1/users/u1/message", "", 404, "not_found"},
        {"POST", "/v1/users/u1/messages/+", "", 400, "bad_request"},
        {"POST", "/v1/users/u1/messages/a/", "", 400, "bad_request"},
        {"POST", "/v1/users/u1/messages/a?topic=b", "", 400, "bad_request"},
        {"POST", "/v1/users/u1/messages/1/2/3/4/5/6/7", "", 400, "bad_request"},
        {"POST", "/v1/users/u1/messages", "Tidegate-Wait: never\n", 400, "bad_request"},
        {"POST", "/v1/users/123456789012345678901234567890123456789012345678901234567890/messages", "", 400,
         "bad_request"},
        {"POST", "/v1/retained/a", "", 405, "bad_request"},
        {"DELETE", "/v1/history/a", "", 405, "bad_request"},
        {"GET", "/v1/history/a?from=time:", "", 400, "bad_request"},
        {"GET", "/v1/history/a?from=time:x", "", 400, "bad_request"},
        {"GET", "/v1/history/a?from=last:0", "", 400, "bad_request"},
        {"GET", "/v1/history/a?from=last:-1", "", 400, "bad_request"},
        {"GET", "/v1/history/a?from=yesterday&reverse=1", "", 400, "bad_request"},
        {"GET", "/v1/history/a?reverse=1&from=earliest", "", 400, "bad_request"},
        {"GET", "/v1/history/a?reverse=yes", "", 400, "bad_request"},
        {"GET", "/v1/history/a?reverse", "", 400, "bad_request"},
        {"GET", "/v1/retained/a?reverse=1", "", 400, "bad_request"},
        {"GET", "/v1/retained/a?from=time:5", "", 501, "unsupported"},
        {"GET", "/v1/retained/a?from=last:5", "", 501, "unsupported"},
        {"DELETE", "/v1/retained", "", 400, "bad_request"},
        {"DELETE", "/v1/retained/a/+", "", 400, "bad_request"},
        {"DELETE", "/v1/retained/a?max=1", "", 400, "bad_request"},
        {"DELETE", "/v1/retained/$x", "", 403, "forbidden"},
        {"DELETE", "/v1/retained/a", "Content-Length: 3", 400, "bad_request"},
        {"GET", "/v1/connections?users=u", "", 400, "bad_request"},
        {"GET", "/v1/connections/x", "", 404, "not_found"},
        {"GET", "/v1/connections/n1-1-281474976710657", "", 404, "not_found"},
        {"DELETE", "/v1/connections?user=u", "", 400, "bad_request"},
        {"GET", "/v1/sessions", "", 400, "bad_request"},
        {"GET", "/v1/presence", "", 400, "bad_request"},
        {"POST", "/v1/tickets", "", 501, "unsupported"},
        {"POST", "/openapi.json", "", 405, "bad_request"},
        {"GET", "/console", "", 501, "unsupported"},
        {"GET", "/console/", "", 501, "unsupported"},
        {"GET", "/console/a/", "", 501, "unsupported"},
        {"GET", "/healthz/", "", 400, "bad_request"},
        {"POST", "/v1/publish/a/", "", 400, "bad_request"},
        {"GET", "/v1/history/a/", "", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Transfer-Encoding: chunked", 411, "bad_request"},
        {"POST", "/v1/publish/a", "Content-Length: 3\nContent-Length: 3", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Host: b", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Content-Length: 1x", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Content-Length: 99999999999999999999999", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Content-Length: 1001", 413, "too_large"},
        {"POST", "/v1/publish/a", "Expect: tea", 417, "bad_request"},
        {"POST", "/v1/publish/a", "Origin: http://evil.example", 403, "forbidden"},
        {"POST", "/v1/publish/a", "Forwarded: for=x", 401, "unauthorized"},
        {"POST", "/v1/publish/a", "Authorization: Bearer x", 401, "unauthorized"},
        {"POST", "/v1/publish", "Tidegate-Wait: accepted", 501, "unsupported"},
        {"POST", "/v1/publish", "Tidegate-Key: k", 400, "bad_request"},
        {"POST", "/v1/publish", "Idempotency-Key: k", 400, "bad_request"},
        {"POST", "/v1/publish", "Content-Type: image/png", 415, "unsupported"},
        {"POST", "/v1/publish", "Content-Type: application/jsonx", 415, "unsupported"},
        {"POST", "/v1/publish/", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=", "", 400, "bad_request"},
        {"POST", "/v1/publish/a?topic=b", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=a&topic=a", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=&topic=a", "", 400, "bad_request"},
        {"POST", "/v1/publish/a?ttl=5", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=%zz", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=a%00b", "", 400, "bad_request"},
        {"POST", "/v1/publish?topic=a/+/b", "", 400, "bad_request"},
        {"POST", "/v1/publish/a%2Fb", "", 400, "bad_request"},
        {"POST", "/v1/publish/+", "", 400, "bad_request"},
        {"POST", "/v1/publish/%23", "", 400, "bad_request"},
        {"POST", "/v1/publish/%ff", "", 400, "bad_request"},
        {"POST", "/v1/publish/1/2/3/4/5/6/7/8/9", "", 400, "bad_request"},
        {"POST", "/v1/publish/$SYS/x", "", 403, "forbidden"},
        {"POST", "/v1/publish/%24user/x", "", 403, "forbidden"},
        {"POST", "/v1/publish?topic=$user/x", "", 403, "forbidden"},
        {"POST", "/v1/publish/a", "Idempotency-Key: \"k", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Idempotency-Key:", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Retain: yes", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Deliver-At: 1", 501, "unsupported"},
        {"POST", "/v1/publish/a", "Content-Type: application/cloudevents+avro; charset=utf-8", 415,
         "unsupported"},
        {"POST", "/v1/publish", "Content-Type: application/cloudevents+json\nTidegate-Key: k", 400,
         "bad_request"},
        {"POST", "/v1/publish/a", "Content-Encoding: gzip", 415, "unsupported"},
        {"POST", "/v1/publish/a", "Tidegate-Tll: 1", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Ttl-Ms: 0", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Ttl-Ms: -1", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Ttl-Ms: 1.5", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Ttl-Ms: ", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Ttl-Ms: 9007199254740992", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Wait: never", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Tidegate-Key: \xff", 400, "bad_request"},
        {"POST", "/v1/publish/a", "Content-Type: \xff", 400, "bad_request"},
        {"GET", "/healthz", "Content-Length: 3", 400, "bad_request"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct request *r = make(rows[i].method, rows[i].target, rows[i].fields);
        cr_expect(answer_is(r, rows[i].status, rows[i].code), "%s %s %s: %u %.*s", rows[i].method,
                  rows[i].target, rows[i].fields, r->answer.status, SLICE_ARG(buf_slice(&r->answer.body)));
        cr_expect_eq(r->answer.allow != NULL, rows[i].status == 405, "%s", rows[i].target);
        request_free(r);
    }
    cr_expect_eq(api.kept_bytes, 0);
}

Test(http_request, refuses_other_versions_and_long_heads, .init = setup)
{
    static const struct {
        struct request_line line;
        unsigned status;
    } rows[] = {
        {{"GET", "HTTP/1.0", 100, 8192, false}, 505}, {{"GET", "HTTP/1.2", 100, 8192, false}, 505},
        {{"GET", "", 100, 8192, false}, 505},         {{"GET", "HTTP/1.1", 8193, 8192, false}, 431},
        {{"GET", "HTTP/1.1", 8192, 8192, false}, 0},  {{"GET", "HTTP/1.1", 100, 8192, true}, 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct request *r = request_create(&api, slice_cstr("/healthz"));
        head_add(&r->head, slice_cstr("Host"), slice_cstr("localhost"));
        request_head(r, &rows[i].line);
        cr_expect_eq(r->answer.status, rows[i].status, "row %zu: %u", i, r->answer.status);
        cr_expect_eq(r->answer.last, rows[i].line.unread, "row %zu", i);
        request_free(r);
    }
}

Test(http_request, reads_topic_and_fields_of_a_publish, .init = setup)
{
    static const struct {
        const char *target, *topic;
    } rows[] = {
        {"/v1/publish/a/b", "a/b"},         {"/v1/publish/%C3%A4/b%20c", "\xc3\xa4/b c"},
        {"/v1/publish?topic=a/b", "a/b"},   {"/v1/publish?topic=a//b/", "a//b/"},
        {"/v1/publish?topic=a%2Fb", "a/b"}, {"/v1/publish?topic=./..", "./.."},
        {"/v1/publish?topic=/", "/"},       {"/v1/publish?topic=hello+world", "hello world"},
        {"/v1/publish?topic=a%26b", "a&b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct request *r =
            make("POST", rows[i].target, "Tidegate-Ttl-Ms: 5000\nTidegate-Wait: accepted\nContent-Length: 3");
        cr_expect_eq(r->state, REQUEST_READING, "%s", rows[i].target);
        cr_expect(slice_equal_cstr(r->topic, rows[i].topic), "%s: %.*s", rows[i].target, SLICE_ARG(r->topic));
        cr_expect(r->publish.ttl_ms == 5000 && r->publish.accepted);
        request_free(r);
    }
}

Test(http_request, reads_where_a_page_begins, .init = setup)
{
    enum { END = -1 };
    static const struct {
        const char *query;
        bool reverse;
        enum store_locate locate;
        uint64_t value;
        int64_t next; /* of lane 2 */
        uint32_t max;
    } rows[] = {
        {"", false, STORE_AT_OFFSET, 0, 0, 50},
        {"?from=earliest&reverse=0", false, STORE_AT_OFFSET, 0, 0, 50},
        {"?from=time:0", false, STORE_AT_TIME, 0, 0, 50},
        {"?from=time:1790000000123&max=7", false, STORE_AT_TIME, 1790000000123, 0, 7},
        {"?from=last:20", false, STORE_AT_LAST, 20, 0, 50},
        {"?from=last:20&max=7", false, STORE_AT_LAST, 20, 0, 7},
        {"?from=000000070002.0000000000000005", false, STORE_AT_OFFSET, 0, 6, 50},
        {"?from=b00000007.1-2-3-4", false, STORE_AT_OFFSET, 0, 3, 50},
        {"?reverse=1", true, STORE_AT_OFFSET, 0, END, 50},
        {"?from=000000070002.0000000000000005&reverse=1", true, STORE_AT_OFFSET, 0, 5, 50},
        {"?reverse=1&from=000000070001.0000000000000005", true, STORE_AT_OFFSET, 0, END, 50},
        {"?reverse=1&from=b00000007.1-2-3-4", true, STORE_AT_OFFSET, 0, 3, 50},
        {"?reverse=1&from=time:5", true, STORE_AT_TIME, 5, END, 50},
        {"?reverse=1&from=last:20", true, STORE_AT_OFFSET, 0, END, 20},
        {"?max=7&from=last:20&reverse=1", true, STORE_AT_OFFSET, 0, END, 7},
        {"?from=last:5&reverse=1&max=7", true, STORE_AT_OFFSET, 0, END, 5},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char target[128];
        snprintf(target, sizeof target, "/v1/history/a%s", rows[i].query);
        struct request *r = make("GET", target, "");
        cr_assert_eq(r->state, REQUEST_READING, "%s", target);
        cr_expect(r->page.reverse == rows[i].reverse && r->page.locate == rows[i].locate, "%s", target);
        cr_expect(r->page.max == rows[i].max && (int64_t)r->page.from.next[2] == rows[i].next, "%s", target);
        if (rows[i].locate != STORE_AT_OFFSET)
            cr_expect_eq(r->page.locate_value, rows[i].value, "%s", target);
        request_free(r);
    }
}

Test(http_request, answers_what_needs_no_log, .init = setup)
{
    static const char *const targets[] = {"/healthz", "/livez", "/metrics", "/v1/capabilities"};
    atomic_store(&facts.ready, true);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        struct request *r = make(i % 2 ? "HEAD" : "GET", targets[i], "");
        cr_assert_eq(r->state, REQUEST_READING, "%s", targets[i]);
        request_end(r);
        cr_expect_eq(r->state, REQUEST_ANSWERED, "%s", targets[i]);
        cr_expect_eq(r->answer.status, 200, "%s", targets[i]);
        cr_expect(list_empty(&api.answered), "it is not called again");
        request_free(r);
    }
}

Test(http_request, capabilities_are_json, .init = setup)
{
    struct request *r = make("GET", "/v1/capabilities", "");
    request_end(r);
    json_t *body = json_loadb((const char *)r->answer.body.data, r->answer.body.len, 0, NULL);
    cr_assert(body);
    cr_expect_str_eq(json_string_value(json_object_get(body, "node")), "n1");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(body, "limits"), "message_bytes")), 1000);
    json_decref(body);
    request_free(r);
}

Test(http_request, is_ready_only_between_start_and_stop, .init = setup)
{
    static const struct {
        bool ready, stopping;
        unsigned status;
        const char *text;
    } rows[] = {
        {false, false, 503, "\"reasons\":[\"starting\"]"},
        {true, false, 200, "\"status\":\"ok\""},
        {true, true, 503, "\"reasons\":[\"stopping\"]"},
        {false, true, 503, "\"reasons\":[\"stopping\"]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        atomic_store(&facts.ready, rows[i].ready);
        atomic_store(&facts.stopping, rows[i].stopping);
        struct request *r = make("GET", "/readyz", "");
        request_end(r);
        cr_expect_eq(r->answer.status, rows[i].status, "row %zu", i);
        cr_expect(memmem(r->answer.body.data, r->answer.body.len, rows[i].text, strlen(rows[i].text)),
                  "row %zu", i);
        cr_expect_eq(r->answer.retry_ms > 0, rows[i].status == 503, "row %zu", i);
        request_free(r);
    }
    atomic_store(&facts.stopping, false);
}

/* A peer that is cut off while it sends may never see why. */
Test(http_request, reads_a_refused_body_to_its_end, .init = setup)
{
    static const struct {
        const char *target, *fields;
        enum request_state want;
    } rows[] = {
        {"/v1/publish/a%2Fb", "Content-Length: 5", REQUEST_DISCARDING},
        {"/nothing", "Content-Length: 5", REQUEST_DISCARDING},
        {"/v1/publish/a", "Content-Length: 5\nOrigin: null", REQUEST_DISCARDING},
        {"/nothing", "", REQUEST_DISCARDING}, /* an answer at the head would be the last of the connection */
        {"/nothing", "Content-Length: 0", REQUEST_DISCARDING},
        /* It has not been sent, or is too much to wait for, or cannot be told from the next request. */
        {"/nothing", "Content-Length: 5\nExpect: 100-continue", REQUEST_ANSWERED},
        {"/v1/publish/a", "Content-Length: 1001", REQUEST_ANSWERED},
        {"/nothing", "Content-Length: 1001", REQUEST_ANSWERED},
        {"/v1/publish/a", "Content-Length: 5\nTransfer-Encoding: chunked", REQUEST_ANSWERED},
        {"/v1/publish/a", "Content-Length: 5\nContent-Length: 5", REQUEST_ANSWERED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct request *r = make("POST", rows[i].target, rows[i].fields);
        cr_assert_eq(r->state, rows[i].want, "%s %s: %d", rows[i].target, rows[i].fields, r->state);
        if (r->state == REQUEST_DISCARDING) {
            request_body(r, slice_cstr("hello"));
            cr_expect_eq(api.kept_bytes, 0);
            request_end(r);
            cr_expect_eq(r->state, REQUEST_ANSWERED);
        }
        request_free(r);
    }
}

Test(http_request, keeps_bodies_within_a_bound, .init = setup)
{
    static uint8_t bytes[1000];
    struct request *first = make("POST", "/v1/publish/a", "Content-Length: 1000");
    struct request *second = make("POST", "/v1/publish/a", "Content-Length: 1000");
    request_body(first, slice_of(bytes, 1000));
    cr_expect_eq(api.kept_bytes, 1000);
    request_body(second, slice_of(bytes, 500));
    cr_expect_eq(second->state, REQUEST_READING);
    request_body(second, slice_of(bytes, 1));
    cr_expect_eq(second->state, REQUEST_DISCARDING);
    cr_expect(answer_is(second, 503, "unavailable"));
    cr_expect(second->answer.retry_ms > 0);
    request_body(second, slice_of(bytes, 499));
    request_end(second);
    cr_expect_eq(second->state, REQUEST_ANSWERED);
    request_free(second);
    cr_expect_eq(api.kept_bytes, 1000);
    request_free(first);
    cr_expect_eq(api.kept_bytes, 0);
}

static uint64_t value_of(enum metric id)
{
    return atomic_load(&edge.metrics->values[id]);
}

Test(http_request, counts_refused_publishes_by_reason, .init = setup)
{
    static const struct {
        const char *method, *target, *fields;
        enum metric why;
    } rows[] = {
        {"POST", "/v1/publish/+", "", M_REFUSED_INVALID},
        {"POST", "/v1/publish/$x", "", M_REFUSED_FORBIDDEN},
        {"POST", "/v1/publish/a", "Content-Length: 1001", M_REFUSED_LIMIT},
        {"POST", "/v1/publish/a", "Tidegate-Deliver-At: 1", M_REFUSED_UNSUPPORTED},
        {"POST", "/v1/publish", "Tidegate-Wait: accepted", M_REFUSED_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t received = value_of(M_RECEIVED_HTTP), refused = value_of(rows[i].why),
                 bad = value_of(M_HTTP_4XX);
        request_free(make(rows[i].method, rows[i].target, rows[i].fields));
        cr_expect_eq(value_of(M_RECEIVED_HTTP), received + 1, "row %zu", i);
        cr_expect_eq(value_of(rows[i].why), refused + 1, "row %zu", i);
        cr_expect_eq(value_of(M_HTTP_4XX), bad + (rows[i].why != M_REFUSED_UNSUPPORTED), "row %zu", i);
    }
    uint64_t received = value_of(M_RECEIVED_HTTP);
    request_free(make("GET", "/v1/publish/a", ""));
    request_free(make("GET", "/nothing", ""));
    cr_expect_eq(value_of(M_RECEIVED_HTTP), received);
}

Test(http_request, reads_numbers)
{
    static const struct {
        const char *text;
        uint64_t want; /* 0: refused */
    } rows[] = {
        {"1", 1},
        {"1000", 1000},
        {"9007199254740991", 9007199254740991},
        {"9007199254740992", 0},
        {"0", 0},
        {"01", 0},
        {"", 0},
        {"-1", 0},
        {"+1", 0},
        {"1 ", 0},
        {"1e3", 0},
        {"18446744073709551617", 0},
        {"0x1", 0},
        {"1.0", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t got = 0;
        bool ok = read_number(slice_cstr(rows[i].text), &got);
        cr_expect_eq(ok, rows[i].want != 0, "%s", rows[i].text);
        cr_expect_eq(got, rows[i].want, "%s", rows[i].text);
    }
}

Test(http_request, makes_the_topic_of_an_inbox, .init = setup)
{
    static const struct {
        const char *target, *topic;
    } rows[] = {
        {"/v1/users/u1/messages", "$user/u1"},
        {"/v1/users/u1/messages/orders/new", "$user/u1/orders/new"},
        {"/v1/users/messages/messages/messages", "$user/messages/messages"},
        {"/v1/users/u1/messages?topic=a//b", "$user/u1/a//b"},
        {"/v1/users/a%25+%23b/messages", "$user/a%25%2B%23b"},
        {"/v1/users/a%252Fb/messages", "$user/a%252Fb"},
        {"/v1/users/$SYS/messages", "$user/$SYS"},
        {"/v1/users?user=a%2Fb", "$user/a%2Fb"},
        {"/v1/users?user=a%2Fb&topic=x/y", "$user/a%2Fb/x/y"},
        {"/v1/users?topic=x&user=..", "$user/../x"},
        {"/v1/users?user=a%00b", "$user/a%00b"},
        {"/v1/users?user=%C2%85", "$user/%C2%85"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct request *r = make("POST", rows[i].target, "");
        cr_expect_eq(r->answer.status, 0, "%s: %u", rows[i].target, r->answer.status);
        cr_expect(slice_equal_cstr(r->topic, rows[i].topic), "%s: %.*s", rows[i].target, SLICE_ARG(r->topic));
        request_free(r);
    }
}
