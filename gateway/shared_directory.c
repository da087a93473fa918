#include "gateway/shared_directory.h"

#include "core/clock.h"
#include "core/loop.h"
#include "gateway/edge.h"
#include "routing/directory_redis.h"
#include "routing/redis_tls.h"

#include <stdio.h>
#include <stdlib.h>

enum { URL_BYTES_MAX = 1024, PORT = 6379, SENTINEL_PORT = 26379, DB_MAX = 65535, PREFIX_BYTES_MAX = 200 };

/* redis[s]://[user[:password]@]host[:port][/db], in pieces. */
struct redis_url {
    bool tls;
    char user[URL_BYTES_MAX], password[URL_BYTES_MAX];
    struct redis_address server;
    uint64_t db;
};

struct shared_directory {
    struct redis_url url;
    struct redis_tls *tls;
    const struct node_facts *facts;
    struct directory_redis *redis;
};

/* --- settings ------------------------------------------------------------------------------------- */

static int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-decoded. False: no such text, or a NUL in it. */
static bool decode(struct slice text, char out[URL_BYTES_MAX])
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++, len++) {
        int value = text.data[i];
        if (value == '%') {
            int high = i + 2 < text.len ? hex_value(text.data[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_value(text.data[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            value = high * 16 + low;
            i += 2;
        }
        if (value == 0 || len + 1 >= URL_BYTES_MAX)
            return false;
        out[len] = (char)value;
    }
    out[len] = '\0';
    return true;
}

static bool read_login(struct slice text, struct redis_url *u)
{
    const uint8_t *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;
    size_t len = colon ? (size_t)(colon - text.data) : text.len;
    return decode(slice_of(text.data, len), u->user) &&
           (!colon || decode(slice_from(text, len + 1), u->password));
}

static bool read_db(struct slice text, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || *out > DB_MAX)
            return false;
        *out = *out * 10 + (uint64_t)(text.data[i] - '0');
    }
    return *out <= DB_MAX;
}

static bool read_url(const char *text, bool needs_host, struct redis_url *u)
{
    static const char plain[] = "redis://", secure[] = "rediss://";
    struct slice rest = slice_cstr(text);
    memset(u, 0, sizeof *u);
    u->tls = slice_starts_with(rest, slice_cstr(secure));
    if (rest.len >= URL_BYTES_MAX || (!u->tls && !slice_starts_with(rest, slice_cstr(plain))))
        return false;
    rest = slice_from(rest, u->tls ? sizeof secure - 1 : sizeof plain - 1);
    for (size_t at = rest.len; at > 0; at--) {
        if (rest.data[at - 1] != '@')
            continue;
        if (!read_login(slice_of(rest.data, at - 1), u))
            return false;
        rest = slice_from(rest, at);
        break;
    }
    const uint8_t *slash = rest.len > 0 ? memchr(rest.data, '/', rest.len) : NULL;
    if (slash && !read_db(slice_of(slash + 1, rest.len - (size_t)(slash - rest.data) - 1), &u->db))
        return false;
    if (slash)
        rest.len = (size_t)(slash - rest.data);
    if (rest.len == 0 && !needs_host)
        return true;
    return redis_address_read(rest, PORT, &u->server) == ST_OK;
}

static bool read_sentinels(const char *list, struct redis_address *out, unsigned *count)
{
    struct slice rest = slice_cstr(list);
    *count = 0;
    while (rest.len > 0) {
        const uint8_t *end = memchr(rest.data, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.data) : rest.len;
        if (*count == REDIS_SENTINELS_MAX ||
            redis_address_read(slice_of(rest.data, len), SENTINEL_PORT, &out[*count]) != ST_OK)
            return false;
        ++*count;
        rest = slice_from(rest, end ? len + 1 : len);
    }
    return true;
}

static bool configured(const struct settings *s)
{
    return s->redis_url[0] != '\0' || s->redis_sentinels[0] != '\0';
}

static const char *redis_flaw(const struct settings *s)
{
    struct redis_address sentinels[REDIS_SENTINELS_MAX];
    struct redis_url url = {0};
    unsigned count;
    if (!read_sentinels(s->redis_sentinels, sentinels, &count))
        return "directory.redis.sentinels: must be at most 16 of host:port";
    if (s->redis_url[0] != '\0' && !read_url(s->redis_url, count == 0, &url))
        return "directory.redis.url: must be redis://[user:password@]host[:port][/db], or rediss://; a user "
               "and a "
               "password there are percent-encoded";
    if (!url.tls && (s->redis_ca_file[0] || s->redis_cert_file[0] || s->redis_key_file[0]))
        return "directory.redis.ca_file, cert_file, key_file: need a directory.redis.url that begins with "
               "rediss://";
    if ((s->redis_cert_file[0] == '\0') != (s->redis_key_file[0] == '\0'))
        return "directory.redis.cert_file and directory.redis.key_file: set both, or neither";
    if (count > 0 && s->redis_master[0] == '\0')
        return "directory.redis.master: must not be empty with directory.redis.sentinels";
    if (s->redis_prefix[0] == '\0' || strlen(s->redis_prefix) > PREFIX_BYTES_MAX)
        return "directory.redis.prefix: must have 1 to 200 bytes";
    if (s->redis_retry_min_ms > s->redis_retry_max_ms)
        return "directory.redis.retry_min_ms: must not be above directory.redis.retry_max_ms";
    if (strlen(s->node_id) > DIRECTORY_NODE_BYTES_MAX)
        return "node.id: must have at most 128 bytes with directory.redis.url";
    return NULL;
}

enum status shared_directory_check(const struct settings *s, struct buf *error)
{
    const char *flaw = configured(s) ? redis_flaw(s) : NULL;
    if (!flaw)
        return ST_OK;
    if (buf_put_cstr(error, flaw) != ST_OK)
        buf_clear(error);
    return ST_INVALID;
}

/* --- the node, as others see it ------------------------------------------------------------------- */

const char *node_state(const struct node_facts *f)
{
    if (atomic_load(&f->stopping))
        return "stopping";
    if (atomic_load(&f->draining))
        return "draining";
    return atomic_load(&f->ready) ? "ready" : "starting";
}

static void describe(void *ctx, struct directory_node *self)
{
    const struct node_facts *f = ctx;
    snprintf(self->state, sizeof self->state, "%s", node_state(f));
    snprintf(self->version, sizeof self->version, "%s", TIDEGATE_VERSION);
    self->started_ms = f->started_wall_ms;
    self->epoch = f->epoch;
    self->partitions = f->lane_count;
    self->connections = atomic_load(&f->connections);
}

/* --- life ----------------------------------------------------------------------------------------- */

static struct directory_redis_options options_of(const struct settings *s, const struct node_facts *facts,
                                                 struct shared_directory *d)
{
    struct directory_redis_options o = {
        .prefix = s->redis_prefix,
        .node = s->node_id,
        .incarnation = facts->incarnation,
        .lease_ms = s->redis_lease_ms,
        .entry_ms = s->redis_entry_ms,
        .pending_max = s->redis_pending,
        .cache_bytes = s->redis_cache_bytes,
        .describe = describe,
        .ctx = (void *)(uintptr_t)facts, /* read only */
        .home = {.server = d->url.server,
                 .master = s->redis_master,
                 .login = {.user = s->redis_user[0] ? s->redis_user : d->url.user,
                           .password_file = s->redis_password_file,
                           .password = d->url.password},
                 .sentinel_login = {.user = s->redis_sentinel_user,
                                    .password_file = s->redis_sentinel_password_file,
                                    .password = ""},
                 .db = d->url.db,
                 .tls = d->tls,
                 .timeout_ms = s->redis_timeout_ms,
                 .retry_min_ms = s->redis_retry_min_ms,
                 .retry_max_ms = s->redis_retry_max_ms},
    };
    bool valid = read_sentinels(s->redis_sentinels, o.home.sentinels, &o.home.sentinel_count);
    (void)valid; /* shared_directory_check */
    return o;
}

enum status shared_directory_create(const struct settings *s, const struct node_facts *facts,
                                    struct shared_directory **out, struct buf *error)
{
    *out = NULL;
    if (!configured(s))
        return ST_OK;
    struct shared_directory *d = calloc(1, sizeof *d);
    if (!d)
        return ST_NO_MEMORY;
    d->facts = facts;
    enum status st = ST_OK;
    if (s->redis_url[0] != '\0' && !read_url(s->redis_url, s->redis_sentinels[0] == '\0', &d->url))
        st = ST_INVALID;
    if (st == ST_OK && d->url.tls)
        st = redis_tls_load(s->redis_ca_file, s->redis_cert_file, s->redis_key_file, &d->tls, error);
    if (st == ST_OK) {
        const struct directory_redis_options o = options_of(s, facts, d);
        st = directory_redis_create(&o, &d->redis);
    }
    if (st != ST_OK) {
        shared_directory_destroy(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

struct directory_redis *shared_directory_redis(const struct shared_directory *d)
{
    return d ? d->redis : NULL;
}

void shared_directory_destroy(struct shared_directory *d)
{
    if (!d)
        return;
    directory_redis_destroy(d->redis);
    redis_tls_destroy(d->tls);
    free(d);
}

/* --- one attempt ---------------------------------------------------------------------------------- */

struct probe {
    struct loop *loop;
    struct redis_home *home;
    struct timer timer;
    uint64_t end_ms;
    bool up;
};

static void on_probe_up(void *ctx, struct redis_link *link, struct slice run)
{
    struct probe *p = ctx;
    (void)link;
    (void)run;
    p->up = true;
    loop_stop(p->loop);
}

static void on_probe_down(void *ctx)
{
    (void)ctx;
}

static void on_probe_timer(struct timer *t)
{
    struct probe *p = LIST_OF(t, struct probe, timer);
    if (redis_home_why(p->home)[0] != '\0' || loop_now_ms(p->loop) >= p->end_ms)
        loop_stop(p->loop);
    else
        timer_arm(loop_timers(p->loop), t, loop_now_ms(p->loop) + TIMER_TICK_MS);
}

static enum status run_probe(const struct redis_home_options *o, struct buf *why)
{
    static const struct redis_home_ops ops = {.on_up = on_probe_up, .on_down = on_probe_down};
    enum { STEPS = 4 }; /* each of which may take timeout_ms */
    struct probe p = {0};
    enum status st = loop_create(clock_system(), 0, &p.loop);
    if (st == ST_OK)
        st = redis_home_create(p.loop, metrics_register(), o, &ops, &p, &p.home);
    if (st == ST_OK) {
        timer_init(&p.timer, on_probe_timer);
        p.end_ms = loop_now_ms(p.loop) + STEPS * o->timeout_ms;
        timer_arm(loop_timers(p.loop), &p.timer, p.end_ms - STEPS * o->timeout_ms);
        redis_home_start(p.home);
        loop_run(p.loop);
        const char *text = redis_home_why(p.home);
        st = p.up ? ST_OK : ST_IO;
        if (!p.up && buf_put_cstr(why, text[0] ? text : "it does not answer in time") != ST_OK)
            buf_clear(why);
        redis_home_destroy(p.home);
        loop_dispatch(p.loop); /* a name that was being looked up may have left a letter */
    }
    loop_destroy(p.loop);
    return st;
}

enum status shared_directory_probe(const struct settings *s, struct buf *why)
{
    const struct node_facts facts = {0};
    struct shared_directory *d;
    if (!configured(s))
        return ST_NOT_FOUND;
    enum status st = shared_directory_create(s, &facts, &d, why);
    if (st != ST_OK)
        return ST_IO;
    const struct directory_redis_options o = options_of(s, &facts, d);
    st = run_probe(&o.home, why);
    shared_directory_destroy(d);
    return st == ST_OK ? ST_OK : ST_IO;
}
