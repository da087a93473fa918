/* `tidegate log verify`: every segment is read to its end, every record checked, every index compared. */
#include "gateway/cli/fault_text.h"
#include "gateway/cli/log_target.h"

#include "gateway/json_out.h"

#include <inttypes.h>
#include <stdio.h>

enum { LINE_BYTES_MAX = 8192 };

struct totals {
    uint64_t segments, messages, bytes, torn_bytes, unindexed, faults;
};

static enum status put_line(struct buf *line, unsigned lane, struct walk *w, bool json)
{
    const struct walk_fault *f = &walk_look(w)->fault;
    const char *path = walk_path(w, f->base_offset, f->kind == FAULT_INDEX ? "idx" : "seg");
    buf_clear(line);
    enum status st = json ? fault_json(line, lane, path, f) : fault_text(line, lane, path, f);
    return st == ST_OK ? buf_put_byte(line, '\n') : st;
}

static void count_segment(struct totals *t, const struct walk_segment *s)
{
    t->segments++;
    t->messages += s->messages;
    t->bytes += s->data_bytes;
    t->torn_bytes += s->torn_bytes;
    t->unindexed += !s->indexed;
}

static enum status verify_lane(struct log_target *t, unsigned lane, bool json, struct totals *totals)
{
    struct walk *w;
    struct buf line;
    enum status st = walk_open(t->view, lane, &(struct walk_options){.check_indexes = true}, &w, &t->error);
    if (st != ST_OK)
        return st;
    buf_init(&line, LINE_BYTES_MAX);
    for (enum walk_event e; st == ST_OK && (e = walk_next(w)) != WALK_END;) {
        if (e == WALK_FAILED) {
            st = ST_NO_MEMORY;
        } else if (e == WALK_SEGMENT) {
            count_segment(totals, &walk_look(w)->segment);
        } else if (e == WALK_FAULT) {
            totals->faults++;
            st = put_line(&line, lane, w, json);
            if (st == ST_OK && output_put(buf_slice(&line)) != OUTPUT_OK)
                st = ST_IO;
        }
    }
    buf_deinit(&line);
    walk_close(w);
    return st;
}

static void print_summary(const struct view *v, const struct totals *t, bool json)
{
    if (json) {
        printf("{\"ok\":%s,\"running\":%s,\"partitions\":%u,\"segments\":%" PRIu64 ",\"messages\":%" PRIu64
               ",\"bytes\":%" PRIu64 ",\"torn_bytes\":%" PRIu64 ",\"unindexed\":%" PRIu64
               ",\"faults\":%" PRIu64 "}\n",
               t->faults ? "false" : "true", view_running(v) ? "true" : "false", view_lane_count(v),
               t->segments, t->messages, t->bytes, t->torn_bytes, t->unindexed, t->faults);
        return;
    }
    if (view_running(v))
        puts("a node is using this log: its end moves, what is still on its way was not judged");
    else if (!view_stopped(v))
        printf("the last stop was not clean: %" PRIu64
               " bytes behind the last whole record were never acknowledged, the next start cuts them off\n",
               t->torn_bytes);
    printf("%s: %" PRIu64 " faults in %" PRIu64 " segments of %u partitions, %" PRIu64 " messages, %" PRIu64
           " bytes\n",
           t->faults ? "DAMAGED" : "ok", t->faults, t->segments, view_lane_count(v), t->messages, t->bytes);
}

int log_verify(int count, char **words)
{
    struct log_target t;
    struct totals totals = {0};
    bool json = false;
    const struct argument_option options[] = {{"--json", NULL, &json}};
    int code = log_target_parse(count, words, options, 1, 0, &t);
    if (code == 0)
        code = log_target_open(&t);
    if (code != 0)
        return code;
    enum status st = ST_OK;
    for (unsigned lane = 0; st == ST_OK && lane < view_lane_count(t.view); lane++)
        st = verify_lane(&t, lane, json, &totals);
    if (st == ST_OK)
        print_summary(t.view, &totals, json);
    if (output_finish() == OUTPUT_FAILED || totals.faults > 0)
        code = EXIT_CODE_FAILED;
    if (st != ST_OK && totals.faults == 0)
        code = log_target_fail(&t, st);
    log_target_close(&t);
    return code;
}
