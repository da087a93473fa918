/* A shard: the state machine of one partition (lane). The only place where something about the lane
 * is decided. It lives on one loop; there is nothing to lock. It hears PUBLISH, ATTACH, DETACH and
 * READ, and speaks PUBLISHED, ATTACHED, the READ's answer, and DELIVER.
 *
 *   PUBLISH -> append to the log (offset) -> joins the run of this turn
 *   turn end: the log's frame is closed, the run goes as one DELIVER to each loop with interest
 *   durable: the PUBLISHes below go back, one chain a loop
 *
 * All functions: the shard's loop, except where noted. */
#ifndef TG_ROUTING_SHARD_H
#define TG_ROUTING_SHARD_H

#include "routing/courier.h"
#include "routing/letters.h"
#include "routing/once.h"
#include "routing/policy.h"
#include "routing/retained.h"
#include "routing/topic_log.h"

struct shard;
/* What the shards of one loop share: the interest table (which loop wants which filter), the courier
 * and the turn hook. */
struct shard_group;

struct shard_limits { /* of one lane */
    struct retained_limits retained;
    struct once_limits once;
    struct retained_limits sessions; /* their records; 0: there are none */
    struct {
        struct retained_limits records;
        uint64_t save_ms, save_count; /* what is acknowledged becomes durable after this, or with so many */
        uint64_t
            keep_ms; /* messages are kept for so long: a cursor need not be kept for longer; 0 = no end */
    } inbox;
    struct {
        uint64_t groups; /* of shared subscriptions; 0: there are none */
        uint64_t given, given_bytes; /* of one group, to its members and not settled */
        uint64_t kept; /* members of one group whose session outlives its connections */
        uint64_t kept_given; /* of a group that has any, instead of `given` when that is more */
    } share;
};

/* `on_deliver` is called on the receiving loop with each DELIVER letter (its hub is set from `hubs`). */
enum status shard_group_create(struct courier *courier, struct topic_log log, struct metrics *metrics,
                               unsigned loop_count, const struct shard_limits *limits,
                               struct shard_group **out) MUST_CHECK;
void shard_group_destroy(struct shard_group *g);
/* Before the loops run: where DELIVER letters of a loop go. */
void shard_group_meet(struct shard_group *g, unsigned loop_index, void *hub,
                      void (*on_arrival)(struct mail *mail));
/* NULL: no topic has a policy. Outlives the group, or the next call of this. */
void shard_group_set_policies(struct shard_group *g, struct policies *p);
/* With a log whose order is given elsewhere: how this node is called there. Whatever it proposes first in a
 * lane is its START (proposal.h). "": it has no name, and no START. At most NODE_NAME_BYTES_MAX. Once, before
 * anything is proposed. */
void shard_group_set_node(struct shard_group *g, struct slice node);
/* What the nodes of such a log do to each other, told on the group's loop as a record arrives; not of what is
 * folded at start. Nothing may be proposed inside. */
struct shard_watch {
    /* A session of this topic has been attached by another incarnation, in the record at `offset`. */
    void (*on_attached)(void *ctx, struct slice topic, uint64_t offset);
    /* The incarnation has ended in this lane: what it still proposes there is void. `own`: it is this node's.
     * The node ends its connections, and goes on under another (topic_log.incarnation). */
    void (*on_ended)(void *ctx, unsigned lane, uint64_t incarnation, bool own);
    /* Instead of on_ended: this node's incarnation has ended by a NODE_DOWN of another. NULL: on_ended is
     * told. */
    void (*on_told_down)(void *ctx, unsigned lane);
};
/* NULL: nobody is told. Both outlive the group. */
void shard_group_watch(struct shard_group *g, const struct shard_watch *watch, void *ctx);
/* Joins the courier's rounds; once, before the loop runs. */
void shard_group_start(struct shard_group *g);

enum status shard_create(struct shard_group *g, unsigned lane, struct shard **out) MUST_CHECK;
/* Start-up, once, on the thread that made the loop, before the loop runs: folds what the log holds into the
 * shard's state. Blocks until the lane has been read. ST_NO_MEMORY; damaged records are passed over and
 * logged. */
enum status shard_fold(struct shard *s) MUST_CHECK;
/* Start-up, after shard_fold: calls back for the retained messages (borrowed) whose topic is wanted. */
void shard_each_retained(struct shard *s, bool (*wants)(void *ctx, struct slice topic),
                         void (*on_message)(void *ctx, const struct msg *m), void *ctx);
/* The same of the records of sessions. */
void shard_each_session(struct shard *s, void (*on_record)(void *ctx, const struct msg *m), void *ctx);
/* Start-up, after shard_fold of all: what the records of sessions say of a group of shared subscriptions. A
 * member: the session has subscribed to `filter`, and ends at until_ms (UINT64_MAX: never). Taken: the
 * message at `offset`, of the group whose name's hash64_stable is `tag`, is the session's. */
void shard_share_member(struct shard *s, struct slice filter, uint64_t keep_id, uint64_t until_ms);
void shard_share_taken(struct shard *s, uint64_t tag, uint64_t keep_id, uint64_t offset);
bool shard_shares_kept(const struct shard *s); /* is there any group that asks? */
/* All has been said: a session that was not named is not there any more. */
void shard_share_recalled(struct shard *s);
void shard_destroy(struct shard *s);

/* The letters. From the same loop these are called directly; from another loop they are the
 * letters' on_arrival, set by shard_map_send_*. */
void shard_publish(struct shard *s, struct publish *p);
/* QoS 0 from the same loop: no letter at all. Borrowed. ST_OK, also for a duplicate; else a status of
 * publish.status, and why is counted. */
enum status shard_publish_lazy(struct shard *s, struct msg *m) MUST_CHECK;
void shard_attach(struct shard *s, struct attach *a);
void shard_detach(struct shard *s, struct detach *d);
void shard_read(struct shard *s, struct read *r);
void shard_inbox(struct shard *s, struct inbox_letter *l);
void shard_share(struct shard *s, struct share_letter *l);
void shard_settle(struct shard *s, const struct share_settle *what);
/* What its state is, but for what expires before `at_ms`: two that have folded the same log have the same. At
 * the start and the end, when the loop does not run, or on it; takes as long as there are entries. */
struct shard_digest {
    uint64_t retained, sessions, inboxes, groups, once; /* entries */
    uint64_t digest;
};
void shard_digest(const struct shard *s, uint64_t at_ms, struct shard_digest *out);
/* A record has come out of a log whose order is given elsewhere (topic_log.h), and `next` is behind it. Takes
 * its own reference. */
void shard_arrived(struct shard *s, struct msg *m);
void shard_reported(struct shard *s, uint64_t sequence); /* topic_log.h, on_reported */
/* What it has proposed with that sequence is lost, or nobody knows (topic_log.h, on_lost). */
void shard_lost(struct shard *s, uint64_t sequence, enum status status);
struct loop *shard_loop(const struct shard *s); /* any thread */
bool shard_elsewhere(const struct shard *s); /* the order of its records is given elsewhere; any thread */
/* With such a log. START, unless this incarnation has proposed in the lane already: so that those before it
 * end also while nothing is published. Statuses as topic_log.propose. */
enum status shard_introduce(struct shard *s) MUST_CHECK;
/* The node's incarnation is to end in this lane: it does, unless it has ended by then. The same statuses. */
enum status shard_node_down(struct shard *s, struct slice node, uint64_t incarnation) MUST_CHECK;
bool shard_incarnation_ended(const struct shard *s, uint64_t incarnation);
/* Calls back for each that is alive in the lane; `node` is empty when it has never said it. */
void shard_each_incarnation(const struct shard *s,
                            void (*on_live)(void *ctx, struct slice node, uint64_t incarnation), void *ctx);
/* The lane's next offset as of the shard's last turn: never ahead of the truth, so a place made of it repeats
 * at worst. Any thread. */
uint64_t shard_next_shown(const struct shard *s);

/* Which shard, on which loop: one table a node, made before the loops run, read by all. */
struct shard_map {
    unsigned lane_count;
    struct {
        struct shard *shard;
        unsigned loop_index;
    } lanes[PLACE_LANES_MAX];
    uint32_t epoch;
};
/* From any loop, by its own courier: directly when the shard is at home on it. */
void shard_map_publish(struct shard_map *map, struct courier *from, unsigned lane, struct publish *p);
void shard_map_attach(struct shard_map *map, struct courier *from, struct attach *a);
void shard_map_detach(struct shard_map *map, struct courier *from, struct detach *d);
void shard_map_read(struct shard_map *map, struct courier *from, struct read *r);
void shard_map_inbox(struct shard_map *map, struct courier *from, struct inbox_letter *l);
void shard_map_share(struct shard_map *map, struct courier *from, struct share_letter *l);
/* No memory for the letter: aborts, as the message would never be settled. */
void shard_map_settle(struct shard_map *map, struct courier *from, unsigned lane,
                      const struct share_settle *what);

#endif
