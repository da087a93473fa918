/* A bridge's thread, from its release to its end: it waits for the one of the same name before it, then it is
 * a loop of lives (life.h). */
#include "gateway/bridge/bridge.h"

#include "core/logging.h"
#include "gateway/bridge/life.h"
#include "gateway/bridge_topics.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum {
    TOPIC_BYTES_MAX = 65535,
    TOPICS_BYTES_MAX = 1024 * 1024,
    USER_BYTES_MAX = 512 * 1024,
    STOP_NUDGE_MS = 20,
};

static uint64_t now_ms(void)
{
    return clock_mono_ms(clock_system());
}

/* Half of it is chance, so that many bridges do not come back in the same moment. */
static uint64_t jitter(uint64_t wait_ms)
{
    uint32_t dice = 0;
    if (getrandom(&dice, sizeof dice, GRND_NONBLOCK) != (ssize_t)sizeof dice)
        dice = (uint32_t)now_ms() * 2654435761u;
    return wait_ms / 2 + dice % (wait_ms / 2 + 1);
}

/* The first word of the main thread. */
static void wait_for_release(struct bridge *b)
{
    struct pollfd word = {.fd = b->wake, .events = POLLIN};
    while (!atomic_load(&b->released) && !atomic_load(&b->stopping))
        (void)poll(&word, 1, -1);
    bridge_calm(b);
}

static void wait_for_thread(struct bridge *b)
{
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STOP_NUDGE_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        if (pthread_timedjoin_np(b->thread, NULL, &until) == 0)
            break;
        pthread_kill(b->thread, SIGRTMIN);
    }
}

/* b->gone and b->remote_gone: what the former one had subscribed to, and this one does not. */
static enum status note_what_is_gone(struct bridge *b, const struct bridge_plan *former)
{
    enum status st = ST_OK;
    bool same_remote = bridge_plan_same_session(former, b->plan);
    for (size_t i = 0; i < former->topic_count && st == ST_OK; i++) {
        const struct bridge_topic_settings *t = &former->topics[i];
        buf_clear(&b->topic);
        if (bridge_topic_sends(t) && !bridge_plan_sends(b->plan, t)) {
            st = bridge_topic_filter(t->local_prefix, t->filter, &b->topic);
            if (st == ST_OK)
                st = local_gone(&b->gone, buf_slice(&b->topic));
            b->gone_count++;
        }
        if (st == ST_OK && same_remote && bridge_topic_takes(t) && !bridge_plan_takes(b->plan, t)) {
            st = bridge_topic_filter(t->remote_prefix, t->filter, &b->remote_gone);
            if (st == ST_OK)
                st = buf_put_byte(&b->remote_gone, 0);
        }
    }
    return st;
}

static void succeed(struct bridge *b)
{
    struct bridge *former = b->former;
    if (!former)
        return;
    wait_for_thread(former);
    if (note_what_is_gone(b, former->plan) != ST_OK) { /* then they bring what has no route, and is counted */
        log_warn("no memory for the former filters of a bridge bridge=%s", b->settings->name);
        buf_clear(&b->gone);
        buf_clear(&b->remote_gone);
        b->gone_count = 0;
    }
    atomic_fetch_add(&b->figures.in, atomic_load(&former->figures.in));
    atomic_fetch_add(&b->figures.out, atomic_load(&former->figures.out));
    atomic_fetch_add(&b->figures.dropped, atomic_load(&former->figures.dropped));
    atomic_fetch_add(&b->figures.reconnects, atomic_load(&former->figures.reconnects));
    atomic_store(&former->former_gone, true); /* may be freed by the main thread from here on */
    b->former = NULL;
}

static void lives(struct bridge *b)
{
    uint64_t wait_ms = b->settings->retry_min_ms;
    while (!bridge_is_over(b)) {
        life_live(b);
        bool was_up = b->remote_up;
        life_end(b);
        if (bridge_is_over(b))
            break;
        if (was_up)
            wait_ms = b->settings->retry_min_ms;
        struct pollfd word = {.fd = b->wake, .events = POLLIN};
        (void)poll(&word, 1, (int)jitter(wait_ms));
        wait_ms = wait_ms * 2 > b->settings->retry_max_ms ? b->settings->retry_max_ms : wait_ms * 2;
        metric_add(b->metrics, M_BRIDGE_RECONNECTS, 1);
        bridge_count(&b->figures.reconnects);
    }
}

static void *bridge_thread(void *ctx)
{
    struct bridge *b = ctx;
    wait_for_release(b);
    succeed(b);
    metric_add(b->metrics, M_BRIDGES, 1);
    lives(b);
    if (atomic_load(&b->leaving) && b->expiry_ms > 0 && !atomic_load(&b->stopping))
        life_release_session(b);
    metric_sub(b->metrics, M_BRIDGES, 1);
    return NULL;
}

/* --- for its owner ------------------------------------------------------------------------------ */

static enum status check_file(const struct bridge_settings *s, const char *key, const char *path,
                              struct buf *error)
{
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return ST_OK;
    enum status st =
        buf_printf(error, "bridges: %s: %s: cannot read %s: %s", s->name, key, path, strerror(errno));
    return st == ST_OK ? ST_INVALID : st;
}

static enum status check_files(const struct bridge_settings *s, struct buf *error)
{
    const char *const files[][2] = {{"password_file", s->password_file},
                                    {"ca_file", s->ca_file},
                                    {"cert_file", s->cert_file},
                                    {"key_file", s->key_file}};
    enum status st = ST_OK;
    for (size_t i = 0; i < sizeof files / sizeof files[0] && st == ST_OK; i++)
        st = check_file(s, files[i][0], files[i][1], error);
    return st;
}

enum status bridge_create(const struct bridge_home *home, struct bridge_plan *plan, struct metrics *metrics,
                          struct bridge **out, struct buf *error)
{
    struct bridge *b = calloc(1, sizeof *b);
    enum status st = check_files(&plan->bridge, error);
    if (!b || st != ST_OK) {
        free(b);
        bridge_plan_destroy(plan);
        return b ? st : ST_NO_MEMORY;
    }
    b->home = *home;
    b->plan = plan;
    b->settings = &plan->bridge;
    b->node_id = home->node_id;
    b->metrics = metrics;
    b->figures.name = plan->bridge.name;
    b->figures.since_ms = clock_wall_ms(clock_system());
    life_init(b);
    buf_init(&b->topic, TOPIC_BYTES_MAX);
    buf_init(&b->user, USER_BYTES_MAX);
    buf_init(&b->gone, TOPICS_BYTES_MAX);
    buf_init(&b->remote_gone, TOPICS_BYTES_MAX);
    b->crossings = calloc(plan->bridge.inflight, sizeof *b->crossings);
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!b->crossings || b->wake < 0) {
        bridge_destroy(b);
        return ST_NO_MEMORY;
    }
    *out = b;
    return ST_OK;
}

void bridge_destroy(struct bridge *b)
{
    if (!b)
        return;
    if (b->wake >= 0)
        close(b->wake);
    for (unsigned i = 0; i < b->why_count; i++)
        free(b->whys[i]);
    free(b->crossings);
    buf_deinit(&b->topic);
    buf_deinit(&b->user);
    buf_deinit(&b->gone);
    buf_deinit(&b->remote_gone);
    bridge_plan_destroy(b->plan);
    free(b);
}

const struct bridge_plan *bridge_plan_of(const struct bridge *b)
{
    return b->plan;
}

struct bridge_figures *bridge_figures_of(struct bridge *b)
{
    return &b->figures;
}

struct metrics *bridge_metrics_of(struct bridge *b)
{
    return b->metrics;
}

struct bridge **bridge_next(struct bridge *b)
{
    return &b->next;
}

enum status bridge_start(struct bridge *b)
{
    b->started = pthread_create(&b->thread, NULL, bridge_thread, b) == 0;
    return b->started ? ST_OK : ST_IO;
}

void bridge_release(struct bridge *b, struct bridge *former)
{
    if (former)
        former->has_heir = true;
    b->former = former;
    atomic_store(&b->released, true);
    (void)eventfd_write(b->wake, 1);
}

void bridge_leave(struct bridge *b, uint64_t expiry_ms)
{
    b->expiry_ms = expiry_ms;
    atomic_store(&b->leaving, true);
    (void)eventfd_write(b->wake, 1);
}

void bridge_stop(struct bridge *b)
{
    atomic_store(&b->stopping, true);
    (void)eventfd_write(b->wake, 1);
}

void bridge_join(struct bridge *b)
{
    if (!b->started || b->joined || b->has_heir)
        return;
    wait_for_thread(b);
    b->joined = true;
}

bool bridge_gone(struct bridge *b)
{
    if (b->has_heir)
        return atomic_load(&b->former_gone);
    if (b->started && !b->joined)
        b->joined = pthread_tryjoin_np(b->thread, NULL) == 0;
    return b->joined || !b->started;
}
