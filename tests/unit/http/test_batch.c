/* Several messages in one request: each its own outcome, none told before it is durable. */
#include "api_world.h"

static struct api_world w;

static void setup(void)
{
    api_open(&w, 1);
}

static void teardown(void)
{
    api_close(&w);
}

static uint64_t value_of(enum metric id)
{
    return atomic_load(&w.edge.metrics->values[id]);
}

static struct request *post(const char *fields, const char *body)
{
    return api_ask(&w, "POST", "/v1/publish", fields, slice_cstr(body));
}

static json_t *result_of(json_t *answer, size_t index)
{
    return json_array_get(json_object_get(answer, "results"), index);
}

static void expect_code(json_t *answer, size_t index, int status, const char *code)
{
    json_t *result = result_of(answer, index);
    cr_expect_str_eq(text_of(result, "code"), code, "result %zu", index);
    cr_expect_eq(json_integer_value(json_object_get(result, "status")), status, "result %zu", index);
}

static void expect_pos(json_t *answer, size_t index, unsigned offset, bool dup)
{
    char want[64];
    json_t *result = result_of(answer, index);
    snprintf(want, sizeof want, "000000070000.%016x", offset);
    cr_expect_str_eq(text_of(result, "pos"), want, "result %zu", index);
    cr_expect_eq(json_is_true(json_object_get(result, "dup")), dup, "result %zu", index);
}

static void expect_counts(json_t *answer, int ok, int failed)
{
    cr_expect_eq(json_integer_value(json_object_get(answer, "ok")), ok);
    cr_expect_eq(json_integer_value(json_object_get(answer, "failed")), failed);
    cr_expect_eq(json_array_size(json_object_get(answer, "results")), (size_t)(ok + failed));
}

static void expect_balance(void)
{
    uint64_t refused = 0;
    for (enum metric id = M_REFUSED_INVALID; id <= M_REFUSED_CONFLICT; id++)
        refused += value_of(id);
    cr_expect_eq(value_of(M_RECEIVED_HTTP),
                 value_of(M_STORED) + value_of(M_DUPLICATES) + value_of(M_UNSTORED) + refused);
}

Test(batch, is_answered_when_the_last_is_durable_and_not_before, .init = setup, .fini = teardown)
{
    struct request *r =
        post("", "{\"messages\":[{\"topic\":\"a\",\"data\":1},{\"topic\":\"b\",\"text\":\"x\"}]}");
    for (unsigned i = 0; i < 5; i++)
        exchange_turn(&w.x, 0);
    cr_expect_eq(w.x.log.lanes[0].count, 2);
    fake_log_sync(&w.x.log, 0, 1);
    for (unsigned i = 0; i < 5; i++) {
        exchange_turn(&w.x, 0);
        api_work(&w.api);
    }
    cr_expect_eq(r->state, REQUEST_WAITING, "the second record is not synced");
    json_t *answer = api_answer(api_settle(&w, r), 200);
    expect_counts(answer, 2, 0);
    expect_pos(answer, 0, 0, false);
    expect_pos(answer, 1, 1, false);
    json_decref(answer);
    expect_balance();
}

Test(batch, each_message_has_its_own_outcome, .init = setup, .fini = teardown)
{
    static const char lines[] = "{\"topic\":\"a\",\"data\":1}\n"
                                "{\"topic\":\"a\",\"data\":\n"
                                "\n"
                                "{\"topic\":\"a/+\",\"data\":1}\n"
                                "{\"topic\":\"$SYS/x\",\"data\":1}\n"
                                "{\"topic\":\"a\",\"data\":1,\"deliver_at\":1}\n"
                                "{\"topic\":\"a\",\"text\":\"\xff\"}\n"
                                "{\"topic\":\"b\",\"b64\":\"AA==\"}";
    json_t *answer = api_answer(api_settle(&w, post("Content-Type: application/x-ndjson", lines)), 207);
    expect_counts(answer, 2, 5);
    expect_pos(answer, 0, 0, false);
    expect_code(answer, 1, 400, "bad_request");
    expect_code(answer, 2, 400, "bad_request");
    expect_code(answer, 3, 403, "forbidden");
    expect_code(answer, 4, 501, "unsupported");
    expect_code(answer, 5, 400, "bad_request");
    expect_pos(answer, 6, 1, false);
    json_decref(answer);
    cr_expect_eq(value_of(M_RECEIVED_HTTP), 7);
    expect_balance();
}

Test(batch, when_all_fail_the_first_ones_problem_is_the_answer, .init = setup, .fini = teardown)
{
    struct request *r = post(
        "", "{\"messages\":[{\"topic\":\"$x\",\"data\":1},{\"topic\":\"a\"},{\"topic\":\"\",\"data\":1}]}");
    api_settle(&w, r);
    cr_expect_str_eq(r->answer.type, problem_media_type);
    json_t *answer = api_answer(r, 403);
    expect_counts(answer, 0, 3);
    cr_expect_str_eq(text_of(answer, "code"), "forbidden");
    cr_expect_str_eq(text_of(answer, "title"), "Forbidden");
    cr_expect_eq(json_integer_value(json_object_get(answer, "status")), 403);
    json_decref(answer);
    expect_balance();
}

Test(batch, what_is_no_batch_publishes_nothing, .init = setup, .fini = teardown)
{
    static const struct {
        const char *body;
        unsigned status;
    } rows[] = {
        {"", 400},
        {"{}", 400},
        {"[]", 400},
        {"{\"messages\":[{\"topic\":\"a\",\"data\":1},{\"topic\":\"a\",\"data\":1}]", 400},
        {"{\"messages\":[{\"topic\":\"a\",\"data\":1},{\"topic\":\"a\",\"data\":\"\xff\"}]}", 400},
        {"{\"messages\":[]}", 200},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *answer = api_answer(api_settle(&w, post("", rows[i].body)), rows[i].status);
        cr_expect_eq(json_object_get(answer, "results") == NULL, rows[i].status != 200);
        json_decref(answer);
    }
    cr_expect_eq(w.x.log.lanes[0].count, 0);
    expect_balance();
}

/* `count` messages of a few bytes. */
static struct buf many(unsigned count)
{
    struct buf body;
    buf_init(&body, 64 << 20);
    enum status st = buf_put_cstr(&body, "{\"messages\":[");
    for (unsigned i = 0; i < count && st == ST_OK; i++)
        st = buf_printf(&body, "%s{\"topic\":\"t\",\"data\":%u}", i ? "," : "", i);
    cr_assert(st == ST_OK && buf_put_cstr(&body, "]}") == ST_OK);
    return body;
}

Test(batch, has_at_most_so_many_messages, .init = setup, .fini = teardown)
{
    w.settings.limit_batch_messages = 20;
    for (unsigned count = 20; count <= 21; count++) {
        struct buf body = many(count);
        struct request *r = api_settle(&w, api_ask(&w, "POST", "/v1/publish", "", buf_slice(&body)));
        json_decref(api_answer(r, count == 20 ? 200 : 413));
        cr_expect_eq(w.x.log.lanes[0].count, 20);
        buf_deinit(&body);
    }
}

/* The window of limit.publish_open (64 here) holds the rest back, and a turn does a bounded part of the work.
 */
Test(batch, goes_on_when_its_publishes_come_back, .init = setup, .fini = teardown)
{
    struct buf body = many(1000);
    struct request *r = api_ask(&w, "POST", "/v1/publish", "", buf_slice(&body));
    for (unsigned i = 0; i < 5; i++) {
        exchange_turn(&w.x, 0);
        api_work(&w.api);
    }
    cr_expect_eq(w.x.log.lanes[0].count, 64);
    json_t *answer = api_answer(api_settle(&w, r), 200);
    expect_counts(answer, 1000, 0);
    for (unsigned i = 0; i < 1000; i++)
        expect_pos(answer, i, i, false);
    json_decref(answer);
    buf_deinit(&body);
}

Test(batch, is_worked_off_in_pieces, .init = setup, .fini = teardown)
{
    w.settings.limit_batch_messages = 100000;
    w.settings.limit_publish_open = 65535;
    struct buf body = many(20000);
    struct request *r = api_ask(&w, "POST", "/v1/publish", "", buf_slice(&body));
    cr_expect_eq(w.x.log.lanes[0].count, 0, "all of it is split first, and that takes more than a turn");
    unsigned turns = 0;
    while (api_work(&w.api))
        turns++;
    cr_expect_gt(turns, 5);
    cr_expect_eq(w.x.log.lanes[0].count, 20000);
    json_decref(api_answer(api_settle(&w, r), 200));
    buf_deinit(&body);
}

/* Whether the first has its answer or not when the second comes. */
Test(batch, duplicates_in_one_batch_are_one, .init = setup, .fini = teardown)
{
    static const char body[] = "{\"messages\":[{\"topic\":\"a\",\"data\":1,\"idempotency_key\":\"k\"},"
                               "{\"topic\":\"a\",\"data\":1,\"idempotency_key\":\"k\"},"
                               "{\"topic\":\"a\",\"data\":2,\"idempotency_key\":\"k\"},"
                               "{\"topic\":\"a\",\"data\":3,\"producer\":\"p\",\"seq\":1},"
                               "{\"topic\":\"a\",\"data\":3,\"producer\":\"p\",\"seq\":1},"
                               "{\"topic\":\"b\",\"data\":3,\"producer\":\"p\",\"seq\":1}]}";
    for (unsigned round = 0; round < 2; round++) {
        json_t *answer = api_answer(api_settle(&w, post("", body)), 207);
        expect_counts(answer, 4, 2);
        expect_pos(answer, 0, 0, round > 0);
        expect_pos(answer, 1, 0, true);
        expect_code(answer, 2, 422, "conflict");
        expect_pos(answer, 3, 1, round > 0);
        expect_pos(answer, 4, 1, true);
        expect_code(answer, 5, 409, "conflict");
        json_decref(answer);
        cr_expect_eq(w.x.log.lanes[0].count, 2);
    }
    expect_balance();
}

/* The first of a key is another request's, and still on its way: told, not waited for. */
Test(batch, a_key_under_way_elsewhere_is_a_conflict, .init = setup, .fini = teardown)
{
    struct request *other = api_ask(&w, "POST", "/v1/publish/a", "Idempotency-Key: k", slice_cstr("x"));
    struct request *r =
        post("", "{\"messages\":[{\"topic\":\"a\",\"text\":\"x\",\"idempotency_key\":\"k\"}]}");
    while (r->state == REQUEST_WAITING) {
        exchange_turn(&w.x, 0);
        api_work(&w.api);
    }
    api_take_answered(&w);
    json_decref(api_answer(r, 409));
    json_decref(api_answer(api_settle(&w, other), 200));
    expect_balance();
}

/* What the log refuses in the middle is told where it stands. */
Test(batch, a_refusal_of_the_log_is_the_items, .init = setup, .fini = teardown)
{
    w.x.log.append_status = ST_NO_SPACE;
    w.x.log.append_failures = 1;
    json_t *answer = api_answer(
        api_settle(&w,
                   post("", "{\"messages\":[{\"topic\":\"a\",\"data\":1},{\"topic\":\"a\",\"data\":2}]}")),
        207);
    expect_code(answer, 0, 503, "storage_full");
    cr_expect(json_object_get(result_of(answer, 0), "retry_ms"));
    expect_pos(answer, 1, 0, false);
    json_decref(answer);
    expect_balance();
}

/* Given up: those on their way are unknown, those that were not are not stored; they come back to nobody. */
Test(batch, given_up_says_what_is_unknown, .init = setup, .fini = teardown)
{
    w.settings.limit_publish_open = 2;
    struct request *r = post("", "{\"messages\":[{\"topic\":\"$a\",\"data\":1},{\"topic\":\"a\",\"data\":1},"
                                 "{\"topic\":\"a\",\"data\":2},{\"topic\":\"a\",\"data\":3}]}");
    exchange_turn(&w.x, 0);
    cr_assert_eq(r->state, REQUEST_WAITING);
    request_give_up(r);
    api_take_answered(&w);
    json_t *answer = api_answer(r, 403);
    expect_counts(answer, 0, 4);
    for (size_t i = 1; i < 4; i++) {
        expect_code(answer, i, 503, "unavailable");
        cr_expect_eq(json_is_true(json_object_get(result_of(answer, i), "unknown")), i < 3, "result %zu", i);
    }
    json_decref(answer);
    cr_expect(!list_empty(&w.api.orphans));
    exchange_settle(&w.x);
    cr_expect_eq(w.x.log.lanes[0].count, 2);
    expect_balance();
}

Test(batch, given_up_before_anything_was_published, .init = setup, .fini = teardown)
{
    w.settings.limit_batch_messages = 100000;
    struct buf body = many(20000);
    struct request *r = api_ask(&w, "POST", "/v1/publish", "", buf_slice(&body));
    request_give_up(r);
    api_take_answered(&w);
    json_decref(api_answer(r, 503));
    cr_expect(list_empty(&w.api.working));
    buf_deinit(&body);
    expect_balance();
}

Test(batch, the_heads_trace_is_each_messages, .init = setup, .fini = teardown)
{
    static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    char fields[100];
    struct slice value;
    snprintf(fields, sizeof fields, "traceparent: %s", trace);
    json_decref(api_answer(
        api_settle(&w, post(fields, "{\"messages\":[{\"topic\":\"a\",\"data\":1,\"type\":\"t\"}]}")), 200));
    const struct msg *m = w.x.log.lanes[0].records[0];
    cr_expect(props_find(msg_props(m), PROP_TRACE, &value) && slice_equal_cstr(value, trace));
    cr_expect(props_find(msg_props(m), PROP_CONTENT_TYPE, &value) && slice_equal_cstr(value, "t"));
}
