/* The maker: keeps the next segment files ready, on a thread of its own with low priority, so that neither
 * the writer nor a loop waits for the disk to find room. A file that retention takes out of the log is used
 * again: its blocks have been written, so a sync of what is written over them needs no commit of the file
 * system's journal (docs/adr/006). A new file is filled with zeros for the same reason, slowly, while it
 * waits.
 *
 * It also knows whether there is room on the disk at all, since it is the one that asks for it, and watches
 * how much there is (space.h). */
#ifndef TG_CORE_STORE_MAKER_H
#define TG_CORE_STORE_MAKER_H

#include "core/store/files.h"
#include "core/store/store.h"

#include <stdatomic.h>

struct maker;

/* Where the files that are ready lie; `number` below MAKER_FILES_MAX. */
enum { MAKER_FILES_MAX = 4 };

/* *disk_full is kept: no next segment can be made now; and *disk_refuse: the disk is nearly full.
 * ST_NO_MEMORY. */
enum status maker_create(const struct store_options *options, const struct store_files *files,
                         atomic_bool *disk_full, atomic_bool *disk_refuse, struct maker **out) MUST_CHECK;
void maker_destroy(struct maker *m); /* NULL is allowed; the thread has ended */
enum status maker_start(struct maker *m) MUST_CHECK; /* ST_NO_MEMORY */
void maker_stop(struct maker *m); /* NULL or not started is allowed. Files that are ready stay: the next start
                                     removes them */

/* Start-up, before anything is made: removes what an earlier process had ready. */
void maker_remove_left(const struct store_files *files, const char *dir);

struct made_file {
    int fd; /* open for writing; the caller's */
    bool ahead; /* it was ready */
    uint32_t life; /* how often the file was a segment before; bytes of those lives are in it */
};

/* Gives a file of `bytes` the name `path` (not yet durable: the caller syncs the folder). One that is ready,
 * or else one made now. ST_AGAIN: the disk has no room, it is looked at again after maker_retry_ms.
 * ST_IO: errno. Writer thread. */
enum status maker_take(struct maker *m, const char *path, uint64_t bytes, struct made_file *out) MUST_CHECK;
/* There was no room at `path`: publishes are refused until the thread finds some. Writer thread. */
void maker_note_full(struct maker *m, const char *path);
/* So many files should be ready. Writer thread. */
void maker_want(struct maker *m, unsigned count);
/* Milliseconds until the disk is looked at again; UINT64_MAX: there is room. Any thread. */
uint64_t maker_retry_ms(struct maker *m);

/* Takes the file of a segment that is no longer the log's, which nobody has open. False: it is not needed,
 * and is still there. Reader thread. */
bool maker_offer(struct maker *m, const char *path) MUST_CHECK;

#endif
