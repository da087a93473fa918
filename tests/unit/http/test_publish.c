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

static struct request *publish_text(const char *fields, const char *text)
{
    return api_ask(&w, "POST", "/v1/publish/a/b", fields, slice_cstr(text));
}

static const struct msg *stored(uint64_t offset)
{
    cr_assert_gt(w.x.log.lanes[0].count, offset);
    return w.x.log.lanes[0].records[offset];
}

Test(http_publish, is_answered_when_durable_and_not_before, .init = setup, .fini = teardown)
{
    struct request *r = publish_text("", "hello");
    cr_expect_eq(r->state, REQUEST_WAITING);
    for (unsigned i = 0; i < 5; i++)
        exchange_turn(&w.x, 0);
    cr_expect_eq(r->state, REQUEST_WAITING, "the record is not synced");
    cr_expect_eq(w.api.kept_bytes, 0, "the message has its own copy");
    fake_log_sync(&w.x.log, 0, 1);
    json_t *answer = api_answer(api_settle(&w, r), 200);
    cr_expect_str_eq(text_of(answer, "topic"), "a/b");
    cr_expect_str_eq(text_of(answer, "pos"), "000000070000.0000000000000000");
    cr_expect(json_is_false(json_object_get(answer, "dup")));
    json_decref(answer);
    cr_expect_eq(value_of(M_RECEIVED_HTTP), 1);
}

Test(http_publish, carries_what_was_given, .init = setup, .fini = teardown)
{
    static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    char fields[300];
    struct slice value;
    snprintf(fields, sizeof fields,
             "Content-Type: text/plain\nTidegate-Key: k1\nTidegate-Ttl-Ms: 5000\ntraceparent: %s", trace);
    json_decref(api_answer(api_settle(&w, publish_text(fields, "{\"a\":1}")), 200));
    const struct msg *m = stored(0);
    cr_expect(slice_equal_cstr(msg_topic(m), "a/b") && slice_equal_cstr(msg_key(m), "k1"));
    cr_expect(slice_equal_cstr(msg_payload(m), "{\"a\":1}"));
    cr_expect(m->qos == 1 && m->content == CONTENT_TEXT && m->flags == MSG_TYPE_GIVEN);
    cr_expect_eq(m->expires_ms, ex_wall_ms + 5000);
    cr_expect(props_find(msg_props(m), PROP_CONTENT_TYPE, &value) && slice_equal_cstr(value, "text/plain"));
    cr_expect(props_find(msg_props(m), PROP_TRACE, &value) && slice_equal_cstr(value, trace));
}

Test(http_publish, leaves_out_what_declares_nothing, .init = setup, .fini = teardown)
{
    static const char *const traces[] = {
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
    };
    for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
        char fields[200];
        snprintf(fields, sizeof fields, "Content-Type: application/x-www-form-urlencoded\ntraceparent: %s",
                 traces[i]);
        json_decref(api_answer(api_settle(&w, publish_text(fields, "[1]")), 200));
        const struct msg *m = stored(i);
        cr_expect(m->props_len == 0 && m->key_len == 0 && m->flags == 0 && m->expires_ms == 0, "%s",
                  traces[i]);
        cr_expect_eq(m->content, CONTENT_JSON);
    }
}

Test(http_publish, refuses_json_that_is_none, .init = setup, .fini = teardown)
{
    struct request *r = publish_text("Content-Type: application/json", "{");
    cr_expect_eq(r->state, REQUEST_ANSWERED);
    json_t *answer = api_answer(r, 400);
    cr_expect_str_eq(text_of(answer, "code"), "bad_request");
    json_decref(answer);
    cr_expect_eq(w.x.log.lanes[0].count, 0);
    cr_expect_eq(value_of(M_RECEIVED_HTTP), value_of(M_REFUSED_INVALID));
}

Test(http_publish, accepted_is_answered_at_once, .init = setup, .fini = teardown)
{
    struct request *r = publish_text("Tidegate-Wait: accepted", "x");
    cr_expect_eq(r->state, REQUEST_ANSWERED);
    json_t *answer = api_answer(r, 202);
    cr_expect_eq(json_object_size(answer), 1);
    cr_expect_str_eq(text_of(answer, "topic"), "a/b");
    json_decref(answer);
    cr_expect_eq(w.x.log.lanes[0].count, 1);
}

Test(http_publish, says_when_nothing_was_stored, .init = setup, .fini = teardown)
{
    static const struct {
        enum status status;
        const char *fields, *code;
    } rows[] = {
        {ST_FULL, "", "unavailable"},
        {ST_NO_SPACE, "", "storage_full"},
        {ST_IO, "", "unavailable"},
        {ST_FULL, "Tidegate-Wait: accepted", "unavailable"},
        {ST_NO_SPACE, "Tidegate-Wait: accepted", "storage_full"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t refused = value_of(M_REFUSED_UNAVAILABLE);
        w.x.log.append_status = rows[i].status;
        w.x.log.append_failures = 1;
        struct request *r = api_settle(&w, publish_text(rows[i].fields, "x"));
        cr_expect_gt(r->answer.retry_ms, 0);
        json_t *answer = api_answer(r, 503);
        cr_expect_str_eq(text_of(answer, "code"), rows[i].code, "row %zu", i);
        cr_expect(!json_object_get(answer, "unknown"), "row %zu", i);
        json_decref(answer);
        cr_expect_eq(value_of(M_REFUSED_UNAVAILABLE), refused + 1, "row %zu", i);
    }
    cr_expect_eq(w.x.log.lanes[0].count, 0);
}

/* The publish comes back to nobody, and frees itself. */
Test(http_publish, given_up_says_that_the_outcome_is_unknown, .init = setup, .fini = teardown)
{
    struct request *r = publish_text("", "x");
    request_give_up(r);
    cr_expect(!list_empty(&w.api.answered), "the door is told");
    api_take_answered(&w);
    json_t *answer = api_answer(r, 503);
    cr_expect(json_is_true(json_object_get(answer, "unknown")));
    json_decref(answer);
    exchange_settle(&w.x);
    cr_expect_eq(w.x.log.lanes[0].count, 1);
}
