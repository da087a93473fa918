/* `tidegate log cat` and `export`: the same messages in the same order, in two forms. What cannot be read is
 * told on stderr where it would have stood, and the exit code says so too. */
#include "gateway/cli/log_line.h"
#include "gateway/cli/log_target.h"
#include "gateway/message_json.h"

#include <stdio.h>

/* A message of 512 MiB may be written with six bytes each. */
#define LINE_BYTES_MAX ((size_t)4 << 30)

typedef enum status line_form(struct buf *out, uint32_t epoch, const struct msg *m);

static enum status as_history(struct buf *out, uint32_t epoch, const struct msg *m)
{
    return message_json_put(out, epoch, m, (m->flags & MSG_RETAIN) != 0);
}

static int print_all(struct log_target *t, struct merge *m, line_form *form)
{
    struct buf line;
    struct msg *msg;
    enum output out = OUTPUT_OK;
    enum status st = ST_OK;
    uint64_t faults = 0;
    buf_init(&line, LINE_BYTES_MAX);
    for (enum walk_event e; out == OUTPUT_OK && st == ST_OK && (e = merge_next(m, &msg)) != WALK_END;) {
        if (e == WALK_FAULT) {
            faults++;
            fprintf(stderr, "tidegate: %s\n", merge_fault(m));
            continue;
        }
        buf_clear(&line);
        st = e == WALK_FAILED ? ST_NO_MEMORY : form(&line, view_epoch(t->view), msg);
        if (st == ST_OK)
            st = buf_put_byte(&line, '\n');
        if (st == ST_OK)
            out = output_put(buf_slice(&line));
    }
    buf_deinit(&line);
    if (output_finish() == OUTPUT_FAILED)
        return EXIT_CODE_FAILED;
    if (st != ST_OK)
        return log_target_fail(t, st);
    return faults > 0 ? EXIT_CODE_FAILED : EXIT_CODE_OK;
}

static int print_selected(int count, char **words, line_form *form, bool carried)
{
    struct log_target t;
    struct selection_words w = {0};
    struct selection wanted;
    struct merge *m;
    const struct argument_option options[] = {{"--topic", &w.topic, NULL},
                                              {"--partition", &w.partition, NULL},
                                              {"--from", &w.from, NULL},
                                              {"--to", &w.to, NULL},
                                              {"--max", &w.max, NULL}};
    int code = log_target_parse(count, words, options, sizeof options / sizeof options[0], 0, &t);
    if (code == 0)
        code = log_target_open(&t);
    if (code != 0)
        return code;
    code = log_target_select(&t, &w, &wanted);
    if (code == 0) {
        wanted.carried = carried && !w.from;
        enum status st = merge_open(t.view, &wanted, &m, &t.error);
        if (st == ST_OK) {
            code = print_all(&t, m, form);
            merge_close(m);
        } else {
            code = log_target_fail(&t, st);
        }
    }
    log_target_close(&t);
    return code;
}

int log_cat(int count, char **words)
{
    return print_selected(count, words, as_history, false);
}

int log_export(int count, char **words)
{
    return print_selected(count, words, log_line_put, true);
}
