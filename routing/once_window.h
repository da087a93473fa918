/* The window of a producer: the ONCE_WINDOW greatest sequences that are stored, each with what was stored
 * under it. Which these are does not depend on the order in which they are put in, so a fold over the log's
 * records in any order gives the same. Owning loop only. */
#ifndef TG_ROUTING_ONCE_WINDOW_H
#define TG_ROUTING_ONCE_WINDOW_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ONCE_WINDOW = 1024 };

struct once_member {
    uint64_t sequence;
    uint64_t check; /* what must be equal in a repetition */
    uint64_t offset; /* of the message */
    uint64_t stored; /* of the newest record that tells of it */
};

/* Zeroes are an empty window that holds no memory. */
struct once_window {
    struct once_member *ring; /* ascending by sequence, from `first` on */
    uint32_t cap; /* power of two */
    uint32_t first, count;
};

void once_window_deinit(struct once_window *w);

static inline struct once_member *once_window_at(const struct once_window *w, uint32_t i)
{
    return &w->ring[(w->first + i) & (w->cap - 1)];
}
/* NULL: not among them. */
struct once_member *once_window_find(const struct once_window *w, uint64_t sequence);
/* It lies where nothing is remembered any more: whether it is stored cannot be told. */
bool once_window_below(const struct once_window *w, uint64_t sequence);
/* Adds one, over the smallest when it is full; one that lies below is not added. Of two of the same sequence
 * the one of the greater offset stays. ST_NO_MEMORY: the window is what it was. */
enum status once_window_put(struct once_window *w, const struct once_member *m) MUST_CHECK;

static inline size_t once_window_bytes(const struct once_window *w)
{
    return w->cap * sizeof(struct once_member);
}

#endif
