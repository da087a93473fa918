/* File descriptors: how many the process may have, and who may have how many of them.
 *
 * A node without a free descriptor cannot take the connection of who wants to see why. So the private API has
 * a share that clients cannot take, and the log has its own. */
#ifndef TG_GATEWAY_DESCRIPTORS_H
#define TG_GATEWAY_DESCRIPTORS_H

#include "core/status.h"

#include <stdint.h>

struct descriptor_shares {
    uint64_t clients; /* connections of the public doors together */
    uint64_t api; /* of the private API */
};

/* Raises the soft limit to the hard one and says in the log what was got. Returns it; UINT64_MAX: unlimited.
 */
uint64_t descriptors_raise(void);

/* What each may have of `limit` descriptors when the node itself needs `own`. Neither gets more than
 * `wanted`; the API at most a quarter of what is left. ST_FULL: nothing is left for clients. */
enum status descriptors_share(uint64_t limit, uint64_t own, const struct descriptor_shares *wanted,
                              struct descriptor_shares *out) MUST_CHECK;

#endif
