#include "gateway/acceptor.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct buf error;
static struct loop *loop;
static struct metrics *metrics;

static void setup(void)
{
    buf_init(&error, 4096);
    cr_assert_eq(loop_create(clock_system(), 0, &loop), ST_OK);
    metrics = metrics_register();
}

static void teardown(void)
{
    loop_destroy(loop);
    buf_deinit(&error);
}

TestSuite(listen, .init = setup, .fini = teardown);

static bool error_has(const char *text)
{
    char line[4097];
    snprintf(line, sizeof line, "%.*s", (int)error.len, (const char *)error.data);
    return strstr(line, text) != NULL;
}

static enum status open_on(const char *address, uint16_t *port, bool share, int *fd)
{
    buf_clear(&error);
    return listen_open("the test", address, port, share, "test.port", fd, &error);
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
    return fd;
}

Test(listen, port_0_becomes_a_free_one)
{
    uint16_t port = 0;
    int fd;
    cr_assert_eq(open_on("127.0.0.1", &port, false, &fd), ST_OK);
    cr_expect_neq(port, 0);
    close(connect_to(port));
    close(fd);
}

Test(listen, a_taken_port_names_its_holder)
{
    uint16_t port = 0;
    int fd, second = -7;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d)", getpid());
    cr_assert_eq(open_on("127.0.0.1", &port, false, &fd), ST_OK);
    cr_expect_eq(open_on("127.0.0.1", &port, false, &second), ST_EXISTS);
    cr_expect_eq(second, -7, "untouched");
    cr_expect(error_has(pid), "%.*s", (int)error.len, (const char *)error.data);
    cr_expect(error_has("--set test.port="));
    cr_expect_eq(open_on("127.0.0.1", &port, true, &second), ST_EXISTS, "the holder does not share");
    close(fd);
}

Test(listen, sharers_share)
{
    uint16_t port = 0;
    int a, b;
    cr_assert_eq(open_on("127.0.0.1", &port, true, &a), ST_OK);
    cr_expect_eq(open_on("127.0.0.1", &port, true, &b), ST_OK);
    close(a);
    close(b);
}

Test(listen, ipv6_is_an_address_and_a_name_is_not)
{
    uint16_t port = 0;
    int fd;
    enum status st = open_on("::1", &port, false, &fd);
    if (st == ST_OK) /* a machine without IPv6 says ST_IO */
        close(fd);
    cr_expect(st == ST_OK || st == ST_IO);
    cr_expect_eq(open_on("localhost", &port, false, &fd), ST_INVALID);
    cr_expect(error_has("localhost"));
    cr_expect_eq(open_on("203.0.113.7", &port, false, &fd), ST_IO, "not ours");
    cr_expect(error_has("Choose another address"));
}

/* --- the acceptor ------------------------------------------------------------------------------- */

static int accepted[16];
static unsigned accepted_count;

static void on_socket(void *ctx, int fd)
{
    (void)ctx;
    cr_assert_lt(accepted_count, 16u);
    accepted[accepted_count++] = fd;
}

static void turn_until(unsigned count)
{
    uint64_t end_ms = loop_now_ms(loop) + 10000;
    while (accepted_count < count && loop_now_ms(loop) < end_ms) {
        uint64_t wait_ms = loop_prepare(loop);
        struct pollfd pollfd = {.fd = loop_poll_fd(loop), .events = POLLIN};
        poll(&pollfd, 1, wait_ms < 1000 ? (int)wait_ms : 1000);
        loop_dispatch(loop);
    }
    cr_assert_eq(accepted_count, count);
}

Test(listen, accepts_ready_sockets)
{
    struct acceptor *a;
    uint16_t port = 0;
    int fd, clients[3], on;
    socklen_t len = sizeof on;
    cr_assert_eq(open_on("127.0.0.1", &port, false, &fd), ST_OK);
    cr_assert_eq(acceptor_create(loop, fd, metrics, on_socket, NULL, &a), ST_OK);
    for (int i = 0; i < 3; i++)
        clients[i] = connect_to(port);
    turn_until(3);
    cr_expect(getsockopt(accepted[0], IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on);
    acceptor_pause(a);
    int late = connect_to(port);
    loop_dispatch(loop);
    cr_expect_eq(accepted_count, 3u, "paused");
    acceptor_destroy(a);
    for (int i = 0; i < 3; i++) {
        close(clients[i]);
        close(accepted[i]);
    }
    close(late);
}

Test(listen, out_of_descriptors_it_rests_and_goes_on)
{
    struct acceptor *a;
    struct rlimit before, low;
    uint16_t port = 0;
    int fd;
    cr_assert_eq(open_on("127.0.0.1", &port, false, &fd), ST_OK);
    cr_assert_eq(acceptor_create(loop, fd, metrics, on_socket, NULL, &a), ST_OK);
    int client = connect_to(port);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = (rlim_t)client + 1; /* the next descriptor would be above */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    uint64_t refused = metrics_sum(M_CONNECTS_REFUSED_LIMIT);
    for (int i = 0; i < 50; i++) {
        loop_prepare(loop);
        loop_dispatch(loop);
    }
    cr_expect_eq(accepted_count, 0u);
    cr_expect_leq(metrics_sum(M_CONNECTS_REFUSED_LIMIT) - refused, 2u, "it does not spin");
    cr_expect_geq(metrics_sum(M_CONNECTS_REFUSED_LIMIT) - refused, 1u);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    turn_until(1);
    acceptor_destroy(a);
    close(accepted[0]);
    close(client);
}
