/* A loop's desk.
 *
 *   token     -> judged at once; its key is not known -> waits for the fetcher's next answer, and is judged
 * again password  -> to the password thread by letter, and back
 *
 * A fetch for an unknown key is asked for at most once in REFETCH_MS: between two of them an unknown key is
 * refused at once, so that made-up key identifiers neither hold connections nor hammer the issuer. */
#include "core/logging.h"
#include "gateway/auth/office_private.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>

enum { REFETCH_MS = 5000 };

enum status auth_create(struct auth_office *o, struct loop *loop, struct metrics *m, struct auth **out)
{
    struct auth *a = calloc(1, sizeof *a);
    if (!a)
        return ST_NO_MEMORY;
    assert(o->desk_count < AUTH_LOOPS_MAX);
    *a = (struct auth){.office = o, .book = book_ref(o->book), .loop = loop, .metrics = m};
    list_init(&a->waiting);
    list_init(&a->watchers);
    enum status st = revocations_create(&a->revoked);
    if (st == ST_OK && o->desk_count == 0)
        st = tickets_create(&a->tickets);
    if (st != ST_OK) {
        revocations_destroy(a->revoked);
        book_unref(a->book);
        free(a);
        return st;
    }
    o->desks[o->desk_count++] = a;
    *out = a;
    return ST_OK;
}

void auth_destroy(struct auth *a)
{
    if (!a)
        return;
    while (!list_empty(&a->waiting))
        auth_check_free(LIST_OF(a->waiting.next, struct auth_check, link));
    keys_unref(a->fetched);
    book_unref(a->book);
    revocations_destroy(a->revoked);
    tickets_destroy(a->tickets);
    free(a);
}

struct principal *auth_anonymous(const struct auth *a)
{
    return a ? principal_ref(a->book->anonymous) : principal_anonymous();
}

struct principal *auth_admin(const struct auth *a)
{
    return a ? principal_ref(a->book->admin) : principal_anonymous();
}

struct principal *auth_certified(const struct auth *a, struct slice user, uint64_t expires_ms)
{
    const struct principal_spec spec = {
        .user = user, .expires_ms = expires_ms, .policy = a ? a->book->policy : NULL};
    struct principal *p;
    return principal_create(&spec, &p) == ST_OK ? p : NULL;
}

bool auth_takes_anonymous(const struct auth *a, bool loopback)
{
    return loopback && !(a && a->office->settings->auth_anonymous != 0);
}

uint64_t auth_left_ms(const struct auth *a, const struct principal *p)
{
    if (!a || p->expires_ms == 0)
        return UINT64_MAX;
    uint64_t end = p->expires_ms + a->office->settings->auth_leeway_ms, now = loop_wall_ms(a->loop);
    return now < end ? end - now : 0;
}

/* --- other rules -------------------------------------------------------------------------------- */

struct principal *auth_renew(const struct auth *a, struct principal *p)
{
    struct principal *renewed;
    if (!a || p->policy == a->book->policy)
        return principal_ref(p);
    if (principal_is_anonymous(p))
        return principal_ref(a->book->anonymous);
    const struct principal_spec spec = {.user = p->user,
                                        .token_id = p->token_id,
                                        .issued_ms = p->issued_ms,
                                        .expires_ms = p->expires_ms,
                                        .connections_max = p->connections_max,
                                        .admin = p->admin,
                                        .policy = a->book->policy,
                                        .own = p->own};
    return principal_create(&spec, &renewed) == ST_OK ? renewed : NULL;
}

void auth_take_book(struct auth *a, struct auth_book *b)
{
    bool others = a->book->policy != b->policy;
    book_unref(a->book);
    a->book = b;
    if (!others)
        return;
    LIST_EACH (node, &a->watchers) {
        struct auth_watcher *w = LIST_OF(node, struct auth_watcher, link);
        w->on_rules(w);
    }
}

void auth_failed(struct auth *a, enum auth_verdict v)
{
    if (a)
        auth_count(a->metrics, v);
}

/* --- revocations -------------------------------------------------------------------------------- */

void auth_watch(struct auth *a, struct auth_watcher *w)
{
    list_init(&w->link);
    if (a)
        list_push(&a->watchers, &w->link);
}

bool auth_concerns(const struct auth *a, const struct revocation *what, const struct principal *p)
{
    return revocation_concerns(what, p, loop_wall_ms(a->loop));
}

struct auth *auth_desk(const struct auth *a, unsigned loop_index)
{
    assert(loop_index < a->office->desk_count);
    return a->office->desks[loop_index];
}

void auth_revoke(struct auth *a, const struct revocation *what)
{
    static struct log_limit limit = {.every_ms = 1000};
    uint64_t held;
    if (revocations_put(a->revoked, what, loop_wall_ms(a->loop)) != ST_OK && log_permitted(&limit, &held))
        log_error("no memory for a revocation: it counts again after a restart only repeated=%lu",
                  (unsigned long)held);
    LIST_EACH (node, &a->watchers) {
        struct auth_watcher *w = LIST_OF(node, struct auth_watcher, link);
        w->on_revoked(w, what);
    }
}

bool auth_revocations_full(const struct auth *a)
{
    return revocations_count(a->revoked) >= a->office->settings->limit_revocations;
}

void auth_office_fold(struct auth_office *o, const struct msg *m)
{
    struct revocation what;
    struct buf text;
    buf_init(&text, REVOCATION_RECORD_BYTES_MAX);
    enum status st = revocation_read(m, &text, &what);
    for (unsigned i = 0; st == ST_OK && i < o->desk_count; i++)
        auth_revoke(o->desks[i], &what);
    if (st != ST_OK)
        log_error("a revocation of the log is not understood, written by a later version? lane=%u offset=%lu",
                  m->partition, (unsigned long)m->offset);
    buf_deinit(&text);
}

/* --- what comes later --------------------------------------------------------------------------- */

static struct auth_check *check_create(struct auth *a, const struct auth_credential *c,
                                       void (*on_checked)(void *, enum auth_verdict, struct principal *),
                                       void *ctx)
{
    struct slice user = c->is_token || c->is_ticket ? (struct slice){0} : c->user;
    struct auth_check *k = calloc(1, sizeof *k + user.len + c->secret.len);
    if (!k)
        return NULL;
    list_init(&k->link);
    k->auth = a;
    k->on_checked = on_checked;
    k->ctx = ctx;
    k->ticket_use = c->ticket_use;
    k->user_len = user.len;
    k->secret_len = c->secret.len;
    if (user.len > 0)
        memcpy(k->texts, user.data, user.len);
    if (c->secret.len > 0)
        memcpy(k->texts + user.len, c->secret.data, c->secret.len);
    return k;
}

void auth_check_free(struct auth_check *k)
{
    list_unlink(&k->link);
    OPENSSL_cleanse(k->texts, k->user_len + k->secret_len);
    free(k);
}

void auth_abandon(struct auth_check *k)
{
    if (!k)
        return;
    k->on_checked = NULL;
    if (list_empty(&k->link)) /* with the password thread: it is freed when it is back */
        return;
    k->auth->waiting_count--;
    auth_check_free(k);
}

/* The verdict is there. Frees the check. */
static void check_end(struct auth_check *k, enum auth_verdict v, struct principal *p)
{
    auth_failed(k->auth, v);
    if (k->on_checked)
        k->on_checked(k->ctx, v, p);
    else if (v == AUTH_OK)
        principal_unref(p);
    auth_check_free(k);
}

/* --- passwords ---------------------------------------------------------------------------------- */

static void password_back(struct mail *mail)
{
    struct auth_check *k = LIST_OF(mail, struct auth_check, mail);
    struct auth *a = k->auth;
    struct principal *p = NULL;
    enum auth_verdict v = k->verdict;
    if (v == AUTH_OK && k->on_checked &&
        book_user(a->book, check_user(k), loop_wall_ms(a->loop), &p) != ST_OK)
        v = AUTH_NO_MEMORY;
    if (!k->on_checked) {
        auth_check_free(k);
        return;
    }
    check_end(k, v, p);
}

static enum auth_verdict check_password(struct auth_check *k)
{
    struct auth *a = k->auth;
    k->mail.on_arrival = password_back;
    return a->office->passwords && password_thread_post(a->office->passwords, k) == ST_OK ? AUTH_PENDING
                                                                                          : AUTH_BUSY;
}

/* --- tokens ------------------------------------------------------------------------------------- */

static enum auth_verdict judge_token(struct auth *a, struct slice token, struct principal **out)
{
    uint64_t now_ms = loop_wall_ms(a->loop);
    struct principal *p;
    enum auth_verdict v = office_judge(a->office, a->book, a->fetched, token, now_ms, &p);
    if (v == AUTH_OK && revocations_have(a->revoked, p, now_ms)) {
        principal_unref(p);
        return AUTH_REVOKED;
    }
    if (v == AUTH_OK)
        *out = p;
    return v;
}

/* May its key still come? */
static bool worth_waiting(struct auth *a)
{
    uint64_t now = loop_now_ms(a->loop);
    if (!a->office->fetcher || a->waiting_count >= a->office->settings->auth_queue)
        return false;
    if (a->fetching)
        return true;
    if (now < a->fetched_at_ms + REFETCH_MS)
        return false;
    a->fetching = true;
    key_thread_want(a->office->fetcher);
    return true;
}

/* --- tickets ------------------------------------------------------------------------------------ */

enum auth_verdict auth_claims(const struct auth *a, struct slice claims, struct principal **out)
{
    return book_claims(a->book, claims, loop_wall_ms(a->loop), out);
}

enum status auth_ticket(struct auth *a, struct principal *p, uint64_t until_ms, char *out)
{
    assert(a->tickets);
    return tickets_put(a->tickets, p, until_ms, loop_wall_ms(a->loop), a->office->settings->limit_tickets,
                       out);
}

/* What it stood for may have ended meanwhile. */
static enum auth_verdict judge_holder(const struct auth *a, const struct principal *p)
{
    if (!p)
        return AUTH_TICKET;
    if (revocations_have(a->revoked, p, loop_wall_ms(a->loop)))
        return AUTH_REVOKED;
    return auth_left_ms(a, p) == 0 ? AUTH_EXPIRED : AUTH_OK;
}

static void ticket_back(struct mail *mail)
{
    struct auth_check *k = LIST_OF(mail, struct auth_check, mail);
    struct principal *held = k->principal, *p = NULL;
    enum auth_verdict v = judge_holder(k->auth, held);
    if (v == AUTH_OK && !(p = auth_renew(k->auth, held))) /* the rules may have changed since it was given */
        v = AUTH_NO_MEMORY;
    principal_unref(held);
    check_end(k, v, p);
}

static void ticket_at_home(struct mail *mail)
{
    struct auth_check *k = LIST_OF(mail, struct auth_check, mail);
    struct auth *home = k->auth->office->desks[0];
    k->principal = tickets_take(home->tickets, check_secret(k), k->ticket_use, loop_wall_ms(home->loop));
    k->mail.on_arrival = ticket_back;
    loop_post(k->auth->loop, &k->mail);
}

static enum auth_verdict check_ticket(struct auth_check *k)
{
    k->mail.on_arrival = ticket_at_home;
    loop_post(k->auth->office->desks[0]->loop, &k->mail);
    return AUTH_PENDING;
}

void auth_take_keys(struct auth *a, struct keys *fetched)
{
    struct list now;
    if (fetched) {
        keys_unref(a->fetched);
        a->fetched = fetched;
    }
    a->fetching = false;
    a->fetched_at_ms = loop_now_ms(a->loop);
    list_init(&now);
    list_splice(&now, &a->waiting);
    while (!list_empty(&now)) {
        struct auth_check *k = LIST_OF(now.next, struct auth_check, link);
        struct principal *p = NULL;
        list_unlink(&k->link);
        a->waiting_count--;
        enum auth_verdict v = judge_token(a, check_secret(k), &p);
        check_end(k, v, p);
    }
}

enum auth_verdict auth_check(struct auth *a, const struct auth_credential *c,
                             void (*on_checked)(void *ctx, enum auth_verdict v, struct principal *p),
                             void *ctx, struct principal **out, struct auth_check **pending)
{
    enum auth_verdict v = a              ? AUTH_PENDING
                          : c->is_token  ? AUTH_UNKNOWN_KEY
                          : c->is_ticket ? AUTH_TICKET
                                         : AUTH_PASSWORD;
    if (a && c->is_token)
        v = judge_token(a, c->secret, out);
    bool waits = v == AUTH_PENDING || (a && v == AUTH_UNKNOWN_KEY && worth_waiting(a));
    if (!waits) {
        auth_failed(a, v);
        return v;
    }
    struct auth_check *k = check_create(a, c, on_checked, ctx);
    v = AUTH_PENDING;
    if (!k)
        v = AUTH_NO_MEMORY;
    else if (c->is_ticket)
        v = check_ticket(k);
    else if (!c->is_token)
        v = check_password(k);
    if (v != AUTH_PENDING) {
        if (k)
            auth_check_free(k);
        auth_failed(a, v);
        return v;
    }
    if (c->is_token) {
        list_push(&a->waiting, &k->link);
        a->waiting_count++;
    }
    *pending = k;
    return AUTH_PENDING;
}
