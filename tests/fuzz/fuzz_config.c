/* Configuration from arbitrary YAML. Properties: it never crashes or leaks; a refusal has an explanation of
 * one line; what was accepted can be printed, and the print loads as the same values. The first byte picks
 * the door: the file, the environment, or an assignment. */
#include "core/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

struct settings {
    char *id, *brokers, *url;
    uint64_t port, stall_ms, segment_bytes;
    bool tls;
    unsigned backend;
    struct config_rows rooms;
};

struct room {
    char *name;
    uint64_t ttl_ms;
    bool open;
    unsigned kind;
};

#define PLACE(member) offsetof(struct settings, member)

static const struct config_option options[] = {
    {"node.id", CONFIG_TEXT, PLACE(id), "n1", NULL, 0, 0, "name"},
    {"http.port", CONFIG_UINT, PLACE(port), "8080", NULL, 0, 65535, "port"},
    {"http.tls", CONFIG_BOOL, PLACE(tls), "off", NULL, 0, 0, "TLS"},
    {"log.backend", CONFIG_ENUM, PLACE(backend), "embedded", "embedded|kafka|redis", 0, 0, "backend"},
    {"log.kafka.brokers", CONFIG_LIST, PLACE(brokers), "", NULL, 0, 0, "brokers"},
    {"log.segment_bytes", CONFIG_BYTES, PLACE(segment_bytes), "64M", NULL, 0, 0, "bytes"},
    {"out.stall_ms", CONFIG_MS, PLACE(stall_ms), "30s", NULL, 0, 0, "time"},
    {"log.redis.url", CONFIG_TEXT, PLACE(url), "", NULL, 0, 0, "url"},
};
static const struct config_option room_fields[] = {
    {"name", CONFIG_TEXT, offsetof(struct room, name), "", NULL, 0, 0, "name"},
    {"ttl_ms", CONFIG_MS, offsetof(struct room, ttl_ms), "0", NULL, 0, 0, "time"},
    {"open", CONFIG_BOOL, offsetof(struct room, open), "true", NULL, 0, 0, "open"},
    {"kind", CONFIG_ENUM, offsetof(struct room, kind), "a", "a|b", 0, 0, "kind"},
};
static const struct config_list lists[] = {
    {"rooms", PLACE(rooms), sizeof(struct room), room_fields, 4, NULL, "rooms"},
};
static const struct config_table table = {options, sizeof options / sizeof options[0], lists, 1, NULL, NULL};

static enum status load_file(struct settings *s, struct slice text, struct buf *error)
{
    int fd = memfd_create("yaml", MFD_CLOEXEC);
    MUST(fd >= 0 && write(fd, text.data, text.len) == (ssize_t)text.len);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum status st = config_load_file(&table, s, path, error);
    close(fd);
    return st;
}

static enum status load_text(struct settings *s, uint8_t door, struct slice text, struct buf *error)
{
    if (door % 4 > 1)
        return load_file(s, text, error);
    char *line = malloc(text.len + 10);
    char *environment[] = {line, NULL};
    memcpy(line, "TIDEGATE_", 9);
    if (text.len > 0)
        memcpy(line + 9, text.data, text.len);
    line[9 + text.len] = '\0';
    enum status st = door % 4 == 0 ? config_load_env(&table, s, environment, error)
                                   : config_set(&table, s, line + 9, "--set", error);
    free(line);
    return st;
}

static void fail_on_key(void *ctx, const char *key)
{
    (void)ctx;
    fprintf(stderr, "printed and loaded, %s differs\n", key);
    abort();
}

static void check_print(const struct settings *s, bool commented)
{
    struct buf text, error;
    buf_init(&text, 16 << 20);
    buf_init(&error, 1000);
    MUST(config_print(&table, s, commented, &text) == ST_OK);
    struct settings again = {0};
    config_defaults(&table, &again);
    enum status st = load_file(&again, buf_slice(&text), &error);
    if (st != ST_OK)
        fprintf(stderr, "%.*s\n%.*s\n", SLICE_ARG(buf_slice(&error)), SLICE_ARG(buf_slice(&text)));
    MUST(st == ST_OK);
    config_diff(&table, s, &again, fail_on_key, NULL);
    config_free(&table, &again);
    buf_deinit(&text);
    buf_deinit(&error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* libFuzzer's name; it has no header */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct settings s = {0};
    config_defaults(&table, &s);
    struct buf error;
    buf_init(&error, 2000);
    enum status st = load_text(&s, data[0], slice_of(data + 1, size - 1), &error);
    MUST((st == ST_OK) == (error.len == 0));
    MUST(error.len == 0 || !memchr(error.data, '\n', error.len));
    /* After a refusal some values may be set already; they are valid too. */
    check_print(&s, data[0] & 8);
    buf_deinit(&error);
    config_free(&table, &s);
    return 0;
}
