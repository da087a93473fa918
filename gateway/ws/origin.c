/* A name that merely resolves to loopback is not loopback: evil.example may resolve to 127.0.0.1 for its
 * visitors (DNS rebinding), but it cannot make the browser write another Host. */
#include "gateway/ws/origin.h"

#include <arpa/inet.h>
#include <strings.h>

static bool equal_folded(struct slice a, struct slice b)
{
    return a.len == b.len &&
           (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

/* Takes ":port" off the end; an IPv6 address keeps its brackets. *port is empty when none is given. */
static struct slice split_port(struct slice host, struct slice *port)
{
    *port = (struct slice){0};
    for (size_t i = host.len; i > 0; i--) {
        uint8_t byte = host.data[i - 1];
        if (byte == ':') {
            *port = slice_from(host, i);
            return slice_of(host.data, i - 1);
        }
        if (byte < '0' || byte > '9')
            break;
    }
    return host;
}

bool host_is_loopback(struct slice host)
{
    struct slice port;
    char text[64];
    struct in_addr v4;
    struct in6_addr v6;
    host = split_port(host, &port);
    if (equal_folded(host, slice_cstr("localhost")))
        return true;
    if (host.len == 0 || host.len >= sizeof text)
        return false;
    memcpy(text, host.data, host.len);
    text[host.len] = '\0';
    if (text[0] == '[' && text[host.len - 1] == ']') {
        text[host.len - 1] = '\0';
        return inet_pton(AF_INET6, text + 1, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

/* "https://host[:port]" -> host[:port] and the scheme's own port. False: not of http or https. */
static bool split_origin(struct slice origin, struct slice *host, const char **default_port)
{
    const struct slice plain = slice_cstr("http://"), secure = slice_cstr("https://");
    if (origin.len > plain.len && equal_folded(slice_of(origin.data, plain.len), plain)) {
        *host = slice_from(origin, plain.len);
        *default_port = "80";
    } else if (origin.len > secure.len && equal_folded(slice_of(origin.data, secure.len), secure)) {
        *host = slice_from(origin, secure.len);
        *default_port = "443";
    } else {
        return false;
    }
    return true;
}

/* Equal hosts and ports; a port that is not written is the scheme's. */
static bool same_place(struct slice host, struct slice other, const char *default_port)
{
    struct slice port, other_port;
    host = split_port(host, &port);
    other = split_port(other, &other_port);
    if (port.len == 0)
        port = slice_cstr(default_port);
    if (other_port.len == 0)
        other_port = slice_cstr(default_port);
    return host.len > 0 && equal_folded(host, other) && slice_equal(port, other_port);
}

/* Calls of `next_listed` walk the list; an item without its line break. */
static bool next_listed(const char **list, struct slice *item)
{
    while (*list && **list == '\n')
        (*list)++;
    if (!*list || **list == '\0')
        return false;
    size_t len = strcspn(*list, "\n");
    *item = slice_of(*list, len);
    *list += len;
    return true;
}

bool origin_permitted(struct slice host, struct slice origin, const char *listed)
{
    struct slice item, place;
    const char *port, *walk = listed;
    bool host_ok = host_is_loopback(host), origin_ok = !origin.data;
    if (origin.data && split_origin(origin, &place, &port))
        origin_ok = same_place(place, host, port);
    while (next_listed(&walk, &item)) {
        origin_ok = origin_ok || equal_folded(item, origin);
        if (split_origin(item, &place, &port))
            host_ok = host_ok || same_place(place, host, port);
    }
    return host_ok && origin_ok;
}
