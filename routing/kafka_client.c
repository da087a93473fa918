/* librdkafka's two clients, a producer and a consumer, as the settings want them. */
#include "core/logging.h"
#include "routing/kafka_private.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    ERROR_BYTES = 512,
    SCRAM_SINCE =
        0x02060100, /* before, librdkafka repeats the server's nonce wrongly and Kafka 4 refuses it */
    BATCH_BYTES = 1 << 20,
    FRAMING_BYTES = 64 << 10, /* around one record, generously */
    QUEUED_MESSAGES = 100000, /* fetched ahead: else catching up is four times slower */
    QUEUED_KBYTES = 64 << 10,
    LOG_REST_MS = 1000,
};

enum status kafka_refuse(struct buf *error, enum status st, const struct log_kafka *k, const char *what)
{
    if (buf_printf(error, "kafka.brokers %s: %s", k->options.brokers, what) != ST_OK)
        buf_clear(error);
    return st;
}

/* --- what librdkafka says --- */

/* Any of its threads. At most a line a second: it repeats itself. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    static _Atomic uint64_t last_ms;
    uint64_t now_ms = clock_mono_ms(clock_system()), last = atomic_load(&last_ms);
    (void)rk;
    if (level > 5 || (last > 0 && now_ms - last < LOG_REST_MS) ||
        !atomic_compare_exchange_strong(&last_ms, &last, now_ms))
        return;
    log_warn("kafka client facility=%s text=\"%s\"", facility, text);
}

/* An idempotent producer that the brokers do not know any more takes nothing ever again: what was in flight
 * may be in the log or not. The next start is another incarnation, whose START makes void what of it still
 * comes. */
static void end_of_producer(const struct log_kafka *k, const char *reason)
{
    log_error("kafka producer cannot go on: the node ends, to be started again topic=%s reason=\"%s\"",
              k->topic, reason);
    _exit(KAFKA_EXIT_RETRY);
}

/* By kafka_client_poll. */
static void on_error(rd_kafka_t *rk, int code, const char *reason, void *ctx)
{
    struct log_kafka *k = ctx;
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN && rk == k->producer)
        k->lost_brokers = true;
    else if (code == RD_KAFKA_RESP_ERR__FATAL)
        end_of_producer(k, reason);
}

/* The number behind the key, from `from` on; 0: it is not there. */
static uint64_t number_of(const char *from, const char *key)
{
    unsigned long long value = 0;
    const char *at = from ? strstr(from, key) : NULL;
    return at && sscanf(at + strlen(key), "%llu", &value) == 1 ? value : 0;
}

static const char *last_of(const char *text, const char *key)
{
    const char *found = NULL;
    for (const char *at = text; (at = strstr(at, key)); at++)
        found = at;
    return found;
}

/* How long that broker has said nothing; UINT64_MAX: always. In JSON `nodeid` is before `rxidle`, and both
 * once a broker. */
static uint64_t silent_us(const char *json, uint64_t broker)
{
    for (const char *at = json; (at = strstr(at, "\"nodeid\":")); at++)
        if (number_of(at, "\"nodeid\":") == broker)
            return number_of(at, "\"rxidle\":");
    return UINT64_MAX;
}

/* When the leader of each partition has been heard last: it answers a fetch twice a second, also when it has
 * nothing. The partitions' own members are read, not those lists of a broker that name them too. A number
 * below 0 is a great one. */
static void hear(struct log_kafka *k, const char *json, uint64_t now_ms)
{
    const char *at = strstr(json, "\"topics\":");
    while (at && (at = strstr(at, "\"partition\":"))) {
        uint64_t lane = number_of(at, "\"partition\":"), us = silent_us(json, number_of(at, "\"leader\":"));
        if (lane < k->lane_count && us / 1000 < now_ms && now_ms - us / 1000 > k->lanes[lane].heard_ms)
            k->lanes[lane].heard_ms = now_ms - us / 1000;
        at++;
    }
}

/* STATISTICS.md of librdkafka: brokers first, the sums over all of them last. */
static int on_statistics(rd_kafka_t *rk, char *json, size_t len, void *ctx)
{
    struct log_kafka *k = ctx;
    bool out = rk == k->producer;
    struct metrics *m = out ? k->metrics : k->feed_metrics;
    uint64_t up = 0, rtt = 0;
    (void)len;
    for (const char *at = json; (at = strstr(at, "\"state\":\"UP\"")); at++)
        up++;
    for (const char *at = json; (at = strstr(at, "\"rtt\":")); at++) {
        uint64_t p99 = number_of(at, "\"p99\":");
        rtt = p99 > rtt ? p99 : rtt;
    }
    const char *sums = last_of(json, "\"tx\":");
    if (out)
        metric_set(m, M_KAFKA_BROKERS, up);
    else
        hear(k, json, clock_mono_ms(k->options.clock));
    metric_set(m, out ? M_KAFKA_RTT_OUT : M_KAFKA_RTT_IN, rtt);
    metric_set(m, M_KAFKA_REQUESTS, number_of(sums, "\"tx\":"));
    metric_set(m, M_KAFKA_SENT_BYTES, number_of(sums, "\"tx_bytes\":"));
    metric_set(m, M_KAFKA_RECEIVED_BYTES, number_of(sums, "\"rx_bytes\":"));
    return 0; /* librdkafka frees it */
}

static void on_report(rd_kafka_t *rk, const rd_kafka_message_t *m, void *ctx)
{
    rd_kafka_msg_status_t status = rd_kafka_message_status(m);
    (void)rk;
    enum status st = ST_OK;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR && status != RD_KAFKA_MSG_STATUS_PERSISTED)
        st = m->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE     ? ST_TOO_LARGE
             : status == RD_KAFKA_MSG_STATUS_POSSIBLY_PERSISTED ? ST_EXPIRED
                                                                : ST_CLOSED;
    kafka_delivered(ctx, m->_private, st);
}

void kafka_client_poll(struct log_kafka *k, int timeout_ms)
{
    (void)rd_kafka_poll(k->producer, timeout_ms);
}

/* --- settings --- */

struct conf {
    struct log_kafka *k;
    rd_kafka_conf_t *conf;
    struct buf *error;
    enum status status; /* of all so far */
};

static void put(struct conf *c, const char *key, const char *value)
{
    char why[ERROR_BYTES], text[ERROR_BYTES + 64];
    if (c->status != ST_OK || rd_kafka_conf_set(c->conf, key, value, why, sizeof why) == RD_KAFKA_CONF_OK)
        return;
    snprintf(text, sizeof text, "librdkafka does not take %s: %.*s", key, ERROR_BYTES - 1, why);
    c->status = kafka_refuse(c->error, ST_INVALID, c->k, text);
}

static void put_text(struct conf *c, const char *key, const char *value)
{
    if (value[0])
        put(c, key, value);
}

static void put_number(struct conf *c, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lu", (unsigned long)value);
    put(c, key, text);
}

static void put_security(struct conf *c)
{
    static const char *const mechanisms[] = {[KAFKA_SASL_PLAIN] = "PLAIN",
                                             [KAFKA_SASL_SCRAM_256] = "SCRAM-SHA-256",
                                             [KAFKA_SASL_SCRAM_512] = "SCRAM-SHA-512"};
    static const char *const protocols[2][2] = {{"plaintext", "ssl"}, {"sasl_plaintext", "sasl_ssl"}};
    const struct log_kafka_options *o = &c->k->options;
    put(c, "security.protocol", protocols[o->sasl != KAFKA_SASL_NONE][o->tls]);
    if (o->tls) {
        put_text(c, "ssl.ca.location", o->ca_file);
        put_text(c, "ssl.certificate.location", o->cert_file);
        put_text(c, "ssl.key.location", o->key_file);
    }
    if (o->sasl != KAFKA_SASL_NONE) {
        put(c, "sasl.mechanisms", mechanisms[o->sasl]);
        put(c, "sasl.username", o->user);
        put(c, "sasl.password", o->password);
    }
}

static void put_common(struct conf *c)
{
    const struct log_kafka_options *o = &c->k->options;
    put(c, "bootstrap.servers", o->brokers);
    put(c, "client.id", o->node_id);
    put_security(c);
    put_number(c, "statistics.interval.ms", KAFKA_STATISTICS_MS);
    put(c, "socket.nagle.disable", "true");
    put(c, "socket.keepalive.enable", "true");
    put(c, "reconnect.backoff.ms", "50");
    put(c, "reconnect.backoff.max.ms", "1000");
    put(c, "log.connection.close", "false");
    put_number(c, "message.max.bytes", o->record_bytes_max + FRAMING_BYTES);
    rd_kafka_conf_set_opaque(c->conf, c->k);
    rd_kafka_conf_set_log_cb(c->conf, on_log);
    rd_kafka_conf_set_error_cb(c->conf, on_error);
    rd_kafka_conf_set_stats_cb(c->conf, on_statistics);
}

static void put_producer(struct conf *c)
{
    const struct log_kafka_options *o = &c->k->options;
    put(c, "enable.idempotence", "true");
    put(c, "acks", "all");
    put_number(c, "linger.ms", o->linger_ms);
    put_number(c, "message.timeout.ms", o->message_timeout_ms);
    put_number(c, "batch.size", BATCH_BYTES);
    /* The limit is ours (queue_bytes); this one must not be met before it. */
    put(c, "queue.buffering.max.messages", "10000000");
    put_number(c, "queue.buffering.max.kbytes", o->queue_bytes / 512 + FRAMING_BYTES);
    rd_kafka_conf_set_dr_msg_cb(c->conf, on_report);
}

static void put_consumer(struct conf *c)
{
    const struct log_kafka_options *o = &c->k->options;
    put(c, "auto.offset.reset", "error");
    put(c, "allow.auto.create.topics", "false");
    put(c, "check.crcs", "true");
    put(c, "fetch.error.backoff.ms", "50");
    put_number(c, "queued.min.messages", QUEUED_MESSAGES);
    put_number(c, "queued.max.messages.kbytes", QUEUED_KBYTES);
    put_number(c, "fetch.message.max.bytes", o->record_bytes_max + FRAMING_BYTES);
    put_number(c, "fetch.max.bytes",
               o->record_bytes_max + FRAMING_BYTES > (50 << 20) ? o->record_bytes_max + FRAMING_BYTES
                                                                : 50 << 20);
    put_number(c, "receive.message.max.bytes", (o->record_bytes_max + FRAMING_BYTES) * 2 + (100 << 20));
}

static enum status open_client(struct log_kafka *k, rd_kafka_type_t type, rd_kafka_t **out, struct buf *error)
{
    char why[ERROR_BYTES];
    struct conf c = {.k = k, .conf = rd_kafka_conf_new(), .error = error};
    put_common(&c);
    if (type == RD_KAFKA_PRODUCER)
        put_producer(&c);
    else
        put_consumer(&c);
    if (c.status == ST_OK) {
        *out = rd_kafka_new(type, c.conf, why, sizeof why);
        if (*out)
            return ST_OK;
        c.status = kafka_refuse(error, ST_INVALID, k, why);
    }
    rd_kafka_conf_destroy(c.conf);
    return c.status;
}

enum status kafka_client_open(struct log_kafka *k, struct buf *error)
{
    const struct log_kafka_options *o = &k->options;
    if (o->sasl >= KAFKA_SASL_SCRAM_256 && rd_kafka_version() < SCRAM_SINCE)
        log_warn(
            "kafka.sasl: Kafka 4 refuses SCRAM of librdkafka before 2.6.1, and this one is %s; use client "
            "certificates (kafka.cert_file) or plain over TLS there",
            rd_kafka_version_str());
    enum status st = open_client(k, RD_KAFKA_PRODUCER, &k->producer, error);
    if (st == ST_OK)
        st = open_client(k, RD_KAFKA_CONSUMER, &k->consumer, error);
    if (st != ST_OK)
        return st;
    k->in_topic = rd_kafka_topic_new(k->consumer, k->topic, NULL);
    k->in_queue = rd_kafka_queue_new(k->consumer);
    return k->in_topic && k->in_queue ? ST_OK : kafka_refuse(error, ST_NO_MEMORY, k, "no memory");
}

void kafka_client_close(struct log_kafka *k)
{
    if (k->out_topic)
        rd_kafka_topic_destroy(k->out_topic);
    if (k->in_queue)
        rd_kafka_queue_destroy(k->in_queue);
    if (k->in_topic)
        rd_kafka_topic_destroy(k->in_topic);
    if (k->producer)
        rd_kafka_destroy(k->producer);
    if (k->consumer)
        rd_kafka_destroy(k->consumer);
    k->out_topic = k->in_topic = NULL;
    k->in_queue = NULL;
    k->producer = k->consumer = NULL;
}
