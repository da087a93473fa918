/* What a node says about itself: alive, ready, its figures, and what it can. */
#include "gateway/http/request.h"

#include "core/json.h"
#include "core/store/store.h"
#include "routing/directory_redis.h"
#include "routing/topic_log_kafka.h"

#include <stdio.h>

enum { METRICS_BYTES_MAX = 1 << 20, TEXT_BYTES_MAX = 4096 };

static const char json_type[] = "application/json";

static void reply_text(struct request *r, const char *text)
{
    struct buf body;
    buf_init(&body, TEXT_BYTES_MAX);
    if (buf_put_cstr(&body, text) != ST_OK)
        buf_clear(&body);
    request_reply(r, 200, json_type, &body);
}

void health_live(struct request *r)
{
    reply_text(r, "{\"status\":\"ok\"}\n");
}

/* The log is not here as it should be: why. */
static bool log_is_short(const struct node_facts *f, struct problem *p)
{
    switch (f->kafka ? log_kafka_state(f->kafka) : LOG_KAFKA_READY) {
    case LOG_KAFKA_READY:
        return false;
    case LOG_KAFKA_STARTING:
        p->detail = "the node has not yet read what the log had at its start";
        p->members = "\"reasons\":[\"catching_up\"]";
        break;
    case LOG_KAFKA_BEHIND:
        p->detail = "the node is more than 5 s behind the log";
        p->members = "\"reasons\":[\"behind\"]";
        break;
    case LOG_KAFKA_AWAY:
        p->detail = "Kafka does not answer: publishes are refused, all else is served";
        p->members = "\"reasons\":[\"log_unreachable\"]";
        break;
    }
    return true;
}

void health_ready(struct request *r)
{
    const struct node_facts *f = r->api->edge->facts;
    struct problem p = {.status = 503,
                        .code = "unavailable",
                        .detail = "the node is starting",
                        .retry_ms = RETRY_MS,
                        .members = "\"reasons\":[\"starting\"]"};
    if (atomic_load(&f->stopping)) {
        p.detail = "the node is stopping";
        p.members = "\"reasons\":[\"stopping\"]";
    } else if (atomic_load(&f->draining)) {
        p.detail = "the node is draining: its clients are being told to go";
        p.members = "\"reasons\":[\"draining\"]";
    } else if (atomic_load(&f->ready) && f->store && store_is_full(f->store)) {
        p.detail = "the log's disk is full: publishes are refused until there is room, all else is served";
        p.members = "\"reasons\":[\"storage_full\"]";
    } else if (atomic_load(&f->ready) && log_is_short(f, &p)) {
        /* said there */
    } else if (atomic_load(&f->ready)) {
        /* Nothing that a client is owed depends on it, so the node stays ready. */
        bool away = f->directory && !directory_redis_up(f->directory);
        reply_text(r, away ? "{\"status\":\"ok\",\"degraded\":[\"directory\"]}\n" : "{\"status\":\"ok\"}\n");
        return;
    }
    request_refuse(r, &p);
}

void health_metrics(struct request *r)
{
    struct buf body;
    buf_init(&body, METRICS_BYTES_MAX);
    if (metrics_render(&body) != ST_OK) {
        buf_deinit(&body);
        request_unavailable(r, "no memory");
        return;
    }
    request_reply(r, 200, "text/plain; version=0.0.4", &body);
}

/* --- capabilities ------------------------------------------------------------------------------- */

static enum status put_limits(struct buf *out, const struct edge *e)
{
    const struct settings *s = e->settings;
    return buf_printf(out,
                      ",\"limits\":{\"message_bytes\":%lu,\"topic_bytes\":%lu,\"topic_levels\":%lu,"
                      "\"subscriptions\":%lu,\"inflight\":%lu,\"ws_unacked\":%lu,\"publish_open\":%lu,"
                      "\"batch_messages\":%lu,\"batch_bytes\":%lu,\"history_count\":%lu,"
                      "\"retained\":%lu,\"retained_bytes\":%lu,\"sessions\":%lu,\"session_bytes\":%lu,"
                      "\"connections\":%lu,\"out_bytes\":%lu}",
                      (unsigned long)s->limit_message_bytes, (unsigned long)s->limit_topic_bytes,
                      (unsigned long)s->limit_topic_levels, (unsigned long)s->limit_subscriptions,
                      (unsigned long)s->limit_inflight, (unsigned long)s->limit_ws_unacked,
                      (unsigned long)s->limit_publish_open, (unsigned long)s->limit_batch_messages,
                      (unsigned long)s->limit_batch_bytes, (unsigned long)s->limit_history_count,
                      (unsigned long)s->limit_retained, (unsigned long)s->limit_retained_bytes,
                      (unsigned long)s->limit_sessions, (unsigned long)s->limit_session_bytes,
                      (unsigned long)atomic_load(&e->facts->connections_max),
                      (unsigned long)s->out_bytes_max);
}

/* Unless every acknowledgement follows its sync, it outlives the process, not the machine. */
static enum status put_local_durability(struct buf *out, const struct settings *s)
{
    static const char *const names[] = {"always", "interval", "never"};
    bool always = s->log_sync == STORE_SYNC_ALWAYS;
    enum status st =
        buf_printf(out,
                   ",\"durability\":{\"sync\":\"%s\",\"acknowledged\":\"%s\","
                   "\"survives_process_crash\":true,\"survives_power_cut\":%s,\"copies\":1",
                   names[s->log_sync], always ? "fdatasync" : "write", always ? "true" : "false");
    if (st == ST_OK && s->log_sync == STORE_SYNC_INTERVAL)
        st = buf_printf(out, ",\"power_cut_loses_ms\":%lu", (unsigned long)s->log_sync_interval_ms);
    return st == ST_OK ? buf_put_cstr(out, "}") : st;
}

/* What is acknowledged is in that many copies, of which a power cut may take all at once: Kafka does not
 * sync. */
static enum status put_kafka_durability(struct buf *out, const struct edge *e)
{
    struct log_kafka_facts f = log_kafka_facts(e->facts->kafka);
    return buf_printf(
        out,
        ",\"durability\":{\"sync\":\"kafka\",\"acknowledged\":\"acks=all\",\"survives_process_crash\":true,"
        "\"survives_power_cut\":%s,\"copies\":%u,\"min_copies\":%u,\"accepted_less\":%s},"
        "\"missing\":[\"retention\",\"shared_subscriptions\",\"bridges\",\"snapshots\",\"topics.store_"
        "false\","
        "%s\"takeover_of_sessions_that_are_not_kept\","
        "\"presence_of_other_nodes\",\"connections_of_other_nodes\"]",
        f.min_isr > 1 ? "true" : "false", f.replication, f.min_isr, f.accepted_less ? "true" : "false",
        e->facts->directory ? "" : "\"wills_of_lost_nodes\",\"expiry_of_sessions_of_lost_nodes\",");
}

static enum status put_durability(struct buf *out, const struct edge *e)
{
    return e->facts->kafka ? put_kafka_durability(out, e) : put_local_durability(out, e->settings);
}

static enum status put_doors(struct buf *out, const struct node_facts *f)
{
    unsigned http = f->http_port;
    return buf_printf(out,
                      ",\"doors\":{\"mqtt\":{\"port\":%u},\"websocket\":{\"port\":%u,\"path\":\"/ws\","
                      "\"subprotocol\":\"tidegate.v1.json\"},\"sse\":{\"port\":%u,\"path\":\"/sse\"},"
                      "\"poll\":{\"port\":%u,\"path\":\"/poll\"},\"api\":{\"port\":%u}}",
                      (unsigned)f->mqtt_port, http, http, http, (unsigned)f->api_port);
}

static enum status put_capabilities(struct buf *out, const struct edge *e)
{
    const struct settings *s = e->settings;
    enum status st = buf_put_cstr(out, "{\"node\":");
    if (st == ST_OK)
        st = json_put_string(out, slice_cstr(s->node_id));
    if (st == ST_OK)
        st = buf_printf(out,
                        ",\"version\":\"" TIDEGATE_VERSION "\",\"backend\":\"%s\",\"partitions\":%u,"
                        "\"epoch\":\"%08x\"",
                        e->facts->kafka ? "kafka" : "embedded", e->facts->lane_count,
                        (unsigned)e->facts->epoch);
    if (st == ST_OK)
        st = put_durability(out, e);
    if (st == ST_OK)
        st = put_doors(out, e->facts);
    if (st == ST_OK)
        st = buf_put_cstr(
            out,
            ",\"features\":[\"auth.token\",\"auth.password\",\"auth.jwks\",\"auth.cookie\",\"acl\","
            "\"tickets\",\"revocations\",\"publish\",\"publish.key\",\"publish.ttl\",\"publish.retain\","
            "\"publish.trace\","
            "\"publish.batch\",\"publish.cloudevents\","
            "\"publish.idempotency_key\",\"publish.wait.accepted\",\"publish.wait.durable\",\"history\","
            "\"history.from.earliest\",\"history.from.after\",\"history.from.time\",\"history.from.last\","
            "\"history.reverse\",\"retained\",\"connections\",\"sessions\",\"presence\",\"nodes\","
            "\"publish.producer\",\"policies\",\"lag\",\"drops\",\"users\",\"auth.token\",\"auth.rules\","
            "\"auth.revocations\",\"tls\",\"sse\",\"poll\",\"openapi\"]");
    if (st == ST_OK)
        st = put_limits(out, e);
    if (st == ST_OK)
        st = buf_put_cstr(out, "}\n");
    return st;
}

void capabilities_run(struct request *r)
{
    struct buf body;
    buf_init(&body, TEXT_BYTES_MAX);
    if (put_capabilities(&body, r->api->edge) != ST_OK) {
        buf_deinit(&body);
        request_unavailable(r, "no memory");
        return;
    }
    request_reply(r, 200, json_type, &body);
}
