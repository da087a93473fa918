/* Names of keys in messages: which known one was meant? For config*.c. */
#ifndef TG_CORE_CONFIG_NAME_H
#define TG_CORE_CONFIG_NAME_H

#include "core/config.h"

enum { CONFIG_NAME_BYTES_MAX = 128 }; /* of a key or an environment variable, in comparisons and messages */

struct slice config_name_cut(struct slice text); /* to that length */
/* How many single letters must be inserted, deleted, replaced or swapped with their neighbour. Both cut. */
unsigned config_distance(struct slice a, struct slice b);
/* The key of the table that is the least different; "" when it has none. */
const char *config_nearest(const struct config_table *t, struct slice name);

#endif
