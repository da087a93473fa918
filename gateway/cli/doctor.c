/* Each check prints one line: ok, warn or FAIL, what, the facts, and what to do. It looks, and leaves nothing
 * behind; beside a running node too. */
#include "gateway/cli/doctor.h"

#include "core/clock.h"
#include "core/store/folder.h"
#include "gateway/acceptor.h"
#include "gateway/cli/node_api.h"
#include "gateway/cli/node_target.h"
#include "gateway/cli/outside.h"
#include "gateway/shared_directory.h"

#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

enum {
    ERROR_BYTES_MAX = 1024,
    SYNC_ROUNDS = 9,
    SYNC_BYTES = 4096,
    SYNC_SLOW_US = 50000,
    DESCRIPTORS_FEW = 4096,
};

enum verdict { OK, WARN, FAIL };

struct doctor {
    const struct settings *settings;
    pid_t node; /* 0: none runs */
    bool failed;
};

__attribute__((format(printf, 4, 5))) static void say(struct doctor *d, enum verdict v, const char *what,
                                                      const char *format, ...)
{
    static const char *const words[] = {"ok", "warn", "FAIL"};
    va_list args;
    printf("%-5s %-12s ", words[v], what);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    d->failed |= v == FAIL;
}

/* --- the folder and its disk -------------------------------------------------------------------- */

/* The folder itself, or the nearest one above it that exists. */
static void existing_folder(const char *dir, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s", dir);
    while (access(path, F_OK) != 0) {
        char *slash = strrchr(path, '/');
        if (!slash) {
            snprintf(path, PATH_MAX, ".");
            return;
        }
        slash[slash == path] = '\0';
    }
}

static void check_folder(struct doctor *d, const char *at)
{
    struct stat st;
    if (stat(at, &st) != 0 || !S_ISDIR(st.st_mode))
        say(d, FAIL, "data", "%s is no folder: set data.dir", at);
    else if (access(at, R_OK | W_OK | X_OK) != 0)
        say(d, FAIL, "data", "%s: %s; run as the user it belongs to (uid %ld), or chown it", at,
            strerror(errno), (long)st.st_uid);
    else if (strcmp(at, d->settings->data_dir) != 0)
        say(d, OK, "data", "%s will be made", d->settings->data_dir);
    else if (st.st_mode & S_IRWXO)
        say(d, WARN, "data", "%s can be read by everybody on this machine: chmod o= it", at);
    else
        say(d, OK, "data", "%s can be written", at);
}

static void check_disk(struct doctor *d, const char *at)
{
    const struct settings *s = d->settings;
    struct statvfs v;
    if (statvfs(at, &v) != 0 || v.f_blocks == 0) {
        say(d, WARN, "disk", "%s: its free space is not known: %s", at, strerror(errno));
        return;
    }
    unsigned long free_mib = (unsigned long)(v.f_bavail * (v.f_frsize / 1024) / 1024);
    unsigned long percent = 100 - (unsigned long)(v.f_bavail * 100 / v.f_blocks);
    if (percent >= s->log_disk_refuse_percent)
        say(d, FAIL, "disk",
            "%lu%% full, %lu MiB free: publishes are refused (log.disk_refuse_percent); make room", percent,
            free_mib);
    else if (percent >= s->log_disk_warn_percent)
        say(d, WARN, "disk",
            "%lu%% full, %lu MiB free: over log.disk_warn_percent; make room, or set log.retention_*",
            percent, free_mib);
    else
        say(d, OK, "disk", "%lu%% full, %lu MiB free", percent, free_mib);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Microseconds of one fdatasync, the median; false: it cannot be measured. */
static bool measure_sync(const char *at, uint64_t *median_us)
{
    char path[PATH_MAX], block[SYNC_BYTES] = {0};
    uint64_t times[SYNC_ROUNDS];
    bool good = snprintf(path, sizeof path, "%s/.doctor-XXXXXX", at) < (int)sizeof path;
    int fd = good ? mkstemp(path) : -1;
    if (fd < 0)
        return false;
    (void)unlink(path);
    for (unsigned i = 0; good && i < SYNC_ROUNDS; i++) {
        uint64_t begun_ns = clock_mono_ns(clock_system());
        good = pwrite(fd, block, sizeof block, (off_t)(i * sizeof block)) == (ssize_t)sizeof block &&
               fdatasync(fd) == 0;
        times[i] = (clock_mono_ns(clock_system()) - begun_ns) / 1000;
    }
    close(fd);
    if (!good)
        return false;
    qsort(times, SYNC_ROUNDS, sizeof times[0], compare);
    *median_us = times[SYNC_ROUNDS / 2];
    return true;
}

static void check_sync(struct doctor *d, const char *at)
{
    uint64_t us;
    if (!measure_sync(at, &us))
        say(d, FAIL, "sync", "%s cannot be written and synced: %s", at, strerror(errno));
    else if (us > SYNC_SLOW_US)
        say(d, WARN, "sync", "fdatasync takes %.1f ms: each acknowledgement waits for one; use a faster disk",
            (double)us / 1000);
    else
        say(d, OK, "sync", "fdatasync takes %.2f ms", (double)us / 1000);
}

/* --- the machine -------------------------------------------------------------------------------- */

static void check_descriptors(struct doctor *d)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    if (r.rlim_max < d->settings->limit_connections || r.rlim_max < DESCRIPTORS_FEW)
        say(d, WARN, "descriptors",
            "at most %lu, and limit.connections is %lu: raise it (ulimit -Hn, systemd's LimitNOFILE) or "
            "fewer clients "
            "get in",
            (unsigned long)r.rlim_max, (unsigned long)d->settings->limit_connections);
    else
        say(d, OK, "descriptors", "at most %lu", (unsigned long)r.rlim_max);
}

static void check_clock(struct doctor *d)
{
    enum { YEAR_2024_S = 1704067200 };
    struct timex t = {0};
    int state = adjtimex(&t);
    if (clock_wall_ms(clock_system()) / 1000 < YEAR_2024_S)
        say(d, FAIL, "clock", "it stands before 2024: set it; times, expiry and tokens depend on it");
    else if (state == TIME_ERROR || (t.status & STA_UNSYNC))
        say(d, WARN, "clock", "the kernel says that nothing keeps it right: run chrony or systemd-timesyncd");
    else
        say(d, OK, "clock", "kept in step");
}

static void check_port(struct doctor *d, const char *what, const char *address, uint64_t number,
                       const char *key)
{
    struct buf error;
    uint16_t port = (uint16_t)number;
    int fd;
    buf_init(&error, ERROR_BYTES_MAX);
    if (listen_open(what, address, &port, false, key, &fd, &error) == ST_OK) {
        close(fd);
        say(d, OK, key, "%s:%u is free", address, (unsigned)port);
    } else {
        say(d, FAIL, key, "%.*s", SLICE_ARG(buf_slice(&error)));
    }
    buf_deinit(&error);
}

static void check_outside(struct doctor *d)
{
    struct buf error;
    buf_init(&error, ERROR_BYTES_MAX);
    if (outside_check_doors(d->settings, &error) == ST_OK &&
        outside_check_files(d->settings, &error) == ST_OK)
        say(d, OK, "config", "it is valid, and so are the files that it names");
    else
        say(d, FAIL, "config", "%.*s", SLICE_ARG(buf_slice(&error)));
    buf_deinit(&error);
}

/* --- the node ----------------------------------------------------------------------------------- */

/* Its answer to /readyz. 0 when it is ready. */
static int ask_ready(const struct settings *s, struct buf *answer)
{
    static const struct node_request r = {.method = "GET", .target = "/readyz"};
    unsigned status = 0;
    enum status st = node_call(s, &r, &status, answer);
    if (st == ST_OK && (status == 200 || status == 503))
        return status == 200 ? EXIT_CODE_OK : EXIT_CODE_FAILED;
    return node_call_failed(s, &r, st, status, (const char *)answer->data);
}

static void check_redis(struct doctor *d)
{
    struct buf why;
    buf_init(&why, ERROR_BYTES_MAX);
    enum status st = shared_directory_probe(d->settings, &why);
    if (st == ST_OK)
        say(d, OK, "redis", "it is a master, and takes us");
    else if (st != ST_NOT_FOUND)
        say(d, FAIL, "redis",
            "%.*s: see directory.redis.*; a node starts without it, and calls look-ups stale",
            SLICE_ARG(buf_slice(&why)));
    buf_deinit(&why);
}

static void check_node(struct doctor *d)
{
    struct buf answer;
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    int code = ask_ready(d->settings, &answer);
    if (code == EXIT_CODE_OK)
        say(d, OK, "node", "process %ld is ready", (long)d->node);
    else
        say(d, FAIL, "node", "process %ld is not ready: %s", (long)d->node,
            code == EXIT_CODE_FAILED && answer.len > 0 ? (const char *)answer.data : "see its log");
    buf_deinit(&answer);
}

static void examine(struct doctor *d)
{
    const struct settings *s = d->settings;
    char at[PATH_MAX];
    existing_folder(s->data_dir, at);
    check_outside(d);
    check_folder(d, at);
    check_disk(d, at);
    check_sync(d, at);
    check_descriptors(d);
    check_clock(d);
    check_redis(d);
    if (d->node > 0) {
        check_node(d);
        return;
    }
    say(d, OK, "node", "none runs on this folder");
    check_port(d, "MQTT", s->mqtt_bind, s->mqtt_port, "mqtt.port");
    check_port(d, "the public HTTP port", s->http_bind, s->http_port, "http.port");
    check_port(d, "the private API", s->api_bind, s->api_port, "api.port");
    if (!s->tls_cert_file[0])
        return;
    check_port(d, "MQTT over TLS", s->mqtt_bind, s->mqtt_tls_port, "mqtt.tls_port");
    check_port(d, "HTTPS", s->http_bind, s->http_tls_port, "http.tls_port");
}

int doctor_command(int count, char **words)
{
    struct node_target t;
    int code = node_target_parse(count, words, NULL, 0, 0, &t);
    if (code != 0)
        return code;
    struct doctor d = {.settings = &t.settings, .node = (pid_t)folder_holder(t.settings.data_dir)};
    examine(&d);
    node_target_free(&t);
    return d.failed ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

/* The one that was asked, among those that share its directory. */
static json_t *own_node(json_t *nodes)
{
    size_t i;
    json_t *one;
    json_array_foreach(nodes, i, one) if (json_is_true(json_object_get(one, "self"))) return one;
    return NULL;
}

/* A line for each bridge of the node; none where it has none, or does not say. */
static void print_bridges(const struct settings *s, struct buf *answer)
{
    static const struct node_request r = {.method = "GET", .target = "/v1/nodes"};
    unsigned status = 0;
    size_t i;
    json_t *one;
    buf_clear(answer);
    if (node_call(s, &r, &status, answer) != ST_OK)
        return;
    json_t *root = status == 200 ? json_loads((const char *)answer->data, 0, NULL) : NULL;
    json_array_foreach(json_object_get(own_node(json_object_get(root, "nodes")), "bridges"), i, one) printf(
        "bridge %s: %s%s%s in=%lld out=%lld dropped=%lld reconnects=%lld\n",
        json_string_value(json_object_get(one, "name")),
        json_is_true(json_object_get(one, "connected")) ? "connected" : "not connected",
        json_is_string(json_object_get(one, "why")) ? ": " : "",
        json_is_string(json_object_get(one, "why")) ? json_string_value(json_object_get(one, "why")) : "",
        json_integer_value(json_object_get(one, "in")), json_integer_value(json_object_get(one, "out")),
        json_integer_value(json_object_get(one, "dropped")),
        json_integer_value(json_object_get(one, "reconnects")));
    json_decref(root);
}

int status_command(int count, char **words)
{
    struct node_target t;
    struct buf answer;
    pid_t pid;
    int code = node_target_parse(count, words, NULL, 0, 0, &t);
    if (code != 0)
        return code;
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    code = node_target_process(&t, &pid);
    if (code == 0) {
        code = ask_ready(&t.settings, &answer);
        if (answer.len > 0 && code <= EXIT_CODE_FAILED)
            printf("process %ld: %s", (long)pid, code == 0 ? "ready\n" : (const char *)answer.data);
        print_bridges(&t.settings, &answer);
    }
    buf_deinit(&answer);
    node_target_free(&t);
    return code;
}
