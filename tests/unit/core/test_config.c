#include "core/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum backend { EMBEDDED, KAFKA, REDIS };

struct settings {
    char *node_id;
    uint64_t http_port, linger_ms, stall_ms, segment_bytes;
    bool tls;
    unsigned backend;
    char *brokers;
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
    {"node.id", CONFIG_TEXT, PLACE(node_id), "n1", NULL, 0, 0, "name of this node"},
    {"http.port", CONFIG_UINT, PLACE(http_port), "8080", NULL, 0, 65535, "public port; 0 = any"},
    {"http.tls", CONFIG_BOOL, PLACE(tls), "false", NULL, 0, 0, "serve TLS"},
    {"log.backend", CONFIG_ENUM, PLACE(backend), "embedded", "embedded|kafka|redis", 0, 0,
     "who keeps the log"},
    {"log.kafka.brokers", CONFIG_LIST, PLACE(brokers), "", NULL, 0, 0, "host:port of brokers"},
    {"log.linger_ms", CONFIG_MS, PLACE(linger_ms), "0", NULL, 0, 10000, "wait for more"},
    {"log.segment_bytes", CONFIG_BYTES, PLACE(segment_bytes), "64M", NULL, 1 << 20, 0, "size of a segment"},
    {"out.stall_ms", CONFIG_MS, PLACE(stall_ms), "30s", NULL, 1, 0, "no progress for this long closes"},
};
static const struct config_option room_fields[] = {
    {"name", CONFIG_TEXT, offsetof(struct room, name), "", NULL, 0, 0, "which room"},
    {"ttl_ms", CONFIG_MS, offsetof(struct room, ttl_ms), "0", NULL, 0, 3600000, "how long"},
    {"open", CONFIG_BOOL, offsetof(struct room, open), "true", NULL, 0, 0, "whether it is"},
    {"kind", CONFIG_ENUM, offsetof(struct room, kind), "small", "small|large", 0, 0, "of which kind"},
};

static const char *room_flaw(const void *rows, size_t count)
{
    return ((const struct room *)rows)[count - 1].name[0] ? NULL : "name must not be empty";
}

static const struct config_list lists[] = {
    {"rooms", PLACE(rooms), sizeof(struct room), room_fields, 4, room_flaw, "the rooms there are"},
};
static const char *const live[] = {"http.port", "rooms", "log.kafka.brokers", NULL};
static const char *const secret[] = {"log.kafka.brokers", NULL};
static const struct config_table table = {options, sizeof options / sizeof options[0], lists, 1, live,
                                          secret};

/* The file's name in messages is a path of /proc, so its length varies: tests look behind it. */
struct loaded {
    struct settings settings;
    enum status status;
    char error[2048];
    char path[64];
};

static void begin(struct loaded *l)
{
    memset(l, 0, sizeof *l);
    config_defaults(&table, &l->settings);
}

static void keep_error(struct loaded *l, struct buf *error)
{
    snprintf(l->error, sizeof l->error, "%.*s", SLICE_ARG(buf_slice(error)));
    cr_assert_eq(l->status == ST_OK, error->len == 0, "%d %s", l->status, l->error);
    cr_assert_not(strchr(l->error, '\n'), "one line");
    buf_deinit(error);
}

static void load_bytes(struct loaded *l, const void *yaml, size_t len)
{
    begin(l);
    int fd = memfd_create("yaml", 0);
    cr_assert_eq(write(fd, yaml, len), (ssize_t)len);
    snprintf(l->path, sizeof l->path, "/proc/self/fd/%d", fd);
    struct buf error;
    buf_init(&error, 2000);
    l->status = config_load_file(&table, &l->settings, l->path, &error);
    keep_error(l, &error);
    close(fd);
}

static void load(struct loaded *l, const char *yaml)
{
    load_bytes(l, yaml, strlen(yaml));
}

static void end(struct loaded *l)
{
    config_free(&table, &l->settings);
}

Test(config, has_defaults)
{
    struct loaded l;
    begin(&l);
    cr_assert_str_eq(l.settings.node_id, "n1");
    cr_assert_eq(l.settings.http_port, 8080);
    cr_assert_not(l.settings.tls);
    cr_assert_eq(l.settings.backend, EMBEDDED);
    cr_assert_str_eq(l.settings.brokers, "");
    cr_assert_eq(l.settings.segment_bytes, 64u << 20);
    cr_assert_eq(l.settings.stall_ms, 30000);
    end(&l);
}

Test(config, loads_every_type_from_yaml)
{
    struct loaded l;
    load(&l, "# a comment\n"
             "node: {id: \"Z\xc3\xbcrich #1\"}\n"
             "http:\n  port: 81\n  tls: Yes\n"
             "log:\n  backend: kafka\n  linger_ms: 5\n  segment_bytes: 2g\n"
             "  kafka:\n    brokers:\n      - a:9092\n      - \"b,c:9092\"\n"
             "out.stall_ms: 2m\n");
    cr_assert_eq(l.status, ST_OK, "%s", l.error);
    cr_assert_str_eq(l.settings.node_id, "Z\xc3\xbcrich #1");
    cr_assert_eq(l.settings.http_port, 81);
    cr_assert(l.settings.tls);
    cr_assert_eq(l.settings.backend, KAFKA);
    cr_assert_eq(l.settings.linger_ms, 5);
    cr_assert_eq(l.settings.segment_bytes, (uint64_t)2 << 30);
    cr_assert_str_eq(l.settings.brokers, "a:9092\nb,c:9092");
    cr_assert_eq(l.settings.stall_ms, 120000);
    end(&l);
}

Test(config, takes_files_without_settings)
{
    static const char *const files[] = {"",
                                        "\n",
                                        "# nothing\n",
                                        "---\n",
                                        "~\n",
                                        "{}\n",
                                        "http:\n",
                                        "http: {}\n",
                                        "---\nhttp:\n  # port: 1\n...\n",
                                        "log:\n  kafka: ~\n"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct loaded l;
        load(&l, files[i]);
        cr_assert_eq(l.status, ST_OK, "row %zu: %s", i, l.error);
        end(&l);
    }
}

static const struct {
    const char *yaml, *message; /* behind the path */
} errors[] = {
    {"node: {id: a}\n\nhtpp:\n  port: 1\n",
     ":4: unknown key \"htpp.port\" - did you mean \"http.port\"? (all keys: tidegate config default)"},
    {"http:\n  prot: 1\n", ":2: unknown key \"http.prot\" - did you mean \"http.port\"?"},
    {"htpp: {}\n", ":1: unknown key \"htpp\" - did you mean"},
    {"htpp:\n", ":1: unknown key \"htpp\" - did you mean"},
    {"log:\n  kafka:\n    broker: [a]\n",
     ":3: unknown key \"log.kafka.broker\" - did you mean \"log.kafka.brokers\"?"},
    {"http: 1\n", ":1: \"http\" is a section and has no value itself"},
    {"http:\n  port: {a: 1}\n", ":2: \"http.port\" is a key, not a section"},
    {"http:\n  port:\n", ":2: \"http.port\" has no value; write one"},
    {"http:\n  port: [1]\n", ":2: \"http.port\" is not a list; it must be a whole number from 0 to 65535"},
    {"http:\n  port: 65536\n", ":2: \"http.port\" is \"65536\"; it must be a whole number from 0 to 65535"},
    {"http:\n  port: -1\n", "it must be a whole number"},
    {"http:\n  port: 1k\n", "it must be a whole number"},
    {"http:\n  port: 99999999999999999999999\n", "it must be a whole number"},
    {"http:\n  port: \"\"\n", "it must be a whole number"},
    {"http:\n  tls: maybe\n", ":2: \"http.tls\" is \"maybe\"; it must be true or false"},
    {"log:\n  backend: kafak\n",
     ":2: \"log.backend\" is \"kafak\"; it must be one of embedded, kafka, redis"},
    {"log:\n  backend: \"embedded|kafka\"\n", "it must be one of"},
    {"log:\n  linger_ms: 11s\n", "it must be a time such as 500ms, 10s, 5m or 2h from 0 to 10s"},
    {"log:\n  linger_ms: 1 s\n", "it must be a time"},
    {"log:\n  segment_bytes: 1K\n", "it must be a size such as 64K, 1M or 2G, 1M or more"},
    {"log:\n  segment_bytes: 99999999T\n", "it must be a size"},
    {"node:\n  id: \"a\\nb\"\n", ":2: the value of \"node.id\" must be text without control characters"},
    {"node:\n  id: \"a\\0b\"\n", "must be text without control characters"},
    {"node:\n  id: \"a\\u2028b\"\n", "must be text without control characters"},
    {"log: {kafka: {brokers: [a, \"\"]}}\n", ":1: an item of a list must be one line of text"},
    {"log: {kafka: {brokers: [a, \"b\\nc\"]}}\n", ":1: an item of a list must be one line of text"},
    {"log: {kafka: {brokers: [a, ~]}}\n", ":1: an item of a list must be one line of text"},
    {"log: {kafka: {brokers: [a, [b]]}}\n", ":1: an item of a list must be plain text"},
    {"log: {kafka: {brokers: \"a,,b\"}}\n", "must be a list"},
    {"log: {kafka: {brokers: \"a,\"}}\n", "must be a list"},
    {"http:\n  port: 1\n  port: 2\n", ":3: duplicate key \"http.port\" - it is on line 2 already"},
    {"http:\n  port: 1\nhttp:\n  tls: on\n", ":3: duplicate key \"http\" - it is on line 1 already"},
    {"http:\n  port: 1\nhttp.port: 2\n", ":3: duplicate key \"http.port\" - it is on line 2 already"},
    {"http: &x\n  port: 1\nnode: *x\n", ":3: aliases (*name) are not supported"},
    {"- a\n", ":1: expected sections such as"},
    {"just text\n", ":1: expected sections such as"},
    {"http: {port: 1}\n---\nhttp: {tls: on}\n", ":2: a second document"},
    {"[a]: 1\n", ":1: a key must be plain text"},
    {"\"\": 1\n", ":1: a key is empty"},
    {"http:\n\tport: 1\n", ":2: not valid YAML:"},
    {"http:\n  port: \"1\n", "not valid YAML:"},
    {"a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}\n", ":1: sections are nested too deeply"},
};

Test(config, explains_what_is_wrong_and_where)
{
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct loaded l;
        load(&l, errors[i].yaml);
        cr_assert_eq(l.status, ST_INVALID, "row %zu", i);
        cr_assert(strncmp(l.error, l.path, strlen(l.path)) == 0, "row %zu: %s", i, l.error);
        cr_assert(strstr(l.error, errors[i].message), "row %zu: %s", i, l.error);
        end(&l);
    }
}

Test(config, finds_the_line_of_bytes_that_are_not_utf8)
{
    struct loaded l;
    load(&l, "node:\n  # \xc3\xa9\n  id: \xff\n");
    cr_assert_eq(l.status, ST_INVALID);
    cr_assert(strstr(l.error, ":3: not valid YAML:"), "%s", l.error);
    end(&l);
    load_bytes(&l, "node:\0", 6);
    cr_assert_eq(l.status, ST_INVALID);
    end(&l);
}

Test(config, does_not_repeat_texts_in_messages)
{
    struct loaded l;
    load(&l, "node:\n  id: \"hunter2\\u0001\"\n");
    cr_assert_not(strstr(l.error, "hunter2"), "it may be a secret");
    end(&l);
}

Test(config, tells_io_errors_apart)
{
    struct loaded l;
    static const char *const paths[] = {"/nonexistent/tidegate.yaml", "/"};
    for (size_t i = 0; i < 2; i++) {
        begin(&l);
        struct buf error;
        buf_init(&error, 2000);
        l.status = config_load_file(&table, &l.settings, paths[i], &error);
        keep_error(&l, &error);
        cr_assert_eq(l.status, ST_IO);
        cr_assert(strncmp(l.error, paths[i], strlen(paths[i])) == 0);
        end(&l);
    }
}

Test(config, refuses_files_that_are_too_large)
{
    struct loaded l;
    size_t len = (1 << 20) + 1;
    char *text = malloc(len);
    memset(text, '\n', len);
    load_bytes(&l, text, len);
    cr_assert_eq(l.status, ST_INVALID);
    cr_assert(strstr(l.error, "larger than"));
    end(&l);
    load_bytes(&l, text, len - 1);
    cr_assert_eq(l.status, ST_OK, "%s", l.error);
    end(&l);
    free(text);
}

Test(config, counts_swapped_letters_as_one_mistake)
{
    static const struct config_option two[] = {
        {"a.cd", CONFIG_UINT, PLACE(http_port), "1", NULL, 0, 0, ""}, /* 2 from "a.ab" */
        {"a.ba", CONFIG_UINT, PLACE(stall_ms), "1", NULL, 0, 0, ""},
    };
    struct settings settings = {0};
    struct buf error;
    buf_init(&error, 2000);
    cr_assert_eq(
        config_set(&(struct config_table){.options = two, .count = 2}, &settings, "a.ab=1", "--set", &error),
        ST_INVALID);
    cr_assert_eq(buf_put_byte(&error, 0), ST_OK);
    cr_assert(strstr((const char *)error.data, "did you mean \"a.ba\"?"), "%s", (const char *)error.data);
    buf_deinit(&error);
}

static void load_env(struct loaded *l, char *const *environment)
{
    begin(l);
    struct buf error;
    buf_init(&error, 2000);
    l->status = config_load_env(&table, &l->settings, environment, &error);
    keep_error(l, &error);
}

Test(config, takes_the_environment)
{
    struct loaded l;
    char *environment[] = {"PATH=/bin",
                           "TIDEGATE_HTTP__PORT=9",
                           "TIDEGATE_OUT__STALL_MS=1s",
                           "TIDEGATE",
                           "tidegate_x=1",
                           "TIDEGATE_LOG__KAFKA__BROKERS=a:1, b:2",
                           "TIDEGATE_NODE__ID=a=b",
                           NULL};
    load_env(&l, environment);
    cr_assert_eq(l.status, ST_OK, "%s", l.error);
    cr_assert_eq(l.settings.http_port, 9);
    cr_assert_eq(l.settings.stall_ms, 1000);
    cr_assert_str_eq(l.settings.brokers, "a:1\nb:2");
    cr_assert_str_eq(l.settings.node_id, "a=b");
    end(&l);
}

Test(config, refuses_unknown_and_malformed_variables)
{
    static const struct {
        char *variable;
        const char *message;
    } rows[] = {
        {"TIDEGATE_HTTP_PORT=1", "environment: unknown variable \"TIDEGATE_HTTP_PORT\" - did you mean "
                                 "\"TIDEGATE_HTTP__PORT\"? (all keys: tidegate config default)"},
        {"TIDEGATE_OUT__STALL=1", "did you mean \"TIDEGATE_OUT__STALL_MS\"?"},
        {"TIDEGATE_http__port=1", "unknown variable"},
        {"TIDEGATE_=1", "unknown variable"},
        {"TIDEGATE_HTTP__PORT=x", "environment TIDEGATE_HTTP__PORT: \"http.port\" is \"x\"; it must be"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct loaded l;
        char *environment[] = {rows[i].variable, NULL};
        load_env(&l, environment);
        cr_assert_eq(l.status, ST_INVALID, "row %zu", i);
        cr_assert(strstr(l.error, rows[i].message), "row %zu: %s", i, l.error);
        end(&l);
    }
}

Test(config, takes_assignments)
{
    static const struct {
        const char *assignment, *message; /* NULL = ok */
    } rows[] = {
        {"http.port=7", NULL},
        {"node.id=", NULL},
        {"node.id=a=b", NULL},
        {"log.kafka.brokers= a , b ", NULL},
        {"http.port", "--set: \"http.port\" has no '='; write key=value"},
        {"http.prt=1", "--set: unknown key \"http.prt\" - did you mean \"http.port\"?"},
        {"http=1", "--set: \"http\" is a section"},
        {"=1", "--set: unknown key \"\""},
        {"http.port=", "--set: \"http.port\" is \"\"; it must be"},
        {"node.id=\xff", "must be text"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct loaded l;
        begin(&l);
        struct buf error;
        buf_init(&error, 2000);
        l.status = config_set(&table, &l.settings, rows[i].assignment, "--set", &error);
        keep_error(&l, &error);
        cr_assert_eq(l.status, rows[i].message ? ST_INVALID : ST_OK, "row %zu: %s", i, l.error);
        cr_assert(!rows[i].message || strstr(l.error, rows[i].message), "row %zu: %s", i, l.error);
        end(&l);
    }
}

Test(config, keeps_the_old_value_when_the_new_one_is_refused)
{
    struct loaded l;
    begin(&l);
    struct buf error;
    buf_init(&error, 20); /* too small for the message: cut, not lost */
    cr_assert_eq(config_set(&table, &l.settings, "node.id=\x01", "--set", &error), ST_INVALID);
    cr_assert_str_eq(l.settings.node_id, "n1");
    cr_assert_eq(error.len, 20);
    buf_deinit(&error);
    end(&l);
}

static void count_key(void *ctx, const char *key)
{
    strcat(strcat(ctx, key), " ");
}

Test(config, prints_what_it_can_load)
{
    struct loaded a, b;
    load(&a,
         "node: {id: 'a\"b\\c: #'}\nhttp: {port: 0, tls: on}\n"
         "log: {backend: redis, linger_ms: 1500, segment_bytes: 1537K, kafka: {brokers: ['x,y', \"#z\"]}}\n"
         "rooms: [{name: 'a: #'}, {name: b, ttl_ms: 90s, open: no, kind: large}]\n");
    cr_assert_eq(a.settings.rooms.count, 2);
    cr_assert_eq(a.status, ST_OK, "%s", a.error);
    for (int commented = 0; commented < 2; commented++) {
        struct buf text;
        buf_init(&text, 100000);
        cr_assert_eq(config_print(&table, &a.settings, commented, &text), ST_OK);
        load_bytes(&b, text.data, text.len);
        cr_assert_eq(b.status, ST_OK, "%s\n%.*s", b.error, SLICE_ARG(buf_slice(&text)));
        char keys[1000] = "";
        config_diff(&table, &a.settings, &b.settings, count_key, keys);
        cr_assert_str_eq(keys, "");
        end(&b);
        buf_deinit(&text);
    }
    end(&a);
}

/* --- lists of tables ----------------------------------------------------------------------------- */

static const struct room *room(const struct loaded *l, size_t i)
{
    cr_assert_lt(i, l->settings.rooms.count, "%s", l->error);
    return (const struct room *)l->settings.rooms.rows + i;
}

Test(config, loads_a_list_of_tables_from_every_source)
{
    static const char *const rows = "[{name: a, ttl_ms: 5s}, {kind: large, name: \"b, c\", open: no}]";
    char *environment[] = {
        (char[]){"TIDEGATE_ROOMS=[{name: a, ttl_ms: 5s}, {kind: large, name: \"b, c\", open: no}]"}, NULL};
    char text[200], error_text[500];
    for (unsigned source = 0; source < 4; source++) {
        struct loaded l;
        struct buf error;
        buf_init(&error, 1000);
        snprintf(text, sizeof text, "rooms%s%s\n", source == 0 ? ": " : "=", rows);
        if (source == 3)
            text[strlen(text) - 1] = 0;
        if (source == 0)
            load(&l, text);
        else if (source == 1)
            load(&l,
                 "rooms:\n  - name: a\n    ttl_ms: 5s\n  - kind: large\n    name: 'b, c'\n    open: no\n");
        else
            load(&l, "rooms: [{name: replaced}, {name: replaced}, {name: replaced}]\n");
        if (source == 2)
            l.status = config_load_env(&table, &l.settings, environment, &error);
        if (source == 3)
            l.status = config_set(&table, &l.settings, text, "--set", &error);
        snprintf(error_text, sizeof error_text, "%.*s", SLICE_ARG(buf_slice(&error)));
        cr_assert_eq(l.status, ST_OK, "%s%s", l.error, error_text);
        cr_assert_eq(l.settings.rooms.count, 2);
        cr_expect_str_eq(room(&l, 0)->name, "a");
        cr_expect_eq(room(&l, 0)->ttl_ms, 5000);
        cr_expect(room(&l, 0)->open);
        cr_expect_str_eq(room(&l, 1)->name, "b, c");
        cr_expect_eq(room(&l, 1)->kind, 1);
        cr_expect_not(room(&l, 1)->open);
        cr_assert_eq(config_set(&table, &l.settings, "rooms=[]", "--set", &error), ST_OK);
        cr_expect_eq(l.settings.rooms.count, 0);
        buf_deinit(&error);
        end(&l);
    }
}

Test(config, refuses_rows_that_are_none)
{
    static const struct {
        const char *yaml, *where, *what;
    } rows[] = {
        {"rooms:\n  - name: a\n    tlt_ms: 1\n",
         ":3: ", "unknown key \"tlt_ms\" in an item of \"rooms\" - did you mean \"ttl_ms\"?"},
        {"rooms:\n  - name: a\n  - ttl_ms: 1\n", ":3: ", "an item of \"rooms\": name must not be empty"},
        {"rooms:\n  - name: a\n    ttl_ms: 2h\n", ":3: ", "\"ttl_ms\" is \"2h\""},
        {"rooms:\n  - name: a\n    name: b\n", ":3: ", "duplicate key"},
        {"rooms:\n  - name: a\n  - b\n", ":3: ", "must be a table"},
        {"rooms:\n  - name: a\n    open:\n", ":3: ", "one plain value"},
        {"rooms:\n  - name: [a]\n", ":2: ", "one plain value"},
        {"rooms:\n  - a\n", ":1: ", "is a list of tables"},
        {"rooms: a\n", ":1: ", "is a list of tables"},
        {"rooms:\n  name: a\n", ":1: ", "is a list of tables"},
        {"rooms:\n", ":1: ", "has no value"},
        {"roms:\n  - name: a\n", ":1: ", "did you mean \"rooms\"?"},
        {"http:\n  port:\n    - name: a\n", ":2: ", "is not a list of tables"},
        {"log:\n  kafka:\n    brokers:\n      - name: a\n", ":3: ", "is not a list of tables"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct loaded l;
        load(&l, rows[i].yaml);
        cr_expect_eq(l.status, ST_INVALID, "%s", rows[i].yaml);
        cr_expect(strstr(l.error, rows[i].where) && strstr(l.error, rows[i].what), "%s\n%s", rows[i].yaml,
                  l.error);
        end(&l);
    }
}

Test(config, refuses_rows_of_an_assignment)
{
    static const char *const rows[][2] = {
        {"rooms=[{nme: a}]", "--set: unknown key \"nme\""},
        {"rooms=a", "--set: \"rooms\" is a list of tables"},
        {"rooms=[{name: a}]\nnode.id: x", "must be one line"},
        {"rooms=", "has no value"},
        {"rooms=[{name: a}", "not valid YAML"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct loaded l;
        struct buf error;
        begin(&l);
        buf_init(&error, 1000);
        cr_expect_eq(config_set(&table, &l.settings, rows[i][0], "--set", &error), ST_INVALID);
        cr_assert_eq(buf_put_byte(&error, 0), ST_OK);
        cr_expect(strstr((const char *)error.data, rows[i][1]), "%s", (const char *)error.data);
        buf_deinit(&error);
        end(&l);
    }
}

Test(config, has_a_limit_of_rows)
{
    struct loaded l;
    char *yaml = malloc(CONFIG_ROWS_MAX * 16 + 100);
    strcpy(yaml, "rooms:\n");
    for (unsigned i = 0; i <= CONFIG_ROWS_MAX; i++)
        strcat(yaml, "- name: a\n");
    load(&l, yaml);
    cr_expect_eq(l.status, ST_INVALID);
    cr_expect(strstr(l.error, "more than 1024 items"), "%s", l.error);
    end(&l);
    free(yaml);
}

Test(config, prints_nested_sections)
{
    struct loaded l;
    begin(&l);
    struct buf text;
    buf_init(&text, 100000);
    cr_assert_eq(config_print(&table, &l.settings, false, &text), ST_OK);
    cr_assert(slice_equal_cstr(buf_slice(&text),
                               "node:\n  id: \"n1\"\nhttp:\n  port: 8080\n  tls: false\nlog:\n"
                               "  backend: embedded\n  kafka:\n    brokers: []\n"
                               "  linger_ms: 0\n  segment_bytes: 64M\nout:\n  stall_ms: 30s\nrooms: []\n"),
              "%.*s", SLICE_ARG(buf_slice(&text)));
    buf_deinit(&text);
    end(&l);
}

Test(config, lists_the_keys_that_differ)
{
    struct loaded a, b;
    begin(&a);
    load(&b, "node: {id: n2}\nlog: {backend: kafka, kafka: {brokers: [a]}}\nhttp: {port: 8080, tls: on}\n"
             "rooms: [{name: a}]\n");
    char keys[1000] = "";
    config_diff(&table, &a.settings, &b.settings, count_key, keys);
    cr_assert_str_eq(keys, "node.id http.tls log.backend log.kafka.brokers rooms ");
    end(&a);
    end(&b);
}

Test(config, documents_every_key)
{
    struct buf text;
    buf_init(&text, 100000);
    cr_assert_eq(config_document(&table, &text), ST_OK);
    cr_assert_eq(buf_put_byte(&text, 0), ST_OK);
    const char *document = (const char *)text.data;
    for (size_t i = 0; i < table.count; i++) {
        cr_assert(strstr(document, options[i].key));
        cr_assert(strstr(document, options[i].help));
    }
    cr_assert(strstr(document, "\n## log.kafka\n"));
    cr_assert(strstr(document, " | yes | `TIDEGATE_HTTP__PORT` |\n"));
    cr_assert(strstr(document, "\n## rooms (live)\n"));
    cr_assert(strstr(document, "`TIDEGATE_ROOMS`"));
    cr_assert(strstr(document, "| `kind` | `small` | one of small, large | of which kind |\n"));
    cr_assert(strstr(document,
                     "| `log.backend` | `embedded` | one of embedded, kafka, redis | who keeps the log |  | "
                     "`TIDEGATE_LOG__BACKEND` |\n"),
              "%s", document);
    buf_deinit(&text);
}

Test(config, says_when_there_is_no_room_to_print)
{
    struct loaded l;
    begin(&l);
    struct buf text;
    buf_init(&text, 50);
    cr_assert_eq(config_print(&table, &l.settings, true, &text), ST_FULL);
    buf_clear(&text);
    cr_assert_eq(config_document(&table, &text), ST_FULL);
    buf_deinit(&text);
    end(&l);
}

/* --- reloading ---------------------------------------------------------------------------------- */

static void set(struct settings *s, const char *assignment)
{
    struct buf error;
    buf_init(&error, 1024);
    cr_assert_eq(config_set(&table, s, assignment, "--set", &error), ST_OK, "%s", assignment);
    buf_deinit(&error);
}

static void expect_shown(const struct settings *s, const char *key, const char *want)
{
    struct buf shown;
    buf_init(&shown, 256);
    cr_assert_eq(config_show(&table, s, key, &shown), ST_OK);
    cr_expect(slice_equal_cstr(buf_slice(&shown), want), "%s: %.*s", key, SLICE_ARG(buf_slice(&shown)));
    buf_deinit(&shown);
}

Test(config, a_reload_takes_live_keys_and_keeps_the_others)
{
    struct settings current, next;
    memset(&current, 0, sizeof current);
    memset(&next, 0, sizeof next);
    config_defaults(&table, &current);
    config_defaults(&table, &next);
    set(&current, "node.id=old");
    set(&current, "rooms=[{name: a}]");
    set(&next, "node.id=new");
    set(&next, "http.port=81");
    set(&next, "log.linger_ms=7");
    set(&next, "log.kafka.brokers=a:1,b:2");
    set(&next, "rooms=[{name: b}, {name: c}]");
    config_keep(&table, &next, &current);
    cr_expect_eq(next.http_port, 81u);
    cr_expect_eq(next.linger_ms, 0u);
    cr_expect_eq(next.node_id, current.node_id, "the same text, not a copy: others may hold it");
    cr_expect_eq(next.rooms.count, 2u);
    expect_shown(&next, "rooms", "2 items");
    expect_shown(&current, "rooms", "1 item");
    expect_shown(&next, "http.port", "81");
    expect_shown(&next, "log.kafka.brokers", "***");
    config_leave(&table, &current); /* the memory checker sees what is freed twice, or never */
    config_free(&table, &next);
}
