/* The port behind which somebody orders records and makes them durable. The shard owns it; adapters:
 * topic_log_local.c (the embedded segment store). Meaning, threads and statuses of every call are
 * those of the function of the same name in core/store/store.h.
 *
 * A log whose order is given elsewhere has `propose` instead of append, carry and note: it takes its own copy
 * of the record and brings it, at some time, to each node that has the lane (shard_arrived), in the same
 * order and under the same offset everywhere, with a time (ts_ms) that never falls from one record to the
 * next. It is durable by then; with `is_reported` the word of whoever orders it may come later, and what this
 * node has proposed is durable when both have come. What one node has proposed comes in the order of its
 * proposing, and may come twice. `next` is behind the last record that this node has got. What such a log
 * does not take now it says at once: ST_FULL: too much is under way; ST_CLOSED: whoever orders it does not
 * answer; ST_NO_SPACE: the node's own copy has no room; ST_TOO_LARGE. What it has taken and then lost it
 * tells by on_lost. */
#ifndef TG_ROUTING_TOPIC_LOG_H
#define TG_ROUTING_TOPIC_LOG_H

#include "core/store/store.h"

struct topic_log_events { /* of a log with `propose`; on the lane's loop */
    /* The record at m->offset, which the node's own copy has by now; in order. The caller keeps its
     * reference. */
    void (*on_arrived)(void *ctx, unsigned lane, struct msg *m);
    /* All that this node has proposed up to that sequence, and that was not told as lost, is durable; of a
     * log with `is_reported`. */
    void (*on_reported)(void *ctx, unsigned lane, uint64_t sequence);
    /* What this node has proposed with that sequence (proposal.h): ST_EXPIRED: it may come yet, or never;
     * others: it will not. In no order.
     * It may have arrived all the same, before its report or after it. */
    void (*on_lost)(void *ctx, unsigned lane, uint64_t sequence, enum status status);
};

struct topic_log_ops {
    enum status (*propose)(void *ctx, unsigned lane,
                           const struct msg *m); /* NULL: `append` gives the offset */
    /* With `propose`, while a record arrives or is folded at start: it is void, and no read brings it any
     * more but one of the state. */
    void (*hide)(void *ctx, unsigned lane, uint64_t offset);
    /* With `propose`, after `bind`. NULL: whoever owns the log calls shard_arrived and shard_lost. */
    void (*meet)(void *ctx, unsigned lane, const struct topic_log_events *events, void *events_ctx);
    /* With `propose`: whether all that this node has proposed up to that sequence is known to be durable. If
     * not, on_reported says so, once for any number of questions. NULL: what arrives is. On the lane's loop.
     */
    bool (*is_reported)(void *ctx, unsigned lane, uint64_t sequence);
    uint64_t (*incarnation)(void *ctx);
    uint32_t (*epoch)(void *ctx);
    unsigned (*lane_count)(void *ctx);
    void (*bind)(void *ctx, unsigned lane, struct loop *loop, const struct store_events *events,
                 void *events_ctx, struct metrics *metrics);
    enum status (*carry)(void *ctx, unsigned lane, struct msg *m);
    enum status (*note)(void *ctx, unsigned lane, struct slice note, uint64_t *offset);
    void (*trim)(void *ctx, unsigned lane, uint64_t upto);
    void (*set_live_bytes)(void *ctx, unsigned lane, uint64_t bytes);
    enum status (*append)(void *ctx, unsigned lane, struct msg *m, bool wait);
    void (*flush)(void *ctx, unsigned lane);
    uint64_t (*first)(void *ctx, unsigned lane);
    uint64_t (*next)(void *ctx, unsigned lane);
    void (*read_start)(void *ctx, struct store_read *r);
    enum status (*recent)(void *ctx, unsigned lane, uint64_t from, struct slice topic,
                          bool (*wants)(void *ctx, struct slice topic), void *wants_ctx, uint32_t count_max,
                          struct msg **msgs, uint32_t *found, uint64_t *next);
};

struct topic_log {
    const struct topic_log_ops *ops;
    void *ctx;
};

/* The embedded store as a topic log; `s` outlives it. */
struct topic_log topic_log_local(struct store *s);

#endif
