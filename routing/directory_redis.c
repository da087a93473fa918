/* Letters come in from the shares' loops and go home to the owners'; the lease is renewed three times in its
 * length. With each lease go two questions that tell whether this is still the data we wrote into: SET ...
 * GET answers with our lease of last time (missing: lost), and `born` names the run of the server that the
 * data was written under (another: it is a restart, a replica's promotion or an empty server).
 *
 * Whoever finds `born` wrong sets it, and before that `young`, which expires when every node that lives must
 * have noticed and begun to register. As long as it is there, look-ups say stale, at every node alike. */
#include "routing/directory_redis_private.h"

#include "core/logging.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum { TICK_MS = 50, GOODBYE_MS = 500, LEASES_A_LIFE = 3, NUMBER_BYTES = 24 };

/* --- keys --------------------------------------------------------------------------------------------- */

enum status directory_key(const struct directory_redis *d, struct buf *out, const char *kind,
                          struct slice name)
{
    enum status st = buf_printf(out, "%s:%s%s", d->o.prefix, kind, name.len > 0 ? ":" : "");
    return st == ST_OK && name.len > 0 ? buf_put(out, name) : st;
}

void directory_redis_refused(struct directory_redis *d, const struct redisReply *r)
{
    char why[200];
    struct slice words = redis_reply_error(r);
    snprintf(why, sizeof why, "it refuses: %.*s", SLICE_ARG(words));
    if (d->link)
        redis_home_fail(d->home, why);
}

/* --- lease -------------------------------------------------------------------------------------------- */

static void on_done(void *ctx, void *subject, const struct redisReply *r)
{
    (void)subject;
    if (redis_reply_is_error(r))
        directory_redis_refused(ctx, r);
}

static void ask(struct directory_redis *d, const struct slice *words, unsigned count,
                void (*on_reply)(void *ctx, void *subject, const struct redisReply *r), void *subject)
{
    if (d->link && redis_link_ask(d->link, words, count, on_reply, d, subject) != ST_OK)
        d->lease_due_ms = loop_now_ms(d->loop) + TICK_MS; /* no room: once more, soon */
}

static void on_born_set(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    d->born_asked = false;
    on_done(d, subject, r);
}

static void set_born(struct directory_redis *d)
{
    struct buf young, born;
    char ms[NUMBER_BYTES];
    uint64_t settle_ms = d->o.lease_ms + d->o.home.retry_max_ms + d->o.home.timeout_ms;
    int len = snprintf(ms, sizeof ms, "%lu", (unsigned long)settle_ms);
    buf_init(&young, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&born, DIRECTORY_KEY_BYTES_MAX);
    if (directory_key(d, &young, "young", (struct slice){0}) == ST_OK &&
        directory_key(d, &born, "born", (struct slice){0}) == ST_OK) {
        const struct slice first[] = {slice_cstr("SET"), buf_slice(&young), slice_cstr("1"), slice_cstr("PX"),
                                      slice_of(ms, (size_t)len)};
        const struct slice then[] = {slice_cstr("SET"), buf_slice(&born), slice_cstr(d->run)};
        ask(d, first, 5, on_done, NULL);
        ask(d, then, 3, on_born_set, NULL);
        d->born_asked = true;
    }
    buf_deinit(&young);
    buf_deinit(&born);
}

static void lost(struct directory_redis *d, const char *what)
{
    log_warn(
        "the directory's redis has lost its data: everything is registered again missing=%s connections=%lu",
        what, (unsigned long)d->entry_count);
    register_again(d, M_DIRECTORY_AGAIN_LOST);
    directory_redis_send_lease(d);
}

/* `subject` is the registration that the question was asked in, and NULL with the first lease of a link,
 * which begins with registering everything anyway: what is lost is found out once. */
static bool still_in(const struct directory_redis *d, const void *subject)
{
    return (uintptr_t)subject == d->registration;
}

static void on_born(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    d->born_asked = false;
    if (redis_reply_is_error(r)) {
        directory_redis_refused(d, r);
        return;
    }
    if (!d->link || slice_equal_cstr(redis_reply_text(r), d->run))
        return;
    set_born(d);
    if (still_in(d, subject))
        lost(d, "born");
}

static void on_leased(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    struct directory_node before = {0};
    if (redis_reply_is_error(r)) {
        directory_redis_refused(d, r);
        return;
    }
    if (!d->link || !subject)
        return;
    if (redis_reply_is_nil(r)) {
        if (still_in(d, subject))
            lost(d, "lease");
        return;
    }
    static struct log_limit limit = {.every_ms = 60000};
    uint64_t held;
    if (directory_node_read(redis_reply_text(r), &before) == ST_OK && before.life != d->life &&
        log_permitted(&limit, &held))
        log_error("another node calls itself by our name in the directory: give each its own node.id node=%s "
                  "repeated=%lu",
                  d->o.node, (unsigned long)held);
}

static enum status lease_text(struct directory_redis *d, struct buf *out)
{
    struct directory_node self = {
        .incarnation = d->o.incarnation, .registration = d->visible, .settled = d->settled, .life = d->life};
    d->o.describe(d->o.ctx, &self);
    return directory_node_write(&self, out);
}

static void send_lease_words(struct directory_redis *d, struct slice nodes, struct slice key,
                             struct slice text, struct slice born)
{
    char ms[NUMBER_BYTES];
    int len = snprintf(ms, sizeof ms, "%lu", (unsigned long)d->o.lease_ms);
    void *asked_in = d->leases > 0 ? (void *)(uintptr_t)d->registration : NULL;
    const struct slice join[] = {slice_cstr("SADD"), nodes, slice_cstr(d->o.node)};
    const struct slice set[] = {slice_cstr("SET"), key, text, slice_cstr("PX"), slice_of(ms, (size_t)len),
                                slice_cstr("GET")};
    const struct slice get[] = {slice_cstr("GET"), born};
    d->leases++;
    if (!d->born_asked) {
        d->born_asked = true;
        ask(d, get, 2, on_born, asked_in);
    }
    ask(d, join, 3, on_done, NULL);
    ask(d, set, 6, on_leased, asked_in);
}

void directory_redis_send_lease(struct directory_redis *d)
{
    struct buf nodes, key, text, born;
    if (!d->link || d->stopping)
        return;
    d->lease_due_ms = loop_now_ms(d->loop) + d->o.lease_ms / LEASES_A_LIFE;
    buf_init(&nodes, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&text, DIRECTORY_RECORD_BYTES_MAX);
    buf_init(&born, DIRECTORY_KEY_BYTES_MAX);
    if (directory_key(d, &nodes, "nodes", (struct slice){0}) == ST_OK &&
        directory_key(d, &key, "node", slice_cstr(d->o.node)) == ST_OK &&
        directory_key(d, &born, "born", (struct slice){0}) == ST_OK && lease_text(d, &text) == ST_OK)
        send_lease_words(d, buf_slice(&nodes), buf_slice(&key), buf_slice(&text), buf_slice(&born));
    buf_deinit(&nodes);
    buf_deinit(&key);
    buf_deinit(&text);
    buf_deinit(&born);
}

/* --- the link ------------------------------------------------------------------------------------------- */

static void on_up(void *ctx, struct redis_link *link, struct slice run)
{
    struct directory_redis *d = ctx;
    memcpy(d->run, run.data, run.len);
    d->run[run.len] = '\0';
    d->link = link;
    d->leases = 0;
    d->born_asked = false;
    atomic_store(&d->up, true);
    if (d->registration > 0)
        register_again(d, M_DIRECTORY_AGAIN_CONNECTION);
    else
        d->registration = d->visible = 1;
    directory_redis_send_lease(d);
}

static void on_down(void *ctx)
{
    struct directory_redis *d = ctx;
    d->link = NULL;
    d->away_since_ms = loop_now_ms(d->loop);
    atomic_store(&d->up, false);
    register_link_lost(d);
    look_link_lost(d);
    if (d->stopping)
        loop_stop(d->loop);
}

/* --- turns ---------------------------------------------------------------------------------------------- */

static bool on_turn_end(struct loop_hook *h)
{
    struct directory_redis *d = LIST_OF(h, struct directory_redis, hook);
    if (!d->stopping) {
        look_pump(d);
        register_pump(d);
    }
    return false;
}

static void on_tick(struct timer *t)
{
    struct directory_redis *d = LIST_OF(t, struct directory_redis, timer);
    uint64_t now = loop_now_ms(d->loop);
    uint64_t since = d->link ? redis_link_owed_since_ms(d->link) : d->away_since_ms;
    timer_arm(loop_timers(d->loop), t, now + TICK_MS);
    if (d->link && now >= d->lease_due_ms)
        directory_redis_send_lease(d);
    register_refresh(d, now);
    register_figures(d);
    metric_set(d->metrics, M_DIRECTORY_LAG_SECONDS, since == UINT64_MAX ? 0 : (now - since) / 1000);
    metric_set(d->metrics, M_DIRECTORY_CACHE_BYTES, directory_cache_bytes(d->cache));
}

/* --- letters ---------------------------------------------------------------------------------------------
 */

static void go_home(struct directory_redis *d, unsigned home, struct mail *mail,
                    void (*on_arrival)(struct mail *m))
{
    mail->on_arrival = on_arrival;
    loop_post(d->loops[home], mail);
}

/* The owner's loop does not know us, and by then the entry may be away: the letter back counts as home once
 * posted. What is left of its way is the loop's, and does not touch us. */
static void back(struct directory_redis *d)
{
    atomic_fetch_sub_explicit(&d->lent, 1, memory_order_release); /* directory_redis_idle acquires */
}

static void added_home(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    e->on_added(e);
}

static void removed_home(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    e->on_removed(e);
}

static void found_home(struct mail *mail)
{
    struct directory_find *f = LIST_OF(mail, struct directory_find, mail);
    f->on_found(f);
}

void directory_redis_found(struct directory_redis *d, struct directory_find *f)
{
    metric_add(d->metrics, f->stale ? M_DIRECTORY_LOOKUPS_STALE : M_DIRECTORY_LOOKUPS_FRESH, 1);
    go_home(d, f->home, &f->mail, found_home);
    back(d);
}

static void entered_arrived(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    struct directory_redis *d = e->beyond;
    register_add(d, e);
    go_home(d, e->home, mail, added_home);
    back(d);
}

static void left_arrived(struct mail *mail)
{
    struct directory_entry *e = LIST_OF(mail, struct directory_entry, mail);
    struct directory_redis *d = e->beyond;
    register_remove(d, e);
    go_home(d, e->home, mail, removed_home);
    back(d);
}

static void find_arrived(struct mail *mail)
{
    struct directory_find *f = LIST_OF(mail, struct directory_find, mail);
    look_begin(f->beyond, f);
}

static void lend(struct directory_redis *d, struct mail *mail, void (*on_arrival)(struct mail *m))
{
    atomic_fetch_add_explicit(&d->lent, 1, memory_order_relaxed);
    mail->on_arrival = on_arrival;
    loop_post(d->loop, mail);
}

static void entered(void *ctx, struct directory_entry *e)
{
    e->beyond = ctx;
    lend(ctx, &e->mail, entered_arrived);
}

static void left(void *ctx, struct directory_entry *e)
{
    lend(ctx, &e->mail, left_arrived);
}

static void find(void *ctx, struct directory_find *f)
{
    f->beyond = ctx;
    lend(ctx, &f->mail, find_arrived);
}

struct directory_beyond directory_redis_beyond(struct directory_redis *d)
{
    return (struct directory_beyond){.entered = entered, .left = left, .find = find, .ctx = d};
}

/* --- life ------------------------------------------------------------------------------------------------
 */

static void on_goodbye(void *ctx, void *subject, const struct redisReply *r)
{
    struct directory_redis *d = ctx;
    (void)subject;
    (void)r;
    loop_stop(d->loop);
}

static void on_stop_timer(struct timer *t)
{
    loop_stop(LIST_OF(t, struct directory_redis, stop_timer)->loop);
}

/* Without its lease nothing of a node counts any more: its entries need not be removed one by one. */
static void say_goodbye(struct directory_redis *d)
{
    struct buf key, nodes;
    buf_init(&key, DIRECTORY_KEY_BYTES_MAX);
    buf_init(&nodes, DIRECTORY_KEY_BYTES_MAX);
    if (directory_key(d, &key, "node", slice_cstr(d->o.node)) == ST_OK &&
        directory_key(d, &nodes, "nodes", (struct slice){0}) == ST_OK) {
        const struct slice leave[] = {slice_cstr("SREM"), buf_slice(&nodes), slice_cstr(d->o.node)};
        const struct slice end[] = {slice_cstr("DEL"), buf_slice(&key)};
        ask(d, leave, 3, on_done, NULL);
        ask(d, end, 2, on_goodbye, NULL);
    }
    buf_deinit(&key);
    buf_deinit(&nodes);
}

static void stop_arrived(struct mail *mail)
{
    struct directory_redis *d = LIST_OF(mail, struct directory_redis, stop_mail);
    d->stopping = true;
    if (!d->link) {
        loop_stop(d->loop);
        return;
    }
    timer_arm(loop_timers(d->loop), &d->stop_timer, loop_now_ms(d->loop) + GOODBYE_MS);
    say_goodbye(d);
}

static void *redis_thread(void *ctx)
{
    struct directory_redis *d = ctx;
    (void)pthread_setname_np(pthread_self(), "redis");
    redis_home_start(d->home);
    timer_arm(loop_timers(d->loop), &d->timer, loop_now_ms(d->loop) + TICK_MS);
    loop_run(d->loop);
    /* The loop has one more turn to come (directory_redis_destroy), in which nothing may be due. */
    timer_cancel(loop_timers(d->loop), &d->timer);
    timer_cancel(loop_timers(d->loop), &d->stop_timer);
    loop_hook_remove(d->loop, &d->hook);
    redis_home_destroy(d->home);
    d->home = NULL;
    d->link = NULL;
    return NULL;
}

enum status directory_redis_create(const struct directory_redis_options *o, struct directory_redis **out)
{
    static const struct redis_home_ops ops = {.on_up = on_up, .on_down = on_down};
    struct directory_redis *d = calloc(1, sizeof *d);
    if (!d)
        return ST_NO_MEMORY;
    d->o = *o;
    d->metrics = metrics_register();
    list_init(&d->waiting);
    list_init(&d->written);
    list_init(&d->removals);
    list_init(&d->asking);
    list_init(&d->looking);
    list_init(&d->sweeps);
    timer_init(&d->timer, on_tick);
    timer_init(&d->stop_timer, on_stop_timer);
    d->stop_mail.on_arrival = stop_arrived;
    d->hook.on_turn_end = on_turn_end;
    enum status st = getrandom(&d->life, sizeof d->life, 0) == sizeof d->life ? ST_OK : ST_IO;
    if (st == ST_OK)
        st = loop_create(clock_system(), 0, &d->loop);
    if (st == ST_OK)
        st = redis_home_create(d->loop, d->metrics, &o->home, &ops, d, &d->home);
    if (st == ST_OK)
        st = directory_cache_create(o->cache_bytes, &d->cache);
    if (st != ST_OK) {
        directory_redis_destroy(d);
        return st;
    }
    d->away_since_ms = loop_now_ms(d->loop);
    loop_hook_add(d->loop, &d->hook);
    *out = d;
    return ST_OK;
}

void directory_redis_meet(struct directory_redis *d, unsigned loop_index, struct loop *loop)
{
    d->loops[loop_index] = loop;
}

enum status directory_redis_start(struct directory_redis *d)
{
    d->started = pthread_create(&d->thread, NULL, redis_thread, d) == 0;
    return d->started ? ST_OK : ST_NO_MEMORY;
}

bool directory_redis_up(const struct directory_redis *d)
{
    return atomic_load(&d->up);
}

bool directory_redis_idle(const struct directory_redis *d)
{
    return atomic_load_explicit(&d->lent, memory_order_acquire) == 0;
}

void directory_redis_destroy(struct directory_redis *d)
{
    if (!d)
        return;
    if (d->started) {
        loop_post(d->loop, &d->stop_mail);
        pthread_join(d->thread, NULL);
        loop_dispatch(d->loop); /* a name that was being looked up may have left a letter */
    }
    redis_home_destroy(d->home);
    register_forget(d);
    look_forget(d);
    directory_cache_destroy(d->cache);
    free(d->nodes);
    loop_destroy(d->loop);
    free(d);
}
