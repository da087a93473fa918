/* A record's bytes (FORMAT.md 4): encode, check, decode. Pure; any thread. */
#ifndef TG_CORE_STORE_RECORD_H
#define TG_CORE_STORE_RECORD_H

#include "core/msg.h"
#include "core/store/format.h"

#include <stdbool.h>

/* A checked record; slices point into the bytes that were checked. */
struct record {
    uint64_t offset;
    uint64_t topic_id;
    uint64_t time_ms;
    uint64_t expires_ms; /* 0 = never */
    uint64_t original; /* the offset under which it was published: `offset`, or a lower one when carried */
    struct slice topic, key, props, payload;
    uint32_t stored_bytes; /* with padding: where the next one begins */
    uint8_t bits;
    bool internal;
    bool carried;
};

/* What binds a record to its place; enters its CRC. */
uint32_t record_seed(uint64_t segment_epoch, uint64_t frame_base_offset);

/* Bytes with padding, a multiple of 8. May be over RECORD_BYTES_MAX: the caller refuses it then. */
uint64_t record_stored_bytes(const struct msg *m);
/* Writes exactly record_stored_bytes(m) at `out` (8-aligned). The offset is that of the frame + delta;
 * time is m->ts_ms. */
void record_encode(const struct msg *m, uint32_t delta, uint32_t seed, uint8_t *out);
/* The same without a place or a time: delta 0, time 0 (store_mirror.h). */
void record_encode_unplaced(const struct msg *m, uint32_t seed, uint8_t *out);
/* The same of a message that is in the log already: a carried record (FORMAT.md 5), which keeps m->offset
 * and m->ts_ms. */
uint64_t record_carried_bytes(const struct msg *m);
void record_encode_carried(const struct msg *m, uint32_t delta, uint32_t seed, uint8_t *out);
/* An internal record: no topic, only `payload`. */
uint32_t record_internal_bytes(struct slice payload);
void record_encode_internal(struct slice payload, uint64_t time_ms, uint32_t delta, uint32_t seed,
                            uint8_t *out);

/* Length with padding that the header at `bytes` claims (40 readable bytes); 0: it cannot be a record
 * of at most `room` bytes. Nothing has been verified. */
uint32_t record_claimed_bytes(const uint8_t *bytes, uint64_t room);
/* `bytes` are the claimed bytes. ST_CORRUPT: not valid at this place. */
enum status record_decode(struct slice bytes, uint32_t seed, uint64_t frame_base_offset,
                          struct record *out) MUST_CHECK;

/* The index has a list of places for each topic, and one for each inbox: `$user/<id>` and all below it. True:
 * the topic belongs to that list, and *list_id is its name there. */
bool record_inbox_list(struct slice topic, uint64_t *list_id);

/* A message of its own. ST_NO_MEMORY. */
enum status record_to_msg(const struct record *r, uint32_t partition, struct msg **out) MUST_CHECK;

#endif
