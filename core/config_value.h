/* One value of the configuration: text to value and back, by the option's type. For config*.c. */
#ifndef TG_CORE_CONFIG_VALUE_H
#define TG_CORE_CONFIG_VALUE_H

#include "core/config.h"

/* Puts one line into `error` (cut to its room, control characters made harmless). Returns `st`. */
enum status config_refuse(struct buf *error, enum status st, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Sets the option's place. ST_INVALID with "<where>: ..." in `error`; the place is as it was then. */
enum status config_value_set(const struct config_option *o, void *settings, struct slice text,
                             const char *where, struct buf *error) MUST_CHECK;
/* The same for a CONFIG_LIST whose items are joined by '\n' already. */
enum status config_value_set_items(const struct config_option *o, void *settings, struct slice items,
                                   const char *where, struct buf *error) MUST_CHECK;
bool config_value_equal(const struct config_option *o, const void *a, const void *b);
/* `to` gets the value of `from`, a text without a copy; its own is freed. */
void config_value_share(const struct config_option *o, void *to, const void *from);
void config_value_free(const struct config_option *o, void *settings);

/* As YAML that config_value_set understands. */
enum status config_value_print(const struct config_option *o, const void *settings,
                               struct buf *out) MUST_CHECK;

/* As config_value_set understands it, without quotes. */
enum status config_value_print_plain(const struct config_option *o, const void *settings,
                                     struct buf *out) MUST_CHECK;

/* The first cells of a row of the reference: key, default, value, meaning. */
enum status config_value_document(const struct config_option *o, struct buf *out) MUST_CHECK;

/* "a whole number from 1 to 65535": for messages and for the reference. */
void config_value_expectation(const struct config_option *o, char *text, size_t size);

#endif
