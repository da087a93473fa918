/* The thread that fetches auth.jwks_url: libcurl blocks, so it has a thread of its own. What it has fetched
 * goes to every desk by letter; so does a failure, because tokens wait there for the answer. A set that
 * cannot be had or read changes nothing. */
#include "core/logging.h"
#include "gateway/auth/office_private.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { FETCH_TIMEOUT_MS = 5000, RETRY_MS = 10000 };

struct key_thread {
    struct auth_office *office;
    int wake_fd;
    atomic_bool stopping; /* stop, run */
    pthread_t thread;
};

struct key_letter {
    struct mail mail;
    struct auth *desk;
    struct keys *keys; /* NULL: no answer */
};

/* --- one fetch ---------------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t count, void *ctx)
{
    return buf_put(ctx, slice_of(bytes, size * count)) == ST_OK ? size * count : 0;
}

/* libcurl asks while it waits: a node that stops does not wait for an issuer. */
static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct key_thread *t = ctx;
    (void)a, (void)b, (void)c, (void)d;
    return t && atomic_load(&t->stopping);
}

static CURLcode set_options(CURL *curl, const char *url, struct buf *body, const struct key_thread *t)
{
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, url);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    code = code ? code : curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)FETCH_TIMEOUT_MS);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    code = code ? code : curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    return code ? code : curl_easy_setopt(curl, CURLOPT_XFERINFODATA, (void *)(uintptr_t)t);
}

static enum status fetch(const char *url, const struct key_thread *t, struct keys **out, struct buf *error)
{
    struct buf body;
    struct keys *k = NULL;
    CURL *curl = curl_easy_init();
    buf_init(&body, KEYS_FILE_BYTES_MAX);
    CURLcode code = curl ? set_options(curl, url, &body, t) : CURLE_OUT_OF_MEMORY;
    code = code ? code : curl_easy_perform(curl);
    enum status st = ST_OK;
    if (code != CURLE_OK) {
        st = buf_printf(error, "%s", curl_easy_strerror(code));
        st = ST_IO;
    }
    if (st == ST_OK)
        st = keys_create(&k);
    if (st == ST_OK)
        st = keys_add(k, buf_slice(&body), error);
    curl_easy_cleanup(curl);
    buf_deinit(&body);
    if (st != ST_OK)
        keys_unref(k);
    else
        *out = k;
    return st;
}

enum status key_fetch(const char *url, struct keys **out, struct buf *error)
{
    return fetch(url, NULL, out, error);
}

/* --- the thread --------------------------------------------------------------------------------- */

static void letter_arrived(struct mail *mail)
{
    struct key_letter *l = LIST_OF(mail, struct key_letter, mail);
    auth_take_keys(l->desk, l->keys);
    free(l);
}

/* A desk that gets no letter for want of memory waits for the next one. */
static void tell_desks(const struct key_thread *t, struct keys *k)
{
    for (unsigned i = 0; i < t->office->desk_count; i++) {
        struct key_letter *l = calloc(1, sizeof *l);
        if (!l)
            continue;
        l->mail.on_arrival = letter_arrived;
        l->desk = t->office->desks[i];
        l->keys = keys_ref(k);
        loop_post(l->desk->loop, &l->mail);
    }
}

/* True: it went well. */
static bool fetch_once(const struct key_thread *t)
{
    const char *url = t->office->settings->auth_jwks_url;
    struct keys *k = NULL;
    struct buf error;
    buf_init(&error, 1024);
    bool fetched = fetch(url, t, &k, &error) == ST_OK;
    if (fetched)
        log_debug("keys fetched url=%s count=%zu", url, keys_count(k));
    else if (!atomic_load(&t->stopping))
        log_warn("keys not fetched, those of before stay in force url=%s why=\"%.*s\"", url,
                 SLICE_ARG(buf_slice(&error)));
    tell_desks(t, k);
    keys_unref(k);
    buf_deinit(&error);
    return fetched;
}

static void *run(void *ctx)
{
    struct key_thread *t = ctx;
    uint64_t refresh_ms = t->office->settings->auth_jwks_refresh_ms, count;
    while (!atomic_load(&t->stopping)) {
        uint64_t wait_ms = fetch_once(t) || refresh_ms < RETRY_MS ? refresh_ms : RETRY_MS;
        struct pollfd wake = {.fd = t->wake_fd, .events = POLLIN};
        (void)poll(&wake, 1, (int)wait_ms);
        if (read(t->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
            log_warn("eventfd of the key thread error=%d", errno);
    }
    return NULL;
}

enum status key_thread_start(struct auth_office *o, struct key_thread **out)
{
    struct key_thread *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    t->office = o;
    t->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (t->wake_fd < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
        pthread_create(&t->thread, NULL, run, t) != 0) {
        if (t->wake_fd >= 0)
            close(t->wake_fd);
        free(t);
        return ST_IO;
    }
    *out = t;
    return ST_OK;
}

void key_thread_want(struct key_thread *t)
{
    const uint64_t one = 1;
    if (write(t->wake_fd, &one, sizeof one) < 0) /* full: it is awake */
        log_debug("eventfd of the key thread error=%d", errno);
}

void key_thread_stop(struct key_thread *t)
{
    if (!t)
        return;
    atomic_store(&t->stopping, true);
    key_thread_want(t);
    pthread_join(t->thread, NULL);
    close(t->wake_fd);
    free(t);
}
