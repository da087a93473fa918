/* hiredis 0.14 (Debian 12) has no TLS and no place to put one: its asynchronous part reads and writes the
 * descriptor itself. Hence redis_link.c owns the socket and OpenSSL sits on it (ADR 14). */
#include "routing/redis_tls_private.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static enum status refuse(struct buf *error, const char *what, const char *file)
{
    char text[160] = "";
    ERR_error_string_n(ERR_peek_last_error(), text, sizeof text);
    ERR_clear_error();
    if (buf_printf(error, "directory.redis.%s: %s: %s", what, file, text) != ST_OK)
        buf_clear(error);
    return ST_INVALID;
}

static enum status load_own(SSL_CTX *c, const char *cert_file, const char *key_file, struct buf *error)
{
    if (SSL_CTX_use_certificate_chain_file(c, cert_file) != 1)
        return refuse(error, "cert_file", cert_file);
    if (SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(c) != 1)
        return refuse(error, "key_file", key_file);
    return ST_OK;
}

enum status redis_tls_load(const char *ca_file, const char *cert_file, const char *key_file,
                           struct redis_tls **out, struct buf *error)
{
    struct redis_tls *t = calloc(1, sizeof *t);
    enum status st = ST_OK;
    if (!t)
        return ST_NO_MEMORY;
    t->context = SSL_CTX_new(TLS_client_method());
    if (!t->context) {
        free(t);
        return ST_NO_MEMORY;
    }
    SSL_CTX_set_min_proto_version(t->context, TLS1_2_VERSION);
    SSL_CTX_set_verify(t->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(t->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (ca_file[0] == '\0')
        SSL_CTX_set_default_verify_paths(t->context);
    else if (SSL_CTX_load_verify_locations(t->context, ca_file, NULL) != 1)
        st = refuse(error, "ca_file", ca_file);
    if (st == ST_OK && cert_file[0] != '\0')
        st = load_own(t->context, cert_file, key_file, error);
    if (st != ST_OK) {
        redis_tls_destroy(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void redis_tls_destroy(struct redis_tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->context);
    free(t);
}

SSL *redis_tls_begin(struct redis_tls *t, int fd, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    char name[256]; /* OpenSSL's macro takes no const */
    SSL *ssl = SSL_new(t->context);
    if (!ssl)
        return NULL;
    snprintf(name, sizeof name, "%s", host);
    bool is_address = inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    X509_VERIFY_PARAM *wanted = SSL_get0_param(ssl);
    int done = is_address
                   ? X509_VERIFY_PARAM_set1_ip_asc(wanted, host)
                   : X509_VERIFY_PARAM_set1_host(wanted, host, 0) && SSL_set_tlsext_host_name(ssl, name);
    if (done != 1 || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

const char *redis_tls_why(SSL *ssl, char *text, size_t size)
{
    long verified = SSL_get_verify_result(ssl);
    unsigned long code = ERR_peek_last_error();
    if (verified != X509_V_OK)
        snprintf(text, size, "its certificate is not good: %s", X509_verify_cert_error_string(verified));
    else if (code != 0)
        ERR_error_string_n(code, text, size);
    else
        snprintf(text, size, "it has closed the connection");
    ERR_clear_error();
    return text;
}
