/* Handshakes.
 *
 * A full one costs 0.3 to 0.5 ms of CPU, a thousand times what a message costs: done as they come, a storm of
 * 1,000 clients would keep everybody else waiting for half a second. So a descriptor that has something is
 * put in a queue (and not watched meanwhile), and at the end of each turn HANDSHAKES_A_TURN of the queue go
 * one step; with more in the queue the loop comes again without sleeping. A connection whose turn has not
 * come yet is a descriptor and some 200 bytes: OpenSSL's part is made with the first step.
 *
 * Until the door has the stream, a connection is counted here, against limit.connections like any other. One
 * above that limit goes through its handshake all the same, so that the door can say why it is not taken: as
 * many of them as doors hold to tell them (mqtt.refused_max), others are closed at once. */
#include "gateway/tls/server.h"

#include "core/logging.h"
#include "gateway/acceptor.h"
#include "gateway/gate.h"
#include "gateway/tls/tls_private.h"

#include <assert.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HANDSHAKES_A_TURN = 4, DRAIN_BYTES = 4096 };

struct tls_server {
    struct edge *edge;
    struct tls_context *context;
    struct list ready; /* handshake.ready, oldest first */
    struct loop_hook hook;
    uint64_t over_count; /* handshakes above limit.connections */
};

struct tls_port {
    struct tls_server *server;
    struct acceptor *acceptor;
    struct list handshakes;
    struct tls_alpn alpn;
    uint64_t timeout_ms;
    tls_on_stream *on_stream;
    void *ctx;
};

struct handshake {
    struct tls_port *port;
    SSL *ssl; /* NULL before the first step */
    struct loop_watch watch;
    struct timer timer;
    struct list link; /* port->handshakes */
    struct list ready; /* server->ready */
    struct bucket_place *place; /* of its address */
    bool over; /* above limit.connections: not counted as one */
};

/* --- one handshake -------------------------------------------------------------------------------- */

/* Not watched, not queued, not counted any more; descriptor and SSL are the caller's. */
static void handshake_free(struct handshake *h)
{
    struct edge *e = h->port->server->edge;
    loop_watch_remove(e->loop, &h->watch);
    timer_cancel(loop_timers(e->loop), &h->timer);
    list_unlink(&h->link);
    list_unlink(&h->ready);
    if (h->over)
        h->port->server->over_count--;
    else
        atomic_fetch_sub(&e->facts->connections, 1);
    metric_sub(e->metrics, M_TLS_HANDSHAKES, 1);
    gate_leave(h->place);
    free(h);
}

static void handshake_fail(struct handshake *h, enum metric why)
{
    uint8_t bytes[DRAIN_BYTES];
    SSL *ssl = h->ssl;
    int fd = h->watch.fd;
    metric_add(h->port->server->edge->metrics, why, 1);
    handshake_free(h);
    /* Input that is not read would turn our end into a reset that overtakes the alert. */
    (void)shutdown(fd, SHUT_WR);
    while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) == (ssize_t)sizeof bytes)
        ;
    SSL_free(ssl);
    close(fd);
}

/* Why OpenSSL gave up: what an operator can tell apart and do something about. */
static enum metric failure_reason(int ssl_error)
{
    unsigned long code = ERR_peek_error();
    if (ssl_error == SSL_ERROR_SYSCALL || ssl_error == SSL_ERROR_ZERO_RETURN ||
        ERR_GET_LIB(code) != ERR_LIB_SSL)
        return M_TLS_FAILED_NETWORK;
    switch (ERR_GET_REASON(code)) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_RECORD_TOO_SMALL:
        return M_TLS_FAILED_NOT_TLS;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return M_TLS_FAILED_VERSION;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return M_TLS_FAILED_CLIENT_CERT;
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        return M_TLS_FAILED_SERVER_CERT;
    case SSL_R_NO_APPLICATION_PROTOCOL:
        return M_TLS_FAILED_ALPN;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return M_TLS_FAILED_NETWORK;
    default:
        return M_TLS_FAILED_OTHER;
    }
}

static void handshake_refused(struct handshake *h, int ssl_error)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    enum metric why = failure_reason(ssl_error);
    const char *text = ERR_reason_error_string(ERR_peek_error());
    if (why != M_TLS_FAILED_NETWORK && log_permitted(&limit, &held))
        log_info("TLS handshake failed: %s protocol=%.*s repeated=%lu", text ? text : "no reason given",
                 h->port->alpn.bytes[0], (const char *)h->port->alpn.bytes + 1, (unsigned long)held);
    handshake_fail(h, why);
}

static void handshake_done(struct handshake *h)
{
    struct tls_port *p = h->port;
    struct stream stream = tls_stream(h->ssl, h->watch.fd);
    metric_add(p->server->edge->metrics,
               SSL_session_reused(h->ssl) ? M_TLS_HANDSHAKES_RESUMED : M_TLS_HANDSHAKES_FULL, 1);
    handshake_free(h);
    p->on_stream(p->ctx, &stream);
}

static void handshake_step(struct handshake *h)
{
    struct tls_server *t = h->port->server;
    if (!h->ssl && !(h->ssl = tls_context_connection(t->context, h->watch.fd, &h->port->alpn))) {
        handshake_fail(h, M_TLS_FAILED_OTHER);
        return;
    }
    ERR_clear_error();
    int rc = SSL_do_handshake(h->ssl), why = SSL_get_error(h->ssl, rc);
    if (rc == 1)
        handshake_done(h);
    else if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        loop_watch_set(t->edge->loop, &h->watch, why == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT);
    else
        handshake_refused(h, why);
}

static void handshake_on_event(struct loop_watch *w, uint32_t events)
{
    struct handshake *h = LIST_OF(w, struct handshake, watch);
    struct tls_server *t = h->port->server;
    (void)events;
    loop_watch_set(t->edge->loop, w, 0); /* till its turn has come */
    if (list_empty(&h->ready))
        list_push(&t->ready, &h->ready);
}

static void handshake_on_timer(struct timer *timer)
{
    handshake_fail(LIST_OF(timer, struct handshake, timer), M_TLS_FAILED_TIMEOUT);
}

static bool on_turn_end(struct loop_hook *hook)
{
    struct tls_server *t = LIST_OF(hook, struct tls_server, hook);
    for (int n = 0; n < HANDSHAKES_A_TURN && !list_empty(&t->ready); n++) {
        struct handshake *h = LIST_OF(t->ready.next, struct handshake, ready);
        list_unlink(&h->ready);
        handshake_step(h);
    }
    return !list_empty(&t->ready);
}

static void on_socket(void *ctx, int fd)
{
    struct tls_port *p = ctx;
    struct edge *e = p->server->edge;
    struct handshake *h = NULL;
    struct bucket_place *place;
    if (!gate_admits(e, fd) || gate_enter(e, fd, &place) != ST_OK) {
        close(fd);
        return;
    }
    bool over = atomic_load(&e->facts->connections) >= atomic_load(&e->facts->connections_max);
    if ((over && p->server->over_count >= e->settings->mqtt_refused_max) || !(h = calloc(1, sizeof *h))) {
        metric_add(e->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
        metric_add(e->metrics, M_CONNECTS_UNANSWERED, 1);
        gate_leave(place);
        close(fd);
        return;
    }
    h->port = p;
    h->place = place;
    h->over = over;
    h->watch = (struct loop_watch){.fd = fd, .on_event = handshake_on_event};
    list_init(&h->ready);
    timer_init(&h->timer, handshake_on_timer);
    if (loop_watch_add(e->loop, &h->watch, EPOLLIN) != ST_OK) {
        gate_leave(place);
        close(fd);
        free(h);
        return;
    }
    timer_arm(loop_timers(e->loop), &h->timer, loop_now_ms(e->loop) + p->timeout_ms);
    list_push(&p->handshakes, &h->link);
    if (over)
        p->server->over_count++;
    else
        atomic_fetch_add(&e->facts->connections, 1);
    metric_add(e->metrics, M_TLS_HANDSHAKES, 1);
}

/* --- a port --------------------------------------------------------------------------------------- */

enum status tls_port_open(struct tls_server *t, int listen_fd, const char *alpn, uint64_t timeout_ms,
                          tls_on_stream *on_stream, void *ctx, struct tls_port **out)
{
    struct tls_port *p = calloc(1, sizeof *p);
    size_t len = strlen(alpn);
    assert(len < sizeof p->alpn.bytes);
    enum status st = ST_NO_MEMORY;
    if (p) {
        *p = (struct tls_port){.server = t, .timeout_ms = timeout_ms, .on_stream = on_stream, .ctx = ctx};
        p->alpn.bytes[0] = (uint8_t)len;
        memcpy(p->alpn.bytes + 1, alpn, len);
        list_init(&p->handshakes);
        st = acceptor_create(t->edge->loop, listen_fd, t->edge->metrics, on_socket, p, &p->acceptor);
    }
    if (st != ST_OK) {
        close(listen_fd);
        free(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

void tls_port_stop(struct tls_port *p)
{
    if (!p)
        return;
    acceptor_pause(p->acceptor);
    while (!list_empty(&p->handshakes))
        handshake_fail(LIST_OF(p->handshakes.next, struct handshake, link), M_TLS_FAILED_STOPPED);
}

void tls_port_close(struct tls_port *p)
{
    if (!p)
        return;
    tls_port_stop(p);
    acceptor_destroy(p->acceptor);
    free(p);
}

/* --- the server ----------------------------------------------------------------------------------- */

enum status tls_server_create(struct edge *edge, struct tls_context *context, struct tls_server **out)
{
    struct tls_server *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    t->edge = edge;
    t->context = tls_context_ref(context);
    list_init(&t->ready);
    list_init(&t->hook.link);
    t->hook.on_turn_end = on_turn_end;
    loop_hook_add(edge->loop, &t->hook);
    edge->tls = t;
    *out = t;
    return ST_OK;
}

void tls_server_destroy(struct tls_server *t)
{
    if (!t)
        return;
    assert(list_empty(&t->ready));
    loop_hook_remove(t->edge->loop, &t->hook);
    t->edge->tls = NULL;
    tls_context_unref(t->context);
    free(t);
}

struct renewal {
    struct mail mail;
    struct tls_server *server;
    struct tls_context *context;
};

static void renewal_arrived(struct mail *mail)
{
    struct renewal *r = LIST_OF(mail, struct renewal, mail);
    tls_context_unref(r->server->context);
    r->server->context = r->context;
    free(r);
}

enum status tls_server_renew(struct tls_server *t, struct tls_context *context)
{
    struct renewal *r = malloc(sizeof *r);
    if (!r)
        return ST_NO_MEMORY;
    *r = (struct renewal){
        .mail.on_arrival = renewal_arrived, .server = t, .context = tls_context_ref(context)};
    loop_post(t->edge->loop, &r->mail);
    return ST_OK;
}
