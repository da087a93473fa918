#include "gateway/ws/reply.h"

#include "core/json.h"
#include "gateway/message_json.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>

static struct buf out;

static void expect(enum status st, const char *want)
{
    cr_assert_eq(st, ST_OK);
    cr_expect(slice_equal_cstr(buf_slice(&out), want), "got  %.*s\nwant %s", SLICE_ARG(buf_slice(&out)),
              want);
    cr_expect(json_valid(buf_slice(&out)));
    buf_clear(&out);
}

static void begin(void)
{
    buf_init(&out, 1 << 20);
}

static void end(void)
{
    buf_deinit(&out);
}

static size_t put_prop(uint8_t *to, enum msg_prop type, const void *value, size_t len)
{
    to[0] = (uint8_t)type;
    to[1] = (uint8_t)len;
    to[2] = (uint8_t)(len >> 8);
    memcpy(to + 3, value, len);
    return len + 3;
}

static size_t put_user(uint8_t *to, const char *name, const char *text)
{
    uint8_t value[512];
    size_t name_len = strlen(name), text_len = strlen(text);
    value[0] = (uint8_t)name_len;
    value[1] = 0;
    memcpy(value + 2, name, name_len);
    memcpy(value + 2 + name_len, text, text_len);
    return put_prop(to, PROP_USER, value, 2 + name_len + text_len);
}

static struct msg *make(enum content_class content, const char *topic, const void *payload, size_t len,
                        struct slice props, const char *key)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr(topic), slice_cstr(key), props, slice_of(payload, len), &m), ST_OK);
    m->content = (uint8_t)content;
    m->partition = 3;
    m->offset = 0x1f;
    m->ts_ms = 1790000000123;
    return m;
}

#define HEAD "\"pos\":\"000000070003.000000000000001f\",\"ts\":1790000000123"

TestSuite(ws_reply, .init = begin, .fini = end);

Test(ws_reply, a_message_says_its_payload_by_class)
{
    static const struct {
        enum content_class content;
        const char *payload;
        size_t len;
        const char *want;
    } rows[] = {
        {CONTENT_JSON, "{\"a\" : 1}", 9, "\"data\":{\"a\" : 1}"},
        {CONTENT_JSON, "{\"a\"\r\n:\n1}", 10, "\"data\":{\"a\"  : 1}"},
        {CONTENT_TEXT, "a\nb\"", 4, "\"text\":\"a\\nb\\\"\""},
        {CONTENT_TEXT, "", 0, "\"text\":\"\""},
        {CONTENT_BINARY, "\0\xff", 2, "\"b64\":\"AP8=\""},
        {CONTENT_BINARY, "", 0, "\"b64\":\"\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char want[256];
        struct msg *m = make(rows[i].content, "a/b", rows[i].payload, rows[i].len, (struct slice){0}, "");
        snprintf(want, sizeof want, "{\"msg\":{\"topic\":\"a/b\"," HEAD ",%s}}", rows[i].want);
        expect(ws_put_delivery(&out, 7, m, false, NULL), want);
        msg_unref(m);
    }
}

Test(ws_reply, a_retained_message_says_so)
{
    struct msg *m = make(CONTENT_JSON, "a/b", "1", 1, (struct slice){0}, "");
    expect(ws_put_delivery(&out, 7, m, true, NULL),
           "{\"msg\":{\"topic\":\"a/b\"," HEAD ",\"data\":1,\"retained\":true}}");
    msg_unref(m);
}

Test(ws_reply, a_message_has_key_type_and_props)
{
    uint8_t props[512];
    size_t len = put_prop(props, PROP_CONTENT_TYPE, "a/\"b", 4);
    len += put_user(props + len, "z", "1");
    len += put_user(props + len, "a", "2");
    len += put_prop(props + len, PROP_CORRELATION, "secret", 6);
    len += put_user(props + len, "z", "3");
    struct msg *m = make(CONTENT_TEXT, "t", "x", 1, slice_of(props, len), "k");
    const struct slice filter = slice_cstr("+\"");
    expect(
        ws_put_delivery(&out, 7, m, false, &filter),
        "{\"sub\":\"+\\\"\",\"msg\":{\"topic\":\"t\"," HEAD
        ",\"key\":\"k\",\"type\":\"a/\\\"b\",\"props\":{\"a\":\"2\",\"z\":[\"1\",\"3\"]},\"text\":\"x\"}}");
    msg_unref(m);
}

Test(ws_reply, many_user_properties_keep_order_within_a_name)
{
    static uint8_t props[60000];
    size_t len = 0;
    for (int i = 0; i < 3000; i++) {
        char name[16], text[16];
        snprintf(name, sizeof name, "n%d", i % 7);
        snprintf(text, sizeof text, "%d", i);
        len += put_user(props + len, name, text);
    }
    struct msg *m = make(CONTENT_TEXT, "t", "x", 1, slice_of(props, len), "");
    cr_assert_eq(message_json_put(&out, 7, m, false), ST_OK);
    json_t *root = json_loadb((const char *)out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    cr_assert(root);
    json_t *values = json_object_get(json_object_get(root, "props"), "n3");
    cr_assert_eq(json_array_size(values), 3000 / 7 + (3 < 3000 % 7));
    for (size_t i = 0; i < json_array_size(values); i++)
        cr_assert_eq(atoi(json_string_value(json_array_get(values, i))), (int)(i * 7 + 3));
    json_decref(root);
    msg_unref(m);
}

Test(ws_reply, answers)
{
    const struct ws_id id = {.given = true, .value = 9007199254740991}, none = {0};
    const struct place at = {.lane_count = 2, .next = {5, 0}};
    const struct ws_hello hello = {.session = "5e55",
                                   .user = slice_cstr("a/b"),
                                   .inbox = slice_cstr("$user/a%2Fb/#"),
                                   .resumed = true,
                                   .lost = slice_cstr("\"a\",\"b/+\""),
                                   .node = "n\"1",
                                   .ping_ms = 25000,
                                   .max_bytes = 1048576};
    char bookmark[BOOKMARK_BYTES_MAX + 1] = {0}, want[BOOKMARK_BYTES_MAX + 512];
    bookmark_write(7, &at, bookmark);

    expect(ws_put_hello(&out, id, &hello),
           "{\"id\":9007199254740991,\"ok\":{\"session\":\"5e55\",\"resumed\":true,"
           "\"lost\":[\"a\",\"b/+\"],\"user\":\"a/b\",\"inbox\":\"$user/a%2Fb/"
           "#\",\"node\":\"n\\\"1\",\"ping_ms\":25000,\"max_bytes\":1048576,"
           "\"features\":[\"sub\",\"unsub\",\"pub\",\"get\",\"get.reverse\",\"from.earliest\",\"from.after\","
           "\"from.time\",\"from.last\",\"mode.all\","
           "\"key\",\"ttl\",\"retain\",\"producer\",\"ack\",\"window\",\"credit\",\"session\",\"after\","
           "\"token\",\"auth\",\"who\",\"inbox\"]}}");
    snprintf(want, sizeof want, "{\"ok\":{\"topic\":\"a/+\",\"pos\":\"%s\",\"replay\":16}}", bookmark);
    expect(ws_put_subscribed(&out, none, slice_cstr("a/+"), 7, &at, 16), want);
    snprintf(want, sizeof want, "{\"live\":{\"topic\":\"a/+\",\"pos\":\"%s\"}}", bookmark);
    expect(ws_put_live(&out, slice_cstr("a/+"), 7, &at), want);
    expect(ws_put_unsubscribed(&out, id, slice_cstr("a")),
           "{\"id\":9007199254740991,\"ok\":{\"topic\":\"a\"}}");
    expect(ws_put_gap(&out, slice_cstr("a"), 7,
                      &(struct gap){.lane = 3, .from = 4, .to = 7, .count = 4, .why = "retention"}),
           "{\"gap\":{\"topic\":\"a\",\"from\":\"000000070003.0000000000000004\",\"to\":\"000000070003."
           "0000000000000007\",\"count\":4,\"why\":\"retention\"}}");
    expect(ws_put_gap_from(&out, slice_cstr("a"), slice_cstr("x"), "epoch"),
           "{\"gap\":{\"topic\":\"a\",\"from\":\"x\",\"why\":\"epoch\"}}");
    expect(
        ws_put_error(&out, id, &(struct ws_error){.code = "unavailable", .retry_ms = 5, .temporary = true}),
        "{\"id\":9007199254740991,\"err\":{\"code\":\"unavailable\",\"retry_ms\":5,\"temporary\":true}}");
    expect(ws_put_error(
               &out, id,
               &(struct ws_error){.code = "unavailable", .retry_ms = 5, .temporary = true, .unknown = true}),
           "{\"id\":9007199254740991,\"err\":{\"code\":\"unavailable\",\"retry_ms\":5,\"temporary\":true,"
           "\"unknown\":true}}");
    expect(
        ws_put_error(&out, none, &(struct ws_error){.code = "position_gone", .earliest = "p", .detail = "d"}),
        "{\"err\":{\"code\":\"position_gone\",\"earliest\":\"p\",\"detail\":\"d\"}}");
    expect(ws_put_error(&out, none, &(struct ws_error){.code = "internal", .next = "b", .detail = "d"}),
           "{\"err\":{\"code\":\"internal\",\"next\":\"b\",\"detail\":\"d\"}}");
    expect(ws_put_bye(&out, 4001, "drain", 8123),
           "{\"bye\":{\"code\":4001,\"why\":\"drain\",\"retry_ms\":8123}}");
    expect(ws_put_bye(&out, 4201, "bad", 0), "{\"bye\":{\"code\":4201,\"why\":\"bad\"}}");
}

Test(ws_reply, publishes_and_pages)
{
    const struct ws_id id = {.given = true, .value = 0};
    const struct place next = {.lane_count = 1, .next = {2}};
    char bookmark[BOOKMARK_BYTES_MAX + 1] = {0}, want[BOOKMARK_BYTES_MAX + 512];
    bookmark_write(7, &next, bookmark);
    struct msg *m = make(CONTENT_JSON, "t", "1", 1, (struct slice){0}, "");
    expect(ws_put_published(&out, id, 7, m, true),
           "{\"id\":0,\"ok\":{\"pos\":\"000000070003.000000000000001f\",\"dup\":true}}");
    expect(ws_put_published(&out, id, 7, m, false),
           "{\"id\":0,\"ok\":{\"pos\":\"000000070003.000000000000001f\",\"dup\":false}}");
    struct msg *const two[] = {m, m};
    snprintf(want, sizeof want,
             "{\"id\":0,\"ok\":{\"topic\":\"t\",\"messages\":[{\"topic\":\"t\"," HEAD
             ",\"data\":1},{\"topic\":\"t\"," HEAD ",\"data\":1}],\"next\":\"%s\"}}",
             bookmark);
    expect(ws_put_page(&out, id, slice_cstr("t"), 7, two, 2, &next), want);
    snprintf(want, sizeof want, "{\"id\":0,\"ok\":{\"topic\":\"t\",\"messages\":[],\"next\":\"%s\"}}",
             bookmark);
    expect(ws_put_page(&out, id, slice_cstr("t"), 7, NULL, 0, &next), want);
    msg_unref(m);
}

Test(ws_reply, a_full_buffer_is_told)
{
    struct msg *m = make(CONTENT_TEXT, "topic", "payload", 7, (struct slice){0}, "");
    for (size_t limit = 1; limit < 90; limit++) {
        struct buf small;
        buf_init(&small, limit);
        cr_assert_eq(ws_put_delivery(&small, 7, m, false, NULL), ST_FULL, "limit %zu", limit);
        buf_deinit(&small);
    }
    msg_unref(m);
}
