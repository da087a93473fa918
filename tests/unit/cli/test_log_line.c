#include "gateway/cli/log_line.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct line_limits limits = {.topic = {.bytes_max = 64, .levels_max = 8}, .message_bytes = 4096};

static size_t prop(uint8_t *out, enum msg_prop type, const char *bytes, size_t len)
{
    out[0] = (uint8_t)type;
    out[1] = (uint8_t)len;
    out[2] = (uint8_t)(len >> 8);
    memcpy(out + 3, bytes, len);
    return 3 + len;
}

static void expect_same(const struct msg *a, const struct msg *b)
{
    cr_expect(slice_equal(msg_topic(a), msg_topic(b)));
    cr_expect(slice_equal(msg_key(a), msg_key(b)));
    cr_expect(slice_equal(msg_payload(a), msg_payload(b)), "%.*s", SLICE_ARG(msg_payload(b)));
    cr_expect_eq(a->content, b->content);
    cr_expect_eq(a->qos, b->qos);
    cr_expect_eq(a->flags, b->flags);
    cr_expect_eq(a->expires_ms, b->expires_ms);
    cr_expect_eq(a->ts_ms, b->ts_ms);
}

/* Writes it, reads it, writes that again. */
static void expect_kept(const struct msg *m)
{
    struct buf line, again;
    struct msg *back;
    const char *why = "";
    buf_init(&line, 64 << 10);
    buf_init(&again, 64 << 10);
    cr_assert_eq(log_line_put(&line, 7, m), ST_OK);
    cr_assert(memchr(line.data, '\n', line.len) == NULL);
    cr_assert_eq(log_line_read(buf_slice(&line), &limits, &back, &why), ST_OK, "%s: %.*s", why,
                 SLICE_ARG(buf_slice(&line)));
    expect_same(m, back);
    back->partition = m->partition;
    back->offset = m->offset;
    cr_assert_eq(log_line_put(&again, 7, back), ST_OK);
    cr_expect(slice_equal(buf_slice(&line), buf_slice(&again)));
    msg_unref(back);
    buf_deinit(&line);
    buf_deinit(&again);
}

static struct msg *make(const char *key, struct slice props, struct slice payload, enum content_class content)
{
    struct msg *m;
    cr_assert_eq(msg_create(slice_cstr("a/b"), slice_cstr(key), props, payload, &m), ST_OK);
    m->content = (uint8_t)content;
    m->ts_ms = 1790000000123;
    m->offset = 255;
    return m;
}

Test(log_line, keeps_every_payload_byte_for_byte)
{
    static const struct {
        enum content_class content;
        const char *payload;
    } rows[] = {
        {CONTENT_JSON, "{\"a\": 1.50}"},
        {CONTENT_JSON, "{\n\"a\":\r1}"},
        {CONTENT_JSON, " [1] "},
        {CONTENT_JSON, "\"}]\\\"\""},
        {CONTENT_JSON, "1e400"},
        {CONTENT_TEXT, "say \"hi\"\n\t\\"},
        {CONTENT_TEXT, ""},
        {CONTENT_BINARY, "\xff\xfe"},
        {CONTENT_BINARY, "plain"},
        {CONTENT_BINARY, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct msg *m = make("", (struct slice){0}, slice_cstr(rows[i].payload), rows[i].content);
        expect_kept(m);
        msg_unref(m);
    }
}

Test(log_line, keeps_json_that_is_nested_as_deep_as_it_may_be)
{
    char deep[2 * 64 + 1];
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    deep[128] = '\0';
    struct msg *m = make("", (struct slice){0}, slice_cstr(deep), CONTENT_JSON);
    expect_kept(m);
    msg_unref(m);
}

Test(log_line, keeps_key_properties_and_marks)
{
    uint8_t props[256];
    size_t len = 0;
    len += prop(props + len, PROP_CONTENT_TYPE, "text/plain", 10);
    len += prop(props + len, PROP_USER, "\1\0b2", 4);
    len += prop(props + len, PROP_USER, "\1\0a1", 4);
    len += prop(props + len, PROP_USER, "\1\0b1", 4);
    len += prop(props + len, PROP_TRACE, "00-x", 4);
    len += prop(props + len, PROP_RESPONSE_TOPIC, "r/t", 3);
    len += prop(props + len, PROP_CORRELATION, "\0\xff", 2);
    len += prop(props + len, PROP_ORIGIN, "12345678", 8);
    struct msg *m = make("k\n", slice_of(props, len), slice_cstr("x"), CONTENT_TEXT);
    m->qos = 1;
    m->flags = MSG_RETAIN | MSG_PFI_UTF8 | MSG_TYPE_GIVEN;
    m->expires_ms = 1790000009999;
    expect_kept(m);
    msg_unref(m);
}

Test(log_line, takes_what_cat_and_history_write)
{
    const char *why = "";
    struct msg *m;
    struct slice line =
        slice_cstr("{\"topic\":\"a\",\"pos\":\"x\",\"ts\":5,\"props\":{\"a\":[\"1\",\"2\"],\"b\":\"3\"},"
                   "\"text\":\"t\",\"retained\":true}");
    cr_assert_eq(log_line_read(line, &limits, &m, &why), ST_OK, "%s", why);
    cr_expect_eq(m->flags, MSG_RETAIN);
    cr_expect(slice_equal(msg_props(m), slice_of("\10\4\0\1\0a1\10\4\0\1\0a2\10\4\0\1\0b3", 21)));
    msg_unref(m);
}

Test(log_line, refuses_what_no_door_would_let_in)
{
    static const char *const rows[] = {
        "",
        "[]",
        "{}",
        "{\"topic\":\"a\"}",
        "{\"topic\":\"a\",\"text\":\"x\"",
        "{\"topic\":\"a\",\"text\":\"x\"} x",
        "{\"topic\":\"a\",\"text\":\"x\",\"text\":\"y\"}",
        "{\"topic\":\"a\",\"text\":\"x\",\"data\":1}",
        "{\"topic\":\"a\",\"text\":\"x\",\"class\":\"json\"}",
        "{\"topic\":\"a\",\"text\":\"x\",\"nonsense\":1}",
        "{\"topic\":\"a/#\",\"text\":\"x\"}",
        "{\"topic\":\"\",\"text\":\"x\"}",
        "{\"topic\":\"$SYS/a\",\"text\":\"x\"}",
        "{\"topic\":\"1/2/3/4/5/6/7/8/9\",\"text\":\"x\"}",
        "{\"topic\":1,\"text\":\"x\"}",
        "{\"topic\":\"a\",\"text\":1}",
        "{\"topic\":\"a\",\"b64\":\"?\"}",
        "{\"topic\":\"a\",\"b64\":\"Zg==\",\"class\":\"json\"}",
        "{\"topic\":\"a\",\"b64\":\"/w==\",\"class\":\"text\"}",
        "{\"topic\":\"a\",\"b64\":\"Zg==\",\"class\":\"other\"}",
        "{\"topic\":\"a\",\"text\":\"x\",\"qos\":3}",
        "{\"topic\":\"a\",\"text\":\"x\",\"ts\":-1}",
        "{\"topic\":\"a\",\"text\":\"x\",\"expires\":1.5}",
        "{\"topic\":\"a\",\"text\":\"x\",\"retain\":1}",
        "{\"topic\":\"a\",\"text\":\"x\",\"key\":\"\\u0000\"}",
        "{\"topic\":\"a\",\"text\":\"x\",\"type\":\"\\u0000\"}",
        "{\"topic\":\"a\",\"text\":\"x\",\"props\":[[\"a\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"props\":[[\"a\",\"b\",\"c\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"props\":{\"a\":1}}",
        "{\"topic\":\"a\",\"text\":\"x\",\"props\":1}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[6,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[11,\"AAAAAAAAAAAAAA==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[10,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[77,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[8,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[5,\"Zg==\"],[5,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[4,\"Kw==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[6,\"\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[6,\"Zg==\"]]}",
        "{\"topic\":\"a\",\"text\":\"x\",\"more\":[[11,\"AAAAAAAAAAAAAA==\"]]}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *why = NULL;
        struct msg *m = NULL;
        cr_expect_eq(log_line_read(slice_cstr(rows[i]), &limits, &m, &why), ST_INVALID, "%s", rows[i]);
        cr_expect(why != NULL && m == NULL, "%s", rows[i]);
    }
}

Test(log_line, refuses_more_than_the_limits)
{
    char line[8192];
    const char *why = NULL;
    struct msg *m;
    snprintf(line, sizeof line, "{\"topic\":\"a\",\"text\":\"%04096d\"}", 0);
    cr_expect_eq(log_line_read(slice_cstr(line), &limits, &m, &why), ST_OK);
    msg_unref(m);
    snprintf(line, sizeof line, "{\"topic\":\"a\",\"text\":\"%04097d\"}", 0);
    cr_expect_eq(log_line_read(slice_cstr(line), &limits, &m, &why), ST_INVALID);
    snprintf(line, sizeof line, "{\"topic\":\"%065d\",\"text\":\"\"}", 0);
    cr_expect_eq(log_line_read(slice_cstr(line), &limits, &m, &why), ST_INVALID);
}
