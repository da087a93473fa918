/* The letters between edges and shards: the only way in which they speak (ARCHITECTURE.md 1). A
 * request is one object that travels to the shard and comes back as its own answer; whoever made it
 * owns it again then. On the same loop a request is a direct call; answers always come by courier. */
#ifndef TG_ROUTING_LETTERS_H
#define TG_ROUTING_LETTERS_H

#include "core/list.h"
#include "core/store/store.h"
#include "routing/position.h"

/* A run of messages of one lane, in order, shared by all loops that get it. ref/unref: any thread. */
struct run {
    atomic_uint refs;
    uint8_t pool_class;
    uint16_t lane;
    uint32_t count, cap;
    struct msg *msgs[]; /* one reference each */
};
enum { RUN_MESSAGES_MAX = 512 };
enum status run_create(unsigned lane, uint32_t cap, struct run **out) MUST_CHECK;
static inline struct run *run_ref(struct run *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}
void run_unref(struct run *r);

/* A publish that is a session record (attachment.h) says which. */
enum session_write {
    SESSION_NONE, /* an ordinary message */
    SESSION_UPDATE, /* by the attachment that wrote the newest record; ST_GONE: it is another's, or none */
    SESSION_ATTACH, /* by a later attachment, or the first; ST_AGAIN: the record is not `based_on` any more,
                       read it again; ST_GONE: its number is not greater */
};

/* PUBLISH, and back as PUBLISHED. Pooled: publish_create/publish_free, any loop. */
struct publish {
    struct mail mail;
    struct msg *msg; /* one reference, kept until publish_free */
    uint8_t pool_class;
    bool wait; /* answer when durable; else it does not come back at all */
    uint8_t session; /* enum session_write; others than SESSION_NONE wait */
    uint64_t based_on; /* SESSION_ATTACH: offset + 1 of the record that was read; 0: there was none. While it
                          is proposed to a log whose order is given elsewhere the shard's: under which
                          incarnation */
    uint16_t home; /* index of the loop that asked */
    bool duplicate; /* answer: it is stored already; msg->offset is that of the original */
    uint64_t durable_at; /* the shard's: answered when all up to here is durable; while it is proposed to a
                            log whose order is given elsewhere, its sequence there */
    /* ST_OK: durable, or of a topic that is not stored (MSG_UNSTORED); ST_FULL: the log is behind, nothing
     * stored; ST_NO_SPACE, ST_IO: refused; ST_QUOTA: no more can be retained; ST_UNSUPPORTED: RETAIN or an
     * identity for a topic that is not stored. By its identity (once_id.h) refused: ST_CONFLICT: the sequence
     * is below what is remembered, or is another topic's; ST_EXISTS: the key was used for another publish;
     * ST_AGAIN: the key's first publish is not durable yet */
    enum status status;
    void (*on_published)(struct publish *p); /* home loop; owns p again */
    void (*door_published)(
        struct publish *p); /* the hub's: the door's on_published while the hub stands between */
    void *shard; /* where it goes, while it travels to another loop */
    void *hub; /* of the asker; set by hub_publish */
    void *owner; /* the asker's */
    uint64_t tag; /* the asker's */
};
/* What it counts as when it is over. */
enum metric publish_outcome(enum status status, const struct msg *m, bool duplicate);
enum status publish_create(struct msg *m /* takes over the reference */, struct publish **out) MUST_CHECK;
void publish_free(struct publish *p);

/* ATTACH: this loop wants messages that match the filter, from now on. Back as ATTACHED with the
 * offset at which "now" is. In FIFO with DELIVER: what is delivered before it lies below `next`. */
struct attach {
    struct mail mail;
    uint16_t home;
    uint16_t lane;
    struct slice filter; /* the owner keeps the bytes until it is back */
    bool wants_interest; /* add this loop to those that get the filter's messages (false: only ask for `next`)
                          */
    void *interest; /* answer to wants_interest: give it back by DETACH */
    void *shard; /* where it goes, while it travels to another loop */
    uint64_t next; /* answer */
    uint64_t first; /* answer: lowest offset kept */
    bool has_retained; /* answer: there may be retained messages for this filter */
    void (*on_attached)(struct attach *a);
    void *owner;
};
/* DETACH: gives an interest back. Does not come back itself: the shard frees it (free). */
struct detach {
    struct mail mail;
    uint16_t lane;
    void *interest;
    void *shard;
};

/* READ: records of a lane at a cursor, for a filter. Back with records, or `live`: the cursor has
 * reached the end, and every message from `next` on comes by DELIVER after this letter. */
struct read {
    struct store_read
        store; /* from, topic/wants, count_max, bytes_max, count_only; answer: status, msgs, found, next */
    struct mail mail;
    uint16_t home;
    bool want_live; /* the asker is a cursor that wants to go live; else a page of history */
    bool retained; /* walks the retained messages with from <= offset < to instead of the records; answers
                      after a bounded number of them: go on at `next` while that is below `end` */
    bool session; /* with `retained`: the session record that store.topic names, or a walk over all of them */
    bool once; /* no messages: the sequences of the anonymous producer that store.topic names, from store.from
                  on (once_sequences); store.found of them in `sequences`, the caller's to free */
    uint64_t *sequences; /* answer to `once` */
    bool live; /* answer */
    bool from_log; /* answer: by the reader thread, not from memory */
    bool whole; /* all of from <= offset < to is in the log, as another node has seen: where this replica has
                   yet to read so far it waits for that, and comes back with ST_AGAIN when it has waited in
                   vain */
    bool beyond; /* answer, with ST_GONE or ST_AGAIN: the place asked for lies behind the end of the log */
    void *shard; /* where it goes, while it travels to another loop */
    void (*on_read)(struct read *r); /* home loop; owns r, and r->store.msgs (read_release) */
    void (*door_read)(struct read *r); /* the hub's: the door's on_read while the hub stands between */
    void *hub; /* of the asker; set by hub_read */
    void *owner;
};
void read_release(struct read *r); /* unrefs and frees the messages of the answer; r itself stays */

/* INBOX: to the shard of an inbox, and back: where is its cursor, and perhaps it has moved. */
struct inbox_letter {
    struct mail mail;
    uint16_t home, lane;
    struct slice topic; /* `$inbox/<id>`; the owner keeps the bytes until it is back */
    bool moves; /* all below `next` has been acknowledged; it was `count` messages */
    bool now; /* with `moves`: the connection ends, it is to be written at once */
    uint64_t next, count;
    bool known; /* answer: there is a cursor, at `next` */
    uint64_t first, end; /* answer: the offsets that the lane has */
    void *shard; /* where it goes, while it travels to another loop */
    void (*on_answer)(struct inbox_letter *l); /* home loop */
    void (*asker_answer)(
        struct inbox_letter *l); /* the hub's: the asker's on_answer while the hub stands between */
    void *hub; /* of the asker; set by hub_inbox */
};

/* SHARE: a member of a shared subscription speaks to one of its lanes (shard_share.c), and is answered. A
 * seat is the member's side (session/share.c), `member` the shard's. */
enum share_word {
    SHARE_JOIN, /* it is given nothing yet */
    SHARE_OPEN, /* it can take messages */
    SHARE_FULL, /* it cannot: whatever was given before comes before the answer */
    SHARE_LEAVE, /* it is given nothing any more: whatever was comes before the answer */
    SHARE_TAKE, /* a message that was given is its session's from now on, whatever happens: answered when that
                   is durable */
    SHARE_RELEASE, /* no member: a kept session has ended */
};
struct share_ticket;
struct share_letter {
    struct mail mail;
    uint16_t home, lane;
    uint8_t word;
    struct list link; /* the shard's */
    struct slice
        filter; /* JOIN, RELEASE: `$share/<name>/<filter>`; the owner keeps the bytes until it is back */
    uint64_t keep_id; /* JOIN, RELEASE: names a session that outlives its connections, 0: it does not. JOIN is
                         then answered when the group's record knows of it */
    uint64_t until_ms; /* LEAVE: Unix time at which the session ends; UINT64_MAX: never; 0: now, or it does
                          not have the subscription any more */
    uint32_t owed; /* LEAVE: messages that wait for the session alone */
    struct share_ticket *ticket; /* TAKE */
    uint32_t window; /* JOIN: so many messages may be with it at a time, at least 1 */
    void *seat; /* JOIN: what a GIVE names, */
    void (*on_give)(struct mail *mail); /* and where it arrives: home loop; owns the letter */
    void *member; /* answer to JOIN; OPEN, FULL and LEAVE name it */
    enum status status; /* answer to JOIN: ST_OK, ST_FULL: limit.shared_groups, limit.shared_kept,
                           ST_NO_MEMORY; to JOIN and TAKE: what the log has refused the record with */
    uint64_t next; /* answer to JOIN: where "now" is */
    uint64_t durable_at; /* the shard's */
    void *shard; /* where it goes, while it travels to another loop */
    void (*on_answer)(struct share_letter *l); /* home loop */
};

/* GIVE: messages to a member. Each has a ticket, which goes back exactly once (SETTLE, TAKE). */
struct share_gift {
    struct msg *msg; /* one reference */
    struct share_ticket *ticket;
};
enum { SHARE_GIFTS_MAX = 32 };
struct share_give {
    struct mail mail;
    uint8_t pool_class;
    uint16_t lane;
    uint32_t count;
    void *seat;
    struct share_gift gifts[SHARE_GIFTS_MAX];
};
void share_give_free(struct share_give *g); /* the letter alone */

/* SETTLE: what became of a message that was given. Does not come back. Pooled. */
struct share_settle {
    struct mail mail;
    uint8_t pool_class;
    bool again; /* it is to be given once more, to whoever can take it; else it is done with */
    struct share_ticket *ticket;
    void *shard; /* where it goes, while it travels to another loop */
};

/* DELIVER: to an edge. The receiver unrefs the run and frees the letter (deliver_free). */
struct deliver {
    struct mail mail;
    uint8_t pool_class;
    struct run *run;
    void *hub; /* of the receiving loop */
};
void deliver_free(struct deliver *d);

#endif
