/* Load for the throughput table of docs/PERFORMANCE.md: subscribers and publishers on loopback, in one
 * thread, and the server's CPU time while they run.
 *
 *   bench_load MODE PROTO PORT PUBPORT SUBS PUBS QOS WINDOW SECONDS PID [RATE]
 *     MODE   fanout  every subscriber gets every message of the one publisher
 *            pairs   subscriber i gets the messages of publisher i
 *            fanin   the one subscriber gets the messages of all publishers
 *     PROTO  mqtt | ws   what subscribers speak (PORT); publishers speak MQTT (PUBPORT)
 *     WINDOW messages a publisher sends in one write before it waits until all of them have arrived (and,
 * with QoS 1 and 2, are acknowledged to the end) RATE   messages a second of the publisher, instead of a
 * window (fanout)
 *
 * Prints one JSON object. Loads 127.0.0.1 only; ends by itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAYLOAD_BYTES = 128, KEEP_BYTES = 16384, READ_BYTES = 262144, WINDOW_MAX = 64, CONNS_MAX = 20000 };

enum role { SUBSCRIBER, PUBLISHER };
struct peer {
    int fd;
    enum role role;
    bool ready;
    unsigned index;
    unsigned acked, received, sent; /* of the present window */
    size_t kept;
    uint8_t *keep; /* an incomplete packet */
};

static struct {
    bool ws, fanout, fanin;
    unsigned subs, pubs, qos, window;
    double seconds, rate;
    int server_pid, epoll;
    struct peer *peers;
    uint64_t delivered, published;
} g;
static uint8_t read_space[READ_BYTES + KEEP_BYTES];

static void die(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* User and system time of all threads, seconds, by the scheduler's nanosecond account where there is one. */
static double server_cpu_s(void)
{
    char path[64], line[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", g.server_pid);
    FILE *f = fopen(path, "r");
    if (!f)
        die("no such server");
    if (!fgets(line, sizeof line, f))
        die("stat");
    fclose(f);
    sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void send_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            usleep(100);
            continue;
        }
        if (n <= 0)
            die("send");
        bytes += n;
        len -= (size_t)n;
    }
}

static int dial(unsigned port)
{
    const int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void recv_exactly(int fd, uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(fd, bytes, len, 0);
        if (n <= 0)
            die("the server closed during set-up");
        bytes += n;
        len -= (size_t)n;
    }
}

static size_t topic_of(unsigned index, char *out)
{
    return (size_t)sprintf(out, g.fanout || g.fanin ? "bench/all" : "bench/%u", index);
}

static void mqtt_connect(int fd, const char *kind, unsigned index)
{
    uint8_t packet[64], answer[4];
    int id = snprintf((char *)packet + 14, 40, "%s%u", kind, index);
    memcpy(packet,
           (const uint8_t[]){0x10, (uint8_t)(12 + id), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, (uint8_t)id},
           14);
    send_all(fd, packet, 14 + (size_t)id);
    recv_exactly(fd, answer, 4);
    if (answer[0] != 0x20 || answer[3] != 0)
        die("CONNACK");
}

static void mqtt_subscribe(int fd, unsigned index)
{
    uint8_t packet[64] = {0x82}, answer[5];
    char topic[32];
    size_t len = topic_of(index, topic);
    packet[1] = (uint8_t)(len + 5);
    packet[3] = 1;
    packet[5] = (uint8_t)len;
    memcpy(packet + 6, topic, len);
    packet[6 + len] = (uint8_t)g.qos;
    send_all(fd, packet, len + 7);
    recv_exactly(fd, answer, 5);
    if (answer[0] != 0x90 || answer[4] == 0x80)
        die("SUBACK");
}

static void ws_subscribe(int fd, unsigned port, unsigned index)
{
    char request[512], text[128], topic[32];
    uint8_t frame[160], byte = 0, head[4];
    int n = snprintf(request, sizeof request,
                     "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     port);
    send_all(fd, (uint8_t *)request, (size_t)n);
    for (unsigned matched = 0; matched < 4;) {
        recv_exactly(fd, &byte, 1);
        matched = byte == (uint8_t) "\r\n\r\n"[matched] ? matched + 1 : byte == '\r';
    }
    topic[topic_of(index, topic)] = '\0';
    n = snprintf(text, sizeof text, "{\"id\":1,\"sub\":{\"topic\":\"%s\"}}", topic);
    frame[0] = 0x81;
    frame[1] = (uint8_t)(0x80 | n); /* masked with zeroes */
    memset(frame + 2, 0, 4);
    memcpy(frame + 6, text, (size_t)n);
    send_all(fd, frame, (size_t)n + 6);
    recv_exactly(fd, head, 2);
    recv_exactly(fd, frame, head[1]);
}

/* Bytes of the MQTT packet or WebSocket frame at the start, 0 when incomplete. *message: is it a delivery? */
static size_t unit_bytes(const uint8_t *p, size_t len, bool ws, bool *message)
{
    *message = false;
    if (len < 2)
        return 0;
    if (!ws) {
        size_t remaining = 0, n = 1;
        for (unsigned shift = 0;; shift += 7) {
            if (n >= len)
                return 0;
            remaining |= (size_t)(p[n] & 0x7f) << shift;
            if (!(p[n++] & 0x80))
                break;
        }
        *message = (p[0] & 0xf0) == 0x30;
        return n + remaining <= len ? n + remaining : 0;
    }
    size_t body = p[1] & 0x7f, head = 2;
    if (body == 126) {
        if (len < 4)
            return 0;
        body = (size_t)p[2] << 8 | p[3];
        head = 4;
    } else if (body == 127) {
        if (len < 10)
            return 0;
        body = (size_t)p[6] << 24 | (size_t)p[7] << 16 | (size_t)p[8] << 8 | p[9];
        head = 10;
    }
    *message = p[0] == 0x81 && body > 16 && memcmp(p + head, "{\"msg\"", 6) == 0;
    return head + body <= len ? head + body : 0;
}

static void publish_window(struct peer *p, unsigned count)
{
    static uint8_t out[WINDOW_MAX * 192];
    char topic[32];
    size_t topic_len = topic_of(p->index, topic), n = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t remaining = 2 + topic_len + (g.qos ? 2 : 0) + PAYLOAD_BYTES;
        out[n++] = (uint8_t)(0x30 | g.qos << 1);
        out[n++] = (uint8_t)(remaining | 0x80);
        out[n++] = (uint8_t)(remaining >> 7);
        out[n++] = 0;
        out[n++] = (uint8_t)topic_len;
        memcpy(out + n, topic, topic_len);
        n += topic_len;
        if (g.qos) {
            out[n++] = 0;
            out[n++] = (uint8_t)(i + 1);
        }
        memset(out + n, 'x', PAYLOAD_BYTES);
        n += PAYLOAD_BYTES;
    }
    p->sent = count;
    p->acked = 0;
    p->received = 0;
    g.published += count;
    send_all(p->fd, out, n);
}

/* The publisher whose window a message to subscriber `index` belongs to (fan-in: unknown, the first that
 * waits). */
static struct peer *publisher(unsigned index)
{
    return &g.peers[g.subs + (g.fanout ? 0 : index)];
}

static void window_step(struct peer *pub)
{
    unsigned want = pub->sent * (g.fanout ? g.subs : 1);
    if (g.rate > 0 || !pub->ready)
        return;
    if ((g.fanin || pub->received >= want) && (!g.qos || pub->acked >= pub->sent))
        publish_window(pub, g.window);
}

/* What the packet is answered with: PUBACK or PUBREC for a PUBLISH, PUBREL, PUBCOMP. How many bytes. */
static size_t answer_to(const uint8_t *packet, uint8_t *out)
{
    static const uint8_t answers[16] = {[5] = 0x62, [6] = 0x70};
    unsigned type = packet[0] >> 4, qos = packet[0] >> 1 & 3;
    uint8_t first = type == 3 ? (uint8_t[]){0, 0x40, 0x50, 0}[qos] : answers[type];
    if (!first)
        return 0;
    size_t id = 1;
    while (packet[id++] & 0x80)
        ;
    if (type == 3)
        id += 2 + ((size_t)packet[id] << 8 | packet[id + 1]);
    memcpy(out, (const uint8_t[]){first, 2, packet[id], packet[id + 1]}, 4);
    return 4;
}

static void on_readable(struct peer *p)
{
    uint8_t acks[READ_BYTES / 2];
    size_t ack_bytes = 0, at = 0, used;
    bool message;
    if (p->kept)
        memcpy(read_space, p->keep, p->kept);
    ssize_t n = recv(p->fd, read_space + p->kept, READ_BYTES, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        die("the server closed");
    size_t len = p->kept + (size_t)n;
    bool ws = g.ws && p->role == SUBSCRIBER;
    while ((used = unit_bytes(read_space + at, len - at, ws, &message)) > 0) {
        const uint8_t *unit = read_space + at;
        at += used;
        if (p->role == PUBLISHER) {
            p->acked += unit[0] == (g.qos == 2 ? 0x70 : 0x40);
            ack_bytes += answer_to(unit, acks + ack_bytes);
        } else if (message) {
            g.delivered++;
            if (!g.fanin)
                publisher(p->index)->received++;
            if (!ws)
                ack_bytes += answer_to(unit, acks + ack_bytes);
        } else if (!ws) {
            ack_bytes += answer_to(unit, acks + ack_bytes);
        }
    }
    p->kept = len - at;
    if (p->kept > KEEP_BYTES)
        die("a unit larger than this load knows");
    if (p->kept)
        memcpy(p->keep, read_space + at, p->kept);
    if (ack_bytes)
        send_all(p->fd, acks, ack_bytes);
    if (g.fanin && p->role == SUBSCRIBER) {
        /* All publishers go on when all their windows have arrived. */
        if (g.delivered >= g.published)
            for (unsigned i = 0; i < g.pubs; i++)
                publish_window(&g.peers[g.subs + i], g.window);
    } else {
        window_step(p->role == PUBLISHER ? p : publisher(p->index));
    }
}

static void set_up(unsigned port, unsigned publish_port)
{
    g.epoll = epoll_create1(0);
    g.peers = calloc(g.subs + g.pubs, sizeof *g.peers);
    for (unsigned i = 0; i < g.subs + g.pubs; i++) {
        struct peer *p = &g.peers[i];
        p->role = i < g.subs ? SUBSCRIBER : PUBLISHER;
        p->index = i < g.subs ? i : i - g.subs;
        p->keep = malloc(KEEP_BYTES);
        p->ready = true;
        p->fd = dial(p->role == SUBSCRIBER ? port : publish_port);
        if (p->role == PUBLISHER) {
            mqtt_connect(p->fd, "pub", p->index);
        } else if (g.ws) {
            ws_subscribe(p->fd, port, p->index);
        } else {
            mqtt_connect(p->fd, "sub", p->index);
            mqtt_subscribe(p->fd, p->index);
        }
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
        if (epoll_ctl(g.epoll, EPOLL_CTL_ADD, p->fd, &e) != 0)
            die("epoll_ctl");
    }
}

static void run_until(double end)
{
    static double next_publish;
    struct epoll_event events[512];
    while (now_s() < end) {
        if (g.rate > 0) {
            double now = now_s();
            if (next_publish == 0)
                next_publish = now;
            while (now >= next_publish) {
                publish_window(&g.peers[g.subs], 1);
                next_publish += 1 / g.rate;
            }
        }
        int n = epoll_wait(g.epoll, events, 512, g.rate > 0 ? 1 : 100);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    if (argc < 11) {
        fprintf(stderr,
                "usage: bench_load MODE PROTO PORT PUBPORT SUBS PUBS QOS WINDOW SECONDS PID [RATE]\n");
        return 2;
    }
    struct rlimit files = {CONNS_MAX, CONNS_MAX};
    setrlimit(RLIMIT_NOFILE, &files);
    g.fanout = strcmp(argv[1], "fanout") == 0;
    g.fanin = strcmp(argv[1], "fanin") == 0;
    g.ws = strcmp(argv[2], "ws") == 0;
    g.subs = (unsigned)atoi(argv[5]);
    g.pubs = (unsigned)atoi(argv[6]);
    g.qos = (unsigned)atoi(argv[7]);
    g.window = (unsigned)atoi(argv[8]);
    g.seconds = atof(argv[9]);
    g.server_pid = atoi(argv[10]);
    g.rate = argc > 11 ? atof(argv[11]) : 0;
    if (g.window < 1 || g.window > WINDOW_MAX || g.qos > 2)
        die("window is 1 to 64, qos 0 to 2");
    set_up((unsigned)atoi(argv[3]), (unsigned)atoi(argv[4]));
    if (g.rate == 0)
        for (unsigned i = 0; i < g.pubs; i++)
            publish_window(&g.peers[g.subs + i], g.window);
    run_until(now_s() + 0.3); /* warm */
    uint64_t before = g.delivered;
    double cpu = server_cpu_s(), start = now_s();
    run_until(start + g.seconds);
    cpu = server_cpu_s() - cpu;
    double wall = now_s() - start;
    uint64_t count = g.delivered - before;
    printf("{\"deliveries\":%lu,\"wall_s\":%.3f,\"cpu_s\":%.3f,\"per_cpu_s\":%.0f,\"per_s\":%.0f}\n",
           (unsigned long)count, wall, cpu, cpu > 0 ? (double)count / cpu : 0, (double)count / wall);
    return 0;
}
