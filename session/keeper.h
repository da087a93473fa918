/* A keeper makes the state of one session durable: it owns the session's record (`$session/<name>`, in the
 * lane of that topic), its attachment number, and the claim by which a second connection with the same
 * session takes it over. What the state is, its connection says (`snapshot`); when it is written, the keeper.
 *
 *   keeper_start   a new session: nothing is written until the first keeper_want
 *   keeper_resume  claims it and reads its record -> on_read; then keeper_want writes ours over it
 *   keeper_want    the state as it is now must become durable -> wait->on_kept
 *   keeper_moved   places have moved: written after save_ms, or when save_count have
 *   keeper_close   the connection has gone: a last write, or the record's end; frees itself when all is back
 *
 * One write at a time; whatever is wanted meanwhile is in the next. Owning loop only. */
#ifndef TG_SESSION_KEEPER_H
#define TG_SESSION_KEEPER_H

#include "core/list.h"
#include "session/hub.h"
#include "session/registry.h"

enum { KEEPER_NAME_BYTES = 64 };

struct keeper;

struct keeper_limits {
    uint64_t expiry_ms; /* a record that nobody has written for so long is gone; written again in time.
                           UINT64_MAX: never */
    uint64_t save_ms; /* places that have moved are durable after this */
    uint64_t save_count; /* or when so many acknowledgements have come */
    uint32_t record_bytes_max;
};

struct keeper_ops {
    /* Encodes the state (session/record.h). ST_TOO_LARGE: it has no room in the record. ST_NO_MEMORY. */
    enum status (*snapshot)(void *conn, struct buf *out);
    /* keeper_resume: ST_OK with the record (borrowed), ST_NOT_FOUND: there is none, or it has expired. */
    void (*on_read)(void *conn, enum status status, struct slice record);
    /* Another connection has the session now: nothing of ours is written any more. Called once, perhaps
     * instead of on_read; the waiting get no answer. */
    void (*on_taken)(void *conn);
};

/* Waits for a write; embedded. Unlink it to wait no more. */
struct keeper_wait {
    struct list link;
    uint64_t version;
    /* ST_OK: durable. Else not: ST_TOO_LARGE, ST_NO_MEMORY, or a status of publish.status. ST_AGAIN: the
     * record is not any more what on_read has told; only before the first ST_OK. */
    void (*on_kept)(struct keeper_wait *w, enum status status);
};

/* `conn` is passed to the ops. `name`: KEEPER_NAME_BYTES. ST_NO_MEMORY. */
enum status keeper_start(struct hub *h, struct registry *registry, const struct keeper_limits *limits,
                         const struct keeper_ops *ops, void *conn, const char *name,
                         struct keeper **out) MUST_CHECK;
/* The same; on_read follows, not inside this call. */
enum status keeper_resume(struct hub *h, struct registry *registry, const struct keeper_limits *limits,
                          const struct keeper_ops *ops, void *conn, const char *name,
                          struct keeper **out) MUST_CHECK;
/* Reads the record once more: its holder has written it since (on_kept told ST_AGAIN). on_read follows. */
void keeper_read_again(struct keeper *k);
/* on_kept follows, not inside this call, unless the keeper is closed or taken before. */
void keeper_want(struct keeper *k, struct keeper_wait *w);
void keeper_moved(struct keeper *k, uint64_t count);
/* The number of the attachment that we write under; inside on_read, what was read has the one before. */
uint64_t keeper_attachment(const struct keeper *k);
/* Of what is written from now on. */
void keeper_set_expiry(struct keeper *k, uint64_t expiry_ms);

enum keeper_end {
    KEEPER_LEAVE, /* as it is in the log */
    KEEPER_DETACH, /* its last state is written: the session can be resumed */
    KEEPER_FORGET, /* the session is over: its record goes */
};
/* No more calls of the ops, nor of the waiting. With KEEPER_DETACH the ops' snapshot is called inside.
 * NULL is allowed. */
void keeper_close(struct keeper *k, enum keeper_end end);
/* The same; then done->on_kept (ST_OK) when nothing of it is written any more. It may come inside. */
void keeper_close_then(struct keeper *k, enum keeper_end end, struct keeper_wait *done);

#endif
