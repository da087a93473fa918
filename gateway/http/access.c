#include "gateway/http/access.h"

#include "gateway/auth/authorization.h"
#include "gateway/auth/jwt.h"
#include "gateway/host.h"

#include <stdio.h>

enum { PORT_DIGITS_MAX = 5 };

static bool line_matches(struct slice line, struct slice host)
{
    struct slice line_name, line_port, name, port;
    if (!host_split(line, &line_name, &line_port) || !host_split(host, &name, &port))
        return false;
    return host_name_equal(line_name, name) &&
           (line_name.len == line.len /* without a port */ || slice_equal(line_port, port));
}

static bool host_is_listed(const char *list, struct slice host)
{
    struct slice line;
    while (host_next_listed(&list, &line))
        if (line_matches(line, host))
            return true;
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
    struct slice place, name, port, default_port;
    if (host_is_origin(host, origin))
        return true;
    return host_split_origin(origin, &place, &default_port) && host_split(place, &name, &port) &&
           host_name_is_loopback(name) && is_own_port(rules, port.len > 0 ? port : default_port);
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

enum access_credential access_credential(const struct access_rules *rules, const struct head *head,
                                         struct slice *text)
{
    if (!head_has(head, HEAD_AUTHORIZATION))
        return CREDENTIAL_NONE;
    enum authorization kind = authorization_read(head->fields[HEAD_AUTHORIZATION], text);
    if (kind == AUTHORIZATION_BASIC)
        return CREDENTIAL_BASIC;
    if (key_equal(*text, rules->key))
        return CREDENTIAL_KEY;
    return jwt_looks_like(*text) ? CREDENTIAL_TOKEN : CREDENTIAL_BAD;
}

enum access access_judge(const struct access_rules *rules, const struct head *head)
{
    struct slice host = head->fields[HEAD_HOST], origin = head->fields[HEAD_ORIGIN];
    struct slice token;
    enum access_credential credential = access_credential(rules, head, &token);
    bool with_key = credential != CREDENTIAL_NONE;
    if (credential == CREDENTIAL_BAD)
        return ACCESS_BAD_KEY;
    if (!with_key && (head_has(head, HEAD_FORWARDED) || head_has(head, HEAD_X_FORWARDED_FOR)))
        return ACCESS_FORWARDED;
    if (!with_key && !rules->loopback_only)
        return ACCESS_NEEDS_KEY;
    if (!with_key && !host_is_loopback(host) && !host_is_listed(rules->hosts, host))
        return ACCESS_BAD_HOST;
    if (head_has(head, HEAD_ORIGIN) && !origin_is_own(rules, origin, host) &&
        !host_origin_is_listed(rules->origins, origin))
        return ACCESS_BAD_ORIGIN;
    return ACCESS_GRANTED;
}

const char *access_text(enum access access)
{
    switch (access) {
    case ACCESS_GRANTED:
        break;
    case ACCESS_BAD_KEY:
        return "Authorization must be 'Bearer' and the api.key of this node or a token (tidegate token "
               "create)";
    case ACCESS_FORWARDED:
        return "a request that was forwarded by a proxy (Forwarded, X-Forwarded-For) needs the api.key as "
               "bearer, or a user's token";
    case ACCESS_NEEDS_KEY:
        return "requests need the api.key or a user's token as bearer here";
    case ACCESS_BAD_HOST:
        return "Host is neither loopback nor listed in api.hosts; or send the api.key as bearer";
    case ACCESS_BAD_ORIGIN:
        return "pages of this Origin may not call the API; list it in http.origins";
    }
    return "";
}
