#include "gateway/cli/log_target.h"

#include "gateway/cli/node_target.h"
#include "routing/topic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ERROR_BYTES_MAX = 8192 };

int log_target_fail(struct log_target *t, enum status st)
{
    if (t->error.len == 0 && buf_put_cstr(&t->error, status_name(st)) != ST_OK)
        return arguments_exit_code(st);
    return arguments_complain(&t->error, arguments_exit_code(st));
}

int log_target_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                     size_t operands_max, struct log_target *out)
{
    struct node_target t;
    int code = node_target_parse(count, words, options, option_count, operands_max, &t);
    if (code != 0)
        return code;
    *out = (struct log_target){.arguments = t.arguments, .settings = t.settings};
    buf_init(&out->error, ERROR_BYTES_MAX);
    return 0;
}

int log_target_open(struct log_target *t)
{
    enum status st = view_open(t->settings.data_dir, &t->view, &t->error);
    if (st == ST_OK)
        return 0;
    int code = log_target_fail(t, st);
    log_target_close(t);
    return code;
}

void log_target_close(struct log_target *t)
{
    view_close(t->view);
    settings_free(&t->settings);
    buf_deinit(&t->error);
}

/* --- selection --- */

bool argument_number(const char *text, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return *end == '\0' && errno == 0;
}

static bool select_from(const struct log_target *t, const char *text, struct selection *out)
{
    if (!text || strcmp(text, "earliest") == 0 || place_time_read(slice_cstr(text), &out->from_ms))
        return true;
    return place_fold(&out->from, view_epoch(t->view), slice_cstr(text)) == ST_OK;
}

/* A position bounds its own lane only, a bookmark all of them. */
static bool select_to(const struct log_target *t, const char *text, struct selection *out)
{
    struct place to = {.lane_count = out->to.lane_count};
    if (!text || place_time_read(slice_cstr(text), &out->to_ms))
        return true;
    if (place_fold(&to, view_epoch(t->view), slice_cstr(text)) != ST_OK)
        return false;
    bool position = strlen(text) == POSITION_BYTES && text[8 + 4] == '.';
    for (uint32_t i = 0; i < to.lane_count; i++)
        if (!position || to.next[i] > 0)
            out->to.next[i] = to.next[i];
    return true;
}

static bool select_lane(const struct log_target *t, const char *text, struct selection *out)
{
    uint64_t lane = 0;
    out->all_lanes = !text;
    if (text && (!argument_number(text, &lane) || lane >= view_lane_count(t->view)))
        return false;
    out->lane = (unsigned)lane;
    return true;
}

int log_target_select(const struct log_target *t, const struct selection_words *w, struct selection *out)
{
    struct topic_limits limits = {.bytes_max = UINT16_MAX, .levels_max = UINT16_MAX};
    *out = (struct selection){.topic = w->topic, .to_ms = UINT64_MAX, .max = UINT64_MAX};
    out->from.lane_count = out->to.lane_count = view_lane_count(t->view);
    for (uint32_t i = 0; i < out->to.lane_count; i++)
        out->to.next[i] = UINT64_MAX;
    if (w->topic && !topic_filter_valid(slice_cstr(w->topic), &limits))
        return arguments_refuse("--topic is not a topic filter:", w->topic);
    if (!select_lane(t, w->partition, out))
        return arguments_refuse("--partition is not one of this log:", w->partition);
    if (w->max && (!argument_number(w->max, &out->max) || out->max == 0))
        return arguments_refuse("--max must be a number above 0:", w->max);
    if (!select_from(t, w->from, out))
        return arguments_refuse("--from must be earliest, time:<ms>, or a position or bookmark of this log:",
                                w->from);
    if (!select_to(t, w->to, out))
        return arguments_refuse("--to must be time:<ms>, or a position or bookmark of this log:", w->to);
    return 0;
}

/* --- output --- */

enum output output_put(struct slice bytes)
{
    if (bytes.len == 0 || fwrite(bytes.data, 1, bytes.len, stdout) == bytes.len)
        return OUTPUT_OK;
    return errno == EPIPE ? OUTPUT_CLOSED : OUTPUT_FAILED;
}

enum output output_finish(void)
{
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !failed)
        return OUTPUT_OK;
    if (errno == EPIPE)
        return OUTPUT_CLOSED;
    fprintf(stderr, "tidegate: cannot write the output: %s\n", strerror(errno));
    return OUTPUT_FAILED;
}
