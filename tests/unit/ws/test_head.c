#include "gateway/ws/head.h"

#include <criterion/criterion.h>
#include <stdio.h>

enum { BYTES_MAX = 512 };

static uint8_t bytes[4096];
static struct web_head head;
static struct web_flaw flaw;

/* The answer to `text` as one piece; a byte at a time must give the same. */
static enum status take(const char *text)
{
    size_t len = strlen(text), scanned = 0, n = 0;
    enum status slow = ST_AGAIN;
    memcpy(bytes, text, len);
    while (slow == ST_AGAIN && n < len)
        slow = web_head_read(bytes, ++n, BYTES_MAX, &scanned, &head, &flaw);
    int slow_status = flaw.status;
    memcpy(bytes, text, len);
    scanned = 0;
    enum status st = web_head_read(bytes, len, BYTES_MAX, &scanned, &head, &flaw);
    cr_expect_eq(st, slow, "%s", text);
    cr_expect(st != ST_INVALID || slow_status == flaw.status, "%s", text);
    return st;
}

static void expect(struct slice got, const char *want)
{
    cr_expect(slice_equal_cstr(got, want), "%.*s, not %s", (int)got.len, (const char *)got.data, want);
}

Test(ws_head, takes_a_request_apart)
{
    cr_assert_eq(
        take("\r\nPOST /a%20b/c/?x=1&y=a+%62 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 12\r\n"
             "cookie:a=b\r\nCookie: \tc=d \r\n\r\nrest"),
        ST_OK);
    expect(head.method, "POST");
    expect(head.path, "/a b/c/");
    expect(head.query, "x=1&y=a+%62");
    expect(head.host, "a.example:80");
    cr_expect_null(head.target_flaw);
    cr_expect_eq(head.body_bytes, 12);
    cr_expect(head.persists && !head.chunked && !head.version_10);
    expect(slice_of(bytes + head.bytes, 4), "rest");

    char value[16];
    cr_assert(web_head_copy(&head, WEB_COOKIE, value, sizeof value));
    cr_expect_str_eq(value, "a=b; c=d");
    cr_expect_not(web_head_copy(&head, WEB_COOKIE, value, 8), "it needs nine");
    cr_expect_not(web_head_copy(&head, WEB_ORIGIN, value, sizeof value));
    size_t place = 0;
    long len = web_head_parameter(&head, &place, value, sizeof value);
    expect(slice_of(value, (size_t)len), "x=1");
    len = web_head_parameter(&head, &place, value, sizeof value);
    expect(slice_of(value, (size_t)len), "y=a b");
    cr_expect_eq(web_head_parameter(&head, &place, value, sizeof value), -1);
}

Test(ws_head, an_absolute_target_names_the_host)
{
    cr_assert_eq(take("GET http://b.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n"), ST_OK);
    expect(head.host, "b.example");
    expect(head.path, "/");
    expect(head.query, "q");
}

/* RFC 9112, 9.3 */
Test(ws_head, knows_whether_the_connection_goes_on)
{
    static const struct {
        const char *version, *connection;
        bool want;
    } rows[] = {
        {"1.1", "", true},
        {"1.1", "Connection: close\r\n", false},
        {"1.1", "Connection: Upgrade , CLOSE\r\n", false},
        {"1.1", "Connection: Upgrade\r\nConnection: close\r\n", false},
        {"1.0", "", false},
        {"1.0", "Connection: keep-alive\r\n", true},
        {"1.0", "Connection: keep-alive, close\r\n", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: a\r\n%s\r\n", rows[i].version,
                 rows[i].connection);
        cr_assert_eq(take(text), ST_OK, "%s", text);
        cr_expect_eq(head.persists, rows[i].want, "%s", text);
    }
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n"

Test(ws_head, refuses_what_two_readers_could_read_differently)
{
    static const struct {
        const char *text;
        int want; /* 0: it is taken */
    } rows[] = {
        {GET "\r\n", 0},
        {GET "X: \t\x80\xff\r\n\r\n", 0}, /* obs-text (RFC 9110, 5.5) */
        {"GET / HTTP/1.1\nHost: a\n\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
        {GET "X: a\rb\r\n\r\n", 400},
        {GET "X: a\x01\r\n\r\n", 400},
        {GET "X: a\x7f\r\n\r\n", 400},
        {GET " folded\r\n\r\n", 400},
        {GET "Name : x\r\n\r\n", 400},
        {GET ": x\r\n\r\n", 400},
        {GET "no colon\r\n\r\n", 400},
        {GET "Host: a\r\n\r\n", 400},
        {GET "Host: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.0\r\n\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
        {"GET /\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
        {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
        {"(GET) / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {GET "Content-Length: 5\r\n\r\n", 0},
        {GET "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
        {GET "Content-Length: 5, 5\r\n\r\n", 400},
        {GET "Content-Length: -1\r\n\r\n", 400},
        {GET "Content-Length: +1\r\n\r\n", 400},
        {GET "Content-Length: 0x5\r\n\r\n", 400},
        {GET "Content-Length:\r\n\r\n", 400},
        {GET "Content-Length: 99999999999999999999\r\n\r\n", 400},
        {GET "Transfer-Encoding: Chunked\r\n\r\n", 0},
        {GET "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
        {GET "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {GET "Transfer-Encoding: xchunked\r\n\r\n", 501},
        {GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501},
        {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum status st = take(rows[i].text);
        cr_expect_eq(st == ST_OK ? 0 : flaw.status, rows[i].want, "%s: %d", rows[i].text, flaw.status);
    }
}

Test(ws_head, a_bad_target_is_no_reason_to_end_the_connection)
{
    static const char *const targets[] = {"/a/../b", "/a//b", "/a%2Fb", "/a%00", "/%",  "/%zz",
                                          "/a?%00",  "/a?%",  "*",      "a/b",   "/./a"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        char text[256];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", targets[i]);
        cr_assert_eq(take(text), ST_OK, "%s", text);
        cr_expect_not_null(head.target_flaw, "%s", text);
    }
}

Test(ws_head, is_bounded)
{
    char text[2048];
    int n = snprintf(text, sizeof text, "GET /%0*d", BYTES_MAX, 0);
    cr_expect_eq(take(text), ST_INVALID);
    cr_expect_eq(flaw.status, 414);
    n = snprintf(text, sizeof text, GET "X: %0*d", BYTES_MAX, 0);
    cr_expect_eq(take(text), ST_INVALID);
    cr_expect_eq(flaw.status, 431);
    n = snprintf(text, sizeof text, GET "X: %0*d\r\n\r\n",
                 (int)(BYTES_MAX - strlen(GET) - strlen("X: \r\n\r\n")), 0);
    cr_assert_eq(n, BYTES_MAX);
    cr_expect_eq(take(text), ST_OK, "it fits exactly");
}
