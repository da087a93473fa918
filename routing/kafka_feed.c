/* The feeder: what Kafka gives, record by record in the order of each partition, becomes messages in batches,
 * one letter each to the loop of the lane. It also looks how far the lanes are behind.
 *
 * Back-pressure: while a loop has WAITING_BYTES of batches that its mirror has not taken, nothing more is
 * fetched; librdkafka then stops asking when its own queue is full. */
#include "routing/kafka_private.h"

#include "core/logging.h"
#include "core/pool.h"
#include "routing/topic.h"

#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    WAIT_MS = 100,
    WAITING_BYTES = 16 << 20,
    PAUSE_US = 500,
    LOOK_MS = 100,
};

static uint64_t now_ms(const struct log_kafka *k)
{
    return clock_mono_ms(k->options.clock);
}

/* --- records to messages --- */

/* What is no record of ours keeps its place and says nothing: the same at every node. */
static enum status decode(struct kafka_lane *l, const rd_kafka_message_t *m, struct msg **out)
{
    /* The settings of other nodes may allow more than ours. */
    static const struct topic_limits limits = {.bytes_max = MSG_TOPIC_BYTES_MAX,
                                               .levels_max = MSG_TOPIC_BYTES_MAX};
    uint64_t offset = (uint64_t)m->offset;
    int64_t time_ms = rd_kafka_message_timestamp(m, NULL);
    uint64_t ts_ms = time_ms > 0 ? (uint64_t)time_ms : 0;
    struct slice bytes = slice_of(m->payload, m->len);
    enum status st = bytes.data ? mirror_record_decode(bytes, l->index, offset, ts_ms, out) : ST_CORRUPT;
    if (st == ST_OK && !((*out)->flags & MSG_NOTE) && !topic_name_valid(msg_topic(*out), &limits)) {
        msg_unref(*out);
        st = ST_CORRUPT;
    }
    if (st != ST_CORRUPT)
        return st;
    metric_add(l->log->feed_metrics, M_KAFKA_FOREIGN, 1);
    return mirror_hole(offset, ts_ms, out);
}

static void post(struct kafka_lane *l)
{
    struct kafka_batch *b = l->filling;
    l->filling = NULL;
    if (!b)
        return;
    atomic_fetch_add_explicit(&l->waiting_bytes, b->bytes, memory_order_relaxed);
    b->mail.on_arrival = kafka_batch_arrived;
    loop_post(l->loop, &b->mail);
}

static void add(struct kafka_lane *l, struct msg *m, uint64_t bytes)
{
    if (!l->filling) {
        l->filling = malloc(sizeof *l->filling);
        if (!l->filling)
            abort(); /* a record that is left out would be a hole in the log */
        l->filling->lane = l;
        l->filling->next = NULL;
        l->filling->count = l->filling->at = 0;
        l->filling->bytes = 0;
    }
    struct kafka_batch *b = l->filling;
    b->msgs[b->count++] = m;
    b->bytes += bytes;
    if (b->count == KAFKA_BATCH_MAX)
        post(l);
}

/* The log is not what it was: the start that follows compares, and makes the mirror anew. */
static void give_up(const struct log_kafka *k, const rd_kafka_message_t *m)
{
    log_error(
        "kafka partition has lost records that this node has, or the topic is gone: the node ends, and the "
        "next start compares its mirror topic=%s partition=%" PRId32 " error=\"%s\"",
        k->topic, m->partition, rd_kafka_message_errstr(m));
    _exit(KAFKA_EXIT_RETRY);
}

static void take(struct log_kafka *k, const rd_kafka_message_t *m)
{
    struct kafka_lane *l = &k->lanes[m->partition];
    struct msg *msg;
    switch ((int)m->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        break;
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        give_up(k, m);
        return;
    default: /* librdkafka tries again by itself */
        metric_add(k->feed_metrics, M_KAFKA_FETCH_ERRORS, 1);
        return;
    }
    if (decode(l, m, &msg) != ST_OK)
        abort(); /* no memory: as above */
    l->fed_next = (uint64_t)m->offset + 1;
    metric_add(k->feed_metrics, M_KAFKA_RECORDS, 1);
    add(l, msg, m->len);
}

/* --- how far behind --- */

/* Where the leader is not heard nobody can say how far behind this is: a node that is cut off and has nothing
 * to publish finds out so. */

static bool lane_is_behind(const struct log_kafka *k, struct kafka_lane *l, uint64_t now)
{
    int64_t low = 0, high = 0;
    uint64_t applied = atomic_load_explicit(&l->applied, memory_order_acquire);
    if (rd_kafka_get_watermark_offsets(k->consumer, k->topic, (int32_t)l->index, &low, &high) !=
            RD_KAFKA_RESP_ERR_NO_ERROR ||
        high <= 0 || applied >= (uint64_t)high)
        l->behind_since_ms = 0;
    else if (l->behind_since_ms == 0)
        l->behind_since_ms = now;
    bool unheard = now > l->heard_ms + k->options.behind_ms + KAFKA_STATISTICS_MS;
    return unheard || (l->behind_since_ms > 0 && now - l->behind_since_ms > k->options.behind_ms);
}

static void look(struct log_kafka *k, uint64_t now)
{
    bool behind = false;
    uint64_t lag = 0;
    for (unsigned i = 0; i < k->lane_count; i++) {
        struct kafka_lane *l = &k->lanes[i];
        behind = lane_is_behind(k, l, now) || behind;
        uint64_t applied = atomic_load_explicit(&l->applied, memory_order_acquire);
        lag += l->fed_next > applied ? l->fed_next - applied : 0;
    }
    metric_set(k->feed_metrics, M_KAFKA_LAG, lag);
    atomic_store_explicit(&k->behind, behind, memory_order_relaxed);
}

/* --- the thread --- */

static bool loops_are_full(const struct log_kafka *k)
{
    for (unsigned i = 0; i < k->lane_count; i++)
        if (atomic_load_explicit(&k->lanes[i].waiting_bytes, memory_order_relaxed) > WAITING_BYTES)
            return true;
    return false;
}

static void turn(struct log_kafka *k)
{
    rd_kafka_message_t *more[KAFKA_BATCH_MAX], *first = rd_kafka_consume_queue(k->in_queue, WAIT_MS);
    if (!first)
        return;
    take(k, first);
    rd_kafka_message_destroy(first);
    ssize_t n = rd_kafka_consume_batch_queue(k->in_queue, 0, more, KAFKA_BATCH_MAX);
    for (ssize_t i = 0; i < n; i++) {
        take(k, more[i]);
        rd_kafka_message_destroy(more[i]);
    }
    for (unsigned i = 0; i < k->lane_count; i++)
        post(&k->lanes[i]);
}

void *kafka_feeder(void *log)
{
    struct log_kafka *k = log;
    uint64_t look_at_ms = 0;
    (void)pthread_setname_np(pthread_self(), "kafka feeder");
    for (unsigned i = 0; i < k->lane_count; i++) {
        k->lanes[i].fed_next = atomic_load_explicit(&k->lanes[i].applied, memory_order_acquire);
        k->lanes[i].heard_ms = now_ms(k);
        (void)rd_kafka_consume_start_queue(k->in_topic, (int32_t)i, (int64_t)k->lanes[i].fed_next,
                                           k->in_queue);
    }
    while (!atomic_load_explicit(&k->feed_stopping, memory_order_relaxed)) {
        if (loops_are_full(k))
            usleep(PAUSE_US);
        else
            turn(k);
        uint64_t now = now_ms(k);
        if (now >= look_at_ms) {
            look(k, now);
            (void)rd_kafka_poll(k->consumer, 0); /* statistics, errors */
            look_at_ms = now + LOOK_MS;
        }
    }
    for (unsigned i = 0; i < k->lane_count; i++)
        (void)rd_kafka_consume_stop(k->in_topic, (int32_t)i);
    pool_drain();
    return NULL;
}
