/* A note: what a shard remembers of one producer or key, as bytes of the log (FORMAT.md 5). Appended when
 * retention is to remove the records it was learnt from. Pure; any thread. */
#ifndef TG_ROUTING_ONCE_NOTE_H
#define TG_ROUTING_ONCE_NOTE_H

#include "core/buf.h"
#include "routing/once_id.h"
#include "routing/once_window.h"

struct once_note {
    enum once_kind kind;
    struct slice principal, name;
    struct slice topic; /* of a key; empty for a producer */
    uint64_t last_ms; /* Unix time of its newest message */
    uint32_t count; /* members, 1 to ONCE_WINDOW */
    struct slice members; /* encoded */
};

enum { ONCE_NOTE_BYTES_MAX = 24 + ONCE_PRINCIPAL_BYTES_MAX + ONCE_NAME_BYTES_MAX + 65535 + ONCE_WINDOW * 24 };

/* Clears `out` (whose limit is at least ONCE_NOTE_BYTES_MAX) and begins a note; count and members of `n` are
 * not looked at. ST_NO_MEMORY. */
enum status once_note_begin(struct buf *out, const struct once_note *n) MUST_CHECK;
enum status once_note_add(struct buf *out, const struct once_member *m) MUST_CHECK;
static inline size_t once_note_bytes(size_t names_bytes, uint32_t count)
{
    return 24 + names_bytes + count * 24u;
}

/* ST_UNSUPPORTED: another kind of note. ST_INVALID: not well formed. Slices point into `bytes`. */
enum status once_note_read(struct slice bytes, struct once_note *out) MUST_CHECK;
/* The member number i; `stored` is left 0. */
struct once_member once_note_member(const struct once_note *n, uint32_t i);

#endif
