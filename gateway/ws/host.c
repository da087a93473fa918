/* What must hold: libev may block only after loop_prepare has run, and for no longer than it said. A prepare
 * watcher is called right before blocking, and may still start a timer or an idle watcher, which libev then
 * takes into account (ev(3), "ev_prepare and ev_check"). So:
 *
 *   loop_prepare() == 0           idle watcher on: libev polls without waiting; it calls loop_dispatch
 *   loop_prepare() == UINT64_MAX  neither: only the epoll descriptor wakes us (mailbox and sockets)
 *   else                          timer
 *
 * Work that libwebsockets' callbacks make (a connection that is now ours) is seen by the hooks of the next
 * loop_prepare, which comes before the next sleep, always. */
#include "gateway/ws/host.h"

#include "core/logging.h"
#include "gateway/edge.h"

#include <ev.h>
#include <libwebsockets.h>
#include <signal.h>
#include <stdlib.h>

struct host {
    struct loop *loop;
    struct ev_loop *ev;
    ev_io poll;
    ev_prepare prepare;
    ev_idle idle;
    ev_timer timer;
    struct lws_context *context;
    struct lws_vhost *vhost;
};

static void on_log(int level, const char *line)
{
    size_t len = strcspn(line, "\n");
    (void)level;
    log_debug("libwebsockets: %.*s", (int)len, line);
}

/* Of libwebsockets: handshakes under way, and some of its own. Without a number it makes a table of as many
 * descriptors as the process may have, and looks through all of it at the end of each connection: 1 ms where
 * that is a million. */
enum { DESCRIPTORS_MAX = 2 * FRONT_PAIRS_MAX + 32 };

/* --- the loop inside ------------------------------------------------------------------------------ */

static void on_poll(struct ev_loop *ev, ev_io *w, int events)
{
    (void)ev;
    (void)events;
    loop_dispatch(((struct host *)w->data)->loop);
}

static void on_idle(struct ev_loop *ev, ev_idle *w, int events)
{
    (void)events;
    ev_idle_stop(ev, w);
    loop_dispatch(((struct host *)w->data)->loop);
}

static void on_timer(struct ev_loop *ev, ev_timer *w, int events)
{
    (void)ev;
    (void)events;
    loop_dispatch(((struct host *)w->data)->loop);
}

static void on_prepare(struct ev_loop *ev, ev_prepare *w, int events)
{
    struct host *h = w->data;
    (void)events;
    uint64_t wait_ms = loop_prepare(h->loop);
    ev_timer_stop(ev, &h->timer);
    if (loop_stopping(h->loop)) {
        ev_break(ev, EVBREAK_ALL);
        ev_idle_start(ev, &h->idle); /* or it would block once more before it looks */
    } else if (wait_ms == 0) {
        ev_idle_start(ev, &h->idle);
    } else if (wait_ms != UINT64_MAX) {
        ev_now_update(ev); /* the hooks took time; a timer is relative to what libev takes for now */
        ev_timer_set(&h->timer, (double)wait_ms / 1000.0, 0.0);
        ev_timer_start(ev, &h->timer);
    }
}

static void start_watchers(struct host *h)
{
    ev_io_init(&h->poll, on_poll, loop_poll_fd(h->loop), EV_READ);
    ev_prepare_init(&h->prepare, on_prepare);
    ev_idle_init(&h->idle, on_idle);
    ev_timer_init(&h->timer, on_timer, 0.0, 0.0);
    h->poll.data = h->prepare.data = h->idle.data = h->timer.data = h;
    ev_io_start(h->ev, &h->poll);
    ev_prepare_start(h->ev, &h->prepare);
}

static void stop_watchers(struct host *h)
{
    ev_io_stop(h->ev, &h->poll);
    ev_prepare_stop(h->ev, &h->prepare);
    ev_idle_stop(h->ev, &h->idle);
    ev_timer_stop(h->ev, &h->timer);
}

void host_run(struct host *h)
{
    while (!loop_stopping(h->loop))
        ev_run(h->ev, 0);
}

/* --- life --------------------------------------------------------------------------------------- */

static enum status complain(struct buf *error, const char *what)
{
    enum status st = buf_printf(error, "cannot start the public HTTP port: %s", what);
    (void)st; /* a line that does not fit changes nothing about what happened */
    return ST_IO;
}

static enum status create_context(struct host *h, const struct lws_protocols *protocols, struct buf *error)
{
    /* No checks by timers of its own: they are one sorted list (LWS.md 8). */
    static const lws_retry_bo_t no_policy;
    void *loops[] = {h->ev};
    struct lws_context_creation_info info;
    struct sigaction pipe_action;
    memset(&info, 0, sizeof info);
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.options = LWS_SERVER_OPTION_LIBEV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
    info.foreign_loops = loops;
    info.protocols = protocols;
    info.retry_and_idle_policy = &no_policy;
    info.alpn = "http/1.1";
    info.server_string = "tidegate";
    info.pt_serv_buf_size = 16 * 1024;
    info.fd_limit_per_thread = DESCRIPTORS_MAX;
    lws_set_log_level(LLL_ERR | LLL_WARN, on_log);
    sigaction(SIGPIPE, NULL, &pipe_action); /* it may set its own; the program decides */
    h->context = lws_create_context(&info);
    sigaction(SIGPIPE, &pipe_action, NULL);
    if (!h->context)
        return complain(error, "libwebsockets cannot make a context (is its libev plugin installed?)");
    info.vhost_name = "public";
    h->vhost = lws_create_vhost(h->context, &info);
    return h->vhost ? ST_OK : complain(error, "libwebsockets cannot make a virtual host");
}

enum status host_create(struct loop *loop, const struct lws_protocols *protocols, struct host **out,
                        struct buf *error)
{
    struct host *h = calloc(1, sizeof *h);
    if (!h)
        return ST_NO_MEMORY;
    h->loop = loop;
    h->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    enum status st = h->ev ? create_context(h, protocols, error) : complain(error, "no epoll for libev");
    if (st != ST_OK) {
        host_destroy(h);
        return st;
    }
    start_watchers(h);
    *out = h;
    return ST_OK;
}

void host_destroy(struct host *h)
{
    if (!h)
        return;
    if (h->context)
        lws_context_destroy(h->context);
    if (h->ev) {
        stop_watchers(h);
        ev_loop_destroy(h->ev);
    }
    free(h);
}

/* --- sockets ------------------------------------------------------------------------------------ */

struct lws *host_adopt(struct host *h, int fd, void *opaque)
{
    lws_adopt_desc_t about;
    memset(&about, 0, sizeof about);
    about.vh = h->vhost;
    about.type = LWS_ADOPT_SOCKET | LWS_ADOPT_HTTP;
    about.fd.sockfd = fd;
    about.opaque = opaque;
    return lws_adopt_descriptor_vhost_via_info(&about);
}

void host_drop(struct lws *wsi)
{
    lws_set_opaque_user_data(wsi, NULL);
    lws_set_timeout(wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_SYNC);
}
