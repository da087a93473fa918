/* The node that a command is for: its settings (arguments as of `serve`, and --data DIR), and its process. */
#ifndef TG_GATEWAY_CLI_NODE_TARGET_H
#define TG_GATEWAY_CLI_NODE_TARGET_H

#include "gateway/cli/arguments.h"

#include <sys/types.h>

struct node_target {
    struct arguments arguments;
    struct settings settings;
};

/* Parses; also makes the program's log quiet, for commands. 0, or the exit code. */
int node_target_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                      size_t operands_max, struct node_target *out);
void node_target_free(struct node_target *t);

/* The process that holds the folder's lock: a stale pid file names nobody. 0, or 69 after a line that says
 * that there is none. */
int node_target_process(const struct node_target *t, pid_t *pid);

#endif
