/* The limit that docs/PERFORMANCE.md compares with: a server that does nothing but what the kernel makes
 * everybody do. One epoll loop; a PUBLISH is forwarded as it came (to WebSocket subscribers: as one
 * pre-framed text frame) without a look at its topic; what a turn collects for one connection leaves in one
 * send.
 *
 *   bench_bare MODE MQTTPORT WSPORT     MODE fanout | pairs | fanin
 *
 * Subscribers are numbered as they subscribe, publishers as they first publish: in `pairs` the i-th
 * publisher's messages go to the i-th subscriber. With QoS 1 it acknowledges at once (no log). Not a broker:
 * it trusts its clients. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS_MAX = 20000, READ_BYTES = 65536, OUT_BYTES = 1 << 20, KEEP_BYTES = 4096 };

struct conn {
    int fd, publisher; /* publisher: index + 1 */
    bool ws, open, dirty;
    size_t kept, out_len, out_cap;
    uint8_t keep[KEEP_BYTES], *out;
    const uint8_t *shared; /* fan-out: a span of the shared bytes of this turn */
    size_t shared_len;
};

static struct conn conns[FDS_MAX], *dirty[FDS_MAX], *subs[FDS_MAX];
static int epoll_fd, sub_count, pub_count, dirty_count;
static bool fanout, fanin;
static uint8_t input[READ_BYTES + KEEP_BYTES], shared[OUT_BYTES], shared_ws[OUT_BYTES];
static size_t shared_len, shared_ws_len;

static void mark(struct conn *c)
{
    if (!c->dirty)
        dirty[dirty_count++] = c;
    c->dirty = true;
}

static void put(struct conn *c, const uint8_t *bytes, size_t len)
{
    if (c->out_len + len > c->out_cap) {
        c->out_cap = (c->out_len + len) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
    mark(c);
}

static void flush_all(void)
{
    for (int i = 0; i < dirty_count; i++) {
        struct conn *c = dirty[i];
        c->dirty = false;
        if (c->shared_len && c->open) {
            ssize_t n = send(c->fd, c->shared, c->shared_len, MSG_NOSIGNAL);
            (void)n;
        }
        c->shared_len = 0;
        size_t at = 0;
        while (at < c->out_len && c->open) {
            ssize_t n = send(c->fd, c->out + at, c->out_len - at, MSG_NOSIGNAL);
            if (n <= 0)
                break;
            at += (size_t)n;
        }
        c->out_len = 0;
    }
    dirty_count = 0;
    shared_len = 0;
    shared_ws_len = 0;
}

/* A text frame {"msg":{...}} of about the size that a real gateway sends: position, time and topic beside the
 * payload. */
static size_t ws_frame(const uint8_t *packet, size_t len, uint8_t *out)
{
    static const char envelope[] =
        "{\"msg\":{\"topic\":\"bench/all\",\"pos\":\"0123456789ab.0123456789abcdef\","
        "\"ts\":1790000000123,\"text\":\"";
    size_t body = sizeof envelope - 1 + 128 + 3;
    out[0] = 0x81;
    out[1] = 126;
    out[2] = (uint8_t)(body >> 8);
    out[3] = (uint8_t)body;
    memcpy(out + 4, envelope, sizeof envelope - 1);
    memcpy(out + 4 + sizeof envelope - 1, packet + len - 128, 128);
    memcpy(out + 4 + body - 3, "\"}}", 3);
    return body + 4;
}

static void forward(struct conn *from, const uint8_t *packet, size_t len)
{
    if (!from->publisher)
        from->publisher = ++pub_count;
    if (packet[0] & 0x06) {
        size_t head = 3, topic = (size_t)packet[3] << 8 | packet[4];
        uint8_t ack[] = {0x40, 2, packet[head + 2 + topic], packet[head + 3 + topic]};
        put(from, ack, sizeof ack);
    }
    size_t ws_at = shared_ws_len, at = shared_len;
    size_t ws_len = ws_frame(packet, len, shared_ws + ws_at);
    if (!fanout) {
        struct conn *to = subs[fanin ? 0 : (from->publisher - 1) % sub_count];
        if (to->ws)
            put(to, shared_ws + ws_at, ws_len);
        else
            put(to, packet, len);
        return;
    }
    memcpy(shared + shared_len, packet, len);
    shared_len += len;
    shared_ws_len += ws_len;
    for (int i = 0; i < sub_count; i++) {
        struct conn *c = subs[i];
        if (!c->shared_len)
            c->shared = c->ws ? shared_ws + ws_at : shared + at;
        c->shared_len += c->ws ? ws_len : len;
        mark(c);
    }
}

static size_t mqtt_unit(struct conn *c, const uint8_t *p, size_t len)
{
    size_t remaining = 0, n = 1;
    if (len < 2)
        return 0;
    for (unsigned shift = 0;; shift += 7) {
        if (n >= len)
            return 0;
        remaining |= (size_t)(p[n] & 0x7f) << shift;
        if (!(p[n++] & 0x80))
            break;
    }
    if (n + remaining > len)
        return 0;
    switch (p[0] >> 4) {
    case 1:
        put(c, (const uint8_t[]){0x20, 2, 0, 0}, 4);
        break;
    case 3:
        forward(c, p, n + remaining);
        break;
    case 8:
        subs[sub_count++] = c;
        put(c, (const uint8_t[]){0x90, 3, p[2], p[3], p[n + remaining - 1]}, 5);
        break;
    default:
        break;
    }
    return n + remaining;
}

static size_t ws_unit(struct conn *c, const uint8_t *p, size_t len)
{
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if (p[0] == 'G') {
        const uint8_t *end = memmem(p, len, "\r\n\r\n", 4);
        if (!end)
            return 0;
        put(c, (const uint8_t *)answer, sizeof answer - 1);
        return (size_t)(end - p) + 4;
    }
    if (len < 6 || len < 6u + (p[1] & 0x7f))
        return 0;
    subs[sub_count++] = c;
    put(c, (const uint8_t *)"\x81\x02{}", 4);
    return 6u + (p[1] & 0x7f);
}

static void on_readable(struct conn *c)
{
    memcpy(input, c->keep, c->kept);
    ssize_t n = recv(c->fd, input + c->kept, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close(c->fd);
        c->open = false;
        return;
    }
    size_t len = c->kept + (size_t)n, at = 0, used;
    while (at < len &&
           (used = c->ws ? ws_unit(c, input + at, len - at) : mqtt_unit(c, input + at, len - at)) > 0)
        at += used;
    c->kept = len - at;
    memcpy(c->keep, input + at, c->kept);
}

static int listen_on(unsigned port)
{
    const int on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 4096) != 0) {
        perror("bench_bare: listen");
        exit(1);
    }
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    return fd;
}

int main(int argc, char **argv)
{
    const int on = 1;
    if (argc != 4)
        return 2;
    struct rlimit files = {FDS_MAX, FDS_MAX};
    setrlimit(RLIMIT_NOFILE, &files);
    fanout = strcmp(argv[1], "fanout") == 0;
    fanin = strcmp(argv[1], "fanin") == 0;
    epoll_fd = epoll_create1(0);
    int mqtt = listen_on((unsigned)atoi(argv[2])), ws = listen_on((unsigned)atoi(argv[3]));
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[512];
        int n = epoll_wait(epoll_fd, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != mqtt && fd != ws) {
                on_readable(&conns[fd]);
                continue;
            }
            int got = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
            if (got < 0 || got >= FDS_MAX)
                continue;
            setsockopt(got, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            struct conn *c = &conns[got];
            uint8_t *out = c->out;
            size_t cap = c->out_cap;
            *c = (struct conn){.fd = got, .ws = fd == ws, .open = true, .out = out, .out_cap = cap};
            struct epoll_event e = {.events = EPOLLIN, .data.fd = got};
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, got, &e);
        }
        flush_all();
    }
}
