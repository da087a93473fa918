/* A hub: the part of an edge that knows no sockets. One a loop. It keeps the sessions of the loop's
 * connections and their subscriptions, speaks to the shards by letters, matches what they deliver
 * and hands it to the doors. Owning loop only. */
#ifndef TG_SESSION_HUB_H
#define TG_SESSION_HUB_H

#include "routing/directory.h"
#include "routing/shard.h"
#include "routing/topic.h"
#include "session/drops.h"
#include "session/transport.h"

struct hub;

struct hub_limits {
    uint32_t subscriptions_max; /* a session */
    uint32_t read_count; /* messages a catch-up read (256) */
    uint32_t read_bytes; /* bytes a catch-up read (64 KiB) */
    uint32_t drops_max; /* entries of the ledger of drops (session/drops.h); 0 = none */
    uint64_t lag_messages; /* positions that a cursor may be behind; 0 = any number */
    uint32_t catchup_share; /* percent of a busy loop's time that catching up may take, 1 to 90 */
    struct topic_limits topic;
};

enum status hub_create(struct courier *courier, struct shard_map *map, struct metrics *metrics,
                       const struct hub_limits *limits, struct hub **out) MUST_CHECK;
/* The loop's own set. NULL: no topic has a policy. Outlives the hub, or the next call of this. */
void hub_set_policies(struct hub *h, struct policies *p);
/* Before the loop runs; the loop's own handle. Without one connections are in no directory. */
void hub_set_directory(struct hub *h, struct directory d);
struct directory hub_directory(const struct hub *h);
/* What a session may have from now on; the limits of sizes and shares stay. */
void hub_set_limits(struct hub *h, uint32_t subscriptions_max, uint64_t lag_messages);
void hub_destroy(struct hub *h); /* sessions must have ended */
struct loop *hub_loop(const struct hub *h);
struct metrics *hub_metrics(const struct hub *h);
uint32_t hub_epoch(const struct hub *h);
unsigned hub_lane_count(const struct hub *h);
bool hub_is_home(const struct hub *h, unsigned lane); /* its shard is on this loop */
/* No letter is under way that will come back (a stopping node waits for this). */
bool hub_idle(const struct hub *h);
/* Before the loops run: every hub meets every other, itself too. */
void hub_meet(struct hub *h, unsigned loop_index, struct hub *other, unsigned loop_count);
/* A visit to the hubs of all loops, one after the other, by letter. on_visit is called on each one's loop,
 * on_back at home, not inside hub_visit_all. The owner keeps it until then. */
struct hub_visit {
    struct mail mail;
    void (*on_visit)(struct hub_visit *v, struct hub *h);
    void (*on_back)(struct hub_visit *v);
    struct hub *home;
    unsigned next;
};
void hub_visit_all(struct hub *h, struct hub_visit *v);
struct drops *hub_drops(const struct hub *h); /* may be NULL */
/* A message of this publisher was refused without a word to it: into the ledger. `name` is for people. */
void hub_note_refused(struct hub *h, const struct session *publisher, struct slice topic, struct slice name,
                      enum metric why);
/* For shard_group_meet. */
void hub_on_deliver(struct mail *mail);

/* Scratch space for wires: `len` bytes that stay until the end of this turn, after the doors have flushed.
 * Consecutive calls of one kind are adjacent as long as a block lasts, so that a connection that gets
 * several in a row sends one span. NULL: no memory. */
uint8_t *hub_scratch(struct hub *h, enum wire_kind kind, size_t len);
/* Adds the hook that frees the scratch space; after the doors' flush hooks. */
void hub_start(struct hub *h);

/* --- the node's own topics ---------------------------------------------------------------------- */

/* What the node says of itself, `$SYS/...`: messages with MSG_UNSTORED, lane 0. `values` are borrowed for as
 * long as the hub lives and may change in its turns; a new subscription that asks for retained messages gets
 * those that match. */
void hub_set_system(struct hub *h, struct msg *const *values, unsigned count);
/* A new one of them, to the subscriptions of this loop; who has no room does not get it (counted). Not inside
 * a callback of a session. */
void hub_deliver_system(struct hub *h, struct msg *m);

/* --- publishing --------------------------------------------------------------------------------- */

/* Is what is published to this topic kept (topic policies)? */
bool hub_stores(struct hub *h, struct slice topic);

/* Sends p to its shard (the lane is computed from the topic; m->partition is set). p->wait false: does not
 * come back. True: p->on_published is called later, never inside this call. */
void hub_publish(struct hub *h, struct publish *p);
/* Without an answer and, on the same loop, without a letter. Takes over the reference. ST_OK, also for a
 * duplicate; else dropped (counted): a status of publish.status, as far as this loop can know it. */
enum status hub_publish_lazy(struct hub *h, struct msg *m);

/* --- history ------------------------------------------------------------------------------------ */

/* A page of a literal topic's past. r->store.topic, from, to, locate, reverse, count_max, bytes_max,
 * on_read and owner are set by the caller, who keeps r and the topic's bytes until on_read. */
void hub_read(struct hub *h, struct read *r);

/* What became of a message of a shared subscription (transport.h, `ticket`). `again`: the client has not
 * taken it, another member of the group is to have it. Once a ticket, also after its session has ended. */
void hub_settle(struct hub *h, unsigned lane, struct share_ticket *ticket, bool again);
/* Instead of that: the session's record has the message, which is the session's from now on. on_taken follows
 * when that is durable, not inside this call; `status`: or what the log has refused it with. ST_NO_MEMORY: it
 * does not follow, and the ticket is as it was. */
enum status hub_share_take(struct hub *h, unsigned lane, struct share_ticket *ticket,
                           void (*on_taken)(void *ctx, uint32_t tag, enum status status), void *ctx,
                           uint32_t tag) MUST_CHECK;
/* A kept session (subscription_options.kept_as) that had this shared subscription, and no connection, has
 * ended. Without memory it is found at the next start. */
void hub_share_release(struct hub *h, struct slice filter, uint64_t kept_as);

/* Sends the letter to the shard of `$user/<id>`'s partition (l->lane is set); l->on_answer follows, not
 * inside this call. */
void hub_inbox(struct hub *h, struct inbox_letter *l);

/* Records of one lane: r->store.lane, from, to, count_max, bytes_max, and topic or wants (or neither: all),
 * on_read and owner are set by the caller. */
void hub_read_lane(struct hub *h, struct read *r);

/* Is a message that was read to be shown? Not when it has expired or when it is older than its topic's policy
 * lets the past be; retained messages have no such age. */
bool hub_shows(struct hub *h, const struct msg *m, bool retained);

/* A step of a walk over the retained messages of one lane (letters.h, READ with `retained`). r->store.lane,
 * topic or wants, from, to, count_max, on_read and owner are set by the caller. */
void hub_read_retained(struct hub *h, struct read *r);

/* --- sessions ----------------------------------------------------------------------------------- */

/* `conn` is passed to the ops. ST_NO_MEMORY. */
enum status session_create(struct hub *h, const struct transport_ops *ops, void *conn,
                           struct session **out) MUST_CHECK;
/* Ends it: no more calls of ops. Its memory lives on until its letters are back. NULL is allowed. */
void session_end(struct session *s);
/* Unique in this process; goes into msg.origin (No Local), and into the connection's name (directory.h). The
 * loop's index + 1 stands in the upper 16 bits. */
uint64_t session_id(const struct session *s);
static inline unsigned session_id_loop(uint64_t id) /* UINT_MAX: of no loop */
{
    return (unsigned)(id >> 48) - 1;
}
/* It is known now (or known to be another) whose connection it is: it joins the directory. "" = nobody's.
 * When the user has `user_max` connections already (0 = any number), ops->too_many follows. ST_NO_MEMORY. */
enum status session_identify(struct session *s, struct slice user, uint32_t user_max) MUST_CHECK;
bool session_admitted(const struct session *s); /* false: ops->admitted or ops->too_many follows */
struct slice session_user(const struct session *s); /* "": nobody's; borrowed */
const char *session_door(const struct session *s);
uint64_t session_since_ms(const struct session *s); /* Unix time of its beginning */
/* Calls back for each session of the loop, the oldest first. */
void hub_each_session(struct hub *h, void (*on_session)(void *ctx, struct session *s), void *ctx);
struct session *hub_find_session(struct hub *h, uint64_t id); /* of this loop; NULL: none */
/* What its door knows of the connection; the texts are good until the connection is touched. */
void session_describe(const struct session *s, struct connection_facts *out);
/* An operator ends the connection; not inside a callback of the session. The session may be gone after it. */
void session_kick(struct session *s);
/* The connection has room again (its queue has drained, an acknowledgement has opened the window):
 * cursors go on reading. Cheap when there are none. */
void session_room(struct session *s);
uint32_t session_subscriptions(const struct session *s);

enum start {
    START_LIVE,
    START_EARLIEST,
    START_AFTER,
    START_TIME, /* in each lane where STORE_AT_TIME of start_value is */
    START_LAST, /* the start_value newest; a literal filter only */
};
struct subscription_options {
    uint8_t qos; /* 0 to 2 */
    bool no_local, retain_as_published;
    bool retained; /* START_LIVE: the retained messages first */
    bool retained_again; /* START_AFTER: first what is retained and lies before the start */
    const struct place *walk_from; /* with retained_again: and not before here, in each lane; NULL: all.
                                      Borrowed for the call */
    bool held; /* nothing is sent after `subscribed` until subscription_begin */
    bool owed; /* START_AFTER: what lies between is no replay that was asked for: limit.lag_messages counts
                  from the start on */
    uint32_t subscription_id; /* MQTT 5.0, 0 = none */
    enum start start;
    const struct place *after; /* START_AFTER: next offset of each lane; borrowed for the call */
    uint64_t skipped_from,
        skipped_count; /* START_AFTER, a filter of one lane: so many messages from there to the
                          start are kept no more: dropped, and told as a gap of retention */
    uint64_t start_value;
    uint32_t window; /* shared: so many messages may be with it, at least 1 */
    uint64_t kept_as; /* shared: names the session, which outlives its connections; 0: it does not */
    void *door; /* the door's own data */
    uint32_t door_index; /* as that */
};
/* Replaces a subscription of the same filter: nothing of the old one comes after this call.
 * ST_OK: ops->subscribed follows, not inside this call. ST_INVALID: the filter. ST_FULL: subscriptions_max.
 * `$share/<name>/<filter>` is a shared subscription: of the options only qos, retain_as_published, held,
 * subscription_id, window, kept_as and those of the door count, and ops->live is not called. */
enum status session_subscribe(struct session *s, struct slice filter, const struct subscription_options *o,
                              struct subscription **out) MUST_CHECK;
/* ST_NOT_FOUND. */
enum status session_unsubscribe(struct session *s, struct slice filter) MUST_CHECK;
struct subscription *session_find(struct session *s, struct slice filter); /* NULL: none */

/* Facts of a subscription, for doors. */
struct slice subscription_filter(const struct subscription *sub);
const struct subscription_options *subscription_options_of(const struct subscription *sub);
/* The door's own data of a subscription may change while it lives. */
void subscription_set_door(struct subscription *sub, void *door);
/* It is given nothing more of shared subscriptions, as it is about to end, or, if it is kept, to be without a
 * connection until `until_ms` (Unix time; UINT64_MAX: for ever). `owed`, then: how many messages of the group
 * and lane wait for it alone. */
struct share_leaving {
    uint64_t until_ms; /* 0: it ends */
    uint32_t (*owed)(void *ctx, struct slice filter, unsigned lane);
    void *ctx;
};
void session_leave_shares(struct session *s, const struct share_leaving *how);
/* Inside `subscribed`: a shared one that is over the limits. It gets nothing, and is to be ended. */
bool subscription_refused(const struct subscription *sub);
/* Once, after `subscribed` of one that is held, or inside it. It may end the subscription. */
void subscription_begin(struct subscription *sub);
/* The lanes its messages come from; before `subscribed` too. */
void subscription_lanes(const struct subscription *sub, unsigned *first, unsigned *count);
/* All messages of the lane below this have been offered, or do not concern it: where to go on some other
 * time. After `subscribed`, from START_AFTER at once. */
uint64_t subscription_reached(const struct subscription *sub, unsigned lane);
/* How many positions, of all topics, lie between that and what this loop has been handed. 0: it is live. */
uint64_t subscription_behind(const struct subscription *sub);
/* Some of the retained messages that it asked for are still to come. */
bool subscription_walking(const struct subscription *sub);
/* Of those of the lane, where to go on some other time (walk_from). UINT64_MAX: they have all been offered.
 */
uint64_t subscription_walk_place(const struct subscription *sub, unsigned lane);
/* Calls back for each subscription of a session. */
void session_each(struct session *s, void (*on_subscription)(void *ctx, struct subscription *sub), void *ctx);

#endif
