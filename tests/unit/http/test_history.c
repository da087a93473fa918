#include "api_world.h"

static struct api_world w;

static void setup(void)
{
    api_open(&w, 2);
}

static void teardown(void)
{
    api_close(&w);
}

static unsigned lane_of_topic(const char *topic)
{
    return topic_partition(slice_cstr(topic), 2);
}

/* `count` messages "0", "1" ... to a topic, each followed by one to another topic of the same lane. */
static void fill(const char *topic, unsigned count)
{
    char other[16];
    for (unsigned k = 0;; k++) {
        snprintf(other, sizeof other, "other%u", k);
        if (lane_of_topic(other) == lane_of_topic(topic))
            break;
    }
    for (unsigned i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        struct msg *m = exchange_msg(topic, text);
        m->content = CONTENT_TEXT;
        cr_assert_eq(hub_publish_lazy(w.x.hubs[0], m), ST_OK);
        cr_assert_eq(hub_publish_lazy(w.x.hubs[0], exchange_msg(other, "x")), ST_OK);
    }
    exchange_settle(&w.x);
}

static struct request *ask(const char *query)
{
    char target[300];
    snprintf(target, sizeof target, "/v1/history/%s", query);
    return api_ask(&w, "GET", target, "", (struct slice){0});
}

static json_t *page(const char *query, unsigned status)
{
    return api_answer(api_settle(&w, ask(query)), status);
}

/* The texts of a page, "3 4 5 ". */
static const char *texts(json_t *answer, char *out)
{
    size_t index;
    json_t *message;
    out[0] = '\0';
    json_array_foreach(json_object_get(answer, "messages"), index, message)
    {
        strcat(out, text_of(message, "text"));
        strcat(out, " ");
    }
    return out;
}

Test(http_history, gives_a_topic_and_nothing_else, .init = setup, .fini = teardown)
{
    char got[300], query[100];
    fill("a", 4);
    json_t *answer = page("a", 200);
    cr_expect_str_eq(texts(answer, got), "0 1 2 3 ");
    snprintf(query, sizeof query, "a?from=%s", text_of(answer, "next"));
    json_decref(answer);
    answer = page(query, 200);
    cr_expect_str_eq(texts(answer, got), "");
    cr_expect_str_eq(text_of(answer, "next"), query + 7, "the end stays where it is");
    json_decref(answer);
    answer = page("none", 200);
    cr_expect_str_eq(texts(answer, got), "");
    json_decref(answer);
}

/* Each read brings one record: a page is made of many. */
Test(http_history, goes_on_reading_until_the_page_is_full, .init = setup, .fini = teardown)
{
    char got[300], query[100];
    fill("a", 10);
    w.x.log.serve_max = 1;
    json_t *answer = page("a?max=7", 200);
    cr_expect_str_eq(texts(answer, got), "0 1 2 3 4 5 6 ");
    snprintf(query, sizeof query, "a?max=7&from=%s", text_of(answer, "next"));
    json_decref(answer);
    answer = page(query, 200);
    cr_expect_str_eq(texts(answer, got), "7 8 9 ");
    json_decref(answer);
}

Test(http_history, goes_back_page_by_page, .init = setup, .fini = teardown)
{
    static const char *const pages[] = {"9 8 7 6 ", "5 4 3 2 ", "1 0 ", ""};
    char got[300], query[100];
    fake_log_jump(&w.x.log, 1, 1); /* a log's first offset is START's */
    fill("a", 10);
    w.x.log.serve_max = 3;
    snprintf(query, sizeof query, "a?max=4&reverse=1");
    for (size_t i = 0; i < 4; i++) {
        json_t *answer = page(query, 200);
        cr_expect_str_eq(texts(answer, got), pages[i], "%s", query);
        snprintf(query, sizeof query, "a?max=4&reverse=1&from=%s", text_of(answer, "next"));
        json_decref(answer);
    }
}

Test(http_history, begins_at_a_time_or_with_the_last, .init = setup, .fini = teardown)
{
    char got[300];
    fill("a", 3);
    ex_wall_ms += 10;
    loop_update_time(w.x.loops[0]);
    fill("a", 2);
    const struct {
        const char *query;
        uint64_t time_ms;
        const char *want;
    } rows[] = {
        {"from=last:3", 0, "2 0 1 "},
        {"from=last:99", 0, "0 1 2 0 1 "},
        {"from=last:3&reverse=1", 0, "1 0 2 "},
        {"from=last:4&max=2", 0, "1 2 "},
        {"from=last:1&max=2&reverse=1", 0, "1 "},
        {"from=time:%lu", ex_wall_ms, "0 1 "},
        {"from=time:%lu", ex_wall_ms - 1, "0 1 "},
        {"from=time:%lu", ex_wall_ms + 1, ""},
        {"from=time:%lu", ex_wall_ms - 10, "0 1 2 0 1 "},
        {"from=time:%lu&reverse=1", ex_wall_ms, "2 1 0 "},
        {"from=time:%lu&reverse=1&max=2", ex_wall_ms, "2 1 "},
        {"reverse=1&from=time:%lu", ex_wall_ms + 1, "1 0 2 1 0 "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char query[100], place[60];
        const char *hole = strstr(rows[i].query, "%lu");
        if (hole)
            snprintf(place, sizeof place, "%.*s%lu%s", (int)(hole - rows[i].query), rows[i].query,
                     (unsigned long)rows[i].time_ms, hole + 3);
        else
            snprintf(place, sizeof place, "%s", rows[i].query);
        snprintf(query, sizeof query, "a?%s", place);
        json_t *answer = page(query, 200);
        cr_expect_str_eq(texts(answer, got), rows[i].want, "%s: %s", query, got);
        json_decref(answer);
    }
}

Test(http_history, keeps_the_other_lanes_of_a_bookmark, .init = setup, .fini = teardown)
{
    char query[100], want[100];
    fill("a", 3);
    unsigned lane = lane_of_topic("a");
    snprintf(query, sizeof query, "a?from=b00000007.%s", lane == 0 ? "2-5" : "5-2");
    snprintf(want, sizeof want, "b00000007.%s", lane == 0 ? "6-5" : "5-6");
    json_t *answer = page(query, 200);
    cr_expect_str_eq(text_of(answer, "next"), want);
    json_decref(answer);
}

Test(http_history, leaves_out_what_has_expired, .init = setup, .fini = teardown)
{
    char got[300];
    struct msg *m = exchange_msg("a", "old");
    m->content = CONTENT_TEXT;
    m->expires_ms = ex_wall_ms + 10;
    cr_assert_eq(hub_publish_lazy(w.x.hubs[0], m), ST_OK);
    fill("a", 2);
    ex_wall_ms += 10;
    loop_update_time(w.x.loops[0]);
    json_t *answer = page("a?max=2", 200);
    cr_expect_str_eq(texts(answer, got), "0 1 ");
    json_decref(answer);
}

Test(http_history, begins_where_the_log_begins, .init = setup, .fini = teardown)
{
    char got[300], query[100];
    unsigned lane = lane_of_topic("a");
    fill("a", 5);
    fake_log_trim(&w.x.log, lane, 4);
    json_t *answer = page("a?from=earliest", 200);
    cr_expect_str_eq(texts(answer, got), "2 3 4 ");
    json_decref(answer);

    snprintf(query, sizeof query, "a?from=00000007%04x.0000000000000000", lane);
    answer = page(query, 410);
    cr_expect_str_eq(text_of(answer, "code"), "position_gone");
    snprintf(query, sizeof query, "a?from=%s", text_of(answer, "earliest"));
    json_decref(answer);
    answer = page(query, 200);
    cr_expect_str_eq(texts(answer, got), "2 3 4 ", "`earliest` is a place to go on from");
    json_decref(answer);
}

/* Retention runs between two reads of a page: the page ends, the next one tells. */
Test(http_history, ends_a_page_that_is_overtaken_by_retention, .init = setup, .fini = teardown)
{
    char got[300], query[100];
    unsigned lane = lane_of_topic("a");
    fill("a", 5);
    w.x.log.serve_max = 1;
    struct request *r = ask("a");
    exchange_turn(&w.x, 0);
    cr_assert(fake_log_serve(&w.x.log));
    exchange_turn(&w.x, 0);
    fake_log_trim(&w.x.log, lane, 6);
    json_t *answer = api_answer(api_settle(&w, r), 200);
    cr_expect_str_eq(texts(answer, got), "0 ");
    snprintf(query, sizeof query, "a?from=%s", text_of(answer, "next"));
    json_decref(answer);
    json_decref(page(query, 410));
}

Test(http_history, tells_of_a_damaged_record_and_where_it_ends, .init = setup, .fini = teardown)
{
    char got[300], query[100];
    struct fake_lane *lane = &w.x.log.lanes[lane_of_topic("a")];
    fill("a", 5);
    lane->damaged_from = 4;
    lane->damaged_to = 6;
    json_t *answer = page("a", 200);
    cr_expect_str_eq(texts(answer, got), "0 1 ");
    snprintf(query, sizeof query, "a?from=%s", text_of(answer, "next"));
    json_decref(answer);
    answer = page(query, 500);
    cr_expect_str_eq(text_of(answer, "code"), "internal");
    snprintf(query, sizeof query, "a?from=%s", text_of(answer, "next"));
    json_decref(answer);
    answer = page(query, 200);
    cr_expect_str_eq(texts(answer, got), "3 4 ");
    json_decref(answer);
}

Test(http_history, a_position_behind_the_end_is_gone, .init = setup, .fini = teardown)
{
    static const char *const ways[] = {"", "&reverse=1"};
    char query[100], got[300];
    fill("a", 5); /* offsets 0 to 9 */
    for (unsigned i = 0; i < 2; i++) {
        snprintf(query, sizeof query, "a?from=00000007%04x.000000000000000b%s", lane_of_topic("a"), ways[i]);
        json_t *answer = page(query, 410);
        cr_expect_str_eq(text_of(answer, "code"), "position_gone");
        cr_expect_str_eq(text_of(answer, "earliest"), "earliest");
        json_decref(answer);
    }
    snprintf(query, sizeof query, "a?from=00000007%04x.0000000000000009", lane_of_topic("a"));
    json_t *answer = page(query, 200);
    cr_expect_str_eq(texts(answer, got), "");
    json_decref(answer);
}

Test(http_history, a_parameter_twice_is_refused, .init = setup, .fini = teardown)
{
    static const char *const queries[] = {"a?max=1&max=1", "a?from=earliest&from=earliest",
                                          "a?reverse=1&max=2&reverse=0", "a?reverse=0&rever%73e=0"};
    for (unsigned i = 0; i < 4; i++)
        json_decref(page(queries[i], 400));
}

Test(http_history, given_up_is_answered_and_its_read_is_nobodys, .init = setup, .fini = teardown)
{
    fill("a", 5);
    struct request *r = ask("a");
    cr_expect_eq(r->state, REQUEST_WAITING);
    request_give_up(r);
    api_take_answered(&w);
    json_decref(api_answer(r, 503));
    cr_expect_eq(w.api.pages_open, 1, "its read is under way");
}

Test(http_history, reads_a_bounded_number_of_pages_at_a_time, .init = setup, .fini = teardown)
{
    struct request *open[PAGES_OPEN_MAX];
    fill("a", 1);
    for (unsigned i = 0; i < PAGES_OPEN_MAX; i++)
        open[i] = ask("a");
    struct request *over = ask("a");
    cr_expect_eq(over->state, REQUEST_ANSWERED);
    json_decref(api_answer(over, 503));
    exchange_settle(&w.x);
    api_take_answered(&w);
    for (unsigned i = 0; i < PAGES_OPEN_MAX; i++)
        json_decref(api_answer(open[i], 200));
    json_decref(page("a", 200));
}

/* What a page keeps is counted; one that finds no room ends early, or is refused when it has nothing. */
Test(http_history, keeps_within_the_bound, .init = setup, .fini = teardown)
{
    char got[300];
    fill("a", 5);
    w.api.kept_bytes_max = 1450;
    json_t *answer = page("a", 200);
    cr_expect_str_eq(texts(answer, got), "0 1 2 ");
    json_decref(answer);
    w.api.kept_bytes_max = 1200;
    json_decref(page("a", 503));
}
