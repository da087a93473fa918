/* `tidegate log stat`: what is in a log. Reads all of it: a count that was stored somewhere might not be
 * true. */
#include "gateway/cli/fault_text.h"
#include "gateway/cli/log_target.h"
#include "gateway/cli/topic_table.h"
#include "routing/attachment.h"
#include "gateway/json_out.h"

#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE_BYTES_MAX = 512 << 10 };

struct lane_stat {
    uint64_t first, next, segments, messages, carried, file_bytes, data_bytes, torn_bytes, faults;
    uint64_t first_ms, last_ms; /* 0: no message */
};

struct stat_run {
    struct log_target target;
    struct topic_table topics;
    struct lane_stat lanes[PLACE_LANES_MAX], total;
    struct buf line;
    uint64_t topics_max;
    bool json;
};

/* --- gathering --- */

static void add_segment(struct lane_stat *l, const struct walk_segment *s)
{
    l->segments++;
    l->messages += s->messages;
    l->carried += s->carried;
    l->file_bytes += s->file_bytes;
    l->data_bytes += s->data_bytes;
    l->torn_bytes += s->torn_bytes;
    l->next = s->next_offset > l->next ? s->next_offset : l->next;
    if (s->messages > 0 && (l->first_ms == 0 || s->first_ms < l->first_ms))
        l->first_ms = s->first_ms;
    l->last_ms = s->last_ms > l->last_ms ? s->last_ms : l->last_ms;
}

static void add_lane(struct lane_stat *total, const struct lane_stat *l)
{
    total->segments += l->segments;
    total->messages += l->messages;
    total->carried += l->carried;
    total->file_bytes += l->file_bytes;
    total->data_bytes += l->data_bytes;
    total->torn_bytes += l->torn_bytes;
    total->faults += l->faults;
    if (l->messages > 0 && (total->first_ms == 0 || l->first_ms < total->first_ms))
        total->first_ms = l->first_ms;
    total->last_ms = l->last_ms > total->last_ms ? l->last_ms : total->last_ms;
}

static enum status on_fault(struct stat_run *r, unsigned lane, struct walk *w)
{
    const struct walk_fault *f = &walk_look(w)->fault;
    const char *path = walk_path(w, f->base_offset, f->kind == FAULT_INDEX ? "idx" : "seg");
    buf_clear(&r->line);
    enum status st = r->json ? fault_json(&r->line, lane, path, f) : fault_text(&r->line, lane, path, f);
    if (st != ST_OK)
        return st;
    r->lanes[lane].faults++;
    fprintf(r->json ? stdout : stderr, "%s%.*s\n", r->json ? "" : "tidegate: ", (int)r->line.len,
            (const char *)r->line.data);
    return ST_OK;
}

static enum status stat_lane(struct stat_run *r, unsigned lane)
{
    struct walk *w;
    struct lane_stat *l = &r->lanes[lane];
    enum status st =
        walk_open(r->target.view, lane, &(struct walk_options){.messages = true}, &w, &r->target.error);
    if (st != ST_OK)
        return st;
    l->first = l->next = view_first(r->target.view, lane);
    for (enum walk_event e; st == ST_OK && (e = walk_next(w)) != WALK_END;) {
        if (e == WALK_FAILED)
            st = ST_NO_MEMORY;
        else if (e == WALK_FAULT)
            st = on_fault(r, lane, w);
        else if (e == WALK_SEGMENT)
            add_segment(l, &walk_look(w)->segment);
        else if (!topic_own(msg_topic(walk_look(w)->msg)))
            st = topic_table_add(&r->topics, walk_look(w)->msg);
    }
    walk_close(w);
    add_lane(&r->total, l);
    return st;
}

/* --- telling --- */

static void print_text(struct stat_run *r)
{
    const struct view *v = r->target.view;
    uint64_t now_ms = clock_wall_ms(clock_system());
    printf("log        %s\nepoch      %08" PRIx32 "\nstate      %s\n", view_dir(v), view_epoch(v),
           view_running(v)   ? "in use by a node"
           : view_stopped(v) ? "stopped"
                             : "the last stop was not clean");
    printf("messages   %" PRIu64 "\ntopics     %zu\nretained   %" PRIu64 "\nfaults     %" PRIu64 "\n\n",
           r->total.messages, r->topics.count, topic_table_retained(&r->topics, now_ms), r->total.faults);
    printf("%9s %20s %20s %9s %12s %14s %14s %14s %7s\n", "partition", "first", "next", "segments",
           "messages", "bytes", "first ts", "last ts", "faults");
    for (unsigned i = 0; i < view_lane_count(v); i++) {
        const struct lane_stat *l = &r->lanes[i];
        printf("%9u %20" PRIu64 " %20" PRIu64 " %9" PRIu64 " %12" PRIu64 " %14" PRIu64 " %14" PRIu64
               " %14" PRIu64 " %7" PRIu64 "\n",
               i, l->first, l->next, l->segments, l->messages, l->data_bytes, l->first_ms, l->last_ms,
               l->faults);
    }
    topic_table_sort(&r->topics);
    if (r->topics_max > 0)
        printf("\n%12s %16s  topic\n", "messages", "payload bytes");
    for (size_t i = 0; i < r->topics.count && i < r->topics_max; i++)
        printf("%12" PRIu64 " %16" PRIu64 "  %s\n", r->topics.slots[i].messages,
               r->topics.slots[i].payload_bytes, r->topics.slots[i].topic);
}

static void put_number(struct json_out *o, const char *name, uint64_t value)
{
    json_out_literal(o, ",");
    json_out_string(o, slice_cstr(name));
    json_out_literal(o, ":");
    json_out_number(o, value);
}

static void put_lane(struct json_out *o, unsigned lane, const struct lane_stat *l)
{
    json_out_literal(o, "{\"partition\":");
    json_out_number(o, lane);
    put_number(o, "first", l->first);
    put_number(o, "next", l->next);
    put_number(o, "segments", l->segments);
    put_number(o, "messages", l->messages);
    put_number(o, "bytes", l->data_bytes);
    put_number(o, "file_bytes", l->file_bytes);
    put_number(o, "torn_bytes", l->torn_bytes);
    put_number(o, "first_ts", l->first_ms);
    put_number(o, "last_ts", l->last_ms);
    put_number(o, "faults", l->faults);
    json_out_literal(o, "}");
}

static void put_topics(struct json_out *o, struct stat_run *r)
{
    topic_table_sort(&r->topics);
    json_out_literal(o, ",\"largest\":[");
    for (size_t i = 0; i < r->topics.count && i < r->topics_max; i++) {
        const struct topic_count *c = &r->topics.slots[i];
        if (i > 0)
            json_out_literal(o, ",");
        json_out_literal(o, "{\"topic\":");
        json_out_string(o, slice_of(c->topic, c->topic_bytes));
        put_number(o, "messages", c->messages);
        put_number(o, "payload_bytes", c->payload_bytes);
        json_out_literal(o, "}");
        if (o->status == ST_OK && output_put(buf_slice(o->buf)) == OUTPUT_OK)
            buf_clear(o->buf); /* a topic at a time: they may be many */
    }
    json_out_literal(o, "]");
}

static enum status print_json(struct stat_run *r)
{
    const struct view *v = r->target.view;
    struct json_out o = {.buf = &r->line, .status = ST_OK};
    char epoch[16];
    uint64_t retained = topic_table_retained(&r->topics, clock_wall_ms(clock_system()));
    buf_clear(&r->line);
    snprintf(epoch, sizeof epoch, "%08" PRIx32, view_epoch(v));
    json_out_literal(&o, "{\"epoch\":");
    json_out_string(&o, slice_cstr(epoch));
    json_out_literal(&o, ",\"state\":");
    json_out_string(&o, slice_cstr(view_running(v) ? "running" : view_stopped(v) ? "stopped" : "unclean"));
    put_number(&o, "messages", r->total.messages);
    put_number(&o, "carried", r->total.carried);
    put_number(&o, "bytes", r->total.data_bytes);
    put_number(&o, "segments", r->total.segments);
    put_number(&o, "topics", r->topics.count);
    put_number(&o, "retained", retained);
    put_number(&o, "first_ts", r->total.first_ms);
    put_number(&o, "last_ts", r->total.last_ms);
    put_number(&o, "faults", r->total.faults);
    json_out_literal(&o, ",\"partitions\":[");
    for (unsigned i = 0; i < view_lane_count(v); i++) {
        if (i > 0)
            json_out_literal(&o, ",");
        put_lane(&o, i, &r->lanes[i]);
    }
    json_out_literal(&o, "]");
    if (r->topics_max > 0)
        put_topics(&o, r);
    json_out_literal(&o, "}\n");
    if (o.status == ST_OK && output_put(buf_slice(&r->line)) != OUTPUT_OK)
        o.status = ST_IO;
    return o.status;
}

static int run(struct stat_run *r)
{
    enum status st = ST_OK;
    for (unsigned lane = 0; st == ST_OK && lane < view_lane_count(r->target.view); lane++)
        st = stat_lane(r, lane);
    if (st == ST_OK && r->json)
        st = print_json(r);
    else if (st == ST_OK)
        print_text(r);
    if (output_finish() == OUTPUT_FAILED)
        return EXIT_CODE_FAILED;
    if (st != ST_OK)
        return log_target_fail(&r->target, st);
    return r->total.faults > 0 ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

int log_stat(int count, char **words)
{
    struct stat_run *r = calloc(1, sizeof *r);
    const char *topics = NULL;
    if (!r)
        return EXIT_CODE_FAILED;
    const struct argument_option options[] = {{"--json", NULL, &r->json}, {"--topics", &topics, NULL}};
    int code = log_target_parse(count, words, options, 2, 0, &r->target);
    if (code == 0)
        code = log_target_open(&r->target);
    if (code == 0) {
        buf_init(&r->line, LINE_BYTES_MAX);
        code = topics && !argument_number(topics, &r->topics_max)
                   ? arguments_refuse("--topics must be a number:", topics)
                   : run(r);
        topic_table_deinit(&r->topics);
        buf_deinit(&r->line);
        log_target_close(&r->target);
    }
    free(r);
    return code;
}
