/* How far a user has got in his inbox, as bytes: the payload of the record at `$inbox/<id>` (FORMAT.md 5).
 * Pure, any thread.
 *
 *   u8 version 1, u32 log epoch, u64 offset below which everything is acknowledged; little endian */
#ifndef TG_ROUTING_INBOX_RECORD_H
#define TG_ROUTING_INBOX_RECORD_H

#include "core/slice.h"
#include "core/status.h"

enum { INBOX_RECORD_BYTES = 1 + 4 + 8 };

void inbox_record_write(uint32_t epoch, uint64_t next, uint8_t out[INBOX_RECORD_BYTES]);
/* ST_INVALID: not such bytes. ST_GONE: of another epoch. */
enum status inbox_record_read(struct slice bytes, uint32_t epoch, uint64_t *next) MUST_CHECK;

#endif
