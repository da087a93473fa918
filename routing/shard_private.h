/* Inside routing/: the struct that the files of the shard share. shard.c makes it and attaches,
 * shard_publish.c decides and acknowledges, shard_apply.c appends and applies, shard_deliver.c collects runs,
 * shard_hold.c keeps some back until they are durable, shard_node.c knows which nodes write, shard_fold.c
 * keeps the state that is a fold over the records (retained messages, what is stored once), shard_carry.c
 * keeps it alive through retention, shard_read.c answers READs. The shard's loop only. */
#ifndef TG_ROUTING_SHARD_PRIVATE_H
#define TG_ROUTING_SHARD_PRIVATE_H

#include "routing/filter_table.h"
#include "routing/hash_slots.h"
#include "routing/incarnations.h"
#include "routing/proposal.h"
#include "routing/shard.h"

struct interest {
    struct filter_entry entry;
    uint16_t loop;
};

/* Outcomes that may be told anew: with more the oldest stay unknown for ever. */
enum { UNKNOWN_MAX = 4096 };

struct held;
struct inbox_moved;

/* What is kept as the newest message of each topic: shard_table. */
enum { TABLE_RETAINED, TABLE_SESSIONS, TABLE_INBOXES, TABLE_GROUPS, TABLES };

struct shard {
    struct shard_group *group;
    unsigned lane;
    uint64_t durable; /* all below, as told by the log */
    uint64_t state_end; /* behind the newest record of this run that the state was folded from */
    bool dirty; /* appended since the last flush */
    struct {
        uint64_t count, bytes;
    } told[TABLES]; /* the gauges */
    _Atomic uint64_t
        next_shown; /* written here once a turn, read by any loop (shard_next_shown); orders nothing */
    struct publish *first_waiting; /* by mail.next, in the order of durable_at */
    struct publish *last_waiting;
    struct { /* only with a log whose order is given elsewhere */
        uint64_t sequence; /* of the newest; goes on from one incarnation of this node to the next */
        uint64_t introduced; /* the incarnation whose START has been proposed */
        struct publish *first,
            *last; /* those that are waited for, by mail.next, in the order of durable_at */
        uint64_t unknown[UNKNOWN_MAX]; /* sequences that were told as unknown, ascending */
        uint32_t unknown_count;
        struct unreported *unreported; /* shard_report.c: have arrived, ascending by sequence and offset */
        uint32_t unreported_count, unreported_cap;
    } proposed;
    struct incarnations *incarnations; /* the same */
    struct {
        struct read *first; /* READs from behind the end, by mail.next */
        uint64_t lowest; /* none of them is of less */
        struct timer timer;
    } ahead;
    uint64_t time_ms; /* such a lane's: of the newest record that has come */
    struct filter_table *interests; /* only with several loops */
    size_t interest_count;
    struct run *open[LOOPS_MAX];
    struct {
        struct held *ring; /* cap is a power of two */
        uint32_t head, count, cap;
    } held; /* what waits for the disk to be delivered, shard_hold.c */
    struct retained *retained;
    struct once *once;
    struct retained *sessions; /* the newest record of each session */
    struct {
        struct retained *records; /* the newest of each inbox's cursor */
        struct hash_slots moved; /* those that have moved since */
        struct list due; /* the same, by when they are to be written */
        struct timer timer;
    } inboxes;
    struct {
        struct filter_table *filters; /* of the groups of shared subscriptions */
        struct hash_slots names; /* the same, by `$share/<name>/<filter>` */
        struct list all; /* and those that have ended while messages of theirs are out */
        struct list giving; /* members whose GIVE is open */
        struct retained *records; /* the newest of each group that has a kept member */
        struct list saving; /* share.save: to be written in this turn */
        struct list written; /* the same: not durable yet, in the order of their offsets */
        struct list unanswered; /* share_letter.link: answered when `durable_at` is durable */
        struct timer again; /* armed: the log has refused a write */
        struct hash_slots tags; /* at start: the groups by share.tag */
    } shares;
    struct timer sweep; /* armed while something in the tables will expire */
    struct {
        uint64_t upto; /* below this the log wants to remove; 0: it has not asked */
        uint64_t next; /* below this nothing needs to be carried any more */
        unsigned table; /* this one is being carried; those before are done */
        uint64_t end; /* what the trim relies on lies below */
        bool noted; /* what `once` remembers is in the log again, too */
        struct buf note;
        struct timer timer; /* armed: the next step comes by it; else when all below `end` is durable */
    } carry;
};

struct shard_group {
    struct courier *courier;
    struct topic_log log;
    struct metrics *metrics;
    struct policies *policies; /* NULL: none */
    unsigned loop_count, shard_count;
    struct shard_limits limits;
    struct shard *shards[PLACE_LANES_MAX];
    struct {
        uint8_t len;
        uint8_t name[NODE_NAME_BYTES_MAX];
    } node;
    const struct shard_watch *watch; /* NULL: nobody is told */
    void *watch_ctx;
    struct {
        void *hub;
        void (*on_arrival)(struct mail *mail);
    } hubs[LOOPS_MAX];
};

/* --- shard.c --- */
struct shard *shard_of_lane(struct shard_group *g, unsigned lane);
uint64_t shard_wall_ms(const struct shard *s);
/* The order of records is given elsewhere. */
static inline bool shard_deferred(const struct shard *s)
{
    return s->group->log.ops->propose != NULL;
}
/* The time by which state expires: the lane's, which all nodes that have it share. A log that is this node's
 * alone has this node's clock. */
static inline uint64_t shard_time_ms(const struct shard *s)
{
    return shard_deferred(s) ? s->time_ms : shard_wall_ms(s);
}

/* What becomes of a publish. */
struct outcome {
    enum status status; /* as publish.status */
    bool duplicate;
    uint64_t original; /* with `duplicate` */
};

/* --- shard_publish.c --- */
/* Is it a repetition (once_id.h)? True: that is the outcome, and it is not stored. */
bool shard_knows(const struct shard *s, const struct msg *m, struct outcome *out);
/* It is over: answered, or counted if nobody waits. */
void shard_settle_publish(struct shard *s, struct publish *p, const struct outcome *out);
void shard_on_durable(void *ctx, unsigned lane, uint64_t next); /* store_events */
/* It is answered with ST_OK when all up to that offset is durable. */
void shard_wait_until_durable(struct shard *s, struct publish *p, uint64_t offset);
void shard_wait_no_more(struct shard *s, struct publish *p); /* it waits so */
void shard_drop_waiting(struct shard *s); /* nobody is answered */

/* --- shard_apply.c --- */
struct wish {
    bool wait; /* somebody is told when it is durable */
    bool after_sync; /* nobody gets it before */
    enum proposal_condition condition;
    uint64_t based_on;
};
/* Into the log, and applied, if the log gives it its offset at once; else it is on its way (shard_deferred).
 * Other statuses are those of topic_log.append and topic_log.propose, and nothing has happened. */
enum status shard_propose(struct shard *s, struct msg *m, const struct wish *w) MUST_CHECK;
/* To a log whose order is given elsewhere, as it is. */
enum status shard_hand_in(struct shard *s, const struct msg *m, const struct wish *w) MUST_CHECK;
/* The record has come out of the log and counts. `once`: it may have an identity. */
void shard_apply(struct shard *s, struct msg *m, bool once, bool after_sync);
/* Of a log whose order is given elsewhere, in its order: the lane's time is that of this record now; does it
 * count, or is it void? *p: all zeroes when it does not say. */
bool shard_counts(struct shard *s, const struct msg *m, struct proposal *p, struct outcome *out);
void shard_wait_for_own(struct shard *s, struct publish *p); /* which has just been proposed */
/* Nothing that this incarnation has proposed and that is still waited for will count. */
void shard_refuse_own(struct shard *s, uint64_t incarnation);
struct publish *shard_next_own(struct shard *s); /* takes it out; NULL: none */
extern const struct topic_log_events shard_log_events;

/* --- shard_hold.c --- */
/* A record that was just appended goes to who wants it, now or when its time has come. */
void shard_deliver_in_order(struct shard *s, struct msg *m, bool after_sync);
/* s->durable has moved. */
void shard_release_durable(struct shard *s);
/* Behind the last record that anybody may see. */
uint64_t shard_end(const struct shard *s);
void shard_drop_held(struct shard *s);

/* --- shard_deliver.c --- */
/* The message joins the run of each loop with interest. */
void shard_offer(struct shard *s, struct msg *m);
/* The open runs leave: before any answer that says "from n on everything comes live". */
void shard_send_runs(struct shard *s);

/* --- shard_share.c --- */
enum status shard_shares_init(struct shard *s) MUST_CHECK; /* ST_NO_MEMORY */
void shard_shares_deinit(struct shard *s);
/* The message, which joins the runs now, to each group that has had all before it. */
void shard_share_offer(struct shard *s, struct msg *m);
void shard_share_send(struct shard *s); /* the open GIVEs leave */

/* --- shard_share_kept.c --- */
void shard_shares_save(struct shard *s); /* the end of a turn: what is to be written is appended */
void shard_shares_durable(struct shard *s); /* all below s->durable is */
/* At start, when the records are there. */
enum status shard_shares_load(struct shard *s) MUST_CHECK; /* ST_NO_MEMORY */
/* Before records below `upto` go: what stands in records of groups that have come further is written anew. */
void shard_shares_refresh(struct shard *s, uint64_t upto);
void shard_on_share_timer(struct timer *t);

/* --- shard_inbox.c --- */
enum status shard_inboxes_init(struct shard *s) MUST_CHECK; /* ST_NO_MEMORY */
void shard_inboxes_deinit(struct shard *s);
void shard_on_inbox_timer(struct timer *t);
/* Is the record's place further than that of the newest? */
bool shard_inbox_advances(const struct shard *s, const struct msg *m);
/* A record of it has come out of a log whose order is given elsewhere. */
void shard_inbox_arrived(struct shard *s, struct slice topic);

/* --- shard_fold.c --- */
static inline struct retained *shard_table(const struct shard *s, unsigned table)
{
    struct retained *const tables[TABLES] = {s->retained, s->sessions, s->inboxes.records, s->shares.records};
    return tables[table];
}
unsigned shard_fold_retained(struct shard *s, struct msg *m); /* into this table */
void shard_fold_once(struct shard *s, struct msg *m);
/* The gauges follow what `once` has become since it was `before`. */
void shard_once_changed(struct shard *s, const struct once_counts *before);
bool shard_has_room_to_keep(struct shard *s, struct retained *table, const struct msg *m);
/* The gauges follow what the tables have become. */
void shard_retained_changed(struct shard *s);
void shard_on_sweep(struct timer *t);

/* --- shard_session.c --- */
/* The same as an ordinary publish, by its own rules (letters.h). ST_INVALID: it names no attachment. */
enum status shard_take_session(struct shard *s, const struct publish *p);

/* May this attachment write over the newest record? `based_on` as publish.based_on; of an update 0:
 * whichever. */
enum status shard_admits_session(const struct shard *s, const struct msg *m, enum session_write write,
                                 uint64_t based_on);

/* --- shard_node.c --- */
/* Before anything else of this incarnation of the node. */
enum status shard_introduces(struct shard *s) MUST_CHECK;
/* A record of this node's incarnation has come, and what has become of it. */
void shard_node_heard(struct shard *s, const struct proposal *p);
/* Does the record come from an incarnation that lives, and is it its first copy? */
bool shard_node_admits(struct shard *s, const struct msg *m, const struct proposal *p);
/* START, NODE_DOWN: the state follows, and who watches is told if it has just come. False: void. */
bool shard_node_fold(struct shard *s, const struct msg *m, const struct proposal *p, bool arrived);

/* --- shard_report.c: own records that have arrived, and whose report has not --- */
struct unreported {
    uint64_t sequence, offset;
    struct publish *publish; /* who waits; NULL: nobody */
};
/* The record has arrived at the offset. False: its report has come too, or none does. */
bool shard_report_waits(struct shard *s, uint64_t sequence, uint64_t offset);
/* The publish of the newest of them: answered when its report has come. */
void shard_report_hold(struct shard *s, struct publish *p);
void shard_report_moved(struct shard *s, uint64_t end); /* all below `end` has arrived: s->durable follows */
bool shard_report_lost(struct shard *s, uint64_t sequence); /* False: it is none of them */

/* --- shard_ahead.c --- */
/* True: the READ is of records that this replica has not got yet, and waits for them. */
bool shard_read_waits(struct shard *s, struct read *r);
/* Of a READ that goes forward: where the log must reach for it to be answered. */
static inline uint64_t shard_read_place(const struct read *r)
{
    return r->whole ? r->store.to : r->store.from;
}
void shard_ahead_go(struct shard *s); /* more records have come */
void shard_ahead_drop(struct shard *s); /* nobody is answered */
void shard_on_ahead_timer(struct timer *t);

/* --- shard_carry.c --- */
void shard_on_trim_wanted(void *ctx, unsigned lane, uint64_t upto); /* store_events */
/* All below s->durable is: what waited for that goes on. */
void shard_carry_durable(struct shard *s);
void shard_on_carry_timer(struct timer *t);

#endif
