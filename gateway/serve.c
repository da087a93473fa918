/* The main thread while a node runs: it waits for signals and does what they ask for. They are blocked before
 * any other thread exists, so only this thread takes them, at its own time, and may wait for disks and loops.
 *
 *   SIGHUP            reload (reload.h)
 *   SIGTERM, SIGINT   drain, then stop; a second one stops at once
 *   SIGUSR1, SIGUSR2  nothing: other daemons rotate logs or print figures by them, and to die of one is no
 * answer */
#include "gateway/serve.h"

#include "core/clock.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/logging.h"
#include "core/metrics.h"
#include "gateway/bridge/bridges.h"
#include "gateway/auth/auth.h"
#include "gateway/cli/arguments.h"
#include "gateway/node.h"
#include "gateway/notify.h"
#include "gateway/reload.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    ERROR_BYTES_MAX = 4096,
    DRAIN_POLL_MS = 5,
    PULSES = 4, /* in the time after which the service manager despairs of us */
    IDLE_MS = 3600000,
};

static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
}

/* The next signal within the time, or 0. */
static int next_signal(const sigset_t *signals, uint64_t wait_ms)
{
    const struct timespec patience = {.tv_sec = (time_t)(wait_ms / 1000),
                                      .tv_nsec = (long)(wait_ms % 1000) * 1000000};
    int signal_number = sigtimedwait(signals, NULL, &patience);
    return signal_number > 0 ? signal_number : 0;
}

/* The service manager hears of us as long as every loop and the log's writer move: when one hangs, it hears
 * nothing any more, and starts the node again. */
static void tell_alive(const struct notifier *n, struct node *node)
{
    if (n->watchdog_ms && node_moves(node, n->watchdog_ms / 2))
        notifier_alive(n);
}

static void run_reload(const struct notifier *n, struct reload *reload)
{
    notifier_reloading(n);
    enum status st = reload_run(reload); /* logged there */
    (void)st;
    notifier_ready(n);
}

static void wait_for_end(const sigset_t *signals, struct reload *reload, const struct notifier *n)
{
    uint64_t wait_ms = n->watchdog_ms ? n->watchdog_ms / PULSES + 1 : IDLE_MS;
    for (;;) {
        int signal_number = next_signal(signals, wait_ms);
        tell_alive(n, reload->node);
        if (signal_number == 0)
            continue;
        if (signal_number == SIGHUP) {
            run_reload(n, reload);
            continue;
        }
        log_info("%s signal=%d", node_told_down(reload->node) ? "ending" : "draining", signal_number);
        return;
    }
}

/* True: the operator does not want to wait. */
static bool hurried(const sigset_t *signals, uint64_t wait_ms)
{
    uint64_t end_ms = clock_mono_ms(clock_system()) + wait_ms, now_ms;
    while ((now_ms = clock_mono_ms(clock_system())) < end_ms) {
        int signal_number = next_signal(signals, end_ms - now_ms);
        if (signal_number == SIGTERM || signal_number == SIGINT)
            return true;
        if (signal_number == SIGHUP)
            log_warn("SIGHUP ignored: the node is draining");
    }
    return false;
}

static void drain(struct node *node, const struct settings *s, const sigset_t *signals)
{
    node_announce_drain(node);
    bool hurry = hurried(signals, s->drain_delay_ms);
    uint64_t end_ms = clock_mono_ms(clock_system()) + s->drain_max_ms;
    if (!hurry)
        node_drain(node);
    while (!hurry && !node_drained(node) && clock_mono_ms(clock_system()) < end_ms)
        hurry = hurried(signals, DRAIN_POLL_MS);
    if (hurry) {
        log_info("the drain ends early: a second signal has come");
        node_hurry(node);
    } else if (!node_drained(node)) {
        log_warn("the drain ends early: drain.max_ms=%lu is over", (unsigned long)s->drain_max_ms);
    }
}

static int run(const struct arguments *a, struct settings **settings)
{
    struct buf error;
    sigset_t signals;
    struct reload reload = {.config = a->config,
                            .assignments = a->assignments,
                            .assignment_count = a->assignment_count,
                            .environment = environ};
    struct notifier notifier;
    int code = EXIT_CODE_OK;
    block_signals(&signals);
    buf_init(&error, ERROR_BYTES_MAX);
    enum status st = node_create(*settings, &reload.node, &error);
    if (st != ST_OK) {
        if (error.len == 0 && buf_printf(&error, "cannot start: %s", status_name(st)) != ST_OK)
            fputs("tidegate: cannot start\n", stderr);
        code = arguments_complain(&error, arguments_exit_code(st));
        buf_deinit(&error);
        return code;
    }
    reload_add(&reload, &(struct reload_part){"certificates", reload.node, node_prepare_tls, node_commit_tls,
                                              node_abandon_tls});
    reload_add(&reload, &(struct reload_part){"keys and rules", node_auth(reload.node), auth_office_prepare,
                                              auth_office_commit, auth_office_abandon});
    reload_add(&reload, &(struct reload_part){"bridges", node_bridges(reload.node), bridges_prepare,
                                              bridges_commit, bridges_abandon});
    st = node_start(reload.node, &error);
    reload.settings = reload.first = *settings;
    if (st == ST_OK) {
        notifier_open(&notifier);
        notifier_ready(&notifier);
        wait_for_end(&signals, &reload, &notifier);
        notifier_stopping(&notifier); /* from here on no watchdog bites, but TimeoutStopSec */
        notifier_close(&notifier);
        if (node_told_down(reload.node))
            code = EXIT_CODE_RETRY; /* nobody waits for answers: nothing that is open will count */
        else
            drain(reload.node, reload.settings, &signals);
    } else {
        code = arguments_complain(&error, arguments_exit_code(st));
    }
    node_stop(reload.node);
    if (reload.settings != reload.first)
        free(reload.first);
    *settings = reload.settings;
    if (code == EXIT_CODE_OK)
        log_info("stopped");
    buf_deinit(&error);
    return code;
}

/* glibc learns from the first large block that is freed: from then on it keeps such blocks (up to 32 MiB) in
 * its arenas, and twice that at their ends. Bodies and pages of megabytes that came once would be held for
 * ever. With bounds of our own it learns nothing, and large blocks go back to the kernel. The blocks of small
 * messages are far below either. */
static void bound_free_memory(void)
{
    enum { MAPPED_BYTES_MIN = 256 * 1024, KEPT_BYTES_MAX = 1 << 20 };
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
}

int serve_command(int count, char **words)
{
    bound_free_memory();
    struct arguments a = {0};
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings)
        return EXIT_CODE_FAILED;
    int code = arguments_parse(count, words, NULL, 0, 0, &a);
    if (code == 0)
        code = arguments_settings(&a, settings);
    if (code == 0) {
        log_setup((enum log_level)settings->log_level, (enum log_form)settings->log_form);
        hash_setup();
        json_limit_depth((unsigned)settings->limit_json_depth);
        metrics_set_version(TIDEGATE_VERSION);
        code = run(&a, &settings);
        settings_free(settings);
    }
    free(settings);
    return code;
}
