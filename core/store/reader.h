/* The reader thread: keeps the index of what is appended and serves reads from memory and files. */
#ifndef TG_CORE_STORE_READER_H
#define TG_CORE_STORE_READER_H

#include "core/store/lane.h"
#include "core/store/maker.h"
#include "core/store/manifest.h"
#include "core/store/volume.h"

struct reader;

/* Takes over `shelves` (one a lane; the array stays the caller's), and `m` while the thread runs; the maker
 * outlives it.
 * ST_NO_MEMORY, ST_IO. */
enum status reader_create(const struct store_options *options, struct lane *lanes, struct shelf *shelves,
                          struct manifest *m, struct maker *maker, struct reader **out) MUST_CHECK;
void reader_destroy(struct reader *r); /* NULL is allowed; the thread has ended */

enum status reader_start(struct reader *r) MUST_CHECK;
/* After the writer has stopped: takes what is posted, answers what is asked, writes the indexes that are
 * missing, ends. */
void reader_stop(struct reader *r);

/* Any thread. Frames by to_reader, oldest first, NULL-terminated; takes a reference of each. */
void reader_post_frames(struct reader *r, struct mail *first, struct mail *last);
void reader_frame_arrival(struct mail *mail); /* what a frame's to_reader.on_arrival is */
void reader_post_trim(struct reader *r, struct lane *l); /* below l->trim_upto all may go */
void reader_post_read(struct reader *r, struct store_read *read);

#endif
