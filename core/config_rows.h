/* A list of tables of the configuration: its rows, in and out. For config.c. */
#ifndef TG_CORE_CONFIG_ROWS_H
#define TG_CORE_CONFIG_ROWS_H

#include "core/config.h"

void config_rows_clear(const struct config_list *l, void *settings);
/* A row of defaults at the end. ST_INVALID: too many; ST_NO_MEMORY. */
enum status config_rows_add(const struct config_list *l, void *settings, const char *where,
                            struct buf *error) MUST_CHECK;
/* A field of the newest row. ST_INVALID: unknown, or not such a value. */
enum status config_rows_set(const struct config_list *l, void *settings, struct slice field,
                            struct slice value, const char *where, struct buf *error) MUST_CHECK;
/* The newest row is complete. ST_INVALID: it has a flaw. */
enum status config_rows_end(const struct config_list *l, const void *settings, const char *where,
                            struct buf *error) MUST_CHECK;
/* `to` gets the rows of `from`, without a copy; its own are freed. */
void config_rows_share(const struct config_list *l, void *to, const void *from);
enum status config_rows_show(const struct config_list *l, const void *settings, struct buf *out) MUST_CHECK;
bool config_rows_equal(const struct config_list *l, const void *a, const void *b);

/* What a value that is no list of tables is told. Static storage. */
const char *config_rows_expectation(const struct config_list *l);
enum status config_rows_print(const struct config_list *l, const void *settings, bool commented,
                              struct buf *out) MUST_CHECK;
enum status config_rows_document(const struct config_list *l, const char *variable, bool live,
                                 struct buf *out) MUST_CHECK;

#endif
