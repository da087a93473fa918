/* Filters with wildcards, as a trie by level. Private to the filter table.
 *
 * filter_trie_match never allocates: each link reserves what the longest walk can need. The sets it
 * returns are its own and valid until the next take, give or match. Owning loop only. */
#ifndef TG_ROUTING_FILTER_TRIE_H
#define TG_ROUTING_FILTER_TRIE_H

#include "routing/filter_set.h"

struct filter_trie;

enum status filter_trie_create(struct filter_trie **out) MUST_CHECK;
void filter_trie_destroy(struct filter_trie *t); /* NULL is allowed; entries are forgotten */

/* The set of a filter, made when there is none. An empty set must be given back before the next call
 * of match: give drops it when it is empty and does nothing otherwise. ST_NO_MEMORY. */
enum status filter_trie_take(struct filter_trie *t, struct slice filter, struct filter_set **out) MUST_CHECK;
void filter_trie_give(struct filter_trie *t, struct filter_set *set);
struct filter_set *filter_trie_find(struct filter_trie *t, struct slice filter); /* NULL: no entries */

size_t filter_trie_hits_max(const struct filter_trie *t); /* no topic matches more sets */
size_t filter_trie_bytes(const struct filter_trie *t); /* without the sets' arrays */

/* The sets whose filter matches the topic name; `topic_hash` is its hash64. */
struct filter_hits filter_trie_match(struct filter_trie *t, struct slice topic, uint64_t topic_hash);

#endif
