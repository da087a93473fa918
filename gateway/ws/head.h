/* The head of a request to the public port, read strictly (RFC 9112): what two readers could take for two
 * different things is refused, so nothing can be hidden between us and a proxy. Pure; any thread. */
#ifndef TG_GATEWAY_WS_HEAD_H
#define TG_GATEWAY_WS_HEAD_H

#include "core/slice.h"
#include "core/status.h"

enum web_field {
    WEB_HOST,
    WEB_ORIGIN,
    WEB_AUTHORIZATION,
    WEB_FORWARDED,
    WEB_X_FORWARDED_FOR,
    WEB_TRANSFER_ENCODING,
    WEB_CONTENT_LENGTH,
    WEB_CONNECTION,
    WEB_UPGRADE,
    WEB_EXPECT,
    WEB_COOKIE,
    WEB_LAST_EVENT_ID,
    WEB_REQUEST_ID,
    WEB_FETCH_SITE,
    WEB_SOCKET_VERSION,
    WEB_SOCKET_KEY,
    WEB_SOCKET_PROTOCOL,
    WEB_FIELD_COUNT
};

/* Why it is refused, and with what. */
struct web_flaw {
    int status;
    const char *code, *detail;
};

struct web_head {
    struct slice method;
    struct slice path; /* each segment decoded once; a slash at its end stays */
    struct slice query; /* as it came; its percent signs are right, and none is %00 */
    struct slice host; /* of an absolute target, else the field's; empty: HTTP/1.0 without */
    struct slice lines; /* the fields, as they came */
    uint8_t given[WEB_FIELD_COUNT]; /* how often; at most 255 */
    struct slice fields[WEB_FIELD_COUNT]; /* the first of each */
    bool version_10; /* HTTP/1.0 */
    bool persists; /* the peer may send another request on this connection */
    bool chunked; /* the body has no length that is known before */
    uint64_t body_bytes;
    const char *target_flaw; /* 400, although the head is whole and right; NULL: none */
    size_t bytes; /* of what was read, with empty lines before it */
};

/* One head from the front of `bytes`, which it changes (the path is decoded in its place) and to which *out
 * points. *scanned: how much of it a call before has looked at, 0 at first. ST_AGAIN: it is not whole yet.
 * ST_INVALID: *flaw; nothing behind it can be read. */
enum status web_head_read(uint8_t *bytes, size_t len, size_t bytes_max, size_t *scanned, struct web_head *out,
                          struct web_flaw *flaw) MUST_CHECK;

static inline bool web_head_has(const struct web_head *h, enum web_field field)
{
    return h->given[field] > 0;
}
/* The value as a string, of a field that was given several times all of them with commas (Cookie:
 * semicolons) between. False: absent, empty or too long. */
bool web_head_copy(const struct web_head *h, enum web_field field, char *out, size_t size);
/* The next "name=value" of the query, decoded, '+' a space. *place: 0 at first. Its length, cut to `size`;
 * -1: there is none. */
long web_head_parameter(const struct web_head *h, size_t *place, char *out, size_t size);

#endif
