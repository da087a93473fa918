/* The sessions of a loop by their number: found by it, and walked in its order from any place on, so that a
 * list of many can be made in pieces. Numbers only grow, therefore an array that is appended to stays sorted;
 * what has gone leaves a hole until half of it are holes. Owning loop only. */
#ifndef TG_SESSION_ROSTER_H
#define TG_SESSION_ROSTER_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct session;

/* Zeroes are an empty roster that holds no memory. */
struct roster {
    struct roster_entry {
        uint64_t id;
        struct session *session; /* NULL: it has gone */
    } * entries;
    size_t count, cap, holes;
};

void roster_deinit(struct roster *r);
/* `id` is greater than all before. ST_NO_MEMORY. */
enum status roster_add(struct roster *r, uint64_t id, struct session *s) MUST_CHECK;
void roster_remove(struct roster *r, uint64_t id); /* it is there */
struct session *roster_find(const struct roster *r, uint64_t id); /* NULL: not there */
/* Index of the first entry with a greater id; r->count: none. Entries may be holes. */
size_t roster_after(const struct roster *r, uint64_t id);

#endif
