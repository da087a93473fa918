/* `tidegate log snapshot`: asks the node that uses the log, by its private API (its port is in <data>/ports);
 * where there is none, it opens the log itself, as a node would, and takes the snapshot under its lock. */
#include "gateway/cli/log_target.h"

#include "core/store/snapshot.h"
#include "core/store/store.h"

#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 1 << 20, TEXT_BYTES_MAX = 4096, ANSWER_MS_MAX = 60000 };

/* --- by the API --- */

static bool api_port(const char *dir, unsigned *port)
{
    char path[TEXT_BYTES_MAX], line[64];
    snprintf(path, sizeof path, "%s/ports", dir);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "api=%u", port) == 1;
    if (f)
        fclose(f);
    return found;
}

static int call(const char *address, unsigned port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *list;
    struct timeval patience = {.tv_sec = ANSWER_MS_MAX / 1000};
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(address, service, &hints, &list) != 0)
        return -1;
    int fd = socket(list->ai_family, list->ai_socktype | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
                    connect(fd, list->ai_addr, list->ai_addrlen) < 0)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* Everything until the node closes. */
static bool ask(int fd, struct slice request, struct buf *answer)
{
    char bytes[4096];
    ssize_t n;
    while (request.len > 0) {
        n = send(fd, request.data, request.len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        request = slice_from(request, (size_t)n);
    }
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        if (buf_put(answer, slice_of(bytes, (size_t)n)) != ST_OK)
            return false;
    return n == 0 && buf_put_byte(answer, '\0') == ST_OK;
}

static int by_api(struct log_target *t, const char *name)
{
    const struct settings *s = &t->settings;
    struct buf request, answer;
    unsigned port;
    int code = EXIT_CODE_UNAVAILABLE;
    const char *address = strcmp(s->api_bind, "0.0.0.0") == 0 ? "127.0.0.1"
                          : strcmp(s->api_bind, "::") == 0    ? "::1"
                                                              : s->api_bind;
    int fd = api_port(s->data_dir, &port) ? call(address, port) : -1;
    if (fd < 0) {
        fprintf(stderr, "tidegate: a process uses this log, and its API at %s does not answer\n", address);
        return code;
    }
    buf_init(&request, TEXT_BYTES_MAX + strlen(s->api_key));
    buf_init(&answer, ANSWER_BYTES_MAX);
    enum status st = buf_printf(&request,
                                "POST /v1/node/snapshot HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                "%s%s%sContent-Length: %zu\r\n\r\n{\"name\":\"%s\"}",
                                s->api_key[0] ? "Authorization: Bearer " : "", s->api_key,
                                s->api_key[0] ? "\r\n" : "", strlen(name) + strlen("{\"name\":\"\"}"), name);
    if (st == ST_OK && ask(fd, buf_slice(&request), &answer)) {
        const char *text = (const char *)answer.data, *body = strstr(text, "\r\n\r\n");
        bool made = strncmp(text, "HTTP/1.1 200", 12) == 0;
        fprintf(made ? stdout : stderr, "%s", body ? body + 4 : text);
        code = made ? EXIT_CODE_OK : EXIT_CODE_FAILED;
    } else {
        fprintf(stderr, "tidegate: the node did not answer; the snapshot may be made yet\n");
    }
    close(fd);
    buf_deinit(&request);
    buf_deinit(&answer);
    return code;
}

/* --- without a node --- */

static void on_durable(void *ctx, unsigned lane, uint64_t next)
{
    (void)ctx;
    (void)lane;
    (void)next;
}

static enum status take(struct log_target *t, struct store *store, const char *name)
{
    static const struct store_events events = {.on_durable = on_durable};
    struct snapshot_report report;
    uint64_t upto[STORE_LANES_MAX];
    struct loop *loop;
    enum status st = loop_create(clock_system(), 0, &loop);
    if (st != ST_OK)
        return st;
    struct metrics *metrics = metrics_register();
    for (unsigned i = 0; i < store_lane_count(store); i++)
        store_bind(store, i, loop, &events, NULL, metrics);
    loop_dispatch(loop); /* from here on it is this thread's */
    for (unsigned i = 0; st == ST_OK && i < store_lane_count(store); i++)
        st = store_roll(store, i, &upto[i]);
    if (st == ST_OK)
        st = store_snapshot(store, upto, name, t->settings.log_snapshots_max, &report, &t->error);
    if (st == ST_OK)
        printf("{\"path\":\"%s\",\"bytes\":%" PRIu64 ",\"segments\":%u}\n", report.path, report.bytes,
               report.segments);
    store_close(store);
    loop_dispatch(loop);
    loop_destroy(loop);
    return st;
}

static enum status by_hand(struct log_target *t, const char *name)
{
    const struct settings *s = &t->settings;
    struct store *store;
    struct store_options o = {
        .dir = s->data_dir,
        .lane_count = view_lane_count(t->view),
        .segment_bytes = s->log_segment_bytes,
        .unsynced_bytes_max = s->log_unsynced_bytes_max,
        .lazy_ms = s->log_lazy_ms,
        .lazy_bytes = s->log_lazy_bytes,
        .recent_bytes = s->log_recent_bytes,
        .sync = STORE_SYNC_ALWAYS,
        .disk_warn_percent = (unsigned)s->log_disk_warn_percent,
        .disk_refuse_percent = (unsigned)s->log_disk_refuse_percent,
        .clock = clock_system(),
    };
    enum status st = store_open(&o, &store, &t->error);
    return st == ST_OK ? take(t, store, name) : st;
}

int log_snapshot(int count, char **words)
{
    struct log_target t;
    char name[SNAPSHOT_NAME_BYTES_MAX + 1];
    const char *given = name;
    int code = log_target_parse(count, words, NULL, 0, 1, &t);
    if (code == 0)
        code = log_target_open(&t);
    if (code != 0)
        return code;
    snapshot_name_of_time(clock_wall_ms(clock_system()), name);
    if (t.arguments.operand_count > 0)
        given = t.arguments.operands[0];
    if (!snapshot_name_valid(given)) {
        code = arguments_refuse("a snapshot's name has 1 to 64 letters, digits, '-' and '_', not", given);
    } else if (view_running(t.view)) {
        code = by_api(&t, given);
    } else {
        enum status st = by_hand(&t, given);
        code = st == ST_OK ? 0 : log_target_fail(&t, st);
    }
    log_target_close(&t);
    return code;
}
