/* Who has been revoked: users, with all tokens that were issued up to a moment, and single tokens by their
 * id. One table a desk, the same in all; durable as retained messages at `$revoked/user/<id>` and
 * `$revoked/token/<id>` (docs/ FORMAT.md), from which it is made at the start. Owning loop only. */
#ifndef TG_GATEWAY_AUTH_REVOCATIONS_H
#define TG_GATEWAY_AUTH_REVOCATIONS_H

#include "core/msg.h"
#include "session/principal.h"

enum { REVOCATION_RECORD_BYTES_MAX = 2048 };

struct revocation {
    struct slice name; /* the user, or the token's id */
    bool of_token;
    uint64_t at_ms; /* tokens of the user that say no later moment of issue are revoked */
    uint64_t until_ms; /* 0 = for ever */
};

struct revocations;
enum status revocations_create(struct revocations **out) MUST_CHECK;
void revocations_destroy(struct revocations *r); /* NULL is allowed */
/* Adds, or replaces by what is later. What has lapsed is let go when the table grows. ST_NO_MEMORY. */
enum status revocations_put(struct revocations *r, const struct revocation *what, uint64_t now_ms) MUST_CHECK;
size_t revocations_count(const struct revocations *r);
bool revocations_have(const struct revocations *r, const struct principal *p, uint64_t now_ms);
/* Is it about him? */
bool revocation_concerns(const struct revocation *what, const struct principal *p, uint64_t now_ms);

/* The record: its topic and payload. ST_FULL, ST_NO_MEMORY. */
enum status revocation_write(const struct revocation *what, struct buf *topic,
                             struct buf *payload) MUST_CHECK;
bool revocation_topic(struct slice topic);
/* The name is put into `text`. ST_INVALID: not such a record. */
enum status revocation_read(const struct msg *m, struct buf *text, struct revocation *out) MUST_CHECK;

#endif
