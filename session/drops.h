/* What subscriptions of this loop did not get, lately: one entry for each session, filter, lane and reason,
 * with how many and where. Bounded: the entry that has grown least lately goes first, and is counted. The
 * counters of the metrics are complete; this says whom they were about. Owning loop only. */
#ifndef TG_SESSION_DROPS_H
#define TG_SESSION_DROPS_H

#include "core/list.h"
#include "core/metrics.h"

struct drops;

struct drop {
    struct list link;
    struct drop *next_in_bucket;
    uint64_t hash;
    uint64_t session;
    enum metric why; /* M_DROPPED_*; M_REFUSED_RATE: of a publisher */
    uint16_t lane;
    uint64_t count;
    uint64_t from,
        to; /* offsets: the lowest and the highest; none with M_DROPPED_UNSTORED and M_REFUSED_RATE */
    uint64_t first_ms, last_ms; /* Unix time */
    struct slice filter, name;
    uint8_t text[]; /* of filter and name */
};

/* For at most `max` entries; 0: nothing is noted, *out is NULL. ST_NO_MEMORY. */
enum status drops_create(uint32_t max, struct drops **out) MUST_CHECK;
void drops_destroy(struct drops *d); /* NULL is allowed */

struct drop_note {
    uint64_t session;
    struct slice filter, name; /* copied; the name is cut to 64 bytes. Whoever the session is, for people */
    enum metric why;
    unsigned lane;
    uint64_t from, to, count;
};
/* d may be NULL. */
void drops_note(struct drops *d, const struct drop_note *n, uint64_t wall_ms);

/* Newest first. */
void drops_each(struct drops *d, void (*on_drop)(void *ctx, const struct drop *drop), void *ctx);
uint32_t drops_count(const struct drops *d);
uint64_t drops_evicted(const struct drops *d);

/* The word for a reason in `gap` and in the ledger: "lag". */
const char *drop_reason(enum metric why);

#endif
