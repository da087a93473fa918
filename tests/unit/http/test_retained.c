#include "api_world.h"

static struct api_world w;

static void setup(void)
{
    api_open(&w, 3);
}

static void teardown(void)
{
    api_close(&w);
}

TestSuite(http_retained, .init = setup, .fini = teardown);

static struct request *ask(const char *method, const char *query)
{
    char target[300];
    snprintf(target, sizeof target, "/v1/retained%s", query);
    return api_ask(&w, method, target, "", (struct slice){0});
}

static json_t *get(const char *query, unsigned status)
{
    return api_answer(api_settle(&w, ask("GET", query)), status);
}

/* Topics "t/0" ... "t/<count - 1>", over all lanes. */
static void fill(unsigned count)
{
    char topic[16];
    for (unsigned i = 0; i < count; i++) {
        snprintf(topic, sizeof topic, "t/%u", i);
        cr_assert_eq(exchange_retain(&w.x, 0, topic, "x", 0), ST_OK);
        exchange_publish(&w.x, 0, topic); /* is not retained */
    }
    exchange_settle(&w.x);
}

static size_t count_of(json_t *answer)
{
    size_t count = json_array_size(json_object_get(answer, "messages"));
    json_decref(answer);
    return count;
}

/* What the node tells of a filter, page by page, each of `max`; every topic once. */
static unsigned count_by_pages(const char *filter, unsigned max)
{
    bool seen[100] = {false};
    unsigned count = 0;
    char next[BOOKMARK_BYTES_MAX + 1] = "earliest", query[BOOKMARK_BYTES_MAX + 100];
    for (bool end = false; !end;) {
        size_t index;
        json_t *message;
        snprintf(query, sizeof query, "/%s?max=%u&from=%s", filter, max, next);
        json_t *answer = get(query, 200), *messages = json_object_get(answer, "messages");
        cr_assert_leq(json_array_size(messages), max);
        json_array_foreach(messages, index, message)
        {
            unsigned number = (unsigned)atoi(text_of(message, "topic") + 2);
            cr_assert(number < 100 && !seen[number], "t/%u came twice", number);
            cr_assert(json_is_true(json_object_get(message, "retained")));
            seen[number] = true;
            count++;
        }
        end = json_array_size(messages) == 0;
        snprintf(next, sizeof next, "%s", text_of(answer, "next"));
        json_decref(answer);
    }
    return count;
}

Test(http_retained, tells_what_is_retained_page_by_page)
{
    fill(40);
    cr_expect_eq(count_by_pages("%23", 100), 40u);
    cr_expect_eq(count_by_pages("t/+", 7), 40u);
    cr_expect_eq(count_by_pages("t/+", 1), 40u);
    cr_expect_eq(count_by_pages("t/17", 5), 1u);
    cr_expect_eq(count_by_pages("t", 5), 0u);
    cr_expect_eq(count_by_pages("t/+/x", 5), 0u);
}

Test(http_retained, a_page_without_a_limit_has_the_default)
{
    fill(60);
    w.settings.limit_history_count = 1000;
    cr_expect_eq(count_of(get("/%23", 200)), 60u);
    w.settings.limit_history_count = 50;
    cr_expect_eq(count_of(get("/%23", 200)), 50u);
    cr_expect_eq(count_of(get("?topic=t/%23&max=1000", 200)), 50u);
}

Test(http_retained, next_goes_on_with_what_was_set_since)
{
    char query[BOOKMARK_BYTES_MAX + 100];
    fill(10);
    json_t *answer = get("/%23", 200);
    snprintf(query, sizeof query, "/%%23?from=%s", text_of(answer, "next"));
    json_decref(answer);
    cr_expect_eq(count_of(get(query, 200)), 0u);
    cr_assert_eq(exchange_retain(&w.x, 0, "t/3", "y", 0), ST_OK);
    cr_assert_eq(exchange_retain(&w.x, 0, "t/4", "", 0), ST_OK);
    answer = get(query, 200);
    cr_expect_str_eq(text_of(json_array_get(json_object_get(answer, "messages"), 0), "topic"), "t/3");
    cr_expect_eq(count_of(answer), 1u);
}

Test(http_retained, a_walk_past_a_thousand_others_is_one_page)
{
    char topic[16];
    for (unsigned i = 0; i < 900; i++) {
        snprintf(topic, sizeof topic, "o/%u", i);
        cr_assert_eq(exchange_retain(&w.x, 0, topic, "x", 0), ST_OK);
    }
    fill(9);
    cr_expect_eq(count_of(get("/t/+", 200)), 9u);
}

Test(http_retained, what_has_expired_is_not_told)
{
    cr_assert_eq(exchange_retain(&w.x, 0, "t/1", "x", ex_wall_ms + 10), ST_OK);
    cr_expect_eq(count_of(get("/%23", 200)), 1u);
    ex_wall_ms += 10;
    exchange_settle(&w.x);
    cr_expect_eq(count_of(get("/t/1", 200)), 0u);
    cr_expect_eq(count_of(get("/%23", 200)), 0u);
    json_decref(api_answer(api_settle(&w, ask("DELETE", "/t/1")), 404));
}

Test(http_retained, refuses_what_is_no_filter)
{
    static const struct {
        const char *query;
        unsigned status;
    } rows[] = {{"", 400},         {"?topic=", 400},    {"/a%23", 400},        {"/%23/a", 400},
                {"/a?max=0", 400}, {"/a?from=x", 400},  {"/a?reverse=1", 400}, {"/a?from=last:3", 501},
                {"/$x", 403},      {"/%24SYS/%23", 403}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        json_decref(api_answer(ask("GET", rows[i].query), rows[i].status));
}

/* --- DELETE ------------------------------------------------------------------------------------- */

Test(http_retained, a_removal_is_answered_when_it_is_durable)
{
    fill(3);
    uint64_t stored = metrics_sum(M_STORED);
    struct request *r = ask("DELETE", "/t/1");
    for (unsigned n = 0; n < 10; n++)
        exchange_turn(&w.x, 0);
    cr_expect_eq(r->state, REQUEST_WAITING, "it is appended, not durable");
    cr_expect_eq(exchange_metric(&w.x, M_RECEIVED_HTTP), 1);
    json_t *answer = api_answer(api_settle(&w, r), 200);
    cr_expect_str_eq(text_of(answer, "topic"), "t/1");
    cr_expect_eq(strlen(text_of(answer, "pos")), (size_t)POSITION_BYTES);
    json_decref(answer);
    cr_expect_eq(metrics_sum(M_STORED), stored + 1);
    json_decref(api_answer(api_settle(&w, ask("DELETE", "/t/1")), 404));
    cr_expect_eq(metrics_sum(M_STORED), stored + 1, "nothing is published for nothing");
    cr_expect_eq(count_of(get("/%23", 200)), 2u);
}

Test(http_retained, a_removal_that_the_log_refuses)
{
    fill(1);
    w.x.log.append_failures = 1;
    w.x.log.append_status = ST_NO_SPACE;
    json_t *answer = api_answer(api_settle(&w, ask("DELETE", "/t/0")), 503);
    cr_expect_str_eq(text_of(answer, "code"), "storage_full");
    json_decref(answer);
    cr_expect_eq(count_of(get("/t/0", 200)), 1u);
}

Test(http_retained, what_is_given_up_is_nobodys)
{
    fill(10);
    struct request *looks = ask("DELETE", "/t/0"), *reads = ask("GET", "/%23");
    request_give_up(looks);
    request_give_up(reads);
    struct request *waits = ask("DELETE", "/t/1");
    exchange_turn(&w.x, 0);
    exchange_turn(&w.x, 0);
    request_give_up(waits);
    api_take_answered(&w);
    json_t *answer = api_answer(waits, 503);
    cr_expect(json_is_true(json_object_get(answer, "unknown")));
    json_decref(answer);
    json_decref(api_answer(looks, 503));
    json_decref(api_answer(reads, 503));
    exchange_settle(&w.x);
    cr_expect_eq(count_of(get("/%23", 200)), 9u, "the one that was only looked at is there");
}

Test(http_retained, a_publish_over_the_limit_is_told)
{
    char topic[40];
    fill(1);
    unsigned lane = topic_partition(slice_cstr("t/0"), 3);
    for (unsigned n = 0, i = 0; n < w.x.limits.retained.count_max - 1; i++) {
        snprintf(topic, sizeof topic, "o/%u", i);
        if (topic_partition(slice_cstr(topic), 3) != lane)
            continue;
        cr_assert_eq(exchange_retain(&w.x, 0, topic, "x", 0), ST_OK);
        n++;
    }
    for (unsigned i = 0;; i++) {
        snprintf(topic, sizeof topic, "/v1/publish/n/%u", i);
        if (topic_partition(slice_cstr(topic + strlen("/v1/publish/")), 3) == lane)
            break;
    }
    static const char *const waits[] = {"Tidegate-Retain: 1", "Tidegate-Retain: 1\nTidegate-Wait: accepted"};
    for (unsigned i = 0; i < 2; i++) {
        struct request *r = api_ask(&w, "POST", topic, waits[i], slice_cstr("x"));
        json_t *answer = api_answer(api_settle(&w, r), 503);
        cr_expect_str_eq(text_of(answer, "code"), "quota_exceeded");
        json_decref(answer);
    }
    cr_expect_eq(exchange_metric(&w.x, M_REFUSED_QUOTA), 2);
}
