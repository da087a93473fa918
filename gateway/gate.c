/* Who is asked first: the address, the user, then the node, so that one who is over his own rate takes
 * nothing of what all share. Tokens are taken only when all three have one. Between looking and taking
 * another loop may take the last one: a bucket then gives one more for each loop, and has that less to give
 * afterwards.
 *
 * An IPv6 host has 2^64 addresses to choose from, so an address is a /64 there. */
#include "gateway/gate.h"

#include "core/logging.h"
#include "gateway/host.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    ADDRESS_BYTES = 16,
    PREFIX_BYTES = 8, /* what counts of an IPv6 address */
    MAPPED_BITS = 96, /* IPv4 as ::ffff:a.b.c.d */
    KEY_BYTES = 1 + PRINCIPAL_USER_BYTES_MAX,
};

static const uint64_t NS_A_SECOND = 1000000000, NS_A_MS = 1000000;

struct gate {
    struct bucket_place node;
    struct buckets *places;
};

const char gate_publish_text[] = "messages come faster than limit.publish_rate_* allows; nothing was stored";
const char gate_connect_text[] = "the user connects more often than limit.connect_rate_user allows";

enum status gate_create(uint64_t entries, struct gate **out)
{
    struct gate *g = calloc(1, sizeof *g);
    if (!g)
        return ST_NO_MEMORY;
    enum status st = buckets_create(entries, &g->places);
    if (st != ST_OK)
        free(g);
    else
        *out = g;
    return st;
}

void gate_destroy(struct gate *g)
{
    if (!g)
        return;
    buckets_destroy(g->places);
    free(g);
}

/* --- addresses ---------------------------------------------------------------------------------- */

static bool address_of(int fd, uint8_t out[ADDRESS_BYTES])
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
        return false;
    if (peer.ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)&peer)->sin6_addr, ADDRESS_BYTES);
        return true;
    }
    if (peer.ss_family != AF_INET)
        return false;
    memset(out, 0, ADDRESS_BYTES);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &((const struct sockaddr_in *)&peer)->sin_addr, 4);
    return true;
}

static bool is_mapped(const uint8_t a[ADDRESS_BYTES])
{
    static const uint8_t start[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(a, start, sizeof start) == 0;
}

/* "10.0.0.0/8", "::1". */
static bool prefix_read(struct slice text, uint8_t out[ADDRESS_BYTES], unsigned *bits)
{
    char copy[INET6_ADDRSTRLEN + 8], *end;
    struct in_addr v4;
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.data, '\0', text.len))
        return false;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    char *slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    bool four = inet_pton(AF_INET, copy, &v4) == 1;
    if (four) {
        memset(out, 0, ADDRESS_BYTES);
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &v4, 4);
    } else if (inet_pton(AF_INET6, copy, out) != 1) {
        return false;
    }
    unsigned long most = four ? 32 : 128, given = most;
    if (slash) {
        if (slash[1] < '0' || slash[1] > '9')
            return false;
        given = strtoul(slash + 1, &end, 10);
        if (*end != '\0' || given > most)
            return false;
    }
    *bits = (unsigned)given + (four ? MAPPED_BITS : 0);
    return true;
}

static bool prefix_has(const uint8_t prefix[ADDRESS_BYTES], unsigned bits, const uint8_t a[ADDRESS_BYTES])
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(prefix, a, whole) == 0 && (rest == 0 || (prefix[whole] ^ a[whole]) >> (8 - rest) == 0);
}

static bool is_exempt(const char *list, const uint8_t a[ADDRESS_BYTES])
{
    uint8_t prefix[ADDRESS_BYTES];
    unsigned bits;
    struct slice item;
    while (host_next_listed(&list, &item))
        if (prefix_read(item, prefix, &bits) && prefix_has(prefix, bits, a))
            return true;
    return false;
}

const char *gate_exempt_flaw(const char *list)
{
    uint8_t prefix[ADDRESS_BYTES];
    unsigned bits;
    struct slice item;
    while (host_next_listed(&list, &item))
        if (!prefix_read(item, prefix, &bits))
            return (const char *)item.data;
    return NULL;
}

/* --- places ------------------------------------------------------------------------------------- */

static uint64_t now_ns(const struct edge *e)
{
    return loop_now_ms(e->loop) * NS_A_MS;
}

static struct bucket_place *hold(const struct edge *e, char kind, struct slice text, uint64_t most)
{
    static struct log_limit limit = {.every_ms = 60000};
    uint8_t bytes[KEY_BYTES];
    uint64_t held;
    bool shared;
    size_t len = text.len < PRINCIPAL_USER_BYTES_MAX ? text.len : PRINCIPAL_USER_BYTES_MAX;
    bytes[0] = (uint8_t)kind;
    memcpy(bytes + 1, text.data, len);
    struct bucket_place *p =
        buckets_hold(e->gate->places, slice_of(bytes, 1 + len), most, now_ns(e), &shared);
    if (shared) {
        metric_add(e->metrics, M_RATE_ENTRIES_SHARED, 1);
        if (log_permitted(&limit, &held))
            log_warn("limit.rate_entries: no entry is free, so some addresses or users share one "
                     "entries=%lu repeated=%lu",
                     (unsigned long)buckets_count(e->gate->places), (unsigned long)held);
    }
    return p;
}

/* The place of a socket's peer; *exempt: it has none. */
static struct bucket_place *hold_address(const struct edge *e, int fd, uint64_t most, bool *exempt)
{
    uint8_t a[ADDRESS_BYTES];
    *exempt = !address_of(fd, a) || is_exempt(e->settings->limit_address_exempt, a);
    return *exempt ? NULL : hold(e, 'a', slice_of(a, is_mapped(a) ? ADDRESS_BYTES : PREFIX_BYTES), most);
}

enum status gate_enter(const struct edge *e, int fd, struct bucket_place **out)
{
    bool exempt = true;
    *out = NULL;
    if (e->gate)
        *out = hold_address(e, fd, e->settings->limit_address_connections, &exempt);
    if (*out || exempt)
        return ST_OK;
    metric_add(e->metrics, M_ADDRESS_CONNECTIONS_REFUSED, 1);
    metric_add(e->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
    return ST_FULL;
}

struct bucket_place *gate_user(const struct edge *e, struct slice user)
{
    return e->gate && user.len > 0 ? hold(e, 'u', user, 0) : NULL;
}

void gate_leave(struct bucket_place *p)
{
    buckets_release(p);
}

/* --- rates -------------------------------------------------------------------------------------- */

/* Messages or connections a second, and how many of them at once; 0 = a second's worth. */
static struct bucket_rate rate_of(uint64_t a_second, uint64_t burst)
{
    if (a_second == 0)
        return (struct bucket_rate){0};
    return (struct bucket_rate){NS_A_SECOND / a_second, burst > 0 ? burst : a_second};
}

static uint32_t in_ms(uint64_t ns)
{
    uint64_t ms = (ns + NS_A_MS - 1) / NS_A_MS;
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

struct question {
    struct bucket_place *place; /* NULL: it is not asked */
    struct bucket_rate rate;
    enum metric refused;
};

/* Tokens of all, or of none: then how long to wait for the one that is farthest away. */
static uint32_t ask(const struct edge *e, enum bucket_kind kind, const struct question *q, unsigned count)
{
    uint64_t now = now_ns(e);
    for (unsigned i = 0; i < count; i++) {
        uint64_t wait = q[i].place ? bucket_wait_ns(q[i].place, kind, &q[i].rate, now) : 0;
        if (wait > 0) {
            metric_add(e->metrics, q[i].refused, 1);
            return in_ms(wait);
        }
    }
    for (unsigned i = 0; i < count; i++)
        if (q[i].place)
            bucket_take(q[i].place, kind, &q[i].rate, now);
    return 0;
}

bool gate_admits(const struct edge *e, int fd)
{
    const struct settings *s = e->settings;
    bool exempt;
    if (!e->gate || (s->limit_connect_rate_address == 0 && s->limit_connect_rate_node == 0))
        return true;
    struct bucket_place *address = s->limit_connect_rate_address > 0 ? hold_address(e, fd, 0, &exempt) : NULL;
    const struct question questions[] = {
        {address, rate_of(s->limit_connect_rate_address, s->limit_connect_burst), M_RATE_CONNECT_ADDRESS},
        {&e->gate->node, rate_of(s->limit_connect_rate_node, s->limit_connect_burst), M_RATE_CONNECT_NODE},
    };
    bool admitted = ask(e, BUCKET_CONNECT, questions, 2) == 0;
    buckets_release(address);
    if (!admitted)
        metric_add(e->metrics, M_CONNECTS_REFUSED_LIMIT, 1);
    return admitted;
}

uint32_t gate_connect_wait_ms(const struct edge *e, struct bucket_place *user)
{
    const struct settings *s = e->settings;
    const struct question question = {user, rate_of(s->limit_connect_rate_user, s->limit_connect_burst),
                                      M_RATE_CONNECT_USER};
    return user ? ask(e, BUCKET_CONNECT, &question, 1) : 0;
}

static bool publishes_limited(const struct settings *s)
{
    return (s->limit_publish_rate_address | s->limit_publish_rate_user | s->limit_publish_rate_node) != 0;
}

uint32_t gate_publish_wait_ms(const struct edge *e, struct bucket_place *address, struct bucket_place *user)
{
    const struct settings *s = e->settings;
    if (!e->gate || !publishes_limited(s))
        return 0;
    const uint64_t burst = s->limit_publish_burst;
    const struct question questions[] = {
        {address, rate_of(s->limit_publish_rate_address, burst), M_RATE_PUBLISH_ADDRESS},
        {user, rate_of(s->limit_publish_rate_user, burst), M_RATE_PUBLISH_USER},
        {&e->gate->node, rate_of(s->limit_publish_rate_node, burst), M_RATE_PUBLISH_NODE},
    };
    return ask(e, BUCKET_PUBLISH, questions, 3);
}

uint32_t gate_publish_as(const struct edge *e, struct slice user)
{
    if (!e->gate || !publishes_limited(e->settings))
        return 0;
    struct bucket_place *place = gate_user(e, user);
    uint32_t wait_ms = gate_publish_wait_ms(e, NULL, place);
    gate_leave(place);
    return wait_ms;
}

struct gate_policy gate_publish_policy(const struct edge *e, struct slice user)
{
    const struct settings *s = e->settings;
    bool of_user = user.len > 0 && s->limit_publish_rate_user > 0;
    uint64_t rate = of_user ? s->limit_publish_rate_user : s->limit_publish_rate_node;
    if (rate == 0)
        return (struct gate_policy){0};
    if (s->limit_publish_burst <= rate) /* windows are whole seconds: a smaller burst cannot be told */
        return (struct gate_policy){rate, 1};
    return (struct gate_policy){s->limit_publish_burst, (s->limit_publish_burst + rate - 1) / rate};
}
