/* A log folder seen from outside: read only, not a byte of it changes. Without its lock, so also while a node
 * appends to it, removes from it and crashes. What verifies, what is rot and what is only a torn end is
 * judged as a start would judge it (FORMAT.md 9).
 *
 * Threads: a view and its walks belong to one thread; views of one folder do not know of each other. */
#ifndef TG_CORE_STORE_VIEW_H
#define TG_CORE_STORE_VIEW_H

#include "core/buf.h"
#include "core/msg.h"

struct view;
struct walk;

/* Reads the MANIFEST. `error` gets one line when it is not ST_OK. ST_NOT_FOUND: there is no log; ST_CORRUPT:
 * its MANIFEST is damaged, or missing beside segments; ST_UNSUPPORTED: a newer version wrote it;
 * ST_FORBIDDEN: this user may not read it; ST_IO, ST_NO_MEMORY. `dir` is copied. */
enum status view_open(const char *dir, struct view **out, struct buf *error) MUST_CHECK;
void view_close(struct view *v); /* NULL is allowed; its walks are closed */

uint32_t view_epoch(const struct view *v);
unsigned view_lane_count(const struct view *v);
bool view_running(const struct view *v); /* a process held the lock when it was opened */
bool view_stopped(const struct view *v); /* the last stop was clean (never while one runs) */
uint64_t view_first(const struct view *v, unsigned lane); /* lowest offset kept, when it was opened */
const char *view_dir(const struct view *v);

struct walk_options {
    bool messages; /* make them (else they are only checked and counted) */
    bool check_indexes; /* compare each .idx with what its segment holds */
    uint64_t from; /* segments that end at or below need not be read */
    uint64_t from_ms; /* nor those whose records are all older */
    bool tell_removed; /* what a node's retention takes while it is read, and behind what has been read, is a
                          fault */
};

enum walk_event {
    WALK_MESSAGE, /* `msg`: the caller's if it takes a reference; the walk drops its own at the next step */
    WALK_FAULT, /* `fault` */
    WALK_SEGMENT, /* a segment has been read to its end: `segment` */
    WALK_END, /* the lane */
    WALK_FAILED, /* no memory: `error` has a line, nothing follows */
};

enum walk_fault_kind {
    FAULT_RECORDS, /* offsets from to `to` (exclusive) in this file do not verify; from == to: only bytes that
                      hold no record */
    FAULT_MISSING, /* the file that held them is not there */
    FAULT_HEADER, /* the segment's header is damaged; its records are judged apart from it */
    FAULT_FOREIGN, /* the file belongs to another log or place: a start refuses it */
    FAULT_INDEX, /* the .idx does not agree with its segment; it can be made anew */
    FAULT_REMOVED, /* a node's retention took them while the walk was under way (walk_options.tell_removed) */
};

struct walk_fault {
    enum walk_fault_kind kind;
    uint64_t base_offset; /* of the segment (FAULT_MISSING: of the one that is not there, but after an unclean
                            stop its name may be a greater one) */
    uint64_t from, to;
    uint64_t position, position_end; /* bytes of the file: nothing between verifies */
};

struct walk_segment {
    uint64_t base_offset, next_offset;
    uint64_t file_bytes;
    uint64_t data_bytes; /* header and valid frames */
    uint64_t
        torn_bytes; /* written behind them: of a flight that was cut short, or that is still on its way */
    uint64_t messages, carried, internal;
    uint64_t first_ms, last_ms; /* times of its messages; 0 when there is none */
    bool indexed; /* sealed, with a valid .idx */
};

struct walk_view { /* what the caller reads */
    struct msg *msg;
    struct walk_fault fault;
    struct walk_segment segment;
    uint32_t segments_total; /* files of the lane when it was opened */
};

/* Looks at every segment of the lane; reads those without a valid index once, to know what was acknowledged.
 * Statuses and `error` as view_open. */
enum status walk_open(struct view *v, unsigned lane, const struct walk_options *o, struct walk **out,
                      struct buf *error) MUST_CHECK;
void walk_close(struct walk *w); /* NULL is allowed */
enum walk_event walk_next(struct walk *w);
const struct walk_view *walk_look(const struct walk *w); /* of the last event */
/* Path of a fault's file, or of a segment's: "seg" or "idx". Valid until the next call. */
const char *walk_path(struct walk *w, uint64_t base_offset, const char *suffix);

#endif
