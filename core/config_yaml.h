/* A YAML file as a run of "section.key = value" entries. The only place that knows libyaml. For config.c.
 * What it takes is the plain part of YAML that people write by hand: mappings of scalars, of lists of
 * scalars, and of lists of flat mappings; no anchors, no second document, and no key twice. */
#ifndef TG_CORE_CONFIG_YAML_H
#define TG_CORE_CONFIG_YAML_H

#include "core/buf.h"

enum config_entry_type {
    ENTRY_SECTION, /* a mapping begins; its entries follow */
    ENTRY_EMPTY, /* nothing behind the colon, or "{}" */
    ENTRY_TEXT,
    ENTRY_ITEMS, /* a list; items joined by '\n' */
    ENTRY_ROWS, /* a list of mappings begins */
    ENTRY_ROW, /* one of them; its fields follow */
    ENTRY_FIELD, /* the key is that of the field alone */
    ENTRY_ROW_END,
};

struct config_entry {
    enum config_entry_type type;
    struct slice key; /* with the sections before it, joined by dots */
    struct slice value;
    size_t line; /* from 1 */
};

/* Calls back for each entry in order and stops at the first status that is not ST_OK, which is returned.
 * `name` is the file's, for errors. ST_INVALID with one line in `error` when it is not such YAML. */
enum status config_yaml_read(struct slice text, const char *name,
                             enum status (*on_entry)(void *ctx, const struct config_entry *entry), void *ctx,
                             struct buf *error) MUST_CHECK;

#endif
