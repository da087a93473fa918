/* Inside session/: the structs that hub.c (delivery), session.c (subscriptions) and cursor.c (catching up)
 * share. Owning loop only.
 *
 *   session --- subscription --- channel (one distinct filter of this loop) --- filter table
 *                    |
 *                 catchup (only while some lane is not live): a cursor a lane
 *
 * A subscription that has ended while a letter of it travels keeps its memory (session == NULL) until the
 * letter is back; its channel lives as long as the last of its subscriptions. */
#ifndef TG_SESSION_HUB_PRIVATE_H
#define TG_SESSION_HUB_PRIVATE_H

#include "core/list.h"
#include "routing/filter_table.h"
#include "session/hub.h"
#include "session/roster.h"

struct scratch {
    struct scratch_block *block; /* newest first; the older ones are full */
};

/* How much of the loop those that catch up may take: pace.c. */
struct pace {
    uint32_t share; /* percent, 1 to 90 */
    unsigned open; /* deep READs under way */
    struct list queue; /* lane_cursor.turn: those that wait to send theirs */
    uint64_t debt_ns; /* time that has been taken and not been paid off */
    uint64_t spent_ns; /* taken in this turn */
    uint64_t turn_end_ns; /* of the turn before; only while there is something to pace */
};

struct hub {
    struct loop *loop;
    struct courier *courier;
    struct shard_map *map;
    struct metrics *metrics;
    struct policies *policies; /* NULL: none */
    struct hub_limits limits;
    struct filter_table *filters; /* of channels */
    uint64_t next_session_id;
    struct drops *drops;
    struct directory directory; /* ops NULL: there is none */
    struct roster roster; /* of its sessions */
    struct hub *peers[LOOPS_MAX]; /* the hubs of all loops, itself too */
    unsigned peer_count;
    uint64_t letters; /* under way and coming back: ATTACH, READ, PUBLISH that waits */
    uint64_t delivered[PLACE_LANES_MAX]; /* a lane: all below that concerns a live subscription was offered */
    struct scratch scratch[WIRE_KINDS];
    struct loop_hook hook;
    struct pace pace;
    struct msg *const *system; /* what the node says of itself; an entry is NULL while there is nothing */
    unsigned system_count;
};

struct channel {
    struct filter_entry entry;
    struct hub *hub;
    struct subscription **subs; /* those that get messages */
    uint32_t count, cap;
    uint32_t refs; /* subscriptions that still have memory */
    bool asked; /* an ATTACH that wants interest is under way or has been answered */
    bool system; /* of the node's own topics: nothing of it is in a lane */
    uint16_t first_lane, lane_count;
    uint32_t filter_len;
    uint8_t *filter;
    void *interests[]; /* a lane; NULL until ATTACHED */
};

enum lane_state {
    LANE_ATTACHING, /* ATTACH is under way */
    LANE_COUNTING, /* the replay is being counted */
    LANE_WAITING, /* behind; waits for room at the connection */
    LANE_READING, /* behind; READ is under way */
    LANE_LIVE,
};

struct lane_cursor {
    struct subscription *sub;
    enum lane_state state;
    uint16_t lane;
    uint32_t batch; /* messages the next READ asks for: as many as the door has taken lately */
    bool locating; /* `next` is found out by the counting READ: START_TIME, START_LAST */
    bool deep; /* the last READ was not answered from memory: the next waits for its turn */
    bool paced; /* the READ under way is one of pace.open */
    struct list turn; /* pace.queue */
    bool walking; /* the retained messages first; `walk` is the place, at.next[lane] the end */
    uint64_t walk;
    uint64_t next; /* all below has been handed over */
    uint64_t replay_to; /* what it was asked to replay lies below: that is no lag */
    uint64_t lost_to; /* `next` came from a future that this log does not have, up to here (exclusive) */
    struct attach attach;
    struct read read;
};

struct catchup {
    unsigned pending; /* answers until `subscribed` can be told */
    unsigned live_count;
    bool announce; /* tell `live` when all lanes are */
    uint64_t replay;
    struct place at;
    struct lane_cursor lanes[]; /* of the channel */
};

struct subscription {
    struct session *session; /* NULL: ended */
    struct channel *channel;
    struct catchup *behind; /* NULL: live in all lanes */
    struct seats *shared; /* NULL: it is not; else `behind` is */
    uint32_t place; /* in channel->subs */
    uint32_t letters; /* under way */
    struct subscription_options options;
    struct list link; /* session->subscriptions */
    struct list waiting; /* session->waiting: some lane waits for room */
};

struct membership;

struct session {
    struct hub *hub;
    const struct transport_ops *ops;
    void *conn;
    uint64_t id;
    uint32_t subscription_count;
    struct list subscriptions;
    struct list waiting;
    uint64_t since_ms; /* Unix time of its beginning */
    struct membership *membership; /* in the directory; NULL: nobody has said who he is */
};

/* --- hub.c --- */
static inline void hub_has_delivered(struct hub *h, unsigned lane, uint64_t next)
{
    if (next > h->delivered[lane])
        h->delivered[lane] = next;
}
/* Hands one message to one subscription, minding expiry and No Local, and counts what becomes of it; but for
 * ST_AGAIN: no room. */
enum status hub_offer(struct hub *h, struct subscription *sub, struct delivery *d);

/* Messages that a subscription has reached or jumped over and does not get: counted, and noted. */
void subscription_dropped(const struct subscription *sub, const struct gap *gap, enum metric why);
/* The same of messages that it will not get, though they are there; and it is told (gap->why is filled in).
 * Nothing when gap->count is 0. */
void subscription_withheld(struct subscription *sub, const struct gap *gap, enum metric why);
/* Is this not to be delivered, as it has expired or is older than its topic shows? */
bool hub_withholds(struct hub *h, const struct subscription *sub, const struct delivery *d, enum metric *why);

/* A letter of the subscription leaves, is back. */
static inline void subscription_letter_sent(struct subscription *sub)
{
    sub->letters++;
    sub->channel->hub->letters++;
}
static inline void subscription_letter_back(struct subscription *sub)
{
    sub->letters--;
    sub->channel->hub->letters--;
}

/* --- cursor.c --- */
struct lane_cursor *subscription_lane(struct subscription *sub, unsigned lane);
/* Starts the ATTACHes of a new subscription, whose `behind` is set. */
void cursor_attach(struct subscription *sub, const struct subscription_options *o);
/* The door had no room for the message at `offset`: from there on a cursor. */
void cursor_fall_behind(struct subscription *sub, unsigned lane, uint64_t offset);
void cursor_resume(struct subscription *sub);
/* Sends the READ that has been prepared. */
void cursor_send_read(struct lane_cursor *lc);
enum status catchup_create(struct subscription *sub, struct catchup **out) MUST_CHECK;

/* The next READ. */
void cursor_go(struct lane_cursor *lc);
/* Of the records from lc->next to `to`. */
void cursor_prepare_read(struct lane_cursor *lc, uint64_t to);
/* lc->next moves to `to`: `count` messages between are dropped for the reason, and told as a gap. The
 * callback may end the subscription: whoever calls holds a letter of it and looks afterwards. */
void cursor_jump(struct lane_cursor *lc, uint64_t to, uint64_t count, enum metric why);

/* --- share.c --- */
enum status seats_create(struct subscription *sub) MUST_CHECK; /* ST_NO_MEMORY */
void seats_join(struct subscription *sub);
/* The connection will take messages, for the first time or once more. */
void seats_open(struct subscription *sub);
void seats_leave(struct subscription *sub, const struct share_leaving *how); /* NULL: it ends */

/* --- lag.c --- */
/* True: the cursor is over its limit and will jump; cursor_go is called then. */
bool lag_is_over(struct lane_cursor *lc);

/* --- system.c --- */
/* It is in place: it gets what the node has said last, if it asked for what is retained. */
void subscription_begin_system(struct subscription *sub);

/* --- pace.c --- */
void pace_init(struct pace *p, uint32_t share);
/* May the READ be sent now? False: it is queued, and will be (cursor_send_read). */
bool pace_ask(struct lane_cursor *lc);
void pace_forget(struct lane_cursor *lc); /* it waits no more; safe when it did not */
/* Around the handling of an answer. 0: it is not paced. */
uint64_t pace_begin(const struct lane_cursor *lc);
void pace_end(struct hub *h, uint64_t begun_ns);
/* True: come again without waiting. */
bool pace_turn_end(struct hub *h);

/* --- membership.c --- */
/* The session ends, or is another user's from now on: it leaves the directory. */
void membership_end(struct session *s);

/* --- session.c --- */
/* Takes it out of session and channel; frees it once no letter is under way. */
void subscription_end(struct subscription *sub);
void subscription_release(struct subscription *sub);
/* The interest of a lane has come: kept, or given back at once if the channel is not used any more. */
void channel_attached(struct channel *ch, unsigned lane, void *interest);

#endif
