#include "gateway/http/access.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

enum { PORT_DIGITS_MAX = 5 };

static bool equal_nocase(struct slice a, struct slice b)
{
    return a.len == b.len &&
           (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

/* Splits "host[:port]" (RFC 9110, 7.2); an IPv6 literal keeps its brackets. False: not of this form. */
static bool split_port(struct slice text, struct slice *host, struct slice *port)
{
    size_t end = 0;
    if (text.len > 0 && text.data[0] == '[') {
        while (end < text.len && text.data[end] != ']')
            end++;
        end++;
    } else {
        while (end < text.len && text.data[end] != ':')
            end++;
    }
    if (end > text.len || end == 0)
        return false;
    *host = slice_of(text.data, end);
    *port = slice_from(text, end + 1);
    if (end < text.len && text.data[end] != ':')
        return false;
    for (size_t i = 0; i < port->len; i++)
        if (port->data[i] < '0' || port->data[i] > '9')
            return false;
    return port->len <= PORT_DIGITS_MAX;
}

/* Literals only, in the one form that inet_pton takes: "127.1" or "0x7f.0.0.1" are names to some resolvers.
 */
static bool name_is_loopback(struct slice name)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    bool brackets = name.len > 2 && name.data[0] == '[';
    if (brackets)
        name = slice_of(name.data + 1, name.len - 2);
    if (equal_nocase(name, slice_cstr("localhost")) && !brackets)
        return true;
    if (name.len >= sizeof text || memchr(name.data, '\0', name.len))
        return false;
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    if (brackets)
        return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

bool access_host_is_loopback(struct slice host)
{
    struct slice name, port;
    return split_port(host, &name, &port) && name_is_loopback(name);
}

/* Calls `matches` for each line of a '\n'-joined list until one does. */
static bool any_line(const char *list, bool (*matches)(struct slice line, struct slice text),
                     struct slice text)
{
    for (const char *at = list; at && *at;) {
        size_t len = strcspn(at, "\n");
        if (len > 0 && matches(slice_of(at, len), text))
            return true;
        at += len + (at[len] == '\n');
    }
    return false;
}

static bool host_line_matches(struct slice line, struct slice host)
{
    struct slice line_name, line_port, name, port;
    if (!split_port(line, &line_name, &line_port) || !split_port(host, &name, &port))
        return false;
    return equal_nocase(line_name, name) &&
           (line_name.len == line.len /* without a port */ || slice_equal(line_port, port));
}

static bool origin_line_matches(struct slice line, struct slice origin)
{
    while (line.len > 0 && line.data[line.len - 1] == '/') /* an origin has no path; people write one */
        line.len--;
    return line.len > 0 && equal_nocase(line, origin) && !equal_nocase(origin, slice_cstr("null"));
}

/* "http://place" or "https://place", and the port that its scheme means when none is written. */
static bool split_scheme(struct slice origin, struct slice *place, struct slice *default_port)
{
    static const struct {
        const char *start, *port;
    } schemes[] = {{"http://", "80"}, {"https://", "443"}};
    for (unsigned i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i].start);
        if (origin.len > len && equal_nocase(slice_of(origin.data, len), slice_cstr(schemes[i].start))) {
            *place = slice_from(origin, len);
            *default_port = slice_cstr(schemes[i].port);
            return true;
        }
    }
    return false;
}

static bool is_own_port(const struct access_rules *rules, struct slice port)
{
    for (unsigned i = 0; i < sizeof rules->ports / sizeof rules->ports[0]; i++) {
        char text[PORT_DIGITS_MAX + 1];
        snprintf(text, sizeof text, "%u", (unsigned)rules->ports[i]);
        if (rules->ports[i] != 0 && slice_equal_cstr(port, text))
            return true;
    }
    return false;
}

/* Our own: what the request itself is addressed to, or one of our ports on loopback. */
static bool origin_is_own(const struct access_rules *rules, struct slice origin, struct slice host)
{
    struct slice place, name, port, host_name, host_port, default_port;
    if (!split_scheme(origin, &place, &default_port) || !split_port(place, &name, &port))
        return false;
    if (port.len == 0)
        port = default_port;
    if (name_is_loopback(name) && is_own_port(rules, port))
        return true;
    if (!split_port(host, &host_name, &host_port))
        return false;
    if (host_port.len == 0)
        host_port = default_port;
    return equal_nocase(name, host_name) && slice_equal(port, host_port);
}

/* Takes as long for a key that is wrong in its first byte as for one that is wrong in its last. The length
 * of the key is not hidden. */
static bool key_equal(struct slice given, const char *key)
{
    size_t len = strlen(key);
    volatile uint8_t difference = 0;
    if (len == 0 || given.len != len)
        return false;
    for (size_t i = 0; i < len; i++)
        difference = (uint8_t)(difference | (given.data[i] ^ (uint8_t)key[i]));
    return difference == 0;
}

static bool bearer_is_key(struct slice authorization, const char *key)
{
    struct slice scheme = slice_cstr("Bearer ");
    if (authorization.len < scheme.len || !equal_nocase(slice_of(authorization.data, scheme.len), scheme))
        return false;
    struct slice token = slice_from(authorization, scheme.len);
    while (token.len > 0 && token.data[0] == ' ')
        token = slice_from(token, 1);
    return key_equal(token, key);
}

enum access access_judge(const struct access_rules *rules, const struct head *head)
{
    struct slice host = head->fields[HEAD_HOST], origin = head->fields[HEAD_ORIGIN];
    bool with_key = head_has(head, HEAD_AUTHORIZATION);
    if (with_key && !bearer_is_key(head->fields[HEAD_AUTHORIZATION], rules->key))
        return ACCESS_BAD_KEY;
    if (!with_key && (head_has(head, HEAD_FORWARDED) || head_has(head, HEAD_X_FORWARDED_FOR)))
        return ACCESS_FORWARDED;
    if (!with_key && !rules->loopback_only)
        return ACCESS_NEEDS_KEY;
    if (!with_key && !access_host_is_loopback(host) && !any_line(rules->hosts, host_line_matches, host))
        return ACCESS_BAD_HOST;
    if (head_has(head, HEAD_ORIGIN) && !origin_is_own(rules, origin, host) &&
        !any_line(rules->origins, origin_line_matches, origin))
        return ACCESS_BAD_ORIGIN;
    return ACCESS_GRANTED;
}

const char *access_text(enum access access)
{
    switch (access) {
    case ACCESS_GRANTED:
        break;
    case ACCESS_BAD_KEY:
        return "Authorization must be 'Bearer' and the api.key of this node";
    case ACCESS_FORWARDED:
        return "a request that was forwarded by a proxy (Forwarded, X-Forwarded-For) needs the api.key as "
               "bearer";
    case ACCESS_NEEDS_KEY:
        return "api.bind is not loopback: requests need the api.key as bearer";
    case ACCESS_BAD_HOST:
        return "Host is neither loopback nor listed in api.hosts; or send the api.key as bearer";
    case ACCESS_BAD_ORIGIN:
        return "pages of this Origin may not call the API; list it in http.origins";
    }
    return "";
}
