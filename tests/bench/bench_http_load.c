/* bench.http_load: POSTs over keep-alive connections, one request at a time on each, and tells what an answer
 * cost and how long it took.
 *
 *   bench.http_load [-c conns] [-d seconds] [-b body_bytes] [-r per_second] [-u path] [-H header]... [-t pid]
 * port
 *
 * Without -r every connection sends its next request as soon as it has its answer (throughput, CPU per
 * request). With -r request k is due at k/rate, whatever the server does, and its time counts from when
 * it was due, so that a stall is seen by every request it delays (no coordinated omission). With -t the
 * server's CPU time (user + system, from /proc) is divided by the answers. Only 127.0.0.1 is ever asked.
 *
 * One thread, one epoll. An answer is a status line and a Content-Length body; anything else, and any
 * status but 2xx, counts as an error, and the connection is closed and opened again. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNS_MAX = 20000,
    ANSWER_BYTES_MAX = 4096,
    EVENTS_MAX = 256,
    REQUEST_HEAD_BYTES_MAX = 4096,
    /* Latency buckets: 16 per power of two of nanoseconds, an error of at most 1/16. */
    SUB_BITS = 4,
    BUCKETS = 64 << SUB_BITS,
};

struct conn {
    int fd;
    bool connecting;
    uint64_t due_ns; /* 0: idle */
    size_t sent_bytes;
    size_t got_bytes;
    struct conn *idle_next;
    char got[ANSWER_BYTES_MAX];
};

struct load {
    uint16_t port;
    unsigned conns_count;
    unsigned seconds;
    size_t body_bytes;
    double per_second; /* 0: as fast as the answers come */
    const char *path;
    pid_t server;

    char *request;
    size_t request_bytes;
    int epoll_fd;
    struct conn *conns;
    struct conn *idle;
    uint64_t start_ns, stop_ns;
    uint64_t issued, answered, errors;
    uint64_t buckets[BUCKETS];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* User + system time of a process so far, in seconds; fields 14 and 15 of proc(5) stat. */
static double process_cpu_s(pid_t pid)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f || !fgets(line, sizeof line, f))
        die(path);
    fclose(f);
    unsigned long user = 0, system = 0;
    const char *after_name = strrchr(line, ')'); /* the name may hold spaces and brackets */
    if (!after_name ||
        sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        die("stat line");
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 1u << SUB_BITS)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return ((power - SUB_BITS + 1) << SUB_BITS) +
           (unsigned)((ns >> (power - SUB_BITS)) & ((1 << SUB_BITS) - 1));
}

static uint64_t bucket_low_ns(unsigned bucket)
{
    if (bucket < 1u << SUB_BITS)
        return bucket;
    unsigned power = (bucket >> SUB_BITS) + SUB_BITS - 1;
    return (UINT64_C(1) << power) + ((uint64_t)(bucket & ((1 << SUB_BITS) - 1)) << (power - SUB_BITS));
}

static double percentile_ms(const struct load *l, double share)
{
    uint64_t seen = 0, want = (uint64_t)((double)l->answered * share);
    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += l->buckets[b];
        if (seen > want)
            return (double)bucket_low_ns(b) / 1e6;
    }
    return 0;
}

static void conn_open(struct load *l, struct conn *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(l->port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (const struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect");
    c->connecting = true;
    c->due_ns = 0;
    c->got_bytes = 0;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &e))
        die("epoll_ctl");
}

static void conn_fail(struct load *l, struct conn *c)
{
    if (c->connecting)
        die("connection refused");
    l->errors++;
    for (struct conn **at = &l->idle; *at; at = &(*at)->idle_next) {
        if (*at == c) { /* the server closed an idle one */
            *at = c->idle_next;
            break;
        }
    }
    close(c->fd);
    conn_open(l, c);
}

/* What does not fit goes out at the next EPOLLOUT edge. */
static void conn_send(struct load *l, struct conn *c)
{
    while (c->sent_bytes < l->request_bytes) {
        ssize_t n = send(c->fd, l->request + c->sent_bytes, l->request_bytes - c->sent_bytes, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            conn_fail(l, c);
            return;
        }
        c->sent_bytes += (size_t)n;
    }
}

static void conn_request(struct load *l, struct conn *c, uint64_t due_ns)
{
    l->issued++;
    c->due_ns = due_ns;
    c->sent_bytes = 0;
    conn_send(l, c);
}

static void conn_is_idle(struct load *l, struct conn *c)
{
    c->due_ns = 0;
    if (l->per_second == 0) {
        conn_request(l, c, now_ns());
    } else {
        c->idle_next = l->idle;
        l->idle = c;
    }
}

/* 1: a whole 2xx answer; 0: not yet; -1: not an answer that we understand. */
static int answer_state(struct conn *c)
{
    c->got[c->got_bytes] = 0;
    const char *end = strstr(c->got, "\r\n\r\n");
    if (!end)
        return c->got_bytes == ANSWER_BYTES_MAX - 1 ? -1 : 0;
    if (strncmp(c->got, "HTTP/1.1 2", 10) != 0)
        return -1;
    const char *length = strcasestr(c->got, "\r\nContent-Length:");
    if (!length || length > end)
        return -1;
    size_t want = (size_t)(end + 4 - c->got) + strtoul(length + 17, NULL, 10);
    if (want == c->got_bytes)
        return 1;
    return c->got_bytes > want || want >= ANSWER_BYTES_MAX ? -1 : 0;
}

static void conn_receive(struct load *l, struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, c->got + c->got_bytes, ANSWER_BYTES_MAX - 1 - c->got_bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0)
            break;
        c->got_bytes += (size_t)n;
        int state = answer_state(c);
        if (state < 0 || !c->due_ns)
            break;
        if (state == 0)
            continue;
        l->answered++;
        l->buckets[bucket_of(now_ns() - c->due_ns)]++;
        c->got_bytes = 0;
        conn_is_idle(l, c);
        return; /* an answer that came back at once is a new edge */
    }
    conn_fail(l, c);
}

static void on_event(struct load *l, struct conn *c, uint32_t events)
{
    if (c->connecting && (events & EPOLLOUT)) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        errno = error;
        if (error)
            die("connect");
        c->connecting = false;
        conn_is_idle(l, c);
        return;
    }
    if ((events & EPOLLOUT) && c->due_ns && c->sent_bytes < l->request_bytes)
        conn_send(l, c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        conn_receive(l, c);
}

/* Sends what is due; nanoseconds until the next is. When all connections are busy the due requests wait
 * for one, and that wait is part of their time. */
static uint64_t send_due(struct load *l)
{
    for (;;) {
        uint64_t due_ns = l->start_ns + (uint64_t)((double)l->issued * 1e9 / l->per_second);
        uint64_t now = now_ns();
        if (due_ns > now)
            return due_ns - now;
        if (!l->idle)
            return 1000000000u;
        struct conn *c = l->idle;
        l->idle = c->idle_next;
        conn_request(l, c, due_ns);
    }
}

static void run(struct load *l)
{
    struct epoll_event events[EVENTS_MAX];
    while (now_ns() < l->stop_ns) {
        uint64_t wait_ns = l->per_second > 0 ? send_due(l) : 100000000u;
        if (wait_ns > 100000000u)
            wait_ns = 100000000u;
        struct timespec wait = {.tv_nsec = (long)wait_ns};
        int n = epoll_pwait2(l->epoll_fd, events, EVENTS_MAX, &wait, NULL);
        for (int i = 0; i < n; i++)
            on_event(l, events[i].data.ptr, events[i].events);
    }
}

static void request_build(struct load *l, char *const *headers, int headers_count)
{
    l->request = calloc(1, REQUEST_HEAD_BYTES_MAX + l->body_bytes);
    FILE *f = l->request ? fmemopen(l->request, REQUEST_HEAD_BYTES_MAX, "w") : NULL;
    if (!f)
        die("request");
    fprintf(f, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: text/plain\r\n", l->path, l->port);
    for (int i = 0; i < headers_count; i++)
        fprintf(f, "%s\r\n", headers[i]);
    fprintf(f, "Content-Length: %zu\r\n\r\n", l->body_bytes);
    if (ferror(f) || fflush(f)) {
        fprintf(stderr, "the headers are longer than %d bytes\n", REQUEST_HEAD_BYTES_MAX);
        exit(2);
    }
    size_t head_bytes = (size_t)ftell(f);
    fclose(f);
    memset(l->request + head_bytes, 'x', l->body_bytes);
    l->request_bytes = head_bytes + l->body_bytes;
}

static void usage(void)
{
    fputs("usage: bench.http_load [-c conns] [-d seconds] [-b body_bytes] [-r per_second] [-u path] [-H "
          "header]... "
          "[-t server_pid] port\n",
          stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    static struct load l = {.conns_count = 50, .seconds = 5, .body_bytes = 128, .path = "/v1/publish/bench"};
    char *headers[32];
    int headers_count = 0, option;
    while ((option = getopt(argc, argv, "c:d:b:r:u:H:t:")) != -1) {
        switch (option) {
        case 'c':
            l.conns_count = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'd':
            l.seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            l.body_bytes = strtoul(optarg, NULL, 10);
            break;
        case 'r':
            l.per_second = strtod(optarg, NULL);
            break;
        case 'u':
            l.path = optarg;
            break;
        case 't':
            l.server = (pid_t)strtol(optarg, NULL, 10);
            break;
        case 'H':
            if (headers_count == 32)
                usage();
            headers[headers_count++] = optarg;
            break;
        default:
            usage();
        }
    }
    if (optind + 1 != argc || l.conns_count == 0 || l.conns_count > CONNS_MAX || l.per_second < 0)
        usage();
    l.port = (uint16_t)strtoul(argv[optind], NULL, 10);
    request_build(&l, headers, headers_count);
    l.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l.conns = calloc(l.conns_count, sizeof *l.conns);
    if (l.epoll_fd < 0 || !l.conns)
        die("setup");
    for (unsigned i = 0; i < l.conns_count; i++)
        conn_open(&l, &l.conns[i]);

    double cpu_s = l.server ? process_cpu_s(l.server) : 0;
    l.start_ns = now_ns();
    l.stop_ns = l.start_ns + l.seconds * UINT64_C(1000000000);
    run(&l);
    double elapsed_s = (double)(now_ns() - l.start_ns) / 1e9;
    cpu_s = l.server ? process_cpu_s(l.server) - cpu_s : 0;
    printf("{\"conns\":%u,\"answers\":%lu,\"errors\":%lu,\"per_second\":%.0f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"p999_ms\":%.3f,\"server_cpu_us\":%.2f}\n",
           l.conns_count, l.answered, l.errors, (double)l.answered / elapsed_s, percentile_ms(&l, 0.5),
           percentile_ms(&l, 0.99), percentile_ms(&l, 0.999),
           l.answered ? cpu_s * 1e6 / (double)l.answered : 0.0);
    for (unsigned i = 0; i < l.conns_count; i++)
        close(l.conns[i].fd);
    close(l.epoll_fd);
    free(l.conns);
    free(l.request);
    return l.errors ? 1 : 0;
}
