/* `tidegate log restore SNAPSHOT --data DIR`. */
#include "gateway/cli/log_target.h"

#include "core/store/restore.h"

#include <inttypes.h>
#include <stdio.h>

static enum status run(struct log_target *t)
{
    struct restore_report report;
    enum status st = view_open(t->arguments.operands[0], &t->view, &t->error);
    if (st == ST_OK)
        st = restore_run(store_files_system(), t->view, t->settings.data_dir, &report, &t->error);
    if (st == ST_OK)
        printf("restored %" PRIu64 " messages in %" PRIu32 " segments, %" PRIu64
               " bytes, into %s; epoch %08" PRIx32 "\n",
               report.messages, report.segments, report.bytes, t->settings.data_dir, report.epoch);
    return st;
}

int log_restore(int count, char **words)
{
    struct log_target t;
    int code = log_target_parse(count, words, NULL, 0, 1, &t);
    if (code != 0)
        return code;
    if (t.arguments.operand_count != 1) {
        code = arguments_refuse("restore needs the folder of a snapshot", NULL);
    } else {
        enum status st = run(&t);
        code = st == ST_OK ? 0 : log_target_fail(&t, st);
    }
    log_target_close(&t);
    return code;
}
