/* The rules that every TLS connection of ours lives by, in one SSL_CTX for the whole node: so a session
 * ticket that one loop has given is good at every other, and there is one place where a version or a
 * certificate can be wrong.
 *
 *   versions     1.2 and 1.3 (tls.min_version); no renegotiation (CVE-2009-3555, and a cheap way to burn our
 * CPU); no compression memory       buffers of an idle connection are given back (SSL_MODE_RELEASE_BUFFERS);
 * sessions live in tickets at the client's, never here tickets      encrypted with keys of this context; a
 * reload makes new ones, so that what a client was believed for under the old rules is not believed under the
 * new ones ALPN         a client that offers protocols must offer the port's own: a browser that was lured to
 * the MQTT port (or an MQTT client to the HTTP port) ends in the handshake
 *
 * One record at a time is read (no read-ahead): stream.c relies on it. */
#include "gateway/tls/tls_private.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct tls_context {
    atomic_uint refs; /* release by unref, acquire by whoever frees */
    SSL_CTX *ssl;
    int64_t expiry_unix_s;
};

/* --- what went wrong ------------------------------------------------------------------------------ */

static enum status refuse(struct buf *error, const char *key, const char *file, const char *why)
{
    enum status st = buf_printf(error, "%s: %s: %s", key, file, why);
    (void)st; /* a line that does not fit is cut: the status says the rest */
    return ST_INVALID;
}

/* The oldest entry of the queue is the cause; the later ones say who passed it on. */
static enum status complain(struct buf *error, const char *key, const char *file)
{
    unsigned long code = ERR_get_error();
    const char *why = code == 0                ? "it cannot be used"
                      : ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code))
                                               : ERR_reason_error_string(code);
    ERR_clear_error();
    return refuse(error, key, file, why ? why : "it cannot be used");
}

/* --- certificates --------------------------------------------------------------------------------- */

/* Never asks the terminal: a daemon has none. */
static int no_passphrase(char *out, int size, int writing, void *ctx)
{
    (void)out, (void)size, (void)writing, (void)ctx;
    return -1;
}

int64_t tls_not_after(const X509 *cert)
{
    struct tm parts;
    const ASN1_TIME *t = X509_get0_notAfter(cert);
    return t && ASN1_TIME_to_tm(t, &parts) == 1 ? (int64_t)timegm(&parts) : 0;
}

/* One certificate with its chain and its key. OpenSSL keeps one of each kind of key. */
static enum status load_pair(struct tls_context *t, const char *cert, const char *key, struct buf *error)
{
    if (SSL_CTX_use_certificate_chain_file(t->ssl, cert) != 1)
        return complain(error, "tls.cert_file", cert);
    if (SSL_CTX_use_PrivateKey_file(t->ssl, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(t->ssl) != 1)
        return complain(error, "tls.key_file", key);
    int64_t expiry = tls_not_after(SSL_CTX_get0_certificate(t->ssl));
    if (t->expiry_unix_s == 0 || expiry < t->expiry_unix_s)
        t->expiry_unix_s = expiry;
    return ST_OK;
}

static bool same_kind(SSL_CTX *ssl, int *kinds, int count)
{
    kinds[count] = EVP_PKEY_get_base_id(X509_get0_pubkey(SSL_CTX_get0_certificate(ssl)));
    for (int i = 0; i < count; i++)
        if (kinds[i] == kinds[count])
            return true;
    return false;
}

enum { PAIRS_MAX = 4, PATH_BYTES_MAX = 4096 };

/* The next item of a '\n'-joined list. False: there is none, or it is too long for a path. */
static bool next_path(const char **list, char path[PATH_BYTES_MAX])
{
    size_t len = strcspn(*list, "\n");
    if (len == 0 || len >= PATH_BYTES_MAX)
        return false;
    memcpy(path, *list, len);
    path[len] = '\0';
    *list += len + ((*list)[len] == '\n');
    return true;
}

static enum status load_pairs(struct tls_context *t, const struct settings *s, struct buf *error)
{
    char cert[PATH_BYTES_MAX], key[PATH_BYTES_MAX];
    const char *certs = s->tls_cert_file, *keys = s->tls_key_file;
    int kinds[PAIRS_MAX + 1];
    for (int count = 0; next_path(&certs, cert); count++) {
        if (!next_path(&keys, key))
            return refuse(error, "tls.cert_file", cert, "tls.key_file names no key for it (same order)");
        enum status st = load_pair(t, cert, key, error);
        if (st != ST_OK)
            return st;
        if (count == PAIRS_MAX || same_kind(t->ssl, kinds, count))
            return refuse(error, "tls.cert_file", cert,
                          "a second certificate with the same kind of key; have one RSA and one ECDSA");
    }
    return *keys ? refuse(error, "tls.key_file", keys, "tls.cert_file names no certificate for it") : ST_OK;
}

/* --- clients' certificates ------------------------------------------------------------------------ */

static enum status trust_clients(struct tls_context *t, const struct settings *s, struct buf *error)
{
    static const int modes[] = {SSL_VERIFY_NONE, SSL_VERIFY_PEER,
                                SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
    if (s->tls_client_verify == TLS_CLIENT_NONE)
        return ST_OK;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(s->tls_client_ca_file);
    if (!names || SSL_CTX_load_verify_file(t->ssl, s->tls_client_ca_file) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return complain(error, "tls.client_ca_file", s->tls_client_ca_file);
    }
    SSL_CTX_set_client_CA_list(t->ssl, names);
    SSL_CTX_set_verify(t->ssl, modes[s->tls_client_verify], NULL);
    return ST_OK;
}

/* --- rules ---------------------------------------------------------------------------------------- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *offered, unsigned int offered_len, void *ctx)
{
    const struct tls_alpn *ours = SSL_get_app_data(ssl);
    (void)ctx;
    for (unsigned i = 0; i < offered_len; i += 1u + offered[i]) {
        unsigned len = offered[i];
        if (len != ours->bytes[0] || i + len >= offered_len ||
            memcmp(offered + i + 1, ours->bytes + 1, len) != 0)
            continue;
        *out = ours->bytes + 1;
        *out_len = ours->bytes[0];
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301, 3.2: no_application_protocol */
}

static bool set_rules(SSL_CTX *ssl, const struct settings *s)
{
    static const unsigned char id[] = "tidegate";
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    SSL_CTX_set_alpn_select_cb(ssl, choose_protocol, NULL);
    return SSL_CTX_set_min_proto_version(ssl, s->tls_min_version == 0 ? TLS1_2_VERSION : TLS1_3_VERSION) ==
               1 &&
           SSL_CTX_set_num_tickets(ssl, 1) == 1 &&
           SSL_CTX_set_session_id_context(ssl, id, sizeof id - 1) == 1;
}

enum status tls_context_load(const struct settings *s, struct tls_context **out, struct buf *error)
{
    struct tls_context *t = calloc(1, sizeof *t);
    if (!t)
        return ST_NO_MEMORY;
    ERR_clear_error();
    atomic_init(&t->refs, 1);
    t->ssl = SSL_CTX_new(TLS_server_method());
    enum status st = t->ssl && set_rules(t->ssl, s) ? ST_OK : ST_NO_MEMORY;
    if (st == ST_OK)
        st = load_pairs(t, s, error);
    if (st == ST_OK)
        st = trust_clients(t, s, error);
    if (st != ST_OK) {
        tls_context_unref(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

struct tls_context *tls_context_ref(struct tls_context *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tls_context_unref(struct tls_context *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1)
        return;
    SSL_CTX_free(t->ssl); /* connections that stand hold it */
    free(t);
}

int64_t tls_context_expiry(const struct tls_context *t)
{
    return t->expiry_unix_s;
}

SSL *tls_context_connection(struct tls_context *t, int fd, const struct tls_alpn *alpn)
{
    SSL *ssl = SSL_new(t->ssl);
    if (!ssl)
        return NULL;
    /* Not const-correct; choose_protocol only reads it. */
    if (SSL_set_fd(ssl, fd) != 1 || SSL_set_app_data(ssl, (void *)(uintptr_t)alpn) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}
