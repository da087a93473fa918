/* Arguments and exit codes of every subcommand (PROTOCOL.md 4). What is wrong is told on stderr, in one line
 * that says what to do. */
#ifndef TG_GATEWAY_CLI_ARGUMENTS_H
#define TG_GATEWAY_CLI_ARGUMENTS_H

#include "gateway/settings.h"

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_FAILED = 1,
    EXIT_CODE_USAGE = 2,
    EXIT_CODE_UNAVAILABLE = 69,
    EXIT_CODE_RETRY = 75, /* what a later start may find mended: a full disk, an I/O error */
    EXIT_CODE_PERMISSION = 77,
    EXIT_CODE_CONFIG = 78
};

enum { ASSIGNMENTS_MAX = 256, OPERANDS_MAX = 4 };

/* An option of a subcommand besides --config and --set. */
struct argument_option {
    const char *name; /* "--max" */
    const char **value; /* NULL: a flag */
    bool *flag;
};

struct arguments {
    const char *config;
    const char *assignments[ASSIGNMENTS_MAX];
    size_t assignment_count;
    const char *operands[OPERANDS_MAX]; /* words that begin with no '-', and "-" itself */
    size_t operand_count;
};

/* Words in any order; at most `operands_max` operands. 0, or the exit code of a usage error. */
int arguments_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                    size_t operands_max, struct arguments *out);
/* Reads the configuration. 0, or the exit code. */
int arguments_settings(const struct arguments *a, struct settings *out);
/* Both, of a command that has no arguments of its own. */
int arguments_load_settings(int count, char **words, struct settings *out);

/* Prints the line and returns `code`. */
int arguments_complain(const struct buf *error, int code);
int arguments_refuse(const char *what, const char *which); /* a usage error; `which` may be NULL */
int arguments_exit_code(enum status st);

#endif
