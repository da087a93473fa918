#include "routing/redis_home.h"

#include "routing/redis_link.h"
#include "tests/fakes/redis_peer.h"

#include <stdio.h>

static struct loop *loop;
static struct redis_peer peer;
static struct redis_home *home;
static unsigned ups, downs;
static char run[REDIS_RUN_BYTES_MAX + 1];

static void on_up(void *ctx, struct redis_link *link, struct slice of)
{
    (void)ctx;
    cr_assert_not_null(link);
    snprintf(run, sizeof run, "%.*s", SLICE_ARG(of));
    ups++;
}

static void on_down(void *ctx)
{
    (void)ctx;
    downs++;
}

static void setup(void)
{
    ups = downs = 0;
    cr_assert_eq(loop_create(clock_system(), 0, &loop), ST_OK);
    (void)loop_prepare(loop);
    peer_open(&peer);
}

static void teardown(void)
{
    redis_home_destroy(home);
    home = NULL;
    peer_close(&peer);
    loop_destroy(loop);
}

TestSuite(redis_home, .init = setup, .fini = teardown);

static void begin(struct redis_home_options o)
{
    static const struct redis_home_ops ops = {.on_up = on_up, .on_down = on_down};
    struct redis_address at = {.host = "127.0.0.1", .port = ntohs(peer.at.sin_port)};
    o.server = at;
    for (unsigned i = 0; i < o.sentinel_count; i++)
        o.sentinels[i] = at;
    o.master = o.master ? o.master : "";
    o.login = o.login.user ? o.login : (struct redis_login){"", "", ""};
    o.sentinel_login = (struct redis_login){"", "", ""};
    o.timeout_ms = o.timeout_ms ? o.timeout_ms : 60000;
    o.retry_min_ms = 10;
    o.retry_max_ms = 20;
    cr_assert_eq(redis_home_create(loop, metrics_register(), &o, &ops, NULL, &home), ST_OK);
    redis_home_start(home);
}

#define UNTIL(condition) PEER_UNTIL(&peer, loop, condition)
#define INFO             "*1\r\n$4\r\nINFO\r\n"

static void tell_info(const char *text)
{
    char reply[512];
    snprintf(reply, sizeof reply, "$%zu\r\n%s\r\n", strlen(text), text);
    peer_say(&peer, reply);
}

struct written {
    const char *text, *host;
    uint16_t port;
};

Test(redis_home, addresses)
{
    static const struct written table[] = {
        {"h", "h", 6379},        {"h:1", "h", 1},
        {"h:65535", "h", 65535}, {"10.0.0.1:7", "10.0.0.1", 7},
        {"[::1]", "::1", 6379},  {"[::1]:2", "::1", 2},
        {"", NULL, 0},           {":1", NULL, 0},
        {"h:", NULL, 0},         {"h:0", NULL, 0},
        {"h:65536", NULL, 0},    {"h:1x", NULL, 0},
        {"h:-1", NULL, 0},       {"[::1", NULL, 0},
        {"[::1]x", NULL, 0},     {"[]:1", NULL, 0},
        {"[::1]:", NULL, 0},     {"h:99999999999", NULL, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct redis_address a = {.port = 9};
        enum status st = redis_address_read(slice_cstr(table[i].text), 6379, &a);
        cr_expect_eq(st, table[i].host ? ST_OK : ST_INVALID, "%s", table[i].text);
        cr_expect_str_eq(a.host, table[i].host ? table[i].host : "", "%s", table[i].text);
        cr_expect_eq(a.port, table[i].host ? table[i].port : 9, "%s", table[i].text);
    }
    char longest[REDIS_HOST_BYTES_MAX + 2];
    struct redis_address a;
    memset(longest, 'h', sizeof longest);
    cr_expect_eq(redis_address_read(slice_of(longest, REDIS_HOST_BYTES_MAX), 1, &a), ST_OK);
    cr_expect_eq(redis_address_read(slice_of(longest, REDIS_HOST_BYTES_MAX + 1), 1, &a), ST_INVALID);
    cr_expect_eq(redis_address_read(slice_of("h\0x", 3), 1, &a), ST_INVALID);
}

Test(redis_home, says_who_we_are_and_asks_who_it_is)
{
    begin((struct redis_home_options){.login = {"me", "", "secret"}, .db = 3});
    UNTIL(peer.len > 0 && strstr(peer.got, INFO));
    cr_assert_str_eq(
        peer.got, "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n" INFO);
    peer_say(&peer, "+OK\r\n+OK\r\n");
    tell_info("# Server\r\nxrun_id:no\r\nrun_id:abc123\r\n# Replication\r\nrole:master\r\n");
    UNTIL(ups == 1);
    cr_assert_str_eq(run, "abc123");
    cr_assert_str_eq(redis_home_why(home), "");
    cr_assert_eq(downs, 0);
}

Test(redis_home, a_password_without_a_user_is_the_defaults)
{
    begin((struct redis_home_options){.login = {"", "", "p"}});
    UNTIL(peer.len > 0 && strstr(peer.got, INFO));
    cr_assert_str_eq(peer.got, "*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n" INFO);
}

struct refusal {
    const char *info, *why;
};

Test(redis_home, who_is_no_master_is_left_and_tried_again)
{
    static const struct refusal table[] = {
        {"run_id:a\r\nrole:slave\r\n", "replica"},
        {"role:master\r\n", "INFO"},
        {"run_id:\r\nrole:master\r\n", "INFO"},
        {"run_id:0123456789012345678901234567890123456789012345678901234567890123456789\r\nrole:master\r\n",
         "INFO"},
        {"", "INFO"},
    };
    begin((struct redis_home_options){0});
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        UNTIL(peer.len > 0);
        tell_info(table[i].info);
        peer_forget(&peer);
        UNTIL(strstr(redis_home_why(home), table[i].why));
        cr_assert_eq(ups, 0);
    }
    UNTIL(peer.len > 0);
    tell_info("run_id:b\r\nrole:master\r\n");
    UNTIL(ups == 1);
    cr_assert_str_eq(redis_home_why(home), "");
}

Test(redis_home, a_lost_link_is_told_once_and_found_again)
{
    begin((struct redis_home_options){0});
    for (unsigned i = 1; i <= 3; i++) {
        UNTIL(peer.len > 0);
        tell_info("run_id:b\r\nrole:master\r\n");
        UNTIL(ups == i);
        cr_assert_eq(downs, i - 1);
        peer_hang_up(&peer);
        UNTIL(downs == i);
    }
}

Test(redis_home, the_owner_may_find_it_bad)
{
    begin((struct redis_home_options){0});
    UNTIL(peer.len > 0);
    tell_info("run_id:b\r\nrole:master\r\n");
    UNTIL(ups == 1);
    redis_home_fail(home, "of no use");
    cr_assert_eq(downs, 1);
    cr_assert(strstr(redis_home_why(home), "of no use"));
}

Test(redis_home, who_says_nothing_is_left)
{
    begin((struct redis_home_options){.timeout_ms = 50});
    UNTIL(strstr(redis_home_why(home), "in time"));
    cr_assert_eq(ups, 0);
}

Test(redis_home, a_sentinel_names_the_master)
{
    char reply[64], port[16];
    begin((struct redis_home_options){.sentinel_count = 1, .master = "m"});
    UNTIL(peer.len > 0);
    cr_assert_str_eq(peer.got, "*3\r\n$8\r\nSENTINEL\r\n$23\r\nget-master-addr-by-name\r\n$1\r\nm\r\n");
    peer_forget(&peer);
    peer_say(&peer, "*-1\r\n"); /* it knows none */
    UNTIL(strstr(redis_home_why(home), "knows no master"));
    UNTIL(peer.len > 0);
    peer_forget(&peer);
    int len = snprintf(port, sizeof port, "%u", (unsigned)ntohs(peer.at.sin_port));
    snprintf(reply, sizeof reply, "*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n", len, port);
    peer_say(&peer, reply);
    UNTIL(peer.len > 0);
    cr_assert_str_eq(peer.got, INFO); /* at the one it has named: the same here */
    tell_info("run_id:b\r\nrole:master\r\n");
    UNTIL(ups == 1);
}
