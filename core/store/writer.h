/* The writer thread: takes every frame that has come meanwhile, of all lanes, writes them, syncs each
 * file once, tells each loop once. */
#ifndef TG_CORE_STORE_WRITER_H
#define TG_CORE_STORE_WRITER_H

#include "core/store/files.h"
#include "core/store/lane.h"
#include "core/store/maker.h"
#include "core/store/onset.h"

struct writer;

/* `lanes` are lane_count of them; maker and onset outlive it. ST_NO_MEMORY, ST_IO. */
enum status writer_create(const struct store_options *options, const struct store_files *files,
                          struct lane *lanes, struct maker *maker, struct onset *onset,
                          struct writer **out) MUST_CHECK;
void writer_destroy(struct writer *w); /* NULL is allowed; the thread has ended */

/* One round on the calling thread: what has been posted is written, synced and told. On failure
 * writer_failure has a line for the operator; the files must not be written to any more. */
enum status writer_turn(struct writer *w) MUST_CHECK;
const char *writer_failure(const struct writer *w);

/* The thread; on failure it logs and ends the process with code 75. */
enum status writer_start(struct writer *w) MUST_CHECK;
uint64_t writer_busy_ms(const struct writer *w); /* how long its turn has taken so far; any thread */
/* Everything posted before is written and synced, files are cut to what they hold; the thread ends. False:
 * the disk had no room for all of it; *lost: messages are among the rest. */
bool writer_stop(struct writer *w, bool *lost);

void writer_post(struct writer *w, struct frame *f); /* any thread; takes a reference of the caller's */

/* Start-up: the lane's letters go to this loop; a lane that found the disk full goes on from here. No memory
 * ends the process: it is start-up. */
void writer_bind(struct writer *w, struct lane *l, struct loop *loop);

#endif
