/* Configuration: looking keys up, the three sources, and printing.
 *
 * Every source ends in set_option: the file by way of config_yaml.c, the environment by turning names into
 * keys, --set by splitting at '='. All messages have four parts in one line: where, what, why, what to do.
 * After an error the settings may hold part of the new values; a reload therefore fills a fresh struct and
 * exchanges it when all is well. */
#include "core/config.h"

#include "core/config_name.h"
#include "core/config_rows.h"
#include "core/config_value.h"
#include "core/config_yaml.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    FILE_BYTES_MAX = 1 << 20,
    WHERE_BYTES_MAX = 512,
    EXPECTATION_BYTES_MAX = 256,
};

static const char env_prefix[] = "TIDEGATE_";

/* ---- looking up ---- */

static const struct config_option *find_option(const struct config_table *t, struct slice key)
{
    for (size_t i = 0; i < t->count; i++)
        if (slice_equal_cstr(key, t->options[i].key))
            return &t->options[i];
    return NULL;
}

static const struct config_list *find_list(const struct config_table *t, struct slice key)
{
    for (size_t i = 0; i < t->list_count; i++)
        if (slice_equal_cstr(key, t->lists[i].key))
            return &t->lists[i];
    return NULL;
}

/* "http" is a section when there is "http.port". */
static bool is_section(const struct config_table *t, struct slice name)
{
    for (size_t i = 0; i < t->count; i++)
        if (slice_starts_with(slice_cstr(t->options[i].key), name) && t->options[i].key[name.len] == '.')
            return true;
    return false;
}

/* "http.port" -> "TIDEGATE_HTTP__PORT". */
static void env_name(const char *key, char name[CONFIG_NAME_BYTES_MAX])
{
    size_t len = sizeof env_prefix - 1;
    memcpy(name, env_prefix, len);
    for (const char *p = key; *p && len + 3 < CONFIG_NAME_BYTES_MAX; p++) {
        if (*p == '.') {
            name[len++] = '_';
            name[len++] = '_';
        } else {
            name[len++] = (char)toupper((unsigned char)*p);
        }
    }
    name[len] = '\0';
}

static enum status refuse_unknown(const struct config_table *t, struct slice key, const char *where,
                                  struct buf *error)
{
    return config_refuse(
        error, ST_INVALID,
        "%s: unknown key \"%.*s\" - did you mean \"%s\"? (all keys: tidegate config default)", where,
        SLICE_ARG(config_name_cut(key)), config_nearest(t, key));
}

static enum status set_list(const struct config_table *t, void *settings, struct slice key,
                            struct slice value, const char *where, struct buf *error);

static enum status set_option(const struct config_table *t, void *settings, struct slice key,
                              struct slice value, const char *where, struct buf *error)
{
    const struct config_option *o = find_option(t, key);
    if (o)
        return config_value_set(o, settings, value, where, error);
    if (find_list(t, key))
        return set_list(t, settings, key, value, where, error);
    if (is_section(t, key))
        return config_refuse(error, ST_INVALID,
                             "%s: \"%.*s\" is a section and has no value itself; set the keys below it "
                             "(all keys: tidegate config default)",
                             where, SLICE_ARG(config_name_cut(key)));
    return refuse_unknown(t, key, where, error);
}

/* ---- defaults ---- */

void config_defaults(const struct config_table *t, void *settings)
{
    struct buf error;
    buf_init(&error, 1024);
    for (size_t i = 0; i < t->count; i++)
        if (config_value_set(&t->options[i], settings, slice_cstr(t->options[i].fallback), "default",
                             &error) != ST_OK) {
            fprintf(stderr, "tidegate: %.*s\n", SLICE_ARG(buf_slice(&error)));
            abort(); /* the table is ours */
        }
    buf_deinit(&error);
}

void config_free(const struct config_table *t, void *settings)
{
    for (size_t i = 0; i < t->count; i++)
        config_value_free(&t->options[i], settings);
    for (size_t i = 0; i < t->list_count; i++)
        config_rows_clear(&t->lists[i], settings);
}

/* ---- the file ---- */

struct file_load {
    const struct config_table *table;
    void *settings;
    const char *path;
    bool one_line; /* a value from elsewhere than a file: it has no line */
    struct buf *error;
    const struct config_list *list; /* whose rows come */
    size_t row_line;
};

static enum status set_empty(const struct file_load *load, struct slice key, const char *where)
{
    if (is_section(load->table, key))
        return ST_OK; /* a section whose keys are all commented out */
    if (!find_option(load->table, key) && !find_list(load->table, key))
        return refuse_unknown(load->table, key, where, load->error);
    return config_refuse(load->error, ST_INVALID,
                         "%s: \"%.*s\" has no value; write one (\"\" for an empty text) or remove the key",
                         where, SLICE_ARG(key));
}

static enum status set_items(const struct file_load *load, struct slice key, struct slice items,
                             const char *where)
{
    const struct config_option *o = find_option(load->table, key);
    const struct config_list *list = find_list(load->table, key);
    if (list && items.len > 0)
        return config_refuse(load->error, ST_INVALID, "%s: %s", where, config_rows_expectation(list));
    if (list) {
        config_rows_clear(list, load->settings);
        return ST_OK;
    }
    if (!o)
        return refuse_unknown(load->table, key, where, load->error);
    if (o->type == CONFIG_LIST)
        return config_value_set_items(o, load->settings, items, where, load->error);
    char expected[EXPECTATION_BYTES_MAX];
    config_value_expectation(o, expected, sizeof expected);
    return config_refuse(load->error, ST_INVALID, "%s: \"%s\" is not a list; it must be %s", where, o->key,
                         expected);
}

/* A list of tables begins: it replaces the one that an earlier source gave. */
static enum status begin_rows(struct file_load *load, struct slice key, const char *where)
{
    load->list = find_list(load->table, key);
    if (load->list) {
        config_rows_clear(load->list, load->settings);
        return ST_OK;
    }
    const struct config_option *o = find_option(load->table, key);
    if (!o)
        return refuse_unknown(load->table, key, where, load->error);
    char expected[EXPECTATION_BYTES_MAX];
    config_value_expectation(o, expected, sizeof expected);
    return config_refuse(load->error, ST_INVALID, "%s: \"%s\" is not a list of tables; it must be %s", where,
                         o->key, expected);
}

static enum status begin_section(const struct file_load *load, struct slice key, const char *where)
{
    /* An unknown section is reported with its first key: "htpp.port" has a better neighbour. */
    const struct config_list *list = find_list(load->table, key);
    if (list)
        return config_refuse(load->error, ST_INVALID, "%s: %s", where, config_rows_expectation(list));
    if (find_option(load->table, key))
        return config_refuse(load->error, ST_INVALID,
                             "%s: \"%.*s\" is a key, not a section; write a value behind the colon", where,
                             SLICE_ARG(key));
    return ST_OK;
}

static enum status on_entry(void *ctx, const struct config_entry *entry)
{
    struct file_load *load = ctx;
    char where[WHERE_BYTES_MAX];
    if (load->one_line)
        snprintf(where, sizeof where, "%s", load->path);
    else
        snprintf(where, sizeof where, "%s:%zu", load->path, entry->line);
    switch (entry->type) {
    case ENTRY_SECTION:
        return begin_section(load, entry->key, where);
    case ENTRY_EMPTY:
        return set_empty(load, entry->key, where);
    case ENTRY_ITEMS:
        return set_items(load, entry->key, entry->value, where);
    case ENTRY_ROWS:
        return begin_rows(load, entry->key, where);
    case ENTRY_ROW:
        return config_rows_add(load->list, load->settings, where, load->error);
    case ENTRY_FIELD:
        return config_rows_set(load->list, load->settings, entry->key, entry->value, where, load->error);
    case ENTRY_ROW_END:
        return config_rows_end(load->list, load->settings, where, load->error);
    case ENTRY_TEXT:
        break;
    }
    if (find_list(load->table, entry->key))
        return config_refuse(load->error, ST_INVALID, "%s: %s", where,
                             config_rows_expectation(find_list(load->table, entry->key)));
    return set_option(load->table, load->settings, entry->key, entry->value, where, load->error);
}

/* A list of tables as one line: the same YAML as in the file. */
static enum status set_list(const struct config_table *t, void *settings, struct slice key,
                            struct slice value, const char *where, struct buf *error)
{
    struct file_load load = {
        .table = t, .settings = settings, .path = where, .one_line = true, .error = error};
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    enum status st = ST_OK;
    if (value.len > 0 && memchr(value.data, '\n', value.len))
        st = config_refuse(error, ST_INVALID, "%s: \"%.*s\" must be one line", where, SLICE_ARG(key));
    else if (buf_printf(&text, "%.*s: %.*s\n", SLICE_ARG(key), SLICE_ARG(value)) != ST_OK)
        st = config_refuse(error, ST_INVALID, "%s: \"%.*s\" is too long", where, SLICE_ARG(key));
    if (st == ST_OK)
        st = config_yaml_read(buf_slice(&text), where, on_entry, &load, error);
    buf_deinit(&text);
    return st;
}

static enum status refuse_file(const char *path, int error_number, struct buf *error)
{
    return config_refuse(error, ST_IO, "%s: cannot be read: %s; check the path and its permissions", path,
                         strerror(error_number));
}

/* Errors of read(2) are met by reading, not by asking before: a directory opens well and reads badly. */
static enum status read_file(const char *path, struct buf *text, struct buf *error)
{
    enum status st = ST_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return refuse_file(path, errno, error);
    for (;;) {
        enum { CHUNK_BYTES = 16384 };
        size_t room = text->limit - text->len;
        if (room == 0) {
            st = config_refuse(error, ST_INVALID, "%s: larger than %d bytes; is this the right file?", path,
                               FILE_BYTES_MAX);
            break;
        }
        size_t want = room < CHUNK_BYTES ? room : CHUNK_BYTES;
        uint8_t *to = buf_reserve(text, want);
        if (!to) {
            st = config_refuse(error, ST_NO_MEMORY, "%s: out of memory", path);
            break;
        }
        ssize_t got = read(fd, to, want);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            st = refuse_file(path, errno, error);
        if (got <= 0)
            break;
        buf_advance(text, (size_t)got);
    }
    close(fd);
    return st;
}

enum status config_load_file(const struct config_table *t, void *settings, const char *path,
                             struct buf *error)
{
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX + 1); /* one more, to tell "full" from "too large" */
    struct file_load load = {.table = t, .settings = settings, .path = path, .error = error};
    enum status st = read_file(path, &text, error);
    if (st == ST_OK)
        st = config_yaml_read(buf_slice(&text), path, on_entry, &load, error);
    buf_deinit(&text);
    return st;
}

/* ---- environment and command line ---- */

static enum status set_from_env(const struct config_table *t, void *settings, struct slice name,
                                struct slice value, struct buf *error)
{
    char known[CONFIG_NAME_BYTES_MAX], nearest[CONFIG_NAME_BYTES_MAX] = "", where[WHERE_BYTES_MAX];
    unsigned least = ~0u;
    snprintf(where, sizeof where, "environment %.*s", SLICE_ARG(config_name_cut(name)));
    for (size_t i = 0; i < t->count + t->list_count; i++) {
        const char *key = i < t->count ? t->options[i].key : t->lists[i - t->count].key;
        env_name(key, known);
        if (slice_equal_cstr(name, known))
            return set_option(t, settings, slice_cstr(key), value, where, error);
        unsigned distance = config_distance(config_name_cut(name), slice_cstr(known));
        if (distance < least) {
            least = distance;
            memcpy(nearest, known, sizeof nearest);
        }
    }
    return config_refuse(error, ST_INVALID,
                         "environment: unknown variable \"%.*s\" - did you mean \"%s\"? "
                         "(all keys: tidegate config default)",
                         SLICE_ARG(config_name_cut(name)), nearest);
}

enum status config_load_env(const struct config_table *t, void *settings, char *const *environment,
                            struct buf *error)
{
    for (; *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        if (!equals || strncmp(*environment, env_prefix, sizeof env_prefix - 1) != 0)
            continue;
        struct slice name = slice_of(*environment, (size_t)(equals - *environment));
        enum status st = set_from_env(t, settings, name, slice_cstr(equals + 1), error);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

enum status config_set(const struct config_table *t, void *settings, const char *assignment,
                       const char *where, struct buf *error)
{
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return config_refuse(error, ST_INVALID, "%s: \"%.*s\" has no '='; write key=value", where,
                             CONFIG_NAME_BYTES_MAX, assignment);
    struct slice key = slice_of(assignment, (size_t)(equals - assignment));
    return set_option(t, settings, key, slice_cstr(equals + 1), where, error);
}

/* ---- printing ---- */

/* The part of a key before its last dot; 0 when there is none. */
static size_t section_len(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? (size_t)(dot - key) : 0;
}

/* True for the first option in the table whose key begins with these `len` bytes. */
static bool is_first_with(const struct config_table *t, size_t index, size_t len)
{
    struct slice prefix = slice_of(t->options[index].key, len);
    for (size_t i = 0; i < index; i++)
        if (slice_starts_with(slice_cstr(t->options[i].key), prefix))
            return false;
    return true;
}

static enum status print_option(const struct config_option *o, const void *settings, const char *name,
                                int indent, bool commented, struct buf *out)
{
    enum status st = ST_OK;
    if (commented) {
        char expected[EXPECTATION_BYTES_MAX];
        config_value_expectation(o, expected, sizeof expected);
        st = buf_printf(out, "%*s# %s (%s)\n", indent, "", o->help, expected);
    }
    if (st == ST_OK)
        st = buf_printf(out, "%*s%s: ", indent, "", name);
    if (st == ST_OK)
        st = config_value_print(o, settings, out);
    return st == ST_OK ? buf_put_byte(out, '\n') : st;
}

/* Prints the options below the section that is the first `prefix_len` bytes (with the dot) of option
 * `first`'s key. A section is printed where its first option is, so the table's order need not be strict. */
static enum status print_section(const struct config_table *t, const void *settings, size_t first,
                                 size_t prefix_len, int indent, bool commented, struct buf *out)
{
    struct slice prefix = slice_of(t->options[first].key, prefix_len);
    enum status st = ST_OK;
    for (size_t i = first; st == ST_OK && i < t->count; i++) {
        const char *key = t->options[i].key;
        if (!slice_starts_with(slice_cstr(key), prefix))
            continue;
        const char *name = key + prefix_len, *dot = strchr(name, '.');
        if (!dot) {
            st = print_option(&t->options[i], settings, name, indent, commented, out);
            continue;
        }
        size_t inner_len = (size_t)(dot - key) + 1;
        if (!is_first_with(t, i, inner_len))
            continue;
        st = buf_printf(out, "%s%*s%.*s:\n", commented && indent == 0 && i > 0 ? "\n" : "", indent, "",
                        (int)(dot - name), name);
        if (st == ST_OK)
            st = print_section(t, settings, i, inner_len, indent + 2, commented, out);
    }
    return st;
}

enum status config_print(const struct config_table *t, const void *settings, bool commented, struct buf *out)
{
    enum status st = t->count == 0 ? ST_OK : print_section(t, settings, 0, 0, 0, commented, out);
    for (size_t i = 0; st == ST_OK && i < t->list_count; i++)
        st = config_rows_print(&t->lists[i], settings, commented, out);
    return st;
}

enum status config_print_environment(const struct config_table *t, const void *settings, struct buf *out)
{
    enum status st = ST_OK;
    for (size_t i = 0; st == ST_OK && i < t->count; i++) {
        char variable[CONFIG_NAME_BYTES_MAX];
        env_name(t->options[i].key, variable);
        st = buf_printf(out, "%s=", variable);
        if (st == ST_OK)
            st = config_value_print_plain(&t->options[i], settings, out);
        if (st == ST_OK)
            st = buf_put_byte(out, '\n');
    }
    return st;
}

static enum status document_one(const struct config_table *t, const struct config_option *o, struct buf *out)
{
    char variable[CONFIG_NAME_BYTES_MAX];
    env_name(o->key, variable);
    enum status st = config_value_document(o, out);
    return st == ST_OK ? buf_printf(out, " %s | `%s` |\n", config_is_live(t, o->key) ? "yes" : "", variable)
                       : st;
}

static enum status document_section(const struct config_table *t, size_t first, struct buf *out)
{
    struct slice section = slice_of(t->options[first].key, section_len(t->options[first].key));
    enum status st = buf_printf(out,
                                "\n## %.*s\n\n| key | default | value | meaning | live | environment |\n"
                                "|---|---|---|---|---|---|\n",
                                SLICE_ARG(section));
    for (size_t i = first; st == ST_OK && i < t->count; i++) {
        const char *key = t->options[i].key;
        if (slice_equal(slice_of(key, section_len(key)), section))
            st = document_one(t, &t->options[i], out);
    }
    return st;
}

enum status config_document(const struct config_table *t, struct buf *out)
{
    enum status st = buf_put_cstr(
        out,
        "# Configuration\n\n"
        "Made from the option table; do not edit. Of several sources the later wins: default, YAML file,\n"
        "environment, `--set key=value`. In the file sections nest (`http:` with `port:` below it). An\n"
        "unknown key is an error. Sizes count by 1024 (`64K`, `1M`, `2G`), times are `500ms`, `10s`, `5m`,\n"
        "`2h` or a plain number of milliseconds, lists are YAML lists or text separated by commas.\n"
        "Keys marked live change with SIGHUP or `tidegate reload`; the others need a restart.\n");
    for (size_t i = 0; st == ST_OK && i < t->count; i++) {
        size_t len = section_len(t->options[i].key);
        bool is_new = true;
        for (size_t j = 0; is_new && j < i; j++)
            is_new = !slice_equal(slice_of(t->options[j].key, section_len(t->options[j].key)),
                                  slice_of(t->options[i].key, len));
        if (is_new)
            st = document_section(t, i, out);
    }
    for (size_t i = 0; st == ST_OK && i < t->list_count; i++) {
        char variable[CONFIG_NAME_BYTES_MAX];
        env_name(t->lists[i].key, variable);
        st = config_rows_document(&t->lists[i], variable, config_is_live(t, t->lists[i].key), out);
    }
    return st;
}

/* ---- reloading ---- */

static bool is_listed(const char *const *keys, const char *key)
{
    for (; keys && *keys; keys++)
        if (strcmp(*keys, key) == 0)
            return true;
    return false;
}

bool config_is_live(const struct config_table *t, const char *key)
{
    return is_listed(t->live, key);
}

enum status config_show(const struct config_table *t, const void *settings, const char *key, struct buf *out)
{
    const struct config_option *o = find_option(t, slice_cstr(key));
    if (!o)
        return config_rows_show(find_list(t, slice_cstr(key)), settings, out);
    if (is_listed(t->secret, key))
        return buf_put_cstr(out, "***");
    return config_value_print(o, settings, out);
}

void config_keep(const struct config_table *t, void *next, const void *current)
{
    for (size_t i = 0; i < t->count; i++)
        if (!config_is_live(t, t->options[i].key))
            config_value_share(&t->options[i], next, current);
    for (size_t i = 0; i < t->list_count; i++)
        if (!config_is_live(t, t->lists[i].key))
            config_rows_share(&t->lists[i], next, current);
}

void config_leave(const struct config_table *t, void *unused)
{
    for (size_t i = 0; i < t->count; i++)
        if (config_is_live(t, t->options[i].key))
            config_value_free(&t->options[i], unused);
    for (size_t i = 0; i < t->list_count; i++)
        if (config_is_live(t, t->lists[i].key))
            config_rows_clear(&t->lists[i], unused);
}

void config_diff(const struct config_table *t, const void *a, const void *b,
                 void (*on_key)(void *ctx, const char *key), void *ctx)
{
    for (size_t i = 0; i < t->count; i++)
        if (!config_value_equal(&t->options[i], a, b))
            on_key(ctx, t->options[i].key);
    for (size_t i = 0; i < t->list_count; i++)
        if (!config_rows_equal(&t->lists[i], a, b))
            on_key(ctx, t->lists[i].key);
}
