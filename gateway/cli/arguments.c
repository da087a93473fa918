#include "gateway/cli/arguments.h"

#include <stdio.h>
#include <unistd.h>

enum { ERROR_BYTES_MAX = 4096 };

int arguments_complain(const struct buf *error, int code)
{
    fprintf(stderr, "tidegate: %.*s\n", (int)error->len, (const char *)error->data);
    return code;
}

int arguments_refuse(const char *what, const char *which)
{
    fprintf(stderr, "tidegate: %s%s%s%s. See: tidegate help\n", what, which ? " \"" : "", which ? which : "",
            which ? "\"" : "");
    return EXIT_CODE_USAGE;
}

int arguments_exit_code(enum status st)
{
    switch ((int)st) {
    case ST_OK:
        return EXIT_CODE_OK;
    case ST_EXISTS: /* a port, the data folder */
    case ST_FULL: /* descriptors */
        return EXIT_CODE_UNAVAILABLE;
    case ST_NO_SPACE:
    case ST_IO:
        return EXIT_CODE_RETRY;
    case ST_FORBIDDEN:
        return EXIT_CODE_PERMISSION;
    case ST_INVALID:
        return EXIT_CODE_CONFIG;
    default:
        return EXIT_CODE_FAILED;
    }
}

static const struct argument_option *find_option(const struct argument_option *options, size_t count,
                                                 const char *word)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(options[i].name, word) == 0)
            return &options[i];
    return NULL;
}

int arguments_parse(int count, char **words, const struct argument_option *options, size_t option_count,
                    size_t operands_max, struct arguments *out)
{
    for (int i = 0; i < count; i++) {
        const struct argument_option *option = find_option(options, option_count, words[i]);
        bool config = strcmp(words[i], "--config") == 0, set = strcmp(words[i], "--set") == 0;
        bool operand = words[i][0] != '-' || words[i][1] == '\0';
        if (operand && out->operand_count < operands_max) {
            out->operands[out->operand_count++] = words[i];
            continue;
        }
        if (!option && !config && !set)
            return arguments_refuse("unknown argument", words[i]);
        if (option && option->flag) {
            *option->flag = true;
            continue;
        }
        if (i + 1 >= count)
            return arguments_refuse("a value is missing after", words[i]);
        const char *value = words[++i];
        if (option)
            *option->value = value;
        else if (config)
            out->config = value;
        else if (out->assignment_count < ASSIGNMENTS_MAX)
            out->assignments[out->assignment_count++] = value;
        else
            return arguments_refuse("too many --set; use a file", NULL);
    }
    return 0;
}

int arguments_settings(const struct arguments *a, struct settings *out)
{
    struct buf error;
    int code = 0;
    buf_init(&error, ERROR_BYTES_MAX);
    if (settings_load(out, a->config, environ, a->assignments, a->assignment_count, &error) != ST_OK)
        code = arguments_complain(&error, EXIT_CODE_CONFIG);
    buf_deinit(&error);
    return code;
}

int arguments_load_settings(int count, char **words, struct settings *out)
{
    struct arguments a = {0};
    int code = arguments_parse(count, words, NULL, 0, 0, &a);
    return code != 0 ? code : arguments_settings(&a, out);
}
