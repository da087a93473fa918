/* The life of a feed. During a turn everything only queues and marks it (feed_touch); at the end
 * feed_turn_end sends, once. What the client sends behind its request is thrown away: there is nothing more
 * to ask for. */
#include "gateway/ws/feed.h"

#include "gateway/ws/credential.h"
#include "gateway/ws/http.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { FLUSH_PIECES = 16, BOOKMARK_MS = 1000, ENDING_MS = 5000, GAPS_BYTES_MAX = 1 << 20 };

static bool is_sse(const struct feed *f)
{
    return f->opening->request.kind == FEED_SSE;
}

static uint64_t feed_now(const struct feed *f)
{
    return loop_now_ms(f->door->loop);
}

void feed_touch(struct feed *f)
{
    if (list_empty(&f->turn))
        list_push(&f->door->feeds_turn, &f->turn);
}

/* --- the end ------------------------------------------------------------------------------------ */

static void feed_end_session(struct feed *f)
{
    auth_abandon(f->check);
    f->check = NULL;
    session_end(f->session);
    f->session = NULL;
}

enum metric feed_disconnects(const struct feed *f)
{
    return f && !is_sse(f) ? M_DISCONNECT_POLL : M_DISCONNECT_SSE;
}

void feed_close(struct feed *f)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (!f)
        return;
    struct web_door *d = f->door;
    feed_end_session(f);
    if (f->out.bytes > 0) /* or it would stay in the kernel for a quarter of an hour */
        (void)setsockopt(f->watch.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    loop_watch_remove(d->loop, &f->watch);
    timer_cancel(loop_timers(d->loop), &f->timer);
    metric_sub(d->metrics, M_OUT_QUEUE_BYTES, f->waiting_bytes);
    metric_sub(d->metrics, is_sse(f) ? M_CONNECTIONS_SSE : M_CONNECTIONS_POLL, 1);
    outq_deinit(&f->out);
    buf_deinit(&f->page);
    buf_deinit(&f->gaps);
    list_unlink(&f->turn);
    principal_unref(f->principal);
    free(f->opening);
    free(f);
}

/* Now. The feed is gone after it. An end that was ours already has been counted as such. */
static void feed_kill(struct feed *f, enum conn_end why)
{
    conn_kill(f->conn, f->state == FEED_ENDING ? f->end : why);
}

static void feed_enter_ending(struct feed *f)
{
    feed_end_session(f);
    f->state = FEED_ENDING;
    timer_arm(loop_timers(f->door->loop), &f->timer, feed_now(f) + ENDING_MS);
    feed_touch(f);
}

void feed_refuse(struct feed *f, int status, const char *code, const char *detail, uint32_t retry_ms)
{
    char body[1024], more[128] = "";
    assert(f->state == FEED_JUDGING || f->state == FEED_SUBSCRIBING);
    int len =
        http_problem(f->door, body, sizeof body, status, code, detail, retry_ms, f->opening->request_id);
    int at = snprintf(more, sizeof more, "Content-Length: %d\r\n", len);
    if (retry_ms > 0)
        at += snprintf(more + at, sizeof more - (size_t)at, "Retry-After: %u\r\n", (retry_ms + 999) / 1000);
    if (status == 401)
        snprintf(more + at, sizeof more - (size_t)at, "WWW-Authenticate: Bearer\r\n");
    metric_add(f->door->metrics, status < 500 ? M_HTTP_4XX : M_HTTP_5XX, 1);
    feed_head(f, status, "application/problem+json", more);
    feed_put(f, slice_of(body, (size_t)len));
    feed_enter_ending(f);
}

void feed_goodbye(struct feed *f, uint16_t code, const char *why)
{
    if (f->state == FEED_ENDING)
        return;
    bool unauthorized = code == 4100 || code == 4101;
    if (unauthorized)
        f->end = code == 4100 ? END_EXPIRED : END_REVOKED;
    if (f->state != FEED_OPEN) {
        feed_refuse(f, unauthorized ? 401 : 503, unauthorized ? "unauthorized" : "unavailable", why,
                    unauthorized ? 0 : web_door_retry_ms(f->door, f->door->problems));
        return;
    }
    feed_put_bye(f, code, why);
    feed_enter_ending(f);
}

/* --- output ------------------------------------------------------------------------------------- */

void feed_put(struct feed *f, struct slice bytes)
{
    if (outq_put(&f->out, bytes) != ST_OK)
        f->broken = true;
    f->last_out_ms = feed_now(f);
    feed_touch(f);
}

/* ST_OK: all is out. ST_AGAIN: the rest is kept. ST_CLOSED. */
static enum status feed_send(struct feed *f)
{
    while (f->out.bytes > 0) {
        struct iovec pieces[FLUSH_PIECES];
        int count = outq_gather(&f->out, pieces, FLUSH_PIECES);
        size_t n;
        enum status st = stream_write(&f->conn->io, pieces, count, &n);
        if (st != ST_OK)
            return st;
        outq_sent(&f->out, n);
        f->progress_ms = feed_now(f);
        metric_add(f->door->metrics, is_sse(f) ? M_BYTES_OUT_SSE : M_BYTES_OUT_POLL, n);
    }
    return ST_OK;
}

/* False: the peer has gone. */
static bool feed_flush(struct feed *f)
{
    enum status st = f->blocked ? ST_AGAIN : feed_send(f);
    if (st == ST_AGAIN && outq_own(&f->out) != ST_OK)
        st = ST_NO_MEMORY;
    if (st == ST_AGAIN && !f->blocked) {
        f->blocked = true;
        f->progress_ms = feed_now(f);
    }
    uint32_t waiting = f->blocked ? f->out.bytes : 0;
    metric_add(f->door->metrics, M_OUT_QUEUE_BYTES, (uint64_t)waiting - f->waiting_bytes);
    f->waiting_bytes = waiting;
    loop_watch_set(f->door->loop, &f->watch, stream_events(&f->conn->io, true, f->blocked));
    return st == ST_OK || st == ST_AGAIN;
}

static uint64_t feed_left_ms(const struct feed *f)
{
    return f->principal ? auth_left_ms(f->door->edge->auth, f->principal) : UINT64_MAX;
}

/* When to look at the clock again: for the next bookmark, a sign of life, or a reader that has stopped. */
static uint64_t feed_due(const struct feed *f)
{
    const struct settings *s = f->door->settings;
    uint64_t due = f->deadline_ms;
    if (f->state == FEED_OPEN) {
        due = f->blocked ? f->progress_ms + s->out_stall_ms : f->last_out_ms + s->ws_ping_ms;
        if (f->moved && !f->blocked && f->id_ms + BOOKMARK_MS < due)
            due = f->id_ms + BOOKMARK_MS;
    }
    uint64_t left = feed_left_ms(f);
    return left < UINT64_MAX && feed_now(f) + left < due ? feed_now(f) + left : due;
}

static void feed_rearm(struct feed *f)
{
    if (f->state != FEED_ENDING)
        timer_arm(loop_timers(f->door->loop), &f->timer, feed_due(f));
}

bool feed_turn_end(struct feed *f)
{
    bool more = false;
    if (f->finished && f->state != FEED_ENDING) {
        feed_answer_page(f);
        if (f->state != FEED_ENDING)
            feed_enter_ending(f);
    }
    if (f->broken || !feed_flush(f)) {
        feed_kill(f, f->broken ? END_LIMIT : END_NETWORK);
        return false;
    }
    if (f->state == FEED_ENDING && f->out.bytes == 0 && !f->shut) {
        f->shut = true; /* the peer's end follows, or the time is over */
        stream_shut(&f->conn->io);
    }
    if (f->starved && f->session && (f->state == FEED_OPEN || !is_sse(f)) &&
        f->out.bytes <= f->out.bytes_max / 2) {
        f->starved = false;
        session_room(f->session);
        more = true;
    }
    feed_rearm(f);
    return more;
}

/* --- time --------------------------------------------------------------------------------------- */

static void feed_tick(struct feed *f)
{
    const struct settings *s = f->door->settings;
    uint64_t now = feed_now(f);
    if (f->blocked && now >= f->progress_ms + s->out_stall_ms) {
        feed_kill(f, END_TIMEOUT);
        return;
    }
    if (f->moved && !f->blocked && now >= f->id_ms + BOOKMARK_MS)
        feed_put_bookmark(f);
    if (!f->blocked && now >= f->last_out_ms + s->ws_ping_ms)
        feed_put(f, slice_of(":\n\n", 3));
    feed_rearm(f);
}

static void feed_on_timer(struct timer *t)
{
    struct feed *f = LIST_OF(t, struct feed, timer);
    if (f->state == FEED_ENDING) {
        feed_kill(f, END_SERVER);
    } else if (feed_left_ms(f) == 0) {
        if (f->state == FEED_OPEN)
            feed_goodbye(f, 4100, "token expired");
        else
            feed_refuse(f, 401, "unauthorized", "the token has expired", 0);
    } else if (f->state == FEED_OPEN) {
        feed_tick(f);
    } else if (f->state == FEED_SUBSCRIBING && f->placed == f->opening->request.topic_count) {
        f->finished = true; /* wait_ms is over */
        feed_touch(f);
    } else {
        feed_refuse(f, 503, "unavailable", "not everything answered in time", BOOKMARK_MS);
    }
}

static void feed_on_event(struct loop_watch *w, uint32_t events)
{
    struct feed *f = LIST_OF(w, struct feed, watch);
    size_t n;
    events = stream_ready(&f->conn->io, events);
    if (events & EPOLLIN) {
        if (stream_read(&f->conn->io, f->door->input, CONN_READ_BYTES, &n) == ST_CLOSED) {
            feed_kill(f, END_CLIENT);
            return;
        }
        feed_touch(f); /* it may wait for something else now */
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        feed_kill(f, END_NETWORK);
        return;
    }
    if (events & EPOLLOUT) {
        f->blocked = false;
        feed_touch(f);
    }
}

/* --- who it is ---------------------------------------------------------------------------------- */

static void feed_is(struct feed *f, enum auth_verdict v, struct principal *p)
{
    if (v != AUTH_OK) {
        bool temporary = auth_temporary(v);
        feed_refuse(f, temporary ? 503 : 401, temporary ? "unavailable" : "unauthorized", auth_text(v),
                    temporary ? BOOKMARK_MS : 0);
        return;
    }
    f->principal = p;
    f->state = FEED_SUBSCRIBING;
    f->deadline_ms = feed_now(f) + f->door->settings->ws_hello_timeout_ms;
    feed_subscribe(f);
    if (f->state == FEED_SUBSCRIBING)
        feed_rearm(f);
}

/* Whom the certificate of the connection names; NULL: nobody, or it is a proxy's. */
static struct principal *feed_certified(const struct feed *f)
{
    bool named = !f->opening->nameless && f->conn->principal->user.len > 0;
    return named ? f->conn->principal : NULL;
}

/* Who has a name already, by his certificate, may say it again, no other. */
static void feed_judged(struct feed *f, enum auth_verdict v, struct principal *p)
{
    const struct principal *certified = feed_certified(f);
    if (v == AUTH_OK && certified && !slice_equal(certified->user, p->user)) {
        principal_unref(p);
        p = NULL;
        v = AUTH_OTHER_USER;
        auth_failed(f->door->edge->auth, v);
    }
    feed_is(f, v, p);
}

static void on_checked(void *ctx, enum auth_verdict v, struct principal *p)
{
    struct feed *f = ctx;
    f->check = NULL;
    feed_judged(f, v, p);
}

static enum ticket_use feed_ticket_use(const struct feed_opening *o)
{
    if (o->request.kind == FEED_POLL)
        return TICKET_ONCE;
    return o->request.resumes ? TICKET_STREAM_AGAIN : TICKET_STREAM;
}

static void feed_identify(struct feed *f)
{
    struct auth *a = f->door->edge->auth;
    const struct feed_opening *o = f->opening;
    struct principal *p = NULL;
    enum auth_verdict v = AUTH_OK;
    if (f->conn->credential_kind != CREDENTIAL_OF_NOBODY) {
        v = credential_check(f->conn, feed_ticket_use(o), on_checked, f, &p, &f->check);
        if (v == AUTH_PENDING)
            return;
        feed_judged(f, v, p);
        return;
    }
    struct principal *certified = feed_certified(f);
    if (o->nameless) {
        v = AUTH_ANONYMOUS;
        auth_failed(a, v);
    } else {
        p = certified ? principal_ref(certified) : auth_anonymous(a);
    }
    feed_is(f, v, p);
}

/* --- life --------------------------------------------------------------------------------------- */

enum status feed_open(struct conn *c)
{
    struct web_door *d = c->door;
    struct feed *f = calloc(1, sizeof *f);
    if (!f)
        return ST_NO_MEMORY;
    f->door = d;
    f->conn = c;
    f->end = END_SERVER;
    f->watch = (struct loop_watch){.fd = c->io.fd, .on_event = feed_on_event};
    enum status st = loop_watch_add(d->loop, &f->watch, EPOLLIN);
    if (st != ST_OK) {
        free(f);
        return st;
    }
    f->opening = c->opening_feed;
    c->opening_feed = NULL;
    c->feed = f;
    c->state = CONN_FEED;
    timer_cancel(loop_timers(d->loop), &c->timer);
    outq_init(&f->out, (uint32_t)d->settings->out_bytes_max);
    buf_init(&f->page, d->scratch.limit);
    buf_init(&f->gaps, GAPS_BYTES_MAX);
    timer_init(&f->timer, feed_on_timer);
    list_init(&f->turn);
    metric_sub(d->metrics, M_CONNECTIONS_HTTP, 1);
    metric_add(d->metrics, is_sse(f) ? M_CONNECTIONS_SSE : M_CONNECTIONS_POLL, 1);
    f->last_out_ms = f->progress_ms = f->id_ms = feed_now(f);
    f->deadline_ms = feed_now(f) + d->settings->ws_hello_timeout_ms;
    feed_rearm(f);
    feed_identify(f);
    return ST_OK;
}
