/* A user name out of a certificate.
 *
 *   cn    the subject's common name; a subject with two of them names nobody
 *   san   of the subject alternative names the first e-mail address, else the first DNS name, else the first
 * URI
 *
 * OpenSSL has verified the certificate in the handshake; of a resumed session it is the one of the handshake
 * that gave the ticket. The principal ends when the certificate does. */
#include "gateway/tls/identity.h"

#include "gateway/auth/auth.h"
#include "gateway/tls/tls_private.h"

#include <openssl/x509v3.h>

/* UTF-8; free with OPENSSL_free. Length < 0: there is none. */
static int common_name(const X509 *cert, unsigned char **out)
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return -1;
    return ASN1_STRING_to_UTF8(out, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

static int alternative_name(const X509 *cert, unsigned char **out)
{
    static const int kinds[] = {GEN_EMAIL, GEN_DNS, GEN_URI};
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int len = -1;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && len < 0; k++)
        for (int i = 0; i < sk_GENERAL_NAME_num(names) && len < 0; i++) {
            const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
            if (name->type == kinds[k]) /* all three are IA5String */
                len = ASN1_STRING_to_UTF8(out, name->d.ia5);
        }
    GENERAL_NAMES_free(names);
    return len;
}

struct principal *tls_identity(const struct edge *edge, const struct stream *s)
{
    unsigned char *name = NULL;
    unsigned kind = edge->settings->tls_client_identity;
    const SSL *ssl = kind == TLS_IDENTITY_NONE ? NULL : tls_stream_ssl(s);
    const X509 *cert = ssl ? SSL_get0_peer_certificate(ssl) : NULL;
    if (!cert || SSL_get_verify_result(ssl) != X509_V_OK)
        return NULL;
    int len = kind == TLS_IDENTITY_CN ? common_name(cert, &name) : alternative_name(cert, &name);
    struct principal *p = NULL;
    if (len > 0)
        p = auth_certified(edge->auth, slice_of(name, (size_t)len), (uint64_t)tls_not_after(cert) * 1000);
    OPENSSL_free(name);
    return p;
}
