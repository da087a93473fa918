/* The program's settings: the struct that the option table in settings.c fills. Read once, immutable
 * while the node runs. docs/CONFIG.md is generated from the table. */
#ifndef TG_GATEWAY_SETTINGS_H
#define TG_GATEWAY_SETTINGS_H

#include "core/config.h"

struct topic_settings {
    char *filter;
    bool store;
    unsigned deliver; /* 0 at once, 1 when durable */
    uint64_t ttl_ms, retention_ms; /* 0 = none */
};

/* A rule of `acl`. */
struct acl_settings {
    char *principal; /* a user, "*", "$anonymous", "$users" */
    unsigned effect; /* 0 allow, 1 deny */
    unsigned op; /* enum acl_setting_op */
    char *topic; /* with %u and %c */
};
enum acl_setting_op {
    ACL_SETTING_ALL,
    ACL_SETTING_PUBLISH,
    ACL_SETTING_SUBSCRIBE,
    ACL_SETTING_HISTORY,
    ACL_SETTING_PRESENCE,
    ACL_SETTING_READ,
};

/* A remote broker (gateway/bridge/). */
struct bridge_settings {
    char *name, *host, *client_id, *user, *password_file, *ca_file, *cert_file, *key_file;
    uint64_t port, keep_alive_s, inflight, retry_min_ms, retry_max_ms;
    unsigned version; /* BRIDGE_V5, BRIDGE_V311 */
    bool clean;
};
enum { BRIDGE_V5, BRIDGE_V311 };
/* What it carries. */
struct bridge_topic_settings {
    char *bridge, *filter, *local_prefix, *remote_prefix;
    uint64_t qos;
    unsigned direction;
};
enum { BRIDGE_OUT, BRIDGE_IN, BRIDGE_BOTH };

enum tls_client_identity { TLS_IDENTITY_NONE, TLS_IDENTITY_CN, TLS_IDENTITY_SAN };
enum tls_client_verify { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRE };

struct settings {
    char *node_id;
    uint64_t node_loops; /* 0 = by cores */
    char *data_dir;

    char *mqtt_bind;
    uint64_t mqtt_port, mqtt_tls_port;
    char *http_bind;
    uint64_t http_port, http_tls_port;
    char *http_origins; /* '\n'-joined: further origins that may open WebSockets */
    char *tls_cert_file, *tls_key_file; /* '\n'-joined, in the same order; no certificate: no TLS ports */
    char *tls_client_ca_file;
    unsigned tls_min_version; /* 0 = 1.2, 1 = 1.3 */
    unsigned tls_client_verify; /* enum tls_client_verify */
    unsigned tls_client_identity; /* enum tls_client_identity */
    char *api_bind;
    uint64_t api_port, api_connections;
    char *api_key;
    char *api_hosts; /* '\n'-joined: further Host values that the private port accepts */
    uint64_t test_echo_port;

    unsigned auth_anonymous; /* 0 on loopback, 1 never */
    char *auth_keys; /* '\n'-joined files */
    char *auth_jwks_url;
    uint64_t auth_jwks_refresh_ms;
    char *auth_issuers, *auth_audiences; /* '\n'-joined; "" = any */
    uint64_t auth_leeway_ms;
    char *auth_users; /* "" = data.dir/users */
    char *auth_cookie;
    uint64_t auth_queue;

    unsigned log_backend; /* enum backend_kind */
    uint64_t log_voids;
    char *kafka_brokers, *kafka_prefix, *kafka_ca_file, *kafka_cert_file, *kafka_key_file, *kafka_user,
        *kafka_password_file;
    bool kafka_tls, kafka_accept_less;
    unsigned kafka_sasl; /* enum kafka_sasl */
    uint64_t kafka_replication, kafka_min_isr, kafka_linger_ms, kafka_message_timeout_ms, kafka_queue_bytes,
        kafka_start_ms;
    uint64_t log_partitions;
    uint64_t log_segment_bytes, log_retention_bytes, log_retention_ms, log_snapshots_max;
    uint64_t log_scrub_bytes_per_s;
    uint64_t log_names_bytes;
    uint64_t log_ballast_bytes, log_disk_warn_percent, log_disk_refuse_percent;
    uint64_t log_unsynced_bytes_max, log_unindexed_bytes_max, log_lazy_ms, log_lazy_bytes, log_recent_bytes;
    char *log_sync_text;
    unsigned log_sync; /* enum store_sync, made of it */
    uint64_t log_sync_interval_ms;

    uint64_t limit_connections, limit_user_connections, limit_revocations, limit_tickets, limit_message_bytes,
        limit_topic_bytes, limit_topic_levels, limit_subscriptions, limit_inflight, limit_ws_unacked,
        limit_publish_open, limit_batch_messages, limit_batch_bytes, limit_history_count,
        limit_http_head_bytes, limit_json_depth, limit_retained, limit_retained_bytes, limit_sessions,
        limit_sessions_bytes, limit_session_bytes;
    uint64_t limit_address_connections, limit_connect_rate_address, limit_connect_rate_user,
        limit_connect_rate_node, limit_connect_burst, limit_publish_rate_address, limit_publish_rate_user,
        limit_publish_rate_node, limit_publish_burst; /* 0 = none */
    char *limit_address_exempt; /* '\n'-joined addresses and prefixes */
    uint64_t limit_rate_entries; /* 0 = by limit.connections */
    uint64_t limit_shared_groups, limit_shared_given, limit_shared_bytes;
    uint64_t limit_shared_kept, limit_shared_kept_given;
    uint64_t limit_inboxes, limit_inboxes_bytes;
    uint64_t inbox_keep_ms, inbox_keep_messages; /* 0 = no end */
    uint64_t session_expiry_ms, session_save_ms, session_save_count;
    uint64_t limit_lag_messages, limit_drops; /* 0 = none */
    uint64_t dedup_producers, dedup_max, dedup_bytes, dedup_keep_ms;
    uint64_t out_bytes_max, out_stall_ms, out_catchup_percent;
    uint64_t drain_delay_ms, drain_rate, drain_max_ms;
    uint64_t sys_interval_ms;
    uint64_t mqtt_connect_timeout_ms, mqtt_refused_max, mqtt_keep_alive_max_s, mqtt_topic_aliases,
        mqtt_session_expiry_max_s;
    char *mqtt_response_information; /* a topic with %u and %c; "" = none */
    bool mqtt_check_payload_format;
    uint64_t ws_ping_ms, ws_pong_timeout_ms, ws_hello_timeout_ms;
    uint64_t http_timeout_ms;

    uint64_t test_state_at_ms;
    char *demo_dir; /* static files under /demo/ */
    unsigned log_level, log_form;
    struct config_rows topics; /* of struct topic_settings */
    struct config_rows acl; /* of struct acl_settings */
    char *redis_url, *redis_user, *redis_password_file, *redis_ca_file, *redis_cert_file, *redis_key_file;
    char *redis_sentinels, *redis_master, *redis_sentinel_user,
        *redis_sentinel_password_file; /* first: '\n'-joined */
    char *redis_prefix;
    uint64_t redis_lease_ms, redis_timeout_ms, redis_retry_min_ms, redis_retry_max_ms, redis_entry_ms;
    uint64_t redis_pending, redis_cache_bytes;

    struct config_rows bridges; /* of struct bridge_settings */
    struct config_rows bridge_topics; /* of struct bridge_topic_settings */
};

const struct config_table *settings_table(void);

/* Defaults < file (may be NULL) < environment < assignments. ST_INVALID with one line in `error`. */
enum status settings_load(struct settings *s, const char *file, char *const *environment,
                          const char *const *assignments, size_t assignment_count,
                          struct buf *error) MUST_CHECK;
void settings_free(struct settings *s);

/* A reload (core/config.h): `next`, just loaded, keeps of `current` what cannot change while the node runs.
 * ST_INVALID with a line: what it then is does not fit together; `next` is gone. */
enum status settings_succeed(struct settings *next, const struct settings *current,
                             struct buf *error) MUST_CHECK;
/* Frees the live texts of the one of two such settings that is not in use any more; what is not live can
 * still be read there. */
void settings_leave(struct settings *unused);

#endif
