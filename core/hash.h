/* Hashes. `hash64` is SipHash-1-3 under a key: names of topics come from strangers, and a table
 * whose collisions can be computed by a stranger is a denial of service. The partition of a routing
 * key uses `hash64_stable`, whose key is fixed for ever, because it decides where records live. */
#ifndef TG_CORE_HASH_H
#define TG_CORE_HASH_H

#include "core/slice.h"

/* Draws this process's key from the kernel. Call once before threads start; hash64 before that uses
 * a zero key. */
void hash_setup(void);

uint64_t hash64(struct slice bytes); /* any thread */
uint64_t hash64_stable(struct slice bytes); /* any thread; same value in every process, for ever */

#endif
