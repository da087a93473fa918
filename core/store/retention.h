/* Which of a lane's oldest segments are more than is to be kept, and how they go. Reader thread. */
#ifndef TG_CORE_STORE_RETENTION_H
#define TG_CORE_STORE_RETENTION_H

#include "core/store/maker.h"
#include "core/store/manifest.h"
#include "core/store/volume.h"

/* The offset below which everything should go, or 0. Whole segments below `sealed_next`, oldest first, a
 * bounded number at once, never the last one. `live_bytes`: what the owner of the lane would append again. */
uint64_t retention_due(const struct shelf *s, const struct store_options *o, uint64_t sealed_next,
                       uint64_t live_bytes, uint64_t wall_ms) MUST_CHECK;
/* Milliseconds until age alone makes the oldest segment due; UINT64_MAX: never. */
uint64_t retention_due_ms(const struct shelf *s, const struct store_options *o, uint64_t wall_ms);

/* How many of the first volumes lie below `upto`. */
uint32_t retention_count_below(const struct shelf *s, uint64_t upto);
/* Writes to the MANIFEST, durably, that the first `count` of them are gone. ST_IO (logged): they are not. */
enum status retention_mark(struct manifest *m, const struct store_options *o, const struct shelf *s,
                           uint32_t count) MUST_CHECK;
/* After that: removes the volumes and their files, or gives these to the maker. What cannot be removed now,
 * the next start removes. */
void retention_remove(struct volume_cache *cache, struct shelf *s, struct maker *maker, uint32_t count);

#endif
