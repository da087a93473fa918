/* Rows lie one behind the other, each as the struct that the fields' places refer to, so that a field is set,
 * printed and compared as any option is. */
#include "core/config_rows.h"

#include "core/config_name.h"
#include "core/config_value.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXPECTATION_BYTES_MAX = 256 };

static struct config_rows *rows_at(const struct config_list *l, void *settings)
{
    return (struct config_rows *)(void *)((char *)settings + l->place);
}

static const struct config_rows *rows_in(const struct config_list *l, const void *settings)
{
    return (const struct config_rows *)(const void *)((const char *)settings + l->place);
}

static const void *row_at(const struct config_list *l, const struct config_rows *r, size_t i)
{
    return (const char *)r->rows + i * l->row_bytes;
}

static void *newest_row(const struct config_list *l, void *settings)
{
    struct config_rows *r = rows_at(l, settings);
    assert(r->count > 0);
    return (char *)r->rows + (r->count - 1) * l->row_bytes;
}

/* --- in ----------------------------------------------------------------------------------------- */

void config_rows_clear(const struct config_list *l, void *settings)
{
    struct config_rows *r = rows_at(l, settings);
    for (size_t i = 0; i < r->count; i++)
        for (size_t k = 0; k < l->field_count; k++)
            config_value_free(&l->fields[k], (char *)r->rows + i * l->row_bytes);
    free(r->rows);
    *r = (struct config_rows){0};
}

enum status config_rows_add(const struct config_list *l, void *settings, const char *where, struct buf *error)
{
    struct config_rows *r = rows_at(l, settings);
    if (r->count == CONFIG_ROWS_MAX)
        return config_refuse(error, ST_INVALID, "%s: \"%s\" has more than %d items", where, l->key,
                             CONFIG_ROWS_MAX);
    void *rows = realloc(r->rows, (r->count + 1) * l->row_bytes);
    if (!rows)
        return config_refuse(error, ST_NO_MEMORY, "%s: out of memory", where);
    r->rows = rows;
    r->count++;
    void *row = newest_row(l, settings);
    memset(row, 0, l->row_bytes);
    config_defaults(&(struct config_table){.options = l->fields, .count = l->field_count}, row);
    return ST_OK;
}

enum status config_rows_set(const struct config_list *l, void *settings, struct slice field,
                            struct slice value, const char *where, struct buf *error)
{
    for (size_t i = 0; i < l->field_count; i++)
        if (slice_equal_cstr(field, l->fields[i].key))
            return config_value_set(&l->fields[i], newest_row(l, settings), value, where, error);
    const struct config_table fields = {.options = l->fields, .count = l->field_count};
    return config_refuse(error, ST_INVALID,
                         "%s: unknown key \"%.*s\" in an item of \"%s\" - did you mean \"%s\"? "
                         "(all keys: tidegate config default)",
                         where, SLICE_ARG(config_name_cut(field)), l->key, config_nearest(&fields, field));
}

enum status config_rows_end(const struct config_list *l, const void *settings, const char *where,
                            struct buf *error)
{
    const struct config_rows *r = rows_in(l, settings);
    const char *flaw = l->flaw ? l->flaw(r->rows, r->count) : NULL;
    return flaw ? config_refuse(error, ST_INVALID, "%s: an item of \"%s\": %s", where, l->key, flaw) : ST_OK;
}

void config_rows_share(const struct config_list *l, void *to, const void *from)
{
    config_rows_clear(l, to);
    *rows_at(l, to) = *rows_in(l, from);
}

enum status config_rows_show(const struct config_list *l, const void *settings, struct buf *out)
{
    size_t count = rows_in(l, settings)->count;
    return buf_printf(out, "%zu item%s", count, count == 1 ? "" : "s");
}

bool config_rows_equal(const struct config_list *l, const void *a, const void *b)
{
    const struct config_rows *x = rows_in(l, a), *y = rows_in(l, b);
    if (x->count != y->count)
        return false;
    for (size_t i = 0; i < x->count; i++)
        for (size_t k = 0; k < l->field_count; k++)
            if (!config_value_equal(&l->fields[k], row_at(l, x, i), row_at(l, y, i)))
                return false;
    return true;
}

/* --- out ---------------------------------------------------------------------------------------- */

const char *config_rows_expectation(const struct config_list *l)
{
    static char text[EXPECTATION_BYTES_MAX];
    snprintf(
        text, sizeof text,
        "\"%s\" is a list of tables: begin each item with \"- %s:\" (in one line: [{%s: ...}]; [] for none)",
        l->key, l->fields[0].key, l->fields[0].key);
    return text;
}

static enum status print_help(const struct config_list *l, struct buf *out)
{
    enum status st = buf_printf(out, "\n# %s\n", l->help);
    for (size_t k = 0; st == ST_OK && k < l->field_count; k++) {
        char expected[EXPECTATION_BYTES_MAX];
        config_value_expectation(&l->fields[k], expected, sizeof expected);
        st = buf_printf(out, "# %s %s: %s (%s)\n", k == 0 ? "-" : " ", l->fields[k].key, l->fields[k].help,
                        expected);
    }
    return st;
}

static enum status print_row(const struct config_list *l, const void *row, struct buf *out)
{
    enum status st = ST_OK;
    for (size_t k = 0; st == ST_OK && k < l->field_count; k++) {
        st = buf_printf(out, "  %s %s: ", k == 0 ? "-" : " ", l->fields[k].key);
        if (st == ST_OK)
            st = config_value_print(&l->fields[k], row, out);
        if (st == ST_OK)
            st = buf_put_byte(out, '\n');
    }
    return st;
}

enum status config_rows_print(const struct config_list *l, const void *settings, bool commented,
                              struct buf *out)
{
    const struct config_rows *r = rows_in(l, settings);
    enum status st = commented ? print_help(l, out) : ST_OK;
    if (st == ST_OK)
        st = buf_printf(out, "%s:%s\n", l->key, r->count == 0 ? " []" : "");
    for (size_t i = 0; st == ST_OK && i < r->count; i++)
        st = print_row(l, row_at(l, r, i), out);
    return st;
}

enum status config_rows_document(const struct config_list *l, const char *variable, bool live,
                                 struct buf *out)
{
    enum status st =
        buf_printf(out,
                   "\n## %s%s\n\n%s. A YAML list of tables; in `--set` and in the environment (`%s`) the\n"
                   "same as one line, `[{%s: ..., ...}]`, which replaces the whole list.\n\n"
                   "| field | default | value | meaning |\n|---|---|---|---|\n",
                   l->key, live ? " (live)" : "", l->help, variable, l->fields[0].key);
    for (size_t k = 0; st == ST_OK && k < l->field_count; k++) {
        st = config_value_document(&l->fields[k], out);
        if (st == ST_OK)
            st = buf_put_byte(out, '\n');
    }
    return st;
}
