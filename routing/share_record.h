/* What is durable of one lane of a group of shared subscriptions (routing/shard_share_kept.c), as bytes: the
 * payload of the record at `$group/<name>/<filter>` (FORMAT.md 5). Pure, any thread.
 *
 *   u8  version 1, u32 log epoch
 *   u64 next: all below has been given to somebody, but for what is listed under "open"
 *   u32 count of kept members, each
 *     u64 incarnation of its session
 *   u32 count of open positions: given, or given back, and not settled; each u64 offset below next
 *   u32 count of passed positions: settled though not below next; each u64 offset, ascending
 *
 * Little endian. */
#ifndef TG_ROUTING_SHARE_RECORD_H
#define TG_ROUTING_SHARE_RECORD_H

#include "core/buf.h"

/* `$group/<name>/<filter>` */
static inline bool topic_group_record(struct slice topic)
{
    static const char prefix[] = "$group/";
    return slice_starts_with(topic, slice_of(prefix, sizeof prefix - 1));
}

struct share_record {
    uint32_t epoch;
    uint64_t next;
    struct slice kept, open, passed; /* runs of u64 */
};
static inline size_t share_record_count(struct slice run)
{
    return run.len / 8;
}
uint64_t share_record_at(struct slice run, size_t index);

/* A run is put, then as many values as were said. ST_FULL, ST_NO_MEMORY. */
enum status share_record_begin(struct buf *out, uint32_t epoch, uint64_t next) MUST_CHECK;
enum status share_record_run(struct buf *out,
                             uint32_t count) MUST_CHECK; /* kept, open, passed, in this order */
void share_record_value(struct buf *out, uint64_t value);
/* ST_INVALID: not such bytes. The slices point into `bytes`. */
enum status share_record_read(struct slice bytes, struct share_record *out) MUST_CHECK;

#endif
