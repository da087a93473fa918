/* Inside routing/: what the two files of shared subscriptions share. shard_share.c gives, shard_share_kept.c
 * keeps what must outlive connections and the node. The shard's loop only. */
#ifndef TG_ROUTING_SHARE_PRIVATE_H
#define TG_ROUTING_SHARE_PRIVATE_H

#include "routing/shard_private.h"

/* A session that outlives its connections and has subscribed. */
struct share_kept {
    struct list link; /* share->kept */
    uint64_t id; /* the session's incarnation */
    uint32_t members; /* its connections: 0 or 1, two while a subscription replaces another */
    uint32_t owed; /* away: QoS 2 messages that wait for it, or for the end of its session */
    uint64_t until_ms; /* away: Unix time of that end; UINT64_MAX: never */
    bool known; /* at start: its session is there */
};

struct share {
    struct shard *shard;
    struct filter_entry entry;
    struct list link; /* shares.all */
    struct list members; /* those that leave too */
    uint32_t member_count; /* that do not leave */
    struct share_member **ready; /* a heap by pass: those that can be given to */
    uint32_t ready_count, ready_cap;
    uint64_t pass; /* of the one that was given to last */
    uint64_t given, given_bytes; /* tickets out */
    struct list out; /* those */
    struct list back; /* tickets of messages to be given again, by offset */
    bool live; /* all records have been looked at */
    bool reading;
    bool over; /* it has ended, while messages of it are out */
    uint64_t next; /* not live: all below have been looked at */
    struct store_read read;

    struct list kept; /* struct share_kept */
    uint32_t kept_count;
    uint64_t *passed; /* positions from `next` on that are settled, ascending */
    uint32_t passed_count;
    bool recorded; /* the log has a record of it */
    bool stale; /* which does not say what is so now */
    bool writing; /* the record's newest write is not durable: shares.written */
    uint64_t written_at; /* its offset */
    uint64_t recorded_next;
    uint64_t moved; /* settled since the last write */
    struct list save; /* shares.saving, or with `writing` shares.written */
    struct list asked; /* share_letter.link: they wait for a write that has not begun */
    struct timer later; /* the record is to be written */
    struct timer expiry; /* of kept members that are away */

    uint64_t hash;
    uint64_t tag; /* hash64_stable of the name */
    struct slice filter; /* within name */
    size_t name_len;
    uint8_t name[];
};

struct share_ticket {
    struct share_member *member;
    struct share *share;
    struct list link; /* share->out, ->back */
    struct msg *msg; /* a reference; NULL, in `back`: it is to be read first */
    uint64_t offset;
};

/* --- shard_share.c --- */
struct share *share_find(const struct shard *s, struct slice name);
enum status share_create(struct shard *s, struct slice name, struct share **out) MUST_CHECK;
/* Nobody is left to be given to, and a new member makes a new group. */
void share_end(struct share *g);
/* Members that leave and have nothing out any more are gone; then the group goes on, or is gone too. */
void share_part(struct share *g);
void share_set_live(struct share *g, bool live);
void share_count(struct share *g, enum metric why, uint64_t count);
void share_answer(struct shard *s, struct share_letter *l);
/* A ticket of a message that the log has, to the end of `back`. ST_NO_MEMORY. */
enum status share_owe(struct share *g, uint64_t offset) MUST_CHECK;
void share_ticket_drop(struct share_ticket *t);
static inline bool share_lives(const struct share *g)
{
    return g->member_count > 0 || g->kept_count > 0;
}

/* --- shard_share_kept.c --- */
void share_kept_init(struct share *g);
void share_kept_deinit(struct share *g);
/* The member's session, which is there from now on. ST_FULL, ST_NO_MEMORY. */
enum status share_keep(struct share *g, uint64_t id, struct share_kept **out) MUST_CHECK;
/* The member leaves: its session is away, or does not have the subscription any more (l->until_ms 0). */
void share_kept_leaves(struct share *g, struct share_kept *k, const struct share_letter *l);
void share_release(struct shard *s, struct share_letter *l);
/* The record must say what is so now; then the letter is answered. */
void share_save_then(struct share *g, struct share_letter *l);
void share_save_now(struct share *g);
void share_moved(struct share *g); /* something has been settled */
/* Nobody will write it any more: the log's record goes. */
void share_forget(struct share *g);
bool share_has_passed(const struct share *g, uint64_t offset);

#endif
