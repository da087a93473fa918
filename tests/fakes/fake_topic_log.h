/* A topic log in memory for tests: lanes of records, and nothing happens until the test says so. A record
 * becomes durable by fake_log_sync, a read is answered by fake_log_serve, so every interleaving of append,
 * attach, read and deliver can be forced. Like the store it keeps copies, without what the store does not
 * store (origin, accepted_ns). One thread.
 *
 * With on_propose it is one node's copy of a log whose order is given elsewhere, by the test: that gets what
 * is proposed and says by fake_log_bring what this node gets. */
#ifndef TG_TESTS_FAKE_TOPIC_LOG_H
#define TG_TESTS_FAKE_TOPIC_LOG_H

#include "routing/topic_log.h"

enum { FAKE_LANES_MAX = 8 };

struct fake_lane {
    struct msg **records; /* by offset; NULL: a hole that a start has jumped over */
    uint64_t count, cap; /* count = offset of the next append */
    uint64_t first; /* below: removed by retention */
    uint64_t damaged_from, damaged_to; /* [from, to) cannot be read */
    uint64_t recent; /* so many of the newest are in memory for `recent` */
    uint64_t durable; /* told so far */
    bool flushed; /* since the last append */
    bool trim_open; /* the shard has answered the last wish, or is ready for the first */
    uint64_t trim_wanted;
    uint64_t live_bytes;
    struct loop *loop;
    const struct store_events *events;
    void *events_ctx;
};

struct fake_log {
    unsigned lane_count;
    struct fake_lane lanes[FAKE_LANES_MAX];
    struct store_read *first_read, *last_read; /* not answered yet, by queue_next */
    unsigned reads; /* how many those are */
    uint32_t serve_max; /* records a served read brings at most, 0 = as it asks */
    enum status append_status; /* not ST_OK: the next `append_failures` appends fail so */
    unsigned append_failures;
    enum status (*on_propose)(struct fake_log *f, struct msg *m); /* borrowed; set before fake_log_port */
    uint64_t incarnation;
    bool reports; /* with on_propose: own records are durable when the test has called fake_log_report */
    uint64_t reported; /* of lane 0 */
};

void fake_log_init(struct fake_log *f, unsigned lane_count);
void fake_log_deinit(struct fake_log *f); /* no read may be unanswered */
struct topic_log fake_log_port(struct fake_log *f);

/* Everything below `next` is durable (at most all); tells the shard, on the calling thread. */
void fake_log_sync(struct fake_log *f, unsigned lane, uint64_t next);
/* Answers the oldest read, by its home's mailbox. False: there is none. */
bool fake_log_serve(struct fake_log *f);
/* The next record, a copy, which the test then hands to the shard; borrowed. Its time is `ts_ms`. */
struct msg *fake_log_bring(struct fake_log *f, unsigned lane, const struct msg *m, uint64_t ts_ms);
/* Own records up to that sequence are durable; the test tells the shard. */
void fake_log_report(struct fake_log *f, uint64_t sequence);
void fake_log_trim(struct fake_log *f, unsigned lane, uint64_t first);
/* As retention: asks the shard whether all below may go, and it goes when the shard says so. */
void fake_log_want_trim(struct fake_log *f, unsigned lane, uint64_t upto);
void fake_log_jump(struct fake_log *f, unsigned lane, uint64_t count); /* as after an unclean stop */

#endif
