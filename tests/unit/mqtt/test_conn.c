/* The MQTT door over real sockets, with the fake log behind it: packets go in and out as bytes. `x` in a
 * wanted answer stands for any digit. Time and the disk move when the test says so. */
#include "fakes/exchange.h"
#include "gateway/edge.h"

#include "gateway/acceptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static struct exchange x;
static struct settings settings;
static struct node_facts facts;
static struct registry *registry;
static struct edge edge;
static struct mqtt_door *door;
static uint16_t port;
static int socket_buffer_bytes; /* of the door's sockets; 0 = the kernel's */

static void open_with(const char *assignment)
{
    char *no_environment[] = {NULL};
    const char *assignments[] = {assignment};
    struct buf error;
    int fd;
    buf_init(&error, 4096);
    cr_assert_eq(settings_load(&settings, NULL, no_environment, assignments, assignment ? 1 : 0, &error),
                 ST_OK);
    exchange_build(&x, 1, 2);
    cr_assert_eq(registry_create(x.couriers[0], &registry), ST_OK);
    registry_meet(registry, 0, registry, 1);
    facts.settings = &settings;
    facts.incarnation = 1;
    facts.connections_max = settings.limit_connections;
    edge = (struct edge){.loop = x.loops[0],
                         .hub = x.hubs[0],
                         .registry = registry,
                         .metrics = x.metrics[0],
                         .facts = &facts,
                         .settings = &settings};
    port = 0;
    cr_assert_eq(listen_open("the test", "127.0.0.1", &port, false, "mqtt.port", &fd, &error), ST_OK);
    if (socket_buffer_bytes) { /* accepted sockets inherit it */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &socket_buffer_bytes, sizeof socket_buffer_bytes);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &socket_buffer_bytes, sizeof socket_buffer_bytes);
    }
    cr_assert_eq(mqtt_door_create(&edge, fd, &door), ST_OK);
    mqtt_door_start(door);
    exchange_start(&x);
    buf_deinit(&error);
}

static void setup(void)
{
    open_with(NULL);
}

static void turn(void)
{
    exchange_turn(&x, 0);
}

static void sync_all(void)
{
    for (unsigned i = 0; i < x.log.lane_count; i++)
        fake_log_sync(&x.log, i, UINT64_MAX);
}

/* Whatever a test leaves open. Afterwards every gauge is where it was. */
static void close_all(void)
{
    mqtt_door_stop(door);
    for (int i = 0; i < 10; i++)
        turn();
    exchange_settle(&x);
    mqtt_door_destroy(door);
    cr_expect_eq(atomic_load(&facts.connections), 0u);
    cr_expect_eq(exchange_metric(&x, M_CONNECTIONS_MQTT), 0);
    cr_expect_eq(exchange_metric(&x, M_OUT_QUEUE_BYTES), 0);
    cr_expect_eq(registry_count(registry), 0u);
    registry_destroy(registry);
    exchange_close(&x);
    settings_free(&settings);
}

TestSuite(mqtt_conn, .init = setup, .fini = close_all, .timeout = 60);
TestSuite(mqtt_conn_with, .fini = close_all, .timeout = 60);

/* --- a client ----------------------------------------------------------------------------------- */

static int client_open(void)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int on = 1; /* packets sent one after the other arrive without waiting for an ACK */
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
    cr_assert_eq(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return fd;
}

static size_t parse_hex(const char *hex, uint8_t *out, size_t size)
{
    size_t n = 0;
    unsigned byte;
    for (int used; sscanf(hex, " %2x%n", &byte, &used) == 1; hex += used) {
        cr_assert_lt(n, size);
        out[n++] = (uint8_t)byte;
    }
    return n;
}

static void client_send(int fd, const char *hex)
{
    uint8_t bytes[1024];
    size_t n = parse_hex(hex, bytes, sizeof bytes);
    cr_assert_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Turns the loop until the client has something to read (or its end), 5 s at most. */
static bool client_wait(int fd)
{
    for (int i = 0; i < 500; i++) {
        struct pollfd pollfd[2] = {{.fd = fd, .events = POLLIN},
                                   {.fd = loop_poll_fd(x.loops[0]), .events = POLLIN}};
        turn();
        if (poll(pollfd, 2, 10) > 0 && pollfd[0].revents)
            return true;
    }
    return false;
}

static void expect_line(int line, int fd, const char *want)
{
    char got[2048] = "";
    size_t bytes = (strlen(want) + 1) / 3, n = 0;
    while (n < bytes && client_wait(fd)) {
        uint8_t byte;
        if (recv(fd, &byte, 1, 0) <= 0)
            break;
        snprintf(got + strlen(got), sizeof got - strlen(got), n ? " %02x" : "%02x", byte);
        n++;
    }
    bool same = strlen(got) == strlen(want);
    for (size_t i = 0; same && want[i]; i++)
        same = want[i] == 'x' || want[i] == got[i];
    cr_assert(same, "line %d: \"%s\" instead of \"%s\"", line, got, want);
}
#define client_expect(fd, want) expect_line(__LINE__, fd, want)

static void client_expect_nothing(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    for (int i = 0; i < 5; i++)
        turn();
    cr_assert_eq(poll(&pollfd, 1, 0), 0, "something came");
}

#define client_expect_end(fd)                                                                                \
    do {                                                                                                     \
        uint8_t byte_of_end;                                                                                 \
        cr_assert(client_wait(fd), "still open");                                                            \
        cr_assert_leq(recv(fd, &byte_of_end, 1, 0), 0, "not the end");                                       \
        close(fd);                                                                                           \
    } while (0)

#define CONNECT_311    "10 0d 00 04 4d 51 54 54 04 02 00 3c 00 01 41" /* client A, clean, 60 s */
#define CONNACK_311    "20 02 00 00"
#define CONNECT_5      "10 0e 00 04 4d 51 54 54 05 02 00 3c 00 00 01 42" /* client B */
#define SUBSCRIBE_0    "82 06 00 01 00 01 61 00" /* a, QoS 0 */
#define SUBSCRIBE_1    "82 06 00 01 00 01 61 01"
#define SUBACK_0       "90 03 00 01 00"
#define SUBACK_1       "90 03 00 01 01"
#define PUBLISH_1(id)  "32 06 00 01 61 00 " id " 78" /* a: "x" */
#define PINGREQ        "c0 00"
#define PINGRESP       "d0 00"
#define DISCONNECT_311 "e0 00"

static int connected_311(void)
{
    int fd = client_open();
    client_send(fd, CONNECT_311);
    client_expect(fd, CONNACK_311);
    return fd;
}

static void expect_connack_5(int fd)
{
    uint8_t head[2], rest[256];
    cr_assert(client_wait(fd));
    cr_assert_eq(recv(fd, head, 2, MSG_WAITALL), 2);
    cr_assert_eq(head[0], 0x20);
    cr_assert_eq(recv(fd, rest, head[1], MSG_WAITALL), head[1]);
    cr_assert_eq(rest[1], 0);
}

static int connected_5(const char *connect)
{
    int fd = client_open();
    client_send(fd, connect);
    expect_connack_5(fd);
    return fd;
}

/* --- CONNECT ------------------------------------------------------------------------------------ */

Test(mqtt_conn, connects_pings_and_leaves)
{
    int fd = connected_311();
    cr_expect_eq(exchange_metric(&x, M_CONNECTIONS_MQTT), 1);
    client_send(fd, PINGREQ);
    client_expect(fd, PINGRESP);
    client_send(fd, DISCONNECT_311);
    client_expect_end(fd);
    cr_expect_eq(exchange_metric(&x, M_DISCONNECT_CLIENT), 1);
}

Test(mqtt_conn, what_comes_with_connect_is_handled_after_it)
{
    int fd = client_open();
    client_send(fd, CONNECT_311 PINGREQ SUBSCRIBE_0 PINGREQ);
    client_expect(fd, CONNACK_311 " " PINGRESP " " PINGRESP " " SUBACK_0);
    close(fd);
}

Test(mqtt_conn, refuses_in_the_words_of_the_version)
{
    static const struct {
        const char *connect, *answer; /* NULL: the end without an answer */
    } rows[] = {
        /* 3.1.1, MQTT-3.1.3-8: no identifier, not clean */
        {"10 0c 00 04 4d 51 54 54 04 00 00 3c 00 00", "20 02 00 02"},
        /* MQTT-3.1.2-2: a version that does not exist */
        {"10 0d 00 04 4d 51 54 54 06 02 00 3c 00 01 41", "20 02 00 01"},
        /* 3.1.1, MQTT-3.1.2-3: the reserved flag; no return code says so */
        {"10 0d 00 04 4d 51 54 54 04 03 00 3c 00 01 41", NULL},
        /* 5.0, 4.13: the same, and there is one */
        {"10 0e 00 04 4d 51 54 54 05 03 00 3c 00 00 01 41", "20 03 00 81 00"},
        /* 5.0: authentication data without a method, 3.1.2.11.10 */
        {"10 12 00 04 4d 51 54 54 05 02 00 3c 04 16 00 01 41 00 01 41", "20 03 00 82 00"},
        {"30 03 00 01 61", NULL}, /* MQTT-3.1.0-1 */
        {"16 03 01 02 00 01 00 01", NULL}, /* TLS */
        {"47 45 54 20 2f 20 48 54 54 50", NULL}, /* HTTP */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = client_open();
        client_send(fd, rows[i].connect);
        if (rows[i].answer)
            client_expect(fd, rows[i].answer);
        client_expect_end(fd);
    }
}

Test(mqtt_conn, without_connect_it_is_closed_in_time)
{
    int fd = client_open();
    client_expect_nothing(fd);
    ex_mono_ms += settings.mqtt_connect_timeout_ms - 10;
    client_expect_nothing(fd);
    ex_mono_ms += 20;
    client_expect_end(fd);
}

Test(mqtt_conn, keep_alive_is_one_and_a_half_times)
{
    int fd = connected_311();
    ex_mono_ms += 80000;
    client_send(fd, PINGREQ);
    client_expect(fd, PINGRESP);
    ex_mono_ms += 89000;
    client_expect_nothing(fd);
    ex_mono_ms += 2000;
    client_expect_end(fd);
    cr_expect_eq(exchange_metric(&x, M_DISCONNECT_TIMEOUT), 1);
}

Test(mqtt_conn, a_5_0_client_without_keep_alive_gets_the_servers)
{
    int fd = client_open();
    client_send(fd, "10 0e 00 04 4d 51 54 54 05 02 00 00 00 00 01 42");
    /* receive maximum 1024, topic aliases 32, packet size, not shared; keep alive */
    client_expect(fd, "20 13 00 00 10 13 xx xx 21 04 00 22 00 20 27 xx xx xx xx 2a 01");
    close(fd);
    turn();
}

Test(mqtt_conn, a_second_connection_takes_over)
{
    int first = connected_5(CONNECT_5);
    int second = connected_5(CONNECT_5);
    client_expect(first, "e0 01 8e");
    client_expect_end(first);
    client_send(second, PINGREQ);
    client_expect(second, PINGRESP);
    close(second);
}

Test(mqtt_conn, taken_over_and_gone_while_it_still_claims)
{
    for (int i = 0; i < 5; i++) {
        int fd[3];
        for (int k = 0; k < 3; k++) {
            fd[k] = client_open();
            client_send(fd[k], CONNECT_311);
            if (k == i % 3)
                shutdown(fd[k], SHUT_RDWR);
        }
        exchange_settle(&x);
        for (int k = 0; k < 3; k++)
            close(fd[k]);
        exchange_settle(&x);
    }
}

/* --- PUBLISH ------------------------------------------------------------------------------------ */

Test(mqtt_conn, puback_waits_for_the_disk_and_keeps_the_order)
{
    int fd = connected_311();
    char topic[] = "b", other[64]; /* of the other lane */
    while (topic_partition(slice_cstr(topic), 2) == topic_partition(slice_cstr("a"), 2))
        topic[0]++;
    snprintf(other, sizeof other, "32 06 00 01 %02x 00 08 78", topic[0]);
    client_send(fd, PUBLISH_1("07"));
    client_send(fd, other);
    client_send(fd, PUBLISH_1("09"));
    client_expect_nothing(fd);
    fake_log_sync(&x.log, topic_partition(slice_cstr(topic), 2), 1);
    client_expect_nothing(fd); /* MQTT-4.6.0-2 */
    sync_all();
    client_expect(fd, "40 02 00 07 40 02 00 08 40 02 00 09");
    close(fd);
}

Test(mqtt_conn, gone_before_the_disk_answers)
{
    int fd = connected_311();
    client_send(fd, PUBLISH_1("07") PUBLISH_1("08"));
    client_expect_nothing(fd);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 2);
    close(fd);
    for (int i = 0; i < 5; i++)
        turn();
    cr_expect_eq(exchange_metric(&x, M_CONNECTIONS_MQTT), 0);
    sync_all();
    exchange_settle(&x);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 0);
    cr_expect_eq(exchange_metric(&x, M_STORED), 2);
}

Test(mqtt_conn, a_refusing_log_is_97_in_5_0_and_the_end_before)
{
    int old = connected_311(), new = connected_5(CONNECT_5);
    x.log.append_status = ST_FULL;
    x.log.append_failures = 2;
    client_send(new, "32 07 00 01 61 00 07 00 78");
    client_expect(new, "40 18 00 07 97 14 1f 00 11 74 68 65 20 6c 6f 67 20 69 73 20 62 65 68 69 6e 64");
    client_send(old, PUBLISH_1("07"));
    client_expect_end(old);
    close(new);
}

/* 4.3.3: PUBREC says that it is durable, a repetition waits for the same, and PUBREL may not come first. */
Test(mqtt_conn, quality_2_is_received_when_it_is_durable)
{
    int fd = connected_5(CONNECT_5), hasty = connected_5("10 0e 00 04 4d 51 54 54 05 02 00 3c 00 00 01 43");
    client_send(fd, "34 07 00 01 61 00 07 00 78 3c 07 00 01 61 00 07 00 78");
    client_expect_nothing(fd);
    cr_expect_eq(exchange_metric(&x, M_DUPLICATES), 1);
    sync_all();
    client_expect(fd, "50 02 00 07");
    client_send(fd, "3c 07 00 01 61 00 07 00 78");
    client_expect(fd, "50 02 00 07");
    client_send(fd, "62 02 00 07");
    client_expect(fd, "70 02 00 07");
    client_send(hasty, "34 07 00 01 61 00 07 00 78 62 02 00 07");
    client_expect(hasty, "e0 1d 82 1b 1f 00 18 "
                         "50 55 42 52 45 4c 20 62 65 66 6f 72 65 20 69 74 73 20 50 55 42 52 45 43");
    client_expect_end(hasty);
    cr_expect_eq(exchange_metric(&x, M_STORED), 1);
    close(fd);
    sync_all();
}

Test(mqtt_conn_with, receive_maximum_counts_refused_publishes_too)
{
    open_with("limit.publish_open=4");
    int fd = connected_5(CONNECT_5);
    client_send(fd, "32 07 00 01 61 00 01 00 78"); /* waits for the disk */
    for (int i = 0; i < 3; i++)
        client_send(fd, "32 08 00 02 24 61 00 02 00 78"); /* $a: refused, waits for its turn */
    client_expect_nothing(fd);
    client_send(fd, "32 08 00 02 24 61 00 03 00 78");
    client_expect(fd, "e0 01 93");
    client_expect_end(fd);
    sync_all();
}

Test(mqtt_conn_with, older_clients_are_paused_instead)
{
    open_with("limit.publish_open=2");
    int fd = connected_311();
    client_send(fd, PUBLISH_1("01") PUBLISH_1("02") PUBLISH_1("03") PUBLISH_1("04") PINGREQ);
    client_expect_nothing(fd);
    cr_expect_eq(exchange_metric(&x, M_PUBLISH_OPEN), 2);
    ex_mono_ms += 200000; /* it cannot be heard: keep alive does not run */
    client_expect_nothing(fd);
    for (int i = 0; i < 3; i++) {
        sync_all();
        turn();
        turn();
    }
    client_expect(fd, "40 02 00 01 40 02 00 02 40 02 00 03 " PINGRESP " 40 02 00 04");
    close(fd);
}

/* --- SUBSCRIBE and delivery --------------------------------------------------------------------- */

Test(mqtt_conn, delivers_by_the_lower_qos)
{
    int zero = connected_311(), one = connected_5(CONNECT_5);
    client_send(zero, SUBSCRIBE_0);
    client_expect(zero, SUBACK_0);
    client_send(one, "82 07 00 01 00 00 01 61 01");
    client_expect(one, "90 04 00 01 00 01");
    client_send(zero, PUBLISH_1("05"));
    client_expect(zero, "30 04 00 01 61 78");
    client_expect(one, "32 07 00 01 61 00 01 00 78");
    client_send(zero, "30 04 00 01 61 79");
    client_expect(zero, "30 04 00 01 61 79");
    client_expect(one, "30 05 00 01 61 00 79");
    close(zero);
    close(one);
}

Test(mqtt_conn, the_window_of_the_client_holds_the_rest_back)
{
    /* receive maximum 1 */
    int fd = connected_5("10 11 00 04 4d 51 54 54 05 02 00 3c 03 21 00 01 00 01 42");
    client_send(fd, "82 07 00 01 00 00 01 61 01");
    client_expect(fd, "90 04 00 01 00 01");
    for (int i = 0; i < 3; i++) {
        struct msg *m = exchange_msg("a", "z");
        m->qos = 1;
        cr_assert_eq(hub_publish_lazy(x.hubs[0], m), ST_OK);
    }
    client_expect(fd, "32 07 00 01 61 00 01 00 7a");
    client_expect_nothing(fd);
    client_send(fd, "40 02 00 01");
    client_expect(fd, "32 07 00 01 61 00 02 00 7a");
    client_send(fd, "40 02 00 01"); /* not in flight any more */
    client_expect_nothing(fd);
    client_send(fd, "40 02 00 02");
    client_expect(fd, "32 07 00 01 61 00 03 00 7a");
    client_send(fd, "40 02 00 03");
    client_expect_nothing(fd);
    cr_expect_eq(exchange_metric(&x, M_CURSORS), 0);
    close(fd);
}

Test(mqtt_conn, nothing_is_larger_than_the_client_accepts)
{
    /* maximum packet size 8 */
    int fd = connected_5("10 13 00 04 4d 51 54 54 05 02 00 3c 05 27 00 00 00 40 00 01 42");
    client_send(fd, "82 07 00 01 00 00 01 61 00");
    client_expect(fd, "90 04 00 01 00 00");
    char large[100];
    memset(large, 'y', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    cr_assert_eq(hub_publish_lazy(x.hubs[0], exchange_msg("a", large)), ST_OK);
    cr_assert_eq(hub_publish_lazy(x.hubs[0], exchange_msg("a", "z")), ST_OK);
    client_expect(fd, "30 05 00 01 61 00 7a");
    cr_expect_eq(exchange_metric(&x, M_DROPPED_TOO_LARGE), 1);
    close(fd);
}

Test(mqtt_conn, expiry_is_what_is_left)
{
    int fd = connected_5(CONNECT_5);
    client_send(fd, "82 07 00 01 00 00 01 61 00");
    client_expect(fd, "90 04 00 01 00 00");
    struct msg *m = exchange_msg("a", "z");
    m->expires_ms = ex_wall_ms + 1500;
    cr_assert_eq(hub_publish_lazy(x.hubs[0], m), ST_OK);
    client_expect(fd, "30 0a 00 01 61 05 02 00 00 00 02 7a");
    m = exchange_msg("a", "z");
    m->expires_ms = ex_wall_ms + (UINT64_C(1) << 50); /* more than MQTT can say */
    cr_assert_eq(hub_publish_lazy(x.hubs[0], m), ST_OK);
    client_expect(fd, "30 0a 00 01 61 05 02 ff ff ff ff 7a");
    close(fd);
}

Test(mqtt_conn, subscribing_and_leaving_in_one_breath)
{
    int fd = connected_311();
    client_send(fd, SUBSCRIBE_0 SUBSCRIBE_1 "a2 05 00 02 00 01 61" SUBSCRIBE_1 DISCONNECT_311);
    exchange_settle(&x);
    close(fd);
}

Test(mqtt_conn, a_filter_twice_in_one_packet_is_acknowledged_twice)
{
    int fd = connected_311();
    client_send(fd, "82 0a 00 01 00 01 61 00 00 01 61 01");
    client_expect(fd, "90 04 00 01 00 01");
    client_send(fd, "a2 05 00 02 00 01 61");
    client_expect(fd, "b0 02 00 02");
    close(fd);
}

/* --- bounds ------------------------------------------------------------------------------------- */

/* A client that asks and does not listen is not heard any more; what it is owed comes when it listens. */
Test(mqtt_conn_with, answers_are_bounded)
{
    socket_buffer_bytes = 16384;
    open_with("out.bytes_max=4096");
    enum { PINGS_A_SEND = 16384 };
    static uint8_t pings[2 * PINGS_A_SEND], pongs[65536];
    int fd = connected_311(), small = 16384;
    size_t asked = 0, heard = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (size_t i = 0; i < sizeof pings; i += 2) {
        pings[i] = 0xc0;
        pings[i + 1] = 0;
    }
    for (int quiet = 0; quiet < 20;) {
        ssize_t n = send(fd, pings + asked % 2, sizeof pings - 2, MSG_NOSIGNAL | MSG_DONTWAIT);
        asked += n > 0 ? (size_t)n : 0;
        quiet = n > 0 ? 0 : quiet + 1;
        turn();
        cr_assert_leq(exchange_metric(&x, M_OUT_QUEUE_BYTES), 4096 + 65536);
        cr_assert_lt(asked, (size_t)4 << 20, "it is heard for ever");
    }
    while (heard < asked / 2 * 2 && client_wait(fd)) {
        ssize_t n = recv(fd, pongs, sizeof pongs, 0);
        cr_assert_gt(n, 0);
        heard += (size_t)n;
    }
    cr_expect_eq(heard, asked / 2 * 2);
    close(fd);
}

/* The end of the largest packet and the beginning of the next one in one read. */
Test(mqtt_conn_with, the_largest_packet_and_what_follows_it)
{
    open_with("limit.message_bytes=16");
    enum { PACKET = 16 + 128 * 1024 }; /* as announced: payload and 128 KiB for the rest */
    static uint8_t bytes[PACKET + 4096];
    int fd = connected_5(CONNECT_5);
    size_t remaining = PACKET - 4;
    memset(bytes, 'k', sizeof bytes);
    bytes[0] = 0x30;
    bytes[1] = (uint8_t)(0x80 | (remaining & 0x7f));
    bytes[2] = (uint8_t)(0x80 | (remaining >> 7 & 0x7f));
    bytes[3] = (uint8_t)(remaining >> 14);
    memcpy(bytes + 4, "\0\1a\0", 4); /* no properties; a payload over the limit: refused, not fatal */
    for (size_t i = PACKET; i < sizeof bytes; i += 2) {
        bytes[i] = 0xc0;
        bytes[i + 1] = 0;
    }
    cr_assert_eq(send(fd, bytes, PACKET - 1, MSG_NOSIGNAL), PACKET - 1);
    client_expect_nothing(fd);
    cr_assert_eq(send(fd, bytes + PACKET - 1, 4097, MSG_NOSIGNAL), 4097);
    for (int i = 0; i < 2048; i++)
        client_expect(fd, PINGRESP);
    close(fd);
}

Test(mqtt_conn, a_stalled_client_is_closed)
{
    static char large[1 << 20];
    int fd = connected_311(), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_send(fd, SUBSCRIBE_0);
    client_expect(fd, SUBACK_0);
    memset(large, 'l', sizeof large - 1);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(hub_publish_lazy(x.hubs[0], exchange_msg("a", large)), ST_OK);
        turn();
    }
    cr_assert_gt(exchange_metric(&x, M_OUT_QUEUE_BYTES), 0);
    cr_expect_gt(exchange_metric(&x, M_DROPPED_QUEUE_FULL), 0);
    ex_mono_ms += settings.out_stall_ms + 10;
    turn();
    turn();
    cr_expect_eq(exchange_metric(&x, M_CONNECTIONS_MQTT), 0);
    cr_expect_eq(exchange_metric(&x, M_DISCONNECT_TIMEOUT), 1);
    close(fd);
}

Test(mqtt_conn, the_door_stops_with_8b)
{
    int old = connected_311(), new = connected_5(CONNECT_5), fresh = client_open();
    turn();
    mqtt_door_stop(door);
    client_expect(new, "e0 01 8b");
    client_expect_end(new);
    client_expect_end(old);
    client_expect_end(fresh);
}

Test(mqtt_conn, ends_with_everything_open)
{
    int fd = connected_311();
    client_send(fd, SUBSCRIBE_1 PUBLISH_1("01"));
    client_expect(fd, SUBACK_1);
    client_open(); /* left to the end of the process */
    turn();
}
