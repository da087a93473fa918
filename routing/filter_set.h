/* The entries of one filter. Private to the filter table. Room for one inside, because most filters
 * have one entry; more live in an array that doubles. An entry knows its place, so taking it out costs
 * the same from 1 and from 100,000. Owning loop only. */
#ifndef TG_ROUTING_FILTER_SET_H
#define TG_ROUTING_FILTER_SET_H

#include "routing/filter_table.h"

/* What the set is part of: unlink has only the set. */
enum filter_home {
    FILTER_LITERAL, /* struct literal, filter_table.c */
    FILTER_HERE, /* struct trie_node, `here` */
    FILTER_BELOW, /* struct trie_node, `below` */
};

struct filter_set {
    union {
        struct filter_entry *one;
        struct filter_entry **many;
    };
    uint32_t count;
    uint8_t bits; /* 2^bits places; 0: the one inside */
    uint8_t home; /* enum filter_home */
};

/* The sets of the filters that match a topic. */
struct filter_hits {
    struct filter_set *const *sets;
    size_t count;
};

/* Sets e->node and e->place. ST_NO_MEMORY. `bytes` is the table's account of array bytes. */
enum status filter_set_add(struct filter_set *s, struct filter_entry *e, size_t *bytes) MUST_CHECK;
void filter_set_remove(struct filter_set *s, struct filter_entry *e, size_t *bytes);
void filter_set_deinit(struct filter_set *s); /* entries are forgotten */

static inline struct filter_entry **filter_set_entries(struct filter_set *s)
{
    return s->bits == 0 ? &s->one : s->many;
}

#endif
