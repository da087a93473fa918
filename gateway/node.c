/* Putting a node together. The order matters and is all in node_create: the log is open before anything can
 * be published, every loop knows every other before one runs, every libwebsockets context is created on this
 * one thread before any serves (LWS.md 2), and nothing is announced (pid, ports, readyz) before all of it
 * stands. */
#include "gateway/node.h"

#include "core/logging.h"
#include "core/pool.h"
#include "gateway/acceptor.h"
#include "gateway/activation.h"
#include "gateway/auth/revocations.h"
#include "gateway/auth/revoked_elsewhere.h"
#include "gateway/backend.h"
#include "gateway/bridge/bridges.h"
#include "gateway/descriptors.h"
#include "gateway/drain.h"
#include "gateway/edge.h"
#include "gateway/gate.h"
#include "gateway/lost_nodes.h"
#include "gateway/mqtt/shared.h"
#include "gateway/node_file.h"
#include "gateway/pulse.h"
#include "gateway/shared_directory.h"
#include "gateway/snapshots.h"
#include "gateway/sys.h"
#include "gateway/tls/server.h"
#include "routing/directory_redis.h"
#include "routing/topic_log_kafka.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_AGAIN = 75 }; /* sysexits' EX_TEMPFAIL: the supervisor starts us again */
enum { STOP_GRACE_MS = 1000, STOP_POLL_MS = 10, SETTLE_MS = 2000, AUTO_LOOPS_MAX = 8 };

struct node_loop {
    struct node *node;
    struct courier *courier;
    struct shard_group *shards;
    struct policies *policies;
    struct directory_local *directory;
    struct edge edge;
    struct tls_server *tls;
    struct mqtt_door *mqtt;
    struct web_door *web;
    struct api_door *api;
    struct echo_door *echo;
    struct sys *sys;
    struct mail drain_mail, stop_mail;
    struct pulse pulse;
    struct drain drain;
    struct lost_nodes lost_nodes;
    struct timer stop_timer;
    uint64_t stop_deadline_ms, answers_deadline_ms;
    pthread_t thread;
    bool started;
};

struct node {
    const struct settings *settings;
    struct backend backend;
    struct shard_map map;
    uint64_t clients_room; /* descriptors for clients; limit.connections may be less */
    struct auth_office *auth;
    struct gate *gate;
    struct node_facts facts;
    atomic_uint drained; /* loops */
    uint64_t answers_ms; /* how long publishes under way are waited for beyond STOP_GRACE_MS */
    unsigned loop_count;
    uint16_t echo_port;
    struct activation activation;
    struct snapshots *snapshots;
    struct bridges *bridges;
    struct shared_directory *shared; /* NULL: none is configured */
    struct tls_context *tls; /* NULL: no certificate */
    struct tls_context *fresh_tls; /* while a reload is prepared */
    struct node_loop loops[LOOPS_MAX];
};

/* --- parts -------------------------------------------------------------------------------------- */

static unsigned choose_loops(const struct settings *s)
{
    if (s->node_loops)
        return (unsigned)s->node_loops;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cores <= 2)
        return 1;
    return cores - 1 > AUTO_LOOPS_MAX ? AUTO_LOOPS_MAX : (unsigned)(cores - 1);
}

/* What the node needs beside connections: the log's files (VOLUMES_OPEN_MAX and one or two a partition),
 * three or four a loop and its pairs for handshakes, and listeners. */
enum { DESCRIPTORS_OWN = 256, DESCRIPTORS_A_LOOP = 8, DESCRIPTORS_A_PARTITION = 4 };

static enum status share_descriptors(struct node *n, uint64_t limit, struct buf *error)
{
    const struct settings *s = n->settings;
    struct descriptor_shares wanted = {.clients = s->limit_connections, .api = s->api_connections};
    uint64_t a_loop = DESCRIPTORS_A_LOOP + s->mqtt_refused_max + 2 * FRONT_PAIRS_MAX +
                      (tls_configured(s) ? 2 + s->mqtt_refused_max : 0);
    uint64_t own = DESCRIPTORS_OWN + a_loop * n->loop_count + DESCRIPTORS_A_PARTITION * s->log_partitions;
    struct descriptor_shares got;
    if (descriptors_share(limit, own, &wanted, &got) != ST_OK) {
        enum status st = buf_printf(error,
                                    "the limit of %lu file descriptors leaves none for connections (the node "
                                    "itself needs %lu): raise it (ulimit -n, systemd's LimitNOFILE)",
                                    (unsigned long)limit, (unsigned long)own);
        (void)st;
        return ST_FULL;
    }
    atomic_store(&n->facts.connections_max, got.clients);
    n->facts.api_connections_max = got.api;
    n->clients_room = limit - own - got.api;
    if (got.clients < wanted.clients || got.api < wanted.api)
        log_info("fewer connections than configured: the limit of file descriptors allows no more "
                 "limit.connections=%lu api.connections=%lu (raise it by ulimit -n or systemd's LimitNOFILE)",
                 (unsigned long)got.clients, (unsigned long)got.api);
    return ST_OK;
}

/* What the configuration says of topics, once for each loop. */
static enum status make_policies(const struct settings *s, struct policies **out)
{
    const struct config_rows *topics = &s->topics;
    struct topic_policy *rows = calloc(topics->count + 1, sizeof *rows);
    if (!rows)
        return ST_NO_MEMORY;
    for (size_t i = 0; i < topics->count; i++) {
        const struct topic_settings *t = (const struct topic_settings *)topics->rows + i;
        rows[i] = (struct topic_policy){.filter = slice_cstr(t->filter),
                                        .unstored = !t->store,
                                        .after_sync = t->deliver,
                                        .ttl_ms = t->ttl_ms,
                                        .retention_ms = t->retention_ms};
    }
    enum status st = policies_create(rows, topics->count, out);
    free(rows);
    return st;
}

/* The loop's own thread, or before it runs. */
static void use_policies(struct node_loop *l, struct policies *p)
{
    shard_group_set_policies(l->shards, p);
    hub_set_policies(l->edge.hub, p);
    policies_destroy(l->policies);
    l->policies = p;
}

/* What other nodes do by the log that they share with this one. */
static void on_attached_elsewhere(void *ctx, struct slice topic, uint64_t offset)
{
    struct node_loop *l = ctx;
    registry_attached_elsewhere(l->edge.registry, topic, offset);
}

static void on_incarnation_ended(void *ctx, unsigned lane, uint64_t incarnation, bool own)
{
    const struct node_loop *l = ctx;
    (void)incarnation;
    if (!own) {
        mqtt_door_lane_lost(l->mqtt, lane);
        return;
    }
    log_error("another node has started under this node.id: what this one writes does not count any more, so "
              "it ends node=%s lane=%u",
              l->edge.settings->node_id, lane);
    _exit(EXIT_AGAIN);
}

/* The main thread says goodbye to the clients, and ends the process: the next one is another incarnation. */
static void on_told_down(void *ctx, unsigned lane)
{
    const struct node_loop *l = ctx;
    struct node_facts *facts = &l->node->facts;
    if (atomic_exchange(&facts->told_down, true))
        return;
    atomic_store(&facts->ready, false);
    log_error("another node has declared this one dead, as its lease in the directory had run out: what it "
              "writes does not count any more, so it ends, to be started again node=%s lane=%u",
              l->edge.settings->node_id, lane);
    (void)kill(getpid(), SIGTERM);
}

static const struct shard_watch shared_log_watch = {
    .on_attached = on_attached_elsewhere, .on_ended = on_incarnation_ended, .on_told_down = on_told_down};

static enum status create_loop(struct node *n, unsigned index)
{
    struct node_loop *l = &n->loops[index];
    const struct settings *s = n->settings;
    struct hub_limits limits = {
        .subscriptions_max = (uint32_t)s->limit_subscriptions,
        .read_count = 256,
        .read_bytes = 64 * 1024,
        .drops_max = (uint32_t)s->limit_drops,
        .lag_messages = s->limit_lag_messages,
        .catchup_share = (uint32_t)s->out_catchup_percent,
        .topic = {.bytes_max = (uint32_t)s->limit_topic_bytes, .levels_max = (uint32_t)s->limit_topic_levels},
    };
    struct shard_limits shard = {
        .retained = {.count_max = s->limit_retained, .bytes_max = s->limit_retained_bytes},
        .once = {.producers_max = s->dedup_producers,
                 .keys_max = s->dedup_max,
                 .bytes_max = s->dedup_bytes,
                 .keep_ms = s->dedup_keep_ms},
        .sessions = {.count_max = s->limit_sessions, .bytes_max = s->limit_sessions_bytes},
        .inbox = {.records = {.count_max = s->limit_inboxes, .bytes_max = s->limit_inboxes_bytes},
                  .save_ms = s->session_save_ms,
                  .save_count = s->session_save_count,
                  .keep_ms = s->inbox_keep_ms},
        .share = {.groups = s->limit_shared_groups,
                  .given = s->limit_shared_given,
                  .given_bytes = s->limit_shared_bytes,
                  .kept = s->limit_shared_kept,
                  .kept_given = s->limit_shared_kept_given},
    };
    l->node = n;
    l->edge.metrics = metrics_register();
    l->edge.facts = &n->facts;
    l->edge.settings = s;
    l->edge.gate = n->gate;
    enum status st = loop_create(clock_system(), index, &l->edge.loop);
    if (st == ST_OK)
        st = courier_create(l->edge.loop, &l->courier);
    if (st == ST_OK)
        st = shard_group_create(l->courier, n->backend.log, l->edge.metrics, n->loop_count, &shard,
                                &l->shards);
    if (st == ST_OK && n->backend.kafka) {
        shard_group_set_node(l->shards, slice_cstr(s->node_id));
        shard_group_watch(l->shards, &shared_log_watch, l);
    }
    if (st == ST_OK)
        st = hub_create(l->courier, &n->map, l->edge.metrics, &limits, &l->edge.hub);
    if (st == ST_OK)
        st = registry_create(l->courier, &l->edge.registry);
    if (st == ST_OK)
        st = directory_local_create(l->courier, s->node_id, n->facts.incarnation, &l->directory);
    if (st == ST_OK)
        hub_set_directory(l->edge.hub, directory_local_port(l->directory));
    struct policies *policies = NULL;
    if (st == ST_OK)
        st = auth_create(n->auth, l->edge.loop, l->edge.metrics, &l->edge.auth);
    if (st == ST_OK)
        st = make_policies(s, &policies);
    if (st == ST_OK)
        use_policies(l, policies);
    return st;
}

static void join_directory(struct node *n, unsigned index)
{
    struct directory_beyond beyond = directory_redis_beyond(n->facts.directory);
    directory_redis_meet(n->facts.directory, index, n->loops[index].edge.loop);
    directory_local_set_beyond(n->loops[index].directory, &beyond);
}

/* Lanes go round the loops; then everybody is introduced to everybody. */
static enum status introduce_loops(struct node *n)
{
    n->map.lane_count = store_lane_count(n->backend.store);
    n->map.epoch = store_epoch(n->backend.store);
    assert(n->loop_count > 0);
    for (unsigned lane = 0; lane < n->map.lane_count; lane++) {
        unsigned home = lane % n->loop_count;
        enum status st = shard_create(n->loops[home].shards, lane, &n->map.lanes[lane].shard);
        if (st != ST_OK)
            return st;
        n->map.lanes[lane].loop_index = home;
    }
    for (unsigned i = 0; i < n->loop_count; i++) {
        for (unsigned k = 0; k < n->loop_count; k++) {
            courier_meet(n->loops[i].courier, k, n->loops[k].edge.loop);
            registry_meet(n->loops[i].edge.registry, k, n->loops[k].edge.registry, n->loop_count);
            shard_group_meet(n->loops[i].shards, k, n->loops[k].edge.hub, hub_on_deliver);
            hub_meet(n->loops[i].edge.hub, k, n->loops[k].edge.hub, n->loop_count);
            directory_local_meet(n->loops[i].directory, k, n->loops[k].directory, n->loop_count);
        }
        if (n->facts.directory)
            join_directory(n, i);
        shard_group_start(n->loops[i].shards);
        courier_start(n->loops[i].courier);
    }
    return ST_OK;
}

static enum status create_gate(struct node *n)
{
    enum { ENTRIES_A_CONNECTION = 4 }; /* so that hardly any finds its set of them taken */
    uint64_t entries = n->settings->limit_rate_entries;
    return gate_create(entries > 0 ? entries : ENTRIES_A_CONNECTION * n->facts.connections_max, &n->gate);
}

static enum status create_snapshots(struct node *n)
{
    struct loop *loops[LOOPS_MAX];
    for (unsigned i = 0; i < n->loop_count; i++)
        loops[i] = n->loops[i].edge.loop;
    enum status st = snapshots_create(n->backend.store, n->settings->log_snapshots_max, loops, n->loop_count,
                                      &n->snapshots);
    for (unsigned i = 0; i < n->loop_count; i++)
        n->loops[i].edge.snapshots = n->snapshots;
    return st;
}

/* A state that was folded anew must be the one that was there before (tests/e2e/node.py compares). */
static void log_state(const struct node *n, const char *when)
{
    uint64_t at_ms = n->settings->test_state_at_ms;
    for (unsigned lane = 0; at_ms > 0 && lane < n->map.lane_count; lane++) {
        struct shard_digest d;
        shard_digest(n->map.lanes[lane].shard, at_ms, &d);
        log_info(
            "state at %s lane=%u retained=%lu sessions=%lu inboxes=%lu groups=%lu once=%lu digest=%016lx",
            when, lane, (unsigned long)d.retained, (unsigned long)d.sessions, (unsigned long)d.inboxes,
            (unsigned long)d.groups, (unsigned long)d.once, (unsigned long)d.digest);
    }
}

/* Before anybody can publish or subscribe, the shards know what the log says. */
static enum status fold_lanes(struct node *n)
{
    for (unsigned lane = 0; lane < n->map.lane_count; lane++) {
        enum status st = shard_fold(n->map.lanes[lane].shard);
        if (st != ST_OK)
            return st;
    }
    log_state(n, "start");
    mqtt_shared_recall(&n->map);
    return ST_OK;
}

static bool wants_revocation(void *ctx, struct slice topic)
{
    (void)ctx;
    return revocation_topic(topic);
}

static void on_revocation(void *ctx, const struct msg *m)
{
    auth_office_fold(ctx, m);
}

static void on_own_record(void *ctx, unsigned lane, const struct msg *m)
{
    struct node *n = ctx;
    revoked_elsewhere(&n->loops[n->map.lanes[lane].loop_index].edge, m);
}

/* Nor may the revoked come in before that is known. */
static void fold_revocations(struct node *n)
{
    for (unsigned lane = 0; lane < n->map.lane_count; lane++)
        shard_each_retained(n->map.lanes[lane].shard, wants_revocation, on_revocation, n->auth);
    if (n->backend.kafka)
        log_kafka_watch(n->backend.kafka, on_own_record, n);
}

static enum status load_tls(struct node *n, struct buf *error)
{
    if (!tls_configured(n->settings))
        return ST_OK;
    enum status st = tls_context_load(n->settings, &n->tls, error);
    if (st != ST_OK)
        return st;
    metrics_set_certificate_end(tls_context_expiry(n->tls));
    if (tls_context_expiry(n->tls) <= (int64_t)(clock_wall_ms(clock_system()) / 1000))
        log_warn("a certificate of tls.cert_file has expired: clients will not believe it");
    n->facts.mqtts_port = (uint16_t)n->settings->mqtt_tls_port;
    n->facts.https_port = (uint16_t)n->settings->http_tls_port;
    return ST_OK;
}

static enum status open_tls_ports(struct node *n, unsigned index, struct buf *error)
{
    struct node_loop *l = &n->loops[index];
    const struct settings *s = n->settings;
    if (!n->tls)
        return ST_OK;
    int fd;
    enum status st = activation_open(&n->activation, index, "MQTT over TLS", s->mqtt_bind,
                                     &n->facts.mqtts_port, "mqtt.tls_port", &fd, error);
    if (st == ST_OK)
        st = mqtt_door_listen_tls(l->mqtt, fd);
    if (st != ST_OK)
        return st;
    st = activation_open(&n->activation, index, "the public HTTP port over TLS", s->http_bind,
                         &n->facts.https_port, "http.tls_port", &fd, error);
    return st == ST_OK ? web_door_listen_tls(l->web, fd) : st;
}

static enum status open_doors(struct node *n, unsigned index, struct buf *error)
{
    struct node_loop *l = &n->loops[index];
    const struct settings *s = n->settings;
    int fd;
    enum status st = n->tls ? tls_server_create(&l->edge, n->tls, &l->tls) : ST_OK;
    if (st == ST_OK)
        st = activation_open(&n->activation, index, "MQTT", s->mqtt_bind, &n->facts.mqtt_port, "mqtt.port",
                             &fd, error);
    if (st == ST_OK)
        st = mqtt_door_create(&l->edge, fd, &l->mqtt);
    if (st != ST_OK)
        return st;
    st = activation_open(&n->activation, index, "the public HTTP port", s->http_bind, &n->facts.http_port,
                         "http.port", &fd, error);
    if (st == ST_OK)
        st = web_door_create(&l->edge, fd, &l->web, error);
    if (st == ST_OK)
        st = open_tls_ports(n, index, error);
    if (st == ST_OK && index == 0) {
        st = activation_open(&n->activation, index, "the private API", s->api_bind, &n->facts.api_port,
                             "api.port", &fd, error);
        if (st == ST_OK)
            st = api_door_create(&l->edge, fd, &l->api, error);
    }
    if (st == ST_OK && index == 0 && s->test_echo_port) {
        n->echo_port = (uint16_t)s->test_echo_port;
        st = listen_open("the echo test port", "127.0.0.1", &n->echo_port, false, "test.echo_port", &fd,
                         error);
        if (st == ST_OK)
            st = echo_door_create(&l->edge, fd, &l->echo);
    }
    if (st == ST_OK)
        st = sys_create(&l->edge, &l->sys);
    if (st == ST_OK)
        hub_start(l->edge.hub); /* last: its scratch space ends after the doors have flushed */
    return st;
}

static void close_loop(struct node_loop *l)
{
    api_door_destroy(l->api);
    mqtt_door_destroy(l->mqtt); /* sockets of its clients are lent by the web door */
    web_door_destroy(l->web);
    echo_door_destroy(l->echo);
    tls_server_destroy(l->tls);
}

static void free_node(struct node *n)
{
    activation_close(&n->activation);
    bridges_destroy(n->bridges);
    shared_directory_destroy(n->shared);
    for (unsigned i = 0; i < n->loop_count; i++)
        close_loop(&n->loops[i]);
    snapshots_stop(n->snapshots);
    backend_close_store(&n->backend);
    for (unsigned i = 0; i < n->loop_count; i++) {
        sys_destroy(n->loops[i].sys);
        registry_destroy(n->loops[i].edge.registry);
        hub_destroy(n->loops[i].edge.hub);
        directory_local_destroy(n->loops[i].directory);
        shard_group_destroy(n->loops[i].shards);
        policies_destroy(n->loops[i].policies);
        courier_destroy(n->loops[i].courier);
        auth_destroy(n->loops[i].edge.auth);
    }
    auth_office_destroy(n->auth);
    backend_close(&n->backend);
    for (unsigned i = 0; i < n->loop_count; i++)
        loop_destroy(n->loops[i].edge.loop);
    snapshots_destroy(n->snapshots);
    tls_context_unref(n->tls);
    gate_destroy(n->gate);
    free(n);
}

enum status node_create(const struct settings *settings, struct node **out, struct buf *error)
{
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        return ST_NO_MEMORY;
    n->settings = settings;
    n->loop_count = choose_loops(settings);
    n->facts.settings = settings;
    enum status st = activation_begin(&n->activation, n->loop_count, error);
    if (st == ST_OK)
        st = share_descriptors(n, descriptors_raise(), error);
    if (st == ST_OK)
        st = backend_open(settings, &n->backend, error);
    if (st != ST_OK) {
        activation_close(&n->activation);
        free(n);
        return st;
    }
    st = auth_office_create(settings, &n->auth, error);
    n->facts.started_wall_ms = clock_wall_ms(clock_system());
    n->facts.store = n->backend.store;
    n->facts.epoch = store_epoch(n->backend.store);
    n->facts.incarnation = n->backend.incarnation;
    n->facts.kafka = n->backend.kafka;
    n->facts.lane_count = store_lane_count(n->backend.store);
    n->facts.mqtt_port = (uint16_t)settings->mqtt_port;
    n->facts.http_port = (uint16_t)settings->http_port;
    n->facts.api_port = (uint16_t)settings->api_port;
    if (st == ST_OK)
        st = create_gate(n);
    if (st == ST_OK)
        st = shared_directory_create(settings, &n->facts, &n->shared, error);
    n->facts.directory = shared_directory_redis(n->shared);
    for (unsigned i = 0; i < n->loop_count && st == ST_OK; i++)
        st = create_loop(n, i);
    if (st == ST_OK)
        st = introduce_loops(n);
    if (st == ST_OK)
        st = create_snapshots(n);
    if (st == ST_OK)
        st = fold_lanes(n);
    if (st == ST_OK)
        fold_revocations(n);
    if (st == ST_OK)
        st = load_tls(n, error);
    if (st == ST_OK)
        st = bridges_create(settings, &n->loops[0].edge, &n->bridges, error);
    for (unsigned i = 0; i < n->loop_count && st == ST_OK; i++)
        st = open_doors(n, i, error);
    if (st == ST_OK)
        st = activation_end(&n->activation, error);
    if (st != ST_OK) {
        free_node(n);
        return st;
    }
    *out = n;
    return ST_OK;
}

/* --- running ------------------------------------------------------------------------------------ */

static void *loop_thread(void *ctx)
{
    struct node_loop *l = ctx;
    char name[16]; /* with the NUL: all that Linux keeps (pthread_setname_np(3)) */
    snprintf(name, sizeof name, "loop %u", loop_index(l->edge.loop));
    (void)pthread_setname_np(pthread_self(), name);
    web_door_run(l->web);
    pool_drain();
    return NULL;
}

enum status node_start(struct node *n, struct buf *error)
{
    char text[256];
    for (unsigned i = 0; i < n->loop_count; i++)
        mqtt_door_start(n->loops[i].mqtt);
    for (unsigned i = 0; i < n->loop_count; i++)
        lost_nodes_start(&n->loops[i].lost_nodes, &n->loops[i].edge, &n->map);
    if (auth_office_start(n->auth) != ST_OK) {
        enum status told = buf_printf(error, "cannot start the threads that check passwords and fetch keys");
        (void)told;
        return ST_IO;
    }
    if (n->facts.directory && directory_redis_start(n->facts.directory) != ST_OK) {
        enum status told = buf_printf(error, "cannot start the thread of the directory in Redis");
        (void)told;
        return ST_IO;
    }
    for (unsigned i = 0; i < n->loop_count; i++) {
        if (pthread_create(&n->loops[i].thread, NULL, loop_thread, &n->loops[i]) != 0) {
            enum status st =
                buf_printf(error, "cannot start thread %u of %u: lower node.loops", i + 1, n->loop_count);
            (void)st;
            return ST_IO;
        }
        n->loops[i].started = true;
    }
    enum status st = backend_start(&n->backend, error);
    if (st != ST_OK)
        return st;
    if (bridges_start(n->bridges) != ST_OK) {
        enum status told = buf_printf(error, "cannot start the threads of the bridges");
        (void)told;
        return ST_IO;
    }
    snprintf(text, sizeof text, "%ld\n", (long)getpid());
    st = node_file_write(n->settings->data_dir, "pid", text, error);
    if (st != ST_OK)
        return st;
    int used = snprintf(text, sizeof text, "mqtt=%u\nhttp=%u\napi=%u\n", n->facts.mqtt_port,
                        n->facts.http_port, n->facts.api_port);
    if (n->tls)
        used += snprintf(text + used, sizeof text - (size_t)used, "mqtts=%u\nhttps=%u\n", n->facts.mqtts_port,
                         n->facts.https_port);
    if (n->echo_port)
        snprintf(text + used, sizeof text - (size_t)used, "echo=%u\n", n->echo_port);
    atomic_store(&n->facts.ready, true);
    st = node_file_write(n->settings->data_dir, "ports", text, error);
    if (st == ST_OK)
        log_info("serving node=%s mqtt=%s:%u http=%s:%u mqtts=%u https=%u api=%s:%u loops=%u partitions=%u "
                 "data=%s",
                 n->settings->node_id, n->settings->mqtt_bind, n->facts.mqtt_port, n->settings->http_bind,
                 n->facts.http_port, n->facts.mqtts_port, n->facts.https_port, n->settings->api_bind,
                 n->facts.api_port, n->loop_count, n->facts.lane_count, n->settings->data_dir);
    return st;
}

/* --- new certificates ----------------------------------------------------------------------------- */

static enum status judge_certificates(const struct tls_context *t, const struct settings *s,
                                      struct buf *error)
{
    if (tls_context_expiry(t) > (int64_t)(clock_wall_ms(clock_system()) / 1000))
        return ST_OK;
    enum status st = buf_printf(error, "tls.cert_file: %s: a certificate has expired", s->tls_cert_file);
    (void)st;
    return ST_EXPIRED;
}

enum status node_prepare_tls(void *node, const struct settings *next, struct buf *error)
{
    struct node *n = node;
    if (!n->tls)
        return ST_OK;
    enum status st = tls_context_load(next, &n->fresh_tls, error);
    if (st == ST_OK)
        st = judge_certificates(n->fresh_tls, next, error);
    if (st != ST_OK)
        node_abandon_tls(n);
    return st;
}

void node_commit_tls(void *node)
{
    struct node *n = node;
    enum status st = ST_OK;
    if (!n->fresh_tls)
        return;
    for (unsigned i = 0; i < n->loop_count && st == ST_OK; i++)
        st = tls_server_renew(n->loops[i].tls, n->fresh_tls);
    if (st != ST_OK)
        log_error("no memory for new certificates: some loops keep the old ones until the next reload");
    tls_context_unref(n->tls);
    n->tls = n->fresh_tls;
    n->fresh_tls = NULL;
    metrics_set_certificate_end(tls_context_expiry(n->tls));
    log_info("certificates read again files=%s", n->settings->tls_cert_file);
}

void node_abandon_tls(void *node)
{
    struct node *n = node;
    tls_context_unref(n->fresh_tls);
    n->fresh_tls = NULL;
}

struct auth_office *node_auth(struct node *n)
{
    return n->auth;
}

struct bridges *node_bridges(struct node *n)
{
    return n->bridges;
}

/* --- other settings ----------------------------------------------------------------------------- */

/* To each loop, whose thread then takes the settings and what was made of them. */
struct change {
    struct mail mail;
    struct node_loop *loop;
    const struct settings *settings;
    struct policies *policies;
    sem_t *taken;
};

static void change_arrived(struct mail *mail)
{
    struct change *c = LIST_OF(mail, struct change, mail);
    struct node_loop *l = c->loop;
    const struct settings *s = c->settings;
    l->edge.settings = s;
    hub_set_limits(l->edge.hub, (uint32_t)s->limit_subscriptions, s->limit_lag_messages);
    use_policies(l, c->policies);
    web_door_use_settings(l->web);
    sys_use_settings(l->sys);
    if (l->api)
        api_door_use_settings(l->api);
    sem_post(c->taken); /* the last that is done with `c` */
}

enum status node_use_settings(struct node *n, const struct settings *next)
{
    struct change changes[LOOPS_MAX] = {0};
    sem_t taken;
    enum status st = ST_OK;
    for (unsigned i = 0; i < n->loop_count && st == ST_OK; i++)
        st = make_policies(next, &changes[i].policies);
    if (st != ST_OK) {
        for (unsigned i = 0; i < n->loop_count; i++)
            policies_destroy(changes[i].policies);
        return st;
    }
    sem_init(&taken, 0, 0);
    for (unsigned i = 0; i < n->loop_count; i++) {
        changes[i].loop = &n->loops[i];
        changes[i].settings = next;
        changes[i].taken = &taken;
        changes[i].mail.on_arrival = change_arrived;
        loop_post(n->loops[i].edge.loop, &changes[i].mail);
    }
    for (unsigned i = 0; i < n->loop_count; i++)
        while (sem_wait(&taken) != 0)
            continue; /* EINTR */
    sem_destroy(&taken);
    n->settings = next;
    atomic_store(&n->facts.connections_max,
                 next->limit_connections < n->clients_room ? next->limit_connections : n->clients_room);
    return ST_OK;
}

/* --- does it move? -------------------------------------------------------------------------------- */

bool node_moves(struct node *n, uint64_t patience_ms)
{
    bool moves = store_busy_ms(n->backend.store) <= patience_ms;
    for (unsigned i = 0; i < n->loop_count; i++)
        moves &= pulse_beats(&n->loops[i].pulse, n->loops[i].edge.loop);
    return moves;
}

bool node_told_down(const struct node *n)
{
    return atomic_load(&n->facts.told_down);
}

/* --- draining ----------------------------------------------------------------------------------- */

void node_announce_drain(struct node *n)
{
    atomic_store(&n->facts.drain_wanted, true);
    atomic_store(&n->facts.draining, true);
}

static void drain_arrived(struct mail *mail)
{
    drain_begin(&LIST_OF(mail, struct node_loop, drain_mail)->drain);
}

void node_drain(struct node *n)
{
    bridges_stop(n->bridges); /* what is left is owed to their sessions */
    n->answers_ms = n->settings->drain_max_ms;
    for (unsigned i = 0; i < n->loop_count; i++) {
        struct node_loop *l = &n->loops[i];
        l->drain = (struct drain){.edge = &l->edge,
                                  .web = l->web,
                                  .mqtt = l->mqtt,
                                  .rate = n->settings->drain_rate,
                                  .loop_count = n->loop_count,
                                  .drained = &n->drained};
        l->drain_mail.on_arrival = drain_arrived;
        loop_post(l->edge.loop, &l->drain_mail);
    }
}

bool node_drained(const struct node *n)
{
    return atomic_load(&n->drained) == n->loop_count;
}

void node_hurry(struct node *n)
{
    n->answers_ms = 0;
}

/* --- stopping ----------------------------------------------------------------------------------- */

static void stop_poll(struct timer *t)
{
    struct node_loop *l = LIST_OF(t, struct node_loop, stop_timer);
    uint64_t now = loop_now_ms(l->edge.loop);
    struct node_facts *facts = &l->node->facts;
    bool gone = atomic_load(&facts->connections) == 0 && atomic_load(&facts->api_connections) == 0;
    bool owed = now < l->answers_deadline_ms && metrics_sum(M_PUBLISH_OPEN) > 0;
    if (gone || (now >= l->stop_deadline_ms && !owed))
        loop_stop(l->edge.loop);
    else
        timer_arm(loop_timers(l->edge.loop), t, now + STOP_POLL_MS);
}

static void stop_arrived(struct mail *mail)
{
    struct node_loop *l = LIST_OF(mail, struct node_loop, stop_mail);
    drain_end(&l->drain);
    lost_nodes_stop(&l->lost_nodes);
    if (l->api)
        api_door_stop(l->api);
    web_door_stop(l->web);
    mqtt_door_stop(l->mqtt);
    l->stop_deadline_ms = loop_now_ms(l->edge.loop) + STOP_GRACE_MS;
    l->answers_deadline_ms = l->stop_deadline_ms + l->node->answers_ms;
    timer_init(&l->stop_timer, stop_poll);
    timer_arm(loop_timers(l->edge.loop), &l->stop_timer, loop_now_ms(l->edge.loop) + STOP_POLL_MS);
}

static bool hubs_idle(const struct node *n)
{
    for (unsigned i = 0; i < n->loop_count; i++)
        if (!hub_idle(n->loops[i].edge.hub))
            return false;
    return true;
}

/* One turn of every loop, on the calling thread; waits a tick at most for something to happen. */
static void turn_all(struct node *n)
{
    struct pollfd wakers[LOOPS_MAX];
    int timeout_ms = TIMER_TICK_MS;
    for (unsigned i = 0; i < n->loop_count; i++) {
        if (loop_prepare(n->loops[i].edge.loop) == 0)
            timeout_ms = 0;
        wakers[i] = (struct pollfd){.fd = loop_poll_fd(n->loops[i].edge.loop), .events = POLLIN};
    }
    (void)poll(wakers, n->loop_count, timeout_ms);
    for (unsigned i = 0; i < n->loop_count; i++)
        loop_dispatch(n->loops[i].edge.loop);
}

/* The threads have ended, each in its own moment, and left letters on the way to each other and to the log:
 * what they carry would never be freed, and what they point to may be. They arrive here. */
static void settle(struct node *n)
{
    uint64_t end_ms = clock_mono_ms(clock_system()) + SETTLE_MS;
    while ((!hubs_idle(n) || (n->facts.directory && !directory_redis_idle(n->facts.directory))) &&
           clock_mono_ms(clock_system()) < end_ms)
        turn_all(n);
    for (unsigned i = 0; i < 3;
         i++) /* letters that nobody answers: DELIVER, DETACH; and claims there and back */
        turn_all(n);
}

void node_stop(struct node *n)
{
    if (!n)
        return;
    atomic_store(&n->facts.ready, false);
    atomic_store(&n->facts.stopping, true);
    bridges_stop(n->bridges);
    for (unsigned i = 0; i < n->loop_count; i++) {
        if (!n->loops[i].started)
            continue;
        n->loops[i].stop_mail.on_arrival = stop_arrived;
        loop_post(n->loops[i].edge.loop, &n->loops[i].stop_mail);
    }
    for (unsigned i = 0; i < n->loop_count; i++)
        if (n->loops[i].started)
            pthread_join(n->loops[i].thread, NULL);
    auth_office_stop(n->auth); /* its last answers arrive while we settle */
    settle(n);
    backend_stop(&n->backend);
    turn_all(n); /* what it has brought */
    turn_all(n);
    log_state(n, "stop");
    node_file_remove(n->settings->data_dir, "ports");
    node_file_remove(n->settings->data_dir, "pid");
    free_node(n);
}
