/* What a start must have on the disk before anything may be appended: files cut to what was recovered of
 * them, then MANIFEST, which says that a process runs (FORMAT.md 9). A disk without room for that is no
 * reason not to start: all of the log can be read meanwhile. Appends are refused until it is done.
 *
 * Start-up, then the writer thread; `done` any thread. */
#ifndef TG_CORE_STORE_ONSET_H
#define TG_CORE_STORE_ONSET_H

#include "core/store/files.h"
#include "core/store/manifest.h"
#include "core/store/volume.h"

#include <stdatomic.h>

struct onset_cut {
    char *path;
    uint64_t bytes; /* what is to be left of it */
};

struct onset {
    const struct store_files *files;
    const char *dir; /* kept */
    struct manifest *manifest; /* kept; nobody else may write it before this is done */
    struct onset_cut *cuts;
    uint32_t cut_count, cuts_done;
    char where[4096]; /* what failed */
    atomic_bool done; /* release behind the last write, acquire by who changes the folder: retention */
};

/* `cuts`: the files of the shelves that recovery could not cut. ST_NO_MEMORY, ST_TOO_LARGE. */
enum status onset_init(struct onset *o, const struct store_files *files, const char *dir, struct manifest *m,
                       const struct shelf *shelves, unsigned lane_count) MUST_CHECK;
void onset_deinit(struct onset *o);

/* ST_OK: it is done. ST_AGAIN: the disk has no room; what has been done stays. ST_IO: errno, and `where`. */
enum status onset_try(struct onset *o) MUST_CHECK;

static inline bool onset_done(const struct onset *o)
{
    return atomic_load_explicit(&o->done, memory_order_acquire);
}

#endif
