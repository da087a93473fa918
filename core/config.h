/* Configuration by one table: key, type, place, default, limits, help. The same table parses the
 * file, the environment and --set, validates, prints the defaults, and makes docs/CONFIG.md.
 * Which keys there are is not decided here: gateway/settings.c holds the table.
 *
 * Order, later wins: defaults < YAML file < TIDEGATE_SECTION__KEY < --set section.key=value.
 * An unknown key is an error that names the place and the nearest known key. */
#ifndef TG_CORE_CONFIG_H
#define TG_CORE_CONFIG_H

#include "core/buf.h"

enum config_type {
    CONFIG_UINT, /* uint64_t */
    CONFIG_BYTES, /* uint64_t; 64K, 1M, 2G (powers of 1024) */
    CONFIG_MS, /* uint64_t milliseconds; 500ms, 10s, 5m, 2h, or a plain number of ms */
    CONFIG_BOOL, /* bool; true/false/yes/no/on/off */
    CONFIG_TEXT, /* char *; owned by the struct */
    CONFIG_LIST, /* char *; owned; items joined by '\n'; a YAML sequence or a comma-separated text */
    CONFIG_ENUM, /* unsigned; one of `choices`, separated by '|' */
};

struct config_option {
    const char *key; /* "section.name" or "section.sub.name" */
    enum config_type type;
    size_t place; /* offsetof in the settings struct */
    const char *fallback;
    const char *choices; /* CONFIG_ENUM */
    uint64_t least, most; /* for numbers; most 0 = no upper limit */
    const char *help; /* one line */
};

/* A list of tables: "topics:" with items of the same fields. Its value is one text of YAML in --set and in
 * the environment ([{filter: "a/#", store: false}]); a later source replaces the whole list. */
struct config_list {
    const char *key; /* without a dot */
    size_t place; /* offsetof a struct config_rows in the settings struct */
    size_t row_bytes;
    const struct config_option *fields; /* places are within a row; no CONFIG_LIST */
    size_t field_count;
    /* What is wrong with the newest of `count` complete rows, by itself or beside the others; NULL: nothing.
     */
    const char *(*flaw)(const void *rows, size_t count);
    const char *help; /* one line */
};
struct config_rows {
    void *rows; /* owned */
    size_t count; /* at most CONFIG_ROWS_MAX */
};
enum { CONFIG_ROWS_MAX = 1024 };

struct config_table {
    const struct config_option *options;
    size_t count;
    const struct config_list *lists;
    size_t list_count;
    /* Keys (of options and lists), each list ended by NULL; NULL = none. */
    const char *const *live; /* may change while the program runs */
    const char *const *secret; /* their values are in no message */
};

/* All functions below: start-up or reload thread. `error` gets one line for the operator: where,
 * what, why, what to do. `settings` is the struct that the offsets refer to. */

/* Sets every option to its fallback; call on zeroed memory. Aborts if a fallback is invalid. */
void config_defaults(const struct config_table *t, void *settings);
void config_free(const struct config_table *t, void *settings); /* the texts inside */

/* ST_INVALID: unknown key, wrong type, out of range, YAML error. ST_IO: unreadable. */
enum status config_load_file(const struct config_table *t, void *settings, const char *path,
                             struct buf *error) MUST_CHECK;
/* Takes TIDEGATE_* of `environ`; an unknown name is ST_INVALID. */
enum status config_load_env(const struct config_table *t, void *settings, char *const *environment,
                            struct buf *error) MUST_CHECK;
/* "key=value"; `where` names the source in errors ("--set"). */
enum status config_set(const struct config_table *t, void *settings, const char *assignment,
                       const char *where, struct buf *error) MUST_CHECK;

/* YAML of the current values, sections nested, with the help as comments if `commented`. */
enum status config_print(const struct config_table *t, const void *settings, bool commented,
                         struct buf *out) MUST_CHECK;
/* A line of NAME=value for each option, as config_load_env understands them; lists of tables are left out. */
enum status config_print_environment(const struct config_table *t, const void *settings,
                                     struct buf *out) MUST_CHECK;
/* Markdown reference: one table a section. */
enum status config_document(const struct config_table *t, struct buf *out) MUST_CHECK;
bool config_is_live(const struct config_table *t, const char *key);
/* A value for people, in one line: as in YAML, a secret as "***", a list of tables by its length. */
enum status config_show(const struct config_table *t, const void *settings, const char *key,
                        struct buf *out) MUST_CHECK;
/* A reload, in two steps that write nothing which is in use. config_keep: keys that are not live get in
 * `next` the very values (texts too) that they have in `current`. config_leave frees what is not shared so of
 * the one that is not in use any more: of `current` when nobody reads it, or of a `next` that was refused. */
void config_keep(const struct config_table *t, void *next, const void *current);
void config_leave(const struct config_table *t, void *unused);
/* Calls back for each key whose value differs between two settings. */
void config_diff(const struct config_table *t, const void *a, const void *b,
                 void (*on_key)(void *ctx, const char *key), void *ctx);

#endif
