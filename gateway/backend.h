/* Who orders and keeps the node's records, as `log.backend` says: the segment store by itself, or Kafka with
 * the segment store as a mirror. Start-up and shutdown block; they are the node's. */
#ifndef TG_GATEWAY_BACKEND_H
#define TG_GATEWAY_BACKEND_H

#include "core/buf.h"
#include "gateway/settings.h"
#include "routing/topic_log.h"

enum backend_kind { BACKEND_EMBEDDED, BACKEND_KAFKA };

struct log_kafka;

struct backend {
    struct store *store;
    struct log_kafka *kafka; /* NULL: embedded */
    struct topic_log log;
    uint64_t incarnation; /* of this start of the node */
    char *password; /* for Kafka */
};

/* What of the settings does not fit the backend; NULL: all does. */
const char *backend_flaw(const struct settings *s);

/* What the backend cannot do is off: shared subscriptions, whose members may be anywhere. */
void backend_settle(struct settings *s);

enum status backend_open(const struct settings *s, struct backend *out, struct buf *error) MUST_CHECK;
/* When the loops run: records that others have written may come. */
enum status backend_start(struct backend *b, struct buf *error) MUST_CHECK;
/* Nothing comes any more; what has come lies in the loops' mailboxes and is to be taken there. */
void backend_stop(struct backend *b);
void backend_close_store(struct backend *b);
void backend_close(struct backend *b); /* after the shards, before the loops */

#endif
