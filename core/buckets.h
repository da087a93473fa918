/* Token buckets and counts by key (an address, a user), shared by all loops without a lock: a bounded table
 * of places. Any thread; whoever holds a place may use it until it is released.
 *
 * A bucket is one number, the time at which it will be full again (GCRA): a token moves that time by 1/rate,
 * and there is one while it lies less than `burst` tokens ahead. A bucket that is full is as good as none, so
 * a place that nobody holds and whose buckets are full is given to the next key that needs one. */
#ifndef TG_CORE_BUCKETS_H
#define TG_CORE_BUCKETS_H

#include "core/slice.h"
#include "core/status.h"

#include <stdatomic.h>
#include <stdbool.h>

enum bucket_kind { BUCKET_CONNECT, BUCKET_PUBLISH, BUCKET_KINDS };

struct bucket_place {
    /* The key's tag, and below it how many hold the place: one word, so that it changes hands and is counted
     * in one step. */
    _Atomic uint64_t owner;
    _Atomic uint64_t full_at_ns[BUCKET_KINDS];
    uint64_t unused; /* places do not straddle cache lines */
};

struct bucket_rate {
    uint64_t interval_ns; /* between two tokens; 0 = any number */
    uint64_t burst; /* tokens of a full bucket; at least 1 */
};

struct buckets;

/* Room for `count` keys at least, as a power of two. ST_NO_MEMORY. */
enum status buckets_create(uint64_t count, struct buckets **out) MUST_CHECK;
void buckets_destroy(struct buckets *b); /* NULL is allowed */
uint64_t buckets_count(const struct buckets *b); /* places */

/* The key's place, with one more that holds it; NULL: `most` do already (0 = any number). When the table has
 * no place left for it the key shares one with all others of which that is so: *shared. */
struct bucket_place *buckets_hold(struct buckets *b, struct slice key, uint64_t most, uint64_t now_ns,
                                  bool *shared);
void buckets_release(struct bucket_place *p); /* NULL is allowed */
uint64_t bucket_holders(const struct bucket_place *p);

/* How long until there is a token; 0 = there is one. */
uint64_t bucket_wait_ns(const struct bucket_place *p, enum bucket_kind kind, const struct bucket_rate *rate,
                        uint64_t now_ns);
/* Takes one, whether there is one or not. */
void bucket_take(struct bucket_place *p, enum bucket_kind kind, const struct bucket_rate *rate,
                 uint64_t now_ns);

#endif
