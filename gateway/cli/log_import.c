/* `tidegate log import`: appends the messages of such lines as `export` writes, as a node would: under the
 * lock, through the store, with a START of its own. What was said to be imported is synced.
 *
 * Times. A message keeps its time: the store's clock stands at the time of the line. Within one run times
 * must not fall (FORMAT.md 4), so a line that is older than one before it gets that one's time, and is
 * counted. The lines of an export come by time, so this happens only where the clock of the exported log had
 * been set back.
 *
 * A line is stored whole or not at all. The first one that cannot be stops the import, unless --keep-going;
 * all before it is in the log then, so the rest can follow by `tail -n +<line>`. */
#include "gateway/cli/line_input.h"
#include "gateway/cli/log_line.h"
#include "gateway/cli/log_target.h"

#include "core/store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { POLL_MS = 20, APPENDS_A_TURN = 256, AHEAD_MS_MAX = 24 * 3600 * 1000 };

struct import {
    struct log_target target;
    struct line_input input;
    struct line_limits limits;
    struct store *store;
    struct loop *loop;
    struct metrics *metrics;
    struct clock clock; /* whose wall time is that of the lines */
    _Atomic uint64_t wall_ms; /* the reader thread looks at it too; orders nothing */
    unsigned lane_count;
    bool keep_going;
    uint64_t imported, refused, raised;
    uint64_t appends; /* since the loop had a turn */
};

static uint64_t real_mono_ns(void *ctx)
{
    (void)ctx;
    return clock_mono_ns(clock_system());
}

static uint64_t line_wall_ms(void *ctx)
{
    return atomic_load_explicit(&((struct import *)ctx)->wall_ms, memory_order_relaxed);
}

/* --- lines --- */

static void tell_line(const struct import *im, const char *what)
{
    fprintf(stderr, "tidegate: line %" PRIu64 " %s\n", im->input.number, what);
}

/* The next message. ST_NOT_FOUND: the end; ST_INVALID: a line was refused (it was told). */
static enum status next_message(struct import *im, struct msg **out)
{
    const char *why = "is too long: raise limit.message_bytes";
    enum status st = line_input_next(&im->input);
    if (st == ST_OK)
        st = log_line_read(buf_slice(&im->input.line), &im->limits, out, &why);
    /* It would become the time of everything behind it, since times do not fall. */
    if (st == ST_OK && (*out)->ts_ms > clock_wall_ms(clock_system()) + AHEAD_MS_MAX) {
        msg_unref(*out);
        why = "has a ts that lies more than a day ahead";
        st = ST_INVALID;
    }
    if (st == ST_INVALID || st == ST_TOO_LARGE) {
        tell_line(im, why);
        im->refused++;
        return ST_INVALID;
    }
    if (st == ST_IO)
        fprintf(stderr, "tidegate: cannot read the input: %s\n", strerror(errno));
    if (st == ST_OK && (*out)->ts_ms == 0)
        (*out)->ts_ms = clock_wall_ms(clock_system());
    return st;
}

/* The next one that is good; without --keep-going the first bad one is the end: ST_INVALID. */
static enum status next_good_message(struct import *im, struct msg **out)
{
    enum status st;
    do {
        st = next_message(im, out);
    } while (st == ST_INVALID && im->keep_going);
    return st;
}

/* --- the store --- */

static void on_durable(void *ctx, unsigned lane, uint64_t next)
{
    (void)ctx;
    (void)lane;
    (void)next;
}

static const struct store_events events = {.on_durable = on_durable};

static enum status find_lane_count(struct import *im)
{
    struct log_target *t = &im->target;
    enum status st = view_open(t->settings.data_dir, &t->view, &t->error);
    im->lane_count = (unsigned)t->settings.log_partitions;
    if (st == ST_OK)
        im->lane_count = view_lane_count(t->view);
    else if (st == ST_NOT_FOUND)
        buf_clear(&t->error); /* it is made */
    else
        return st;
    return ST_OK;
}

static enum status open_log(struct import *im)
{
    const struct settings *s = &im->target.settings;
    im->clock = (struct clock){.mono_ns = real_mono_ns, .wall_ms = line_wall_ms, .ctx = im};
    struct store_options o = {
        .dir = s->data_dir,
        .lane_count = im->lane_count,
        .segment_bytes = s->log_segment_bytes,
        .unsynced_bytes_max = s->log_unsynced_bytes_max,
        .unindexed_bytes_max = s->log_unindexed_bytes_max,
        .lazy_ms = s->log_lazy_ms,
        .lazy_bytes = s->log_lazy_bytes,
        .recent_bytes = s->log_recent_bytes,
        .sync = STORE_SYNC_ALWAYS,
        .clock = &im->clock,
    };
    im->metrics = metrics_register();
    enum status st = loop_create(&im->clock, 0, &im->loop);
    if (st == ST_OK)
        st = store_open(&o, &im->store, &im->target.error);
    for (unsigned i = 0; st == ST_OK && i < im->lane_count; i++)
        store_bind(im->store, i, im->loop, &events, im, im->metrics);
    if (st == ST_OK)
        loop_dispatch(im->loop); /* from here on it is this thread's */
    return st;
}

/* One turn; waits a little when there is nothing to do. */
static void turn(struct import *im, int wait_ms)
{
    for (unsigned i = 0; i < im->lane_count; i++)
        store_flush(im->store, i);
    if (loop_prepare(im->loop) == 0)
        wait_ms = 0;
    struct pollfd pfd = {.fd = loop_poll_fd(im->loop), .events = POLLIN};
    (void)poll(&pfd, 1, wait_ms);
    loop_dispatch(im->loop);
    im->appends = 0;
}

static enum status append(struct import *im, struct msg *m)
{
    unsigned lane = topic_partition(msg_topic(m), im->lane_count);
    uint64_t ts_ms = m->ts_ms;
    enum status st;
    m->partition = lane;
    if (ts_ms > line_wall_ms(im))
        atomic_store_explicit(&im->wall_ms, ts_ms, memory_order_relaxed);
    loop_update_time(im->loop);
    while ((st = store_append(im->store, lane, m, false)) == ST_FULL)
        turn(im, POLL_MS);
    if (st != ST_OK)
        return st;
    im->imported++;
    im->raised += m->ts_ms != ts_ms;
    if (++im->appends >= APPENDS_A_TURN)
        turn(im, 0);
    return ST_OK;
}

static bool all_durable(const struct import *im)
{
    for (unsigned i = 0; i < im->lane_count; i++)
        if (store_durable(im->store, i) != store_next(im->store, i))
            return false;
    return true;
}

static enum status append_all(struct import *im, struct msg *m)
{
    enum status st;
    do {
        st = append(im, m);
        msg_unref(m);
        if (st != ST_OK) {
            tell_line(im, st == ST_NO_SPACE ? "does not fit: the disk is full" : status_name(st));
            break;
        }
        st = next_good_message(im, &m);
    } while (st == ST_OK);
    while (!all_durable(im))
        turn(im, POLL_MS);
    return st == ST_NOT_FOUND ? ST_OK : st;
}

static enum status import_all(struct import *im)
{
    struct msg *m;
    enum status st = next_good_message(im, &m);
    if (st != ST_OK)
        return st == ST_NOT_FOUND ? ST_OK : st;
    atomic_store_explicit(&im->wall_ms, m->ts_ms, memory_order_relaxed);
    st = find_lane_count(im);
    if (st == ST_OK)
        st = open_log(im);
    if (st == ST_OK)
        st = append_all(im, m);
    else
        msg_unref(m);
    store_close(im->store);
    loop_destroy(im->loop);
    return st;
}

static int run(struct import *im)
{
    struct log_target *t = &im->target;
    const char *path = t->arguments.operands[0];
    im->limits = (struct line_limits){.topic = {.bytes_max = (uint32_t)t->settings.limit_topic_bytes,
                                                .levels_max = (uint32_t)t->settings.limit_topic_levels},
                                      .message_bytes = t->settings.limit_message_bytes};
    if (line_input_open(&im->input, path, log_line_bytes_max(&im->limits)) != ST_OK) {
        fprintf(stderr, "tidegate: cannot open %s: %s\n", path, strerror(errno));
        return errno == EACCES ? EXIT_CODE_PERMISSION : EXIT_CODE_FAILED;
    }
    enum status st = import_all(im);
    line_input_close(&im->input);
    printf("imported %" PRIu64 " messages into %s; %" PRIu64 " lines refused, %" PRIu64
           " times raised to that of the message before\n",
           im->imported, t->settings.data_dir, im->refused, im->raised);
    if (output_finish() == OUTPUT_FAILED)
        return EXIT_CODE_FAILED;
    if (st != ST_OK && t->error.len > 0)
        return log_target_fail(t, st);
    return st != ST_OK || im->refused > 0 ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

int log_import(int count, char **words)
{
    struct import im = {0};
    const struct argument_option options[] = {{"--keep-going", NULL, &im.keep_going}};
    int code = log_target_parse(count, words, options, 1, 1, &im.target);
    if (code != 0)
        return code;
    code = im.target.arguments.operand_count == 1
               ? run(&im)
               : arguments_refuse("import needs a file, or - for what comes on standard input", NULL);
    log_target_close(&im.target);
    return code;
}
