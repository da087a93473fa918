/* The private API on libmicrohttpd (ADR 1), which has no thread of its own: its epoll descriptor is watched
 * by our loop, and MHD_run does what has come.
 *
 *   a turn:  descriptors   accept -> MHD_add_connection; MHD_run -> head, body, end of requests
 *            letters       what was published is durable, a read is back: requests become answered
 *            turn hook     resume all answered requests, then one MHD_run sends their answers
 *
 * What the library asks of us:
 *   - an answer may be queued at the first call of the handler for a request (its head) or at the last (its
 *     body is complete), never in between;
 *   - a request that waits is suspended; its connection stays valid until it has been resumed, even when the
 *     peer is long gone; MHD_stop_daemon aborts the process when one is still suspended;
 *   - a request ends in NOTIFY_COMPLETED only, once for each call of the URI callback.
 * The library's own time-outs count silence and are not used: every phase of a connection (head, body,
 * waiting, answer, idle) has a deadline of api.timeout_ms on the loop's wheel. Past it the socket is shut
 * down, and the library finds it closed. */
#include "core/logging.h"
#include "gateway/acceptor.h"
#include "gateway/gate.h"
#include "gateway/host.h"
#include "gateway/http/request.h"

#include <assert.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    POOL_BYTES_MIN = 16 * 1024,
    PARAMETERS_MAX = 64, /* of a query: fit into the pool whatever else is in it */
    LIBRARY_EXTRA_S = 2, /* the library's time-out beyond ours */
};

struct api_door {
    struct api api;
    struct MHD_Daemon *daemon;
    struct acceptor *acceptor;
    struct loop_watch watch;
    struct loop_hook hook;
    struct list conns;
    uint64_t head_bytes_max; /* ADR 1, rule 2: half of a connection's pool, which holds the head, a piece of
                              * the body and the head of the answer. As it was at the start */
    struct timer timeout; /* of the library */
    bool more; /* the library wants to run again without an event */
    bool stopping, closing; /* SIGTERM has come; the loop has ended */
};

struct api_conn {
    struct list link;
    struct api_door *door;
    struct MHD_Connection *connection;
    struct request *request; /* NULL: none has begun */
    const char *target; /* of that request, where the library has it */
    struct timer deadline;
    int fd;
};

static void door_run(struct api_door *d)
{
    struct loop *loop = d->api.edge->loop;
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    (void)MHD_run(d->daemon);
    bool any = MHD_get_timeout(d->daemon, &timeout_ms) == MHD_YES;
    d->more = any && timeout_ms == 0;
    if (any && timeout_ms > 0)
        timer_arm(loop_timers(loop), &d->timeout, loop_now_ms(loop) + timeout_ms);
    else
        timer_cancel(loop_timers(loop), &d->timeout);
}

static void door_on_timeout(struct timer *t)
{
    LIST_OF(t, struct api_door, timeout)->more = true; /* runs in this turn's hook */
}

/* --- connections -------------------------------------------------------------------------------- */

/* The library finds it closed at its next run. */
static void conn_shut(struct api_conn *c)
{
    (void)shutdown(c->fd, SHUT_RDWR);
}

static void conn_arm(struct api_conn *c)
{
    struct loop *loop = c->door->api.edge->loop;
    timer_arm(loop_timers(loop), &c->deadline,
              loop_now_ms(loop) + c->door->api.edge->settings->http_timeout_ms);
}

static void conn_on_deadline(struct timer *t)
{
    struct api_conn *c = LIST_OF(t, struct api_conn, deadline);
    if (c->request && c->request->state == REQUEST_WAITING) {
        request_give_up(c->request); /* its answer leaves in this turn's hook */
        conn_arm(c);
        return;
    }
    metric_add(c->door->api.edge->metrics, metric_disconnect(M_DISCONNECT_TIMEOUT, M_DISCONNECT_HTTP), 1);
    conn_shut(c);
}

static struct api_conn *conn_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info->socket_context;
}

static void conn_begin(struct api_door *d, struct MHD_Connection *connection, void **context)
{
    int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct api_conn *c = calloc(1, sizeof *c);
    if (!c) {
        (void)shutdown(fd, SHUT_RDWR);
        return;
    }
    c->door = d;
    c->connection = connection;
    c->fd = fd;
    list_init(&c->link);
    timer_init(&c->deadline, conn_on_deadline);
    list_push(&d->conns, &c->link);
    conn_arm(c);
    *context = c;
    atomic_fetch_add(&d->api.edge->facts->api_connections, 1);
    metric_add(d->api.edge->metrics, M_CONNECTIONS_HTTP, 1);
}

static void conn_end(struct api_conn *c)
{
    struct edge *e = c->door->api.edge;
    request_free(c->request);
    timer_cancel(loop_timers(e->loop), &c->deadline);
    list_unlink(&c->link);
    atomic_fetch_sub(&e->facts->api_connections, 1);
    metric_sub(e->metrics, M_CONNECTIONS_HTTP, 1);
    free(c);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_begin(cls, connection, context);
    } else if (*context) {
        conn_end(*context);
        *context = NULL;
    }
}

/* Not counted with the clients' connections: whoever watches or drains a node that is full must get in. */
static void door_on_socket(void *ctx, int fd)
{
    struct api_door *d = ctx;
    struct edge *e = d->api.edge;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (atomic_load(&e->facts->api_connections) >= e->facts->api_connections_max) {
        metric_add(e->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
        close(fd);
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0) { /* it has gone again */
        close(fd);
        return;
    }
    (void)MHD_add_connection(d->daemon, fd, (struct sockaddr *)&peer, len); /* closes fd if it fails */
}

/* --- answers ------------------------------------------------------------------------------------ */

static bool add_field(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* draft-ietf-httpapi-ratelimit-headers: what is allowed, and what is left of it. */
static bool add_rate(struct MHD_Response *response, const struct request *r)
{
    char text[64];
    struct gate_policy policy = gate_publish_policy(r->api->edge, r->principal->user);
    snprintf(text, sizeof text, "\"publish\";q=%lu;w=%lu", (unsigned long)policy.quota,
             (unsigned long)policy.window_s);
    bool ok = add_field(response, "RateLimit-Policy", text);
    snprintf(text, sizeof text, "\"publish\";r=0;t=%u", (unsigned)((r->answer.retry_ms + 999) / 1000));
    return ok && add_field(response, "RateLimit", text);
}

static bool add_fields(struct MHD_Response *response, const struct request *r, bool last)
{
    const struct answer *a = &r->answer;
    bool ok = add_field(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->type) &&
              add_field(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") &&
              add_field(response, "X-Request-Id", r->id);
    if (a->allow)
        ok = ok && add_field(response, MHD_HTTP_HEADER_ALLOW, a->allow);
    if (a->status == 401)
        ok = ok && add_field(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (a->retry_ms > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", (unsigned)((a->retry_ms + 999) / 1000));
        ok = ok && add_field(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
    if (a->status == 429)
        ok = ok && add_rate(response, r);
    if (last)
        ok = ok && add_field(response, MHD_HTTP_HEADER_CONNECTION, "close");
    return ok;
}

/* Out of memory closes the connection. */
static enum MHD_Result send_answer(struct api_conn *c, struct request *r)
{
    struct answer *a = &r->answer;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(a->body.len, a->body.data, MHD_RESPMEM_MUST_FREE);
    assert(r->state == REQUEST_ANSWERED);
    if (!response)
        return MHD_NO;
    a->body = (struct buf){0};
    enum MHD_Result result = MHD_NO;
    if (add_fields(response, r, c->door->stopping || a->last))
        result = MHD_queue_response(c->connection, a->status, response);
    MHD_destroy_response(response);
    conn_arm(c);
    return result;
}

/* --- requests ----------------------------------------------------------------------------------- */

/* The library cuts a text at a NUL that was sent, reads a folded line in a way of its own (it then lies
 * elsewhere), and takes a line that begins with a colon for the end of the head (ADR 1). All of these leave
 * bytes of the head that are in no text it hands out. The head lies in one piece, the separators between its
 * texts become NULs: so its texts are walked in order, and between them there may be only separators.
 *
 *   POST 0 /v1/publish/a 0 HTTP/1.1 00 Host 0 SP localhost 00 Content-Length 0 SP 5 00 00
 */
struct head_walk {
    struct head *head;
    const char *at, *end;
    bool unread;
};

static void walk_over(struct head_walk *w, const char *text, size_t len)
{
    bool inside = text >= w->at && text <= w->end && len <= (size_t)(w->end - text);
    for (const char *p = w->at; inside && p < text; p++)
        inside = *p == '\0' || *p == ' ' || *p == '\t' || *p == '\r' || *p == '\n';
    if (inside)
        w->at = text + len;
    else
        w->unread = true;
}

static enum MHD_Result on_field(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                const char *value, size_t value_len)
{
    struct head_walk *w = cls;
    (void)kind;
    head_add(w->head, slice_of(name, name_len), slice_of(value, value_len));
    walk_over(w, name, name_len);
    walk_over(w, value, value_len);
    w->unread |= memchr(value, '\r', value_len) != NULL; /* RFC 9112, 2.2: others end the line there */
    return MHD_YES;
}

static void take_head(struct api_conn *c, struct request *r, const char *method, const char *version)
{
    enum { END_BYTES_MAX = 4 }; /* of the last line, and the empty one */
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct head_walk w = {.head = &r->head, .at = method, .end = method + info->header_size};
    walk_over(&w, method, strlen(method));
    walk_over(&w, c->target, r->raw_len);
    w.unread |= version != w.at + 1; /* one space */
    walk_over(&w, version, strlen(version));
    (void)MHD_get_connection_values_n(c->connection, MHD_HEADER_KIND, on_field, &w);
    const char *last = w.at;
    walk_over(&w, w.end, 0);
    const struct request_line line = {
        .method = method,
        .version = version,
        .head_bytes = info->header_size,
        .head_bytes_max = (size_t)c->door->head_bytes_max,
        .unread = w.unread || w.end - last > END_BYTES_MAX,
    };
    metric_add(r->api->edge->metrics, M_BYTES_IN_HTTP, info->header_size);
    request_head(r, &line);
    conn_arm(c);
}

/* The library's handler: called with the head, with pieces of the body, and without any at the end of it;
 * again without any after a request was resumed. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **context)
{
    struct api_door *d = cls;
    struct request *r = *context;
    struct api_conn *c = conn_of(connection);
    (void)url; /* decoded by the library's rules; ours need it raw */
    if (!r || !c || (d->closing && r->state != REQUEST_ANSWERED))
        return MHD_NO;
    if (r->state == REQUEST_NEW) {
        take_head(c, r, method, version);
        return r->state == REQUEST_ANSWERED ? send_answer(c, r) : MHD_YES;
    }
    if (*upload_len > 0) {
        request_body(r, slice_of(upload, *upload_len));
        *upload_len = 0;
        return MHD_YES;
    }
    if (r->state != REQUEST_ANSWERED)
        request_end(r);
    if (r->state == REQUEST_ANSWERED)
        return send_answer(c, r);
    conn_arm(c);
    MHD_suspend_connection(connection);
    return MHD_YES;
}

/* The library parses queries too, into the pool, and loses a connection whose pool is full. */
static bool query_fits(const struct api_door *d, struct slice target)
{
    const uint8_t *mark = target.len > 0 ? memchr(target.data, '?', target.len) : NULL;
    unsigned parameters = 0;
    for (const uint8_t *at = mark; at && at < target.data + target.len; at++)
        parameters += *at == '&' || *at == '?';
    return parameters <= PARAMETERS_MAX && (!mark || target.len <= d->head_bytes_max);
}

/* Past the library, which would lose the connection without an answer: nothing of it is being sent, since it
 * reads a request only when the answer before it is out. */
static void refuse_query(struct api_conn *c)
{
    struct buf text, body;
    const struct problem p = {.status = 431,
                              .code = "too_large",
                              .detail = "the query has more than 64 parameters, or is larger than "
                                        "limit.http_head_bytes",
                              .request_id = c->request ? c->request->id : NULL};
    buf_init(&text, PROBLEM_BYTES_MAX);
    buf_init(&body, PROBLEM_BYTES_MAX);
    if (problem_put(&body, &p) == ST_OK &&
        buf_printf(&text,
                   "HTTP/1.1 431 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n"
                   "%.*s",
                   problem_title(431), problem_media_type, body.len, SLICE_ARG(buf_slice(&body))) == ST_OK)
        (void)send(c->fd, text.data, text.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    metric_add(c->door->api.edge->metrics, M_HTTP_4XX, 1);
    metric_add(c->door->api.edge->metrics, M_HTTP_HEADS_LARGE, 1);
    buf_deinit(&text);
    buf_deinit(&body);
    conn_shut(c);
}

/* Before anything else of a request; what it returns becomes the handler's context. */
static void *on_target(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct api_door *d = cls;
    struct api_conn *c = conn_of(connection);
    if (!c)
        return NULL;
    request_free(c->request);
    c->request = request_create(&d->api, slice_cstr(uri));
    c->target = uri;
    if (!query_fits(d, slice_cstr(uri)))
        refuse_query(c);
    if (c->request)
        c->request->owner = c;
    return c->request;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct api_door *d = cls;
    struct api_conn *c = conn_of(connection);
    (void)code;
    *context = NULL;
    if (!c)
        return;
    request_free(c->request);
    c->request = NULL;
    if (d->stopping)
        conn_shut(c);
    else
        conn_arm(c);
}

/* --- loop --------------------------------------------------------------------------------------- */

static void door_on_event(struct loop_watch *w, uint32_t events)
{
    (void)events;
    door_run(LIST_OF(w, struct api_door, watch));
}

static bool resume_answered(struct api_door *d)
{
    bool any = !list_empty(&d->api.answered);
    while (!list_empty(&d->api.answered)) {
        struct request *r = LIST_OF(d->api.answered.next, struct request, link);
        struct api_conn *c = r->owner;
        list_unlink(&r->link);
        MHD_resume_connection(c->connection);
    }
    return any;
}

/* True: come again. A request that a connection had pipelined behind the one that is answered here may have
 * been published in this hook, after the shards have closed their batch. */
static bool door_turn_end(struct loop_hook *hook)
{
    struct api_door *d = LIST_OF(hook, struct api_door, hook);
    bool worked = api_work(&d->api);
    if (!resume_answered(d) && !d->more)
        return worked;
    door_run(d);
    return true;
}

/* --- life --------------------------------------------------------------------------------------- */

static void api_set_access(struct api *api)
{
    const struct edge *edge = api->edge;
    const struct settings *s = edge->settings;
    api->access = (struct access_rules){
        .key = s->api_key,
        .hosts = s->api_hosts,
        .origins = s->http_origins,
        .ports = {edge->facts->api_port, edge->facts->http_port},
        .loopback_only = auth_takes_anonymous(edge->auth, host_address_is_loopback(slice_cstr(s->api_bind))),
    };
}

static void api_init(struct api *api, struct edge *edge)
{
    const struct settings *s = edge->settings;
    api->edge = edge;
    api_set_access(api);
    api->probes_open = host_address_is_loopback(slice_cstr(s->api_bind));
    api->topic = (struct topic_limits){(uint32_t)s->limit_topic_bytes, (uint32_t)s->limit_topic_levels};
    api->kept_bytes_max = KEPT_BYTES_MIN + 4 * s->limit_message_bytes + 4 * s->limit_batch_bytes;
    list_init(&api->answered);
    list_init(&api->working);
    list_init(&api->orphans);
}

static struct MHD_Daemon *start_daemon(struct api_door *d)
{
    const struct settings *s = d->api.edge->settings;
    size_t pool = (size_t)d->head_bytes_max * 2;
    unsigned timeout_s = (unsigned)(s->http_timeout_ms / 1000) + LIBRARY_EXTRA_S;
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, on_request, d,
        MHD_OPTION_URI_LOG_CALLBACK, on_target, d, MHD_OPTION_NOTIFY_COMPLETED, on_completed, d,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, d, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        pool < POOL_BYTES_MIN ? (size_t)POOL_BYTES_MIN : pool, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)d->api.edge->facts->api_connections_max, MHD_OPTION_CONNECTION_TIMEOUT, timeout_s,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

enum status api_door_create(struct edge *edge, int listen_fd, struct api_door **out, struct buf *error)
{
    struct api_door *d = calloc(1, sizeof *d);
    enum status st = ST_NO_MEMORY;
    if (!d)
        goto fail_fd;
    api_init(&d->api, edge);
    d->head_bytes_max = edge->settings->limit_http_head_bytes;
    list_init(&d->conns);
    list_init(&d->hook.link);
    timer_init(&d->timeout, door_on_timeout);
    d->daemon = start_daemon(d);
    if (!d->daemon) {
        st = buf_printf(error,
                        "the HTTP library (libmicrohttpd) does not start: out of descriptors or memory");
        st = ST_IO;
        goto fail_door;
    }
    d->watch.fd = MHD_get_daemon_info(d->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    d->watch.on_event = door_on_event;
    st = loop_watch_add(edge->loop, &d->watch, EPOLLIN);
    if (st != ST_OK)
        goto fail_daemon;
    st = acceptor_create(edge->loop, listen_fd, edge->metrics, door_on_socket, d, &d->acceptor);
    if (st != ST_OK)
        goto fail_watch;
    d->hook.on_turn_end = door_turn_end;
    loop_hook_add(edge->loop, &d->hook);
    *out = d;
    return ST_OK;
fail_watch:
    loop_watch_remove(edge->loop, &d->watch);
fail_daemon:
    MHD_stop_daemon(d->daemon);
fail_door:
    free(d);
fail_fd:
    close(listen_fd);
    return st;
}

void api_door_use_settings(struct api_door *d)
{
    api_set_access(&d->api);
}

/* Requests under way are answered first; their connections then close. */
void api_door_stop(struct api_door *d)
{
    d->stopping = true;
    acceptor_pause(d->acceptor);
    LIST_EACH (node, &d->conns) {
        struct api_conn *c = LIST_OF(node, struct api_conn, link);
        if (!c->request)
            conn_shut(c);
    }
}

/* The loop has ended: letters do not come back any more, so requests that wait for one are told that their
 * outcome is not known. */
void api_door_destroy(struct api_door *d)
{
    if (!d)
        return;
    d->stopping = d->closing = true;
    LIST_EACH (node, &d->conns) {
        struct request *r = LIST_OF(node, struct api_conn, link)->request;
        if (r && r->state == REQUEST_WAITING)
            request_give_up(r);
    }
    (void)resume_answered(d);
    (void)MHD_run(d->daemon);
    acceptor_destroy(d->acceptor);
    loop_hook_remove(d->api.edge->loop, &d->hook);
    timer_cancel(loop_timers(d->api.edge->loop), &d->timeout);
    loop_watch_remove(d->api.edge->loop, &d->watch);
    MHD_stop_daemon(d->daemon);
    api_drop_orphans(&d->api);
    assert(list_empty(&d->conns));
    free(d);
}
