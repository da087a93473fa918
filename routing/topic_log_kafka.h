/* The topic log on Apache Kafka: lane p is partition p of the topic `<prefix>.log`, whose order and
 * durability are Kafka's; reads are answered by a mirror in this node's own store
 * (core/store/store_mirror.h).
 *
 *   loop:    propose .. propose | flush          -> one chain of letters -> the sender's thread -> librdkafka
 *   feeder:  librdkafka -> a batch of messages   -> one letter a batch   -> loop: mirror, then the shard
 *
 * Two threads of its own; no call of librdkafka is made on a loop. Start-up and shutdown block.
 *
 *   log_kafka_open      the brokers, the topic as it must be, whose log it is
 *   mirror_prepare, store_open
 *   log_kafka_compare   the end of what the mirror holds is what Kafka has there
 *   log_kafka_port, shards bound and folded
 *   log_kafka_start .. log_kafka_stop, while their loops still turn or are turned
 *   log_kafka_close     after the shards and before the loops */
#ifndef TG_ROUTING_TOPIC_LOG_KAFKA_H
#define TG_ROUTING_TOPIC_LOG_KAFKA_H

#include "core/store/store_mirror.h"
#include "routing/topic_log.h"

struct log_kafka;

enum kafka_sasl { KAFKA_SASL_NONE, KAFKA_SASL_PLAIN, KAFKA_SASL_SCRAM_256, KAFKA_SASL_SCRAM_512 };

struct log_kafka_options { /* texts: borrowed until the close; "" = not given */
    const char *node_id;
    const char *brokers; /* host:port, by commas */
    const char *prefix;
    bool tls;
    const char *ca_file, *cert_file, *key_file;
    enum kafka_sasl sasl;
    const char *user, *password;
    unsigned lane_count;
    unsigned replication, min_isr; /* that the topic must have at least, and is made with */
    bool accept_less;
    uint64_t record_bytes_max; /* the largest record that is proposed */
    uint64_t linger_ms, message_timeout_ms;
    uint64_t stall_ms; /* nothing of what is under way was acknowledged for so long: publishes are refused */
    uint64_t queue_bytes; /* proposed and not acknowledged; above: ST_FULL */
    uint64_t start_ms; /* for the brokers to answer at start */
    uint64_t behind_ms; /* longer behind the end of the log than this: LOG_KAFKA_BEHIND */
    const struct clock *clock;
};

/* Connects, makes the topic or checks it. `error` gets a line. ST_IO: the brokers do not answer, or do not
 * let us in; ST_INVALID: the topic promises less than it must, or is another log's; ST_NO_MEMORY. Blocking.
 */
enum status log_kafka_open(const struct log_kafka_options *o, struct log_kafka **out,
                           struct buf *error) MUST_CHECK;
void log_kafka_source(const struct log_kafka *k, struct mirror_source *out); /* texts: until the close */
/* Its newest records, as far back as a producer could have put them elsewhere, against Kafka's. ST_OK;
 * ST_CONFLICT: they are not the same, or Kafka's log ends before; ST_IO: Kafka does not say. `dir` is the
 * mirror's folder, open or not. Blocking. */
enum status log_kafka_compare(struct log_kafka *k, struct store *mirror, const char *dir,
                              struct buf *error) MUST_CHECK;
/* The mirror outlives the port, not the close. */
struct topic_log log_kafka_port(struct log_kafka *k, struct store *mirror);
/* Before the start: `on_own` is told of the node's own records (attachment.h, topic_own) that come out of the
 * log, after the shard, on the lane's loop; borrowed. */
void log_kafka_watch(struct log_kafka *k, void (*on_own)(void *ctx, unsigned lane, const struct msg *m),
                     void *ctx);
/* Records come from where the mirror ends. ST_IO: no thread. */
enum status log_kafka_start(struct log_kafka *k) MUST_CHECK;
/* What was proposed is still sent, for a bounded time; no letter is posted after it returns. Twice is
 * allowed. */
void log_kafka_stop(struct log_kafka *k);
void log_kafka_close(struct log_kafka *k); /* NULL is allowed */

uint64_t
log_kafka_incarnation(const struct log_kafka *k); /* of this start; its upper half is the node's name */

enum log_kafka_state {
    LOG_KAFKA_READY,
    LOG_KAFKA_STARTING, /* the end that was seen at the start has not been reached */
    LOG_KAFKA_BEHIND,
    LOG_KAFKA_AWAY, /* the brokers do not answer: publishes are refused */
};
enum log_kafka_state log_kafka_state(const struct log_kafka *k); /* any thread */

struct log_kafka_facts { /* what the topic promises */
    unsigned replication, min_isr;
    bool accepted_less;
};
struct log_kafka_facts log_kafka_facts(const struct log_kafka *k); /* any thread */

#endif
