/* tidegate: the command (PROTOCOL.md 5). Each subcommand is a row of one table. */
#include "core/hash.h"
#include "core/logging.h"
#include "core/metrics.h"
#include "gateway/node.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_FAILED = 1,
    EXIT_CODE_USAGE = 2,
    EXIT_CODE_UNAVAILABLE = 69,
    EXIT_CODE_PERMISSION = 77,
    EXIT_CODE_CONFIG = 78
};

enum { ASSIGNMENTS_MAX = 256, ERROR_BYTES_MAX = 4096, DOCUMENT_BYTES_MAX = 1 << 20 };

struct arguments {
    const char *config;
    const char *assignments[ASSIGNMENTS_MAX];
    size_t assignment_count;
};

static int complain(const struct buf *error, int code)
{
    fprintf(stderr, "tidegate: %.*s\n", (int)error->len, (const char *)error->data);
    return code;
}

static int usage_error(const char *what, const char *which)
{
    fprintf(stderr, "tidegate: %s%s%s%s. See: tidegate help\n", what, which ? " \"" : "", which ? which : "",
            which ? "\"" : "");
    return EXIT_CODE_USAGE;
}

/* --config FILE and --set key=value, in any order. 0, or the exit code of a usage error. */
static int parse_arguments(int count, char **words, struct arguments *out)
{
    for (int i = 0; i < count; i++) {
        bool config = strcmp(words[i], "--config") == 0;
        if (!config && strcmp(words[i], "--set") != 0)
            return usage_error("unknown argument", words[i]);
        if (i + 1 >= count)
            return usage_error("a value is missing after", words[i]);
        const char *value = words[++i];
        if (config)
            out->config = value;
        else if (out->assignment_count < ASSIGNMENTS_MAX)
            out->assignments[out->assignment_count++] = value;
        else
            return usage_error("too many --set; use a file", NULL);
    }
    return 0;
}

static int load(int count, char **words, struct settings *s)
{
    struct arguments a = {0};
    struct buf error;
    int code = parse_arguments(count, words, &a);
    if (code != 0)
        return code;
    buf_init(&error, ERROR_BYTES_MAX);
    if (settings_load(s, a.config, environ, a.assignments, a.assignment_count, &error) != ST_OK)
        code = complain(&error, EXIT_CODE_CONFIG);
    buf_deinit(&error);
    return code;
}

/* --- serve -------------------------------------------------------------------------------------- */

static int exit_code_of(enum status st)
{
    switch ((int)st) {
    case ST_EXISTS: /* a port, the data folder */
    case ST_FULL: /* descriptors */
        return EXIT_CODE_UNAVAILABLE;
    case ST_FORBIDDEN:
        return EXIT_CODE_PERMISSION;
    case ST_INVALID:
        return EXIT_CODE_CONFIG;
    default:
        return EXIT_CODE_FAILED;
    }
}

/* The signals are blocked before any thread exists, so only this thread takes them. */
static void wait_for_end(const sigset_t *signals)
{
    for (;;) {
        int signal_number;
        if (sigwait(signals, &signal_number) != 0)
            continue;
        if (signal_number == SIGHUP) {
            log_warn("SIGHUP ignored: this build does not reload its configuration; restart to change it");
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
    int code = load(count, words, &s);
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
        code = complain(&error, exit_code_of(st));
    } else {
        st = node_start(node, &error);
        if (st == ST_OK)
            wait_for_end(&signals);
        else
            code = complain(&error, exit_code_of(st));
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
        return usage_error("config needs one of check, show, default, doc", NULL);
    int code = load(count - 1, words + 1, &s);
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
        return usage_error("version takes no arguments", NULL);
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
    return usage_error("unknown command", name);
}
