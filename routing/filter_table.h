/* Filters -> entries: who wants this topic? One table a loop (subscriptions of its sessions), and
 * one a loop that runs shards (loops with interest).
 *
 * Literal filters sit in a hash table by the whole name; filters with wildcards in a trie by level.
 * A look-up costs the same with 1,000 and 1,000,000 filters (<= 400 ns a literal topic, <= 150 bytes
 * a filter: PERFORMANCE.md). Owning loop only. */
#ifndef TG_ROUTING_FILTER_TABLE_H
#define TG_ROUTING_FILTER_TABLE_H

#include "core/slice.h"
#include "core/status.h"

struct filter_table;

/* Embed in whatever is registered; one entry belongs to at most one table. The table keeps the
 * pointer, not the struct. */
struct filter_entry {
    void *node; /* the table's; NULL when not linked */
    uint32_t place; /* the table's */
};

enum status filter_table_create(struct filter_table **out) MUST_CHECK;
void filter_table_destroy(struct filter_table *t); /* entries are forgotten, not freed */

/* Links under a valid filter (its bytes are copied once per distinct filter). ST_NO_MEMORY. */
enum status filter_table_link(struct filter_table *t, struct slice filter, struct filter_entry *e) MUST_CHECK;
void filter_table_unlink(struct filter_table *t, struct filter_entry *e); /* safe when not linked */
/* Some entry linked under exactly this filter, or NULL. */
struct filter_entry *filter_table_find(struct filter_table *t, struct slice filter);
size_t filter_table_count(const struct filter_table *t); /* linked entries */
size_t filter_table_bytes(const struct filter_table *t); /* memory held */

/* All entries whose filter matches the topic name. The array is the table's and valid until the next
 * call of match, link or unlink. Order is unspecified but stable between changes. */
struct filter_matches {
    struct filter_entry *const *entries;
    size_t count;
};
struct filter_matches filter_table_match(struct filter_table *t, struct slice topic);

#endif
