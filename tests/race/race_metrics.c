/* Loops register sets and count while another thread scrapes and all log through one limit. ThreadSanitizer
 * sees races; what is checked here is that a scrape never shows a count going down or a histogram whose last
 * bucket is below the one before. */
#include "core/logging.h"
#include "core/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOPS = 4, ROUNDS = 20000, HELD_BACK_MS = 3600000 };

static struct log_limit limit = {.every_ms = HELD_BACK_MS};
static _Atomic uint64_t permitted_count, running;

static void *loop_main(void *unused)
{
    (void)unused;
    struct metrics *m = metrics_register();
    for (uint64_t i = 0; i < ROUNDS; i++) {
        metric_add(m, M_STORED, 1);
        metric_add(m, M_CONNECTIONS_WS, 1);
        metric_sub(m, M_CONNECTIONS_WS, 1);
        histogram_record(m, H_SYNC_SECONDS, i * 1000);
        uint64_t held;
        if (log_permitted(&limit, &held))
            atomic_fetch_add(&permitted_count, 1);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static unsigned long value_of(const char *text, const char *series)
{
    const char *at = strstr(text, series);
    if (!at) {
        fprintf(stderr, "no %s\n", series);
        exit(1);
    }
    return strtoul(at + strlen(series), NULL, 10);
}

static void scrape(unsigned long *last_stored)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    if (metrics_render(&out) != ST_OK || buf_put_byte(&out, 0) != ST_OK)
        exit(1);
    const char *text = (const char *)out.data;
    unsigned long stored = value_of(text, "\ntidegate_messages_stored_total ");
    unsigned long count = value_of(text, "\ntidegate_log_fsync_seconds_count ");
    unsigned long infinite = value_of(text, "\ntidegate_log_fsync_seconds_bucket{le=\"+Inf\"} ");
    unsigned long finite = value_of(text, "\ntidegate_log_fsync_seconds_bucket{le=\"8.589934592\"} ");
    if (stored < *last_stored || count != infinite || infinite < finite) {
        fprintf(stderr, "stored %lu after %lu, count %lu, +Inf %lu, below it %lu\n", stored, *last_stored,
                count, infinite, finite);
        exit(1);
    }
    *last_stored = stored;
    buf_deinit(&out);
}

int main(void)
{
    log_setup(LOG_ERROR, LOG_FORM_JSON);
    pthread_t threads[LOOPS];
    unsigned long stored = 0;
    running = LOOPS;
    for (int i = 0; i < LOOPS; i++)
        if (pthread_create(&threads[i], NULL, loop_main, NULL) != 0)
            return 1;
    while (atomic_load(&running) > 0)
        scrape(&stored);
    for (int i = 0; i < LOOPS; i++)
        pthread_join(threads[i], NULL);
    scrape(&stored);
    bool ok = stored == LOOPS * ROUNDS && metrics_sum(M_CONNECTIONS_WS) == 0 && permitted_count == 1 &&
              limit.held_count == LOOPS * ROUNDS - 1;
    if (!ok)
        fprintf(stderr, "stored %lu, permitted %lu\n", stored, (unsigned long)permitted_count);
    return ok ? 0 : 1;
}
