/* Who is it? The credentials of connections and requests become principals here.
 *
 * An office is the node's: keys, rules, what the configuration says. It is made before the loops run. A desk
 * is a loop's: what the doors ask; owning loop only. A desk that is NULL knows anonymous clients only (tests
 * of doors). */
#ifndef TG_GATEWAY_AUTH_AUTH_H
#define TG_GATEWAY_AUTH_AUTH_H

#include "gateway/auth/verdict.h"
#include "gateway/settings.h"
#include "session/principal.h"

struct auth_office;
struct auth; /* a desk */
struct loop;

/* `error` gets a line: ST_INVALID (a rule, a key), ST_FORBIDDEN, ST_NOT_FOUND, ST_NO_SPACE, ST_IO,
 * ST_NO_MEMORY. */
enum status auth_office_create(const struct settings *s, struct auth_office **out,
                               struct buf *error) MUST_CHECK;
void auth_office_destroy(struct auth_office *o); /* after its desks. NULL is allowed */

enum status auth_create(struct auth_office *o, struct loop *loop, struct metrics *m,
                        struct auth **out) MUST_CHECK;
void auth_destroy(struct auth *a); /* NULL is allowed */

/* The principal of those who give no credential. A reference for the caller. */
struct principal *auth_anonymous(const struct auth *a);
/* May there be anonymous clients at an address that is loopback, or not? */
bool auth_takes_anonymous(const struct auth *a, bool loopback);

/* A token, at once. Failures are counted. *out, with a reference for the caller, only when AUTH_OK. */
enum auth_verdict auth_token(struct auth *a, struct slice token, struct principal **out);
/* `api.key`: the principal that may do everything. */
struct principal *auth_admin(const struct auth *a);

/* The same without a loop, and not counted. Any thread. */
enum auth_verdict auth_office_judge(const struct auth_office *o, struct slice token, uint64_t now_ms,
                                    struct principal **out);

/* A failure that a door has found itself. */
void auth_failed(struct auth *a, enum auth_verdict v);

#endif
