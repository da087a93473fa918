/* `tidegate log snapshot`: asks the node that uses the log, by its private API (its port is in <data>/ports);
 * where there is none, it opens the log itself, as a node would, and takes the snapshot under its lock. */
#include "gateway/cli/log_target.h"

#include "core/store/snapshot.h"
#include "core/store/store.h"
#include "gateway/cli/node_api.h"

#include <inttypes.h>
#include <stdio.h>

/* --- by the API --- */

static int by_api(struct log_target *t, const char *name)
{
    char json[SNAPSHOT_NAME_BYTES_MAX + 16];
    struct buf answer;
    unsigned status = 0;
    int code = EXIT_CODE_OK;
    snprintf(json, sizeof json, "{\"name\":\"%s\"}", name);
    const struct node_request r = {.method = "POST", .target = "/v1/node/snapshot", .body = slice_cstr(json)};
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    enum status st = node_call(&t->settings, &r, &status, &answer);
    if (st == ST_OK && status == 200)
        fputs((const char *)answer.data, stdout);
    else
        code = node_call_failed(&t->settings, &r, st, status, (const char *)answer.data);
    buf_deinit(&answer);
    return code;
}

/* --- without a node --- */

static void on_durable(void *ctx, unsigned lane, uint64_t next)
{
    (void)ctx;
    (void)lane;
    (void)next;
}

static enum status take(struct log_target *t, struct store *store, const char *name)
{
    static const struct store_events events = {.on_durable = on_durable};
    struct snapshot_report report;
    uint64_t upto[STORE_LANES_MAX];
    struct loop *loop;
    enum status st = loop_create(clock_system(), 0, &loop);
    if (st != ST_OK)
        return st;
    struct metrics *metrics = metrics_register();
    for (unsigned i = 0; i < store_lane_count(store); i++)
        store_bind(store, i, loop, &events, NULL, metrics);
    loop_dispatch(loop); /* from here on it is this thread's */
    for (unsigned i = 0; st == ST_OK && i < store_lane_count(store); i++)
        st = store_roll(store, i, &upto[i]);
    if (st == ST_OK)
        st = store_snapshot(store, upto, name, t->settings.log_snapshots_max, &report, &t->error);
    if (st == ST_OK)
        printf("{\"path\":\"%s\",\"bytes\":%" PRIu64 ",\"segments\":%u}\n", report.path, report.bytes,
               report.segments);
    store_close(store);
    loop_dispatch(loop);
    loop_destroy(loop);
    return st;
}

static enum status by_hand(struct log_target *t, const char *name)
{
    const struct settings *s = &t->settings;
    struct store *store;
    struct store_options o = {
        .dir = s->data_dir,
        .lane_count = view_lane_count(t->view),
        .segment_bytes = s->log_segment_bytes,
        .unsynced_bytes_max = s->log_unsynced_bytes_max,
        .lazy_ms = s->log_lazy_ms,
        .lazy_bytes = s->log_lazy_bytes,
        .recent_bytes = s->log_recent_bytes,
        .sync = STORE_SYNC_ALWAYS,
        .disk_warn_percent = (unsigned)s->log_disk_warn_percent,
        .disk_refuse_percent = (unsigned)s->log_disk_refuse_percent,
        .clock = clock_system(),
    };
    enum status st = store_open(&o, &store, &t->error);
    return st == ST_OK ? take(t, store, name) : st;
}

int log_snapshot(int count, char **words)
{
    struct log_target t;
    char name[SNAPSHOT_NAME_BYTES_MAX + 1];
    const char *given = name;
    int code = log_target_parse(count, words, NULL, 0, 1, &t);
    if (code == 0)
        code = log_target_open(&t);
    if (code != 0)
        return code;
    snapshot_name_of_time(clock_wall_ms(clock_system()), name);
    if (t.arguments.operand_count > 0)
        given = t.arguments.operands[0];
    if (!snapshot_name_valid(given)) {
        code = arguments_refuse("a snapshot's name has 1 to 64 letters, digits, '-' and '_', not", given);
    } else if (view_running(t.view)) {
        code = by_api(&t, given);
    } else {
        enum status st = by_hand(&t, given);
        code = st == ST_OK ? 0 : log_target_fail(&t, st);
    }
    log_target_close(&t);
    return code;
}
