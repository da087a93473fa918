/* How full the log's disk is, and what follows: a warning, then publishes are refused before the disk is
 * full; and the ballast, a file that is given up when it is full all the same, so that what must still be
 * written (MANIFEST, indexes, what retention carries, other programs' files) can be. The maker's thread, but
 * for what says otherwise. */
#ifndef TG_CORE_STORE_SPACE_H
#define TG_CORE_STORE_SPACE_H

#include "core/store/files.h"
#include "core/store/store.h"

#include <stdatomic.h>

enum space_level { SPACE_OK, SPACE_LOW, SPACE_REFUSE };

struct space {
    const struct store_options *options;
    const struct store_files *files;
    struct metrics *metrics;
    atomic_bool *refuse; /* kept: publishes are refused */
    enum space_level level;
    bool ballast_held;
    atomic_bool ballast_given; /* it was held and has been given up; any thread reads it */
    bool ballast_warned;
    uint64_t free_bytes; /* as told to the gauge */
};

void space_init(struct space *s, const struct store_options *options, const struct store_files *files,
                struct metrics *metrics, atomic_bool *refuse);
void space_deinit(struct space *s);

/* Now and then: the level, and the ballast is made again when there is room. `full`: no file could be made.
 */
void space_look(struct space *s, bool full);
/* The disk is full. */
void space_give_ballast(struct space *s);
/* Before anything is made after that. False: there is no room yet. */
bool space_take_ballast_back(struct space *s) MUST_CHECK;

#endif
