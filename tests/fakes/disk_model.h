/* A disk on paper. The port writes down every call that changes a folder (and makes it really); from that any
 * number of disks can be made that a power cut before the n-th call may have left:
 *
 *   of a file        what its last sync covers, and of what came later any sectors and any of its sizes
 *   of the names     what the last sync of a folder covers (a rename is whole or not at all), and of what
 * came later all, nothing, a first part, or any choice
 *
 * That is harsher than ext4, where names become durable in order and a file's sync brings them along.
 * Threads: the port's calls may come from any; the rest from the test's. One trace is taken at a time. */
#ifndef TG_TESTS_FAKES_DISK_MODEL_H
#define TG_TESTS_FAKES_DISK_MODEL_H

#include "core/store/files.h"

#include <stdbool.h>

enum { DISK_NAME_BYTES = 64, DISK_FILES_MAX = 512, DISK_MOODS = 6 };

struct disk_name {
    char name[DISK_NAME_BYTES]; /* below the folder: MANIFEST, 0/00000000000000000001.seg */
    unsigned file;
};

/* What the folder holds: all of it durable. */
struct disk {
    struct {
        uint8_t *bytes; /* owned */
        size_t len;
    } files[DISK_FILES_MAX];
    unsigned file_count;
    struct disk_name names[DISK_FILES_MAX];
    unsigned name_count;
};

struct disk_op;
struct disk_trace {
    struct disk_op *ops;
    unsigned count, cap;
};

void disk_read(struct disk *d, const char *dir); /* into a zeroed one; LOCK and such are left out */
void disk_write(const struct disk *d, const char *dir, unsigned lanes); /* makes it, with its lane folders */
void disk_free(struct disk *d);

/* From now on disk_port()'s calls on `dir`, which holds `d`, go into `t`. */
void disk_trace_start(struct disk_trace *t, const struct disk *d, const char *dir);
unsigned disk_trace_count(void); /* calls so far. Any thread */
void disk_trace_stop(void); /* calls are only made from here on */
void disk_trace_free(struct disk_trace *t);
const struct store_files *disk_port(void);

/* The disk after a cut right before call `at` of `t`, which began with `d`. `mood` below DISK_MOODS: 0 all
 * that no sync covers is lost, 1 all kept, 2 names kept and bytes lost, 3 the reverse, else as rand() says.
 */
void disk_cut(const struct disk *d, const struct disk_trace *t, unsigned at, unsigned mood, struct disk *out);

#endif
