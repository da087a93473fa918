#include "gateway/cli/outside.h"

#include "gateway/auth/auth.h"
#include "gateway/tls/context.h"

#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

enum status outside_check_files(const struct settings *s, struct buf *error)
{
    enum status st = auth_check_files(s, error);
    if (st == ST_OK && s->tls_cert_file[0]) {
        struct tls_context *t;
        st = tls_context_load(s, &t, error);
        if (st == ST_OK)
            tls_context_unref(t);
    }
    return st;
}

struct door {
    const char *bind_key, *bind, *port_key;
    uint64_t port;
};

static bool is_address(const char *text)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *list;
    if (getaddrinfo(text, NULL, &hints, &list) != 0)
        return false;
    freeaddrinfo(list);
    return true;
}

/* Of two sockets with one port: does one of them keep the other from it? */
static bool collide(const char *a, const char *b)
{
    static const char *const all[] = {"0.0.0.0", "::"};
    if (strcmp(a, b) == 0)
        return true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(a, all[i]) == 0 || strcmp(b, all[i]) == 0)
            return true;
    return false;
}

enum status outside_check_doors(const struct settings *s, struct buf *error)
{
    bool tls = s->tls_cert_file[0] != '\0';
    const struct door doors[] = {
        {"mqtt.bind", s->mqtt_bind, "mqtt.port", s->mqtt_port},
        {"http.bind", s->http_bind, "http.port", s->http_port},
        {"api.bind", s->api_bind, "api.port", s->api_port},
        {"mqtt.bind", s->mqtt_bind, "mqtt.tls_port", tls ? s->mqtt_tls_port : 0},
        {"http.bind", s->http_bind, "http.tls_port", tls ? s->http_tls_port : 0},
    };
    enum status st = ST_OK;
    for (size_t i = 0; i < sizeof doors / sizeof *doors; i++) {
        if (!is_address(doors[i].bind)) {
            st = buf_printf(error, "%s: '%s' is no IP address", doors[i].bind_key, doors[i].bind);
            return st == ST_OK ? ST_INVALID : st;
        }
        for (size_t k = 0; k < i; k++) {
            if (doors[i].port == 0 || doors[i].port != doors[k].port ||
                !collide(doors[i].bind, doors[k].bind))
                continue;
            st = buf_printf(error, "%s and %s are both %lu: give each a port of its own", doors[k].port_key,
                            doors[i].port_key, (unsigned long)doors[i].port);
            return st == ST_OK ? ST_INVALID : st;
        }
    }
    return ST_OK;
}
