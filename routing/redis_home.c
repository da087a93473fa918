/* One attempt is a walk through these states; whatever goes wrong in any of them ends in WAITING. One timer
 * both ends the wait and looks whether a step, or a reply, takes too long: a server that hangs (SIGSTOP, a
 * cut network) is told apart from a slow one by timeout_ms alone.
 *
 *   WAITING -> RESOLVING -> CONNECTING -> GREETING -> UP
 *                 ^                          |  a Sentinel has named the master
 *                 +--------------------------+ */
#include "routing/redis_home.h"

#include "core/logging.h"
#include "core/resolve.h"
#include "routing/redis_link.h"
#include "routing/redis_reply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TICK_MS = 20, WHY_BYTES = 512, PASSWORD_BYTES = 1024, DB_BYTES = 21 };

enum home_state { HOME_WAITING, HOME_RESOLVING, HOME_CONNECTING, HOME_GREETING, HOME_UP };

struct redis_home {
    struct loop *loop;
    struct metrics *metrics;
    struct redis_home_options o;
    const struct redis_home_ops *ops;
    void *ctx;
    enum home_state state;
    struct timer timer;
    uint64_t retry_at_ms, wait_ms;
    uint64_t random;
    struct redis_address at; /* whom the attempt is about */
    bool at_sentinel;
    unsigned next_sentinel;
    struct resolve *resolve;
    struct resolve_answer found;
    unsigned next_address;
    struct redis_link *link;
    char run[REDIS_RUN_BYTES_MAX + 1];
    char last_why[WHY_BYTES]; /* logged already */
};

static void begin_attempt(struct redis_home *h);
static void connect_next(struct redis_home *h, const char *why);

/* --- addresses ------------------------------------------------------------------------------------ */

static bool read_port(struct slice text, uint16_t *out)
{
    unsigned value = 0;
    if (text.len == 0 || text.len > 5)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text.data[i] - '0');
    }
    *out = (uint16_t)value;
    return value >= 1 && value <= UINT16_MAX;
}

enum status redis_address_read(struct slice text, uint16_t port, struct redis_address *out)
{
    struct redis_address a = {.port = port};
    struct slice host = text, rest = {0};
    if (text.len > 0 && text.data[0] == '[') {
        const uint8_t *end = memchr(text.data, ']', text.len);
        if (!end)
            return ST_INVALID;
        host = slice_of(text.data + 1, (size_t)(end - text.data) - 1);
        rest = slice_from(text, host.len + 2);
    } else {
        const uint8_t *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
        if (colon) {
            host.len = (size_t)(colon - text.data);
            rest = slice_from(text, host.len);
        }
    }
    if (host.len == 0 || host.len > REDIS_HOST_BYTES_MAX || memchr(host.data, '\0', host.len))
        return ST_INVALID;
    if (rest.len > 0 && (rest.data[0] != ':' || !read_port(slice_from(rest, 1), &a.port)))
        return ST_INVALID;
    memcpy(a.host, host.data, host.len);
    *out = a;
    return ST_OK;
}

/* --- failing -------------------------------------------------------------------------------------- */

/* Uniform in 0 to `limit` - 1; for jitter only. */
static uint64_t draw(struct redis_home *h, uint64_t limit)
{
    h->random ^= h->random << 13; /* xorshift64 */
    h->random ^= h->random >> 7;
    h->random ^= h->random << 17;
    return limit > 0 ? h->random % limit : 0;
}

static void plan_retry(struct redis_home *h)
{
    uint64_t wait = h->wait_ms / 2 + draw(h, h->wait_ms / 2 + 1);
    h->retry_at_ms = loop_now_ms(h->loop) + wait;
    h->wait_ms = h->wait_ms * 2 < h->o.retry_max_ms ? h->wait_ms * 2 : h->o.retry_max_ms;
}

static void drop_link(struct redis_home *h)
{
    redis_link_close(h->link);
    h->link = NULL;
    resolve_cancel(h->resolve);
    h->resolve = NULL;
}

/* The same reason again and again is one line in the log. */
static void tell(struct redis_home *h, const char *why)
{
    char text[WHY_BYTES];
    snprintf(text, sizeof text, "%s%s:%u: %.*s", h->at_sentinel ? "sentinel " : "", h->at.host,
             (unsigned)h->at.port, 200, why);
    if (strcmp(text, h->last_why) == 0)
        return;
    memcpy(h->last_why, text, sizeof text);
    log_warn("the directory's redis cannot be used: delivery goes on, look-ups say stale, and it is tried "
             "again why=\"%s\"",
             text);
}

void redis_home_fail(struct redis_home *h, const char *why)
{
    bool was_up = h->state == HOME_UP;
    tell(h, why);
    if (!was_up)
        metric_add(h->metrics, M_REDIS_CONNECTS_FAILED, 1);
    metric_set(h->metrics, M_REDIS_UP, 0);
    drop_link(h);
    h->state = HOME_WAITING;
    h->next_sentinel++;
    plan_retry(h);
    if (was_up)
        h->ops->on_down(h->ctx);
}

/* --- greeting: AUTH, SELECT, then INFO or the question to a Sentinel --------------------------------- */

static void fail_by_reply(struct redis_home *h, const char *command, const struct redisReply *r)
{
    char why[WHY_BYTES];
    struct slice words = redis_reply_is_error(r) ? redis_reply_error(r) : slice_cstr("not an answer to that");
    snprintf(why, sizeof why, "%s: %.*s", command, SLICE_ARG(words));
    redis_home_fail(h, why);
}

static void on_auth(void *ctx, void *subject, const struct redisReply *r)
{
    (void)subject;
    if (redis_reply_is_error(r))
        fail_by_reply(ctx, "AUTH", r);
}

static void on_select(void *ctx, void *subject, const struct redisReply *r)
{
    (void)subject;
    if (redis_reply_is_error(r))
        fail_by_reply(ctx, "SELECT", r);
}

/* The value of "<name>:<value>\r\n" in the text of INFO; empty: it is not there. */
static struct slice info_value(struct slice info, const char *name)
{
    size_t len = strlen(name);
    while (info.len > 0) {
        const uint8_t *end = memchr(info.data, '\n', info.len);
        size_t line = end ? (size_t)(end - info.data) : info.len;
        if (line > len && memcmp(info.data, name, len) == 0 && info.data[len] == ':') {
            size_t stop = info.data[line - 1] == '\r' ? line - 1 : line;
            return slice_of(info.data + len + 1, stop - len - 1);
        }
        info = slice_from(info, end ? line + 1 : line);
    }
    return (struct slice){0};
}

static void on_info(void *ctx, void *subject, const struct redisReply *r)
{
    struct redis_home *h = ctx;
    struct slice info = redis_reply_text(r), run = info_value(info, "run_id"),
                 role = info_value(info, "role");
    (void)subject;
    if (h->state != HOME_GREETING)
        return;
    if (run.len == 0 || run.len > REDIS_RUN_BYTES_MAX) {
        fail_by_reply(h, "INFO", r);
        return;
    }
    if (!slice_equal_cstr(role, "master")) {
        redis_home_fail(h, "it is a replica, which takes no writes");
        return;
    }
    memcpy(h->run, run.data, run.len);
    h->run[run.len] = '\0';
    h->state = HOME_UP;
    h->wait_ms = h->o.retry_min_ms;
    h->last_why[0] = '\0';
    metric_add(h->metrics, M_REDIS_CONNECTS_OK, 1);
    metric_set(h->metrics, M_REDIS_UP, 1);
    log_info("the directory's redis is connected server=%s:%u run=%s", h->at.host, (unsigned)h->at.port,
             h->run);
    h->ops->on_up(h->ctx, h->link, slice_cstr(h->run));
}

static void on_master(void *ctx, void *subject, const struct redisReply *r)
{
    struct redis_home *h = ctx;
    struct slice host = redis_reply_text(redis_reply_at(r, 0)), port = redis_reply_text(redis_reply_at(r, 1));
    struct redis_address at = {0};
    (void)subject;
    if (h->state != HOME_GREETING)
        return;
    if (redis_reply_is_error(r)) {
        fail_by_reply(h, "SENTINEL", r);
        return;
    }
    if (host.len == 0 || host.len > REDIS_HOST_BYTES_MAX || memchr(host.data, 0, host.len) ||
        !read_port(port, &at.port)) {
        redis_home_fail(h, "it knows no master of that name");
        return;
    }
    memcpy(at.host, host.data, host.len);
    drop_link(h);
    h->at = at;
    h->at_sentinel = false;
    begin_attempt(h);
}

/* The password's first line, if there is one. False: the file cannot be read. */
static bool read_password(const struct redis_login *login, char *out, size_t size)
{
    snprintf(out, size, "%s", login->password);
    if (login->password_file[0] == '\0')
        return true;
    int fd = open(login->password_file, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, out, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (len < 0)
        return false;
    out[len] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    return true;
}

static enum status ask_auth(struct redis_home *h)
{
    const struct redis_login *login = h->at_sentinel ? &h->o.sentinel_login : &h->o.login;
    char password[PASSWORD_BYTES];
    if (!read_password(login, password, sizeof password)) {
        char why[WHY_BYTES];
        snprintf(why, sizeof why, "%s cannot be read: %s", login->password_file, strerror(errno));
        redis_home_fail(h, why);
        return ST_IO;
    }
    struct slice words[3] = {slice_cstr("AUTH")};
    unsigned count = 1;
    if (login->user[0] != '\0')
        words[count++] = slice_cstr(login->user);
    words[count++] = slice_cstr(password);
    enum status st = ST_OK;
    if (password[0] != '\0' || login->user[0] != '\0')
        st = redis_link_ask(h->link, words, count, on_auth, h, NULL);
    explicit_bzero(password, sizeof password);
    return st;
}

static enum status ask_rest(struct redis_home *h)
{
    char db[DB_BYTES];
    const struct slice sentinel[] = {slice_cstr("SENTINEL"), slice_cstr("get-master-addr-by-name"),
                                     slice_cstr(h->o.master)};
    const struct slice info[] = {slice_cstr("INFO")};
    enum status st = ST_OK;
    if (h->at_sentinel)
        return redis_link_ask(h->link, sentinel, 3, on_master, h, NULL);
    if (h->o.db > 0) {
        int len = snprintf(db, sizeof db, "%lu", (unsigned long)h->o.db);
        const struct slice words[] = {slice_cstr("SELECT"), slice_of(db, (size_t)len)};
        st = redis_link_ask(h->link, words, 2, on_select, h, NULL);
    }
    return st == ST_OK ? redis_link_ask(h->link, info, 1, on_info, h, NULL) : st;
}

static void on_open(void *ctx)
{
    struct redis_home *h = ctx;
    h->state = HOME_GREETING;
    enum status st = ask_auth(h);
    if (h->state != HOME_GREETING)
        return;
    if (st == ST_OK)
        st = ask_rest(h);
    if (st != ST_OK)
        redis_home_fail(h, "no memory");
}

static void on_link_down(void *ctx, const char *why)
{
    struct redis_home *h = ctx;
    if (h->state == HOME_CONNECTING)
        connect_next(h, why);
    else
        redis_home_fail(h, why);
}

/* --- an attempt ------------------------------------------------------------------------------------ */

/* The next address of the name; none: the attempt has failed, for the reason of the last. */
static void connect_next(struct redis_home *h, const char *why)
{
    static const struct redis_link_ops ops = {.on_open = on_open, .on_down = on_link_down};
    redis_link_close(h->link);
    h->link = NULL;
    while (h->next_address < h->found.count) {
        const struct resolve_address *a = &h->found.addresses[h->next_address++];
        h->state = HOME_CONNECTING;
        if (redis_link_open(h->loop, h->metrics, (const struct sockaddr *)&a->address, a->len, h->o.tls,
                            h->at.host, &ops, h, &h->link) == ST_OK)
            return;
        why = strerror(errno);
    }
    redis_home_fail(h, why);
}

static void on_resolved(void *ctx, const struct resolve_answer *a)
{
    struct redis_home *h = ctx;
    h->resolve = NULL;
    h->found = *a;
    h->next_address = 0;
    connect_next(h, a->why);
}

static void begin_attempt(struct redis_home *h)
{
    h->state = HOME_RESOLVING;
    if (resolve_start(h->loop, h->at.host, h->at.port, on_resolved, h, &h->resolve) != ST_OK)
        redis_home_fail(h, "no memory");
}

static void choose_server(struct redis_home *h)
{
    h->at_sentinel = h->o.sentinel_count > 0;
    h->at = h->at_sentinel ? h->o.sentinels[h->next_sentinel % h->o.sentinel_count] : h->o.server;
}

static bool too_slow(const struct redis_home *h)
{
    uint64_t since = h->link ? redis_link_owed_since_ms(h->link) : UINT64_MAX;
    return since != UINT64_MAX && loop_now_ms(h->loop) - since > h->o.timeout_ms;
}

static void on_tick(struct timer *t)
{
    struct redis_home *h = LIST_OF(t, struct redis_home, timer);
    uint64_t now = loop_now_ms(h->loop);
    timer_arm(loop_timers(h->loop), t, now + TICK_MS);
    if (h->state == HOME_WAITING && now >= h->retry_at_ms) {
        choose_server(h);
        begin_attempt(h);
    } else if (too_slow(h)) {
        if (h->state == HOME_CONNECTING)
            connect_next(h, "it does not answer in time");
        else
            redis_home_fail(h, "it does not answer in time");
    }
}

/* --- life ------------------------------------------------------------------------------------------ */

enum status redis_home_create(struct loop *loop, struct metrics *metrics, const struct redis_home_options *o,
                              const struct redis_home_ops *ops, void *ctx, struct redis_home **out)
{
    struct redis_home *h = calloc(1, sizeof *h);
    if (!h)
        return ST_NO_MEMORY;
    h->loop = loop;
    h->metrics = metrics;
    h->o = *o;
    h->ops = ops;
    h->ctx = ctx;
    h->wait_ms = o->retry_min_ms;
    h->random = clock_mono_ns(loop_clock(loop)) | 1;
    timer_init(&h->timer, on_tick);
    *out = h;
    return ST_OK;
}

void redis_home_start(struct redis_home *h)
{
    h->retry_at_ms = 0;
    timer_arm(loop_timers(h->loop), &h->timer, loop_now_ms(h->loop));
}

const char *redis_home_why(const struct redis_home *h)
{
    return h->last_why;
}

void redis_home_destroy(struct redis_home *h)
{
    if (!h)
        return;
    timer_cancel(loop_timers(h->loop), &h->timer);
    drop_link(h);
    free(h);
}
