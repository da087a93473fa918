/* The node writes the outcome of each reload to a file, with the moment at which it began. The first one that
 * began after our signal is ours, or one that has read the configuration later still. */
#include "gateway/cli/reload.h"

#include "core/clock.h"
#include "gateway/cli/node_target.h"
#include "gateway/reload.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { WAIT_MS_MAX = 30000, POLL_US = 10000, LINE_BYTES_MAX = 65536 };

/* The rest of the file, for people. */
static void print_rest(FILE *from, FILE *to)
{
    char bytes[4096];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, from)) > 0)
        fwrite(bytes, 1, n, to);
}

/* -1: no outcome of ours yet. */
static int outcome(const char *path, uint64_t since_ns)
{
    uint64_t begun_ns;
    char word[16];
    int code = -1;
    FILE *f = fopen(path, "re");
    if (!f)
        return code;
    if (fscanf(f, "%" SCNu64 " %15s", &begun_ns, word) == 2 && begun_ns >= since_ns) {
        bool ok = strcmp(word, "ok") == 0;
        (void)fgetc(f); /* the end of the line */
        if (!ok)
            fputs("tidegate: ", stderr);
        print_rest(f, ok ? stdout : stderr);
        code = ok ? EXIT_CODE_OK : EXIT_CODE_CONFIG;
    }
    fclose(f);
    return code;
}

static int wait_for_outcome(const struct node_target *t, pid_t pid, uint64_t since_ns)
{
    char path[4096];
    uint64_t end_ms = clock_mono_ms(clock_system()) + WAIT_MS_MAX;
    snprintf(path, sizeof path, "%s/%s", t->settings.data_dir, RELOAD_FILE);
    for (;;) {
        int code = outcome(path, since_ns);
        if (code >= 0)
            return code;
        if (kill(pid, 0) < 0 && errno == ESRCH) {
            fprintf(stderr, "tidegate: process %ld has ended; see its log\n", (long)pid);
            return EXIT_CODE_FAILED;
        }
        if (clock_mono_ms(clock_system()) >= end_ms) {
            fprintf(stderr, "tidegate: process %ld has not said within %d s what became of it; see its log\n",
                    (long)pid, WAIT_MS_MAX / 1000);
            return EXIT_CODE_RETRY;
        }
        usleep(POLL_US);
    }
}

int reload_command(int count, char **words)
{
    struct node_target t;
    pid_t pid;
    int code = node_target_parse(count, words, NULL, 0, 0, &t);
    if (code != 0)
        return code;
    code = node_target_process(&t, &pid);
    uint64_t since_ns = clock_mono_ns(clock_system());
    if (code == 0 && kill(pid, SIGHUP) < 0) {
        fprintf(stderr, "tidegate: cannot signal process %ld: %s; run this as the user that runs the node\n",
                (long)pid, strerror(errno));
        code = errno == EPERM ? EXIT_CODE_PERMISSION : EXIT_CODE_FAILED;
    }
    if (code == 0)
        code = wait_for_outcome(&t, pid, since_ns);
    node_target_free(&t);
    return code;
}
