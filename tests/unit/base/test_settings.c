#include "gateway/settings.h"

#include "core/store/store.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *no_environment[] = {NULL};
static struct buf error;

static void setup(void)
{
    buf_init(&error, 4096);
}

static void teardown(void)
{
    buf_deinit(&error);
}

TestSuite(settings, .init = setup, .fini = teardown);

static enum status load(struct settings *s, const char *assignment)
{
    const char *assignments[] = {assignment};
    buf_clear(&error);
    return settings_load(s, NULL, no_environment, assignments, assignment ? 1 : 0, &error);
}

static bool error_has(const char *text)
{
    char line[4097];
    snprintf(line, sizeof line, "%.*s", (int)error.len, (const char *)error.data);
    return strstr(line, text) != NULL;
}

Test(settings, defaults_are_a_useful_node_on_loopback)
{
    struct settings s;
    cr_assert_eq(load(&s, NULL), ST_OK);
    cr_expect_str_eq(s.mqtt_bind, "127.0.0.1");
    cr_expect_str_eq(s.http_bind, "127.0.0.1");
    cr_expect_str_eq(s.api_bind, "127.0.0.1");
    cr_expect_eq(s.mqtt_port, 1883u);
    cr_expect_eq(s.http_port, 8080u);
    cr_expect_eq(s.api_port, 8081u);
    cr_expect_str_eq(s.data_dir, "./tidegate-data");
    cr_expect_eq(s.log_sync, (unsigned)STORE_SYNC_ALWAYS);
    cr_expect_eq(s.log_partitions, 1u);
    cr_expect_eq(s.log_unsynced_bytes_max, UINT64_C(64) << 20);
    cr_expect_eq(s.mqtt_connect_timeout_ms, 10000u);
    cr_expect_eq(s.test_echo_port, 0u);
    settings_free(&s);
}

Test(settings, rules_between_keys)
{
    static const struct {
        const char *assignment, *complaint; /* NULL: accepted */
    } rows[] = {
        {"mqtt.bind=127.4.5.6", NULL},
        {"mqtt.bind=::1", NULL},
        {"mqtt.bind=0.0.0.0", NULL},
        {"mqtt.bind=::", NULL},
        {"mqtt.bind=localhost", NULL},
        {"http.bind=192.168.1.5", NULL},
        {"api.bind=0.0.0.0", "api.key"},
        {"auth.jwks_url=https://a/b", NULL},
        {"auth.jwks_url=file:///a", "auth.jwks_url"},
        {"node.id=", "node.id"},
        {"data.dir=", "data.dir"},
        {"mqtt.port=0", NULL},
        {"mqtt.port=65536", "mqtt.port"},
        {"log.partitions=0", "log.partitions"},
        {"log.partitions=64", NULL},
        {"log.partitions=65", "log.partitions"},
        {"log.sync=sometimes", "log.sync"},
        {"log.sync=interval:250", NULL},
        {"log.sync=interval:10000", NULL},
        {"log.sync=interval:", "log.sync"},
        {"log.sync=interval:0", "log.sync"},
        {"log.sync=interval:10001", "log.sync"},
        {"log.sync=interval:184467440737095516160", "log.sync"},
        {"log.sync=interval:5s", "log.sync"},
        {"log.sync=interval:-5", "log.sync"},
        {"log.retention_bytes=512M", NULL},
        {"log.retention_bytes=511M", "log.retention_bytes"}, /* not two segments */
        {"log.disk_warn_percent=95", NULL},
        {"log.disk_warn_percent=96", "log.disk_warn_percent"}, /* above the default of disk_refuse_percent */
        {"log.disk_warn_percent=100", NULL}, /* never */
        {"log.disk_refuse_percent=79", "log.disk_warn_percent"},
        {"topics=[{filter: \"a/#\"}, {filter: \"a/+\"}]", NULL},
        {"topics=[{filter: \"$user/+/news\"}]", NULL},
        {"topics=[{filter: \"a/#\"}, {filter: b}, {filter: \"a/#\"}]", "another item has the same"},
        {"topics=[{filter: \"$share/g/a\"}]", "for inboxes only"},
        {"topics=[{filter: \"$session/#\"}]", "for inboxes only"},
        {"topics=[{filter: \"$user\"}]", "for inboxes only"},
        {"log.retention_ms=168h", NULL},
        {"log.backend=kafka", "log.backend"},
        {"limit.inflight=0", "limit.inflight"},
        {"mqtt.prot=1", "mqtt.port"}, /* the nearest known key */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct settings s;
        enum status st = load(&s, rows[i].assignment);
        cr_expect_eq(st, rows[i].complaint ? ST_INVALID : ST_OK, "%s: %s %.*s", rows[i].assignment,
                     status_name(st), (int)error.len, (const char *)error.data);
        if (rows[i].complaint)
            cr_expect(error_has(rows[i].complaint), "%s: \"%.*s\" does not name %s", rows[i].assignment,
                      (int)error.len, (const char *)error.data, rows[i].complaint);
        if (st == ST_OK)
            settings_free(&s);
    }
}

Test(settings, a_key_opens_the_api_to_a_network)
{
    struct settings s;
    const char *assignments[] = {"api.bind=0.0.0.0", "api.key=secret"};
    cr_assert_eq(settings_load(&s, NULL, no_environment, assignments, 2, &error), ST_OK);
    settings_free(&s);
}

Test(settings, file_then_environment_then_assignment)
{
    struct settings s;
    char path[] = "/tmp/settings-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] =
        "mqtt:\n  port: 1\nhttp:\n  port: 2\n  origins: [https://a, https://b]\napi:\n  port: 3\n";
    cr_assert(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1);
    close(fd);
    char *environment[] = {(char[]){"TIDEGATE_HTTP__PORT=20"}, (char[]){"TIDEGATE_API__PORT=30"},
                           (char[]){"HOME=/"}, NULL};
    const char *assignments[] = {"api.port=300"};
    cr_assert_eq(settings_load(&s, path, environment, assignments, 1, &error), ST_OK, "%.*s", (int)error.len,
                 (const char *)error.data);
    cr_expect_eq(s.mqtt_port, 1u);
    cr_expect_eq(s.http_port, 20u);
    cr_expect_eq(s.api_port, 300u);
    cr_expect_str_eq(s.http_origins, "https://a\nhttps://b");
    settings_free(&s);
    unlink(path);
}

/* A default must be a value that could be set, and every key must have a word of help. */
Test(settings, the_table_is_sound)
{
    const struct config_table *t = settings_table();
    struct settings s;
    struct buf shown;
    memset(&s, 0, sizeof s);
    config_defaults(t, &s);
    buf_init(&shown, 1 << 20);
    cr_assert_eq(config_print(t, &s, false, &shown), ST_OK);
    settings_free(&s);
    char path[] = "/tmp/settings-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, shown.data, shown.len) == (ssize_t)shown.len);
    close(fd);
    cr_expect_eq(settings_load(&s, path, no_environment, NULL, 0, &error), ST_OK, "%.*s", (int)error.len,
                 (const char *)error.data);
    settings_free(&s);
    unlink(path);
    buf_deinit(&shown);
}
