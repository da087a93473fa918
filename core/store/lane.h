/* A lane: gives records their offsets and their places in a file, and builds frames. Everything here is
 * arithmetic and copying on the owning loop; the writer and the reader threads get finished frames.
 *
 * Three threads meet in a lane by four numbers, each written by one of them. */
#ifndef TG_CORE_STORE_LANE_H
#define TG_CORE_STORE_LANE_H

#include "core/store/frame.h"
#include "core/store/store.h"
#include "core/store/voids.h"

struct completion;
struct maker;
struct onset;
struct reader;
struct writer;

/* What all lanes of a store share. */
struct lane_env {
    const struct store_options *options;
    uint32_t log_epoch;
    uint64_t incarnation;
    struct frame_pool pool;
    struct writer *writer;
    struct reader *reader;
    struct maker *maker;
    struct onset *onset;
    atomic_bool disk_refuse; /* maker writes (relaxed): the disk is nearly full, publishes are refused */
    atomic_bool disk_full; /* maker writes (relaxed): no next segment can be made now */
    /* A snapshot and a trim keep off each other, like Dekker's two: each says what it wants, then looks at
     * the other (both sequentially consistent). The trim comes again, the snapshot's thread waits for its
     * end. */
    atomic_bool snapshot_open; /* the snapshot's thread writes: nothing may be removed */
    atomic_bool trim_open; /* reader writes: something is being removed */
};

struct lane {
    struct lane_env *env;
    unsigned index;

    /* owning loop */
    struct loop *loop;
    struct metrics *metrics;
    const struct store_events *events;
    void *events_ctx;
    struct frame *open; /* the frame being filled; NULL: none */
    struct segment *segment; /* where the next frame goes */
    uint64_t position; /* in its file */
    uint64_t next;
    uint64_t durable; /* as told by the writer */
    uint64_t marked; /* the highest synced_below that was written */
    uint64_t last_time_ms;
    uint64_t unsynced_bytes; /* of frames and the open frame that are not durable */
    uint64_t frame_bytes_guess; /* as large as the last frame was */
    struct voids *voids; /* of a mirror; NULL: none */
    struct timer lazy_timer, mark_timer;

    /* Frames in memory, oldest first: those not durable, and the last recent_bytes of durable ones. A ring.
     */
    struct frame **frames;
    uint32_t frames_cap, frames_first, frames_count, frames_durable;
    uint64_t durable_bytes; /* memory of the durable ones */

    /* Frames that the reader has not been given: it needs them when something is read, or many. */
    struct mail *reader_first, *reader_last;
    uint64_t reader_bytes;
    uint64_t posted_bytes; /* to the reader, of memory, since the start */

    struct completion *completion; /* the letter to its loop; NULL: not bound */
    struct mail trim_mail; /* to the reader: the answer to a wish; one at a time */
    uint64_t trim_upto; /* what it says */
    uint64_t trim_synced; /* all below this must be synced first: it relies on it */
    uint64_t trim_told; /* the wish that the owner knows */

    _Atomic uint64_t indexed_bytes; /* reader writes (relaxed): of posted_bytes. Only a number */
    _Atomic uint64_t live_bytes; /* loop writes, reader reads; only a number */
    _Alignas(64) _Atomic uint64_t first; /* lowest offset kept; reader writes, any thread reads */
    _Atomic uint64_t durable_next; /* writer writes (release), loop and reader read (acquire) */
    _Atomic uint64_t
        synced_next; /* writer writes (release), loop and reader read (acquire): below is on the disk */
    _Atomic uint64_t written_next; /* writer writes (release): below it the file can be read */
    _Atomic uint64_t sealed_next; /* writer writes (release): below it are sealed and synced segments */
    _Atomic uint64_t trim_wanted; /* reader writes (release), loop reads (acquire): retention's wish */
    atomic_bool stalled; /* writer writes (relaxed): what was appended waits for room on the disk */
};

void lane_init(struct lane *l, struct lane_env *env, unsigned index);
void lane_deinit(struct lane *l);

/* Begins a segment at `next` with START. Start-up, before lane_bind. ST_NO_MEMORY, ST_IO. */
enum status lane_begin(struct lane *l, uint64_t next, uint64_t previous_next,
                       bool after_clean_stop) MUST_CHECK;
/* Takes note that all is durable, without telling anybody. Start-up. */
void lane_settle(struct lane *l);
void lane_bind(struct lane *l, struct loop *loop, const struct store_events *events, void *ctx,
               struct metrics *metrics);
/* Shutdown: everything to writer and reader. No loop any more. */
void lane_finish(struct lane *l);

enum status lane_append(struct lane *l, struct msg *m, bool wait) MUST_CHECK;
/* Of a mirror (store_mirror.h). */
enum status lane_append_at(struct lane *l, struct msg *m) MUST_CHECK;
enum status lane_carry(struct lane *l, struct msg *m) MUST_CHECK;
enum status lane_note(struct lane *l, struct slice note, uint64_t *offset) MUST_CHECK;
/* Ends the segment, so that everything below *upto (all that was appended) will be sealed. ST_NO_MEMORY,
 * ST_IO, ST_NO_SPACE. */
enum status lane_roll(struct lane *l, uint64_t *upto) MUST_CHECK;
void lane_flush(struct lane *l);
/* Closes the open frame and gives all frames to the reader: before a read. */
void lane_hand_over(struct lane *l);
/* The writer has moved durable_next. Tells the owner. */
void lane_on_durable(struct lane *l);
/* The reader has moved trim_wanted, perhaps. Tells the owner. */
void lane_on_trim_wanted(struct lane *l);
void lane_trim(struct lane *l, uint64_t upto);

/* Frames in memory, closed ones: the ring. */
static inline const struct frame *lane_frame(const struct lane *l, uint32_t number)
{
    return l->frames[(l->frames_first + number) & (l->frames_cap - 1)];
}

#endif
