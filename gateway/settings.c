/* The option table: every key there is, in the order of docs/CONFIG.md. A key that no test ever sets to a
 * second value does not belong here. */
#include "gateway/settings.h"

#include "core/json.h"
#include "core/store/store.h"
#include "core/store/voids.h"
#include "gateway/backend.h"
#include "gateway/bridge_topics.h"
#include "gateway/gate.h"
#include "gateway/host.h"
#include "gateway/shared_directory.h"
#include "routing/topic.h"
#include "session/acl.h"

#include <string.h>

enum { SYNC_INTERVAL_MS_MAX = 10000, SYS_INTERVAL_MS_MIN = 100 };

#define AT(field) offsetof(struct settings, field)

static const struct config_option options[] = {
    {"node.id", CONFIG_TEXT, AT(node_id), "n1", NULL, 0, 0, "Name of this node, told to clients and in logs"},
    {"node.loops", CONFIG_UINT, AT(node_loops), "0", NULL, 0, 64,
     "Event loops (threads that serve connections); 0 = 1 on up to 2 cores, else cores - 1, at most 8"},
    {"data.dir", CONFIG_TEXT, AT(data_dir), "./tidegate-data", NULL, 0, 0,
     "Folder of the log, of `ports` and of `pid`; made if missing"},

    {"mqtt.bind", CONFIG_TEXT, AT(mqtt_bind), "127.0.0.1", NULL, 0, 0,
     "Address of the MQTT port; clients of one that is not loopback must have a credential"},
    {"mqtt.port", CONFIG_UINT, AT(mqtt_port), "1883", NULL, 0, 65535, "MQTT port; 0 = any free port"},
    {"mqtt.tls_port", CONFIG_UINT, AT(mqtt_tls_port), "8883", NULL, 0, 65535,
     "MQTT over TLS, once tls.cert_file is set; 0 = any free port"},
    {"mqtt.connect_timeout_ms", CONFIG_MS, AT(mqtt_connect_timeout_ms), "10s", NULL, 50, 600000,
     "A connection without CONNECT is closed after this, and so is a TLS handshake on the MQTT port"},
    {"mqtt.refused_max", CONFIG_UINT, AT(mqtt_refused_max), "16", NULL, 0, 1024,
     "Connections of one loop above limit.connections, or during a drain, that are told so (CONNACK 0x97, "
     "0x88) before they are closed, and, above that limit, handshakes at the TLS ports; others are closed "
     "without a word"},
    {"mqtt.keep_alive_max_s", CONFIG_UINT, AT(mqtt_keep_alive_max_s), "3600", NULL, 1, 65535,
     "Longest keep alive; 5.0 clients are told (Server Keep Alive), also those that ask for none"},
    {"mqtt.session_expiry_max_s", CONFIG_UINT, AT(mqtt_session_expiry_max_s), "4294967295", NULL, 0,
     UINT32_MAX,
     "Longest time that an MQTT session is kept without a connection; 5.0 clients are told (Session Expiry "
     "Interval), older ones that ask for a session get this; 4294967295 = for ever"},
    {"mqtt.topic_aliases", CONFIG_UINT, AT(mqtt_topic_aliases), "32", NULL, 0, 65535,
     "Topic aliases that a 5.0 client may use (Topic Alias Maximum), and that are used to one that allows "
     "them; 0 = none"},
    {"mqtt.check_payload_format", CONFIG_BOOL, AT(mqtt_check_payload_format), "true", NULL, 0, 0,
     "Is a payload that says it is UTF-8 (Payload Format Indicator 1) looked at, and refused with 0x99 if "
     "not?"},
    {"mqtt.response_information", CONFIG_TEXT, AT(mqtt_response_information), "", NULL, 0, 0,
     "Told to 5.0 clients that ask for Response Information: the topic below which answers to them are to be "
     "published; %u stands for the user, %c for the client identifier; empty = none"},

    {"http.bind", CONFIG_TEXT, AT(http_bind), "127.0.0.1", NULL, 0, 0,
     "Address of the public HTTP port (/ws, /demo/); clients of one that is not loopback must have a "
     "credential"},
    {"http.port", CONFIG_UINT, AT(http_port), "8080", NULL, 0, 65535, "Public HTTP port; 0 = any free port"},
    {"http.tls_port", CONFIG_UINT, AT(http_tls_port), "8443", NULL, 0, 65535,
     "The public HTTP port over TLS, once tls.cert_file is set; 0 = any free port"},
    {"http.origins", CONFIG_LIST, AT(http_origins), "", NULL, 0, 0,
     "Further origins (scheme://host:port) whose pages may open WebSockets and whose requests the API takes; "
     "it sends no CORS headers, so such a page cannot read the API's answers. They may also show the demo "
     "page in a "
     "frame"},

    {"ws.hello_timeout_ms", CONFIG_MS, AT(ws_hello_timeout_ms), "10s", NULL, 50, 600000,
     "A connection to the public port that has not sent a whole request after this is closed, and so is a "
     "TLS handshake there, and a WebSocket from which no hello or other request has come"},
    {"ws.ping_ms", CONFIG_MS, AT(ws_ping_ms), "25s", NULL, 100, 600000,
     "A WebSocket without output for this long gets {} and a ping"},
    {"ws.pong_timeout_ms", CONFIG_MS, AT(ws_pong_timeout_ms), "10s", NULL, 50, 600000,
     "A WebSocket that does not answer a ping is closed with 4003 after this"},

    {"tls.cert_file", CONFIG_LIST, AT(tls_cert_file), "", NULL, 0, 0,
     "PEM files: a certificate and its chain each, one with an ECDSA key, one with an RSA key, or either; "
     "set, "
     "mqtt.tls_port and http.tls_port are served. SIGHUP reads them again"},
    {"tls.key_file", CONFIG_LIST, AT(tls_key_file), "", NULL, 0, 0,
     "PEM files of their keys, in the same order, without passphrase"},
    {"tls.min_version", CONFIG_ENUM, AT(tls_min_version), "1.2", "1.2|1.3", 0, 0,
     "Oldest version of TLS that is spoken"},
    {"tls.client_verify", CONFIG_ENUM, AT(tls_client_verify), "none", "none|optional|require", 0, 0,
     "Clients' certificates: not asked for; asked for, and must be good if there is one; must be there and "
     "good"},
    {"tls.client_ca_file", CONFIG_TEXT, AT(tls_client_ca_file), "", NULL, 0, 0,
     "PEM file of the authorities that sign clients' certificates"},
    {"tls.client_identity", CONFIG_ENUM, AT(tls_client_identity), "none", "none|cn|san", 0, 0,
     "The user that a client's certificate makes it: nobody; its common name; its first e-mail address, else "
     "DNS "
     "name, else URI among the subject alternative names"},

    {"api.bind", CONFIG_TEXT, AT(api_bind), "127.0.0.1", NULL, 0, 0,
     "Address of the private API; anything but loopback needs api.key"},
    {"api.port", CONFIG_UINT, AT(api_port), "8081", NULL, 0, 65535, "Private API port; 0 = any free port"},
    {"api.key", CONFIG_TEXT, AT(api_key), "", NULL, 0, 0,
     "Bearer key for the private API; with it a request may come from any host"},
    {"api.hosts", CONFIG_LIST, AT(api_hosts), "", NULL, 0, 0,
     "Further Host values that the private API accepts"},
    {"api.connections", CONFIG_UINT, AT(api_connections), "4096", NULL, 1, 65535,
     "Connections of the private API; a node that is full of clients still answers there"},
    {"api.timeout_ms", CONFIG_MS, AT(http_timeout_ms), "30s", NULL, 1000, 3600000,
     "An API connection without progress is closed after this"},

    {"auth.anonymous", CONFIG_ENUM, AT(auth_anonymous), "loopback", "loopback|never", 0, 0,
     "Who may come without a credential: clients of ports that are bound to loopback, or nobody (only "
     "/healthz, /livez "
     "and /readyz stay open there)"},
    {"auth.keys", CONFIG_LIST, AT(auth_keys), "", NULL, 0, 0,
     "Files of keys that sign tokens, besides data.dir/token.key: public keys or certificates in PEM (RSA, "
     "P-256), or JWK "
     "sets"},
    {"auth.jwks_url", CONFIG_TEXT, AT(auth_jwks_url), "", NULL, 0, 0,
     "URL (https://, or http://) of a JWK set, fetched at the start, again every auth.jwks_refresh_ms, and "
     "when a token "
     "names a key that is not in it; empty = none"},
    {"auth.jwks_refresh_ms", CONFIG_MS, AT(auth_jwks_refresh_ms), "10m", NULL, 100, 86400000,
     "How often auth.jwks_url is fetched; if that fails, the keys of last time stay"},
    {"auth.issuers", CONFIG_LIST, AT(auth_issuers), "", NULL, 0, 0,
     "Issuers (iss) whose tokens are taken; empty = any"},
    {"auth.audiences", CONFIG_LIST, AT(auth_audiences), "", NULL, 0, 0,
     "Names of this service: a token's audience (aud) must be one of them; empty = any"},
    {"auth.leeway_ms", CONFIG_MS, AT(auth_leeway_ms), "1s", NULL, 0, 600000,
     "How far the clocks of issuers may differ from ours: exp counts so much later, nbf so much earlier"},
    {"auth.users", CONFIG_TEXT, AT(auth_users), "", NULL, 0, 0,
     "Password file (tidegate user add); empty = data.dir/users"},
    {"auth.cookie", CONFIG_TEXT, AT(auth_cookie), "", NULL, 0, 0,
     "Name of a cookie that holds a token, for WebSockets of pages whose Origin is ours or in http.origins; "
     "empty = none"},
    {"auth.queue", CONFIG_UINT, AT(auth_queue), "1000", NULL, 1, 1000000,
     "Passwords that wait to be checked, and a loop's tokens that wait for keys; above, a client is told to "
     "try again"},

    {"directory.redis.url", CONFIG_TEXT, AT(redis_url), "", NULL, 0, 0,
     "Redis that nodes share, so that each says where users are on all of them: "
     "redis://[user:password@]host[:port][/db], or rediss:// for TLS; empty: a node knows of itself only"},
    {"directory.redis.user", CONFIG_TEXT, AT(redis_user), "", NULL, 0, 0,
     "ACL user there; empty: that of the URL, else Redis's own (default)"},
    {"directory.redis.password_file", CONFIG_TEXT, AT(redis_password_file), "", NULL, 0, 0,
     "File whose first line is the password; read at each connection"},
    {"directory.redis.ca_file", CONFIG_TEXT, AT(redis_ca_file), "", NULL, 0, 0,
     "Certificates (PEM) that sign the server's, with rediss://; empty: those that the system trusts"},
    {"directory.redis.cert_file", CONFIG_TEXT, AT(redis_cert_file), "", NULL, 0, 0,
     "Our own certificate (PEM), with rediss://"},
    {"directory.redis.key_file", CONFIG_TEXT, AT(redis_key_file), "", NULL, 0, 0, "Its key"},
    {"directory.redis.sentinels", CONFIG_LIST, AT(redis_sentinels), "", NULL, 0, 0,
     "Sentinels (host:port) that know which server is the master; then the URL's host and port are not used"},
    {"directory.redis.master", CONFIG_TEXT, AT(redis_master), "mymaster", NULL, 0, 0,
     "Name of the master at the Sentinels"},
    {"directory.redis.sentinel_user", CONFIG_TEXT, AT(redis_sentinel_user), "", NULL, 0, 0,
     "ACL user at the Sentinels"},
    {"directory.redis.sentinel_password_file", CONFIG_TEXT, AT(redis_sentinel_password_file), "", NULL, 0, 0,
     "File whose first line is the password at the Sentinels; empty: none"},
    {"directory.redis.prefix", CONFIG_TEXT, AT(redis_prefix), "tidegate", NULL, 0, 0,
     "What every key begins with; the same at all nodes of a cluster"},
    {"directory.redis.lease_ms", CONFIG_MS, AT(redis_lease_ms), "10s", NULL, 300, 3600000,
     "A node that Redis has not heard of for so long is gone; renewed three times in it"},
    {"directory.redis.timeout_ms", CONFIG_MS, AT(redis_timeout_ms), "1s", NULL, 50, 60000,
     "A server that does not answer for so long is left, and tried again"},
    {"directory.redis.retry_min_ms", CONFIG_MS, AT(redis_retry_min_ms), "100ms", NULL, 10, 60000,
     "First wait before it is tried again; doubles, with jitter"},
    {"directory.redis.retry_max_ms", CONFIG_MS, AT(redis_retry_max_ms), "2s", NULL, 10, 3600000,
     "The longest such wait"},
    {"directory.redis.entry_ms", CONFIG_MS, AT(redis_entry_ms), "1h", NULL, 1000, 604800000,
     "What is written of a user goes by itself after this; written again at half of it"},
    {"directory.redis.pending", CONFIG_UINT, AT(redis_pending), "10000", NULL, 1, 10000000,
     "Removals that may wait for Redis; above, the node registers everything again"},
    {"directory.redis.cache_bytes", CONFIG_BYTES, AT(redis_cache_bytes), "4M", NULL, 65536, UINT64_C(1) << 30,
     "Memory for earlier answers, which are given, as stale, while Redis is away"},

    {"log.backend", CONFIG_ENUM, AT(log_backend), "embedded", "embedded|kafka", 0, 0,
     "Who orders and keeps records: embedded, this node alone; kafka, a topic that nodes share "
     "(docs/CLUSTER.md), of "
     "which data.dir holds a copy to read from"},
    {"log.partitions", CONFIG_UINT, AT(log_partitions), "1", NULL, 1, STORE_LANES_MAX,
     "Partitions of the log; fixed once the log exists"},
    {"log.segment_bytes", CONFIG_BYTES, AT(log_segment_bytes), "256M", NULL, 65536, UINT64_C(4) << 30,
     "Size of a segment file"},
    {"log.retention_bytes", CONFIG_BYTES, AT(log_retention_bytes), "0", NULL, 0, 0,
     "A partition keeps at most so much: whole segments, oldest first; 0 = everything. At least twice "
     "log.segment_bytes, and never less than twice what is retained"},
    {"log.retention_ms", CONFIG_MS, AT(log_retention_ms), "0", NULL, 0, UINT64_C(3155760000000),
     "A segment whose newest record is older than this is removed; 0 = none"},
    {"log.scrub_bytes_per_s", CONFIG_BYTES, AT(log_scrub_bytes_per_s), "1M", NULL, 0, UINT64_C(1) << 30,
     "Sealed segments are read again and checked at this speed, for ever, so that rot is found early; 0 = "
     "not"},
    {"log.names_bytes", CONFIG_BYTES, AT(log_names_bytes), "16M", NULL, 0, UINT64_C(4) << 30,
     "Memory of a partition for the topic names that replays of filters with wildcards have met, so that the "
     "next "
     "one reads its own topics only; 0 = it always reads all"},
    {"log.voids", CONFIG_UINT, AT(log_voids), "1000000", NULL, 0, VOIDS_MAX,
     "With log.backend kafka, of a partition: repetitions and late decisions that reads leave out; 8 bytes "
     "each. "
     "More of them are shown"},
    {"kafka.brokers", CONFIG_TEXT, AT(kafka_brokers), "", NULL, 0, 0,
     "With log.backend kafka: addresses of brokers, as host:9092,host:9092"},
    {"kafka.prefix", CONFIG_TEXT, AT(kafka_prefix), "tidegate", NULL, 0, 0,
     "The topic is <prefix>.log; it is made when it is missing, with log.partitions partitions"},
    {"kafka.tls", CONFIG_BOOL, AT(kafka_tls), "false", NULL, 0, 0, "Connections to brokers are TLS"},
    {"kafka.ca_file", CONFIG_TEXT, AT(kafka_ca_file), "", NULL, 0, 0,
     "PEM file of those who sign the brokers' certificates; empty: the system's"},
    {"kafka.cert_file", CONFIG_TEXT, AT(kafka_cert_file), "", NULL, 0, 0,
     "PEM file of the node's own certificate, for brokers that want one"},
    {"kafka.key_file", CONFIG_TEXT, AT(kafka_key_file), "", NULL, 0, 0, "Its key"},
    {"kafka.sasl", CONFIG_ENUM, AT(kafka_sasl), "none", "none|plain|scram-sha-256|scram-sha-512", 0, 0,
     "How the node logs in to brokers. SCRAM with Kafka 4 needs librdkafka 2.6.1 or later"},
    {"kafka.user", CONFIG_TEXT, AT(kafka_user), "", NULL, 0, 0, "Name for kafka.sasl"},
    {"kafka.password_file", CONFIG_TEXT, AT(kafka_password_file), "", NULL, 0, 0,
     "Its password: a file of one line"},
    {"kafka.replication", CONFIG_UINT, AT(kafka_replication), "3", NULL, 1, 1000,
     "Copies of each partition: the topic is made with so many, and refused at start with fewer"},
    {"kafka.min_isr", CONFIG_UINT, AT(kafka_min_isr), "2", NULL, 1, 1000,
     "An acknowledgement means that at least so many copies have the record (min.insync.replicas)"},
    {"kafka.accept_less", CONFIG_BOOL, AT(kafka_accept_less), "false", NULL, 0, 0,
     "A topic with fewer copies than the two above, or with unclean leader election, is taken; "
     "/v1/capabilities says so"},
    {"kafka.linger_ms", CONFIG_MS, AT(kafka_linger_ms), "0", NULL, 0, 1000,
     "The producer waits so long for more records to a partition; what one turn of a loop has published goes "
     "together "
     "in any case"},
    {"kafka.message_timeout_ms", CONFIG_MS, AT(kafka_message_timeout_ms), "10s", NULL, 1000, 300000,
     "A record that the brokers have not acknowledged by then is told as unknown"},
    {"kafka.queue_bytes", CONFIG_BYTES, AT(kafka_queue_bytes), "64M", NULL, 1 << 20, UINT64_C(4) << 30,
     "Records under way to Kafka, of all partitions; above, publishes are refused"},
    {"kafka.start_ms", CONFIG_MS, AT(kafka_start_ms), "30s", NULL, 1000, 3600000,
     "The node does not start when the brokers have not answered by then"},

    {"log.snapshots_max", CONFIG_UINT, AT(log_snapshots_max), "16", NULL, 0, 1000,
     "Snapshots that may lie in data.dir/snapshots; above, making one is refused. Each keeps its segments' "
     "space"},
    {"log.disk_warn_percent", CONFIG_UINT, AT(log_disk_warn_percent), "80", NULL, 1, 100,
     "A disk of the log that is so full is warned of; 100 = never"},
    {"log.disk_refuse_percent", CONFIG_UINT, AT(log_disk_refuse_percent), "95", NULL, 1, 100,
     "Publishes are refused (storage_full) while the disk is so full; reading goes on. 100 = only when it is "
     "full"},
    {"log.ballast_bytes", CONFIG_BYTES, AT(log_ballast_bytes), "16M", NULL, 0, 0,
     "A file that is given up when the disk is full, so that retention and what else must be written can go "
     "on; "
     "0 = none"},
    {"log.sync", CONFIG_TEXT, AT(log_sync_text), "always", NULL, 0, 0,
     "always: an acknowledgement means fdatasync; interval:<ms>, as interval:200: it means write (survives "
     "kill -9), "
     "and fdatasync follows within that time, 1 to 10000: a power cut loses that much of what was "
     "acknowledged; "
     "never: it means write, and a power cut may lose all that the kernel has not written by itself"},
    {"log.unsynced_bytes_max", CONFIG_BYTES, AT(log_unsynced_bytes_max), "64M", NULL, 65536,
     UINT64_C(1) << 30,
     "Not yet durable bytes of a partition; above, publishes are refused until the disk has caught up"},
    {"log.unindexed_bytes_max", CONFIG_BYTES, AT(log_unindexed_bytes_max), "64M", NULL, 1 << 20,
     UINT64_C(4) << 30,
     "Bytes of a partition in memory that its index does not have yet (it is slow where very many topics are "
     "new); above, "
     "publishes are refused until it has caught up"},
    {"log.lazy_ms", CONFIG_MS, AT(log_lazy_ms), "20", NULL, 1, 10000,
     "Records that nobody waits for (QoS 0) are written after this"},
    {"log.lazy_bytes", CONFIG_BYTES, AT(log_lazy_bytes), "256K", NULL, 4096, UINT64_C(16) << 20,
     "or when so many have gathered"},
    {"log.recent_bytes", CONFIG_BYTES, AT(log_recent_bytes), "1M", NULL, 4096, UINT64_C(1) << 30,
     "Newest bytes of a partition kept in memory for readers that are nearly live"},

    {"limit.connections", CONFIG_UINT, AT(limit_connections), "100000", NULL, 1, 10000000,
     "Connections of the public doors together (MQTT, WebSocket, pages); the private API has "
     "api.connections. Fewer when the descriptor limit allows no more"},
    {"limit.user_connections", CONFIG_UINT, AT(limit_user_connections), "1000", NULL, 0, UINT32_MAX,
     "Connections of one user; a further one is closed (WebSocket 4202, MQTT 0x97); a token's max_conns may "
     "be less; 0 = any number"},
    {"limit.address_connections", CONFIG_UINT, AT(limit_address_connections), "0", NULL, 0, UINT32_MAX,
     "Open connections of one address at the public doors together; a further one is closed; 0 = any number. "
     "Of "
     "IPv6 an address is a /64"},
    {"limit.connect_rate_address", CONFIG_UINT, AT(limit_connect_rate_address), "0", NULL, 0, 1000000,
     "Connections a second that one address may open at the public doors; above, they are closed before "
     "anything is "
     "read; 0 = any number"},
    {"limit.connect_rate_user", CONFIG_UINT, AT(limit_connect_rate_user), "0", NULL, 0, 1000000,
     "Connections a second in which one user may come; above, refused (MQTT 0x9F / 3, WebSocket "
     "rate_limited and "
     "4005, 429); 0 = any number"},
    {"limit.connect_rate_node", CONFIG_UINT, AT(limit_connect_rate_node), "0", NULL, 0, 1000000,
     "Connections a second of all addresses together; 0 = any number"},
    {"limit.connect_burst", CONFIG_UINT, AT(limit_connect_burst), "0", NULL, 0, 1000000,
     "So many may come at once after a pause, for each of these; 0 = a second's worth"},
    {"limit.publish_rate_address", CONFIG_UINT, AT(limit_publish_rate_address), "0", NULL, 0, 1000000,
     "Messages a second that come from one address by MQTT and WebSocket; above, an MQTT client is not read "
     "until there "
     "is room (QoS 0: dropped and counted), WebSockets get rate_limited; 0 = any number"},
    {"limit.publish_rate_user", CONFIG_UINT, AT(limit_publish_rate_user), "0", NULL, 0, 1000000,
     "The same of one user, by HTTP (429) too; 0 = any number"},
    {"limit.publish_rate_node", CONFIG_UINT, AT(limit_publish_rate_node), "0", NULL, 0, 1000000,
     "The same of all together; 0 = any number"},
    {"limit.publish_burst", CONFIG_UINT, AT(limit_publish_burst), "0", NULL, 0, 1000000,
     "So many may come at once after a pause, for each of these; 0 = a second's worth"},
    {"limit.address_exempt", CONFIG_LIST, AT(limit_address_exempt), "127.0.0.0/8,::1", NULL, 0, 0,
     "Addresses and prefixes that the limits of one address do not concern, for connections that begin then: "
     "proxies, "
     "and what is on this machine"},
    {"limit.rate_entries", CONFIG_UINT, AT(limit_rate_entries), "0", NULL, 0, 100000000,
     "Addresses and users whose rates are known at a time (32 bytes each); those that are idle are "
     "forgotten; who "
     "finds no room shares one with all others of whom that is so; 0 = four for each of limit.connections"},
    {"limit.message_bytes", CONFIG_BYTES, AT(limit_message_bytes), "1M", NULL, 16, UINT64_C(128) << 20,
     "Payload of one message"},
    {"limit.topic_bytes", CONFIG_UINT, AT(limit_topic_bytes), "1024", NULL, 1, 65535,
     "Bytes of a topic name or filter"},
    {"limit.topic_levels", CONFIG_UINT, AT(limit_topic_levels), "32", NULL, 1, 1024,
     "Levels of a topic name or filter"},
    {"limit.subscriptions", CONFIG_UINT, AT(limit_subscriptions), "1000", NULL, 1, 1000000,
     "Subscriptions of a connection"},
    {"limit.inflight", CONFIG_UINT, AT(limit_inflight), "1024", NULL, 1, 65535,
     "Unacknowledged QoS 1 and 2 messages to one MQTT client (its Receive Maximum may be lower)"},
    {"limit.ws_unacked", CONFIG_UINT, AT(limit_ws_unacked), "4096", NULL, 1, 1000000,
     "Unacknowledged messages of the `ack` subscriptions of one WebSocket; above, they become cursors"},
    {"limit.publish_open", CONFIG_UINT, AT(limit_publish_open), "1024", NULL, 1, 65535,
     "Publishes of one connection that wait for the disk; above, its socket is not read (MQTT 5.0: Receive "
     "Maximum)"},
    {"limit.batch_messages", CONFIG_UINT, AT(limit_batch_messages), "10000", NULL, 1, 100000,
     "Messages of one POST /v1/publish"},
    {"limit.batch_bytes", CONFIG_BYTES, AT(limit_batch_bytes), "8M", NULL, 64, UINT64_C(256) << 20,
     "Body of a POST /v1/publish of several messages"},
    {"limit.history_count", CONFIG_UINT, AT(limit_history_count), "1000", NULL, 1, STORE_READ_COUNT_MAX,
     "Messages of one page of history"},
    {"limit.http_head_bytes", CONFIG_BYTES, AT(limit_http_head_bytes), "8K", NULL, 1024, 65536,
     "Head of an HTTP request, at both ports; above, it is answered 431 (414: its target alone) and closed. "
     "A "
     "connection of the private API takes twice that in memory"},
    {"limit.json_depth", CONFIG_UINT, AT(limit_json_depth), "64", NULL, 4, JSON_DEPTH_MAX,
     "Arrays and objects of a JSON text inside one another: bodies, WebSocket frames, payloads that are "
     "published as JSON; above, it is not taken for JSON. Not counted is what a door takes apart itself: the "
     "object of a frame or of a single event, the object of a batch and its array, the array of a batch of "
     "events"},

    {"limit.lag_messages", CONFIG_UINT, AT(limit_lag_messages), "0", NULL, 0, 0,
     "Positions of a partition that a subscription may be behind; above, it goes on with the newest half of "
     "that and is told how many messages it missed; 0 = as far as the log. What a replay was asked for does "
     "not count"},
    {"limit.drops", CONFIG_UINT, AT(limit_drops), "1000", NULL, 0, 1000000,
     "Entries of a loop in the ledger of drops (GET /v1/drops); the one that has not grown for longest goes; "
     "0 = none"},
    {"limit.retained", CONFIG_UINT, AT(limit_retained), "1000000", NULL, 0, 0,
     "Retained messages of a partition; above, publishing another topic with RETAIN is refused"},
    {"limit.retained_bytes", CONFIG_BYTES, AT(limit_retained_bytes), "256M", NULL, 0, 0, "Memory of those"},

    {"limit.sessions", CONFIG_UINT, AT(limit_sessions), "100000", NULL, 0, 0,
     "Durable WebSocket sessions of a partition; above, a new one's first `sub` with `ack` is refused"},
    {"limit.sessions_bytes", CONFIG_BYTES, AT(limit_sessions_bytes), "64M", NULL, 0, 0, "Memory of those"},
    {"limit.session_bytes", CONFIG_BYTES, AT(limit_session_bytes), "64K", NULL, 256, UINT64_C(16) << 20,
     "Record of one session: its filters, and 8 bytes a filter and partition"},
    {"limit.revocations", CONFIG_UINT, AT(limit_revocations), "100000", NULL, 1, 10000000,
     "Revoked users and tokens that are remembered; above, POST /v1/revocations is refused"},
    {"limit.tickets", CONFIG_UINT, AT(limit_tickets), "10000", NULL, 1, 10000000,
     "Tickets that are out and not used; above, POST /v1/tickets is refused. Those of event streams, which "
     "may "
     "come back with them, are kept as long as there is room"},
    {"limit.shared_groups", CONFIG_UINT, AT(limit_shared_groups), "10000", NULL, 0, 0,
     "Groups of shared subscriptions ($share/<name>/<filter>) of a partition; above, the first subscription "
     "of a further one is refused; 0 = there are none"},
    {"limit.shared_given", CONFIG_UINT, AT(limit_shared_given), "100000", NULL, 1, 0,
     "Messages of one such group and partition that lie with its members and are not acknowledged; above, "
     "the others wait in the log"},
    {"limit.shared_bytes", CONFIG_BYTES, AT(limit_shared_bytes), "64M", NULL, 1, 0, "Bytes of those"},
    {"limit.shared_kept", CONFIG_UINT, AT(limit_shared_kept), "1000", NULL, 0, 1000000,
     "Members of one such group whose session outlives its connections; above, a further one's subscription "
     "is refused"},
    {"limit.shared_kept_given", CONFIG_UINT, AT(limit_shared_kept_given), "4096", NULL, 1, 1000000,
     "limit.shared_given of a group that has such a member, when that is more: 8 bytes each in its record"},
    {"limit.inboxes", CONFIG_UINT, AT(limit_inboxes), "1000000", NULL, 0, 0,
     "Users of a partition whose inbox has a durable cursor; above, what a further one acknowledges is "
     "forgotten when "
     "it comes again, and counted"},
    {"limit.inboxes_bytes", CONFIG_BYTES, AT(limit_inboxes_bytes), "256M", NULL, 0, 0, "Memory of those"},
    {"inbox.keep_ms", CONFIG_MS, AT(inbox_keep_ms), "168h", NULL, 0, UINT64_C(3155760000000),
     "A user who comes back gets what is not older than this; 0 = all that the log has"},
    {"inbox.keep_messages", CONFIG_UINT, AT(inbox_keep_messages), "1000", NULL, 0, UINT32_MAX,
     "and at most the newest so many; 0 = any number"},
    {"session.expiry_ms", CONFIG_MS, AT(session_expiry_ms), "24h", NULL, 200, UINT64_C(3155760000000),
     "A session that no connection has is kept for this long"},
    {"session.save_ms", CONFIG_MS, AT(session_save_ms), "10s", NULL, 10, 3600000,
     "What a session's client has acknowledged, in an inbox too, is durable after this; a crash repeats no "
     "more"},
    {"session.save_count", CONFIG_UINT, AT(session_save_count), "100", NULL, 1, 1000000,
     "or when so many messages have been acknowledged"},

    {"dedup.producers", CONFIG_UINT, AT(dedup_producers), "100000", NULL, 1, 0,
     "Producers of a partition whose newest 1,024 sequences are remembered; above, those idle longest are "
     "forgotten"},
    {"dedup.max", CONFIG_UINT, AT(dedup_max), "1000000", NULL, 1, 0,
     "Idempotency-Keys of a partition that are remembered; above, the oldest are forgotten"},
    {"dedup.bytes", CONFIG_BYTES, AT(dedup_bytes), "128M", NULL, 4096, 0,
     "Memory of both; above, those idle longest are forgotten"},
    {"dedup.keep_ms", CONFIG_MS, AT(dedup_keep_ms), "24h", NULL, 1000, UINT64_C(3155760000000),
     "An Idempotency-Key is remembered for so long, and so is a producer that publishes nothing"},

    {"out.bytes_max", CONFIG_BYTES, AT(out_bytes_max), "1M", NULL, 4096, UINT64_C(1) << 30,
     "Unsent bytes of one connection; above, its subscriptions become cursors (MQTT QoS 0: messages are "
     "dropped and counted)"},
    {"out.stall_ms", CONFIG_MS, AT(out_stall_ms), "30s", NULL, 100, 3600000,
     "A connection whose queue makes no progress for this long is closed"},
    {"out.catchup_percent", CONFIG_UINT, AT(out_catchup_percent), "25", NULL, 1, 90,
     "Share of a busy loop's time for subscribers that read the past; a loop with nothing else to do gives "
     "them all"},

    {"drain.delay_ms", CONFIG_MS, AT(drain_delay_ms), "0", NULL, 0, 600000,
     "SIGTERM: for so long /readyz answers 503 and nothing else changes, so that load balancers look away "
     "first"},
    {"drain.rate", CONFIG_UINT, AT(drain_rate), "1000", NULL, 0, 1000000,
     "then so many clients a second are told to go, each when its publishes are answered; 0 = all at once"},
    {"drain.max_ms", CONFIG_MS, AT(drain_max_ms), "10s", NULL, 0, 3600000,
     "whoever has not gone after this is disconnected; the service manager must wait for longer"},

    {"sys.interval_ms", CONFIG_MS, AT(sys_interval_ms), "10s", NULL, 0, 3600000,
     "How often the node says at $SYS/broker/... how it is, by MQTT and WebSocket; at least 100 ms; 0 = "
     "never"},

    {"demo.dir", CONFIG_TEXT, AT(demo_dir), "web-demo/demo", NULL, 0, 0,
     "Files served under /demo/; empty = none"},
    {"test.echo_port", CONFIG_UINT, AT(test_echo_port), "0", NULL, 0, 65535,
     "TCP echo on loopback that measures the event loop itself; 0 = off"},
    {"test.state_at_ms", CONFIG_UINT, AT(test_state_at_ms), "0", NULL, 0, 0,
     "At the start and at a clean stop the digest of each partition's state is logged, without what expires "
     "before this "
     "Unix time in ms: a test of the fold; 0 = off"},
    {"logging.level", CONFIG_ENUM, AT(log_level), "info", "debug|info|warn|error", 0, 0,
     "Least level of the program's own log"},
    {"logging.form", CONFIG_ENUM, AT(log_form), "auto", "auto|text|json", 0, 0,
     "auto: text on a terminal, else JSON lines"},
};

#define FIELD(field) offsetof(struct topic_settings, field)

static const struct config_option topic_fields[] = {
    {"filter", CONFIG_TEXT, FIELD(filter), "", NULL, 0, 0,
     "Topic filter; the first item that matches counts"},
    {"store", CONFIG_BOOL, FIELD(store), "true", NULL, 0, 0,
     "false: never written to the log; who is there and keeps up gets it, and an acknowledgement means that"},
    {"deliver", CONFIG_ENUM, FIELD(deliver), "now", "now|durable", 0, 0,
     "durable: nobody gets a message before the disk has it; what comes behind it in its partition waits "
     "too"},
    {"ttl_ms", CONFIG_MS, FIELD(ttl_ms), "0", NULL, 0, UINT64_C(3155760000000),
     "Expiry of messages that have none, and the longest for those that have one; 0 = none"},
    {"retention_ms", CONFIG_MS, FIELD(retention_ms), "0", NULL, 0, UINT64_C(3155760000000),
     "History and replays do not go back further; the space returns with the log's own retention; 0 = as far "
     "as the log"},
};

/* The first filter that matches wins, so the same one again is a mistake. */
static bool filter_is_new(const struct topic_settings *rows, size_t count)
{
    for (size_t i = 0; i + 1 < count; i++)
        if (strcmp(rows[i].filter, rows[count - 1].filter) == 0)
            return false;
    return true;
}

static const char *topic_flaw(const void *rows, size_t count)
{
    const struct topic_settings *t = (const struct topic_settings *)rows + count - 1;
    const struct topic_limits any = {UINT16_MAX, UINT16_MAX};
    if (!topic_filter_valid(slice_cstr(t->filter), &any))
        return "filter must be a topic filter, such as sensors/+/temperature or chat/#";
    if (t->filter[0] == '$' && !slice_starts_with(slice_cstr(t->filter), slice_cstr("$user/")))
        return "filter may begin with $ for inboxes only ($user/...)";
    if (!filter_is_new(rows, count))
        return "filter: another item has the same, and the first one wins";
    if (!t->store && t->deliver)
        return "store: false and deliver: durable exclude each other";
    if (!t->store && t->retention_ms)
        return "store: false leaves nothing for retention_ms";
    return NULL;
}

#undef FIELD
#define FIELD(field) offsetof(struct acl_settings, field)

static const struct config_option acl_fields[] = {
    {"principal", CONFIG_TEXT, FIELD(principal), "*", NULL, 0, 0,
     "Whom it is about: a user, * everybody, $users whoever is not anonymous, $anonymous"},
    {"effect", CONFIG_ENUM, FIELD(effect), "allow", "allow|deny", 0, 0, "deny wins over every allow"},
    {"op", CONFIG_ENUM, FIELD(op), "all", "all|publish|subscribe|history|presence|read", 0, 0,
     "subscribe: live and retained messages; history: the past; read: both, and presence"},
    {"topic", CONFIG_TEXT, FIELD(topic), "", NULL, 0, 0,
     "Topic filter; %u is the user, %c the MQTT client identifier"},
};

static const char *acl_flaw(const void *rows, size_t count)
{
    const struct acl_settings *r = (const struct acl_settings *)rows + count - 1;
    if (r->principal[0] == '\0')
        return "principal must be a user, *, $users or $anonymous";
    if (!acl_topic_valid(slice_cstr(r->topic)))
        return "topic must be a topic filter, such as rooms/%u/#; of those that begin with $ there are "
               "$user/ and $SYS/";
    return NULL;
}

#undef FIELD
#define FIELD(field) offsetof(struct bridge_settings, field)

static const struct config_option bridge_fields[] = {
    {"name", CONFIG_TEXT, FIELD(name), "", NULL, 0, 0,
     "Its name here: in logs, in bridge_topics, and of its session"},
    {"host", CONFIG_TEXT, FIELD(host), "", NULL, 0, 0, "Name or address of the remote broker"},
    {"port", CONFIG_UINT, FIELD(port), "1883", NULL, 1, 65535, "Its port"},
    {"version", CONFIG_ENUM, FIELD(version), "5", "5|3.1.1", 0, 0, "MQTT version to speak with it"},
    {"client_id", CONFIG_TEXT, FIELD(client_id), "", NULL, 0, 0,
     "Client identifier there; empty: <node.id>-<name>"},
    {"clean", CONFIG_BOOL, FIELD(clean), "false", NULL, 0, 0,
     "true: no sessions on either side; what comes while the bridge is down is not carried"},
    {"user", CONFIG_TEXT, FIELD(user), "", NULL, 0, 0, "User name there; empty: none"},
    {"password_file", CONFIG_TEXT, FIELD(password_file), "", NULL, 0, 0,
     "File whose first line is the password; read at each connection"},
    {"ca_file", CONFIG_TEXT, FIELD(ca_file), "", NULL, 0, 0,
     "Certificates (PEM) that sign the remote's; empty: no TLS"},
    {"cert_file", CONFIG_TEXT, FIELD(cert_file), "", NULL, 0, 0, "Our own certificate (PEM)"},
    {"key_file", CONFIG_TEXT, FIELD(key_file), "", NULL, 0, 0, "Its key"},
    {"keep_alive_s", CONFIG_UINT, FIELD(keep_alive_s), "60", NULL, 5, 65535, "Keep alive, seconds"},
    {"inflight", CONFIG_UINT, FIELD(inflight), "100", NULL, 1, 1000,
     "Messages that wait for their acknowledgement, in each direction"},
    {"retry_min_ms", CONFIG_MS, FIELD(retry_min_ms), "1s", NULL, 10, 3600000,
     "First wait before it connects again; doubles, with jitter"},
    {"retry_max_ms", CONFIG_MS, FIELD(retry_max_ms), "1m", NULL, 10, 86400000, "The longest such wait"},
};

#undef FIELD
#define FIELD(field) offsetof(struct bridge_topic_settings, field)

static const struct config_option bridge_topic_fields[] = {
    {"bridge", CONFIG_TEXT, FIELD(bridge), "", NULL, 0, 0, "Name of the bridge that carries it"},
    {"filter", CONFIG_TEXT, FIELD(filter), "", NULL, 0, 0, "Topic filter, behind the prefix of each side"},
    {"direction", CONFIG_ENUM, FIELD(direction), "out", "out|in|both", 0, 0, "out: from here to the remote"},
    {"qos", CONFIG_UINT, FIELD(qos), "1", NULL, 0, 1,
     "Highest QoS; 1 = at least once, which is all that two logs can promise each other"},
    {"local_prefix", CONFIG_TEXT, FIELD(local_prefix), "", NULL, 0, 0,
     "Stands before the topic here, and is taken off when it leaves"},
    {"remote_prefix", CONFIG_TEXT, FIELD(remote_prefix), "", NULL, 0, 0,
     "Stands before the topic there, and is taken off when it comes"},
};

#undef FIELD

static const struct config_list lists[] = {
    {"acl", AT(acl), sizeof(struct acl_settings), acl_fields, sizeof acl_fields / sizeof acl_fields[0],
     acl_flaw,
     "Access rules. Without any, users and anonymous clients may do everything with topics that do not begin "
     "with $; with "
     "rules, what none allows is denied. A user's own inbox is allowed unless a rule denies it"},
    {"topics", AT(topics), sizeof(struct topic_settings), topic_fields,
     sizeof topic_fields / sizeof topic_fields[0], topic_flaw, "Policies of topics"},
    {"bridges", AT(bridges), sizeof(struct bridge_settings), bridge_fields,
     sizeof bridge_fields / sizeof bridge_fields[0], bridge_flaw,
     "Remote brokers that messages are exchanged with (PROTOCOL.md 7)"},
    {"bridge_topics", AT(bridge_topics), sizeof(struct bridge_topic_settings), bridge_topic_fields,
     sizeof bridge_topic_fields / sizeof bridge_topic_fields[0], bridge_topic_flaw, "What the bridges carry"},
};

/* Keys that every loop reads from its settings each time it needs them (node_use_settings). Such a key is not
 * copied anywhere else. Limits that are promised to a client for as long as its connection lasts are not
 * here. */
static const char *const live[] = {
    "logging.level",
    "http.origins",
    "api.key",
    "api.hosts",
    "mqtt.connect_timeout_ms",
    "mqtt.keep_alive_max_s",
    "mqtt.topic_aliases",
    "mqtt.check_payload_format",
    "mqtt.response_information",
    "ws.hello_timeout_ms",
    "ws.ping_ms",
    "ws.pong_timeout_ms",
    "auth.keys",
    "acl",
    "limit.connections",
    "limit.user_connections",
    "limit.publish_open",
    "limit.subscriptions",
    "limit.inflight",
    "limit.ws_unacked",
    "limit.batch_messages",
    "limit.history_count",
    "limit.address_connections",
    "limit.connect_rate_address",
    "limit.connect_rate_user",
    "limit.connect_rate_node",
    "limit.connect_burst",
    "limit.publish_rate_address",
    "limit.publish_rate_user",
    "limit.publish_rate_node",
    "limit.publish_burst",
    "limit.address_exempt",
    "limit.lag_messages",
    "out.bytes_max",
    "out.stall_ms",
    "drain.delay_ms",
    "drain.rate",
    "drain.max_ms",
    "sys.interval_ms",
    "session.expiry_ms",
    "session.save_ms",
    "session.save_count",
    "topics",
    "bridges",
    "bridge_topics",
    NULL,
};

static const char *const secret[] = {"api.key", "auth.jwks_url", "directory.redis.url", NULL};

const struct config_table *settings_table(void)
{
    static const struct config_table table = {.options = options,
                                              .count = sizeof options / sizeof options[0],
                                              .lists = lists,
                                              .list_count = sizeof lists / sizeof lists[0],
                                              .live = live,
                                              .secret = secret};
    return &table;
}

static bool is_loopback(const char *address)
{
    return host_address_is_loopback(slice_cstr(address));
}

static enum status read_sync(struct settings *s, struct buf *error)
{
    static const char interval[] = "interval:";
    const char *text = s->log_sync_text;
    s->log_sync_interval_ms = 0;
    if (strcmp(text, "always") == 0 || strcmp(text, "never") == 0) {
        s->log_sync = text[0] == 'a' ? STORE_SYNC_ALWAYS : STORE_SYNC_NEVER;
        return ST_OK;
    }
    uint64_t ms = 0;
    bool valid = strncmp(text, interval, sizeof interval - 1) == 0;
    const char *digit = valid ? text + sizeof interval - 1 : text;
    for (; *digit >= '0' && *digit <= '9' && ms <= SYNC_INTERVAL_MS_MAX; digit++)
        ms = ms * 10 + (uint64_t)(*digit - '0');
    if (valid && *digit == '\0' && ms >= 1 && ms <= SYNC_INTERVAL_MS_MAX) {
        s->log_sync = STORE_SYNC_INTERVAL;
        s->log_sync_interval_ms = ms;
        return ST_OK;
    }
    if (buf_printf(error,
                   "log.sync: '%s' must be always, never, or interval:<ms> from interval:1 to interval:%d",
                   text, SYNC_INTERVAL_MS_MAX) != ST_OK)
        buf_clear(error);
    return ST_INVALID;
}

static const char *mqtt_flaw(const struct settings *s)
{
    const char *topic = s->mqtt_response_information;
    if (topic[0] && (!acl_topic_valid(slice_cstr(topic)) || strpbrk(topic, "+#")))
        return "mqtt.response_information: must be a topic, in which %u and %c may stand";
    return NULL;
}

static const char *tls_flaw(const struct settings *s)
{
    if ((s->tls_cert_file[0] == '\0') != (s->tls_key_file[0] == '\0'))
        return "tls.cert_file and tls.key_file: set both, or neither";
    if (s->tls_client_verify != TLS_CLIENT_NONE && s->tls_client_ca_file[0] == '\0')
        return "tls.client_verify: needs tls.client_ca_file, whose certificates sign the clients'";
    if (s->tls_client_identity != TLS_IDENTITY_NONE && s->tls_client_verify == TLS_CLIENT_NONE)
        return "tls.client_identity: needs tls.client_verify, optional or require";
    return NULL;
}

/* Rules between keys. */
static enum status settings_check(const struct settings *s, struct buf *error)
{
    const char *exempt = gate_exempt_flaw(s->limit_address_exempt);
    enum status st = ST_OK;
    if (!is_loopback(s->api_bind) && s->api_key[0] == '\0')
        st = buf_printf(error, "api.bind: %s is not loopback, so the private API needs a key: set api.key",
                        s->api_bind);
    else if (s->auth_jwks_url[0] && strncmp(s->auth_jwks_url, "https://", 8) != 0 &&
             strncmp(s->auth_jwks_url, "http://", 7) != 0)
        st = buf_printf(error, "auth.jwks_url: must begin with https:// (or http://): %s", s->auth_jwks_url);
    else if (tls_flaw(s))
        st = buf_put_cstr(error, tls_flaw(s));
    else if (exempt)
        st = buf_printf(error,
                        "limit.address_exempt: must hold addresses or prefixes such as 10.0.0.0/8: %.*s",
                        (int)strcspn(exempt, "\n"), exempt);
    else if (backend_flaw(s))
        st = buf_put_cstr(error, backend_flaw(s));
    else if (mqtt_flaw(s))
        st = buf_put_cstr(error, mqtt_flaw(s));
    else if (s->node_id[0] == '\0' || s->data_dir[0] == '\0')
        st = buf_printf(error, "%s: must not be empty", s->node_id[0] ? "data.dir" : "node.id");
    else if (s->sys_interval_ms > 0 && s->sys_interval_ms < SYS_INTERVAL_MS_MIN)
        st = buf_printf(error, "sys.interval_ms: must be 0 (never) or at least %d ms", SYS_INTERVAL_MS_MIN);
    else if (s->log_retention_bytes > 0 && s->log_retention_bytes / 2 < s->log_segment_bytes)
        st = buf_printf(error, "log.retention_bytes: must be 0 or at least twice log.segment_bytes (%llu)",
                        (unsigned long long)s->log_segment_bytes);
    else if (s->log_disk_warn_percent < 100 && s->log_disk_warn_percent > s->log_disk_refuse_percent)
        st = buf_printf(error, "log.disk_warn_percent: must not be above log.disk_refuse_percent (%llu)",
                        (unsigned long long)s->log_disk_refuse_percent);
    else
        st = bridge_settings_check(s, error);
    if (st == ST_OK && error->len == 0)
        st = shared_directory_check(s, error);
    return st == ST_OK && error->len == 0 ? ST_OK : ST_INVALID;
}

enum status settings_load(struct settings *s, const char *file, char *const *environment,
                          const char *const *assignments, size_t assignment_count, struct buf *error)
{
    const struct config_table *t = settings_table();
    memset(s, 0, sizeof *s);
    config_defaults(t, s);
    enum status st = file ? config_load_file(t, s, file, error) : ST_OK;
    if (st == ST_OK)
        st = config_load_env(t, s, environment, error);
    for (size_t i = 0; st == ST_OK && i < assignment_count; i++)
        st = config_set(t, s, assignments[i], "--set", error);
    if (st == ST_OK)
        st = read_sync(s, error);
    if (st == ST_OK)
        st = settings_check(s, error);
    backend_settle(s);
    if (st != ST_OK)
        settings_free(s);
    return st;
}

enum status settings_succeed(struct settings *next, const struct settings *current, struct buf *error)
{
    config_keep(settings_table(), next, current);
    enum status st = read_sync(next, error);
    if (st == ST_OK)
        st = settings_check(next, error);
    backend_settle(next);
    if (st != ST_OK)
        settings_leave(next);
    return st;
}

void settings_leave(struct settings *unused)
{
    config_leave(settings_table(), unused);
}

void settings_free(struct settings *s)
{
    config_free(settings_table(), s);
    memset(s, 0, sizeof *s);
}
