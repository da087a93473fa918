/* The segment store: P append-only lanes of records (one lane = one partition), in segment files,
 * with one writer thread (group commit) and one reader thread (index and reads) for all of them.
 * Bytes on disk: docs/FORMAT.md.
 *
 *   loop:   store_append ... store_append | store_flush        (assigns offsets, builds the frame)
 *   writer: pwrite, pwrite, fdatasync                           (everything that has come meanwhile)
 *   loop:   on_durable(next)                                    (one call for all of it)
 *   reader: gets the same frames, keeps the topic index, serves reads from memory or file
 *
 * Threads: every lane is bound to one loop; "owning loop" below is that loop. Nothing here blocks a
 * loop. A write or sync error ends the process with exit code 75 after one line that says why: after
 * a failed fsync the kernel may have dropped the pages, and a retry can lie (LOG.md 5). */
#ifndef TG_CORE_STORE_STORE_H
#define TG_CORE_STORE_STORE_H

#include "core/loop.h"
#include "core/metrics.h"
#include "core/msg.h"

struct store;
struct reader;
struct store_files;

enum {
    STORE_LANES_MAX = 64,
    STORE_SEGMENT_BYTES_MIN = 64 << 10,
    /* After an unclean stop the next offset is this much ahead; so many records may be unsynced. */
    STORE_OFFSET_JUMP = 1 << 20,
};

/* What "durable" means below, and so what an acknowledgement means:
 * ALWAYS: synced; survives a power cut. INTERVAL: written, and synced at most sync_interval_ms later;
 * survives the end of the process, and a power cut loses that much at most. NEVER: written; survives the end
 * of the process. */
enum store_sync { STORE_SYNC_ALWAYS, STORE_SYNC_INTERVAL, STORE_SYNC_NEVER };

struct store_options {
    const char *dir; /* made if missing, mode 0750; locked (flock) against a second process */
    unsigned lane_count; /* 1 to STORE_LANES_MAX; must equal what is on disk */
    uint64_t segment_bytes; /* 64 KiB to 4 GiB, default 256 MiB */
    uint64_t unsynced_bytes_max; /* of one lane; above: ST_FULL */
    uint64_t unindexed_bytes_max; /* of one lane, in memory until the reader has indexed them; above: ST_FULL.
                                     0 = no limit */
    uint64_t lazy_ms; /* a frame that nobody waits for is written after so long (20) */
    uint64_t lazy_bytes; /* or when it is this large (256 KiB) */
    uint64_t recent_bytes; /* written frames kept in memory a lane, for store_recent (1 MiB) */
    enum store_sync sync;
    uint64_t sync_interval_ms; /* of STORE_SYNC_INTERVAL, at least 1 */
    uint64_t retention_bytes; /* of one lane: above, oldest segments go; 0 = no limit */
    uint64_t retention_ms; /* segments whose newest record is older go; 0 = no limit */
    uint64_t scrub_bytes_per_s; /* sealed segments are read again at this speed; 0 = not */
    uint64_t names_bytes; /* of one lane: memory for topic names that reads by a filter have met; 0 = none */
    uint64_t ballast_bytes; /* a file that is given up when the disk is full; 0 = none */
    unsigned disk_warn_percent; /* of the disk used: a warning; 0 and 100 = never */
    unsigned disk_refuse_percent; /* of the disk used: ST_NO_SPACE; 0 and 100 = only when it is full */
    unsigned recovery_threads; /* to read segments with at start, at most 8; 0 = as many as there are CPUs */
    uint32_t mirror_epoch; /* not 0: a mirror (store_mirror.h), and this is its epoch */
    uint64_t voids_max; /* of one lane of a mirror: void records that reads skip */
    const struct clock *clock;
    const struct store_files *files; /* NULL: the kernel's. Tests pass a faulty one (core/store/files.h) */
};

/* Opens, recovers (verifies, cuts a torn tail, syncs what it read, rolls, writes START) and starts
 * the two threads. Blocking: start-up only. `error` gets one line for the operator.
 * A full disk is no reason not to open a log that can be read: what must be written waits for room
 * (core/store/onset.h), and until then appends are answered ST_NO_SPACE.
 * ST_EXISTS: another process holds the folder. ST_INVALID: another lane count, or options out of range.
 * ST_CORRUPT: MANIFEST is damaged or missing, or a file belongs to another log (records that do not
 * verify are no reason: they are logged, and reads answer ST_CORRUPT there). ST_UNSUPPORTED: a newer
 * version wrote it. ST_FORBIDDEN: no right to the folder. ST_IO, ST_NO_MEMORY. ST_NO_SPACE: there is no log
 * yet and no room for its folders. */
enum status store_open(const struct store_options *o, struct store **out, struct buf *error) MUST_CHECK;
/* Writes and syncs everything, leaves the clean-stop mark, ends the threads. Lanes must not be used
 * any more: their loops still exist but do not run, or run on the calling thread. Reads that are open are
 * answered (posted) before it returns. NULL is allowed. Blocking: shutdown only. */
void store_close(struct store *s);

uint32_t store_epoch(const struct store *s); /* of the log; part of every position. Any thread */
uint64_t store_incarnation(const struct store *s); /* of this start. Any thread */
unsigned store_lane_count(const struct store *s); /* any thread */
/* The disk has no room: appends get ST_NO_SPACE, in some lane at least. Any thread. */
bool store_is_full(const struct store *s);
/* For how long the writer has been at what it does now; 0: it waits for work. Any thread. */
uint64_t store_busy_ms(const struct store *s);

struct store_events {
    /* Everything below `next` is durable, as options.sync means it. Owning loop. */
    void (*on_durable)(void *ctx, unsigned lane, uint64_t next);
    /* Retention wants to remove everything below `upto`; answer by store_trim, at any time. Owning loop.
     * NULL: the lane is never trimmed. */
    void (*on_trim_wanted)(void *ctx, unsigned lane, uint64_t upto);
};

/* Before the loop runs. `metrics` is the loop's set. */
void store_bind(struct store *s, unsigned lane, struct loop *loop, const struct store_events *events,
                void *ctx, struct metrics *metrics);

/* Gives `m` the next offset and its time, and adds it to the lane's open frame. Takes no reference:
 * the bytes are copied. `wait` says that somebody will be told when it is durable: the frame is then
 * synced as soon as it is flushed. Owning loop.
 * ST_FULL: too much is not yet synced or not yet indexed (the log is slower than its publishers);
 * ST_NO_SPACE: the disk has no room for the next segment, or is as full as disk_refuse_percent says (it is
 * looked at again all the time); ST_TOO_LARGE: over 512 MiB; ST_NO_MEMORY. Nothing happened then. */
enum status store_append(struct store *s, unsigned lane, struct msg *m, bool wait) MUST_CHECK;

/* End of the loop's turn: a frame that somebody waits for goes to the writer and the reader now, any
 * other when it is lazy_ms old or lazy_bytes large (the lane arms its own timer). Owning loop. */
void store_flush(struct store *s, unsigned lane);

/* Offsets ascend but have holes: each start uses one for START, and jumps after an unclean stop. */
uint64_t store_first(const struct store *s, unsigned lane); /* lowest offset kept. Any thread */
uint64_t store_next(const struct store *s, unsigned lane); /* offset of the next append. Owning loop */
uint64_t store_durable(const struct store *s, unsigned lane); /* all below is durable. Owning loop */

/* Retention. Records below an offset go only after the lane's owner has said so, since state that it folds
 * from them must be in the log again first (ARCHITECTURE.md 4, CARRY):
 *
 *   store_trim(0)                                          once, when the owner knows its state
 *   on_trim_wanted(upto) .. store_carry.. on_durable .. store_trim(upto)       as often as it is needed
 *
 * What was carried must be durable by then, and so must be whatever made it needless to carry something.
 * store_carry appends a copy of a message with RETAIN that is in the log already, to be waited for: m->stored
 * becomes the copy's offset, m->offset and m->ts_ms stay. No reader sees it but one with state_only, which
 * gets the message as it was published. It may use the last room of a full disk. Owning loop. Statuses as
 * store_append. */
enum status store_carry(struct store *s, unsigned lane, struct msg *m) MUST_CHECK;
/* Appends bytes of the lane's owner, which only a read with state_only brings back; in all else as
 * store_carry. *offset: where they stand. They begin with a u16 that says what they are (FORMAT.md 5). */
enum status store_note(struct store *s, unsigned lane, struct slice note, uint64_t *offset) MUST_CHECK;
/* Everything below `upto` may be removed; asks for the next wish. It comes back as store_first. Once a wish.
 * Owning loop. */
void store_trim(struct store *s, unsigned lane, uint64_t upto);
/* So many bytes of the lane are state that is carried. retention_bytes counts as twice that at least: a log
 * full of what must be kept would only write itself anew for ever. Owning loop. */
void store_set_live_bytes(struct store *s, unsigned lane, uint64_t bytes);

/* A snapshot: in each lane, on its owning loop, store_roll; when all have, store_snapshot on a thread of its
 * own. One at a time. */
struct snapshot_report;
/* Ends the lane's segment: everything appended so far, below *upto, will be sealed. ST_NO_SPACE: there is no
 * room for the next segment; ST_NO_MEMORY, ST_IO. Owning loop. */
enum status store_roll(struct store *s, unsigned lane, uint64_t *upto) MUST_CHECK;
/* Waits until all below upto[lane] is sealed, and links it into <dir>/snapshots/<name>
 * (core/store/snapshot.h, statuses too; ST_EXPIRED: the disk was too slow). Nothing is removed from the log
 * meanwhile. Blocking: any thread but loops. */
enum status store_snapshot(struct store *s, const uint64_t *upto, const char *name, uint64_t snapshots_max,
                           struct snapshot_report *out, struct buf *error) MUST_CHECK;

/* Where a read begins. The last two find the offset first, which costs a few small reads, not a scan. */
enum store_locate {
    STORE_AT_OFFSET, /* at `from` */
    /* At the first record, in the order of the log, whose time is not below `locate_value` (Unix ms); at
     * unreadable ones right before it, since their time is not known. Within one life of the process times
     * never fall. When the clock was set back before a start, a later record may have an earlier time: all
     * that was stamped at or after the time is read, and so is what follows the first such record. */
    STORE_AT_TIME,
    /* At the `locate_value`-th newest (at least 1) of the literal `topic`, or of the whole inbox; with fewer,
     * at the first that is kept. At a segment whose index is lost, rather than behind it. */
    STORE_AT_LAST,
};

/* A read of records of one lane with from <= offset < to, oldest first, whose topic is wanted.
 * The caller owns the request and keeps it in place until it comes back. */
struct store_read {
    struct mail mail; /* used while it travels */
    unsigned lane;
    uint64_t from, to; /* `to` = UINT64_MAX: up to all that was appended when the request was made */
    enum store_locate locate; /* else than STORE_AT_OFFSET: the answer tells `from` and sets this to it */
    uint64_t locate_value;
    /* Newest first, of a literal topic: from `to` down to `from` (or to the lowest kept, whichever is
     * greater). What is located is then the end that the read begins at: all below it. */
    bool reverse;
    struct slice topic; /* literal topic when data != NULL: by the index */
    bool inbox; /* `topic` is `$user/<id>`: by the index all of the inbox, that topic and those below it;
                   `wants`: those of it */
    bool (*wants)(void *ctx, struct slice topic); /* else: by this (reader thread!); NULL = all */
    void *wants_ctx;
    struct slice
        filter; /* with `wants`, which is a filter's: its text. Reads of equal texts want equal
                   topics, and go by the index where these are few. Empty: every record is looked at */
    bool state_only; /* only what the fold of a lane's state reads: messages with RETAIN, PROP_PRODUCER or
                        PROP_IDEMPOTENCY, carried ones, and notes (MSG_NOTE) */
    uint32_t count_max; /* records, 1 to STORE_READ_COUNT_MAX */
    uint32_t bytes_max; /* of topics and payloads together; at least one record is returned */
    bool count_only; /* no records; `found` counts all that match, and next = to */
    struct loop *home; /* where on_done is called */
    void (*on_done)(struct store_read *r);
    /* answer */
    enum status status; /* ST_OK; ST_GONE: `from`, in reverse `to`, lies below store_first (nothing read;
                           next = first);
                           ST_CORRUPT: the next record cannot be read, `next` lies behind it (not with
                           count_only, which counts what can be read); ST_NO_MEMORY: nothing found */
    uint64_t first; /* lowest offset kept */
    uint64_t next; /* go on here; == the effective `to` when all has been read. It moves also when nothing
                      matched: a request scans at most a bounded number of bytes. Never below `from`: a
                      `from` beyond the end comes back as next and end. In reverse: all that is left lies
                      below `next`; it is the next read's `to` */
    uint64_t end; /* the effective `to`; in reverse the effective `from` */
    uint64_t found;
    struct msg **msgs; /* `found` messages, each a reference of the caller's; array by malloc */
    /* the store's own, while it travels */
    struct reader *reader;
    struct store_read *queue_next;
    uint64_t bytes;
    uint32_t msgs_cap;
    uint64_t seek, seek_left; /* STORE_AT_LAST: so many more are looked for below `seek` */
};

/* Of an answer with ST_OK: has all been read? */
static inline bool store_read_complete(const struct store_read *r)
{
    return r->reverse ? r->next <= r->end : r->next >= r->end;
}

enum { STORE_READ_COUNT_MAX = 4096 };

/* Starts a read. It sees everything appended before the call. Owning loop of the lane; the answer
 * comes by `home`'s mailbox (its mail's on_arrival calls on_done). */
void store_read_start(struct store *s, struct store_read *r);

/* Records with offset >= from that are still in memory, without waiting: ST_OK and up to count_max
 * references into msgs[], *next behind the last one looked at; ST_NOT_FOUND when `from` is not in
 * memory any more. Applies `topic`/`wants` as store_read does. Owning loop. */
enum status store_recent(struct store *s, unsigned lane, uint64_t from, struct slice topic,
                         bool (*wants)(void *ctx, struct slice topic), void *wants_ctx, uint32_t count_max,
                         struct msg **msgs, uint32_t *found, uint64_t *next) MUST_CHECK;

#endif
