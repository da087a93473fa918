/* tidegate: the command (docs/PROTOCOL.md 4). Each subcommand is a row of one table. */
#include "gateway/cli/arguments.h"
#include "gateway/cli/doctor.h"
#include "gateway/cli/drain.h"
#include "gateway/cli/log.h"
#include "gateway/cli/outside.h"
#include "gateway/cli/token.h"
#include "gateway/cli/user.h"
#include "gateway/cli/version.h"
#include "gateway/cli/publish.h"
#include "gateway/cli/reload.h"
#include "gateway/cli/subscribe.h"
#include "gateway/serve.h"

#include <stdio.h>
#include <stdlib.h>

enum { DOCUMENT_BYTES_MAX = 1 << 20 };

/* --- config, version, help ---------------------------------------------------------------------- */

static int print_document(enum status st, struct buf *b)
{
    if (st == ST_OK)
        fwrite(b->data, 1, b->len, stdout);
    buf_deinit(b);
    return st == ST_OK ? EXIT_CODE_OK : EXIT_CODE_FAILED;
}

/* The values are valid; now what they name. */
static int check_outside(const struct settings *s)
{
    struct buf error;
    int code = EXIT_CODE_OK;
    buf_init(&error, 4096);
    if (outside_check_doors(s, &error) != ST_OK || outside_check_files(s, &error) != ST_OK)
        code = arguments_complain(&error, EXIT_CODE_CONFIG);
    else
        puts("ok");
    buf_deinit(&error);
    return code;
}

static int command_config(int count, char **words)
{
    struct settings s;
    struct buf text;
    const char *what = count > 0 ? words[0] : "";
    buf_init(&text, DOCUMENT_BYTES_MAX);
    if (strcmp(what, "doc") == 0)
        return print_document(config_document(settings_table(), &text), &text);
    if (strcmp(what, "default") == 0) {
        memset(&s, 0, sizeof s);
        config_defaults(settings_table(), &s);
        int code = print_document(config_print(settings_table(), &s, true, &text), &text);
        settings_free(&s);
        return code;
    }
    if (strcmp(what, "check") != 0 && strcmp(what, "show") != 0 && strcmp(what, "env") != 0)
        return arguments_refuse("config needs one of check, show, env, default, doc", NULL);
    int code = arguments_load_settings(count - 1, words + 1, &s);
    if (code != 0)
        return code;
    if (strcmp(what, "show") == 0)
        code = print_document(config_print(settings_table(), &s, false, &text), &text);
    else if (strcmp(what, "env") == 0)
        code = print_document(config_print_environment(settings_table(), &s, &text), &text);
    else
        code = check_outside(&s);
    settings_free(&s);
    return code;
}

static int command_help(int count, char **words);

static const struct command {
    const char *name;
    int (*run)(int count, char **words);
    const char *help;
} commands[] = {
    {"serve", serve_command, "[--config FILE] [--set key=value]...   run a node until SIGTERM"},
    {"pub", publish_command,
     "TOPIC [-d DATA | -f FILE] [--user U] [--token T] [--retain] [--key K] [--ttl MS]   without -d, -f: a "
     "line a "
     "message"},
    {"sub", subscribe_command,
     "FILTER [--from START] [--count N] [--json] [--token T]   prints messages as they come"},
    {"reload", reload_command, "[--data DIR]   a running node reads its configuration again"},
    {"drain", drain_command, "[--data DIR]   a running node tells its clients to go, and ends"},
    {"log", log_command,
     "verify|stat|cat|export|import|snapshot|restore ...   the log of a node: tidegate log help"},
    {"token", token_command, "create USER [--ttl 1h] [--id ID] [--claims JSON] | check TOKEN   [--data DIR]"},
    {"user", user_command,
     "add NAME | remove NAME | list   [--data DIR]   passwords, read from the standard input"},
    {"config", command_config, "check|show|env|default|doc [--config FILE] [--set key=value]..."},
    {"status", status_command, "[--data DIR]   is the node ready?"},
    {"doctor", doctor_command,
     "[--config FILE] [--set key=value]...   what a node needs on this machine, and what to do"},
    {"version", version_command, "ours, and those of the libraries"},
    {"help", command_help, "this text"},
};

static int command_help(int count, char **words)
{
    (void)count;
    (void)words;
    puts("tidegate: a push gateway. Publish by HTTP, MQTT or WebSocket; receive by WebSocket or MQTT.\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        printf("  tidegate %-8s %s\n", commands[i].name, commands[i].help);
    puts(
        "\nConfiguration: --config FILE (YAML) < environment TIDEGATE_SECTION__KEY < --set section.key=value."
        "\nEvery key: tidegate config default");
    return EXIT_CODE_OK;
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* `tidegate pub --help`, `tidegate log verify --help`. Farther on such a word may be an option's value. */
static bool wants_usage(const struct command *c, int count, char **words)
{
    if (count > 0 && asks_for_help(words[0]))
        return true;
    return count == 2 && c->run != publish_command && c->run != subscribe_command && asks_for_help(words[1]);
}

static int print_usage(const struct command *c)
{
    static char help[] = "help";
    char *words[] = {help};
    if (c->run == log_command)
        return log_command(1, words);
    printf("tidegate %s %s\n\nEvery command: tidegate help\n", c->name, c->help);
    return EXIT_CODE_OK;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    int count = argc > 2 ? argc - 2 : 0;
    if (asks_for_help(name))
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct command *c = &commands[i];
        if (strcmp(c->name, name) == 0)
            return wants_usage(c, count, argv + 2) ? print_usage(c) : c->run(count, argv + 2);
    }
    return arguments_refuse("unknown command", name);
}
