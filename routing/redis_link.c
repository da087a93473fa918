/* hiredis reads the replies (redisReader); the socket is ours. Its own asynchronous contexts read and write
 * the descriptor themselves in 0.14, so TLS could not come between, and they write once a command's callback
 * instead of once a turn.
 *
 *   ask: command -> out           turn's end: out -> socket          readable: socket -> reader -> replies
 *
 * A server is outside: how much of a reply is kept is bounded in bytes and, against arrays that only claim to
 * be large, in elements. */
#include "routing/redis_link.h"

#include "core/buf.h"
#include "routing/redis_tls_private.h"

#include <assert.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, READS_A_TURN = 8, WHY_BYTES = 200 };

/* hiredis 0.14 counts elements by int, 1.x by size_t. */
#if HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

struct asked {
    void (*on_reply)(void *ctx, void *subject, const struct redisReply *r);
    void *ctx, *subject;
    uint64_t at_ms, at_ns;
};

enum link_state { LINK_CONNECTING, LINK_SHAKING, LINK_OPEN, LINK_DOWN };

struct redis_link {
    struct loop *loop;
    struct metrics *metrics;
    const struct redis_link_ops *ops;
    void *ctx;
    enum link_state state;
    struct loop_watch watch;
    struct loop_hook hook;
    bool blocked; /* the socket takes no more: EPOLLOUT is awaited */
    bool busy, closed; /* inside a callback: redis_link_close only marks */
    uint64_t began_ms;
    SSL *ssl; /* NULL: plain */
    redisReader *reader;
    redisReplyObjectFunctions functions;
    size_t elements; /* claimed by the reply that is being read */
    void *(*create_array)(const redisReadTask *task, element_count count);
    struct buf out;
    unsigned first, count; /* ring of `asked` */
    struct asked asked[REDIS_LINK_OPEN_MAX];
};

/* --- end ---------------------------------------------------------------------------------------- */

static void link_free(struct redis_link *l)
{
    SSL_free(l->ssl);
    if (l->reader)
        redisReaderFree(l->reader);
    buf_deinit(&l->out);
    free(l);
}

static void let_go(struct redis_link *l)
{
    if (l->watch.fd < 0)
        return;
    loop_watch_remove(l->loop, &l->watch);
    loop_hook_remove(l->loop, &l->hook);
    close(l->watch.fd);
    l->watch.fd = -1;
}

void redis_link_close(struct redis_link *l)
{
    if (!l)
        return;
    let_go(l);
    l->state = LINK_DOWN;
    l->closed = true;
    if (!l->busy)
        link_free(l);
}

/* Only from a callback of the loop, with l->busy set. */
static void go_down(struct redis_link *l, const char *why)
{
    if (l->state == LINK_DOWN)
        return;
    l->state = LINK_DOWN;
    let_go(l);
    l->ops->on_down(l->ctx, why);
}

static void go_down_errno(struct redis_link *l, const char *what, int code)
{
    char why[WHY_BYTES], text[100];
    snprintf(why, sizeof why, "%s: %s", what, strerror_r(code, text, sizeof text));
    go_down(l, why);
}

static void go_down_tls(struct redis_link *l)
{
    char why[WHY_BYTES], text[WHY_BYTES - 10];
    snprintf(why, sizeof why, "TLS: %s", redis_tls_why(l->ssl, text, sizeof text));
    go_down(l, why);
}

/* --- replies ------------------------------------------------------------------------------------ */

static void *create_array(const redisReadTask *task, element_count count)
{
    struct redis_link *l = task->privdata;
    size_t elements = (size_t)count; /* below 0, which hiredis 0.14 has room for, is too many as well */
    if (elements > REDIS_REPLY_ELEMENTS_MAX - l->elements)
        return NULL;
    l->elements += elements;
    return l->create_array(task, count);
}

static enum status make_reader(struct redis_link *l)
{
    l->reader = redisReaderCreate();
    if (!l->reader)
        return ST_NO_MEMORY;
    l->functions = *l->reader->fn;
    l->create_array = l->functions.createArray;
    l->functions.createArray = create_array;
    l->reader->fn = &l->functions;
    l->reader->privdata = l;
    return ST_OK;
}

static void settle(struct redis_link *l, redisReply *reply)
{
    uint64_t now_ns = clock_mono_ns(loop_clock(l->loop));
    struct asked a = l->asked[l->first];
    l->first = (l->first + 1) % REDIS_LINK_OPEN_MAX;
    l->count--;
    histogram_record(l->metrics, H_REDIS_SECONDS, now_ns - a.at_ns);
    if (reply->type == REDIS_REPLY_ERROR)
        metric_add(l->metrics, M_REDIS_ERRORS, 1);
    a.on_reply(a.ctx, a.subject, reply);
}

static void take_replies(struct redis_link *l)
{
    for (;;) {
        void *reply = NULL;
        if (l->state == LINK_DOWN)
            return;
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK) {
            go_down(l, "what it has sent is no reply, or too large a one");
            return;
        }
        if (!reply)
            break;
        l->elements = 0;
        if (l->count > 0)
            settle(l, reply);
        else
            go_down(l, "it has sent a reply that nobody has asked for");
        freeReplyObject(reply);
    }
    if (l->reader->len - l->reader->pos > REDIS_REPLY_BYTES_MAX)
        go_down(l, "a reply is too large");
}

/* --- the socket --------------------------------------------------------------------------------- */

static void want_output(struct redis_link *l, bool wanted)
{
    if (l->blocked == wanted || l->state == LINK_DOWN)
        return;
    l->blocked = wanted;
    loop_watch_set(l->loop, &l->watch, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Bytes read; 0: not now; -1: it has gone down. */
static ssize_t link_read(struct redis_link *l, char *to, size_t size)
{
    if (!l->ssl) {
        ssize_t n = recv(l->watch.fd, to, size, 0);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
            return n > 0 ? n : 0;
        if (n == 0)
            go_down(l, "it has closed the connection");
        else
            go_down_errno(l, "read", errno);
        return -1;
    }
    int n = SSL_read(l->ssl, to, (int)size);
    if (n > 0)
        return n;
    int code = SSL_get_error(l->ssl, n);
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
        want_output(l, code == SSL_ERROR_WANT_WRITE || l->out.len > 0);
        return 0;
    }
    go_down_tls(l);
    return -1;
}

static ssize_t link_write(struct redis_link *l)
{
    if (!l->ssl) {
        ssize_t n = send(l->watch.fd, l->out.data, l->out.len, MSG_NOSIGNAL);
        if (n >= 0 || errno == EAGAIN || errno == EINTR)
            return n > 0 ? n : 0;
        go_down_errno(l, "write", errno);
        return -1;
    }
    int n = SSL_write(l->ssl, l->out.data, (int)l->out.len);
    if (n > 0)
        return n;
    int code = SSL_get_error(l->ssl, n);
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
        return 0;
    go_down_tls(l);
    return -1;
}

static void flush(struct redis_link *l)
{
    if (l->state != LINK_OPEN || l->out.len == 0)
        return;
    ssize_t n = link_write(l);
    if (n < 0)
        return;
    buf_consume(&l->out, (size_t)n);
    want_output(l, l->out.len > 0);
}

static void take_input(struct redis_link *l)
{
    char bytes[READ_BYTES];
    for (unsigned i = 0; i < READS_A_TURN && l->state == LINK_OPEN; i++) {
        ssize_t n = link_read(l, bytes, sizeof bytes);
        if (n <= 0)
            return;
        if (redisReaderFeed(l->reader, bytes, (size_t)n) != REDIS_OK) {
            go_down(l, "no memory");
            return;
        }
        take_replies(l);
        if ((size_t)n < sizeof bytes && !l->ssl)
            return;
    }
}

static void shake(struct redis_link *l)
{
    int n = SSL_do_handshake(l->ssl);
    if (n == 1) {
        l->state = LINK_OPEN;
        want_output(l, false);
        l->ops->on_open(l->ctx);
        return;
    }
    int code = SSL_get_error(l->ssl, n);
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
        want_output(l, code == SSL_ERROR_WANT_WRITE);
    else
        go_down_tls(l);
}

static void connected(struct redis_link *l)
{
    int code = 0, on = 1;
    socklen_t len = sizeof code;
    if (getsockopt(l->watch.fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0)
        code = errno;
    if (code != 0) {
        go_down_errno(l, "connect", code);
        return;
    }
    setsockopt(l->watch.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    l->state = l->ssl ? LINK_SHAKING : LINK_OPEN;
    if (l->ssl) {
        shake(l);
        return;
    }
    want_output(l, false);
    l->ops->on_open(l->ctx);
}

static void end_callback(struct redis_link *l)
{
    l->busy = false;
    if (l->closed)
        link_free(l);
}

static void on_event(struct loop_watch *w, uint32_t events)
{
    struct redis_link *l = LIST_OF(w, struct redis_link, watch);
    l->busy = true;
    if (l->state == LINK_CONNECTING) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            connected(l);
    } else if (l->state == LINK_SHAKING) {
        shake(l);
    } else {
        if (events & EPOLLOUT)
            flush(l);
        if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            take_input(l);
    }
    end_callback(l);
}

/* True would mean "come again at once": what TLS has read beyond READS_A_TURN is not seen by epoll. */
static bool on_turn_end(struct loop_hook *h)
{
    struct redis_link *l = LIST_OF(h, struct redis_link, hook);
    bool more;
    l->busy = true;
    if (l->ssl && l->state == LINK_OPEN && SSL_pending(l->ssl) > 0)
        take_input(l);
    if (!l->blocked)
        flush(l);
    more = l->state == LINK_OPEN && l->ssl && SSL_pending(l->ssl) > 0;
    end_callback(l);
    return more;
}

/* --- the port ----------------------------------------------------------------------------------- */

static int begin_connect(const struct sockaddr *address, socklen_t len)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, address, len) != 0 && errno != EINPROGRESS) {
        int code = errno;
        close(fd);
        errno = code;
        return -1;
    }
    return fd;
}

enum status redis_link_open(struct loop *loop, struct metrics *metrics, const struct sockaddr *address,
                            socklen_t address_len, struct redis_tls *tls, const char *host,
                            const struct redis_link_ops *ops, void *ctx, struct redis_link **out)
{
    struct redis_link *l = calloc(1, sizeof *l);
    if (!l)
        return ST_NO_MEMORY;
    enum status st = make_reader(l);
    l->loop = loop;
    l->metrics = metrics;
    l->ops = ops;
    l->ctx = ctx;
    l->began_ms = loop_now_ms(loop);
    l->blocked = true; /* until it is connected */
    buf_init(&l->out, REDIS_LINK_OUT_BYTES_MAX);
    l->watch = (struct loop_watch){.fd = -1, .on_event = on_event};
    l->hook.on_turn_end = on_turn_end;
    if (st == ST_OK && (l->watch.fd = begin_connect(address, address_len)) < 0)
        st = ST_IO;
    if (st == ST_OK && tls && !(l->ssl = redis_tls_begin(tls, l->watch.fd, host)))
        st = ST_NO_MEMORY;
    if (st == ST_OK)
        st = loop_watch_add(loop, &l->watch, EPOLLIN | EPOLLOUT);
    if (st != ST_OK) {
        if (l->watch.fd >= 0)
            close(l->watch.fd);
        link_free(l);
        return st;
    }
    loop_hook_add(loop, &l->hook);
    *out = l;
    return ST_OK;
}

static enum status put_command(struct buf *out, const struct slice *arguments, unsigned count)
{
    enum status st = buf_printf(out, "*%u\r\n", count);
    for (unsigned i = 0; i < count && st == ST_OK; i++) {
        st = buf_printf(out, "$%zu\r\n", arguments[i].len);
        if (st == ST_OK)
            st = buf_put(out, arguments[i]);
        if (st == ST_OK)
            st = buf_put_cstr(out, "\r\n");
    }
    return st;
}

enum status redis_link_ask(struct redis_link *l, const struct slice *arguments, unsigned count,
                           void (*on_reply)(void *ctx, void *subject, const struct redisReply *r), void *ctx,
                           void *subject)
{
    size_t before = l->out.len;
    assert(count > 0 && count <= REDIS_ARGUMENTS_MAX);
    if (l->count == REDIS_LINK_OPEN_MAX || l->state != LINK_OPEN)
        return ST_FULL;
    enum status st = put_command(&l->out, arguments, count);
    if (st != ST_OK) {
        l->out.len = before; /* half a command must not go out */
        return st;
    }
    l->asked[(l->first + l->count++) % REDIS_LINK_OPEN_MAX] =
        (struct asked){.on_reply = on_reply,
                       .ctx = ctx,
                       .subject = subject,
                       .at_ms = loop_now_ms(l->loop),
                       .at_ns = clock_mono_ns(loop_clock(l->loop))};
    metric_add(l->metrics, M_REDIS_COMMANDS, 1);
    return ST_OK;
}

unsigned redis_link_open_count(const struct redis_link *l)
{
    return l->count;
}

uint64_t redis_link_owed_since_ms(const struct redis_link *l)
{
    if (l->state == LINK_CONNECTING || l->state == LINK_SHAKING)
        return l->began_ms;
    return l->count > 0 ? l->asked[l->first].at_ms : UINT64_MAX;
}
