/* A snapshot: the sealed segments of a log as hard links in a folder of their own, with a MANIFEST that says
 * that it ends there (FORMAT.md 11). Names only, no bytes are copied; blocking, so on a thread that nobody
 * waits for. */
#ifndef TG_CORE_STORE_SNAPSHOT_H
#define TG_CORE_STORE_SNAPSHOT_H

#include "core/store/manifest.h"

enum { SNAPSHOT_NAME_BYTES_MAX = 64 };

/* Letters, digits, '-' and '_', at most 64, not beginning with '-'. */
bool snapshot_name_valid(const char *name);
/* "20260102T030405Z". */
void snapshot_name_of_time(uint64_t wall_ms, char out[SNAPSHOT_NAME_BYTES_MAX + 1]);

struct snapshot_report {
    char path[4096];
    uint32_t segments;
    uint64_t bytes;
    unsigned lane_count;
    uint64_t next[STORE_LANES_MAX]; /* of each lane: all below is in it */
};

/* Links what lies in `dir` and is described by `m` (of each lane the segments from `first` up to `end`, which
 * must be sealed and synced, and must not be removed meanwhile) into <dir>/snapshots/<name>. Durable on
 * return; on failure nothing is left. `error` gets a line. ST_INVALID: the name; ST_EXISTS: there is one of
 * this name; ST_QUOTA: there are `snapshots_max` already; ST_NOT_FOUND: a file of the log is not there;
 * ST_IO, ST_NO_SPACE. */
enum status snapshot_make(const struct store_files *files, const char *dir, const char *name,
                          uint64_t snapshots_max, const struct manifest *m, struct snapshot_report *out,
                          struct buf *error) MUST_CHECK;

#endif
