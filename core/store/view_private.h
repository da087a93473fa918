/* Shared by view.c (opening, what is there) and walk.c (reading it). */
#ifndef TG_CORE_STORE_VIEW_PRIVATE_H
#define TG_CORE_STORE_VIEW_PRIVATE_H

#include "core/store/index_file.h"
#include "core/store/manifest.h"
#include "core/store/scan.h"
#include "core/store/survey.h"
#include "core/store/view.h"

#include <limits.h>

struct view {
    char dir[PATH_MAX];
    struct manifest manifest;
    bool running;
};

/* One segment file, at first sight. */
struct view_item {
    uint64_t base_offset;
    uint64_t previous_next;
    uint64_t segment_epoch; /* 0: not known, nothing can be read */
    uint64_t file_bytes;
    uint64_t end; /* bytes to read: the file, or to the end of its last valid frame */
    uint64_t noise_end;
    uint64_t next_offset;
    uint64_t synced_below; /* its witness */
    uint64_t last_ms;
    bool indexed, index_bad;
    bool header_bad, foreign, blank;
    bool reused; /* behind its end may be what an earlier life of the file has left */
};

struct view_items {
    struct view_item *items;
    uint32_t count, cap;
    uint64_t first; /* of the MANIFEST */
    uint64_t synced_below; /* the highest witness: below it nothing may be missing */
};

/* Lists and looks at a lane's files. `tools` are for the reading. ST_NO_MEMORY, ST_IO, ST_FORBIDDEN (with a
 * line in `error`). */
enum status view_list(struct view *v, unsigned lane, struct survey_tools *tools, struct view_items *out,
                      struct buf *error) MUST_CHECK;
/* While a node runs: `first` may have moved. Keeps the old value when the MANIFEST cannot be read. */
uint64_t view_first_now(struct view *v, unsigned lane);
/* False: too long. */
bool view_path(const struct view *v, unsigned lane, uint64_t base_offset, const char *suffix,
               char out[PATH_MAX]);

#endif
