/* A head is looked at byte by byte as it comes (check_bytes), so that what is no HTTP is refused at once and
 * not when its time is over; when it is whole, line by line. */
#include "gateway/ws/head.h"

#include "gateway/field.h"
#include "gateway/host.h"
#include "gateway/target.h"

enum { LENGTH_DIGITS_MAX = 18 };

static const char *const names[WEB_FIELD_COUNT] = {
    [WEB_HOST] = "Host",
    [WEB_ORIGIN] = "Origin",
    [WEB_AUTHORIZATION] = "Authorization",
    [WEB_FORWARDED] = "Forwarded",
    [WEB_X_FORWARDED_FOR] = "X-Forwarded-For",
    [WEB_TRANSFER_ENCODING] = "Transfer-Encoding",
    [WEB_CONTENT_LENGTH] = "Content-Length",
    [WEB_CONNECTION] = "Connection",
    [WEB_UPGRADE] = "Upgrade",
    [WEB_EXPECT] = "Expect",
    [WEB_COOKIE] = "Cookie",
    [WEB_LAST_EVENT_ID] = "Last-Event-ID",
    [WEB_REQUEST_ID] = "X-Request-Id",
    [WEB_FETCH_SITE] = "Sec-Fetch-Site",
    [WEB_SOCKET_VERSION] = "Sec-WebSocket-Version",
    [WEB_SOCKET_KEY] = "Sec-WebSocket-Key",
    [WEB_SOCKET_PROTOCOL] = "Sec-WebSocket-Protocol",
};

static enum status flawed(struct web_flaw *flaw, int status, const char *detail)
{
    const char *code = status == 431 || status == 414   ? "too_large"
                       : status == 501 || status == 505 ? "unsupported"
                                                        : "bad_request";
    *flaw = (struct web_flaw){.status = status, .code = code, .detail = detail};
    return ST_INVALID;
}

/* --- bytes -------------------------------------------------------------------------------------- */

/* RFC 9112, 2.2: a line ends with CRLF, and neither stands anywhere else. *end: behind the empty line that
 * ends the head; 0: it has not come. */
static enum status check_bytes(const uint8_t *bytes, size_t len, size_t start, size_t *scanned, size_t *end,
                               struct web_flaw *flaw)
{
    *end = 0;
    for (size_t i = *scanned; i < len && *end == 0; i++) {
        uint8_t c = bytes[i];
        bool after_cr = i > 0 && bytes[i - 1] == '\r';
        if (after_cr != (c == '\n'))
            return flawed(flaw, 400, "a line must end with CR and LF, and have neither inside");
        if ((c < ' ' && c != '\t' && c != '\r' && c != '\n') || c == 0x7f)
            return flawed(flaw, 400, "the head has a control character in it");
        if (c == '\n' && i >= start + 3 && bytes[i - 2] == '\n')
            *end = i + 1;
        *scanned = i + 1;
    }
    return *end > 0 ? ST_OK : ST_AGAIN;
}

static struct slice up_to(struct slice text, uint8_t end)
{
    const uint8_t *at = text.len > 0 ? memchr(text.data, end, text.len) : NULL;
    return at ? slice_of(text.data, (size_t)(at - text.data)) : text;
}

/* --- the request line --------------------------------------------------------------------------- */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int percent_byte(struct slice text, size_t at)
{
    if (text.len - at < 3)
        return -1;
    int high = hex_digit(text.data[at + 1]), low = hex_digit(text.data[at + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static bool query_valid(struct slice query)
{
    for (size_t i = 0; i < query.len; i++)
        if (query.data[i] == '%' && percent_byte(query, i) <= 0)
            return false;
    return true;
}

static void read_path(struct web_head *h, struct slice raw)
{
    struct target t;
    if (raw.len == 0 || raw.data[0] == '?') { /* an absolute target without a path means "/" */
        h->path = slice_cstr("/");
        h->query = slice_from(raw, 1);
    } else {
        /* Decoding makes nothing longer. */
        uint8_t *space = (uint8_t *)(uintptr_t)raw.data;
        enum target_flaw flaw = target_parse(raw, space, &t);
        if (flaw == TARGET_BAD_BYTE || flaw == TARGET_BAD_PERCENT)
            h->target_flaw = target_flaw_text(flaw);
        else if (flaw != TARGET_FINE)
            h->target_flaw = "the path has an empty segment, '.', '..', %2F or %00 in it";
        if (flaw != TARGET_FINE)
            return;
        if (t.trailing_slash)
            space[t.path.len] = '/';
        h->path = slice_of(space, t.path.len + t.trailing_slash);
        h->query = t.query;
    }
    if (!query_valid(h->query))
        h->target_flaw = "a '%' in the query must be followed by two hexadecimal digits that are not 00";
}

static enum status read_version(struct web_head *h, struct slice version, struct web_flaw *flaw)
{
    bool formed = version.len == 8 && memcmp(version.data, "HTTP/", 5) == 0 && version.data[6] == '.' &&
                  hex_digit(version.data[5]) >= 0 && hex_digit(version.data[7]) >= 0 &&
                  version.data[5] <= '9' && version.data[7] <= '9';
    if (!formed)
        return flawed(flaw, 400, "a request begins with a method, a target and HTTP/1.1");
    if (version.data[5] != '1')
        return flawed(flaw, 505, "HTTP/1.1 is spoken here");
    h->version_10 = version.data[7] == '0';
    return ST_OK;
}

static enum status read_line(struct web_head *h, struct slice line, struct web_flaw *flaw)
{
    h->method = up_to(line, ' ');
    struct slice rest = slice_from(line, h->method.len + 1), raw = up_to(rest, ' ');
    if (!field_is_token(h->method) || raw.len == 0)
        return flawed(flaw, 400, "a request begins with a method, a target and HTTP/1.1");
    enum status st = read_version(h, slice_from(rest, raw.len + 1), flaw);
    if (st != ST_OK)
        return st;
    if (raw.data[0] == '/' || target_take_authority(&raw, &h->host))
        read_path(h, raw);
    else
        h->target_flaw = "the request target must begin with '/', or with http:// and a host";
    return ST_OK;
}

/* --- fields ------------------------------------------------------------------------------------- */

/* Takes the next line, without its end. False: there is none. */
static bool next_line(struct slice *lines, struct slice *line)
{
    if (lines->len < 2)
        return false;
    *line = up_to(*lines, '\r');
    *lines = slice_from(*lines, line->len + 2);
    return true;
}

static bool list_next(struct slice *list, struct slice *item)
{
    while (list->len > 0) {
        struct slice raw = up_to(*list, ',');
        *item = field_trimmed(raw);
        *list = slice_from(*list, raw.len + 1);
        if (item->len > 0)
            return true;
    }
    return false;
}

static void read_connection(struct slice value, bool *closes, bool *stays)
{
    struct slice item;
    while (list_next(&value, &item)) {
        *closes |= field_is_called(item, "close");
        *stays |= field_is_called(item, "keep-alive");
    }
}

static enum status read_field(struct web_head *h, struct slice line, struct web_flaw *flaw)
{
    struct slice name = up_to(line, ':');
    if (name.len == line.len)
        return flawed(flaw, 400, "a header field without a colon, or a folded line");
    if (!field_is_token(name))
        return flawed(flaw, 400, "a header field's name is not a token, or has a space behind it");
    for (unsigned i = 0; i < WEB_FIELD_COUNT; i++) {
        if (!field_is_called(name, names[i]))
            continue;
        if (h->given[i] == 0)
            h->fields[i] = field_trimmed(slice_from(line, name.len + 1));
        if (h->given[i] < UINT8_MAX)
            h->given[i]++;
    }
    return ST_OK;
}

static enum status read_fields(struct web_head *h, struct web_flaw *flaw)
{
    struct slice lines = h->lines, line;
    bool closes = false, stays = false;
    enum status st = ST_OK;
    while (st == ST_OK && next_line(&lines, &line)) {
        st = read_field(h, line, flaw);
        if (st == ST_OK && field_is_called(up_to(line, ':'), "Connection"))
            read_connection(slice_from(line, strlen("Connection:")), &closes, &stays);
    }
    h->persists = !closes && (stays || !h->version_10);
    return st;
}

/* A name or an address, and a port: nothing of a path or a user (RFC 3986, 3.2). */
static bool host_valid(struct slice host)
{
    struct slice name, port;
    for (size_t i = 0; i < host.len; i++)
        if (host.data[i] <= ' ' || strchr("/?#@\\,\"", host.data[i]))
            return false;
    return host_split(host, &name, &port);
}

/* RFC 9112, 3.2. */
static enum status check_host(struct web_head *h, struct web_flaw *flaw)
{
    if (h->given[WEB_HOST] > 1 || (h->given[WEB_HOST] == 0 && !h->version_10))
        return flawed(flaw, 400, "a request has one Host");
    if (h->host.len == 0)
        h->host = h->fields[WEB_HOST];
    if (h->host.len > 0 && !host_valid(h->host))
        return flawed(flaw, 400, "Host is not a name or an address, and a port");
    return ST_OK;
}

/* RFC 9112, 6.3: a length is said once, in digits, or not at all. */
static enum status check_body(struct web_head *h, struct web_flaw *flaw)
{
    struct slice digits = h->fields[WEB_CONTENT_LENGTH];
    h->chunked = web_head_has(h, WEB_TRANSFER_ENCODING);
    if (h->chunked && (web_head_has(h, WEB_CONTENT_LENGTH) || h->version_10))
        return flawed(flaw, 400, "Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0");
    if (h->chunked && (h->given[WEB_TRANSFER_ENCODING] > 1 ||
                       !field_is_called(h->fields[WEB_TRANSFER_ENCODING], "chunked")))
        return flawed(flaw, 501, "no transfer coding but chunked");
    if (h->given[WEB_CONTENT_LENGTH] == 0)
        return ST_OK;
    if (h->given[WEB_CONTENT_LENGTH] > 1)
        return flawed(flaw, 400, "Content-Length was given twice");
    for (size_t i = 0; i < digits.len && digits.len <= LENGTH_DIGITS_MAX; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return flawed(flaw, 400, "Content-Length is not a number");
        h->body_bytes = h->body_bytes * 10 + (uint64_t)(digits.data[i] - '0');
    }
    if (digits.len == 0 || digits.len > LENGTH_DIGITS_MAX)
        return flawed(flaw, 400, "Content-Length is not a number");
    return ST_OK;
}

enum status web_head_read(uint8_t *bytes, size_t len, size_t bytes_max, size_t *scanned, struct web_head *out,
                          struct web_flaw *flaw)
{
    size_t start = 0, end;
    while (start + 1 < len && bytes[start] == '\r' && bytes[start + 1] == '\n') /* RFC 9112, 2.2 */
        start += 2;
    enum status st = check_bytes(bytes, len, start, scanned, &end, flaw);
    if (st == ST_INVALID)
        return st;
    if (len > start && bytes[start] != '\r' && !field_is_token(slice_of(bytes + start, 1)))
        return flawed(flaw, 400, "a request begins with a method, a target and HTTP/1.1");
    if ((st == ST_OK ? end : len) > bytes_max) {
        bool in_line = !memchr(bytes + start, '\n', bytes_max > start ? bytes_max - start : 0);
        return in_line ? flawed(flaw, 414, "the request's target is larger than limit.http_head_bytes")
                       : flawed(flaw, 431, "the request's head is larger than limit.http_head_bytes");
    }
    if (st != ST_OK)
        return st;
    *out = (struct web_head){.bytes = end};
    struct slice line, lines = slice_of(bytes + start, end - 2 - start);
    if (next_line(&lines, &line))
        st = read_line(out, line, flaw);
    out->lines = lines;
    if (st == ST_OK)
        st = read_fields(out, flaw);
    if (st == ST_OK)
        st = check_host(out, flaw);
    return st == ST_OK ? check_body(out, flaw) : st;
}

/* --- values ------------------------------------------------------------------------------------- */

/* Appends with a separator. False: it does not fit, with a NUL. */
static bool append(char *out, size_t size, size_t *len, struct slice value, const char *separator)
{
    size_t between = *len > 0 ? strlen(separator) : 0;
    if (value.len + between + 1 > size - *len)
        return false;
    memcpy(out + *len, separator, between);
    if (value.len > 0)
        memcpy(out + *len + between, value.data, value.len);
    *len += between + value.len;
    return true;
}

bool web_head_copy(const struct web_head *h, enum web_field field, char *out, size_t size)
{
    struct slice lines = h->lines, line;
    size_t len = 0;
    if (!web_head_has(h, field))
        return false;
    if (h->given[field] == 1) {
        if (!append(out, size, &len, h->fields[field], ""))
            return false;
    } else {
        while (next_line(&lines, &line)) {
            struct slice name = up_to(line, ':');
            if (field_is_called(name, names[field]) &&
                !append(out, size, &len, field_trimmed(slice_from(line, name.len + 1)),
                        field == WEB_COOKIE ? "; " : ", "))
                return false;
        }
    }
    out[len] = '\0';
    return len > 0;
}

long web_head_parameter(const struct web_head *h, size_t *place, char *out, size_t size)
{
    if (*place >= h->query.len)
        return -1;
    struct slice pair = up_to(slice_from(h->query, *place), '&');
    size_t len = 0;
    *place += pair.len + 1;
    for (size_t i = 0; i < pair.len && len < size; i++) {
        int byte = pair.data[i] == '+' ? ' ' : pair.data[i];
        if (byte == '%') {
            byte = percent_byte(pair, i);
            i += 2;
        }
        out[len++] = (char)byte;
    }
    return (long)len;
}
