/* Inside gateway/auth/: the office (a node's), its desks (a loop's), and what is being checked. */
#ifndef TG_GATEWAY_AUTH_OFFICE_PRIVATE_H
#define TG_GATEWAY_AUTH_OFFICE_PRIVATE_H

#include "core/loop.h"
#include "gateway/auth/auth.h"
#include "gateway/auth/keys.h"
#include "gateway/auth/revocations.h"
#include "gateway/auth/tickets.h"

enum { AUTH_LOOPS_MAX = 64 };

struct password_thread;
struct key_thread;

/* What a reload exchanges, immutable and counted: each desk has its own reference. */
struct auth_book {
    atomic_uint refs;
    struct keys *own; /* of <data>/token.key */
    struct keys *files; /* of auth.keys */
    struct acl *policy; /* NULL: the configuration has no rules */
    struct principal *anonymous, *admin;
};

struct auth_office {
    const struct settings *settings; /* those of the start: only what is not live is read there */
    struct auth_book *book; /* the main thread's */
    struct auth_book *next; /* while a reload is prepared */
    struct password_thread *passwords; /* NULL: not started */
    struct key_thread *fetcher; /* NULL: no auth.jwks_url, or not started */
    char *users_path; /* of the password file */
    struct auth *desks[AUTH_LOOPS_MAX];
    unsigned desk_count;
};

struct auth {
    struct auth_office *office;
    struct auth_book *book;
    struct loop *loop;
    struct metrics *metrics;
    struct keys *fetched; /* of auth.jwks_url; NULL: none yet */
    bool fetching; /* an answer of the fetcher is due */
    uint64_t fetched_at_ms; /* loop's time of the last answer; 0 = none yet */
    struct revocations *revoked;
    struct tickets *tickets; /* of the home desk; else NULL */
    struct list watchers;
    struct list waiting; /* struct auth_check: tokens that wait for keys */
    uint32_t waiting_count;
};

/* A credential whose verdict comes later. */
struct auth_check {
    struct mail mail; /* to the password thread and back */
    struct list link; /* auth->waiting */
    struct auth *auth;
    void (*on_checked)(void *ctx, enum auth_verdict v, struct principal *p); /* NULL: abandoned */
    void *ctx;
    enum auth_verdict verdict;
    enum ticket_use ticket_use;
    struct principal *principal; /* of a ticket, on its way back */
    size_t user_len, secret_len;
    uint8_t texts[]; /* user, then password or token */
};

static inline struct slice check_user(const struct auth_check *k)
{
    return slice_of(k->texts, k->user_len);
}
static inline struct slice check_secret(const struct auth_check *k)
{
    return slice_of(k->texts + k->user_len, k->secret_len);
}
void auth_check_free(struct auth_check *k); /* wipes it */

/* --- office.c --- */
struct auth_book *book_ref(struct auth_book *b);
void book_unref(struct auth_book *b); /* NULL is allowed */
enum auth_verdict book_claims(const struct auth_book *b, struct slice claims, uint64_t now_ms,
                              struct principal **out);
/* By the keys of the book and `fetched`, which may be NULL. */
enum auth_verdict office_judge(const struct auth_office *o, const struct auth_book *b,
                               const struct keys *fetched, struct slice token, uint64_t now_ms,
                               struct principal **out);
/* Whom a good password makes. ST_NO_MEMORY. */
enum status book_user(const struct auth_book *b, struct slice user, uint64_t now_ms, struct principal **out);

/* --- password_thread.c: scrypt off the loops ------------------------------------------------------ */

/* `path` outlives it. */
enum status password_thread_start(const char *path, uint64_t queue_max,
                                  struct password_thread **out) MUST_CHECK;
void password_thread_stop(
    struct password_thread *t); /* checks that wait come back unjudged. NULL is allowed */
/* Takes the check over; it comes back to its desk's loop by mail.on_arrival. ST_FULL: the queue is. Any
 * thread. */
enum status password_thread_post(struct password_thread *t, struct auth_check *k) MUST_CHECK;

/* --- key_thread.c: auth.jwks_url ------------------------------------------------------------------ */

enum status key_thread_start(struct auth_office *o, struct key_thread **out) MUST_CHECK;
void key_thread_stop(struct key_thread *t); /* NULL is allowed */
void key_thread_want(struct key_thread *t); /* fetch now. Any thread */
/* Once, on the calling thread. `error` gets a line unless ST_OK. */
enum status key_fetch(const char *url, struct keys **out, struct buf *error) MUST_CHECK;

/* --- auth.c --- */
/* Takes the reference. On the desk's loop. */
void auth_take_book(struct auth *a, struct auth_book *b);
/* The fetcher's answer: keys, or NULL when there was none. Takes the reference. On the desk's loop. */
void auth_take_keys(struct auth *a, struct keys *fetched);

#endif
