/* Counters, gauges and histograms, a set for each loop, summed when scraped.
 *
 * Every metric is a row of one table (metrics_table in metrics.c: name, type, label, help) and an
 * index here; a loop's set is a plain array that only its own thread writes (relaxed atomics make
 * the scrape from another thread well defined and cost nothing). No labels of users or topics. */
#ifndef TG_CORE_METRICS_H
#define TG_CORE_METRICS_H

#include "core/buf.h"

#include <stdatomic.h>

enum { DISCONNECT_REASONS = 8 };

enum metric {
    /* publishing: received = stored + unstored + duplicate + refused + unknown + open */
    M_RECEIVED_MQTT, /* and at + 1, + 2 those of QoS 1 and 2 */
    M_RECEIVED_MQTT_QOS1,
    M_RECEIVED_MQTT_QOS2,
    M_RECEIVED_WS,
    M_RECEIVED_HTTP,
    M_STORED,
    M_DUPLICATES,
    M_UNSTORED,
    M_REFUSED_INVALID,
    M_REFUSED_LIMIT,
    M_REFUSED_UNSUPPORTED,
    M_REFUSED_FORBIDDEN,
    M_REFUSED_UNAVAILABLE,
    M_REFUSED_QUOTA,
    M_REFUSED_CONFLICT,
    M_REFUSED_RATE,
    M_PUBLISH_UNKNOWN, /* gauge */
    M_PUBLISH_OPEN, /* gauge */
    /* delivering: offered = delivered + dropped + returned + in flight (unacknowledged) */
    M_OFFERED,
    M_SENT_MQTT, /* + QoS */
    M_SENT_MQTT_QOS1,
    M_SENT_MQTT_QOS2,
    M_SENT_WS,
    M_SENT_SSE,
    M_SENT_POLL,
    M_DELIVERED_MQTT,
    M_DELIVERED_WS,
    M_DELIVERED_SSE,
    M_DELIVERED_POLL,
    M_RETURNED,
    M_UNACKED_MQTT, /* gauges */
    M_UNACKED_WS,
    M_DROPPED_QUEUE_FULL,
    M_DROPPED_EXPIRED,
    M_DROPPED_TOO_LARGE,
    M_DROPPED_RETENTION,
    M_DROPPED_UNSTORED,
    M_DROPPED_LAG,
    M_DROPPED_DAMAGED,
    M_DROPPED_EPOCH,
    M_DROPPED_SESSION,
    /* connections */
    M_CONNECTIONS_MQTT,
    M_CONNECTIONS_WS,
    M_CONNECTIONS_SSE,
    M_CONNECTIONS_POLL,
    M_CONNECTIONS_HTTP, /* gauges */
    M_CONNECTS_OK_MQTT,
    M_CONNECTS_OK_WS,
    M_CONNECTS_OK_SSE,
    M_CONNECTS_REFUSED_MQTT,
    M_CONNECTS_REFUSED_WS,
    M_CONNECTS_REFUSED_LIMIT,
    M_CONNECTS_REFUSED_DRAIN,
    M_CONNECTS_BEING_REFUSED, /* gauge */
    M_CONNECTS_UNANSWERED,
    M_AUTH_MALFORMED, /* credentials that were refused, by reason */
    M_AUTH_ALGORITHM,
    M_AUTH_UNKNOWN_KEY,
    M_AUTH_SIGNATURE,
    M_AUTH_EXPIRED,
    M_AUTH_NOT_YET,
    M_AUTH_ISSUER,
    M_AUTH_AUDIENCE,
    M_AUTH_CLAIMS,
    M_AUTH_OTHER_USER,
    M_AUTH_PASSWORD,
    M_AUTH_ANONYMOUS,
    M_AUTH_REVOKED,
    M_AUTH_TICKET,
    M_AUTH_BUSY,
    /* A block of DISCONNECT_REASONS a door, the reasons in one order (metric_disconnect). MQTT's has names.
     */
    M_DISCONNECT_CLIENT,
    M_DISCONNECT_PROTOCOL,
    M_DISCONNECT_TIMEOUT,
    M_DISCONNECT_LIMIT,
    M_DISCONNECT_SERVER,
    M_DISCONNECT_NETWORK,
    M_DISCONNECT_EXPIRED,
    M_DISCONNECT_REVOKED,
    M_DISCONNECT_WS,
    M_DISCONNECT_SSE = M_DISCONNECT_WS + DISCONNECT_REASONS,
    M_DISCONNECT_POLL = M_DISCONNECT_SSE + DISCONNECT_REASONS,
    M_DISCONNECT_HTTP = M_DISCONNECT_POLL + DISCONNECT_REASONS,
    M_USER_CONNECTIONS = M_DISCONNECT_HTTP + DISCONNECT_REASONS, /* gauge */
    M_USER_CONNECTIONS_REFUSED,
    M_ADDRESS_CONNECTIONS_REFUSED,
    M_RATE_CONNECT_ADDRESS, /* what was refused, dropped or made to wait for its rate */
    M_RATE_CONNECT_USER,
    M_RATE_CONNECT_NODE,
    M_RATE_PUBLISH_ADDRESS,
    M_RATE_PUBLISH_USER,
    M_RATE_PUBLISH_NODE,
    M_RATE_ENTRIES_SHARED,
    M_TLS_HANDSHAKES, /* gauge */
    M_TLS_HANDSHAKES_FULL,
    M_TLS_HANDSHAKES_RESUMED,
    M_TLS_FAILED_NOT_TLS,
    M_TLS_FAILED_VERSION,
    M_TLS_FAILED_CLIENT_CERT,
    M_TLS_FAILED_SERVER_CERT,
    M_TLS_FAILED_ALPN,
    M_TLS_FAILED_TIMEOUT,
    M_TLS_FAILED_NETWORK,
    M_TLS_FAILED_STOPPED,
    M_TLS_FAILED_OTHER,
    M_SUBSCRIPTIONS, /* gauge */
    M_RETAINED, /* gauge */
    M_RETAINED_BYTES, /* gauge */
    M_ONCE_PRODUCERS, /* gauge */
    M_ONCE_KEYS, /* gauge */
    M_ONCE_BYTES, /* gauge */
    M_ONCE_FORGOTTEN,
    M_INBOXES, /* gauge */
    M_INBOX_BYTES, /* gauge */
    M_SHARE_GROUPS, /* gauge: of shared subscriptions, each in each of its partitions; likewise the next two
                     */
    M_SHARE_MEMBERS, /* gauge */
    M_SHARE_BEHIND, /* gauge: those whose members have no room, or are away */
    M_SHARE_GIVEN, /* gauge: messages that lie with members */
    M_SHARE_MOVED, /* messages given once more, as a member could not take them, or has gone */
    M_SHARE_REFUSED, /* members */
    M_SHARE_KEPT, /* gauge: members whose session outlives its connections, each in each partition */
    M_SHARE_RECORDS, /* gauge */
    M_SHARE_RECORD_BYTES, /* gauge */
    M_SHARE_WRITES,
    M_SHARE_WRITES_REFUSED,
    M_INBOX_WRITES,
    M_INBOX_WRITES_REFUSED,
    M_SESSIONS, /* gauge */
    M_SESSION_BYTES, /* gauge */
    M_SESSION_WRITES,
    M_SESSION_WRITES_REFUSED,
    M_SESSION_WRITES_OPEN, /* gauge */
    M_SESSIONS_ATTACHED, /* gauge */
    M_SESSIONS_RESUMED,
    M_SESSIONS_UNKNOWN,
    M_PAYLOAD_IN,
    M_PAYLOAD_OUT,
    M_PACKETS_IN,
    M_PACKETS_OUT,
    M_BYTES_IN_MQTT,
    M_BYTES_IN_WS,
    M_BYTES_IN_HTTP,
    M_BYTES_OUT_MQTT,
    M_BYTES_OUT_WS,
    M_BYTES_OUT_SSE,
    M_BYTES_OUT_POLL,
    M_HTTP_2XX,
    M_HTTP_4XX,
    M_HTTP_5XX,
    M_HTTP_HEADS_LARGE,
    M_HTTP_HEADS_BAD,
    M_BECAME_CURSOR,
    M_CATCHUP_WAITING, /* gauge: those behind that wait for their turn to read */
    M_CURSORS, /* times a subscription fell behind; gauge of those behind now */
    M_OUT_QUEUE_BYTES, /* gauge: bytes that wait for sockets */
    /* log */
    M_LOG_RECORDS,
    M_LOG_BYTES,
    M_LOG_FRAMES,
    M_LOG_SYNCS,
    M_LOG_READS,
    M_LOG_READ_RECORDS,
    M_LOG_UNSYNCED_BYTES,
    M_LOG_UNINDEXED_BYTES,
    M_LOG_TORN_BYTES,
    M_LOG_REFUSED_FULL,
    M_LOG_DISK_FULL, /* gauge */
    M_LOG_DISK_LEVEL, /* gauge */
    M_LOG_DISK_FREE_BYTES, /* gauge */
    M_LOG_BALLAST_GIVEN,
    M_LOG_SIZE_BYTES, /* gauge */
    M_LOG_TRIMMED_BYTES,
    M_LOG_TRIMMED_SEGMENTS,
    M_LOG_CARRIED,
    M_LOG_NAMES_BYTES, /* gauge */
    M_LOG_VOIDS, /* gauge */
    M_LOG_VOIDS_SHOWN,
    M_LOG_FILTER_MERGED, /* records that reads by a filter have passed, by how */
    M_LOG_FILTER_SCANNED,
    M_LOG_SCRUB_BYTES,
    M_LOG_SCRUB_DAMAGED, /* gauge */
    M_LOG_SCRUB_CYCLE_SECONDS, /* gauge */
    M_SNAPSHOTS,
    M_LOG_SEGMENTS_REUSED, /* segments begun, by where their file came from */
    M_LOG_SEGMENTS_AHEAD,
    M_LOG_SEGMENTS_LATE,
    M_LOG_NOTES,
    M_LETTERS, /* gauge */
    M_LOOP_TURNS,
    M_WAKES,
    /* bridges */
    M_BRIDGES, /* gauge */
    M_BRIDGES_CONNECTED, /* gauge */
    M_BRIDGE_IN,
    M_BRIDGE_OUT,
    M_BRIDGE_DROPPED_LOOP,
    M_BRIDGE_DROPPED_NO_ROUTE,
    M_BRIDGE_DROPPED_REFUSED,
    M_BRIDGE_DROPPED_TOO_LARGE,
    M_BRIDGE_RECONNECTS,
    M_BRIDGE_FAILURES_UNREACHABLE,
    M_BRIDGE_FAILURES_TLS,
    M_BRIDGE_FAILURES_CREDENTIALS,
    M_BRIDGE_FAILURES_REFUSED,
    M_BRIDGE_FAILURES_LOST,
    M_BRIDGE_FAILURES_OWN,
    /* the directory in Redis */
    M_REDIS_UP, /* gauge */
    M_REDIS_CONNECTS_OK,
    M_REDIS_CONNECTS_FAILED,
    M_REDIS_COMMANDS,
    M_REDIS_ERRORS,
    M_DIRECTORY_ENTRIES, /* gauge */
    M_DIRECTORY_PENDING, /* gauge */
    M_DIRECTORY_LAG_SECONDS, /* gauge */
    M_DIRECTORY_AGAIN_CONNECTION, /* everything registered again, by why */
    M_DIRECTORY_AGAIN_LOST,
    M_DIRECTORY_AGAIN_OVERFLOW,
    M_DIRECTORY_LOOKUPS_FRESH,
    M_DIRECTORY_LOOKUPS_STALE,
    M_DIRECTORY_SWEPT,
    M_DIRECTORY_CACHE_BYTES, /* gauge */
    M_NODES_DOWN_PROPOSED,
    /* the log on Kafka */
    M_KAFKA_UP, /* gauge */
    M_KAFKA_BROKERS, /* gauge */
    M_KAFKA_UNDER_WAY, /* gauge */
    M_KAFKA_ACKNOWLEDGED, /* records, by what became of them */
    M_KAFKA_UNKNOWN,
    M_KAFKA_FAILED,
    M_KAFKA_RECORDS,
    M_KAFKA_FOREIGN,
    M_KAFKA_FETCH_ERRORS,
    M_KAFKA_LAG, /* gauge */
    M_KAFKA_RTT_OUT, /* gauges */
    M_KAFKA_RTT_IN,
    M_KAFKA_REQUESTS,
    M_KAFKA_SENT_BYTES,
    M_KAFKA_RECEIVED_BYTES,
    METRIC_COUNT
};

enum histogram {
    H_DURABLE_SECONDS, /* accepted -> durable */
    H_DELIVERY_SECONDS, /* accepted -> handed to the socket */
    H_CATCHUP_SECONDS,
    H_SYNC_SECONDS, /* one fdatasync */
    H_BATCH_RECORDS, /* records made durable by one sync */
    H_REDIS_SECONDS, /* command -> reply */
    HISTOGRAM_COUNT
};

enum { HISTOGRAM_BUCKETS = 24 };

struct metrics {
    _Atomic uint64_t values[METRIC_COUNT];
    struct {
        _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
        _Atomic uint64_t count, sum; /* sum in the histogram's own small unit */
    } histograms[HISTOGRAM_COUNT];
    struct metrics *next; /* registry */
};

/* The label of tidegate_build_info. Before threads start; the text is not copied. */
void metrics_set_version(const char *version);

/* When the first of the node's TLS certificates ends, Unix seconds; 0 = there is none, and no metric of it.
 * Any thread. */
void metrics_set_certificate_end(int64_t unix_s);

/* Creates a set and registers it for scraping. Any thread; lives until exit. */
struct metrics *metrics_register(void);

/* Owning thread only. */
static inline void metric_add(struct metrics *m, enum metric id, uint64_t n)
{
    atomic_store_explicit(&m->values[id], atomic_load_explicit(&m->values[id], memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void metric_sub(struct metrics *m, enum metric id, uint64_t n)
{
    metric_add(m, id, (uint64_t)0 - n);
}
/* A gauge that has one owner a set. */
static inline void metric_set(struct metrics *m, enum metric id, uint64_t value)
{
    atomic_store_explicit(&m->values[id], value, memory_order_relaxed);
}
/* The same reason (M_DISCONNECT_CLIENT ...) of another door (M_DISCONNECT_WS ...). */
static inline enum metric metric_disconnect(enum metric reason, enum metric door)
{
    return (enum metric)((unsigned)door + (unsigned)reason - (unsigned)M_DISCONNECT_CLIENT);
}
/* Nanoseconds for the *_SECONDS histograms, plain numbers for others. */
void histogram_record(struct metrics *m, enum histogram id, uint64_t value);

/* Sum over all sets. Any thread. A gauge may be seen between two loops' writes: below 0, as int64_t. */
uint64_t metrics_sum(enum metric id);
/* Prometheus text format 0.0.4 (HELP, TYPE, samples). Any thread. ST_FULL when `out` is too small. */
enum status metrics_render(struct buf *out) MUST_CHECK;

#endif
