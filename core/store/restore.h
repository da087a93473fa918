/* A log made from a snapshot: a copy in a folder of its own, as a log of a new epoch that was stopped
 * cleanly. */
#ifndef TG_CORE_STORE_RESTORE_H
#define TG_CORE_STORE_RESTORE_H

#include "core/store/files.h"
#include "core/store/view.h"

struct restore_report {
    uint32_t epoch;
    uint32_t segments;
    uint64_t bytes, messages;
};

/* Copies `snapshot` into `dir`, which is made or must be empty; durable on return. The copy is read and every
 * record of it checked before it gets its MANIFEST; damage is refused, and then, as after any failure,
 * nothing is left in `dir`. Blocking. `error` gets a line. ST_EXISTS: `dir` is not empty; ST_CORRUPT: the
 * snapshot is damaged; ST_IO, ST_NO_SPACE, ST_NO_MEMORY, ST_FORBIDDEN. */
enum status restore_run(const struct store_files *files, struct view *snapshot, const char *dir,
                        struct restore_report *out, struct buf *error) MUST_CHECK;

#endif
