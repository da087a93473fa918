/* Metrics.
 *
 * A row of `rows` says how an index of enum metric is shown; neighbours of one name are one metric with
 * different labels, so HELP and TYPE are printed when the name changes and the order of the output is the
 * order of the enum. A set is written by one thread alone and added up by whoever scrapes; sets are never
 * freed, so the registry is a list that only grows, at its head, by compare and exchange.
 *
 * A histogram's bounds are powers of two of its small unit, which makes finding the bucket one
 * instruction: nanoseconds from 2^10 (1.024 us) to 2^33 (8.6 s), plain numbers from 1 to 2^23. */
#include "core/metrics.h"

#include "core/clock.h"
#include "core/metrics_process.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { CACHE_LINE_BYTES = 64 };

enum metric_type { COUNTER, GAUGE };

static const struct metric_row {
    const char *name;
    enum metric_type type;
    const char *labels; /* between the braces; NULL = none */
    const char *help;
} rows[METRIC_COUNT] = {
#define RECEIVED      "tidegate_messages_received_total", COUNTER
#define RECEIVED_HELP "Messages that publishers handed in, whatever became of them."
    [M_RECEIVED_MQTT] = {RECEIVED, "proto=\"mqtt\",qos=\"0\"", RECEIVED_HELP},
    [M_RECEIVED_MQTT_QOS1] = {RECEIVED, "proto=\"mqtt\",qos=\"1\"", RECEIVED_HELP},
    [M_RECEIVED_MQTT_QOS2] = {RECEIVED, "proto=\"mqtt\",qos=\"2\"", RECEIVED_HELP},
    [M_RECEIVED_WS] = {RECEIVED, "proto=\"ws\"", RECEIVED_HELP},
    [M_RECEIVED_HTTP] = {RECEIVED, "proto=\"http\"", RECEIVED_HELP},
    [M_STORED] = {"tidegate_messages_stored_total", COUNTER, NULL, "Messages that the log has made durable."},
    [M_DUPLICATES] = {"tidegate_duplicates_total", COUNTER, NULL,
                      "Messages whose producer and sequence, or Idempotency-Key, are stored already."},
    [M_UNSTORED] = {"tidegate_messages_unstored_total", COUNTER, NULL,
                    "Messages of topics whose policy says store: false, handed over to who was there."},
#define REFUSED      "tidegate_messages_refused_total", COUNTER
#define REFUSED_HELP "Messages that were not stored, and their publishers told so."
    [M_REFUSED_INVALID] = {REFUSED, "reason=\"invalid\"", REFUSED_HELP},
    [M_REFUSED_LIMIT] = {REFUSED, "reason=\"limit\"", REFUSED_HELP},
    [M_REFUSED_UNSUPPORTED] = {REFUSED, "reason=\"unsupported\"", REFUSED_HELP},
    [M_REFUSED_FORBIDDEN] = {REFUSED, "reason=\"forbidden\"", REFUSED_HELP},
    [M_REFUSED_UNAVAILABLE] = {REFUSED, "reason=\"unavailable\"", REFUSED_HELP},
    [M_REFUSED_QUOTA] = {REFUSED, "reason=\"quota\"", REFUSED_HELP},
    [M_REFUSED_CONFLICT] = {REFUSED, "reason=\"conflict\"", REFUSED_HELP},
    [M_REFUSED_RATE] = {REFUSED, "reason=\"rate\"", REFUSED_HELP},
    [M_PUBLISH_UNKNOWN] = {"tidegate_publishes_unknown", GAUGE, NULL,
                           "Publishes told as unknown: whether the log has them nobody has said yet."},
    [M_PUBLISH_OPEN] = {"tidegate_publishes_open", GAUGE, NULL,
                        "Messages received whose outcome is not decided yet."},
    [M_OFFERED] = {"tidegate_messages_offered_total", COUNTER, NULL,
                   "Messages that a subscription has reached and that match it; what was jumped over too. "
                   "offered = delivered + dropped + returned + unacknowledged."},
#define SENT      "tidegate_messages_sent_total", COUNTER
#define SENT_HELP "Messages handed to subscribers' sockets."
    [M_SENT_MQTT] = {SENT, "proto=\"mqtt\",qos=\"0\"", SENT_HELP},
    [M_SENT_MQTT_QOS1] = {SENT, "proto=\"mqtt\",qos=\"1\"", SENT_HELP},
    [M_SENT_MQTT_QOS2] = {SENT, "proto=\"mqtt\",qos=\"2\"", SENT_HELP},
    [M_SENT_WS] = {SENT, "proto=\"ws\"", SENT_HELP},
    [M_SENT_SSE] = {SENT, "proto=\"sse\"", SENT_HELP},
    [M_SENT_POLL] = {SENT, "proto=\"poll\"", SENT_HELP},
#define DELIVERED      "tidegate_messages_delivered_total", COUNTER
#define DELIVERED_HELP "Messages acknowledged, or handed to the socket where nothing acknowledges."
    [M_DELIVERED_MQTT] = {DELIVERED, "proto=\"mqtt\"", DELIVERED_HELP},
    [M_DELIVERED_WS] = {DELIVERED, "proto=\"ws\"", DELIVERED_HELP},
    [M_DELIVERED_SSE] = {DELIVERED, "proto=\"sse\"", DELIVERED_HELP},
    [M_DELIVERED_POLL] = {DELIVERED, "proto=\"poll\"", DELIVERED_HELP},
    [M_RETURNED] = {"tidegate_messages_returned_total", COUNTER, NULL,
                    "Messages that were not acknowledged when their connection ended."},
#define UNACKED      "tidegate_messages_unacknowledged", GAUGE
#define UNACKED_HELP "Messages sent whose acknowledgement has not come yet."
    [M_UNACKED_MQTT] = {UNACKED, "proto=\"mqtt\"", UNACKED_HELP},
    [M_UNACKED_WS] = {UNACKED, "proto=\"ws\"", UNACKED_HELP},
#define DROPPED      "tidegate_messages_dropped_total", COUNTER
#define DROPPED_HELP "Messages that a subscriber should have got and did not."
    [M_DROPPED_QUEUE_FULL] = {DROPPED, "reason=\"queue_full\"", DROPPED_HELP},
    [M_DROPPED_EXPIRED] = {DROPPED, "reason=\"expired\"", DROPPED_HELP},
    [M_DROPPED_TOO_LARGE] = {DROPPED, "reason=\"too_large\"", DROPPED_HELP},
    [M_DROPPED_RETENTION] = {DROPPED, "reason=\"retention\"", DROPPED_HELP},
    [M_DROPPED_UNSTORED] = {DROPPED, "reason=\"unstored\"", DROPPED_HELP},
    [M_DROPPED_LAG] = {DROPPED, "reason=\"lag\"", DROPPED_HELP},
    [M_DROPPED_DAMAGED] = {DROPPED, "reason=\"damaged\"", DROPPED_HELP},
    [M_DROPPED_EPOCH] = {DROPPED, "reason=\"epoch\"", DROPPED_HELP},
    [M_DROPPED_SESSION] = {DROPPED, "reason=\"session\"", DROPPED_HELP},
#define CONNECTIONS      "tidegate_connections", GAUGE
#define CONNECTIONS_HELP "Connections open now."
    [M_CONNECTIONS_MQTT] = {CONNECTIONS, "proto=\"mqtt\"", CONNECTIONS_HELP},
    [M_CONNECTIONS_WS] = {CONNECTIONS, "proto=\"ws\"", CONNECTIONS_HELP},
    [M_CONNECTIONS_SSE] = {CONNECTIONS, "proto=\"sse\"", CONNECTIONS_HELP},
    [M_CONNECTIONS_POLL] = {CONNECTIONS, "proto=\"poll\"", CONNECTIONS_HELP},
    [M_CONNECTIONS_HTTP] = {CONNECTIONS, "proto=\"http\"", CONNECTIONS_HELP},
#define CONNECTS      "tidegate_connects_total", COUNTER
#define CONNECTS_HELP "Attempts to connect; result=\"limit\" is refused before it names its protocol."
    [M_CONNECTS_OK_MQTT] = {CONNECTS, "proto=\"mqtt\",result=\"ok\"", CONNECTS_HELP},
    [M_CONNECTS_OK_WS] = {CONNECTS, "proto=\"ws\",result=\"ok\"", CONNECTS_HELP},
    [M_CONNECTS_OK_SSE] = {CONNECTS, "proto=\"sse\",result=\"ok\"", CONNECTS_HELP},
    [M_CONNECTS_REFUSED_MQTT] = {CONNECTS, "proto=\"mqtt\",result=\"refused\"", CONNECTS_HELP},
    [M_CONNECTS_REFUSED_WS] = {CONNECTS, "proto=\"ws\",result=\"refused\"", CONNECTS_HELP},
    [M_CONNECTS_REFUSED_LIMIT] = {CONNECTS, "proto=\"any\",result=\"limit\"", CONNECTS_HELP},
    [M_CONNECTS_REFUSED_DRAIN] = {CONNECTS, "proto=\"mqtt\",result=\"drain\"", CONNECTS_HELP},
    [M_CONNECTS_BEING_REFUSED] = {"tidegate_connects_being_refused", GAUGE, NULL,
                                  "MQTT connections that are not taken, and are told so."},
    [M_CONNECTS_UNANSWERED] = {"tidegate_connects_unanswered_total", COUNTER, NULL,
                               "MQTT connections that were closed without a word, above mqtt.refused_max."},
#define AUTH      "tidegate_auth_failures_total", COUNTER
#define AUTH_HELP "Credentials that were refused, and the want of one where it is needed."
    [M_AUTH_MALFORMED] = {AUTH, "reason=\"malformed\"", AUTH_HELP},
    [M_AUTH_ALGORITHM] = {AUTH, "reason=\"algorithm\"", AUTH_HELP},
    [M_AUTH_UNKNOWN_KEY] = {AUTH, "reason=\"unknown_key\"", AUTH_HELP},
    [M_AUTH_SIGNATURE] = {AUTH, "reason=\"signature\"", AUTH_HELP},
    [M_AUTH_EXPIRED] = {AUTH, "reason=\"expired\"", AUTH_HELP},
    [M_AUTH_NOT_YET] = {AUTH, "reason=\"not_yet_valid\"", AUTH_HELP},
    [M_AUTH_ISSUER] = {AUTH, "reason=\"issuer\"", AUTH_HELP},
    [M_AUTH_AUDIENCE] = {AUTH, "reason=\"audience\"", AUTH_HELP},
    [M_AUTH_CLAIMS] = {AUTH, "reason=\"claims\"", AUTH_HELP},
    [M_AUTH_OTHER_USER] = {AUTH, "reason=\"other_user\"", AUTH_HELP},
    [M_AUTH_PASSWORD] = {AUTH, "reason=\"password\"", AUTH_HELP},
    [M_AUTH_ANONYMOUS] = {AUTH, "reason=\"anonymous\"", AUTH_HELP},
    [M_AUTH_REVOKED] = {AUTH, "reason=\"revoked\"", AUTH_HELP},
    [M_AUTH_TICKET] = {AUTH, "reason=\"ticket\"", AUTH_HELP},
    [M_AUTH_BUSY] = {AUTH, "reason=\"busy\"", AUTH_HELP},
#define DISCONNECTS      "tidegate_disconnects_total", COUNTER
#define DISCONNECTS_HELP "Connections that ended, by who or what ended them."
#define DISCONNECT(first, n, proto, reason)                                                                  \
    [(first) + (n)] = {DISCONNECTS, "proto=\"" proto "\",reason=\"" reason "\"", DISCONNECTS_HELP}
#define DISCONNECTS_OF(first, proto)                                                                         \
    DISCONNECT(first, 0, proto, "client"), DISCONNECT(first, 1, proto, "protocol"),                          \
        DISCONNECT(first, 2, proto, "timeout"), DISCONNECT(first, 3, proto, "limit"),                        \
        DISCONNECT(first, 4, proto, "server"), DISCONNECT(first, 5, proto, "network"),                       \
        DISCONNECT(first, 6, proto, "token_expired"), DISCONNECT(first, 7, proto, "revoked")
    DISCONNECTS_OF(M_DISCONNECT_CLIENT, "mqtt"),
    DISCONNECTS_OF(M_DISCONNECT_WS, "ws"),
    DISCONNECTS_OF(M_DISCONNECT_SSE, "sse"),
    DISCONNECTS_OF(M_DISCONNECT_POLL, "poll"),
    DISCONNECTS_OF(M_DISCONNECT_HTTP, "http"),
    [M_USER_CONNECTIONS] = {"tidegate_user_connections", GAUGE, NULL,
                            "Connections whose user is known, as the directory has them."},
    [M_USER_CONNECTIONS_REFUSED] = {"tidegate_user_connections_refused_total", COUNTER, NULL,
                                    "Connections closed because their user had limit.user_connections."},
    [M_ADDRESS_CONNECTIONS_REFUSED] = {"tidegate_address_connections_refused_total", COUNTER, NULL,
                                       "Connections closed because their address had "
                                       "limit.address_connections."},
#define RATE "tidegate_rate_limited_total", COUNTER
#define RATE_HELP                                                                                            \
    "Connects and publishes over limit.connect_rate_* or limit.publish_rate_*: refused, dropped (MQTT QoS "  \
    "0), or made to wait (MQTT QoS 1 and 2)."
    [M_RATE_CONNECT_ADDRESS] = {RATE, "what=\"connect\",by=\"address\"", RATE_HELP},
    [M_RATE_CONNECT_USER] = {RATE, "what=\"connect\",by=\"user\"", RATE_HELP},
    [M_RATE_CONNECT_NODE] = {RATE, "what=\"connect\",by=\"node\"", RATE_HELP},
    [M_RATE_PUBLISH_ADDRESS] = {RATE, "what=\"publish\",by=\"address\"", RATE_HELP},
    [M_RATE_PUBLISH_USER] = {RATE, "what=\"publish\",by=\"user\"", RATE_HELP},
    [M_RATE_PUBLISH_NODE] = {RATE, "what=\"publish\",by=\"node\"", RATE_HELP},
    [M_RATE_ENTRIES_SHARED] = {"tidegate_rate_entries_shared_total", COUNTER, NULL,
                               "Times that an address or user found no entry of its own "
                               "(limit.rate_entries)."},
    [M_TLS_HANDSHAKES] = {"tidegate_tls_handshakes_open", GAUGE, NULL,
                          "TLS connections whose handshake is not done yet."},
#define TLS_DONE      "tidegate_tls_handshakes_total", COUNTER
#define TLS_DONE_HELP "TLS handshakes done: with keys made anew, or resumed from a ticket."
    [M_TLS_HANDSHAKES_FULL] = {TLS_DONE, "kind=\"full\"", TLS_DONE_HELP},
    [M_TLS_HANDSHAKES_RESUMED] = {TLS_DONE, "kind=\"resumed\"", TLS_DONE_HELP},
#define TLS_FAILED "tidegate_tls_handshake_failures_total", COUNTER
#define TLS_FAILED_HELP                                                                                      \
    "TLS handshakes that failed. client_cert: it had none, or not a good one; server_cert: it did not "      \
    "believe ours."
    [M_TLS_FAILED_NOT_TLS] = {TLS_FAILED, "reason=\"not_tls\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_VERSION] = {TLS_FAILED, "reason=\"version\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_CLIENT_CERT] = {TLS_FAILED, "reason=\"client_cert\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_SERVER_CERT] = {TLS_FAILED, "reason=\"server_cert\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_ALPN] = {TLS_FAILED, "reason=\"alpn\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_TIMEOUT] = {TLS_FAILED, "reason=\"timeout\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_NETWORK] = {TLS_FAILED, "reason=\"network\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_STOPPED] = {TLS_FAILED, "reason=\"stopped\"", TLS_FAILED_HELP},
    [M_TLS_FAILED_OTHER] = {TLS_FAILED, "reason=\"other\"", TLS_FAILED_HELP},
    [M_SUBSCRIPTIONS] = {"tidegate_subscriptions", GAUGE, NULL, "Subscriptions of the sessions here."},
    [M_RETAINED] = {"tidegate_retained_messages", GAUGE, NULL, "Retained messages kept."},
    [M_RETAINED_BYTES] = {"tidegate_retained_bytes", GAUGE, NULL, "Memory of retained messages."},
    [M_ONCE_PRODUCERS] = {"tidegate_dedup_producers", GAUGE, NULL,
                          "Producers whose sequences are remembered."},
    [M_ONCE_KEYS] = {"tidegate_dedup_keys", GAUGE, NULL, "Idempotency-Keys that are remembered."},
    [M_ONCE_BYTES] = {"tidegate_dedup_bytes", GAUGE, NULL, "Memory of those producers and keys."},
    [M_ONCE_FORGOTTEN] =
        {"tidegate_dedup_forgotten_total", COUNTER, NULL,
         "Producers and keys forgotten before their time because of dedup.producers, dedup.max or "
         "dedup.bytes."},
    [M_SHARE_GROUPS] = {"tidegate_shared_groups", GAUGE, NULL,
                        "Groups of shared subscriptions, each in each of its partitions."},
    [M_SHARE_MEMBERS] = {"tidegate_shared_members", GAUGE, NULL,
                         "Their members, each in each of the group's partitions."},
    [M_SHARE_BEHIND] = {"tidegate_shared_groups_behind", GAUGE, NULL,
                        "Groups whose messages wait in the log until a member has room, or is back."},
    [M_SHARE_GIVEN] = {"tidegate_shared_given", GAUGE, NULL,
                       "Messages that lie with members of groups and are not acknowledged."},
    [M_SHARE_MOVED] = {"tidegate_shared_moved_total", COUNTER, NULL,
                       "Messages given once more, as a member could not take them, or has gone."},
    [M_SHARE_REFUSED] = {"tidegate_shared_refused_total", COUNTER, NULL,
                         "Shared subscriptions refused in a partition (limit.shared_groups, "
                         "limit.shared_kept)."},
    [M_SHARE_KEPT] =
        {"tidegate_shared_kept_members", GAUGE, NULL,
         "Members of groups whose session outlives its connections, connected or not, each in each "
         "of the group's partitions."},
    [M_SHARE_RECORDS] = {"tidegate_shared_records", GAUGE, NULL,
                         "Records of groups that have such a member, each in each of its partitions."},
    [M_SHARE_RECORD_BYTES] = {"tidegate_shared_record_bytes", GAUGE, NULL, "Memory of those records."},
    [M_SHARE_WRITES] = {"tidegate_shared_writes_total", COUNTER, NULL, "Writes of those records."},
    [M_SHARE_WRITES_REFUSED] = {"tidegate_shared_writes_refused_total", COUNTER, NULL,
                                "Writes of those records that the log has refused; they are tried again."},
    [M_INBOXES] = {"tidegate_inboxes", GAUGE, NULL, "Users whose inbox has a durable cursor."},
    [M_INBOX_BYTES] = {"tidegate_inbox_bytes", GAUGE, NULL, "Memory of those cursors' records."},
#define INBOX_WRITES      "tidegate_inbox_writes_total", COUNTER
#define INBOX_WRITES_HELP "Cursors of inboxes written, or refused by the log or limit.inboxes."
    [M_INBOX_WRITES] = {INBOX_WRITES, "result=\"ok\"", INBOX_WRITES_HELP},
    [M_INBOX_WRITES_REFUSED] = {INBOX_WRITES, "result=\"refused\"", INBOX_WRITES_HELP},
    [M_SESSIONS] = {"tidegate_sessions", GAUGE, NULL, "Durable WebSocket sessions kept."},
    [M_SESSION_BYTES] = {"tidegate_session_bytes", GAUGE, NULL, "Memory of their records."},
#define WRITES      "tidegate_session_writes_total", COUNTER
#define WRITES_HELP "Records of sessions written, or refused by the log or its limits."
    [M_SESSION_WRITES] = {WRITES, "result=\"ok\"", WRITES_HELP},
    [M_SESSION_WRITES_REFUSED] = {WRITES, "result=\"refused\"", WRITES_HELP},
    [M_SESSIONS_ATTACHED] = {"tidegate_sessions_attached", GAUGE, NULL,
                             "Durable sessions that a connection of this node holds."},
    [M_SESSION_WRITES_OPEN] = {"tidegate_session_writes_open", GAUGE, NULL,
                               "Records of sessions on their way to the log."},
#define RESUMES      "tidegate_session_resumes_total", COUNTER
#define RESUMES_HELP "Clients that came with a session's token."
    [M_SESSIONS_RESUMED] = {RESUMES, "result=\"ok\"", RESUMES_HELP},
    [M_SESSIONS_UNKNOWN] = {RESUMES, "result=\"unknown\"", RESUMES_HELP},
    [M_PAYLOAD_IN] =
        {"tidegate_payload_bytes_received_total", COUNTER, NULL,
         "Payload bytes of messages that publishers handed in and that were not refused at once."},
    [M_PAYLOAD_OUT] = {"tidegate_payload_bytes_sent_total", COUNTER, NULL,
                       "Payload bytes of messages offered to connections."},
    [M_PACKETS_IN] = {"tidegate_mqtt_packets_received_total", COUNTER, NULL,
                      "MQTT packets of any type from clients."},
    [M_PACKETS_OUT] = {"tidegate_mqtt_packets_answered_total", COUNTER, NULL,
                       "MQTT packets sent to clients, without those that carry messages."},
#define BYTES_IN      "tidegate_bytes_received_total", COUNTER
#define BYTES_IN_HELP "Bytes read from clients' sockets."
    [M_BYTES_IN_MQTT] = {BYTES_IN, "proto=\"mqtt\"", BYTES_IN_HELP},
    [M_BYTES_IN_WS] = {BYTES_IN, "proto=\"ws\"", BYTES_IN_HELP},
    [M_BYTES_IN_HTTP] = {BYTES_IN, "proto=\"http\"", BYTES_IN_HELP},
#define BYTES_OUT      "tidegate_bytes_sent_total", COUNTER
#define BYTES_OUT_HELP "Bytes written to clients' sockets."
    [M_BYTES_OUT_MQTT] = {BYTES_OUT, "proto=\"mqtt\"", BYTES_OUT_HELP},
    [M_BYTES_OUT_WS] = {BYTES_OUT, "proto=\"ws\"", BYTES_OUT_HELP},
    [M_BYTES_OUT_SSE] = {BYTES_OUT, "proto=\"sse\"", BYTES_OUT_HELP},
    [M_BYTES_OUT_POLL] = {BYTES_OUT, "proto=\"poll\"", BYTES_OUT_HELP},
#define HTTP      "tidegate_http_requests_total", COUNTER
#define HTTP_HELP "HTTP requests answered, by class of status."
    [M_HTTP_2XX] = {HTTP, "code=\"2xx\"", HTTP_HELP},
    [M_HTTP_4XX] = {HTTP, "code=\"4xx\"", HTTP_HELP},
    [M_HTTP_5XX] = {HTTP, "code=\"5xx\"", HTTP_HELP},
#define HTTP_HEADS "tidegate_http_heads_refused_total", COUNTER
#define HTTP_HEADS_HELP                                                                                      \
    "Heads of HTTP requests that were refused: larger than limit.http_head_bytes, or malformed."
    [M_HTTP_HEADS_LARGE] = {HTTP_HEADS, "reason=\"limit\"", HTTP_HEADS_HELP},
    [M_HTTP_HEADS_BAD] = {HTTP_HEADS, "reason=\"malformed\"", HTTP_HEADS_HELP},
    [M_BECAME_CURSOR] = {"tidegate_subscriptions_behind_total", COUNTER, NULL,
                         "Times a subscription fell behind and went on reading from the log."},
    [M_CURSORS] = {"tidegate_subscriptions_behind", GAUGE, NULL,
                   "Subscriptions that read from the log because they are behind."},
    [M_CATCHUP_WAITING] = {"tidegate_catchup_waiting", GAUGE, NULL,
                           "Subscriptions behind that wait for their turn to read (out.catchup_percent)."},
    [M_OUT_QUEUE_BYTES] = {"tidegate_outbound_queue_bytes", GAUGE, NULL, "Bytes that wait for sockets."},
    [M_LOG_RECORDS] = {"tidegate_log_records_total", COUNTER, NULL, "Records appended to the log."},
    [M_LOG_BYTES] = {"tidegate_log_bytes_total", COUNTER, NULL, "Bytes appended to the log."},
    [M_LOG_FRAMES] = {"tidegate_log_frames_total", COUNTER, NULL,
                      "Frames appended to the log (one a batch and partition)."},
    [M_LOG_SYNCS] = {"tidegate_log_syncs_total", COUNTER, NULL, "Calls of fdatasync for the log."},
    [M_LOG_READS] = {"tidegate_log_reads_total", COUNTER, NULL, "Read requests that the log served."},
    [M_LOG_READ_RECORDS] = {"tidegate_log_read_records_total", COUNTER, NULL, "Records read from the log."},
    [M_LOG_UNSYNCED_BYTES] = {"tidegate_log_unsynced_bytes", GAUGE, NULL,
                              "Bytes written to the log that no sync covers yet."},
    [M_LOG_UNINDEXED_BYTES] = {"tidegate_log_unindexed_bytes", GAUGE, NULL,
                               "Bytes of the log in memory that its index does not have yet."},
    [M_LOG_TORN_BYTES] = {"tidegate_log_torn_bytes_total", COUNTER, NULL,
                          "Bytes cut off at the log's end at start-up: the last write was not complete."},
    [M_LOG_REFUSED_FULL] = {"tidegate_log_refused_full_total", COUNTER, NULL,
                            "Records refused because the log's disk or its limit is full."},
    [M_LOG_DISK_FULL] = {"tidegate_log_disk_full", GAUGE, NULL,
                         "1 while the disk has no room for the next segment of the log."},
    [M_LOG_DISK_LEVEL] =
        {"tidegate_log_disk_level", GAUGE, NULL,
         "How full the log's disk is: 0 = enough room, 1 = warned, 2 = publishes are refused."},
    [M_LOG_DISK_FREE_BYTES] = {"tidegate_log_disk_free_bytes", GAUGE, NULL, "Free bytes of the log's disk."},
    [M_LOG_BALLAST_GIVEN] = {"tidegate_log_ballast_given_total", COUNTER, NULL,
                             "Times that the ballast was given up because the log's disk was full."},
    [M_LOG_SIZE_BYTES] = {"tidegate_log_size_bytes", GAUGE, NULL,
                          "Bytes of records in the log's files, without what is preallocated."},
    [M_LOG_TRIMMED_BYTES] = {"tidegate_log_trimmed_bytes_total", COUNTER, NULL,
                             "Bytes of the log that retention has removed."},
    [M_LOG_TRIMMED_SEGMENTS] = {"tidegate_log_trimmed_segments_total", COUNTER, NULL,
                                "Segments of the log that retention has removed."},
    [M_SNAPSHOTS] = {"tidegate_snapshots_total", COUNTER, NULL, "Snapshots of the log that were made."},
    [M_LOG_CARRIED] = {"tidegate_log_carried_records_total", COUNTER, NULL,
                       "Retained messages appended again because retention removes their segment."},
    [M_LOG_VOIDS] =
        {"tidegate_log_voids", GAUGE, NULL,
         "Records of a mirror that are void (repetitions, decisions that came late) and that reads "
         "skip."},
    [M_LOG_VOIDS_SHOWN] = {"tidegate_log_voids_shown_total", COUNTER, NULL,
                           "Void records beyond log.voids: reads show them."},
    [M_LOG_NAMES_BYTES] = {"tidegate_log_names_bytes", GAUGE, NULL,
                           "Memory of topic names that replays of filters with wildcards have met."},
#define FILTERED "tidegate_log_filter_records_total", COUNTER
#define FILTERED_HELP                                                                                        \
    "Records that replays of filters have passed: by the lists of their topics, or each looked at."
    [M_LOG_FILTER_MERGED] = {FILTERED, "how=\"lists\"", FILTERED_HELP},
    [M_LOG_FILTER_SCANNED] = {FILTERED, "how=\"scan\"", FILTERED_HELP},
    [M_LOG_SCRUB_BYTES] = {"tidegate_log_scrub_bytes_total", COUNTER, NULL,
                           "Bytes of sealed segments that the scrub has read again."},
    [M_LOG_SCRUB_DAMAGED] =
        {"tidegate_log_scrub_damaged_records", GAUGE, NULL,
         "Records that do not verify, by the scrub's last whole cycle or the one that runs."},
    [M_LOG_SCRUB_CYCLE_SECONDS] = {"tidegate_log_scrub_cycle_seconds", GAUGE, NULL,
                                   "How long the scrub's last whole cycle took."},
#define SEGMENTS "tidegate_log_segments_begun_total", COUNTER
#define SEGMENTS_HELP                                                                                        \
    "Segments begun, by their file: used before, made ahead, or made while the writer waited."
    [M_LOG_SEGMENTS_REUSED] = {SEGMENTS, "file=\"reused\"", SEGMENTS_HELP},
    [M_LOG_SEGMENTS_AHEAD] = {SEGMENTS, "file=\"ahead\"", SEGMENTS_HELP},
    [M_LOG_SEGMENTS_LATE] = {SEGMENTS, "file=\"late\"", SEGMENTS_HELP},
    [M_LOG_NOTES] = {"tidegate_log_notes_total", COUNTER, NULL,
                     "Producers and keys noted in the log because retention removes their records."},
    [M_LETTERS] =
        {"tidegate_letters_open", GAUGE, NULL,
         "Letters of the loops that wait for an answer: publishes, reads of the log, subscriptions being "
         "put in place, records of sessions."},
    [M_LOOP_TURNS] = {"tidegate_loop_turns_total", COUNTER, NULL, "Turns of the event loops."},
    [M_WAKES] = {"tidegate_loop_wakes_total", COUNTER, NULL, "Wake-ups sent from one loop to another."},
    [M_BRIDGES] = {"tidegate_bridges", GAUGE, NULL, "Bridges that the configuration names."},
    [M_BRIDGES_CONNECTED] = {"tidegate_bridges_connected", GAUGE, NULL,
                             "Bridges that are connected to their remote broker."},
#define BRIDGED      "tidegate_bridge_messages_total", COUNTER
#define BRIDGED_HELP "Messages that bridges brought in, and such as their remotes have taken."
    [M_BRIDGE_IN] = {BRIDGED, "direction=\"in\"", BRIDGED_HELP},
    [M_BRIDGE_OUT] = {BRIDGED, "direction=\"out\"", BRIDGED_HELP},
#define BRIDGE_DROPPED      "tidegate_bridge_dropped_total", COUNTER
#define BRIDGE_DROPPED_HELP "Messages that bridges did not carry."
    [M_BRIDGE_DROPPED_LOOP] = {BRIDGE_DROPPED, "reason=\"loop\"", BRIDGE_DROPPED_HELP},
    [M_BRIDGE_DROPPED_NO_ROUTE] = {BRIDGE_DROPPED, "reason=\"no_route\"", BRIDGE_DROPPED_HELP},
    [M_BRIDGE_DROPPED_REFUSED] = {BRIDGE_DROPPED, "reason=\"refused\"", BRIDGE_DROPPED_HELP},
    [M_BRIDGE_DROPPED_TOO_LARGE] = {BRIDGE_DROPPED, "reason=\"too_large\"", BRIDGE_DROPPED_HELP},
    [M_BRIDGE_RECONNECTS] = {"tidegate_bridge_reconnects_total", COUNTER, NULL,
                             "Attempts of bridges to connect again."},
#define BRIDGE_FAILURES      "tidegate_bridge_failures_total", COUNTER
#define BRIDGE_FAILURES_HELP "Connections and attempts of bridges that ended by themselves."
    [M_BRIDGE_FAILURES_UNREACHABLE] = {BRIDGE_FAILURES, "reason=\"unreachable\"", BRIDGE_FAILURES_HELP},
    [M_BRIDGE_FAILURES_TLS] = {BRIDGE_FAILURES, "reason=\"tls\"", BRIDGE_FAILURES_HELP},
    [M_BRIDGE_FAILURES_CREDENTIALS] = {BRIDGE_FAILURES, "reason=\"credentials\"", BRIDGE_FAILURES_HELP},
    [M_BRIDGE_FAILURES_REFUSED] = {BRIDGE_FAILURES, "reason=\"refused\"", BRIDGE_FAILURES_HELP},
    [M_BRIDGE_FAILURES_LOST] = {BRIDGE_FAILURES, "reason=\"lost\"", BRIDGE_FAILURES_HELP},
    [M_BRIDGE_FAILURES_OWN] = {BRIDGE_FAILURES, "reason=\"own\"", BRIDGE_FAILURES_HELP},
    [M_REDIS_UP] = {"tidegate_redis_up", GAUGE, NULL,
                    "1: the directory's Redis is connected and takes what the node writes."},
#define REDIS_CONNECTS      "tidegate_redis_connects_total", COUNTER
#define REDIS_CONNECTS_HELP "Attempts to connect to the directory's Redis."
    [M_REDIS_CONNECTS_OK] = {REDIS_CONNECTS, "result=\"ok\"", REDIS_CONNECTS_HELP},
    [M_REDIS_CONNECTS_FAILED] = {REDIS_CONNECTS, "result=\"failed\"", REDIS_CONNECTS_HELP},
    [M_REDIS_COMMANDS] = {"tidegate_redis_commands_total", COUNTER, NULL, "Commands sent to Redis."},
    [M_REDIS_ERRORS] = {"tidegate_redis_errors_total", COUNTER, NULL, "Commands that Redis has refused."},
    [M_DIRECTORY_ENTRIES] = {"tidegate_directory_entries", GAUGE, NULL,
                             "Connections of users that this node has in the directory in Redis."},
    [M_DIRECTORY_PENDING] = {"tidegate_directory_pending", GAUGE, NULL,
                             "Updates of the directory that Redis has not acknowledged."},
    [M_DIRECTORY_LAG_SECONDS] = {"tidegate_directory_lag_seconds", GAUGE, NULL,
                                 "How long Redis has owed the node an answer, or been away."},
#define AGAIN      "tidegate_directory_registrations_again_total", COUNTER
#define AGAIN_HELP "Times that the node has registered all its connections again, by why."
    [M_DIRECTORY_AGAIN_CONNECTION] = {AGAIN, "reason=\"connection\"", AGAIN_HELP},
    [M_DIRECTORY_AGAIN_LOST] = {AGAIN, "reason=\"lost\"", AGAIN_HELP},
    [M_DIRECTORY_AGAIN_OVERFLOW] = {AGAIN, "reason=\"overflow\"", AGAIN_HELP},
#define LOOKUPS      "tidegate_directory_lookups_total", COUNTER
#define LOOKUPS_HELP "Look-ups in the directory in Redis, and those whose answer said that it is stale."
    [M_DIRECTORY_LOOKUPS_FRESH] = {LOOKUPS, "result=\"fresh\"", LOOKUPS_HELP},
    [M_DIRECTORY_LOOKUPS_STALE] = {LOOKUPS, "result=\"stale\"", LOOKUPS_HELP},
    [M_DIRECTORY_SWEPT] = {"tidegate_directory_swept_total", COUNTER, NULL,
                           "Entries of dead nodes that this node has removed from Redis."},
    [M_DIRECTORY_CACHE_BYTES] = {"tidegate_directory_cache_bytes", GAUGE, NULL,
                                 "Earlier answers of the directory, kept for when Redis is away."},
    [M_NODES_DOWN_PROPOSED] =
        {"tidegate_nodes_down_proposed_total", COUNTER, NULL,
         "NODE_DOWN records that this node has proposed: one a partition and lost node, some twice."},
    [M_KAFKA_UP] = {"tidegate_kafka_up", GAUGE, NULL,
                    "1: Kafka answers; 0: publishes are refused. Without log.backend: kafka always 0."},
    [M_KAFKA_BROKERS] = {"tidegate_kafka_brokers_up", GAUGE, NULL,
                         "Brokers that the producer is connected to."},
    [M_KAFKA_UNDER_WAY] = {"tidegate_kafka_under_way", GAUGE, NULL,
                           "Records that were sent to Kafka and are not acknowledged."},
#define PROPOSED "tidegate_kafka_proposals_total", COUNTER
#define PROPOSED_HELP                                                                                        \
    "Records that this node has sent to Kafka, by what became of them; unknown: not told in time."
    [M_KAFKA_ACKNOWLEDGED] = {PROPOSED, "outcome=\"acknowledged\"", PROPOSED_HELP},
    [M_KAFKA_UNKNOWN] = {PROPOSED, "outcome=\"unknown\"", PROPOSED_HELP},
    [M_KAFKA_FAILED] = {PROPOSED, "outcome=\"failed\"", PROPOSED_HELP},
    [M_KAFKA_RECORDS] = {"tidegate_kafka_records_total", COUNTER, NULL, "Records that came from Kafka."},
    [M_KAFKA_FOREIGN] = {"tidegate_kafka_foreign_records_total", COUNTER, NULL,
                         "Of these, records that are none of ours: they keep their place and say nothing."},
    [M_KAFKA_FETCH_ERRORS] = {"tidegate_kafka_fetch_errors_total", COUNTER, NULL,
                              "Errors of fetching, which is tried again."},
    [M_KAFKA_LAG] = {"tidegate_kafka_lag_records", GAUGE, NULL,
                     "Records that have come and are not applied yet."},
#define RTT "tidegate_kafka_rtt_p99", GAUGE
#define RTT_HELP                                                                                             \
    "Slowest broker's round trip at p99 in millionths of a second, of librdkafka's last statistics; "        \
    "fetches wait for records."
    [M_KAFKA_RTT_OUT] = {RTT, "client=\"producer\"", RTT_HELP},
    [M_KAFKA_RTT_IN] = {RTT, "client=\"consumer\"", RTT_HELP},
    [M_KAFKA_REQUESTS] = {"tidegate_kafka_requests_total", COUNTER, NULL,
                          "Requests to brokers (librdkafka)."},
    [M_KAFKA_SENT_BYTES] = {"tidegate_kafka_sent_bytes_total", COUNTER, NULL,
                            "Bytes to brokers (librdkafka)."},
    [M_KAFKA_RECEIVED_BYTES] = {"tidegate_kafka_received_bytes_total", COUNTER, NULL,
                                "Bytes from brokers (librdkafka)."},
};

static const struct histogram_row {
    const char *name, *help;
    unsigned first_log2; /* the first bound is 2^this in the small unit, each next one twice that */
    bool is_ns; /* shown in seconds */
} histogram_rows[HISTOGRAM_COUNT] = {
    [H_DURABLE_SECONDS] = {"tidegate_log_append_seconds", "From accepting a message to its being durable.",
                           10, true},
    [H_DELIVERY_SECONDS] = {"tidegate_delivery_seconds",
                            "From accepting a message to handing it to a subscriber's socket.", 10, true},
    [H_CATCHUP_SECONDS] = {"tidegate_catchup_seconds",
                           "A loop's time for one piece read from the log for a subscription that is behind.",
                           12, true},
    [H_SYNC_SECONDS] = {"tidegate_log_fsync_seconds", "One fdatasync of the log.", 10, true},
    [H_BATCH_RECORDS] = {"tidegate_log_batch_records", "Records made durable by one sync.", 0, false},
    [H_REDIS_SECONDS] = {"tidegate_redis_command_seconds", "From a command to Redis to its reply.", 14, true},
};

static _Atomic(struct metrics *) registry;
static const char *version_text = "unknown";

static _Atomic int64_t certificate_end_s;

void metrics_set_certificate_end(int64_t unix_s)
{
    atomic_store_explicit(&certificate_end_s, unix_s, memory_order_relaxed);
}

void metrics_set_version(const char *version)
{
    version_text = version;
}

struct metrics *metrics_register(void)
{
    size_t size = (sizeof(struct metrics) + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES;
    struct metrics *m = aligned_alloc(CACHE_LINE_BYTES, size); /* no line is shared with another loop */
    if (!m)
        abort(); /* small, fixed, at start-up (STYLE 4) */
    memset(m, 0, size);
    m->next = atomic_load_explicit(&registry, memory_order_relaxed);
    /* Release: pairs with the acquire in registry_first, which then sees the zeroes and `next`. */
    while (!atomic_compare_exchange_weak_explicit(&registry, &m->next, m, memory_order_release,
                                                  memory_order_relaxed))
        ;
    return m;
}

static const struct metrics *registry_first(void)
{
    return atomic_load_explicit(&registry, memory_order_acquire);
}

/* The owner alone writes, so load and store need not be one operation. */
static void owner_add(_Atomic uint64_t *value, uint64_t n)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n, memory_order_relaxed);
}

/* The first bucket whose bound is not below the value; HISTOGRAM_BUCKETS when there is none. */
static unsigned bucket_of(const struct histogram_row *row, uint64_t value)
{
    unsigned log2_up = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);
    unsigned bucket = log2_up <= row->first_log2 ? 0 : log2_up - row->first_log2;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS;
}

void histogram_record(struct metrics *m, enum histogram id, uint64_t value)
{
    unsigned bucket = bucket_of(&histogram_rows[id], value);
    if (bucket < HISTOGRAM_BUCKETS)
        owner_add(&m->histograms[id].buckets[bucket], 1);
    owner_add(&m->histograms[id].count, 1);
    owner_add(&m->histograms[id].sum, value);
}

uint64_t metrics_sum(enum metric id)
{
    uint64_t sum = 0; /* modulo 2^64: one loop may add what another takes away */
    for (const struct metrics *m = registry_first(); m; m = m->next)
        sum += atomic_load_explicit(&m->values[id], memory_order_relaxed);
    return sum;
}

static enum status put_header(struct buf *out, const char *name, const char *type, const char *help)
{
    return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static enum status put_metric(struct buf *out, enum metric id)
{
    const struct metric_row *row = &rows[id];
    if (id == 0 || strcmp(rows[id - 1].name, row->name) != 0) {
        enum status st = put_header(out, row->name, row->type == GAUGE ? "gauge" : "counter", row->help);
        if (st != ST_OK)
            return st;
    }
    const char *open = row->labels ? "{" : "", *close = row->labels ? "}" : "";
    const char *labels = row->labels ? row->labels : "";
    uint64_t value = metrics_sum(id);
    if (row->type == GAUGE)
        return buf_printf(out, "%s%s%s%s %" PRId64 "\n", row->name, open, labels, close, (int64_t)value);
    return buf_printf(out, "%s%s%s%s %" PRIu64 "\n", row->name, open, labels, close, value);
}

struct histogram_sum {
    uint64_t buckets[HISTOGRAM_BUCKETS], count, sum;
};

static void sum_histogram(enum histogram id, struct histogram_sum *total)
{
    *total = (struct histogram_sum){0};
    for (const struct metrics *m = registry_first(); m; m = m->next) {
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
            total->buckets[i] += atomic_load_explicit(&m->histograms[id].buckets[i], memory_order_relaxed);
        total->count += atomic_load_explicit(&m->histograms[id].count, memory_order_relaxed);
        total->sum += atomic_load_explicit(&m->histograms[id].sum, memory_order_relaxed);
    }
}

static enum status put_histogram(struct buf *out, enum histogram id)
{
    const struct histogram_row *row = &histogram_rows[id];
    struct histogram_sum total;
    sum_histogram(id, &total);
    enum status st = put_header(out, row->name, "histogram", row->help);
    uint64_t up_to = 0;
    for (unsigned i = 0; st == ST_OK && i < HISTOGRAM_BUCKETS; i++) {
        up_to += total.buckets[i];
        double bound = (double)((uint64_t)1 << (row->first_log2 + i)) / (row->is_ns ? 1e9 : 1.0);
        st = buf_printf(out, "%s_bucket{le=\"%.10g\"} %" PRIu64 "\n", row->name, bound, up_to);
    }
    if (st != ST_OK)
        return st;
    /* The owner may have been between its two writes: the last bucket must not be below the others. */
    uint64_t count = total.count > up_to ? total.count : up_to;
    st = buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", row->name, count);
    if (st != ST_OK)
        return st;
    if (row->is_ns)
        st = buf_printf(out, "%s_sum %" PRIu64 ".%09u\n", row->name, total.sum / 1000000000u,
                        (unsigned)(total.sum % 1000000000u));
    else
        st = buf_printf(out, "%s_sum %" PRIu64 "\n", row->name, total.sum);
    return st == ST_OK ? buf_printf(out, "%s_count %" PRIu64 "\n", row->name, count) : st;
}

static enum status put_certificate(struct buf *out)
{
    int64_t end_s = atomic_load_explicit(&certificate_end_s, memory_order_relaxed);
    if (end_s == 0)
        return ST_OK;
    enum status st = put_header(out, "tidegate_tls_cert_expiry_seconds", "gauge",
                                "Until the first of the node's TLS certificates ends; negative: it has.");
    int64_t now_s = (int64_t)(clock_wall_ms(clock_system()) / 1000);
    return st == ST_OK ? buf_printf(out, "tidegate_tls_cert_expiry_seconds %" PRId64 "\n", end_s - now_s)
                       : st;
}

enum status metrics_render(struct buf *out)
{
    enum status st =
        put_header(out, "tidegate_build_info", "gauge", "Always 1; the label tells the version.");
    if (st == ST_OK)
        st = buf_printf(out, "tidegate_build_info{version=\"%s\"} 1\n", version_text);
    for (unsigned id = 0; st == ST_OK && id < METRIC_COUNT; id++)
        st = put_metric(out, (enum metric)id);
    for (unsigned id = 0; st == ST_OK && id < HISTOGRAM_COUNT; id++)
        st = put_histogram(out, (enum histogram)id);
    if (st == ST_OK)
        st = put_certificate(out);
    return st == ST_OK ? metrics_render_process(out) : st;
}
