/* The topic at start: is it there, does it promise what an acknowledgement will promise, and whose log is it?
 *
 * The first record of each partition is its HEAD: a number by chance, and how many partitions the log has.
 * Whoever finds a partition empty writes one; of several the first counts, the others are records that say
 * nothing. So a topic that was deleted and made anew under its name is known, with any version of librdkafka.
 */
#include "core/logging.h"
#include "routing/kafka_head.h"
#include "routing/kafka_private.h"

#include <assert.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { TRY_MS = 1000, REST_MS = 100, TEXT_BYTES = 512 };

struct check {
    struct log_kafka *k;
    struct buf *error;
    uint64_t end_ms; /* monotonic: the brokers must have answered by then */
};

static uint64_t now_ms(const struct check *c)
{
    return clock_mono_ms(c->k->options.clock);
}

/* How long the next call may take; 0: the time is over. */
static int left_ms(const struct check *c)
{
    uint64_t now = now_ms(c);
    if (now >= c->end_ms)
        return 0;
    return c->end_ms - now < TRY_MS ? (int)(c->end_ms - now) + 1 : TRY_MS;
}

/* "topic <name> <what>" */
__attribute__((format(printf, 3, 4))) static enum status refuse(const struct check *c, enum status st,
                                                                const char *format, ...)
{
    char text[TEXT_BYTES + sizeof c->k->topic + 8];
    int len = snprintf(text, sizeof text, "topic %s ", c->k->topic);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + len, sizeof text - (size_t)len, format, args);
    va_end(args);
    return kafka_refuse(c->error, st, c->k, text);
}

static enum status no_answer(const struct check *c, rd_kafka_resp_err_t err)
{
    return refuse(c, ST_IO, "does not answer within kafka.start_ms: %s", rd_kafka_err2str(err));
}

/* --- admin requests --- */

static rd_kafka_event_t *ask_done(rd_kafka_queue_t *queue)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TRY_MS * 15);
    return event;
}

static enum status create_topic(const struct check *c, unsigned brokers)
{
    const struct log_kafka_options *o = &c->k->options;
    unsigned copies = o->replication <= brokers || !o->accept_less ? o->replication : brokers;
    unsigned min_isr = o->min_isr < copies ? o->min_isr : copies;
    char why[TEXT_BYTES], number[24], bytes[24];
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(c->k->topic, (int)o->lane_count, (int)copies, why, sizeof why);
    if (!topic)
        return refuse(c, ST_INVALID, "cannot be named: %s", why);
    snprintf(number, sizeof number, "%u", min_isr);
    snprintf(bytes, sizeof bytes, "%lu", (unsigned long)o->record_bytes_max + (64 << 10));
    const char *const configs[][2] = {{"cleanup.policy", "delete"},
                                      {"retention.ms", "-1"},
                                      {"retention.bytes", "-1"},
                                      {"message.timestamp.type", "LogAppendTime"},
                                      {"unclean.leader.election.enable", "false"},
                                      {"min.insync.replicas", number},
                                      {"max.message.bytes", bytes}};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        rd_kafka_NewTopic_set_config(topic, configs[i][0], configs[i][1]);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->k->consumer);
    rd_kafka_CreateTopics(c->k->consumer, &topic, 1, NULL, queue);
    rd_kafka_event_t *event = ask_done(queue);
    enum status st = event ? ST_OK : ST_IO;
    if (event && rd_kafka_event_error(event)) {
        st = refuse(c, ST_IO, "cannot be made: %s", rd_kafka_event_error_string(event));
    } else if (event) {
        size_t count = 0;
        const rd_kafka_topic_result_t **results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
        rd_kafka_resp_err_t err = count ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            st = refuse(c, ST_INVALID, "cannot be made: %s",
                        rd_kafka_topic_result_error_string(results[0])
                            ? rd_kafka_topic_result_error_string(results[0])
                            : rd_kafka_err2str(err));
        else if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
            log_info("kafka topic made topic=%s partitions=%u replication=%u min_isr=%u", c->k->topic,
                     o->lane_count, copies, min_isr);
    }
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(topic);
    return st == ST_IO && c->error->len == 0 ? no_answer(c, RD_KAFKA_RESP_ERR__TIMED_OUT) : st;
}

/* --- partitions and copies --- */

/* ST_NOT_FOUND: there is no such topic. ST_AGAIN: ask again. */
static enum status judge_metadata(const struct check *c, const struct rd_kafka_metadata_topic *t)
{
    struct log_kafka *k = c->k;
    const struct log_kafka_options *o = &k->options;
    char text[128];
    if (t->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        return ST_NOT_FOUND;
    if (t->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        return refuse(c, ST_INVALID, "cannot be read: %s", rd_kafka_err2str(t->err));
    if (t->err != RD_KAFKA_RESP_ERR_NO_ERROR || t->partition_cnt == 0)
        return ST_AGAIN;
    if (t->partition_cnt != (int)o->lane_count) {
        snprintf(text, sizeof text, "%d partitions and log.partitions says %u; they are fixed for life",
                 t->partition_cnt, o->lane_count);
        return refuse(c, ST_INVALID, "has %s", text);
    }
    unsigned least = UINT32_MAX;
    for (int i = 0; i < t->partition_cnt; i++) {
        if (t->partitions[i].leader < 0)
            return ST_AGAIN;
        unsigned copies = (unsigned)t->partitions[i].replica_cnt;
        least = copies < least ? copies : least;
    }
    k->facts.replication = least;
    if (least < o->replication) {
        snprintf(text, sizeof text, "%u copies of a partition, fewer than kafka.replication (%u)", least,
                 o->replication);
        if (!o->accept_less)
            return refuse(c, ST_INVALID, "has %s; kafka.accept_less takes it", text);
        k->facts.accepted_less = true;
    }
    return ST_OK;
}

static enum status look_at_topic(const struct check *c)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
    bool made = false;
    for (int ms; (ms = left_ms(c)) > 0; usleep(REST_MS * 1000)) {
        const struct rd_kafka_metadata *md;
        err = rd_kafka_metadata(c->k->consumer, 0, c->k->in_topic, &md, ms);
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        unsigned brokers = md->broker_cnt > 0 ? (unsigned)md->broker_cnt : 1;
        enum status st = md->topic_cnt == 1 ? judge_metadata(c, &md->topics[0]) : ST_AGAIN;
        rd_kafka_metadata_destroy(md);
        if (st == ST_NOT_FOUND && !made) {
            st = create_topic(c, brokers);
            made = true;
            if (st == ST_OK)
                continue;
        }
        if (st != ST_AGAIN && st != ST_NOT_FOUND)
            return st;
    }
    return no_answer(c, err);
}

/* --- what it promises --- */

struct promise {
    const char *key;
    const char *wanted; /* NULL: a number, at least `least` */
    uint64_t least;
    const char *why;
};

static enum status judge_config(const struct check *c, const struct promise *p, const char *value)
{
    char text[TEXT_BYTES];
    bool kept = p->wanted ? strcmp(value, p->wanted) == 0 : strtoull(value, NULL, 10) >= p->least;
    if (strcmp(p->key, "min.insync.replicas") == 0)
        c->k->facts.min_isr = (unsigned)strtoul(value, NULL, 10);
    if (kept)
        return ST_OK;
    if (p->wanted)
        snprintf(text, sizeof text, "%s=%s, which must be %s: %s", p->key, value, p->wanted, p->why);
    else
        snprintf(text, sizeof text, "%s=%s, which must be at least %lu: %s", p->key, value,
                 (unsigned long)p->least, p->why);
    /* What would change the log itself is never taken. */
    bool less =
        strcmp(p->key, "min.insync.replicas") == 0 || strcmp(p->key, "unclean.leader.election.enable") == 0;
    if (!less || !c->k->options.accept_less)
        return refuse(c, ST_INVALID, less ? "has %s; kafka.accept_less takes it" : "has %s", text);
    c->k->facts.accepted_less = true;
    log_warn("kafka.accept_less: topic=%s has %s", c->k->topic, text);
    return ST_OK;
}

static enum status judge_configs(const struct check *c, const rd_kafka_ConfigResource_t *resource)
{
    const struct log_kafka_options *o = &c->k->options;
    const struct promise promises[] = {
        {"min.insync.replicas", NULL, o->min_isr, "an acknowledgement means so many copies (kafka.min_isr)"},
        {"unclean.leader.election.enable", "false", 0, "else acknowledged records may be lost"},
        {"message.timestamp.type", "LogAppendTime", 0, "the log's time is the brokers'"},
        {"cleanup.policy", "delete", 0, "compaction would take records out of the log"},
        {"retention.ms", "-1", 0, "the log must keep everything: state is folded from it"},
        {"retention.bytes", "-1", 0, "the log must keep everything: state is folded from it"},
        {"max.message.bytes", NULL, o->record_bytes_max,
         "limit.message_bytes and what a record has around it"},
    };
    size_t count = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);
    for (size_t i = 0; i < sizeof promises / sizeof *promises; i++) {
        const char *value = NULL;
        for (size_t n = 0; n < count && !value; n++)
            if (strcmp(rd_kafka_ConfigEntry_name(entries[n]), promises[i].key) == 0)
                value = rd_kafka_ConfigEntry_value(entries[n]);
        enum status st =
            value ? judge_config(c, &promises[i], value)
                  : refuse(c, ST_INVALID, "has a setting that the brokers do not tell: %s", promises[i].key);
        if (st != ST_OK)
            return st;
    }
    return ST_OK;
}

/* ST_AGAIN: the broker that was asked does not know yet of a topic that has just been made. */
static enum status ask_for_configs(const struct check *c)
{
    rd_kafka_ConfigResource_t *topic = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, c->k->topic);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->k->consumer);
    rd_kafka_DescribeConfigs(c->k->consumer, &topic, 1, NULL, queue);
    rd_kafka_event_t *event = ask_done(queue);
    enum status st;
    if (!event || rd_kafka_event_error(event)) {
        st = refuse(c, ST_IO, "has settings that cannot be read: %s",
                    event ? rd_kafka_event_error_string(event) : "no answer");
    } else {
        size_t count = 0;
        const rd_kafka_ConfigResource_t **found =
            rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &count);
        rd_kafka_resp_err_t err = count ? rd_kafka_ConfigResource_error(found[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
        st = err == RD_KAFKA_RESP_ERR_NO_ERROR ? judge_configs(c, found[0])
             : err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                 ? ST_AGAIN
                 : refuse(c, ST_INVALID, "has settings that cannot be read: %s", rd_kafka_err2str(err));
    }
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_ConfigResource_destroy(topic);
    return st;
}

static enum status look_at_configs(const struct check *c)
{
    for (; left_ms(c) > 0; usleep(REST_MS * 1000)) {
        enum status st = ask_for_configs(c);
        if (st != ST_AGAIN)
            return st;
    }
    return no_answer(c, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
}

/* --- HEAD --- */

static enum status ends_of(const struct check *c, unsigned lane, int64_t *low, int64_t *high)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
    for (int ms; (ms = left_ms(c)) > 0; usleep(REST_MS * 1000)) {
        err = rd_kafka_query_watermark_offsets(c->k->consumer, c->k->topic, (int32_t)lane, low, high, ms);
        if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
            return ST_OK;
    }
    return no_answer(c, err);
}

static enum status write_head(const struct check *c, unsigned lane)
{
    struct kafka_proposal *p = calloc(1, sizeof *p + KAFKA_HEAD_RECORD_BYTES_MAX);
    uint64_t id;
    if (!p || getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) {
        free(p);
        return refuse(c, ST_NO_MEMORY, "needs more memory than there is");
    }
    enum status st = kafka_head_encode(id, c->k->lane_count, p->bytes, &p->len);
    if (st == ST_OK)
        (void)rd_kafka_produce(c->k->out_topic, (int32_t)lane, RD_KAFKA_MSG_F_COPY, p->bytes, p->len, NULL, 0,
                               NULL);
    free(p);
    while (rd_kafka_outq_len(c->k->producer) > 0 && left_ms(c) > 0)
        (void)rd_kafka_poll(c->k->producer, REST_MS);
    return st;
}

/* Where the partition ends now, and that it begins with something. */
static enum status begin_lane(const struct check *c, unsigned lane)
{
    int64_t low = 0, high = 0;
    enum status st = ends_of(c, lane, &low, &high);
    if (st == ST_OK && high == 0)
        st = write_head(c, lane);
    if (st == ST_OK && high == 0)
        st = ends_of(c, lane, &low, &high);
    if (st == ST_OK && high == 0)
        return refuse(c, ST_IO, "does not take its first record");
    if (st == ST_OK && low > 0)
        return refuse(c, ST_INVALID,
                      "has lost its beginning (its retention was not -1, or records were deleted)");
    c->k->lanes[lane].start_end = (uint64_t)high;
    return st;
}

static enum status read_head(const struct check *c, const rd_kafka_message_t *m)
{
    struct log_kafka *k = c->k;
    unsigned lanes = 0;
    uint64_t id = 0;
    if (m->offset != 0 || kafka_head_decode(slice_of(m->payload, m->len), &id, &lanes) != ST_OK ||
        lanes != k->lane_count)
        return refuse(
            c, ST_INVALID,
            "is not a log of ours, or of another number of partitions: choose another kafka.prefix");
    k->heads[m->partition] = id;
    return ST_OK;
}

static enum status read_heads(const struct check *c)
{
    struct log_kafka *k = c->k;
    unsigned missing = k->lane_count;
    enum status st = ST_OK;
    for (unsigned lane = 0; lane < k->lane_count; lane++)
        (void)rd_kafka_consume_start_queue(k->in_topic, (int32_t)lane, 0, k->in_queue);
    bool have[STORE_LANES_MAX] = {false};
    while (missing > 0 && st == ST_OK) {
        int ms = left_ms(c);
        rd_kafka_message_t *m = ms > 0 ? rd_kafka_consume_queue(k->in_queue, ms) : NULL;
        if (ms == 0)
            st = no_answer(c, RD_KAFKA_RESP_ERR__TIMED_OUT);
        if (!m)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR && !have[m->partition]) {
            have[m->partition] = true;
            missing--;
            st = read_head(c, m);
        }
        rd_kafka_message_destroy(m);
    }
    for (unsigned lane = 0; lane < k->lane_count; lane++)
        (void)rd_kafka_consume_stop(k->in_topic, (int32_t)lane);
    /* What was fetched ahead is of no use any more. */
    for (rd_kafka_message_t *m; (m = rd_kafka_consume_queue(k->in_queue, 0));)
        rd_kafka_message_destroy(m);
    return st;
}

enum status kafka_topic_check(struct log_kafka *k, struct buf *error)
{
    struct check c = {
        .k = k, .error = error, .end_ms = clock_mono_ms(k->options.clock) + k->options.start_ms};
    enum status st = look_at_topic(&c);
    if (st == ST_OK)
        st = look_at_configs(&c);
    if (st != ST_OK)
        return st;
    char *cluster = rd_kafka_clusterid(k->consumer, TRY_MS);
    snprintf(k->cluster, sizeof k->cluster, "%.255s", cluster ? cluster : "unknown");
    if (cluster)
        rd_kafka_mem_free(k->consumer, cluster);
    k->out_topic = rd_kafka_topic_new(k->producer, k->topic, NULL);
    if (!k->out_topic)
        return refuse(&c, ST_NO_MEMORY, "needs more memory than there is");
    for (unsigned lane = 0; lane < k->lane_count && st == ST_OK; lane++)
        st = begin_lane(&c, lane);
    return st == ST_OK ? read_heads(&c) : st;
}
