/* The HTTP side of the public port: static pages, refusals, and whether an upgrade may go on.
 *
 * Every answer closes the connection, and no request may have a body: libwebsockets 4.1.6 spins for ever on
 * two pipelined requests with bodies, and falls over some kinds of Upgrade (LWS.md 7 and 8). What it is not
 * asked to do it cannot do wrong. Header values are copied out by lws_hdr_copy; the pointer it hands to its
 * upgrade callback may dangle (CVE-2025-11677) and is never looked at. */
#include "gateway/ws/http.h"

#include "core/base64.h"
#include "core/logging.h"
#include "gateway/host.h"
#include "gateway/ws/feed.h"
#include "gateway/ws/files.h"
#include "gateway/ws/origin.h"

#include <assert.h>
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ANSWER_BYTES_MAX = 2048,
    VALUE_BYTES_MAX = 256,
    BODY_PIECE_BYTES = 64 * 1024,
    DRAIN_BYTES_MAX = 256 * 1024
};

static const char WS_PROTOCOL[] = "tidegate.v1.json", MQTT_PROTOCOL[] = "mqtt";

/* --- answers ------------------------------------------------------------------------------------ */

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {302, "Found"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Error";
}

static void count_answer(struct conn *c, int status)
{
    metric_add(c->door->metrics, status < 400 ? M_HTTP_2XX : status < 500 ? M_HTTP_4XX : M_HTTP_5XX, 1);
}

static bool send_head(struct conn *c, char *text, int len)
{
    return len > 0 && len < ANSWER_BYTES_MAX &&
           lws_write(c->wsi, (unsigned char *)text, (size_t)len, LWS_WRITE_HTTP_FINAL) == len;
}

/* What is the server's affair has a line in the log, as at the private port. */
static void log_failure(int status, const char *code, const char *id)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    if (status >= 500 && status != 501 && log_permitted(&limit, &held))
        log_warn("request refused status=%d code=%s request_id=%s held=%lu", status, code, id,
                 (unsigned long)held);
}

int http_problem(struct web_door *d, char *out, size_t size, int status, const char *code, const char *detail,
                 uint32_t retry_ms)
{
    char id[48];
    snprintf(id, sizeof id, "%lx-w%x-%lx", (unsigned long)d->edge->facts->incarnation, loop_index(d->loop),
             (unsigned long)d->problems++);
    log_failure(status, code, id);
    char retry[32] = "";
    if (retry_ms > 0)
        snprintf(retry, sizeof retry, ",\"retry_ms\":%u", (unsigned)retry_ms);
    int len = snprintf(out, size,
                       "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\","
                       "\"detail\":\"%s\"%s,\"request_id\":\"%s\"}\n",
                       http_reason(status), status, code, detail, retry, id);
    assert(len > 0 && (size_t)len < size);
    return len;
}

/* An answer that is a problem (RFC 9457). `headers`: further lines, each with its CRLF. False always: what
 * its callers have to say to libwebsockets. */
static bool refuse(struct conn *c, int status, const char *code, const char *detail, const char *headers)
{
    char memory[LWS_PRE + ANSWER_BYTES_MAX], body[ANSWER_BYTES_MAX / 2], *text = memory + LWS_PRE;
    int body_len = http_problem(c->door, body, sizeof body, status, code, detail, 0);
    int len = snprintf(text, ANSWER_BYTES_MAX,
                       "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
                       "Connection: close\r\nX-Content-Type-Options: nosniff\r\n%s\r\n%s",
                       status, http_reason(status), body_len, headers ? headers : "", body);
    count_answer(c, status);
    (void)send_head(c, text, len);
    return false;
}

void http_refuse_socket(int fd, int status)
{
    char text[128];
    int len = snprintf(text, sizeof text,
                       "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nRetry-After: 5\r\nConnection: close\r\n\r\n",
                       status, http_reason(status));
    (void)send(fd, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
}

/* --- headers ------------------------------------------------------------------------------------ */

/* False: absent, or too long for any value that we accept. */
static bool header(struct conn *c, enum lws_token_indexes token, char value[VALUE_BYTES_MAX])
{
    return lws_hdr_copy(c->wsi, value, VALUE_BYTES_MAX, token) > 0;
}

static bool has_header(struct conn *c, enum lws_token_indexes token)
{
    return lws_hdr_total_length(c->wsi, token) > 0;
}

static bool has_body(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    if (has_header(c, WSI_TOKEN_HTTP_TRANSFER_ENCODING))
        return true;
    if (!has_header(c, WSI_TOKEN_HTTP_CONTENT_LENGTH))
        return false;
    return !header(c, WSI_TOKEN_HTTP_CONTENT_LENGTH, value) || strcmp(value, "0") != 0;
}

static bool is_http_11(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    return header(c, WSI_TOKEN_HTTP, value) && strcmp(value, "HTTP/1.1") == 0;
}

/* Items of a comma-separated list. */
static bool next_item(const char **list, struct slice *item)
{
    const char *p = *list + strspn(*list, " \t,");
    size_t len = strcspn(p, ",");
    *list = p + len;
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    *item = slice_of(p, len);
    return len > 0;
}

static bool list_has(const char *list, const char *wanted)
{
    struct slice item;
    while (next_item(&list, &item))
        if (item.len == strlen(wanted) && strncasecmp((const char *)item.data, wanted, item.len) == 0)
            return true;
    return false;
}

/* --- pages -------------------------------------------------------------------------------------- */

/* What the client still sends would turn our FIN into a reset, and the answer might be lost. */
static void drain(struct conn *c)
{
    int fd = lws_get_socket_fd(c->wsi);
    (void)shutdown(fd, SHUT_WR);
    for (size_t got = 0; got < DRAIN_BYTES_MAX;) {
        ssize_t n = recv(fd, c->door->input, CONN_READ_BYTES, MSG_DONTWAIT);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
}

bool http_filter(struct conn *c)
{
    char *uri;
    int uri_len;
    int method = lws_http_get_uri_and_method(c->wsi, &uri, &uri_len);
    bool known = method == LWSHUMETH_GET || method == LWSHUMETH_HEAD;
    if (known && !has_body(c))
        return true;
    if (known)
        (void)refuse(c, 400, "bad_request", "no request of this port has a body", NULL);
    else
        (void)refuse(c, 405, "unsupported", "publish at the private port, or by /ws", "Allow: GET, HEAD\r\n");
    drain(c);
    return false;
}

/* The page may open WebSockets to where it came from: old browsers do not count ws: as 'self'. The Host is
 * repeated only if it is nothing but a name and a port. */
static void write_policy(struct conn *c, char *out, size_t size)
{
    char host[VALUE_BYTES_MAX];
    bool plain =
        header(c, WSI_TOKEN_HOST, host) &&
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") == strlen(host);
    snprintf(
        out, size,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'%s%s%s%s; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        plain ? " ws://" : "", plain ? host : "", plain ? " wss://" : "", plain ? host : "");
}

static bool send_file(struct conn *c, const struct file *f, bool head_only)
{
    char memory[LWS_PRE + ANSWER_BYTES_MAX], policy[ANSWER_BYTES_MAX / 2], *text = memory + LWS_PRE;
    write_policy(c, policy, sizeof policy);
    int len =
        snprintf(text, ANSWER_BYTES_MAX,
                 "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-cache\r\n"
                 "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                 "Content-Security-Policy: %s\r\nConnection: close\r\n\r\n",
                 f->type, f->bytes.len, policy);
    count_answer(c, 200);
    if (!send_head(c, text, len) || head_only || f->bytes.len == 0)
        return false;
    c->body = f->bytes;
    lws_callback_on_writable(c->wsi);
    return true;
}

bool http_writable(struct conn *c)
{
    struct web_door *d = c->door;
    if (c->body.len == 0)
        return false;
    if (lws_partial_buffered(c->wsi)) {
        lws_callback_on_writable(c->wsi);
        return true;
    }
    size_t len = c->body.len < BODY_PIECE_BYTES ? c->body.len : BODY_PIECE_BYTES;
    /* Not const-correct; in HTTP/1 it only reads. */
    unsigned char *bytes = (unsigned char *)(uintptr_t)c->body.data;
    if (lws_write(c->wsi, bytes, len, LWS_WRITE_HTTP) < 0)
        return false;
    c->body = slice_from(c->body, len);
    timer_arm(loop_timers(d->loop), &c->timer, loop_now_ms(d->loop) + d->settings->ws_hello_timeout_ms);
    if (c->body.len == 0)
        return false;
    lws_callback_on_writable(c->wsi);
    return true;
}

static bool redirect(struct conn *c)
{
    char memory[LWS_PRE + ANSWER_BYTES_MAX], *text = memory + LWS_PRE;
    int len =
        snprintf(text, ANSWER_BYTES_MAX,
                 "HTTP/1.1 302 Found\r\nLocation: /demo/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    count_answer(c, 302);
    (void)send_head(c, text, len);
    return false;
}

/* --- feeds -------------------------------------------------------------------------------------- */

static bool client_permitted(struct conn *c);

/* libwebsockets has split the query at its '&' and decoded the percent signs of each piece. */
static void read_query(struct conn *c, struct feed_request *r)
{
    char pair[FEED_TEXT_BYTES];
    for (int i = 0;; i++) {
        int len = lws_hdr_copy_fragment(c->wsi, pair, (int)sizeof pair, WSI_TOKEN_HTTP_URI_ARGS, i);
        if (len < 0)
            break;
        feed_request_add(r, slice_of(pair, (size_t)len));
    }
}

static void read_last_event(struct conn *c, struct feed_request *r)
{
    static const char name[] = "last-event-id:";
    char value[FEED_TEXT_BYTES];
    int len = lws_hdr_custom_copy(c->wsi, value, (int)sizeof value, name, (int)sizeof name - 1);
    if (len > 0)
        feed_request_last_event(r, slice_of(value, (size_t)len));
}

/* False: there is something else. */
static bool read_token(struct conn *c, struct feed_opening *o)
{
    static const char scheme[] = "Bearer ";
    char value[FEED_TOKEN_BYTES];
    if (!has_header(c, WSI_TOKEN_HTTP_AUTHORIZATION))
        return true;
    int len = lws_hdr_copy(c->wsi, value, (int)sizeof value, WSI_TOKEN_HTTP_AUTHORIZATION);
    size_t start = sizeof scheme - 1;
    if (len <= (int)start || strncasecmp(value, scheme, start) != 0)
        return false;
    o->token_len = (size_t)len - start;
    memcpy(o->token, value + start, o->token_len);
    return true;
}

/* A token says who it is, whatever Host it came by. */
static bool read_opening(struct conn *c, struct feed_opening *o)
{
    struct topic_limits limits = {(uint32_t)c->door->settings->limit_topic_bytes,
                                  (uint32_t)c->door->settings->limit_topic_levels};
    int len = lws_hdr_copy(c->wsi, o->origin, (int)sizeof o->origin, WSI_TOKEN_ORIGIN);
    o->origin_len = len > 0 ? (size_t)len : 0;
    o->nameless = c->nameless;
    if (!read_token(c, o))
        return refuse(c, 401, "unauthorized", "Authorization must be Bearer and a token",
                      "WWW-Authenticate: Bearer\r\n");
    read_query(c, &o->request);
    if (o->request.kind == FEED_SSE)
        read_last_event(c, &o->request);
    feed_request_settle(&o->request, &limits);
    return !o->request.refused || refuse(c, 400, "bad_request", o->request.refused, NULL);
}

/* True: it becomes a feed at the end of the turn, when libwebsockets is done with the request. */
static bool begin_feed(struct conn *c, enum feed_kind kind, int method)
{
    if (method != LWSHUMETH_GET)
        return refuse(c, 405, "bad_request", "this is for GET", "Allow: GET\r\n");
    if (c->door->drain_spread_ms > 0 || atomic_load(&c->door->edge->facts->stopping))
        return refuse(c, 503, "unavailable", "the node is stopping", "Retry-After: 1\r\n");
    if (!client_permitted(c))
        return false;
    c->opening_feed = calloc(1, sizeof *c->opening_feed);
    if (!c->opening_feed)
        return refuse(c, 503, "unavailable", "no memory", "Retry-After: 1\r\n");
    feed_request_init(&c->opening_feed->request, kind);
    if (!read_opening(c, c->opening_feed))
        return false;
    list_push(&c->door->fresh, &c->turn);
    return true;
}

/* --- requests ----------------------------------------------------------------------------------- */

bool http_request(struct conn *c)
{
    char *uri;
    int uri_len;
    int method = lws_http_get_uri_and_method(c->wsi, &uri, &uri_len);
    if (method < 0 || uri_len <= 0)
        return false;
    struct slice path = slice_of(uri, (size_t)uri_len), demo = slice_cstr("/demo/");
    if (slice_equal_cstr(path, "/") || slice_equal_cstr(path, "/demo"))
        return redirect(c);
    if (slice_equal_cstr(path, "/ws") || slice_equal_cstr(path, "/mqtt"))
        return refuse(c, 426, "bad_request", "this is a WebSocket", "Upgrade: websocket\r\n");
    if (slice_equal_cstr(path, "/sse") || slice_equal_cstr(path, "/poll"))
        return begin_feed(c, slice_equal_cstr(path, "/sse") ? FEED_SSE : FEED_POLL, method);
    const struct file *f =
        slice_starts_with(path, demo) ? files_find(c->door->files, slice_from(path, demo.len)) : NULL;
    if (!f)
        return refuse(c, 404, "not_found", "there is no such page", NULL);
    return send_file(c, f, method == LWSHUMETH_HEAD);
}

/* --- upgrades ----------------------------------------------------------------------------------- */

/* RFC 6455, 4.2.1: what an opening handshake must be. */
static bool handshake_valid(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    uint8_t bytes[VALUE_BYTES_MAX];
    struct buf key = {.data = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    if (!has_header(c, WSI_TOKEN_GET_URI))
        return refuse(c, 405, "bad_request", "a WebSocket is opened by GET", "Allow: GET\r\n");
    if (!is_http_11(c))
        return refuse(c, 400, "bad_request", "a WebSocket is opened by HTTP/1.1", NULL);
    if (has_body(c))
        return refuse(c, 400, "bad_request", "no request of this port has a body", NULL);
    if (!header(c, WSI_TOKEN_CONNECTION, value) || !list_has(value, "upgrade"))
        return refuse(c, 400, "bad_request", "Connection: Upgrade is missing", NULL);
    if (!header(c, WSI_TOKEN_VERSION, value) || strcmp(value, "13") != 0)
        return refuse(c, 426, "bad_request", "this server speaks version 13",
                      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (!header(c, WSI_TOKEN_KEY, value) || strlen(value) != 24 ||
        base64_decode(slice_cstr(value), &key) != ST_OK || key.len != 16)
        return refuse(c, 400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64", NULL);
    return true;
}

/* libwebsockets takes the first that it knows: is that the wanted one? */
static bool protocol_is_first(const char *list, const char *wanted)
{
    struct slice item;
    while (next_item(&list, &item))
        if (slice_equal_cstr(item, WS_PROTOCOL) || slice_equal_cstr(item, MQTT_PROTOCOL))
            return slice_equal_cstr(item, wanted);
    return false;
}

/* At /ws none is as good as ours; at /mqtt it must be there (MQTT 5.0, 6). */
static bool protocol_valid(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    if (!has_header(c, WSI_TOKEN_PROTOCOL) && !c->speaks_mqtt)
        return true;
    /* libwebsockets reads at most 127 bytes of the list. */
    if (!has_header(c, WSI_TOKEN_PROTOCOL))
        return refuse(c, 400, "bad_request", "MQTT needs the subprotocol mqtt", NULL);
    if (!header(c, WSI_TOKEN_PROTOCOL, value) || strlen(value) > 120)
        return refuse(c, 400, "bad_request", "Sec-WebSocket-Protocol is too long", NULL);
    if (protocol_is_first(value, c->speaks_mqtt ? MQTT_PROTOCOL : WS_PROTOCOL))
        return true;
    return c->speaks_mqtt ? refuse(c, 400, "unsupported", "the subprotocol of /mqtt is mqtt", NULL)
                          : refuse(c, 400, "unsupported", "the subprotocol of /ws is tidegate.v1.json", NULL);
}

static bool is_forwarded(struct conn *c)
{
    static const char forwarded[] = "forwarded:";
    return has_header(c, WSI_TOKEN_X_FORWARDED_FOR) ||
           lws_hdr_custom_length(c->wsi, forwarded, (int)sizeof forwarded - 1) >= 0;
}

/* Who may stay anonymous is told by PROTOCOL.md 2. Who may not gets the WebSocket all the same, to say a
 * token: a browser learns nothing of an upgrade that was refused. Host protects anonymous access alone: a
 * page whose name was rebound to loopback has no token, and no certificate of ours for that name. */
static bool client_permitted(struct conn *c)
{
    char host[VALUE_BYTES_MAX], origin[VALUE_BYTES_MAX];
    struct slice from = {0};
    bool loopback = host_address_is_loopback(slice_cstr(c->door->settings->http_bind));
    bool named = c->principal->user.len > 0 || auth_takes_anonymous(c->door->edge->auth, loopback);
    c->nameless = is_forwarded(c) || !named; /* a proxy's certificate is not its client's */
    if (has_header(c, WSI_TOKEN_ORIGIN))
        from = header(c, WSI_TOKEN_ORIGIN, origin) ? slice_cstr(origin) : slice_cstr("too long");
    if (!header(c, WSI_TOKEN_HOST, host))
        return refuse(c, 403, "forbidden", "Host is missing or too long", NULL);
    if (!origin_permitted(slice_cstr(host), from, c->door->settings->http_origins,
                          c->nameless || c->principal->user.len > 0))
        return refuse(c, 403, "forbidden", "Host must be loopback, and Origin ours or in http.origins", NULL);
    return true;
}

/* --- credentials of the upgrade ----------------------------------------------------------------- */

enum { CREDENTIAL_BYTES_MAX = 8192 };

static bool keep_credential(struct conn *c, struct slice text, bool is_ticket)
{
    buf_deinit(&c->credential);
    buf_init(&c->credential, CREDENTIAL_BYTES_MAX);
    c->credential_is_ticket = is_ticket;
    if (buf_put(&c->credential, text) == ST_OK)
        return true;
    return refuse(c, 400, "bad_request", "the credential is too long", NULL);
}

/* The value of a cookie (RFC 6265, 4.2.1); data NULL: there is none of that name. */
static struct slice find_cookie(const char *list, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = list + strspn(list, " ;"); *at; at += strspn(at, " ;")) {
        size_t len = strcspn(at, ";");
        if (len > name_len && strncmp(at, name, name_len) == 0 && at[name_len] == '=')
            return slice_of(at + name_len + 1, len - name_len - 1);
        at += len;
    }
    return (struct slice){0};
}

/* A browser sends cookies wherever the page comes from, so they count only beside an Origin, which
 * client_permitted has found to be ours or listed. */
static bool read_cookie(struct conn *c)
{
    char cookies[CREDENTIAL_BYTES_MAX];
    const char *name = c->door->settings->auth_cookie;
    if (!name[0] || !has_header(c, WSI_TOKEN_ORIGIN) ||
        lws_hdr_copy(c->wsi, cookies, sizeof cookies, WSI_TOKEN_HTTP_COOKIE) <= 0)
        return true;
    struct slice token = find_cookie(cookies, name);
    return token.len == 0 || keep_credential(c, token, false);
}

/* Of the query only a ticket means something. A token there would stand in logs and histories. */
static bool read_upgrade_query(struct conn *c)
{
    static const char *const tokens[] = {"token=", "access_token=", "jwt=", "auth="};
    char argument[VALUE_BYTES_MAX];
    for (int i = 0; lws_hdr_copy_fragment(c->wsi, argument, sizeof argument, WSI_TOKEN_HTTP_URI_ARGS, i) > 0;
         i++) {
        struct slice text = slice_cstr(argument), ticket = slice_cstr("ticket=");
        if (slice_starts_with(text, ticket) && c->speaks_mqtt)
            return refuse(c, 501, "unsupported", "tickets open /ws; MQTT has its CONNECT", NULL);
        if (slice_starts_with(text, ticket))
            return keep_credential(c, slice_from(text, ticket.len), true);
        for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++)
            if (slice_starts_with(text, slice_cstr(tokens[k])))
                return refuse(
                    c, 400, "bad_request",
                    "a token must not stand in a URL: say it in hello, or use a ticket (POST /v1/tickets)",
                    NULL);
    }
    return true;
}

static bool path_is(struct conn *c, const char *wanted)
{
    char *uri;
    int uri_len;
    int method = lws_http_get_uri_and_method(c->wsi, &uri, &uri_len);
    return method >= 0 && uri_len > 0 && slice_equal_cstr(slice_of(uri, (size_t)uri_len), wanted);
}

static bool upgrade_valid(struct conn *c)
{
    if (c->door->drain_spread_ms > 0 || atomic_load(&c->door->edge->facts->stopping))
        return refuse(c, 503, "unavailable", "the node is stopping", "Retry-After: 1\r\n");
    c->speaks_mqtt = path_is(c, "/mqtt");
    if (!c->speaks_mqtt && !path_is(c, "/ws"))
        return refuse(c, 404, "not_found", "WebSockets are at /ws and /mqtt", NULL);
    return handshake_valid(c) && protocol_valid(c) && client_permitted(c) &&
           (c->speaks_mqtt || read_cookie(c)) && read_upgrade_query(c);
}

bool upgrade_permitted(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    /* Without a header table libwebsockets has answered itself already: an Upgrade that it does not know. */
    if (!header(c, WSI_TOKEN_UPGRADE, value))
        return false;
    if (strcasecmp(value, "websocket") != 0)
        return refuse(c, 400, "unsupported", "no upgrade but to websocket", NULL);
    if (upgrade_valid(c))
        return true;
    metric_add(c->door->metrics, M_CONNECTS_REFUSED_WS, 1);
    drain(c);
    return false;
}
