/* Records that are still in memory: store_recent. */
#ifndef TG_CORE_STORE_RECENT_H
#define TG_CORE_STORE_RECENT_H

#include "core/store/lane.h"

/* See store_recent. Owning loop. */
enum status recent_read(const struct lane *l, uint64_t from, struct slice topic,
                        bool (*wants)(void *ctx, struct slice topic), void *wants_ctx, uint32_t count_max,
                        struct msg **msgs, uint32_t *found, uint64_t *next) MUST_CHECK;

#endif
