/* A mirror: the segment store fed from outside. Somebody else orders the records and makes them durable (a
 * Kafka partition a lane); this store keeps a copy that is read like any log (history, catch-up, the fold).
 *
 *   mirror_prepare   whose copy is in the folder? another's, or a spoilt one: it is emptied
 *   store_open       with options.mirror_epoch: no START, no jump; whatever of the end does not verify is
 * cut, and comes again store_append_at  what the source gives, at the source's offsets and times
 *
 * Nothing in a mirror is the only copy, so nothing is synced for its own sake (STORE_SYNC_NEVER), and damage
 * is never judged to be rot. But it must not be put together from two logs: MIRROR says of which one it is
 * (docs/FORMAT.md 12). */
#ifndef TG_CORE_STORE_STORE_MIRROR_H
#define TG_CORE_STORE_STORE_MIRROR_H

#include "core/store/store.h"

/* The log that is mirrored. Names are printable, without spaces, up to 255 bytes. */
struct mirror_source {
    const char *kind; /* "kafka" */
    const char *place; /* which cluster */
    const char *name; /* what there */
    unsigned lane_count;
    uint64_t heads[STORE_LANES_MAX]; /* the number that each lane began with, by chance: a log that was made
                                        anew under its name has others */
};

/* Is there one in the folder? */
bool mirror_is_here(const char *dir);

/* The folder is then this source's mirror, made or emptied if need be; *epoch is its epoch (never 0), the
 * same wherever the source is mirrored, but for one that was `spoilt`: its end was another than the source's.
 * Then it is emptied and has a new epoch. *kept: it has what it had. Blocking: start-up, before store_open.
 * ST_INVALID: the folder holds a log of its own, which stays untouched; ST_EXISTS: another process has it;
 * ST_UNSUPPORTED: a newer version wrote it; ST_FORBIDDEN, ST_IO, ST_NO_SPACE: `error` has a line. */
enum status mirror_prepare(const char *dir, const struct mirror_source *source, bool spoilt, uint32_t *epoch,
                           bool *kept, struct buf *error) MUST_CHECK;

/* Of a store with mirror_epoch: the record at m->offset, not below store_next; what lies between does not
 * exist. Its time is m->ts_ms, or that of the record before if that is greater; m->ts_ms says it then, and
 * m->stored the offset. A note (MSG_NOTE) is kept as such. Statuses as store_append; after another than ST_OK
 * a part of what lies between may have been noted: the same call again goes on. Owning loop. */
enum status store_append_at(struct store *s, unsigned lane, struct msg *m) MUST_CHECK;
/* The record is void: no read brings it any more but one with state_only. In ascending order; not kept over a
 * restart. Beyond options.voids_max it is shown, and counted. Owning loop, or before it runs. */
void store_hide(struct store *s, unsigned lane, uint64_t offset);

/* A record as it travels to the source and back: that of docs/FORMAT.md 4 without a place or a time. */
uint64_t mirror_record_bytes(const struct msg *m);
void mirror_record_encode(const struct msg *m, uint8_t *out); /* exactly so many; 8-aligned */
/* A message of its own, with that partition, offset and time. ST_CORRUPT: it is none. ST_NO_MEMORY. */
enum status mirror_record_decode(struct slice bytes, uint32_t partition, uint64_t offset, uint64_t time_ms,
                                 struct msg **out) MUST_CHECK;
/* A hole's note, as the lane itself writes it: in the place of what is no record. ST_NO_MEMORY. */
enum status mirror_hole(uint64_t offset, uint64_t time_ms, struct msg **out) MUST_CHECK;

#endif
