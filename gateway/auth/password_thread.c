/* The thread that checks passwords. scrypt costs 60 ms by design, so it is asked by letters, one at a time;
 * who comes when `queue_max` wait is told to try again.
 *
 * A user that does not exist costs as much as a wrong password: a made-up hash is checked for him. What was
 * right lately is remembered under a keyed hash that only this process can make, so that a fleet that comes
 * back at once is let in at some microseconds each; it is forgotten when the file changes.
 *
 * The file is looked at before each check and read again when it has changed. One that cannot be read leaves
 * what is known: half a file must not lock everybody out. */
#include "core/logging.h"
#include "gateway/auth/office_private.h"
#include "gateway/auth/password_file.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

enum { KNOWN_SLOTS = 16384, DIGEST_BYTES = 32 };

struct password_thread {
    struct mailbox box;
    const char *path;
    uint64_t queue_max;
    atomic_ulong queued; /* posted and not yet taken up */
    atomic_bool stopping; /* stop, run */
    struct mail stop;
    pthread_t thread;
    struct password_file *file;
    struct stat seen; /* of the file that was read */
    bool has_seen;
    struct scrypt nobody;
    uint8_t key[DIGEST_BYTES];
    uint8_t known[KNOWN_SLOTS][DIGEST_BYTES]; /* by the digest's first bytes; zeroes = empty */
};

/* --- what was right lately ---------------------------------------------------------------------- */

/* Lengths keep a name and a password apart. */
static bool digest_of(const struct password_thread *t, const struct auth_check *k, uint8_t out[DIGEST_BYTES])
{
    uint8_t text[2 + PRINCIPAL_USER_BYTES_MAX + PASSWORD_BYTES_MAX];
    unsigned len = DIGEST_BYTES;
    size_t n = 2 + k->user_len + k->secret_len;
    text[0] = (uint8_t)k->user_len;
    text[1] = (uint8_t)(k->user_len >> 8);
    memcpy(text + 2, k->texts, k->user_len + k->secret_len);
    bool made = HMAC(EVP_sha256(), t->key, sizeof t->key, text, n, out, &len) != NULL;
    OPENSSL_cleanse(text, n);
    return made;
}

static uint8_t *slot_of(struct password_thread *t, const uint8_t digest[DIGEST_BYTES])
{
    return t->known[((unsigned)digest[0] | (unsigned)digest[1] << 8) % KNOWN_SLOTS];
}

/* --- the file ----------------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void look_at_file(struct password_thread *t)
{
    struct stat now = {0};
    struct password_file *fresh;
    struct buf error;
    (void)stat(t->path, &now); /* none: zeroes, as the empty file that it stands for */
    if (t->has_seen && same_file(&now, &t->seen))
        return;
    t->seen = now;
    t->has_seen = true;
    buf_init(&error, 1024);
    if (password_file_load(t->path, &fresh, &error) == ST_OK) {
        password_file_free(t->file);
        t->file = fresh;
        memset(t->known, 0, sizeof t->known);
    } else {
        log_error("password file not read, the one before stays in force why=\"%.*s\"",
                  SLICE_ARG(buf_slice(&error)));
    }
    buf_deinit(&error);
}

/* --- checks ------------------------------------------------------------------------------------- */

static enum auth_verdict judge(struct password_thread *t, const struct auth_check *k)
{
    uint8_t digest[DIGEST_BYTES];
    if (k->user_len > PRINCIPAL_USER_BYTES_MAX || k->secret_len > PASSWORD_BYTES_MAX)
        return AUTH_PASSWORD;
    look_at_file(t);
    if (!digest_of(t, k, digest))
        return AUTH_NO_MEMORY;
    const struct scrypt *s = t->file ? password_file_find(t->file, check_user(k)) : NULL;
    if (s && CRYPTO_memcmp(slot_of(t, digest), digest, sizeof digest) == 0)
        return AUTH_OK;
    enum status st = scrypt_check(s ? s : &t->nobody, check_secret(k));
    if (st == ST_NO_MEMORY)
        return AUTH_NO_MEMORY;
    if (!s || st != ST_OK)
        return AUTH_PASSWORD;
    memcpy(slot_of(t, digest), digest, sizeof digest);
    return AUTH_OK;
}

static void take_checks(struct password_thread *t)
{
    struct mail *next;
    for (struct mail *m = mailbox_take(&t->box); m; m = next) {
        next = m->next;
        if (m == &t->stop)
            continue;
        struct auth_check *k = LIST_OF(m, struct auth_check, mail);
        k->verdict = atomic_load(&t->stopping) ? AUTH_BUSY : judge(t, k);
        atomic_fetch_sub(&t->queued, 1);
        loop_post(k->auth->loop, &k->mail);
    }
}

static void *run(void *ctx)
{
    struct password_thread *t = ctx;
    while (!atomic_load(&t->stopping)) {
        if (mailbox_sleep(&t->box)) {
            struct pollfd wake = {.fd = t->box.wake_fd, .events = POLLIN};
            (void)poll(&wake, 1, -1);
        }
        mailbox_awake(&t->box);
        take_checks(t);
    }
    take_checks(t);
    return NULL;
}

/* --- life --------------------------------------------------------------------------------------- */

static void thread_free(struct password_thread *t)
{
    password_file_free(t->file);
    OPENSSL_cleanse(t, sizeof *t);
    free(t);
}

enum status password_thread_start(const char *path, uint64_t queue_max, struct password_thread **out)
{
    struct password_thread *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    t->path = path;
    t->queue_max = queue_max;
    enum status st = getrandom(t->key, sizeof t->key, 0) == (ssize_t)sizeof t->key ? ST_OK : ST_IO;
    if (st == ST_OK)
        st = scrypt_make(slice_of(t->key, sizeof t->key), &t->nobody);
    if (st == ST_OK)
        st = mailbox_open(&t->box);
    if (st == ST_OK && pthread_create(&t->thread, NULL, run, t) != 0) {
        mailbox_close(&t->box);
        st = ST_IO;
    }
    if (st != ST_OK) {
        thread_free(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void password_thread_stop(struct password_thread *t)
{
    if (!t)
        return;
    atomic_store(&t->stopping, true);
    mailbox_post(&t->box, &t->stop);
    pthread_join(t->thread, NULL);
    mailbox_close(&t->box);
    thread_free(t);
}

enum status password_thread_post(struct password_thread *t, struct auth_check *k)
{
    if (atomic_fetch_add(&t->queued, 1) >= t->queue_max) {
        atomic_fetch_sub(&t->queued, 1);
        return ST_FULL;
    }
    mailbox_post(&t->box, &k->mail);
    return ST_OK;
}
