#include "gateway/backend.h"

#include "core/logging.h"
#include "routing/incarnations.h"
#include "routing/topic_log_kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PASSWORD_BYTES_MAX = 1024,
    STALL_MS = 3000,
    BEHIND_MS = 5000, /* ARCHITECTURE.md 5 */
    RECORD_OVERHEAD_BYTES =
        256 << 10, /* header, topic, key, properties: each of the last three up to 64 KiB */
};

/* --- settings ------------------------------------------------------------------------------------- */

static bool topics_expire(const struct settings *s)
{
    for (size_t i = 0; i < s->topics.count; i++)
        if (((const struct topic_settings *)s->topics.rows + i)->retention_ms > 0)
            return true;
    return false;
}

static bool topics_unstored(const struct settings *s)
{
    for (size_t i = 0; i < s->topics.count; i++)
        if (!((const struct topic_settings *)s->topics.rows + i)->store)
            return true;
    return false;
}

/* What is not built for a log that nodes share is refused, so that nobody relies on it. */
static const char *kafka_flaw(const struct settings *s)
{
    if (s->kafka_brokers[0] == '\0')
        return "kafka.brokers: log.backend kafka needs the addresses of brokers, as host:9092,host:9092";
    if (s->kafka_prefix[0] == '\0' ||
        strspn(s->kafka_prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789._-") != strlen(s->kafka_prefix) ||
        strlen(s->kafka_prefix) > 200)
        return "kafka.prefix: must be 1 to 200 letters, digits, '.', '_' or '-', as names of topics are";
    if (s->log_retention_bytes > 0 || s->log_retention_ms > 0 || topics_expire(s))
        return "log.retention_bytes, log.retention_ms, topics.retention_ms: not with log.backend kafka, "
               "which keeps "
               "everything so far: set them to 0";
    if (topics_unstored(s))
        return "topics.store: false is not there with log.backend kafka: every message goes through the log";
    if (s->bridges.count > 0)
        return "bridges: not with log.backend kafka, where each node would carry the same messages";
    if (strlen(s->node_id) > NODE_NAME_BYTES_MAX)
        return "node.id: must be shorter with log.backend kafka, where it stands in the log";
    if (s->kafka_min_isr > s->kafka_replication)
        return "kafka.min_isr: must not be above kafka.replication";
    if ((s->kafka_cert_file[0] == '\0') != (s->kafka_key_file[0] == '\0'))
        return "kafka.cert_file and kafka.key_file: set both, or neither";
    if (!s->kafka_tls && (s->kafka_ca_file[0] || s->kafka_cert_file[0]))
        return "kafka.ca_file, cert_file, key_file: need kafka.tls";
    if ((s->kafka_sasl == KAFKA_SASL_NONE) != (s->kafka_user[0] == '\0') ||
        (s->kafka_sasl == KAFKA_SASL_NONE) != (s->kafka_password_file[0] == '\0'))
        return "kafka.sasl, kafka.user and kafka.password_file: set all, or none";
    return NULL;
}

const char *backend_flaw(const struct settings *s)
{
    return s->log_backend == BACKEND_KAFKA ? kafka_flaw(s) : NULL;
}

void backend_settle(struct settings *s)
{
    if (s->log_backend == BACKEND_KAFKA)
        s->limit_shared_groups = 0;
}

/* --- opening ---------------------------------------------------------------------------------------- */

static struct store_options store_options_of(const struct settings *s)
{
    return (struct store_options){
        .dir = s->data_dir,
        .lane_count = (unsigned)s->log_partitions,
        .segment_bytes = s->log_segment_bytes,
        .retention_bytes = s->log_retention_bytes,
        .retention_ms = s->log_retention_ms,
        .unsynced_bytes_max = s->log_unsynced_bytes_max,
        .unindexed_bytes_max = s->log_unindexed_bytes_max,
        .lazy_ms = s->log_lazy_ms,
        .lazy_bytes = s->log_lazy_bytes,
        .recent_bytes = s->log_recent_bytes,
        .sync = (enum store_sync)s->log_sync,
        .sync_interval_ms = s->log_sync_interval_ms,
        .scrub_bytes_per_s = s->log_scrub_bytes_per_s,
        .names_bytes = s->log_names_bytes,
        .ballast_bytes = s->log_ballast_bytes,
        .disk_warn_percent = (unsigned)s->log_disk_warn_percent,
        .disk_refuse_percent = (unsigned)s->log_disk_refuse_percent,
        .clock = clock_system(),
    };
}

static enum status read_password(const char *path, char **out, struct buf *error)
{
    char text[PASSWORD_BYTES_MAX + 1];
    *out = NULL;
    if (path[0] == '\0')
        return ST_OK;
    FILE *f = fopen(path, "re");
    size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
    bool whole = f && !ferror(f) && feof(f);
    if (f)
        (void)fclose(f);
    text[len] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (whole && text[0] && (*out = strdup(text)))
        return ST_OK;
    if (buf_printf(error, "kafka.password_file: %s: must be a readable file of one line, at most %d bytes",
                   path, PASSWORD_BYTES_MAX) != ST_OK)
        buf_clear(error);
    return ST_INVALID;
}

static enum status connect_kafka(const struct settings *s, struct backend *b, struct buf *error)
{
    enum status st = read_password(s->kafka_password_file, &b->password, error);
    const struct log_kafka_options o = {
        .node_id = s->node_id,
        .brokers = s->kafka_brokers,
        .prefix = s->kafka_prefix,
        .tls = s->kafka_tls,
        .ca_file = s->kafka_ca_file,
        .cert_file = s->kafka_cert_file,
        .key_file = s->kafka_key_file,
        .sasl = (enum kafka_sasl)s->kafka_sasl,
        .user = s->kafka_user,
        .password = b->password ? b->password : "",
        .lane_count = (unsigned)s->log_partitions,
        .replication = (unsigned)s->kafka_replication,
        .min_isr = (unsigned)s->kafka_min_isr,
        .accept_less = s->kafka_accept_less,
        .record_bytes_max = s->limit_message_bytes + RECORD_OVERHEAD_BYTES,
        .linger_ms = s->kafka_linger_ms,
        .message_timeout_ms = s->kafka_message_timeout_ms,
        .stall_ms = STALL_MS < s->kafka_message_timeout_ms ? STALL_MS : s->kafka_message_timeout_ms,
        .queue_bytes = s->kafka_queue_bytes,
        .start_ms = s->kafka_start_ms,
        .behind_ms = BEHIND_MS,
        .clock = clock_system(),
    };
    return st == ST_OK ? log_kafka_open(&o, &b->kafka, error) : st;
}

/* The mirror, as it was left, or emptied (`spoilt`: because it is not what Kafka has). */
static enum status open_mirror(const struct settings *s, struct backend *b, bool spoilt, struct buf *error)
{
    struct store_options o = store_options_of(s);
    struct mirror_source source;
    bool kept;
    log_kafka_source(b->kafka, &source);
    o.sync = STORE_SYNC_NEVER; /* it is no copy that anything relies on */
    o.voids_max = s->log_voids;
    enum status st = mirror_prepare(s->data_dir, &source, spoilt, &o.mirror_epoch, &kept, error);
    if (st != ST_OK)
        return st;
    log_info("mirror of kafka topic=%s cluster=%s epoch=%08x %s", source.name, source.place, o.mirror_epoch,
             kept ? "goes on" : "is filled anew");
    return store_open(&o, &b->store, error);
}

static enum status open_kafka(const struct settings *s, struct backend *b, struct buf *error)
{
    enum status st = connect_kafka(s, b, error);
    if (st == ST_OK)
        st = open_mirror(s, b, false, error);
    if (st == ST_OK)
        st = log_kafka_compare(b->kafka, b->store, s->data_dir, error);
    if (st == ST_CONFLICT) {
        backend_close_store(b);
        st = open_mirror(s, b, true, error);
    }
    if (st != ST_OK)
        return st;
    b->log = log_kafka_port(b->kafka, b->store);
    b->incarnation = log_kafka_incarnation(b->kafka);
    return ST_OK;
}

static enum status open_embedded(const struct settings *s, struct backend *b, struct buf *error)
{
    const struct store_options o = store_options_of(s);
    enum status st = store_open(&o, &b->store, error);
    if (st != ST_OK)
        return st;
    b->log = topic_log_local(b->store);
    b->incarnation = store_incarnation(b->store);
    return ST_OK;
}

enum status backend_open(const struct settings *s, struct backend *out, struct buf *error)
{
    *out = (struct backend){0};
    enum status st =
        s->log_backend == BACKEND_KAFKA ? open_kafka(s, out, error) : open_embedded(s, out, error);
    if (st != ST_OK) {
        backend_close_store(out);
        backend_close(out);
    }
    return st;
}

/* --- running ---------------------------------------------------------------------------------------- */

enum status backend_start(struct backend *b, struct buf *error)
{
    if (!b->kafka || log_kafka_start(b->kafka) == ST_OK)
        return ST_OK;
    if (buf_printf(error, "cannot start the threads of the log on Kafka") != ST_OK)
        buf_clear(error);
    return ST_IO;
}

void backend_stop(struct backend *b)
{
    log_kafka_stop(b->kafka);
}

void backend_close_store(struct backend *b)
{
    store_close(b->store);
    b->store = NULL;
}

void backend_close(struct backend *b)
{
    log_kafka_close(b->kafka);
    b->kafka = NULL;
    free(b->password);
    b->password = NULL;
}
