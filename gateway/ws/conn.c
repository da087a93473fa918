/* The life of a connection.
 *
 * HTTP is front.c's, and the 101 libwebsockets', over a socket pair: it never has the socket itself, so what
 * goes out is only ever what output.c sends: whole frames, in order (ADR 2 and 12 say why, and what it
 * costs).
 *
 * During a turn everything only queues and marks the connection (conn_touch). At its end conn_turn_end sends,
 * once, and does what room in the queue allows again: reading, and cursors of the session.
 *
 * A connection dies in one of three ways: conn_kill (ours, now), conn_close (ours, politely: bye, close
 * frame, the peer's close frame or CONN_CLOSE_WAIT_MS), conn_lost (libwebsockets'). */
#include "gateway/ws/conn.h"

#include "gateway/gate.h"
#include "gateway/ws/credential.h"
#include "gateway/ws/feed.h"
#include "gateway/ws/front.h"
#include "gateway/ws/host.h"
#include "gateway/ws/serve.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

static void conn_on_event(struct loop_watch *w, uint32_t events);
static void conn_on_timer(struct timer *t);

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- life --------------------------------------------------------------------------------------- */

struct conn *conn_create(struct web_door *d)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->door = d;
    c->refs = 1;
    c->principal = auth_anonymous(d->edge->auth);
    list_init(&c->turn);
    list_init(&c->subscribing);
    list_init(&c->leaving);
    list_push(&d->conns, &c->link);
    c->io.fd = -1;
    c->watch = (struct loop_watch){.fd = -1, .on_event = conn_on_event};
    outq_init(&c->out, (uint32_t)d->settings->out_bytes_max);
    flow_init(&c->flow, (uint32_t)d->settings->limit_ws_unacked);
    timer_init(&c->timer, conn_on_timer);
    timer_arm(loop_timers(d->loop), &c->timer, conn_now(c) + d->settings->ws_hello_timeout_ms);
    atomic_fetch_add(&d->edge->facts->connections, 1);
    metric_add(d->metrics, M_CONNECTIONS_HTTP, 1);
    return c;
}

void conn_ref(struct conn *c)
{
    c->refs++;
}

void conn_unref(struct conn *c)
{
    assert(c->refs > 0);
    if (--c->refs > 0)
        return;
    assert(c->state == CONN_DEAD);
    conn_free(c);
}

void conn_become(struct conn *c, struct principal *p)
{
    principal_unref(c->principal);
    free(c->access);
    c->access = NULL;
    c->principal = p;
    c->nameless = false;
    if (c->state == CONN_OPEN) /* it may expire before anything else is due */
        timer_arm(loop_timers(c->door->loop), &c->timer, conn_now(c));
}

void conn_free(struct conn *c)
{
    list_unlink(&c->link);
    principal_unref(c->principal);
    principal_unref(c->named);
    credential_drop(c);
    free(c->access);
    free(c->opening_feed);
    free(c);
}

static void conn_count_end(struct conn *c, enum conn_end why)
{
    static const enum metric counters[] = {
        [END_CLIENT] = M_DISCONNECT_CLIENT,   [END_PROTOCOL] = M_DISCONNECT_PROTOCOL,
        [END_TIMEOUT] = M_DISCONNECT_TIMEOUT, [END_LIMIT] = M_DISCONNECT_LIMIT,
        [END_SERVER] = M_DISCONNECT_SERVER,   [END_NETWORK] = M_DISCONNECT_NETWORK,
        [END_EXPIRED] = M_DISCONNECT_EXPIRED, [END_REVOKED] = M_DISCONNECT_REVOKED,
    };
    struct metrics *m = c->door->metrics;
    bool upgraded = c->state == CONN_OPEN || c->state == CONN_CLOSING;
    if (upgraded || c->state == CONN_FEED)
        metric_add(
            m, metric_disconnect(counters[why], upgraded ? M_DISCONNECT_WS : feed_disconnects(c->feed)), 1);
    if (c->state != CONN_FEED) /* it counts itself */
        metric_sub(m, upgraded ? M_CONNECTIONS_WS : M_CONNECTIONS_HTTP, 1);
    metric_sub(m, M_OUT_QUEUE_BYTES, c->waiting_bytes);
    atomic_fetch_sub(&c->door->edge->facts->connections, 1);
}

static void conn_bury(struct conn *c, enum conn_end why)
{
    assert(c->state != CONN_DEAD);
    conn_count_end(c, c->state == CONN_CLOSING ? c->end : why);
    c->state = CONN_DEAD;
    feed_close(c->feed);
    c->feed = NULL;
    serve_end(c);
    gate_leave(c->address_place);
    gate_leave(c->user_place);
    c->address_place = c->user_place = NULL;
    if (c->watched)
        loop_watch_remove(c->door->loop, &c->watch);
    c->watched = false;
    if (c->io.fd >= 0)
        stream_close(&c->io);
    front_drop(c->front);
    timer_cancel(loop_timers(c->door->loop), &c->timer);
    outq_deinit(&c->out);
    buf_deinit(&c->message);
    buf_deinit(&c->unread);
    list_unlink(&c->turn);
    list_unlink(&c->link);
    list_push(&c->door->buried, &c->link);
}

/* What a reader has not taken by now would stay in the kernel for a quarter of an hour. */
static void conn_forget_unsent(const struct conn *c)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    if (c->watched && c->out.bytes > 0)
        (void)setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void conn_kill(struct conn *c, enum conn_end why)
{
    struct lws *wsi = c->wsi;
    conn_forget_unsent(c);
    conn_bury(c, why);
    c->wsi = NULL;
    if (wsi)
        host_drop(wsi);
    conn_unref(c);
}

void conn_lost(struct conn *c)
{
    c->wsi = NULL;
    if (c->state == CONN_DEAD)
        return;
    if (c->front) {
        front_declined(c);
        return;
    }
    conn_bury(c, END_NETWORK);
    conn_unref(c);
}

enum status conn_take_over(struct conn *c)
{
    struct web_door *d = c->door;
    assert(c->state == CONN_FRESH);
    enum status st = serve_begin(c);
    if (st != ST_OK)
        return st;
    c->watch.fd = c->io.fd;
    if ((st = loop_watch_add(d->loop, &c->watch, EPOLLIN)) != ST_OK)
        return st;
    c->watched = true;
    c->state = CONN_OPEN;
    c->opened_ms = c->last_in_ms = c->last_out_ms = conn_now(c);
    ws_reader_init(&c->reader, d->message_bytes_max);
    timer_arm(loop_timers(d->loop), &c->timer,
              conn_now(c) + earlier(d->settings->ws_hello_timeout_ms, d->settings->ws_ping_ms));
    metric_sub(d->metrics, M_CONNECTIONS_HTTP, 1);
    metric_add(d->metrics, M_CONNECTIONS_WS, 1);
    metric_add(d->metrics, M_CONNECTS_OK_WS, 1);
    if (c->credential_kind != CREDENTIAL_OF_NOBODY)
        serve_credential(c);
    else if (!c->nameless)
        (void)serve_enter(c, c->principal); /* whom its certificate names; else it is being closed */
    return ST_OK;
}

/* --- the end of a turn -------------------------------------------------------------------------- */

void conn_touch(struct conn *c)
{
    if ((c->state == CONN_OPEN || c->state == CONN_CLOSING) && list_empty(&c->out.dirty))
        list_push(&c->door->dirty, &c->out.dirty);
}

/* Closing goes on once everything is out. False: the connection is gone. */
static bool conn_closing_step(struct conn *c)
{
    if (c->out.bytes > 0)
        return true;
    if (c->peer_closed) {
        conn_kill(c, c->end);
        return false;
    }
    /* RFC 6455, 7.1.7: a failed connection is ended without waiting for the peer's close frame, which we
     * could not find any more. FIN first and close later, or unread input would turn it into a reset that
     * overtakes our close frame. */
    if (c->deaf && !c->shut) {
        c->shut = true;
        stream_shut(&c->io);
    }
    return true;
}

static bool conn_drained(const struct conn *c)
{
    return c->draining && c->state == CONN_OPEN && c->publish_open == 0 && c->reads_open == 0 &&
           !c->opening && !c->check;
}

void conn_drain(struct conn *c)
{
    c->draining = c->paused = true;
    conn_watch(c);
    conn_touch(c);
}

bool conn_turn_end(struct conn *c)
{
    bool more = false;
    if (c->broken || !conn_flush(c)) {
        conn_kill(c, c->broken ? END_LIMIT : END_NETWORK);
        return false;
    }
    if (c->state == CONN_CLOSING) {
        if (conn_closing_step(c))
            conn_watch(c);
        return false;
    }
    if (conn_drained(c)) {
        conn_close(c, 4001, "drain", END_SERVER);
        return true;
    }
    if (c->starved && c->out.bytes <= c->out.bytes_max / 2) {
        c->starved = false;
        session_room(c->session);
        more = true;
    }
    if (c->paused && conn_may_resume(c)) {
        conn_resume(c); /* what it queues makes the connection dirty again */
        more = true;
    }
    if (c->state != CONN_DEAD)
        conn_watch(c);
    return more;
}

/* --- closing ------------------------------------------------------------------------------------ */

void conn_enter_closing(struct conn *c, enum conn_end end)
{
    c->state = CONN_CLOSING;
    c->end = end;
    serve_end(c);
    /* Lines in hand are not handled any more; frames in hand are lost, and with them their boundaries. */
    if (c->unread.len > 0)
        c->deaf = true;
    buf_deinit(&c->unread);
    buf_deinit(&c->message);
    c->lines_ready = false;
    c->paused = false;
    timer_arm(loop_timers(c->door->loop), &c->timer, conn_now(c) + CONN_CLOSE_WAIT_MS);
    conn_touch(c);
}

void conn_close(struct conn *c, uint16_t code, const char *why, enum conn_end end)
{
    if (c->state != CONN_OPEN)
        return;
    if (code >= 4000) {
        struct buf *scratch = &c->door->scratch;
        uint64_t retry_ms = code < 4100 ? web_door_retry_ms(c->door, session_id(c->session)) : 0;
        buf_clear(scratch);
        if (ws_put_bye(scratch, code, why, retry_ms) == ST_OK)
            conn_put_text(c, buf_slice(scratch));
        buf_clear(scratch);
    }
    conn_queue_close(c, code, why);
    conn_enter_closing(c, end);
}

/* --- events ------------------------------------------------------------------------------------- */

static void conn_on_event(struct loop_watch *w, uint32_t events)
{
    struct conn *c = LIST_OF(w, struct conn, watch);
    events = stream_ready(&c->io, events);
    if ((events & EPOLLIN) == 0 && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        conn_kill(c, END_NETWORK);
        return;
    }
    if (events & EPOLLOUT) {
        c->blocked = false;
        conn_touch(c);
    }
    if (events & EPOLLIN)
        conn_read(c);
}

/* --- time --------------------------------------------------------------------------------------- */

/* While we do not read, a pong cannot be seen; while the queue moves, the peer lives: the ping is behind it.
 */
static bool conn_pong_overdue(const struct conn *c, uint64_t now)
{
    uint64_t since = c->blocked && c->progress_ms > c->ping_sent_ms ? c->progress_ms : c->ping_sent_ms;
    return c->ping_sent_ms && !c->paused && now >= since + c->door->settings->ws_pong_timeout_ms;
}

/* Something that it must say has not come yet: who it is, or any request. */
static bool conn_is_awaited(const struct conn *c)
{
    return c->nameless || !c->spoke;
}

/* Checks what is due and returns when to look again; 0: it is being closed. */
static uint64_t conn_check_times(struct conn *c)
{
    const struct settings *s = c->door->settings;
    uint64_t now = conn_now(c), next;
    if (c->blocked && now >= c->progress_ms + s->out_stall_ms) {
        conn_drop_queue(c);
        conn_close(c, 4002, "no progress", END_TIMEOUT);
        return 0;
    }
    if (conn_pong_overdue(c, now)) {
        conn_drop_queue(c);
        c->deaf = true;
        conn_close(c, 4003, "ping timeout", END_TIMEOUT);
        return 0;
    }
    uint64_t left = auth_left_ms(c->door->edge->auth, c->principal);
    if (left == 0) {
        conn_close(c, 4100, "token expired", END_EXPIRED);
        return 0;
    }
    if (conn_is_awaited(c) && now >= c->opened_ms + s->ws_hello_timeout_ms) {
        if (c->nameless)
            conn_close(c, 4200, "identity needed", END_TIMEOUT);
        else
            conn_close(c, 4201, "no hello or request in time", END_TIMEOUT);
        return 0;
    }
    if (!c->blocked && now >= c->last_out_ms + s->ws_ping_ms)
        conn_put_text(c, slice_of("{}", 2));
    if (!c->ping_sent_ms && !c->blocked && !c->paused && now >= c->last_in_ms + s->ws_ping_ms) {
        conn_queue(c, WS_PING, (struct slice){0});
        c->ping_sent_ms = now;
    }
    next = c->blocked ? c->progress_ms + s->out_stall_ms : c->last_out_ms + s->ws_ping_ms;
    if (left < UINT64_MAX)
        next = earlier(next, now + left);
    if (conn_is_awaited(c))
        next = earlier(next, c->opened_ms + s->ws_hello_timeout_ms);
    if (c->ping_sent_ms)
        return earlier(next, (c->paused || c->blocked ? now : c->ping_sent_ms) + s->ws_pong_timeout_ms);
    return c->blocked || c->paused ? earlier(next, now + s->ws_ping_ms)
                                   : earlier(next, c->last_in_ms + s->ws_ping_ms);
}

static void conn_on_timer(struct timer *t)
{
    struct conn *c = LIST_OF(t, struct conn, timer);
    if (c->state != CONN_OPEN) {
        conn_kill(c, END_TIMEOUT);
        return;
    }
    uint64_t next = conn_check_times(c);
    if (next != 0)
        timer_arm(loop_timers(c->door->loop), t, next);
}
