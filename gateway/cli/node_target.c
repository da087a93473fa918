#include "gateway/cli/node_target.h"

#include "core/hash.h"
#include "core/logging.h"
#include "core/store/folder.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPTIONS_MAX = 16 };

int node_target_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                      size_t operands_max, struct node_target *out)
{
    const char *data = NULL;
    struct argument_option all[OPTIONS_MAX] = {{"--data", &data, NULL}};
    *out = (struct node_target){0};
    for (size_t i = 0; i < option_count; i++)
        all[i + 1] = options[i];
    int code = arguments_parse(count, words, all, option_count + 1, operands_max, &out->arguments);
    if (code == 0)
        code = arguments_settings(&out->arguments, &out->settings);
    if (code != 0)
        return code;
    if (data) {
        char *copy = strdup(data);
        if (!copy) {
            settings_free(&out->settings);
            return EXIT_CODE_FAILED;
        }
        free(out->settings.data_dir);
        out->settings.data_dir = copy;
    }
    log_setup(LOG_WARN, LOG_FORM_TEXT);
    hash_setup();
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

void node_target_free(struct node_target *t)
{
    settings_free(&t->settings);
}

int node_target_process(const struct node_target *t, pid_t *pid)
{
    long holder = folder_holder(t->settings.data_dir);
    if (holder > 0) {
        *pid = (pid_t)holder;
        return 0;
    }
    fprintf(stderr,
            "tidegate: no node runs on %s; start one (tidegate serve), or name its folder by --data DIR\n",
            t->settings.data_dir);
    return EXIT_CODE_UNAVAILABLE;
}
