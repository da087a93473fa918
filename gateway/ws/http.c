/* The HTTP side of the public port: static pages, refusals, feeds, and whether an upgrade may go on. No
 * request of it means anything by its body. A refused upgrade ends the connection, since what follows it may
 * be frames; so does whatever front.c cannot read behind. All else may be followed by the next request. */
#include "gateway/ws/http.h"

#include "core/base64.h"
#include "core/logging.h"
#include "gateway/host.h"
#include "gateway/ws/credential.h"
#include "gateway/ws/feed.h"
#include "gateway/ws/files.h"
#include "gateway/ws/front.h"
#include "gateway/ws/origin.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 2048, VALUE_BYTES_MAX = 256, BUSY_RETRY_MS = 5000 };

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
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Error";
}

static void count_answer(struct web_door *d, int status)
{
    metric_add(d->metrics, status < 400 ? M_HTTP_2XX : status < 500 ? M_HTTP_4XX : M_HTTP_5XX, 1);
}

/* What is the server's affair has a line in the log, as at the private port. */
static void log_failure(int status, const char *code, const char *id)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    if (status >= 500 && status != 501 && status != 505 && log_permitted(&limit, &held))
        log_warn("request refused status=%d code=%s request_id=%s held=%lu", status, code, id,
                 (unsigned long)held);
}

static void make_id(struct web_door *d, char id[REQUEST_ID_BYTES])
{
    snprintf(id, REQUEST_ID_BYTES, "%lx-w%x-%lx", (unsigned long)d->edge->facts->incarnation,
             loop_index(d->loop), (unsigned long)d->problems++);
}

int http_problem(struct web_door *d, char *out, size_t size, int status, const char *code, const char *detail,
                 uint32_t retry_ms, const char *id)
{
    char made[REQUEST_ID_BYTES], retry[32] = "";
    if (!id[0]) {
        make_id(d, made);
        id = made;
    }
    log_failure(status, code, id);
    if (retry_ms > 0)
        snprintf(retry, sizeof retry, ",\"retry_ms\":%u", (unsigned)retry_ms);
    int len = snprintf(out, size,
                       "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\","
                       "\"detail\":\"%s\"%s,\"request_id\":\"%s\"}\n",
                       http_reason(status), status, code, detail, retry, id);
    assert(len > 0 && (size_t)len < size);
    return len;
}

/* What all answers have but for their length. Returns the length of what it writes. */
static int write_head(struct conn *c, char *text, size_t size, int status, const char *fields)
{
    struct front *f = c->front;
    const char *stays = f->request && f->request->version_10 ? "Connection: keep-alive\r\n" : "";
    int len = snprintf(text, size, "HTTP/1.1 %d %s\r\nX-Request-Id: %s\r\n%s%s", status, http_reason(status),
                       f->request_id, f->last ? "Connection: close\r\n" : stays, fields);
    assert(len > 0 && (size_t)len < size);
    count_answer(c->door, status);
    return len;
}

/* A HEAD gets what a GET gets, without the body. */
static bool is_head(const struct conn *c)
{
    return c->front->request && slice_equal_cstr(c->front->request->method, "HEAD");
}

/* An answer that is a problem (RFC 9457). `headers`: further lines, each with its CRLF. False always: what
 * its callers have to say. */
static bool refuse(struct conn *c, int status, const char *code, const char *detail, const char *headers)
{
    char text[ANSWER_BYTES_MAX], body[ANSWER_BYTES_MAX / 2];
    int body_len = http_problem(c->door, body, sizeof body, status, code, detail, 0, c->front->request_id);
    int len = write_head(c, text, sizeof text, status, headers ? headers : "");
    len += snprintf(text + len, sizeof text - (size_t)len,
                    "Content-Type: application/problem+json\r\nContent-Length: %d\r\n"
                    "X-Content-Type-Options: nosniff\r\n\r\n%s",
                    body_len, is_head(c) ? "" : body);
    assert((size_t)len < sizeof text);
    front_answer(c->front, slice_of(text, (size_t)len), (struct slice){0});
    return false;
}

bool http_answer_problem(struct conn *c, int status, const char *code, const char *detail,
                         const char *headers)
{
    return refuse(c, status, code, detail, headers);
}

void http_refuse(struct conn *c, const struct web_flaw *flaw)
{
    make_id(c->door, c->front->request_id);
    metric_add(c->door->metrics,
               flaw->status == 431 || flaw->status == 414 ? M_HTTP_HEADS_LARGE : M_HTTP_HEADS_BAD, 1);
    (void)refuse(c, flaw->status, flaw->code, flaw->detail, NULL);
}

void http_refuse_stream(struct web_door *d, struct stream *io, int status)
{
    char text[ANSWER_BYTES_MAX / 2], body[ANSWER_BYTES_MAX / 4];
    bool busy = status == 429;
    int body_len = http_problem(d, body, sizeof body, status, busy ? "rate_limited" : "unavailable",
                                busy ? "too many connections of this address, or too fast"
                                     : "the node has as many connections as it takes",
                                BUSY_RETRY_MS, "");
    int len = snprintf(text, sizeof text,
                       "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
                       "Retry-After: %d\r\nConnection: close\r\n\r\n%s",
                       status, http_reason(status), body_len, BUSY_RETRY_MS / 1000, body);
    struct iovec piece = {text, (size_t)len};
    size_t sent;
    assert((size_t)len < sizeof text);
    count_answer(d, status);
    /* A fresh socket takes it, or it is not worth more. What the peer has sent is read, or closing would
     * reset the connection. */
    enum status st = stream_write(io, &piece, 1, &sent);
    if (st == ST_OK) {
        stream_shut(io);
        st = stream_read(io, d->input, CONN_READ_BYTES, &sent);
    }
    (void)st;
    stream_close(io);
}

/* --- headers ------------------------------------------------------------------------------------ */

/* False: absent, or too long for any value that we accept. */
static bool header(struct conn *c, enum web_field field, char value[VALUE_BYTES_MAX])
{
    return web_head_copy(c->front->request, field, value, VALUE_BYTES_MAX);
}

static bool has_header(struct conn *c, enum web_field field)
{
    return web_head_has(c->front->request, field);
}

static bool has_body(struct conn *c)
{
    return c->front->request->body_bytes > 0 || c->front->request->chunked;
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

/* Whose pages may show ours in a frame: those in http.origins that are nothing but an origin. */
static void write_ancestors(const char *origins, char *out, size_t size)
{
    size_t len = 0;
    for (const char *at = origins; *at;) {
        size_t n = strcspn(at, "\n");
        bool plain = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]/") == n;
        if (plain && n > 0 && len + n + 2 <= size)
            len += (size_t)snprintf(out + len, size - len, " %.*s", (int)n, at);
        at += n + (at[n] == '\n');
    }
    if (len == 0)
        snprintf(out, size, " 'none'");
}

/* The page may open WebSockets to where it came from: old browsers do not count ws: as 'self'. The Host is
 * repeated only if it is nothing but a name and a port. */
static void write_policy(struct conn *c, char *out, size_t size)
{
    char host[VALUE_BYTES_MAX] = "", ancestors[VALUE_BYTES_MAX];
    struct slice from = c->front->request->host;
    if (from.len > 0 && from.len < sizeof host)
        memcpy(host, from.data, from.len);
    bool plain =
        host[0] &&
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") == from.len;
    write_ancestors(c->door->settings->http_origins, ancestors, sizeof ancestors);
    snprintf(
        out, size,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'%s%s%s%s; base-uri 'none'; form-action 'none'; frame-ancestors%s",
        plain ? " ws://" : "", plain ? host : "", plain ? " wss://" : "", plain ? host : "", ancestors);
}

static void send_file(struct conn *c, const struct file *f)
{
    char text[ANSWER_BYTES_MAX], policy[ANSWER_BYTES_MAX / 2];
    write_policy(c, policy, sizeof policy);
    int len = write_head(c, text, sizeof text, 200, "");
    len += snprintf(text + len, sizeof text - (size_t)len,
                    "Content-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-cache\r\n"
                    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                    "Content-Security-Policy: %s\r\n\r\n",
                    f->type, f->bytes.len, policy);
    assert((size_t)len < sizeof text);
    front_answer(c->front, slice_of(text, (size_t)len), is_head(c) ? (struct slice){0} : f->bytes);
}

static void redirect(struct conn *c)
{
    char text[ANSWER_BYTES_MAX];
    int len = write_head(c, text, sizeof text, 302, "Location: /demo/\r\nContent-Length: 0\r\n\r\n");
    front_answer(c->front, slice_of(text, (size_t)len), (struct slice){0});
}

/* --- feeds -------------------------------------------------------------------------------------- */

static bool client_permitted(struct conn *c);

/* False: answered. */
static bool read_query(struct conn *c, struct feed_request *r)
{
    char pair[FEED_TEXT_BYTES];
    size_t place = 0;
    for (long len; (len = web_head_parameter(c->front->request, &place, pair, sizeof pair)) >= 0;) {
        enum credential_argument what = credential_take_argument(c, slice_of(pair, (size_t)len));
        if (what == ARGUMENT_REFUSED)
            return false;
        if (what == ARGUMENT_OTHER)
            feed_request_add(r, slice_of(pair, (size_t)len));
    }
    return true;
}

static void read_last_event(struct conn *c, struct feed_request *r)
{
    char value[FEED_TEXT_BYTES];
    if (web_head_copy(c->front->request, WEB_LAST_EVENT_ID, value, sizeof value))
        feed_request_last_event(r, slice_cstr(value));
}

/* A credential says who it is, whatever Host it came by. */
static bool read_opening(struct conn *c, struct feed_opening *o)
{
    struct topic_limits limits = {(uint32_t)c->door->settings->limit_topic_bytes,
                                  (uint32_t)c->door->settings->limit_topic_levels};
    if (web_head_copy(c->front->request, WEB_ORIGIN, o->origin, sizeof o->origin))
        o->origin_len = strlen(o->origin);
    memcpy(o->request_id, c->front->request_id, sizeof o->request_id);
    o->nameless = c->nameless;
    if (!credential_read_authorization(c) || !read_query(c, &o->request) || !credential_read_cookie(c))
        return false;
    if (o->request.kind == FEED_SSE)
        read_last_event(c, &o->request);
    feed_request_settle(&o->request, &limits);
    return !o->request.refused || refuse(c, 400, "bad_request", o->request.refused, NULL);
}

/* It becomes a feed at the end of the turn. */
static void begin_feed(struct conn *c, enum feed_kind kind)
{
    if (!client_permitted(c))
        return;
    c->opening_feed = calloc(1, sizeof *c->opening_feed);
    if (!c->opening_feed) {
        (void)refuse(c, 503, "unavailable", "no memory", "Retry-After: 1\r\n");
        return;
    }
    feed_request_init(&c->opening_feed->request, kind);
    if (read_opening(c, c->opening_feed)) {
        c->front->state = FRONT_OPENS;
        list_push(&c->door->fresh, &c->turn);
        return;
    }
    free(c->opening_feed);
    c->opening_feed = NULL;
}

/* --- requests ----------------------------------------------------------------------------------- */

/* What everything but an upgrade must be. */
static bool request_valid(struct conn *c)
{
    const struct web_head *h = c->front->request;
    char expects[VALUE_BYTES_MAX];
    bool get = slice_equal_cstr(h->method, "GET");
    if (!get && !is_head(c))
        return refuse(c, 405, "unsupported", "publish at the private port, or by /ws",
                      "Allow: GET, HEAD\r\n");
    if (h->target_flaw)
        return refuse(c, 400, "bad_request", h->target_flaw, NULL);
    if (web_head_has(h, WEB_EXPECT) &&
        (!header(c, WEB_EXPECT, expects) || strcasecmp(expects, "100-continue") != 0))
        return refuse(c, 417, "bad_request", "Expect can only be 100-continue", NULL);
    if (has_body(c))
        return refuse(c, 400, "bad_request", "no request of this port has a body", NULL);
    return true;
}

static void serve_get(struct conn *c)
{
    struct slice path = c->front->request->path, demo = slice_cstr("/demo/");
    bool sse = slice_equal_cstr(path, "/sse");
    const struct file *f =
        slice_starts_with(path, demo) ? files_find(c->door->files, slice_from(path, demo.len)) : NULL;
    if (slice_equal_cstr(path, "/") || slice_equal_cstr(path, "/demo"))
        redirect(c);
    else if (slice_equal_cstr(path, "/ws") || slice_equal_cstr(path, "/mqtt"))
        (void)refuse(c, 426, "bad_request", "this is a WebSocket", "Upgrade: websocket\r\n");
    else if ((sse || slice_equal_cstr(path, "/poll")) && is_head(c))
        (void)refuse(c, 405, "bad_request", "this is for GET", "Allow: GET\r\n");
    else if (sse || slice_equal_cstr(path, "/poll"))
        begin_feed(c, sse ? FEED_SSE : FEED_POLL);
    else if (f)
        send_file(c, f);
    else
        (void)refuse(c, 404, "not_found", "there is no such page", NULL);
}

static void serve_upgrade(struct conn *c);

/* Nothing of the request before it counts. */
static void begin_request(struct conn *c)
{
    struct front *f = c->front;
    c->nameless = c->speaks_mqtt = false;
    credential_drop(c);
    if (!web_head_copy(f->request, WEB_REQUEST_ID, f->request_id, sizeof f->request_id) ||
        !request_id_valid(slice_cstr(f->request_id)))
        make_id(c->door, f->request_id);
}

/* A client of a drain is answered, not left waiting in the listener's queue: it can go elsewhere. */
static bool refuse_leaving(struct conn *c)
{
    char field[32];
    snprintf(field, sizeof field, "Retry-After: %u\r\n",
             (web_door_retry_ms(c->door, c->door->problems) + 999) / 1000);
    return refuse(c, 503, "unavailable", "the node is stopping", field);
}

void http_serve(struct conn *c)
{
    begin_request(c);
    if (web_door_leaves(c->door))
        (void)refuse_leaving(c);
    else if (has_header(c, WEB_UPGRADE))
        serve_upgrade(c);
    else if (request_valid(c))
        serve_get(c);
}

/* --- upgrades ----------------------------------------------------------------------------------- */

/* RFC 6455, 4.2.1: what an opening handshake must be. */
static bool handshake_valid(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    uint8_t bytes[VALUE_BYTES_MAX];
    struct buf key = {.data = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    if (!slice_equal_cstr(c->front->request->method, "GET"))
        return refuse(c, 405, "bad_request", "a WebSocket is opened by GET", "Allow: GET\r\n");
    if (c->front->request->version_10)
        return refuse(c, 400, "bad_request", "a WebSocket is opened by HTTP/1.1", NULL);
    if (has_body(c))
        return refuse(c, 400, "bad_request", "no request of this port has a body", NULL);
    if (!header(c, WEB_CONNECTION, value) || !list_has(value, "upgrade"))
        return refuse(c, 400, "bad_request", "Connection: Upgrade is missing", NULL);
    if (!header(c, WEB_SOCKET_VERSION, value) || strcmp(value, "13") != 0)
        return refuse(c, 426, "bad_request", "this server speaks version 13",
                      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (!header(c, WEB_SOCKET_KEY, value) || strlen(value) != 24 ||
        base64_decode(slice_cstr(value), &key) != ST_OK || key.len != 16)
        return refuse(c, 400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64", NULL);
    return true;
}

/* The first that we know: is that the wanted one? */
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
    if (!has_header(c, WEB_SOCKET_PROTOCOL) && !c->speaks_mqtt)
        return true;
    if (!has_header(c, WEB_SOCKET_PROTOCOL))
        return refuse(c, 400, "bad_request", "MQTT needs the subprotocol mqtt", NULL);
    if (!header(c, WEB_SOCKET_PROTOCOL, value))
        return refuse(c, 400, "bad_request", "Sec-WebSocket-Protocol is too long", NULL);
    if (protocol_is_first(value, c->speaks_mqtt ? MQTT_PROTOCOL : WS_PROTOCOL))
        return true;
    return c->speaks_mqtt ? refuse(c, 400, "unsupported", "the subprotocol of /mqtt is mqtt", NULL)
                          : refuse(c, 400, "unsupported", "the subprotocol of /ws is tidegate.v1.json", NULL);
}

static bool is_forwarded(struct conn *c)
{
    return has_header(c, WEB_X_FORWARDED_FOR) || has_header(c, WEB_FORWARDED);
}

/* Who may stay anonymous is told by PROTOCOL.md 2. Who may not gets the WebSocket all the same, to say a
 * token: a browser learns nothing of an upgrade that was refused. Host protects anonymous access alone: a
 * page whose name was rebound to loopback has no token, and no certificate of ours for that name. */
static bool client_permitted(struct conn *c)
{
    char origin[VALUE_BYTES_MAX];
    struct slice from = {0}, host = c->front->request->host;
    bool loopback = host_address_is_loopback(slice_cstr(c->door->settings->http_bind));
    bool named = c->principal->user.len > 0 || auth_takes_anonymous(c->door->edge->auth, loopback);
    c->nameless = is_forwarded(c) || !named; /* a proxy's certificate is not its client's */
    if (has_header(c, WEB_ORIGIN))
        from = header(c, WEB_ORIGIN, origin) ? slice_cstr(origin) : slice_cstr("too long");
    if (host.len == 0 || host.len >= VALUE_BYTES_MAX)
        return refuse(c, 403, "forbidden", "Host is missing or too long", NULL);
    if (!origin_permitted(host, from, c->door->settings->http_origins,
                          c->nameless || c->principal->user.len > 0))
        return refuse(c, 403, "forbidden", "Host must be loopback, and Origin ours or in http.origins", NULL);
    return true;
}

/* Of the query only a ticket means something. */
static bool read_upgrade_query(struct conn *c)
{
    char pair[FEED_TEXT_BYTES], detail[UNKNOWN_TEXT_BYTES];
    size_t place = 0;
    for (long len; (len = web_head_parameter(c->front->request, &place, pair, sizeof pair)) >= 0;) {
        struct slice text = slice_of(pair, (size_t)len);
        enum credential_argument what = len == 0 ? ARGUMENT_TAKEN : credential_take_argument(c, text);
        if (what == ARGUMENT_REFUSED)
            return false;
        if (what == ARGUMENT_OTHER) {
            unknown_parameter_text(text, "; there is ticket", detail);
            return refuse(c, 400, "bad_request", detail, NULL);
        }
    }
    return true;
}

static bool upgrade_valid(struct conn *c)
{
    const struct web_head *h = c->front->request;
    if (h->target_flaw)
        return refuse(c, 400, "bad_request", h->target_flaw, NULL);
    c->speaks_mqtt = slice_equal_cstr(h->path, "/mqtt");
    if (!c->speaks_mqtt && !slice_equal_cstr(h->path, "/ws"))
        return refuse(c, 404, "not_found", "WebSockets are at /ws and /mqtt", NULL);
    return handshake_valid(c) && protocol_valid(c) && client_permitted(c) &&
           credential_read_authorization(c) && read_upgrade_query(c) &&
           (c->speaks_mqtt || credential_read_cookie(c));
}

static void serve_upgrade(struct conn *c)
{
    char value[VALUE_BYTES_MAX];
    struct front *f = c->front;
    bool stays = f->last;
    f->last = true; /* what follows a refused one may be frames */
    if (!header(c, WEB_UPGRADE, value) || strcasecmp(value, "websocket") != 0) {
        (void)refuse(c, 400, "unsupported", "no upgrade but to websocket", NULL);
    } else if (upgrade_valid(c) && header(c, WEB_SOCKET_KEY, value)) {
        const char *protocol = c->speaks_mqtt ? MQTT_PROTOCOL : WS_PROTOCOL;
        f->last = stays;
        front_upgrade(f, value, has_header(c, WEB_SOCKET_PROTOCOL) ? protocol : NULL);
    } else {
        metric_add(c->door->metrics, M_CONNECTS_REFUSED_WS, 1);
    }
}
