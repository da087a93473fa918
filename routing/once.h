/* Once: which publishes of one lane have been stored already, among those that carry an identity (once_id.h).
 * A fold over the lane's records and notes and nothing else, so every replica has the same, and a restart
 * too.
 *
 * Of each (principal, producer) the ONCE_WINDOW greatest sequences are remembered, of each (principal, topic,
 * key) its one publish. A producer or key is forgotten when it has published nothing for keep_ms; and those
 * idle longest are when there are more than the limits allow (once_counts.forgotten): a repetition is then a
 * new publish. Owning loop only. */
#ifndef TG_ROUTING_ONCE_H
#define TG_ROUTING_ONCE_H

#include "core/buf.h"
#include "core/msg.h"

struct once;

struct once_limits {
    uint64_t producers_max, keys_max;
    uint64_t bytes_max; /* memory of all */
    uint64_t keep_ms;
};

struct once_counts {
    uint64_t producers, keys;
    uint64_t bytes; /* memory */
    uint64_t log_bytes; /* what notes of all of them would take of the log, about */
    uint64_t forgotten; /* ever, because of the limits */
};

enum once_verdict {
    ONCE_NEW, /* not stored, as far as it is remembered: store it, then once_fold */
    ONCE_DUPLICATE, /* exactly this is stored */
    ONCE_BELOW, /* the sequence lies below the window: whether it is stored cannot be told */
    ONCE_OTHER, /* the sequence or key was used for something else: another topic, another body */
};

enum status once_create(const struct once_limits *limits, struct once **out) MUST_CHECK;
void once_destroy(struct once *o); /* NULL is allowed */
const struct once_counts *once_counts(const struct once *o);

/* Of a message with MSG_ONCE; changes nothing. *offset: of the original; set with ONCE_DUPLICATE and
 * ONCE_OTHER only. */
enum once_verdict once_ask(const struct once *o, const struct msg *m, uint64_t now_ms, uint64_t *offset);
/* The remembered sequences of an anonymous producer from `from` on, ascending, at most ONCE_WINDOW
 * (once_window.h); returns how many. */
uint32_t once_sequences(const struct once *o, struct slice producer, uint64_t from, uint64_t *out);
/* Folds in a message of the log (m->offset, stored and ts_ms are set); one without an identity changes
 * nothing. ST_NO_MEMORY: the state is what it was. */
enum status once_fold(struct once *o, const struct msg *m, uint64_t now_ms) MUST_CHECK;
/* Folds in a note that stands at `stored`. ST_INVALID, ST_UNSUPPORTED: not a note of this kind. */
enum status once_fold_note(struct once *o, struct slice note, uint64_t stored, uint64_t now_ms) MUST_CHECK;

/* Around the fold at start, where notes come behind what is younger: what is over the limits, and producers
 * that are idle too long, are forgotten at the end (or, when it is twice as much, earlier). */
void once_load(struct once *o);
void once_loaded(struct once *o, uint64_t now_ms);

/* A digest of what is remembered at `at_ms`, and how many entries that are: equal for equal states, in
 * whatever order they were folded. */
uint64_t once_state_digest(const struct once *o, uint64_t at_ms, uint64_t *entries);

/* --- carrying: what is remembered of records below `upto` goes into the log again, as notes --- */

void once_carry_begin(struct once *o, uint64_t upto);
/* Goes on. ST_OK: append `note` (limit at least ONCE_NOTE_BYTES_MAX), then call once_carried; when the log
 * refuses it, call this again later. ST_AGAIN: has looked at a step's worth, go on in another turn.
 * ST_NOT_FOUND: that was all. ST_NO_MEMORY: call again later. */
enum status once_carry_next(struct once *o, uint64_t now_ms, struct buf *note) MUST_CHECK;
/* The last note stands at `stored`. In the same turn. */
void once_carried(struct once *o, uint64_t stored);

#endif
