#include "gateway/ws/request.h"

#include <criterion/criterion.h>
#include <stdio.h>

static void describe(const char *line, char *out, size_t size)
{
    struct buf texts;
    struct ws_request r;
    buf_init(&texts, 4096);
    /* A copy of exactly the line's length, so that a sanitizer sees every step beyond it. */
    size_t len = strlen(line);
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, line, len);
    enum status st = ws_request_parse(slice_of(copy, len), &texts, &r);
    static const char *const names[] = {"none", "heartbeat", "hello",  "sub", "unsub", "pub",
                                        "get",  "ack",       "credit", "who", "auth",  "other"};
    int at = 0;
    if (st != ST_OK) {
        snprintf(out, size, "%s", status_name(st));
    } else {
        at = snprintf(out, size, "%s", names[r.operation]);
        if (r.has_id)
            at += snprintf(out + at, size - (size_t)at, " #%lu", (unsigned long)r.id);
        if (r.refused) {
            snprintf(out + at, size - (size_t)at, " %s", r.refused);
        } else {
            if (r.topic.data)
                at += snprintf(out + at, size - (size_t)at, " <%.*s>", SLICE_ARG(r.topic));
            if (r.operation == WS_OP_SUB || r.operation == WS_OP_GET)
                at += snprintf(out + at, size - (size_t)at, " from %d", (int)r.start);
            if (r.start_value > 0)
                at += snprintf(out + at, size - (size_t)at, " value=%lu", (unsigned long)r.start_value);
            if (r.reverse)
                at += snprintf(out + at, size - (size_t)at, " reverse");
            for (unsigned i = 0; i < r.after_count; i++)
                at += snprintf(out + at, size - (size_t)at, " %.*s", SLICE_ARG(r.after[i]));
            if (r.payload_kind)
                at += snprintf(out + at, size - (size_t)at, " %d:%.*s", (int)r.payload_kind,
                               SLICE_ARG(r.payload));
            if (r.key.data)
                at += snprintf(out + at, size - (size_t)at, " key=%.*s", SLICE_ARG(r.key));
            if (r.type.data)
                at += snprintf(out + at, size - (size_t)at, " type=%.*s", SLICE_ARG(r.type));
            if (r.has_ttl)
                at += snprintf(out + at, size - (size_t)at, " ttl=%lu", (unsigned long)r.ttl_ms);
            if (r.retain || r.not_retained)
                at += snprintf(out + at, size - (size_t)at, "%s", r.retain ? " retain" : " without retained");
            if (r.has_sequence)
                at += snprintf(out + at, size - (size_t)at, " producer=%.*s seq=%lu", SLICE_ARG(r.producer),
                               (unsigned long)r.sequence);
            if (r.session.data)
                at += snprintf(out + at, size - (size_t)at, " session=%.*s", SLICE_ARG(r.session));
            if (r.token.data)
                at += snprintf(out + at, size - (size_t)at, " token=%.*s", SLICE_ARG(r.token));
            if (r.inbox)
                at += snprintf(out + at, size - (size_t)at, " inbox");
            if (r.after_filters.data)
                at += snprintf(out + at, size - (size_t)at, " after=%.*s", SLICE_ARG(r.after_filters));
            if (r.ack)
                at += snprintf(out + at, size - (size_t)at, " ack");
            if (r.has_n)
                at += snprintf(out + at, size - (size_t)at, " n=%lu", (unsigned long)r.n);
            if (r.has_msgs)
                at += snprintf(out + at, size - (size_t)at, " msgs=%lu", (unsigned long)r.msgs);
            if (r.has_bytes)
                at += snprintf(out + at, size - (size_t)at, " bytes=%lu", (unsigned long)r.bytes);
            if (r.has_max)
                snprintf(out + at, size - (size_t)at, " max=%lu", (unsigned long)r.max);
        }
    }
    free(copy);
    buf_deinit(&texts);
}

static const struct {
    const char *line, *want;
} rows[] = {
    /* not a line */
    {"", "invalid"},
    {"x", "invalid"},
    {"[]", "invalid"},
    {"{", "invalid"},
    {"{}x", "invalid"},
    {"{\"id\":1", "invalid"},
    {"{\"id\":\"1\",\"sub\":{\"topic\":\"a\"}}", "invalid"},
    {"{\"id\":-1,\"sub\":{\"topic\":\"a\"}}", "invalid"},
    {"{\"id\":1.0,\"sub\":{\"topic\":\"a\"}}", "invalid"},
    {"{\"id\":9007199254740992,\"sub\":{\"topic\":\"a\"}}", "invalid"},
    {"{\"id\":1,\"id\":2,\"sub\":{\"topic\":\"a\"}}", "invalid"},
    {"{\"id\":1,\"pub\":{\"topic\":\"a\",\"data\":}}", "invalid"},
    {"{\"id\":1,\"pub\":{\"topic\":\"a\",\"data\":1}} {}", "invalid"},
    {"{\"id\":1,\"pub\":{\"topic\":\"a\",\"text\":\"\xff\"}}", "invalid"},
    {"{\"id\":1,\"pub\":{\"topic\":\"a\",\"text\":\"\\ud800\"}}", "invalid"},
    /* heartbeat, unknown operations */
    {"{}", "heartbeat"},
    {" { } ", "heartbeat"},
    {"{\"id\":1}", "none #1 bad_request"},
    {"{\"id\":1,\"foo\":{}}", "other #1 unsupported"},
    {"{\"foo\":1,\"bar\":2}", "other unsupported"},
    {"{\"id\":9007199254740991,\"auth\":{\"token\":\"a\"}}", "auth #9007199254740991 token=a"},
    {"{\"id\":3,\"who\":{\"topic\":\"a\"}}", "who #3 <a>"},
    {"{\"id\":3,\"who\":{}}", "who #3 bad_request"},
    /* ack, credit */
    {"{\"ack\":{\"n\":1}}", "ack n=1"},
    {"{\"id\":3,\"ack\":{\"n\":9007199254740991,\"x\":1}}", "ack #3 n=9007199254740991"},
    {"{\"ack\":{\"n\":9007199254740992}}", "ack bad_request"},
    {"{\"ack\":{\"n\":-1}}", "ack bad_request"},
    {"{\"ack\":{\"n\":1.5}}", "ack bad_request"},
    {"{\"ack\":{\"n\":null}}", "ack bad_request"},
    {"{\"ack\":{}}", "ack bad_request"},
    {"{\"ack\":5}", "ack bad_request"},
    {"{\"credit\":{\"msgs\":1}}", "credit msgs=1"},
    {"{\"credit\":{\"bytes\":0}}", "credit bytes=0"},
    {"{\"credit\":{\"msgs\":2,\"bytes\":3}}", "credit msgs=2 bytes=3"},
    {"{\"credit\":{\"msgs\":2,\"msgs\":3}}", "credit bad_request"},
    {"{\"credit\":{}}", "credit bad_request"},
    {"{\"credit\":{\"msgs\":\"1\"}}", "credit bad_request"},
    {"{\"credit\":{\"msgs\":18446744073709551616}}", "credit bad_request"},
    {"{\"id\":5,\"auth\":{\"token\":\"x\"}}", "auth #5 token=x"},
    {"{\"id\":1,\"sub\":{\"topic\":\"a\"},\"unsub\":{\"topic\":\"a\"}}", "sub #1 bad_request"},
    {"{\"id\":1,\"sub\":[]}", "sub #1 bad_request"},
    {"{\"id\":1,\"x\":[1,{\"y\":2}],\"unsub\":{\"topic\":\"a\",\"z\":{}}}", "unsub #1 <a>"},
    {"{\"unsub\":{\"topic\":\"a\"},\"id\":7}", "unsub #7 <a>"},
    {"{\"\\u0073ub\":{\"topic\":\"a\"}}", "sub <a> from 0"},
    /* hello */
    {"{\"id\":1,\"hello\":{}}", "hello #1"},
    {"{\"id\":1,\"hello\":{\"token\":null,\"inbox\":false,\"after\":{},\"x\":1}}", "hello #1"},
    {"{\"id\":1,\"hello\":{\"token\":\"t\"}}", "hello #1 token=t"},
    {"{\"id\":1,\"hello\":{\"token\":5}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"session\":\"t\"}}", "hello #1 session=t"},
    {"{\"id\":1,\"hello\":{\"session\":\"\"}}", "hello #1 session="},
    {"{\"id\":1,\"hello\":{\"session\":null}}", "hello #1"},
    {"{\"id\":1,\"hello\":{\"session\":5}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":[\"x\"]}}}", "hello #1 after={\"a\":[\"x\"]}"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":\"x\",\"\\u0062\":[\"y\",\"z\"]}}}",
     "hello #1 after={\"a\":\"x\",\"\\u0062\":[\"y\",\"z\"]}"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":[]}}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":[1]}}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":null}}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"after\":{\"a\":{\"b\":\"x\"}}}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"window\":{\"msgs\":1}}}", "hello #1 msgs=1"},
    {"{\"id\":1,\"hello\":{\"window\":{\"msgs\":0,\"bytes\":262144}}}", "hello #1 msgs=0 bytes=262144"},
    {"{\"id\":1,\"hello\":{\"window\":{}}}", "hello #1"},
    {"{\"id\":1,\"hello\":{\"window\":256}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"window\":{\"msgs\":-1}}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"inbox\":true}}", "hello #1 inbox"},
    {"{\"id\":1,\"hello\":{\"inbox\":1}}", "hello #1 bad_request"},
    {"{\"id\":1,\"hello\":{\"after\":[]}}", "hello #1 bad_request"},
    /* sub */
    {"{\"id\":2,\"sub\":{\"topic\":\"orders/+\"}}", "sub #2 <orders/+> from 0"},
    {"{\"id\":2,\"sub\":{\"topic\":\"\"}}", "sub #2 <> from 0"},
    {"{\"id\":2,\"sub\":{}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":1}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"topic\":\"b\"}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\\/\\u00e9\"}}", "sub #2 <a/\xc3\xa9> from 0"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":\"live\",\"mode\":\"all\",\"ack\":false}}",
     "sub #2 <a> from 0"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":\"earliest\",\"retained\":true}}", "sub #2 <a> from 1"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"after\":[\"p\",\"q\"]},\"retained\":false}}",
     "sub #2 <a> from 2 p q without retained"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"after\":\"p\"}}}", "sub #2 <a> from 2 p"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"after\":[]}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"after\":[1]}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":5}}}", "sub #2 <a> from 3 value=5"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":0}}}", "sub #2 <a> from 3"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"last\":5}}}", "sub #2 <a> from 4 value=5"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"last\":0}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"last\":\"5\"}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":-1}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":null}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":5.5}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"time\":5,\"last\":5}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":{\"last\":5,\"after\":\"p\"}}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"reverse\":true}}", "sub #2 <a> from 0"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":\"yesterday\"}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"from\":5}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"mode\":\"latest\"}}", "sub #2 unsupported"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"mode\":{\"sample_hz\":5}}}", "sub #2 unsupported"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"mode\":\"some\"}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"ack\":true}}", "sub #2 <a> from 0 ack"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"ack\":\"yes\"}}", "sub #2 bad_request"},
    {"{\"id\":2,\"sub\":{\"topic\":\"a\",\"retained\":0}}", "sub #2 bad_request"},
    /* pub */
    {"{\"id\":4,\"pub\":{\"topic\":\"r/7\",\"data\":{\"any\" : \"json\"}}}",
     "pub #4 <r/7> 1:{\"any\" : \"json\"}"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":null}}", "pub <r> 1:null"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":\"a\\nb\"}}", "pub <r> 1:\"a\\nb\""},
    {"{\"pub\":{\"topic\":\"r\",\"text\":\"a\\nb\"}}", "pub <r> 2:a\nb"},
    {"{\"pub\":{\"topic\":\"r\",\"text\":\"\"}}", "pub <r> 2:"},
    {"{\"pub\":{\"topic\":\"r\",\"b64\":\"aGk=\"}}", "pub <r> 3:hi"},
    {"{\"pub\":{\"topic\":\"r\",\"b64\":\"\"}}", "pub <r> 3:"},
    {"{\"pub\":{\"b64\":\"aGVsbG8gaGVsbG8gaGVsbG8g\",\"topic\":\"r\",\"key\":\"k\"}}",
     "pub <r> 3:hello hello hello  key=k"},
    {"{\"pub\":{\"topic\":\"r\",\"b64\":\"aGk\"}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"b64\":5}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\"}}", "pub bad_request"},
    {"{\"pub\":{\"data\":1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"text\":\"x\"}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"key\":\"k\",\"type\":\"t/"
     "u\",\"ttl_ms\":30000,\"retain\":false}}",
     "pub <r> 1:1 key=k type=t/u ttl=30000"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"ttl_ms\":-1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"ttl_ms\":0}}", "pub bad_request"},
    {"{\"id\":4,\"pub\":{\"topic\":\"r\",\"data\":1,\"retain\":true}}", "pub #4 <r> 1:1 retain"},
    {"{\"id\":4,\"pub\":{\"topic\":\"r\",\"data\":1,\"retain\":1}}", "pub #4 bad_request"},
    {"{\"id\":4,\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\"}}", "pub #4 bad_request"},
    {"{\"id\":4,\"pub\":{\"topic\":\"r\",\"data\":1,\"seq\":1}}", "pub #4 bad_request"},
    {"{\"id\":4,\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\",\"seq\":17}}",
     "pub #4 <r> 1:1 producer=p seq=17"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\",\"seq\":9007199254740991}}",
     "pub <r> 1:1 producer=p seq=9007199254740991"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\",\"seq\":9007199254740992}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\",\"seq\":-1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"p\",\"seq\":\"1\"}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"\",\"seq\":1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":7,\"seq\":1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":\"a\\u0000b\",\"seq\":1}}", "pub bad_request"},
    {"{\"pub\":{\"topic\":\"r\",\"data\":1,\"producer\":null,\"seq\":null}}", "pub <r> 1:1"},
    /* get */
    {"{\"id\":6,\"get\":{\"topic\":\"a\"}}", "get #6 <a> from 1"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":{\"after\":[\"p\"]},\"max\":5}}",
     "get #6 <a> from 2 p max=5"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":\"earliest\",\"max\":1}}", "get #6 <a> from 1 max=1"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":\"live\"}}", "get #6 bad_request"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":{\"time\":7}}}", "get #6 <a> from 3 value=7"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":{\"last\":7},\"max\":5}}",
     "get #6 <a> from 4 value=7 max=5"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":true}}", "get #6 <a> from 0 reverse"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":false}}", "get #6 <a> from 1"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":null}}", "get #6 <a> from 1"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":1}}", "get #6 bad_request"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":true,\"from\":\"live\"}}", "get #6 <a> from 0 reverse"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"reverse\":true,\"from\":\"earliest\"}}", "get #6 bad_request"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":{\"after\":\"p\"},\"reverse\":true}}",
     "get #6 <a> from 2 reverse p"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"from\":{\"last\":3},\"reverse\":true}}",
     "get #6 <a> from 4 value=3 reverse"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"max\":0}}", "get #6 bad_request"},
    {"{\"id\":6,\"get\":{\"topic\":\"a\",\"max\":\"5\"}}", "get #6 bad_request"},
};

Test(ws_request, parses)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[512];
        describe(rows[i].line, out, sizeof out);
        cr_expect_str_eq(out, rows[i].want, "%s\n  got  %s\n  want %s", rows[i].line, out, rows[i].want);
    }
}

Test(ws_request, at_most_so_many_positions)
{
    char line[4096], out[4096];
    for (unsigned count = WS_AFTER_MAX; count <= WS_AFTER_MAX + 1; count++) {
        int at = snprintf(line, sizeof line, "{\"sub\":{\"topic\":\"a\",\"from\":{\"after\":[");
        for (unsigned i = 0; i < count; i++)
            at += snprintf(line + at, sizeof line - (size_t)at, "%s\"p\"", i ? "," : "");
        snprintf(line + at, sizeof line - (size_t)at, "]}}}");
        struct buf texts;
        struct ws_request r;
        buf_init(&texts, sizeof line * 2);
        cr_assert_eq(ws_request_parse(slice_cstr(line), &texts, &r), ST_OK);
        cr_assert_eq(r.refused != NULL, count > WS_AFTER_MAX);
        buf_deinit(&texts);
    }
    (void)out;
}
