/* What every `tidegate log` command has: the configuration, the folder of the log, and its output. */
#ifndef TG_GATEWAY_CLI_LOG_TARGET_H
#define TG_GATEWAY_CLI_LOG_TARGET_H

#include "core/store/view.h"
#include "gateway/cli/arguments.h"
#include "gateway/cli/merge.h"

struct log_target {
    struct arguments arguments;
    struct settings settings; /* data_dir is the folder */
    struct view *view; /* NULL: not opened */
    struct buf error;
};

/* Parses the words and reads the configuration; --data DIR goes over data.dir. 0, or the exit code (then the
 * target is closed already). */
int log_target_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                     size_t operands_max, struct log_target *out);
int log_target_open(struct log_target *t); /* the view; 0, or the exit code */
void log_target_close(struct log_target *t);
/* The line in t->error, or the name of `st`; returns the exit code of `st`. */
int log_target_fail(struct log_target *t, enum status st);

/* --topic --partition --from --to --max, as words; NULL: not given. 0, or the exit code of a usage error. */
struct selection_words {
    const char *topic, *partition, *from, *to, *max;
};
int log_target_select(const struct log_target *t, const struct selection_words *w, struct selection *out);

/* The commands: 0 when all is well. */
int log_verify(int count, char **words);
int log_stat(int count, char **words);
int log_cat(int count, char **words);
int log_export(int count, char **words);
int log_import(int count, char **words);
int log_snapshot(int count, char **words);
int log_restore(int count, char **words);

/* A decimal number without sign; false: it is none. */
bool argument_number(const char *text, uint64_t *out);

/* stdout, whole lines. Somebody who has read enough is no error: OUTPUT_CLOSED. SIGPIPE must be ignored. */
enum output { OUTPUT_OK, OUTPUT_CLOSED, OUTPUT_FAILED };
enum output output_put(struct slice bytes);
enum output output_finish(void); /* also tells a failure, on stderr */

#endif
