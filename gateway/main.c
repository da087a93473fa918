/* tidegate: the command (docs/PROTOCOL.md 4). Each subcommand is a row of one table. */
#include "core/hash.h"
#include "core/logging.h"
#include "core/metrics.h"
#include "gateway/cli/arguments.h"
#include "gateway/cli/log.h"
#include "gateway/cli/token.h"
#include "gateway/cli/user.h"
#include "gateway/node.h"
#include "gateway/tls/context.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { ERROR_BYTES_MAX = 4096, DOCUMENT_BYTES_MAX = 1 << 20 };

/* --- serve -------------------------------------------------------------------------------------- */

/* SIGHUP: certificates only; other settings are read once. */
static void reload(struct node *node, const struct settings *s)
{
    struct buf error;
    buf_init(&error, ERROR_BYTES_MAX);
    if (tls_configured(s)) {
        enum status st = node_reload_tls(node, s, &error);
        if (st != ST_OK)
            log_error("certificates are not renewed, the old ones stay: %.*s (%s)", (int)error.len,
                      (const char *)error.data, status_name(st));
    } else {
        log_warn(
            "SIGHUP: no certificates to read again; this build reloads nothing else, restart to change it");
    }
    buf_deinit(&error);
}

/* The signals are blocked before any thread exists, so only this thread takes them. */
static void wait_for_end(const sigset_t *signals, struct node *node, const struct settings *s)
{
    for (;;) {
        int signal_number;
        if (sigwait(signals, &signal_number) != 0)
            continue;
        if (signal_number == SIGHUP) {
            reload(node, s);
            continue;
        }
        log_info("stopping signal=%d", signal_number);
        return;
    }
}

static int command_serve(int count, char **words)
{
    struct settings s;
    struct buf error;
    struct node *node;
    sigset_t signals;
    int code = arguments_load_settings(count, words, &s);
    if (code != 0)
        return code;
    log_setup((enum log_level)s.log_level, (enum log_form)s.log_form);
    hash_setup();
    metrics_set_version(TIDEGATE_VERSION);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    buf_init(&error, ERROR_BYTES_MAX);
    enum status st = node_create(&s, &node, &error);
    if (st != ST_OK) {
        if (error.len == 0 && buf_printf(&error, "cannot start: %s", status_name(st)) != ST_OK)
            fputs("tidegate: cannot start\n", stderr);
        code = arguments_complain(&error, arguments_exit_code(st));
    } else {
        st = node_start(node, &error);
        if (st == ST_OK)
            wait_for_end(&signals, node, &s);
        else
            code = arguments_complain(&error, arguments_exit_code(st));
        node_stop(node);
        if (code == 0)
            log_info("stopped");
    }
    buf_deinit(&error);
    settings_free(&s);
    return code;
}

/* --- config, version, help ---------------------------------------------------------------------- */

static int print_document(enum status st, struct buf *b)
{
    if (st == ST_OK)
        fwrite(b->data, 1, b->len, stdout);
    buf_deinit(b);
    return st == ST_OK ? EXIT_CODE_OK : EXIT_CODE_FAILED;
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
    if (strcmp(what, "check") != 0 && strcmp(what, "show") != 0)
        return arguments_refuse("config needs one of check, show, default, doc", NULL);
    int code = arguments_load_settings(count - 1, words + 1, &s);
    if (code != 0)
        return code;
    if (strcmp(what, "show") == 0)
        code = print_document(config_print(settings_table(), &s, false, &text), &text);
    else
        puts("ok");
    settings_free(&s);
    return code;
}

static int command_version(int count, char **words)
{
    (void)words;
    if (count > 0)
        return arguments_refuse("version takes no arguments", NULL);
    puts("tidegate " TIDEGATE_VERSION);
    return EXIT_CODE_OK;
}

static int command_help(int count, char **words);

static const struct command {
    const char *name;
    int (*run)(int count, char **words);
    const char *help;
} commands[] = {
    {"serve", command_serve, "[--config FILE] [--set key=value]...   run a node until SIGTERM"},
    {"log", log_command,
     "verify|stat|cat|export|import|snapshot|restore ...   the log of a node: tidegate log help"},
    {"token", token_command, "create USER [--ttl 1h] [--id ID] [--claims JSON] | check TOKEN   [--data DIR]"},
    {"user", user_command,
     "add NAME | remove NAME | list   [--data DIR]   passwords, read from the standard input"},
    {"config", command_config, "check|show|default|doc [--config FILE] [--set key=value]..."},
    {"version", command_version, "print the version"},
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

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(argc > 2 ? argc - 2 : 0, argv + 2);
    return arguments_refuse("unknown command", name);
}
