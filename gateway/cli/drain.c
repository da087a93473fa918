/* By the API, where a second request changes nothing; a second SIGTERM would end the drain of somebody else.
 */
#include "gateway/cli/drain.h"

#include "core/clock.h"
#include "core/store/folder.h"
#include "gateway/cli/node_api.h"
#include "gateway/cli/node_target.h"

#include <stdio.h>
#include <unistd.h>

enum { POLL_US = 20000, EXTRA_MS = 30000 };

/* The folder's lock is free when the log is closed: another node may start. */
static int wait_for_end(const struct node_target *t, pid_t pid)
{
    const struct settings *s = &t->settings;
    uint64_t end_ms = clock_mono_ms(clock_system()) + s->drain_delay_ms + 2 * s->drain_max_ms + EXTRA_MS;
    while (folder_holder(s->data_dir) == pid) {
        if (clock_mono_ms(clock_system()) >= end_ms) {
            fprintf(stderr, "tidegate: process %ld has not ended yet; see its log\n", (long)pid);
            return EXIT_CODE_RETRY;
        }
        usleep(POLL_US);
    }
    return EXIT_CODE_OK;
}

int drain_command(int count, char **words)
{
    static const struct node_request request = {.method = "POST", .target = "/v1/node/drain"};
    struct node_target t;
    struct buf answer;
    pid_t pid;
    unsigned status = 0;
    int code = node_target_parse(count, words, NULL, 0, 0, &t);
    if (code != 0)
        return code;
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    code = node_target_process(&t, &pid);
    if (code == 0) {
        enum status st = node_call(&t.settings, &request, &status, &answer);
        code = st == ST_OK && status == 202
                   ? wait_for_end(&t, pid)
                   : node_call_failed(&t.settings, &request, st, status, (const char *)answer.data);
    }
    buf_deinit(&answer);
    node_target_free(&t);
    return code;
}
