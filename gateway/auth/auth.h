/* Who is it? The credentials of connections and requests become principals here.
 *
 * An office is the node's: keys, rules, what the configuration says, and the threads for what takes time. It
 * is made before the loops run. A desk is a loop's: what the doors ask; owning loop only. A desk that is NULL
 * knows anonymous clients only (tests of doors). */
#ifndef TG_GATEWAY_AUTH_AUTH_H
#define TG_GATEWAY_AUTH_AUTH_H

#include "core/list.h"
#include "gateway/auth/tickets.h"
#include "gateway/auth/verdict.h"
#include "gateway/settings.h"
#include "session/principal.h"

struct auth_office;
struct auth; /* a desk */
struct auth_check;
struct loop;
struct msg;

/* `error` gets a line: ST_INVALID (a rule, a key), ST_FORBIDDEN, ST_NOT_FOUND, ST_NO_SPACE, ST_IO,
 * ST_NO_MEMORY. */
enum status auth_office_create(const struct settings *s, struct auth_office **out,
                               struct buf *error) MUST_CHECK;
void auth_office_destroy(struct auth_office *o); /* after its desks. NULL is allowed */
/* The threads. After the desks, and before any of them is asked. ST_IO, ST_NO_MEMORY. */
enum status auth_office_start(struct auth_office *o) MUST_CHECK;
/* Before the desks' loops are destroyed: answers under way still arrive there. NULL is allowed, and twice. */
void auth_office_stop(struct auth_office *o);
/* A part of a reload (gateway/reload.h): token keys, access rules, and the set of auth.jwks_url is fetched.
 * After commit every connection's rights are those of the new rules. The main thread, while the loops run. */
/* Can what auth.keys names be read, and are those keys? Without an office; makes nothing. `error`: one line.
 */
enum status auth_check_files(const struct settings *s, struct buf *error) MUST_CHECK;
enum status auth_office_prepare(void *office, const struct settings *next, struct buf *error) MUST_CHECK;
void auth_office_commit(void *office);
void auth_office_abandon(void *office);
const char *auth_office_users(const struct auth_office *o); /* path of the password file */

enum status auth_create(struct auth_office *o, struct loop *loop, struct metrics *m,
                        struct auth **out) MUST_CHECK;
void auth_destroy(struct auth *a); /* NULL is allowed */

/* The principal of those who give no credential. A reference for the caller. */
struct principal *auth_anonymous(const struct auth *a);
/* May there be anonymous clients at an address that is loopback, or not? */
bool auth_takes_anonymous(const struct auth *a, bool loopback);
/* `api.key`: the principal that may do everything. */
struct principal *auth_admin(const struct auth *a);

/* The user of a certificate that was verified. A reference for the caller. NULL: no user name, or no memory.
 */
struct principal *auth_certified(const struct auth *a, struct slice user, uint64_t expires_ms);

/* A token, a ticket, or a user name and a password. */
struct auth_credential {
    bool is_token, is_ticket;
    enum ticket_use ticket_use;
    struct slice user, secret; /* of a token or ticket `secret` alone */
};
/* The verdict, and when it is AUTH_OK *out, with a reference for the caller. AUTH_PENDING: it is not known
 * yet (a password, or a token whose key must be fetched); *pending is then set and on_checked follows, never
 * inside this call, with a reference in `p` when AUTH_OK. Failures are counted. */
enum auth_verdict auth_check(struct auth *a, const struct auth_credential *c,
                             void (*on_checked)(void *ctx, enum auth_verdict v, struct principal *p),
                             void *ctx, struct principal **out, struct auth_check **pending);
/* Nobody waits for it any more. NULL is allowed. */
void auth_abandon(struct auth_check *k);

/* A token without a loop, with a fetch of auth.jwks_url; not counted. Blocks. `error` gets a line when that
 * fails. */
enum auth_verdict auth_office_judge(const struct auth_office *o, struct slice token, uint64_t now_ms,
                                    struct principal **out, struct buf *error);

/* --- tickets: at the home desk, that of loop 0, alone --- */

/* The principal of claims that nobody has signed: an administrator's. */
enum auth_verdict auth_claims(const struct auth *a, struct slice claims, struct principal **out);
/* A ticket for `p`: TICKET_BYTES and a NUL. ST_FULL: limit.tickets. ST_IO, ST_NO_MEMORY. On loop 0. */
enum status auth_ticket(struct auth *a, struct principal *p, uint64_t until_ms, char *out) MUST_CHECK;

/* --- revocations: the same at every desk --- */

struct revocation;
/* A door that wants to know: embedded, unlinked by the door. */
struct auth_watcher {
    struct list link;
    /* Close whom it concerns (auth_concerns). */
    void (*on_revoked)(struct auth_watcher *w, const struct revocation *what);
    /* The access rules are others: every principal in use is to be exchanged (auth_renew), and what it may
     * not any more ends. */
    void (*on_rules)(struct auth_watcher *w);
};
/* The same principal under the rules in force; a reference for the caller. NULL: no memory. */
struct principal *auth_renew(const struct auth *a, struct principal *p);
void auth_watch(struct auth *a, struct auth_watcher *w); /* a NULL: nothing will come */
bool auth_concerns(const struct auth *a, const struct revocation *what, const struct principal *p);
/* Of the same office. Any thread, the loops run. */
struct auth *auth_desk(const struct auth *a, unsigned loop_index);
/* It counts from here on, and the watchers hear of it. Once the loops run, on the desk's; before, anywhere.
 */
void auth_revoke(struct auth *a, const struct revocation *what);
/* Start-up: what the log holds, as revocation records. */
void auth_office_fold(struct auth_office *o, const struct msg *m);
bool auth_revocations_full(const struct auth *a);

/* How long the principal's token is still good; 0 = it has expired, UINT64_MAX = it never does. */
uint64_t auth_left_ms(const struct auth *a, const struct principal *p);

/* A failure that a door has found itself. */
void auth_failed(struct auth *a, enum auth_verdict v);

#endif
