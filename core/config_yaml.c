/* libyaml gives events (scalar, start and end of mapping ...). walk_mapping follows them with a path of
 * section names beside, and nests as deep as sections do, at most DEPTH_MAX. Every key, with its path, is
 * remembered: that finds `port: 1` twice in one section, a section that is begun twice, and `a.b: 1` beside
 * `a: {b: 1}`. The caller stops at the first key it does not know, so the list is as short as the table. */
#include "core/config_yaml.h"

#include "core/config_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

enum { DEPTH_MAX = 8, PATH_BYTES_MAX = 256, ITEMS_BYTES_MAX = 1 << 20, SHOWN_KEY_BYTES_MAX = 100 };

struct seen_key {
    struct seen_key *next;
    size_t line, len;
    uint8_t key[];
};

struct walk {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; YAML_NO_EVENT = none to free */
    struct slice text;
    const char *name;
    struct buf *error;
    enum status (*on_entry)(void *ctx, const struct config_entry *entry);
    void *ctx;
    struct seen_key *seen;
    uint8_t path[PATH_BYTES_MAX];
    size_t path_len;
};

static size_t event_line(const struct walk *w)
{
    return w->event.start_mark.line + 1;
}

static enum status refuse_at(struct walk *w, size_t line, const char *what)
{
    return config_refuse(w->error, ST_INVALID, "%s:%zu: %s", w->name, line, what);
}

/* libyaml has no line for bytes that are not UTF-8, only an offset. */
static size_t line_of_offset(struct slice text, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < text.len; i++)
        line += text.data[i] == '\n';
    return line;
}

static enum status refuse_yaml(struct walk *w)
{
    const yaml_parser_t *p = &w->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return config_refuse(w->error, ST_NO_MEMORY, "%s: out of memory", w->name);
    size_t line =
        p->error == YAML_READER_ERROR ? line_of_offset(w->text, p->problem_offset) : p->problem_mark.line + 1;
    return config_refuse(w->error, ST_INVALID, "%s:%zu: not valid YAML: %s (check indentation and quotes)",
                         w->name, line, p->problem ? p->problem : "unknown");
}

static enum status next_event(struct walk *w)
{
    yaml_event_delete(&w->event);
    if (yaml_parser_parse(&w->parser, &w->event))
        return ST_OK;
    w->event.type = YAML_NO_EVENT;
    return refuse_yaml(w);
}

static struct slice event_text(const struct walk *w)
{
    return slice_of(w->event.data.scalar.value, w->event.data.scalar.length);
}

static bool event_is_null(const struct walk *w)
{
    struct slice text = event_text(w);
    return w->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text.len == 0 || slice_equal_cstr(text, "~") || slice_equal_cstr(text, "null"));
}

static enum status emit(struct walk *w, enum config_entry_type type, struct slice value, size_t line)
{
    struct config_entry entry = {type, slice_of(w->path, w->path_len), value, line};
    return w->on_entry(w->ctx, &entry);
}

static enum status remember_key(struct walk *w, size_t line)
{
    for (const struct seen_key *seen = w->seen; seen; seen = seen->next)
        if (slice_equal(slice_of(seen->key, seen->len), slice_of(w->path, w->path_len))) {
            int shown = w->path_len > SHOWN_KEY_BYTES_MAX ? SHOWN_KEY_BYTES_MAX : (int)w->path_len;
            return config_refuse(w->error, ST_INVALID,
                                 "%s:%zu: duplicate key \"%.*s\" - it is on line %zu already; remove one",
                                 w->name, line, shown, (const char *)w->path, seen->line);
        }
    struct seen_key *seen = malloc(sizeof *seen + w->path_len);
    if (!seen)
        return config_refuse(w->error, ST_NO_MEMORY, "%s: out of memory", w->name);
    seen->line = line;
    seen->len = w->path_len;
    memcpy(seen->key, w->path, w->path_len);
    seen->next = w->seen;
    w->seen = seen;
    return ST_OK;
}

/* All that were remembered since `kept` was the newest. */
static void forget_keys(struct walk *w, struct seen_key *kept)
{
    while (w->seen != kept) {
        struct seen_key *next = w->seen->next;
        free(w->seen);
        w->seen = next;
    }
}

/* Appends the key that is the current event to the path. */
static enum status push_key(struct walk *w)
{
    if (w->event.type != YAML_SCALAR_EVENT)
        return refuse_at(w, event_line(w), "a key must be plain text");
    struct slice key = event_text(w);
    if (w->path_len + 1 + key.len > PATH_BYTES_MAX)
        return refuse_at(w, event_line(w), "a key is too long (all keys: tidegate config default)");
    if (key.len == 0)
        return refuse_at(w, event_line(w), "a key is empty (all keys: tidegate config default)");
    if (w->path_len > 0)
        w->path[w->path_len++] = '.';
    memcpy(w->path + w->path_len, key.data, key.len);
    w->path_len += key.len;
    return remember_key(w, event_line(w));
}

static enum status put_item(struct walk *w, struct buf *items)
{
    if (w->event.type != YAML_SCALAR_EVENT)
        return refuse_at(w, event_line(w), "an item of a list must be plain text");
    struct slice item = event_text(w);
    if (event_is_null(w) || item.len == 0 || memchr(item.data, '\n', item.len))
        return refuse_at(w, event_line(w), "an item of a list must be one line of text");
    enum status st = items->len > 0 ? buf_put_byte(items, '\n') : ST_OK;
    if (st == ST_OK)
        st = buf_put(items, item);
    if (st != ST_OK)
        return config_refuse(w->error, st == ST_FULL ? ST_INVALID : st, "%s:%zu: the list is too long",
                             w->name, event_line(w));
    return ST_OK;
}

static enum status emit_field(struct walk *w, size_t outer_len, size_t line)
{
    if (w->event.type != YAML_SCALAR_EVENT || event_is_null(w))
        return refuse_at(w, line, "a field of a list item must have one plain value");
    struct config_entry entry = {ENTRY_FIELD, slice_of(w->path + outer_len + 1, w->path_len - outer_len - 1),
                                 event_text(w), line};
    return w->on_entry(w->ctx, &entry);
}

/* The current event begins a mapping within a list. Its keys are remembered until it ends. */
static enum status walk_row(struct walk *w)
{
    struct seen_key *seen = w->seen;
    size_t outer_len = w->path_len, begun = event_line(w);
    enum status st = emit(w, ENTRY_ROW, slice_of(NULL, 0), begun);
    if (st == ST_OK)
        st = next_event(w);
    while (st == ST_OK && w->event.type != YAML_MAPPING_END_EVENT) {
        size_t line = event_line(w);
        st = push_key(w);
        if (st == ST_OK)
            st = next_event(w);
        if (st == ST_OK)
            st = emit_field(w, outer_len, line);
        if (st == ST_OK)
            st = next_event(w);
        w->path_len = outer_len;
    }
    forget_keys(w, seen);
    return st == ST_OK ? emit(w, ENTRY_ROW_END, slice_of(NULL, 0), begun) : st;
}

/* The current event is the first item, a mapping. */
static enum status walk_rows(struct walk *w, size_t line)
{
    enum status st = emit(w, ENTRY_ROWS, slice_of(NULL, 0), line);
    while (st == ST_OK && w->event.type == YAML_MAPPING_START_EVENT) {
        st = walk_row(w);
        if (st == ST_OK)
            st = next_event(w);
    }
    if (st == ST_OK && w->event.type != YAML_SEQUENCE_END_EVENT)
        return refuse_at(w, event_line(w), "an item of this list must be a table, as the ones before it");
    return st;
}

static enum status walk_list(struct walk *w, size_t line)
{
    struct buf items;
    enum status st = next_event(w);
    if (st == ST_OK && w->event.type == YAML_MAPPING_START_EVENT)
        return walk_rows(w, line);
    buf_init(&items, ITEMS_BYTES_MAX);
    while (st == ST_OK && w->event.type != YAML_SEQUENCE_END_EVENT) {
        st = put_item(w, &items);
        if (st == ST_OK)
            st = next_event(w);
    }
    if (st == ST_OK)
        st = emit(w, ENTRY_ITEMS, buf_slice(&items), line);
    buf_deinit(&items);
    return st;
}

static enum status walk_mapping(struct walk *w, unsigned depth);

/* The current event begins a mapping that is the value of the path. */
static enum status walk_section(struct walk *w, size_t line, unsigned depth)
{
    if (depth == DEPTH_MAX)
        return refuse_at(w, line, "sections are nested too deeply (all keys: tidegate config default)");
    enum status st = next_event(w);
    if (st != ST_OK)
        return st;
    if (w->event.type == YAML_MAPPING_END_EVENT)
        return emit(w, ENTRY_EMPTY, slice_of(NULL, 0), line);
    st = emit(w, ENTRY_SECTION, slice_of(NULL, 0), line);
    return st == ST_OK ? walk_mapping(w, depth + 1) : st;
}

/* The current event is the value of the path, whose key is on `line`. */
static enum status walk_value(struct walk *w, size_t line, unsigned depth)
{
    switch ((int)w->event.type) {
    case YAML_SCALAR_EVENT:
        return emit(w, event_is_null(w) ? ENTRY_EMPTY : ENTRY_TEXT, event_text(w), line);
    case YAML_SEQUENCE_START_EVENT:
        return walk_list(w, line);
    case YAML_MAPPING_START_EVENT:
        return walk_section(w, line, depth);
    default:
        return refuse_at(w, event_line(w), "aliases (*name) are not supported; write the value out");
    }
}

/* The current event is the mapping's first key or its end. */
static enum status walk_mapping(struct walk *w, unsigned depth)
{
    while (w->event.type != YAML_MAPPING_END_EVENT) {
        size_t outer_len = w->path_len, line = event_line(w);
        enum status st = push_key(w);
        if (st == ST_OK)
            st = next_event(w);
        if (st == ST_OK)
            st = walk_value(w, line, depth);
        if (st == ST_OK)
            st = next_event(w);
        if (st != ST_OK)
            return st;
        w->path_len = outer_len;
    }
    return ST_OK;
}

/* A stream holds at most one document, and that is nothing or a mapping. */
static enum status walk_stream(struct walk *w)
{
    enum status st = next_event(w); /* stream start */
    if (st == ST_OK)
        st = next_event(w);
    if (st != ST_OK || w->event.type == YAML_STREAM_END_EVENT)
        return st;
    st = next_event(w); /* behind document start */
    if (st != ST_OK)
        return st;
    if (w->event.type == YAML_MAPPING_START_EVENT) {
        st = next_event(w);
        if (st == ST_OK)
            st = walk_mapping(w, 0);
    } else if (w->event.type != YAML_SCALAR_EVENT || !event_is_null(w)) {
        return refuse_at(w, event_line(w), "expected sections such as \"http:\" with keys below them");
    }
    if (st == ST_OK)
        st = next_event(w); /* document end */
    if (st == ST_OK)
        st = next_event(w);
    if (st == ST_OK && w->event.type != YAML_STREAM_END_EVENT)
        return refuse_at(w, event_line(w), "a second document (---) is not supported; keep one");
    return st;
}

enum status config_yaml_read(struct slice text, const char *name,
                             enum status (*on_entry)(void *ctx, const struct config_entry *entry), void *ctx,
                             struct buf *error)
{
    struct walk w = {.text = text, .name = name, .error = error, .on_entry = on_entry, .ctx = ctx};
    if (!yaml_parser_initialize(&w.parser))
        return config_refuse(error, ST_NO_MEMORY, "%s: out of memory", name);
    yaml_parser_set_encoding(&w.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&w.parser, text.len > 0 ? text.data : (const uint8_t *)"", text.len);
    enum status st = walk_stream(&w);
    yaml_event_delete(&w.event);
    yaml_parser_delete(&w.parser);
    forget_keys(&w, NULL);
    return st;
}
