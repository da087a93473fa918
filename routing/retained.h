/* Retained messages of one lane: the newest message of each topic that was published with RETAIN (MQTT 5.0,
 * 3.3.1.3). A fold over the lane's records and nothing else: a message with RETAIN replaces, one with an
 * empty payload removes. So every replica has the same, and dropping it costs a scan at start.
 *
 * Messages are kept in memory (one reference each), bounded by count and bytes. They are walked in the order
 * of their offsets, in steps: a subscription at activation offset `a` gets those below a; a topic whose
 * message has been replaced at or above a is not there any more, because that one comes live (ARCHITECTURE.md
 * 4). That is the offset under which a message was published, also when it has been carried since, so that a
 * walk under way does not miss it. What has expired is as good as not there; that it is let go now or later
 * nobody can tell but by the count. Owning loop only. */
#ifndef TG_ROUTING_RETAINED_H
#define TG_ROUTING_RETAINED_H

#include "core/msg.h"

struct retained;

struct retained_limits {
    uint64_t count_max, bytes_max;
};

enum status retained_create(const struct retained_limits *limits, struct retained **out) MUST_CHECK;
void retained_destroy(struct retained *r); /* NULL is allowed */

/* Is there room for `m`, were it folded in? Ask before it is appended: the fold itself refuses nothing, since
 * what is in the log is true. */
bool retained_has_room(const struct retained *r, const struct msg *m);
/* Folds in a message with RETAIN, in the order of the log (m->stored); takes its own reference. ST_NO_MEMORY:
 * the state is what it was. */
enum status retained_fold(struct retained *r, struct msg *m) MUST_CHECK;

/* Before the first fold: what comes is read from the log, where carried messages stand behind younger ones.
 * Until retained_loaded nothing but retained_fold may be called, and the counts. ST_NO_MEMORY: call it again.
 */
void retained_load(struct retained *r);
enum status retained_loaded(struct retained *r) MUST_CHECK;

uint64_t retained_count(const struct retained *r);
uint64_t retained_bytes(const struct retained *r);
/* The message of a topic, borrowed, or NULL. Not looked at: whether it has expired. */
struct msg *retained_get(const struct retained *r, struct slice topic);

/* All of them, in no order. */
void retained_each(const struct retained *r, void (*on_message)(void *ctx, const struct msg *m), void *ctx);

/* One step of a walk over messages with from <= offset < to whose topic is wanted: looks at no more than
 * RETAINED_STEP of them. References into msgs[] (at most `most`; NULL: they are only counted, any number);
 * *next is where to go on, >= to at the end. Expired ones (`now_ms`) are passed over and let go. */
enum { RETAINED_STEP = 2048 };
uint32_t retained_walk(struct retained *r, uint64_t from, uint64_t to,
                       bool (*wants)(void *ctx, struct slice topic), void *ctx, uint64_t now_ms,
                       struct msg **msgs, uint32_t most, uint64_t *next);

/* One step of finding what is stored below `upto` (m->stored) from offset `from` on, not expired: looks at no
 * more than RETAINED_STEP. References into msgs[], at most `most`, and no more when they have `bytes_max`
 * together; *next is where to go on, >= upto at the end. */
uint32_t retained_stored_below(const struct retained *r, uint64_t from, uint64_t upto, uint64_t now_ms,
                               struct msg **msgs, uint32_t most, uint64_t bytes_max, uint64_t *next);

/* Messages that will expire some time: while there are any, retained_expire wants to be called now and then.
 */
uint64_t retained_expiring(const struct retained *r);
/* One step of letting go what has expired, so that it does not count against the limits: looks at no more
 * than RETAINED_STEP, from where the last step stopped, round and round. True: it has come to the end. */
bool retained_expire(struct retained *r, uint64_t now_ms);

#endif
