/* How long a node takes to register all its connections again in Redis, and what its loops feel of it
 * meanwhile.
 *
 *   redis-server --port 6399 --save '' & ninja bench.directory && build/release/tests/bench.directory 6399
 * 100000
 *
 * Registers so many connections of as many users, then drops the connection on Redis's side (CLIENT KILL),
 * which is what a restart looks like, and waits until all is registered again. Beside it this thread, as a
 * loop would, sleeps 1 ms again and again: how much later than that it wakes is what delivery would feel. */
#include "core/clock.h"
#include "core/hash.h"
#include "core/loop.h"
#include "core/metrics.h"
#include "routing/directory_redis.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { USER_BYTES = 24, LATE_MAX = 1 << 20 };

static unsigned home;

static void on_home(struct directory_entry *e)
{
    (void)e;
    home++;
}

static void describe(void *ctx, struct directory_node *self)
{
    (void)ctx;
    snprintf(self->state, sizeof self->state, "ready");
    snprintf(self->version, sizeof self->version, "bench");
}

/* One command by a connection of its own; its reply is not looked at. */
static void tell(uint16_t port, const char *command)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char reply[256];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
        send(fd, command, strlen(command), 0) < 0 || recv(fd, reply, sizeof reply, 0) <= 0) {
        perror("redis");
        exit(1);
    }
    close(fd);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Turns the loop until Redis has acknowledged everything; prints how long that took, and how late 1 ms was.
 */
static void wait_registered(struct loop *loop, const char *what, unsigned count, uint64_t before)
{
    static uint64_t late[LATE_MAX];
    size_t lates = 0;
    const struct clock *clock = clock_system();
    uint64_t start = clock_mono_ns(clock);
    while (metrics_sum(M_DIRECTORY_AGAIN_CONNECTION) < before || metrics_sum(M_REDIS_UP) == 0 ||
           metrics_sum(M_DIRECTORY_PENDING) > 0 || metrics_sum(M_DIRECTORY_ENTRIES) < count) {
        uint64_t then = clock_mono_ns(clock);
        (void)poll(NULL, 0, 1);
        loop_dispatch(loop);
        (void)loop_prepare(loop);
        if (lates < LATE_MAX)
            late[lates++] = clock_mono_ns(clock) - then;
    }
    double s = (double)(clock_mono_ns(clock) - start) / 1e9;
    qsort(late, lates, sizeof late[0], compare);
    printf("%-18s %u connections in %.2f s; 1 ms took %.2f ms at p50, %.2f at p99\n", what, count, s,
           lates ? (double)late[lates / 2] / 1e6 : 0.0, lates ? (double)late[lates * 99 / 100] / 1e6 : 0.0);
}

int main(int count, char **words)
{
    uint16_t port = count > 1 ? (uint16_t)atoi(words[1]) : 6399;
    unsigned entries = count > 2 ? (unsigned)atoi(words[2]) : 100000;
    struct directory_redis_options o = {.prefix = "bench",
                                        .node = "bench",
                                        .incarnation = 1,
                                        .lease_ms = 10000,
                                        .entry_ms = 3600000,
                                        .pending_max = 10000,
                                        .cache_bytes = 1 << 20,
                                        .describe = describe};
    struct directory_redis *d;
    struct loop *loop;
    struct directory_entry *all = calloc(entries, sizeof *all);
    char(*users)[USER_BYTES] = calloc(entries, USER_BYTES);
    o.home = (struct redis_home_options){.server = {.host = "127.0.0.1", .port = port},
                                         .master = "",
                                         .login = {"", "", ""},
                                         .sentinel_login = {"", "", ""},
                                         .timeout_ms = 1000,
                                         .retry_min_ms = 100,
                                         .retry_max_ms = 2000};
    hash_setup();
    if (!all || !users || loop_create(clock_system(), 0, &loop) != ST_OK ||
        directory_redis_create(&o, &d) != ST_OK)
        return 1;
    directory_redis_meet(d, 0, loop);
    if (directory_redis_start(d) != ST_OK)
        return 1;
    struct directory_beyond b = directory_redis_beyond(d);
    (void)loop_prepare(loop);
    for (unsigned i = 0; i < entries; i++) {
        snprintf(users[i], USER_BYTES, "user-%u", i);
        all[i] = (struct directory_entry){.user = slice_cstr(users[i]),
                                          .connection = i + 1,
                                          .since_ms = 1,
                                          .door = "ws",
                                          .on_added = on_home,
                                          .on_removed = on_home};
        b.entered(b.ctx, &all[i]);
    }
    wait_registered(loop, "first", entries, 0);
    tell(port, "CLIENT KILL TYPE normal SKIPME yes\r\n");
    wait_registered(loop, "again", entries, 1);
    tell(port, "FLUSHALL\r\nCLIENT KILL TYPE normal SKIPME yes\r\n");
    wait_registered(loop, "again, empty", entries, 2);
    directory_redis_destroy(d);
    loop_destroy(loop);
    free(all);
    free(users);
    return home == entries ? 0 : 1;
}
