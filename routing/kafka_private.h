/* Inside the adapter to Kafka: what its files share. topic_log_kafka.c is the port and all that happens on
 * loops, kafka_send.c and kafka_feed.c are the two threads, kafka_client.c makes librdkafka's objects,
 * kafka_topic.c and kafka_compare.c look at the topic at start. librdkafka's own types are named by their
 * structs: its header stays in the .c files. */
#ifndef TG_ROUTING_KAFKA_PRIVATE_H
#define TG_ROUTING_KAFKA_PRIVATE_H

#include "core/mailbox.h"
#include "core/metrics.h"
#include "routing/topic_log_kafka.h"

#include <pthread.h>

struct rd_kafka_s;
struct rd_kafka_topic_s;
struct rd_kafka_queue_s;
struct kafka_lane;

/* A record on its way to Kafka, until its report. */
struct kafka_proposal {
    struct mail mail; /* to the sender; and back to its loop, when it was lost */
    struct kafka_lane *lane;
    struct kafka_proposal *next, *prev; /* the sender's: under way, oldest first */
    uint64_t sequence; /* proposal.h */
    uint64_t since_ms; /* monotonic */
    enum status status; /* when it was lost */
    uint32_t len;
    uint8_t bytes[] __attribute__((aligned(8)));
};

/* Records in order, from Kafka to a lane's loop. */
enum { KAFKA_BATCH_MAX = 1000, KAFKA_STATISTICS_MS = 1000 };
enum { KAFKA_EXIT_RETRY = 75 }; /* sysexits' EX_TEMPFAIL: the supervisor starts us again */
struct kafka_batch {
    struct mail mail;
    struct kafka_lane *lane;
    struct kafka_batch *next;
    uint32_t count, at; /* msgs[at] is the next one */
    uint64_t bytes;
    struct msg *msgs[KAFKA_BATCH_MAX];
};

struct kafka_lane {
    struct log_kafka *log;
    unsigned index;
    /* its loop */
    struct loop *loop;
    struct metrics *metrics;
    const struct topic_log_events *events;
    void *events_ctx;
    struct mail *first, *last; /* proposed in this turn */
    struct kafka_batch *first_batch, *last_batch; /* come, and not all applied */
    struct timer retry; /* the mirror does not take more now */
    struct { /* what is left of a turn's share: others have their turn too while a mirror is filled */
        uint64_t of_ms; /* loop_now_ms of that turn */
        uint32_t records;
        uint64_t bytes;
        bool posted; /* `again` is on its way: the next turn goes on */
        struct mail again;
    } share;
    bool report_asked; /* a letter of the sender's is to come */
    struct mail report; /* that letter */
    _Atomic uint64_t reported; /* sender writes, loop reads: sequences up to this are durable. With */
    atomic_bool report_wanted; /* which either sees what the other has written before (seq_cst) */
    /* the feeder */
    struct kafka_batch *filling;
    uint64_t fed_next; /* behind what has come from Kafka */
    uint64_t behind_since_ms; /* 0: is not */
    uint64_t heard_ms; /* monotonic: the partition's leader has said something, by the statistics */
    _Atomic uint64_t queued_bytes; /* loop adds, sender takes away (relaxed); only a number */
    _Atomic uint64_t waiting_bytes; /* feeder adds, loop takes away (relaxed): of batches. Only a number */
    _Atomic uint64_t applied; /* loop writes (release), feeder and any thread read (acquire) */
    uint64_t start_end; /* what Kafka had at the start */
};

struct log_kafka {
    struct log_kafka_options options;
    char topic[256];
    char cluster[256];
    uint64_t incarnation;
    struct log_kafka_facts facts;
    struct store *mirror;
    struct store_events events; /* of the mirror, to lanes */
    void (*on_own)(void *ctx, unsigned lane, const struct msg *m);
    void *on_own_ctx;
    unsigned lane_count;
    struct kafka_lane lanes[STORE_LANES_MAX];
    uint64_t heads[STORE_LANES_MAX];

    struct rd_kafka_s *producer, *consumer;
    struct rd_kafka_topic_s *out_topic, *in_topic;
    struct rd_kafka_queue_s *in_queue;

    pthread_t sender, feeder;
    bool started;
    struct metrics *metrics; /* of the sender */
    struct metrics *feed_metrics;
    struct mailbox box; /* of the sender */
    struct mail stop;
    int report_fd; /* eventfd: librdkafka has something for the sender */
    bool stopping; /* sender's */
    atomic_bool feed_stopping;
    struct kafka_proposal *oldest, *newest; /* sender's: under way */
    uint64_t probe_at_ms, reported_ms; /* monotonic: the next question; the last answer */
    bool lost_brokers; /* sender's: librdkafka says that none is there */
    atomic_bool away; /* sender writes, any thread reads (relaxed) */
    atomic_bool behind; /* feeder writes, any thread reads (relaxed) */
};

/* --- kafka_client.c --- */
enum status kafka_client_open(struct log_kafka *k,
                              struct buf *error) MUST_CHECK; /* both clients and topics */
void kafka_client_close(struct log_kafka *k);
/* Writes the line and returns `st`. */
enum status kafka_refuse(struct buf *error, enum status st, const struct log_kafka *k, const char *what);

/* --- kafka_topic.c --- */
enum status kafka_topic_check(struct log_kafka *k,
                              struct buf *error) MUST_CHECK; /* facts, heads, start_end */

/* --- kafka_send.c --- */
void *kafka_sender(void *log);
void kafka_delivered(struct log_kafka *k, struct kafka_proposal *p, enum status st); /* in its thread */
/* The reports that librdkafka has. */
void kafka_client_poll(struct log_kafka *k, int timeout_ms);

/* --- kafka_feed.c --- */
void *kafka_feeder(void *log);

/* --- topic_log_kafka.c --- */
void kafka_batch_arrived(struct mail *mail); /* on the lane's loop */
void kafka_proposal_lost(struct mail *mail);
void kafka_reports_arrived(struct mail *mail);
void kafka_batch_free(struct kafka_batch *b);

#endif
