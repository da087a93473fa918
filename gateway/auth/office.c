/* The node's part of authentication: keys and rules, which a reload exchanges as one book, and the threads.
 *
 *   prepare   the main thread reads all of it anew into another book; the password file is looked at too
 *   commit    every desk gets the book by letter, and its doors go over it (auth_take_book); when the last
 * has, nobody judges by the former rules any more */
#include "core/logging.h"
#include "gateway/auth/claims.h"
#include "gateway/auth/key_file.h"
#include "gateway/auth/office_private.h"
#include "gateway/auth/password_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- keys --------------------------------------------------------------------------------------- */

static enum status load_own_key(struct auth_book *b, const struct settings *s, struct buf *error)
{
    uint8_t secret[TOKEN_KEY_BYTES];
    enum status st = key_file_load(s->data_dir, secret, error);
    if (st == ST_OK)
        st = keys_create(&b->own);
    if (st == ST_OK)
        st = keys_add_secret(b->own, (struct slice){0}, slice_of(secret, sizeof secret));
    explicit_bzero(secret, sizeof secret);
    return st;
}

/* `why` gets what is wrong. */
static enum status add_file(struct auth_book *b, const char *path, struct buf *why)
{
    struct buf text;
    uint8_t *place;
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    buf_init(&text, KEYS_FILE_BYTES_MAX + 1);
    if (fd >= 0 && (place = buf_reserve(&text, KEYS_FILE_BYTES_MAX + 1)))
        n = read(fd, place, KEYS_FILE_BYTES_MAX + 1);
    enum status st = n >= 0 ? ST_OK : buf_put_cstr(why, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (n >= 0) {
        buf_advance(&text, (size_t)n);
        st = keys_add(b->files, buf_slice(&text), why);
        OPENSSL_cleanse(text.data, text.len);
    } else {
        st = ST_INVALID;
    }
    buf_deinit(&text);
    return st;
}

static enum status load_files(struct auth_book *b, const struct settings *s, struct buf *error)
{
    enum status st = keys_create(&b->files);
    for (const char *at = s->auth_keys; st == ST_OK && *at;) {
        char path[PATH_MAX];
        struct buf why;
        size_t len = strcspn(at, "\n");
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at += len + (at[len] == '\n');
        buf_init(&why, 1024);
        st = add_file(b, path, &why);
        if (st != ST_OK &&
            buf_printf(error, "auth.keys: %s: %.*s", path, SLICE_ARG(buf_slice(&why))) != ST_OK)
            st = ST_NO_MEMORY;
        buf_deinit(&why);
    }
    return st;
}

enum status auth_check_files(const struct settings *s, struct buf *error)
{
    struct auth_book *b = calloc(1, sizeof *b);
    if (!b)
        return ST_NO_MEMORY;
    atomic_init(&b->refs, 1);
    enum status st = load_files(b, s, error);
    book_unref(b);
    return st;
}

/* --- rules -------------------------------------------------------------------------------------- */

static enum acl_who who_is(const char *principal)
{
    return strcmp(principal, "*") == 0            ? ACL_EVERYBODY
           : strcmp(principal, "$users") == 0     ? ACL_USERS
           : strcmp(principal, "$anonymous") == 0 ? ACL_ANONYMOUS
                                                  : ACL_USER;
}

static enum status make_policy(struct auth_book *b, const struct settings *s)
{
    static const uint8_t ops[] = {
        [ACL_SETTING_ALL] = ACL_ANY_OP,
        [ACL_SETTING_PUBLISH] = 1 << ACL_PUBLISH,
        [ACL_SETTING_SUBSCRIBE] = 1 << ACL_SUBSCRIBE,
        [ACL_SETTING_HISTORY] = 1 << ACL_HISTORY,
        [ACL_SETTING_PRESENCE] = 1 << ACL_PRESENCE,
        [ACL_SETTING_READ] = 1 << ACL_SUBSCRIBE | 1 << ACL_HISTORY | 1 << ACL_PRESENCE,
    };
    const struct config_rows *rows = &s->acl;
    if (rows->count == 0)
        return ST_OK;
    struct acl_rule *rules = calloc(rows->count, sizeof *rules);
    if (!rules)
        return ST_NO_MEMORY;
    for (size_t i = 0; i < rows->count; i++) {
        const struct acl_settings *r = (const struct acl_settings *)rows->rows + i;
        rules[i] = (struct acl_rule){.who = who_is(r->principal),
                                     .user = slice_cstr(r->principal),
                                     .denies = r->effect != 0,
                                     .ops = ops[r->op],
                                     .topic = slice_cstr(r->topic)};
    }
    enum status st = acl_create(rules, rows->count, &b->policy);
    free(rules);
    return st;
}

/* --- life --------------------------------------------------------------------------------------- */

static enum status make_principals(struct auth_book *b)
{
    const struct principal_spec anonymous = {.policy = b->policy},
                                admin = {.admin = true, .policy = b->policy};
    enum status st = principal_create(&anonymous, &b->anonymous);
    return st == ST_OK ? principal_create(&admin, &b->admin) : st;
}

struct auth_book *book_ref(struct auth_book *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void book_unref(struct auth_book *b)
{
    /* Release what we have read; acquire what others have, before it is freed. */
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
        return;
    principal_unref(b->anonymous);
    principal_unref(b->admin);
    acl_unref(b->policy);
    keys_unref(b->own);
    keys_unref(b->files);
    free(b);
}

static enum status book_create(const struct settings *s, struct auth_book **out, struct buf *error)
{
    struct auth_book *b = calloc(1, sizeof *b);
    if (!b)
        return ST_NO_MEMORY;
    atomic_init(&b->refs, 1);
    enum status st = load_own_key(b, s, error);
    if (st == ST_OK)
        st = load_files(b, s, error);
    if (st == ST_OK)
        st = make_policy(b, s);
    if (st == ST_OK)
        st = make_principals(b);
    if (st == ST_OK)
        *out = b;
    else
        book_unref(b);
    return st;
}

static enum status name_users_file(struct auth_office *o)
{
    const struct settings *s = o->settings;
    int n = s->auth_users[0] ? asprintf(&o->users_path, "%s", s->auth_users)
                             : asprintf(&o->users_path, "%s/users", s->data_dir);
    if (n < 0)
        o->users_path = NULL;
    return o->users_path ? ST_OK : ST_NO_MEMORY;
}

enum status auth_office_create(const struct settings *s, struct auth_office **out, struct buf *error)
{
    struct auth_office *o = calloc(1, sizeof *o);
    if (!o)
        return ST_NO_MEMORY;
    o->settings = s;
    enum status st = book_create(s, &o->book, error);
    if (st == ST_OK)
        st = name_users_file(o);
    if (st != ST_OK) {
        auth_office_destroy(o);
        return st;
    }
    *out = o;
    return ST_OK;
}

void auth_office_destroy(struct auth_office *o)
{
    if (!o)
        return;
    assert(!o->passwords && !o->fetcher);
    book_unref(o->book);
    free(o->users_path);
    free(o);
}

enum status auth_office_start(struct auth_office *o)
{
    const struct settings *s = o->settings;
    enum status st = password_thread_start(o->users_path, s->auth_queue, &o->passwords);
    if (st == ST_OK && s->auth_jwks_url[0]) {
        for (unsigned i = 0; i < o->desk_count; i++)
            o->desks[i]->fetching = true; /* the first answer is due */
        st = key_thread_start(o, &o->fetcher);
    }
    return st;
}

void auth_office_stop(struct auth_office *o)
{
    if (!o)
        return;
    password_thread_stop(o->passwords);
    key_thread_stop(o->fetcher);
    o->passwords = NULL;
    o->fetcher = NULL;
}

const char *auth_office_users(const struct auth_office *o)
{
    return o->users_path;
}

/* --- verdicts ----------------------------------------------------------------------------------- */

/* A key of any set will do. One that could have signed and has not says more than that there is none. */
static enum auth_verdict verify(const struct auth_book *b, const struct keys *fetched,
                                const struct jwt *token)
{
    const struct keys *const sets[] = {b->own, b->files, fetched};
    enum auth_verdict v = AUTH_UNKNOWN_KEY;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        enum status st = keys_verify(sets[i], token);
        if (st == ST_OK)
            return AUTH_OK;
        if (st == ST_FORBIDDEN)
            v = AUTH_SIGNATURE;
    }
    return v;
}

enum auth_verdict office_judge(const struct auth_office *o, const struct auth_book *b,
                               const struct keys *fetched, struct slice text, uint64_t now_ms,
                               struct principal **out)
{
    const struct settings *s = o->settings;
    const struct claims_rules rules = {.issuers = s->auth_issuers,
                                       .audiences = s->auth_audiences,
                                       .leeway_ms = s->auth_leeway_ms,
                                       .policy = b->policy};
    struct jwt token;
    enum status st = jwt_open(text, &token);
    if (st != ST_OK)
        return st == ST_UNSUPPORTED ? AUTH_ALGORITHM : st == ST_NO_MEMORY ? AUTH_NO_MEMORY : AUTH_MALFORMED;
    enum auth_verdict v = verify(b, fetched, &token);
    if (v == AUTH_OK)
        v = claims_read(buf_slice(&token.payload), &rules, now_ms, out);
    jwt_close(&token);
    return v;
}

enum auth_verdict auth_office_judge(const struct auth_office *o, struct slice token, uint64_t now_ms,
                                    struct principal **out, struct buf *error)
{
    struct keys *fetched = NULL;
    if (o->settings->auth_jwks_url[0] && key_fetch(o->settings->auth_jwks_url, &fetched, error) != ST_OK)
        fetched = NULL;
    enum auth_verdict v = office_judge(o, o->book, fetched, token, now_ms, out);
    keys_unref(fetched);
    return v;
}

enum auth_verdict book_claims(const struct auth_book *b, struct slice claims, uint64_t now_ms,
                              struct principal **out)
{
    const struct claims_rules rules = {.issuers = "", .audiences = "", .policy = b->policy};
    return claims_read(claims, &rules, now_ms, out);
}

enum status book_user(const struct auth_book *b, struct slice user, uint64_t now_ms, struct principal **out)
{
    const struct principal_spec spec = {.user = user, .issued_ms = now_ms, .policy = b->policy};
    return principal_create(&spec, out);
}

/* --- a reload ----------------------------------------------------------------------------------- */

/* The password thread finds a changed file by itself, but nobody would tell the operator what is wrong with
 * it.
 */
static enum status check_users_file(const struct auth_office *o, struct buf *error)
{
    struct password_file *file;
    enum status st = password_file_load(o->users_path, &file, error);
    if (st == ST_OK)
        password_file_free(file);
    return st;
}

enum status auth_office_prepare(void *office, const struct settings *next, struct buf *error)
{
    struct auth_office *o = office;
    enum status st = check_users_file(o, error);
    if (st == ST_OK)
        st = book_create(next, &o->next, error);
    if (st == ST_OK && acl_equal(o->next->policy, o->book->policy)) { /* nobody's rights change */
        acl_unref(o->next->policy);
        o->next->policy = acl_ref(o->book->policy);
    }
    return st;
}

struct book_letter {
    struct mail mail;
    struct auth *desk;
    struct auth_book *book;
    sem_t *taken;
};

static void book_arrived(struct mail *mail)
{
    struct book_letter *l = LIST_OF(mail, struct book_letter, mail);
    auth_take_book(l->desk, l->book);
    sem_post(l->taken); /* the last that is done with `l` */
}

void auth_office_commit(void *office)
{
    struct auth_office *o = office;
    struct book_letter letters[AUTH_LOOPS_MAX];
    sem_t taken;
    book_unref(o->book);
    o->book = o->next;
    o->next = NULL;
    sem_init(&taken, 0, 0);
    for (unsigned i = 0; i < o->desk_count; i++) {
        letters[i] = (struct book_letter){
            .mail.on_arrival = book_arrived, .desk = o->desks[i], .book = book_ref(o->book), .taken = &taken};
        loop_post(o->desks[i]->loop, &letters[i].mail);
    }
    for (unsigned i = 0; i < o->desk_count; i++)
        while (sem_wait(&taken) != 0)
            continue; /* EINTR */
    sem_destroy(&taken);
    if (o->fetcher)
        key_thread_want(o->fetcher);
}

void auth_office_abandon(void *office)
{
    struct auth_office *o = office;
    book_unref(o->next);
    o->next = NULL;
}
