#include "core/metrics.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct buf rendered;

static const char *render(void)
{
    buf_init(&rendered, 1 << 20);
    cr_assert_eq(metrics_render(&rendered), ST_OK);
    cr_assert_eq(buf_put_byte(&rendered, 0), ST_OK);
    return (const char *)rendered.data;
}

static double sample(const char *text, const char *series)
{
    char line[200];
    snprintf(line, sizeof line, "\n%s ", series);
    const char *at = strstr(text, line);
    cr_assert(at, "no series %s", series);
    return strtod(at + strlen(line), NULL);
}

Test(metrics, sums_over_all_sets)
{
    struct metrics *a = metrics_register(), *b = metrics_register();
    metric_add(a, M_RECEIVED_MQTT, 3);
    metric_add(b, M_RECEIVED_MQTT, 4);
    metric_add(a, M_CONNECTIONS_WS, 2);
    metric_sub(b, M_CONNECTIONS_WS, 1); /* the other loop closes it */
    cr_assert_eq(metrics_sum(M_RECEIVED_MQTT), 7);
    cr_assert_eq(metrics_sum(M_CONNECTIONS_WS), 1);
    const char *text = render();
    cr_assert_eq(sample(text, "tidegate_messages_received_total{proto=\"mqtt\",qos=\"0\"}"), 7);
    cr_assert_eq(sample(text, "tidegate_connections{proto=\"ws\"}"), 1);
    cr_assert_eq(sample(text, "tidegate_subscriptions"), 0);
    buf_deinit(&rendered);
    metric_sub(b, M_CONNECTIONS_WS, 2);
    cr_assert_eq(sample(render(), "tidegate_connections{proto=\"ws\"}"), -1, "a gauge is shown signed");
    buf_deinit(&rendered);
}

/* Walks the output as a Prometheus server does. */
Test(metrics, every_series_has_help_and_type_once)
{
    metrics_register();
    char *text = strdup(render()), *rest = text;
    char name[100] = "", type[20] = "";
    static char all_names[20000] = "|", all_series[100000] = "|";
    bool had_help = false;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && (*line || rest);) {
        char next[100];
        if (sscanf(line, "# HELP %99s %*s", next) == 1) {
            snprintf(name, sizeof name, "%s", next);
            char probe[110];
            snprintf(probe, sizeof probe, "|%s|", name);
            cr_assert_not(strstr(all_names, probe), "%s is there twice", name);
            strcat(all_names, probe + 1);
            had_help = true;
        } else if (sscanf(line, "# TYPE %99s %19s", next, type) == 2) {
            cr_assert(had_help);
            cr_assert_str_eq(next, name);
            had_help = false;
        } else {
            cr_assert(strncmp(line, name, strlen(name)) == 0, "%s under %s", line, name);
            char *space = strrchr(line, ' ');
            char *end;
            strtod(space + 1, &end);
            cr_assert(end != space + 1 && *end == '\0', "%s", line);
            *space = '\0';
            char probe[300];
            snprintf(probe, sizeof probe, "|%s|", line);
            cr_assert_not(strstr(all_series, probe), "%s is there twice", line);
            strcat(all_series, probe + 1);
            bool is_total = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0;
            cr_assert_eq(is_total, strcmp(type, "counter") == 0, "%s is a %s", name, type);
        }
    }
    free(text);
    buf_deinit(&rendered);
}

Test(metrics, counts_a_histogram_up)
{
    struct metrics *m = metrics_register();
    histogram_record(m, H_SYNC_SECONDS, 0);
    histogram_record(m, H_SYNC_SECONDS, 1024); /* on the bound: inside */
    histogram_record(m, H_SYNC_SECONDS, 1025);
    histogram_record(m, H_SYNC_SECONDS, 1500000000);
    histogram_record(m, H_SYNC_SECONDS, 3600000000000u); /* beyond the last bound */
    const char *text = render();
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"1.024e-06\"}"), 2);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"2.048e-06\"}"), 3);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"1.073741824\"}"), 3);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"2.147483648\"}"), 4);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"8.589934592\"}"), 4);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_bucket{le=\"+Inf\"}"), 5);
    cr_assert_eq(sample(text, "tidegate_log_fsync_seconds_count"), 5);
    cr_assert_float_eq(sample(text, "tidegate_log_fsync_seconds_sum"), 3601.500002049, 1e-9);
    buf_deinit(&rendered);

    histogram_record(m, H_BATCH_RECORDS, 1);
    histogram_record(m, H_BATCH_RECORDS, 3);
    histogram_record(m, H_BATCH_RECORDS, UINT64_MAX - 10);
    text = render();
    cr_assert_eq(sample(text, "tidegate_log_batch_records_bucket{le=\"1\"}"), 1);
    cr_assert_eq(sample(text, "tidegate_log_batch_records_bucket{le=\"2\"}"), 1);
    cr_assert_eq(sample(text, "tidegate_log_batch_records_bucket{le=\"4\"}"), 2);
    cr_assert_eq(sample(text, "tidegate_log_batch_records_bucket{le=\"8388608\"}"), 2);
    cr_assert_eq(sample(text, "tidegate_log_batch_records_bucket{le=\"+Inf\"}"), 3);
    buf_deinit(&rendered);
}

Test(metrics, tells_version_and_process)
{
    metrics_set_version("1.2.3");
    const char *text = render();
    cr_assert_eq(sample(text, "tidegate_build_info{version=\"1.2.3\"}"), 1);
    cr_assert_gt(sample(text, "process_cpu_seconds_total"), 0);
    cr_assert_gt(sample(text, "process_resident_memory_bytes"), 100000);
    double fds = sample(text, "process_open_fds");
    cr_assert_geq(sample(text, "process_max_fds"), fds);
    double age = (double)time(NULL) - sample(text, "process_start_time_seconds");
    cr_assert(age > -5 && age < 300, "age %f", age);
    buf_deinit(&rendered);

    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(sample(render(), "process_open_fds"), fds + 2);
    buf_deinit(&rendered);
}

Test(metrics, says_when_the_buffer_is_too_small)
{
    struct buf small;
    buf_init(&small, 4000);
    cr_assert_eq(metrics_render(&small), ST_FULL);
    buf_deinit(&small);
}

static void *register_many(void *unused)
{
    (void)unused;
    for (int i = 0; i < 100; i++)
        metric_add(metrics_register(), M_LOOP_TURNS, 1);
    return NULL;
}

Test(metrics, registers_from_any_thread)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, register_many, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(metrics_sum(M_LOOP_TURNS), 400);
}
