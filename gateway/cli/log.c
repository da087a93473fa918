#include "gateway/cli/log.h"

#include "gateway/cli/log_target.h"

#include <stdio.h>

static const struct log_verb {
    const char *name;
    int (*run)(int count, char **words);
    const char *help;
} verbs[] = {
    {"verify", log_verify, "[--json]   check every byte; changes none, works beside a running node"},
    {"stat", log_stat, "[--topics N] [--json]   what is in it"},
    {"cat", log_cat, "[SELECT]   messages as JSON lines, as history shows them"},
    {"export", log_export, "[SELECT]   messages as JSON lines that keep everything, for import"},
    {"import", log_import, "FILE|- [--keep-going]   appends such lines; the log must not be in use"},
    {"snapshot", log_snapshot,
     "[NAME]   of a running node by its API, else of the folder, which must not be in use"},
    {"restore", log_restore, "SNAPSHOT --data DIR   into a new or empty folder, as a log of a new epoch"},
};

static int help(int code)
{
    FILE *to = code == 0 ? stdout : stderr;
    fputs("tidegate log COMMAND [--config FILE] [--set key=value]... [--data DIR]\n\n", to);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].help);
    fputs("\nSELECT: --topic FILTER --partition P --max N\n"
          "        --from earliest|time:MS|POSITION (after it)   --to time:MS (before)|POSITION (with it)\n"
          "--data DIR is short for --set data.dir=DIR.\n",
          to);
    return code;
}

int log_command(int count, char **words)
{
    const char *name = count > 0 ? words[0] : "";
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0)
        return help(EXIT_CODE_OK);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return verbs[i].run(count - 1, words + 1);
    return help(EXIT_CODE_USAGE);
}
