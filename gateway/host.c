#include "gateway/host.h"

#include <arpa/inet.h>
#include <strings.h>

enum { PORT_DIGITS_MAX = 5 };

bool host_split(struct slice host, struct slice *name, struct slice *port)
{
    size_t end = 0;
    if (host.len > 0 && host.data[0] == '[') {
        while (end < host.len && host.data[end] != ']')
            end++;
        end++;
    } else {
        while (end < host.len && host.data[end] != ':')
            end++;
    }
    if (end > host.len || end == 0)
        return false;
    *name = slice_of(host.data, end);
    *port = slice_from(host, end + 1);
    if (end < host.len && host.data[end] != ':')
        return false;
    for (size_t i = 0; i < port->len; i++)
        if (port->data[i] < '0' || port->data[i] > '9')
            return false;
    return port->len <= PORT_DIGITS_MAX;
}

bool host_name_equal(struct slice a, struct slice b)
{
    return a.len == b.len &&
           (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

/* Literals only, in the one form that inet_pton takes: "127.1" or "0x7f.0.0.1" are names to some
 * resolvers. */
static bool literal_is_loopback(int family, struct slice literal)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    if (literal.len == 0 || literal.len >= sizeof text || memchr(literal.data, '\0', literal.len))
        return false;
    memcpy(text, literal.data, literal.len);
    text[literal.len] = '\0';
    if (family == AF_INET6)
        return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
    return inet_pton(AF_INET, text, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

bool host_address_is_loopback(struct slice address)
{
    return literal_is_loopback(AF_INET, address) || literal_is_loopback(AF_INET6, address);
}

bool host_name_is_loopback(struct slice name)
{
    if (name.len > 2 && name.data[0] == '[' && name.data[name.len - 1] == ']')
        return literal_is_loopback(AF_INET6, slice_of(name.data + 1, name.len - 2));
    return host_name_equal(name, slice_cstr("localhost")) || literal_is_loopback(AF_INET, name);
}

bool host_is_loopback(struct slice host)
{
    struct slice name, port;
    return host_split(host, &name, &port) && host_name_is_loopback(name);
}

bool host_split_origin(struct slice origin, struct slice *host, struct slice *default_port)
{
    static const struct {
        const char *start, *port;
    } schemes[] = {{"http://", "80"}, {"https://", "443"}};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        struct slice start = slice_cstr(schemes[i].start);
        if (origin.len > start.len && host_name_equal(slice_of(origin.data, start.len), start)) {
            *host = slice_from(origin, start.len);
            *default_port = slice_cstr(schemes[i].port);
            return true;
        }
    }
    return false;
}

bool host_is_origin(struct slice host, struct slice origin)
{
    struct slice place, default_port, name, port, origin_name, origin_port;
    if (!host_split_origin(origin, &place, &default_port) || !host_split(place, &origin_name, &origin_port) ||
        !host_split(host, &name, &port))
        return false;
    if (port.len == 0)
        port = default_port;
    if (origin_port.len == 0)
        origin_port = default_port;
    return host_name_equal(name, origin_name) && slice_equal(port, origin_port);
}

bool host_next_listed(const char **list, struct slice *item)
{
    for (const char *at = *list; at && *at != '\0';) {
        size_t len = strcspn(at, "\n");
        *item = slice_of(at, len);
        at += len + (at[len] == '\n');
        *list = at;
        while (item->len > 0 && item->data[item->len - 1] == '/') /* of a path that an origin has not */
            item->len--;
        if (item->len > 0)
            return true;
    }
    return false;
}

bool host_origin_is_listed(const char *list, struct slice origin)
{
    struct slice item;
    if (host_name_equal(origin, slice_cstr("null")))
        return false;
    while (host_next_listed(&list, &item))
        if (host_name_equal(item, origin))
            return true;
    return false;
}
