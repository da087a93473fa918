/* What a lane's folder holds after whatever has happened: FORMAT.md 9, for one lane. Start-up only. */
#ifndef TG_CORE_STORE_RECOVERY_H
#define TG_CORE_STORE_RECOVERY_H

#include "core/buf.h"
#include "core/store/volume.h"

struct recovery {
    uint32_t log_epoch;
    uint64_t first; /* of the MANIFEST: lowest offset kept */
    uint64_t synced_below; /* `end` of the MANIFEST */
    unsigned threads; /* to read segments with, 1 to CREW_MAX */
    bool mirror; /* whatever is wrong, the log ends before it: the rest comes again (store_mirror.h) */
    /* answer */
    uint64_t end; /* of what was recovered; at least synced_below */
    uint64_t torn_bytes; /* cut away */
};

/* Fills `shelf` (its folder exists). Everything in it is synced and has an index on return. `error` gets a
 * line when it is not ST_OK. */
enum status recovery_run(struct shelf *shelf, struct recovery *r, struct buf *error) MUST_CHECK;

#endif
