/* What an event stream or a poll asks for. */
#include "gateway/ws/feed_request.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct topic_limits limits = {64, 8};

/* "a=1&b=2" as the pieces that libwebsockets makes of it. "topics|from|wait|max", or the refusal's '!'. */
static void describe(enum feed_kind kind, const char *text, const char *last_event, char *out, size_t size)
{
    static struct feed_request r;
    size_t len = 0;
    feed_request_init(&r, kind);
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, "&");
        feed_request_add(&r, slice_of(at, n));
        at += n + (at[n] == '&');
    }
    if (last_event)
        feed_request_last_event(&r, slice_cstr(last_event));
    feed_request_settle(&r, &limits);
    out[0] = '\0';
    if (r.refused) {
        snprintf(out, size, "!");
        return;
    }
    for (unsigned i = 0; i < r.topic_count; i++)
        len += (size_t)snprintf(out + len, size - len, "%s%.*s", i ? "," : "", SLICE_ARG(r.topics[i]));
    snprintf(out + len, size - len, "|%.*s|%lu|%u", SLICE_ARG(r.from), (unsigned long)r.wait_ms, r.max);
}

Test(feed_request, parses)
{
    static const struct {
        enum feed_kind kind;
        const char *text, *last_event, *want;
    } rows[] = {
        {FEED_SSE, "topic=a", NULL, "a||0|0"},
        {FEED_SSE, "topic=a/+&topic=#&from=earliest", NULL, "a/+,#|earliest|0|0"},
        {FEED_SSE, "topic= /a b/ ", NULL, "+/a b/+||0|0"},
        {FEED_SSE, "topic=a&from=x", "b1.2", "a|b1.2|0|0"},
        {FEED_SSE, "topic=a&from=x", "", "a|x|0|0"},
        {FEED_SSE, "topic=a=b", NULL, "a=b||0|0"},
        {FEED_SSE, "", NULL, "!"},
        {FEED_SSE, "topic", NULL, "!"},
        {FEED_SSE, "topic=a&topic=a", NULL, "!"},
        {FEED_SSE, "topic=a+", NULL, "!"},
        {FEED_SSE, "topic=a&max=1", NULL, "!"},
        {FEED_SSE, "topic=a&from=x&after=y", NULL, "!"},
        {FEED_SSE, "topic=a&x", NULL, "!"},
        {FEED_POLL, "topic=a&after=b1.2&wait_ms=60000&max=7", NULL, "a|b1.2|60000|7"},
        {FEED_POLL, "topic=a&&wait_ms=0", NULL, "a||0|0"},
        {FEED_POLL, "topic=a&topic=b", NULL, "!"},
        {FEED_POLL, "topic=a&wait_ms=60001", NULL, "!"},
        {FEED_POLL, "topic=a&wait_ms=01", NULL, "!"},
        {FEED_POLL, "topic=a&wait_ms=1&wait_ms=1", NULL, "!"},
        {FEED_POLL, "topic=a&max=0", NULL, "!"},
        {FEED_POLL, "topic=a&max=9999999999", NULL, "!"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char got[200];
        describe(rows[i].kind, rows[i].text, rows[i].last_event, got, sizeof got);
        cr_expect_str_eq(got, rows[i].want, "%s: %s", rows[i].text, got);
    }
}

Test(feed_request, has_a_bound)
{
    static struct feed_request r;
    static char pair[FEED_TEXT_BYTES];
    feed_request_init(&r, FEED_SSE);
    memset(pair, 'a', sizeof pair);
    memcpy(pair, "from=", 5);
    feed_request_add(&r, slice_of(pair, sizeof pair));
    cr_expect_null(r.refused);
    feed_request_add(&r, slice_cstr("topic=abcdefgh"));
    cr_expect(r.refused);
}
