/* Many idle clients in one thread, for tests/bench/many_connections: it opens them, keeps them alive and cuts
 * them when it is told to on stdin, and says what became of it on stdout, a JSON object a line.
 *
 *   bench_many ws|wss|mqtt|mqtts PORT COUNT CONCURRENCY KEEP_ALIVE_S
 *     open        opens those that are not open, at most CONCURRENCY handshakes at a time; a refused attempt
 *                 (nobody listens) is tried again after 50 ms and counted as a retry, any other end of an
 *                 attempt is a failed one and not tried again
 *     idle S      S seconds of pings and their answers
 *     cut         closes all at once, by resets
 *     lost        waits until the server is gone and with it all connections
 *
 * MQTT clients send PINGREQ every KEEP_ALIVE_S, evenly spread; WebSockets answer the server's pings. Each
 * address 127.0.0.(2 + i % 8) has its share. Loads 127.0.0.1 only. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    COUNT_MAX = 19000,
    ADDRESSES = 8,
    KEEP_BYTES = 1024,
    EVENTS_MAX = 512,
    RETRY_MS = 50,
    ATTEMPT_S = 300
};

enum state { IDLE, DIALS, SHAKES, WAITS, OPEN, WAITS_TO_RETRY, FAILED };

struct client {
    int fd;
    unsigned number;
    enum state state;
    SSL *ssl;
    double due; /* retry, or the next PINGREQ */
    size_t kept;
    uint8_t keep[KEEP_BYTES]; /* the answer to the opening, or half a frame */
};

static struct {
    bool ws, tls;
    unsigned port, count, concurrency;
    double keep_alive_s;
    int epoll;
    SSL_CTX *context;
    struct client *clients;
    unsigned next, under_way, open, failed;
    uint64_t retries, pings, pongs;
    const char *why; /* the first failure */
} g;

static void die(const char *what)
{
    fprintf(stderr, "bench_many: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void watch(struct client *c, uint32_t events, int op)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(g.epoll, op, c->fd, &e) != 0)
        die("epoll_ctl");
}

static void drop(struct client *c, bool reset)
{
    const struct linger now = {1, 0};
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
    c->fd = -1;
    c->kept = 0;
}

static void fail(struct client *c, const char *why)
{
    g.why = g.why ? g.why : why;
    g.under_way -= c->state != OPEN;
    g.open -= c->state == OPEN;
    g.failed++;
    drop(c, false);
    c->state = FAILED;
}

static void retry(struct client *c)
{
    drop(c, false);
    g.retries++;
    c->state = WAITS_TO_RETRY;
    c->due = now_s() + RETRY_MS / 1000.0;
}

static void dial(struct client *c)
{
    const int on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + c->number % ADDRESSES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)g.port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0)
        die("bind");
    c->state = DIALS;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        retry(c);
    else
        watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void put(struct client *c, const void *bytes, size_t len)
{
    ssize_t n = c->ssl ? SSL_write(c->ssl, bytes, (int)len) : send(c->fd, bytes, len, MSG_NOSIGNAL);
    if (n != (ssize_t)len)
        fail(c, "what is sent does not fit");
}

static void say_hello(struct client *c)
{
    char text[256];
    int n;
    if (g.ws) {
        n = snprintf(text, sizeof text,
                     "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    } else {
        unsigned keep_alive = (unsigned)g.keep_alive_s * 2;
        int id = snprintf(text + 14, sizeof text - 14, "many%u", c->number);
        memcpy(text, "\x10?\0\4MQTT\4\2??\0?", 14);
        text[1] = (char)(12 + id);
        text[10] = (char)(keep_alive >> 8);
        text[11] = (char)keep_alive;
        text[13] = (char)id;
        n = 14 + id;
    }
    c->state = WAITS;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    put(c, text, (size_t)n);
}

static void shake(struct client *c)
{
    if (!c->ssl) {
        c->ssl = SSL_new(g.context);
        SSL_set_fd(c->ssl, c->fd);
    }
    int n = SSL_connect(c->ssl), why = SSL_get_error(c->ssl, n);
    if (n == 1)
        say_hello(c);
    else if (why == SSL_ERROR_WANT_READ)
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    else if (why != SSL_ERROR_WANT_WRITE)
        fail(c, "TLS handshake");
}

static void on_dialled(struct client *c)
{
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        if (error == ECONNREFUSED)
            retry(c);
        else
            fail(c, strerror(error));
        return;
    }
    c->state = g.tls ? SHAKES : WAITS;
    if (g.tls)
        shake(c);
    else
        say_hello(c);
}

/* A WebSocket that has asked for nothing is closed after a while: so it says something that has no answer. */
static void say_something(struct client *c)
{
    static const char text[] = "{\"ack\":{\"n\":0}}";
    uint8_t frame[6 + sizeof text] = {0x81, 0x80 | (sizeof text - 1)}; /* its mask is 0 */
    memcpy(frame + 6, text, sizeof text - 1);
    put(c, frame, 6 + sizeof text - 1);
}

static void on_open(struct client *c)
{
    c->state = OPEN;
    c->kept = 0;
    c->due = now_s() + g.keep_alive_s * (c->number + 1) / g.count;
    g.open++;
    g.under_way--;
}

/* A WebSocket that makes no request is closed after ws.hello_timeout_ms. Without `id` it has no answer. */
static void make_request(struct client *c)
{
    static const char text[] = "{\"hello\":{}}";
    uint8_t frame[6 + sizeof text - 1] = {0x81, 0x80 | (sizeof text - 1)}; /* masked with zeroes */
    memcpy(frame + 6, text, sizeof text - 1);
    put(c, frame, sizeof frame);
}

static void on_answer(struct client *c)
{
    static const char upgraded[] = "HTTP/1.1 101";
    if (g.ws) {
        if (c->kept < 4 || memcmp(c->keep + c->kept - 4, "\r\n\r\n", 4) != 0)
            return;
        if (memcmp(c->keep, upgraded, sizeof upgraded - 1) != 0) {
            fail(c, "the upgrade was refused");
            return;
        }
        say_something(c);
        if (c->state == FAILED)
            return;
    } else if (c->kept < 4) {
        return;
    } else if (memcmp(c->keep, "\x20\2\0\0", 4) != 0) {
        fail(c, "CONNACK");
        return;
    }
    on_open(c);
    if (g.ws)
        make_request(c);
}

/* Frames of the server are small and come whole, or nearly. */
static void on_frames(struct client *c)
{
    size_t at = 0;
    while (c->kept - at >= 2 && c->kept - at >= 2u + (c->keep[at + 1] & 127)) {
        uint8_t *f = c->keep + at, pong[131] = {0x8A, (uint8_t)(0x80 | f[1])};
        at += 2u + (f[1] & 127);
        g.pongs += !g.ws && f[0] == 0xD0;
        if (!g.ws || f[0] != 0x89)
            continue;
        memcpy(pong + 6, f + 2, f[1]);
        g.pongs++;
        put(c, pong, 6u + f[1]);
        if (c->state != OPEN)
            return;
    }
    memmove(c->keep, c->keep + at, c->kept - at);
    c->kept -= at;
}

static void on_readable(struct client *c)
{
    for (;;) {
        size_t room = KEEP_BYTES - c->kept;
        ssize_t n =
            c->ssl ? SSL_read(c->ssl, c->keep + c->kept, (int)room) : recv(c->fd, c->keep + c->kept, room, 0);
        bool later =
            n < 0 && (c->ssl ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ : errno == EAGAIN);
        if (later)
            return;
        if (n <= 0) {
            fail(c, c->state == OPEN ? "the server closed one" : "the server closed one that was opening");
            return;
        }
        c->kept += (size_t)n;
        if (c->state == WAITS)
            on_answer(c);
        if (c->state == OPEN)
            on_frames(c);
        if (c->state == FAILED)
            return;
    }
}

static void on_event(struct client *c)
{
    if (c->state == DIALS)
        on_dialled(c);
    else if (c->state == SHAKES)
        shake(c);
    else if (c->state == WAITS || c->state == OPEN)
        on_readable(c);
}

static void turn(int wait_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(g.epoll, events, EVENTS_MAX, wait_ms);
    for (int i = 0; i < n; i++)
        on_event(events[i].data.ptr);
}

static void start_more(void)
{
    double now = now_s();
    for (unsigned seen = 0; seen < g.count && g.under_way < g.concurrency; seen++) {
        struct client *c = &g.clients[g.next];
        g.next = (g.next + 1) % g.count;
        if (c->state == WAITS_TO_RETRY)
            continue; /* is under way */
        if (c->state != IDLE)
            continue;
        g.under_way++;
        dial(c);
    }
    for (unsigned i = 0; i < g.count && g.retries > 0; i++)
        if (g.clients[i].state == WAITS_TO_RETRY && g.clients[i].due <= now)
            dial(&g.clients[i]);
}

static void cmd_open(void)
{
    double start = now_s();
    g.retries = 0;
    g.failed = 0;
    while (g.open + g.failed < g.count && now_s() < start + ATTEMPT_S) {
        start_more();
        turn(10);
    }
    printf("{\"open\":%u,\"failed\":%u,\"retries\":%lu,\"seconds\":%.3f,\"why\":\"%s\"}\n", g.open,
           g.count - g.open, (unsigned long)g.retries, now_s() - start, g.why ? g.why : "");
}

static void cmd_idle(double seconds)
{
    double end = now_s() + seconds;
    g.pings = g.pongs = 0;
    while (now_s() < end) {
        turn(20);
        double now = now_s();
        for (unsigned i = 0; i < g.count && !g.ws; i++) {
            struct client *c = &g.clients[i];
            if (c->state != OPEN || c->due > now)
                continue;
            c->due += g.keep_alive_s;
            g.pings++;
            put(c, "\xC0\0", 2);
        }
    }
    printf("{\"open\":%u,\"pings\":%lu,\"pongs\":%lu}\n", g.open, (unsigned long)g.pings,
           (unsigned long)g.pongs);
}

static void forget_all(void)
{
    for (unsigned i = 0; i < g.count; i++) {
        if (g.clients[i].fd >= 0)
            drop(&g.clients[i], true);
        g.clients[i].state = IDLE;
    }
    g.open = g.under_way = 0;
}

static void cmd_cut(void)
{
    double start = now_s();
    forget_all();
    printf("{\"seconds\":%.3f}\n", now_s() - start);
}

static void cmd_lost(void)
{
    unsigned had = g.open;
    double end = now_s() + ATTEMPT_S;
    while (g.open > 0 && now_s() < end)
        turn(20);
    printf("{\"had\":%u,\"left\":%u}\n", had, g.open);
    forget_all();
    g.why = NULL;
}

static void set_up(void)
{
    const struct rlimit files = {20000, 20000};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    g.epoll = epoll_create1(0);
    g.clients = calloc(g.count, sizeof *g.clients);
    g.context = SSL_CTX_new(TLS_client_method());
    if (g.epoll < 0 || !g.clients || !g.context)
        die("set-up");
    SSL_CTX_set_mode(g.context, SSL_MODE_RELEASE_BUFFERS);
    for (unsigned i = 0; i < g.count; i++) {
        g.clients[i].fd = -1;
        g.clients[i].number = i;
    }
}

int main(int argc, char **argv)
{
    char text[64];
    if (argc != 6) {
        fprintf(stderr, "usage: bench_many ws|wss|mqtt|mqtts PORT COUNT CONCURRENCY KEEP_ALIVE_S\n");
        return 2;
    }
    g.ws = strncmp(argv[1], "ws", 2) == 0;
    g.tls = argv[1][strlen(argv[1]) - 1] == 's' && strcmp(argv[1], "ws") != 0;
    g.port = (unsigned)atoi(argv[2]);
    g.count = (unsigned)atoi(argv[3]);
    g.concurrency = (unsigned)atoi(argv[4]);
    g.keep_alive_s = atof(argv[5]);
    if (g.count < 1 || g.count > COUNT_MAX)
        die("COUNT is 1 to 19,000");
    set_up();
    while (fgets(text, sizeof text, stdin)) {
        if (strncmp(text, "open", 4) == 0)
            cmd_open();
        else if (strncmp(text, "idle ", 5) == 0)
            cmd_idle(atof(text + 5));
        else if (strncmp(text, "cut", 3) == 0)
            cmd_cut();
        else if (strncmp(text, "lost", 4) == 0)
            cmd_lost();
        else
            die("an unknown command");
        fflush(stdout);
    }
    return 0;
}
