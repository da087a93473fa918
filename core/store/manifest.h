/* MANIFEST (FORMAT.md 7): epoch, incarnation, whether the last stop was clean, and where each lane is. */
#ifndef TG_CORE_STORE_MANIFEST_H
#define TG_CORE_STORE_MANIFEST_H

#include "core/store/files.h"
#include "core/store/store.h"

struct manifest {
    uint32_t epoch;
    uint32_t lane_count;
    uint64_t incarnation;
    bool stopped; /* the clean-stop mark */
    bool snapshot; /* of a snapshot, and stopped: it may be read and restored, not served */
    struct {
        uint64_t first; /* lowest offset kept */
        uint64_t end; /* all below is on disk */
        uint64_t next; /* where the next run begins (stopped), or this one began (running) */
    } lanes[STORE_LANES_MAX];
};

/* ST_NOT_FOUND; ST_CORRUPT; ST_UNSUPPORTED: a newer version; ST_IO. */
enum status manifest_read(const char *dir, struct manifest *out) MUST_CHECK;
/* Durable on return. -1 and errno. */
int manifest_write(const struct store_files *files, const char *dir, const struct manifest *m);

#endif
