#include "gateway/bridge_topics.h"

#include "routing/topic.h"

#include <string.h>

enum { NAME_BYTES_MAX = 64, FILTER_BYTES_MAX = 65535 };

bool bridge_filters_overlap(struct slice a, struct slice b)
{
    struct slice left, right;
    for (;;) {
        bool more_a = topic_level_next(&a, &left), more_b = topic_level_next(&b, &right);
        if (!more_a || !more_b) /* what is left over may be '#', which matches the parent too */
            return more_a == more_b || slice_equal_cstr(more_a ? left : right, "#");
        if (slice_equal_cstr(left, "#") || slice_equal_cstr(right, "#"))
            return true;
        if (!slice_equal_cstr(left, "+") && !slice_equal_cstr(right, "+") && !slice_equal(left, right))
            return false;
    }
}

enum status bridge_topic_filter(const char *prefix, const char *filter, struct buf *out)
{
    enum status st = buf_put_cstr(out, prefix);
    return st == ST_OK ? buf_put_cstr(out, filter) : st;
}

static bool translate(const struct bridge_topic_settings *t, struct slice name, const char *from,
                      const char *to, struct buf *out)
{
    struct slice prefix = slice_cstr(from);
    if (!slice_starts_with(name, prefix) || name.len == prefix.len ||
        !topic_matches(slice_cstr(t->filter), slice_from(name, prefix.len)))
        return false;
    buf_clear(out);
    return buf_put_cstr(out, to) == ST_OK && buf_put(out, slice_from(name, prefix.len)) == ST_OK;
}

bool bridge_topic_out(const struct bridge_topic_settings *t, struct slice local, struct buf *remote)
{
    return bridge_topic_sends(t) && translate(t, local, t->local_prefix, t->remote_prefix, remote);
}

bool bridge_topic_in(const struct bridge_topic_settings *t, struct slice remote, struct buf *local)
{
    return bridge_topic_takes(t) && translate(t, remote, t->remote_prefix, t->local_prefix, local);
}

/* --- what is wrong with the configuration ------------------------------------------------------- */

static bool name_valid(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len <= NAME_BYTES_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

const char *bridge_flaw(const void *rows, size_t count)
{
    const struct bridge_settings *all = rows, *b = all + count - 1;
    if (!name_valid(b->name))
        return "name must be 1 to 64 letters, digits, '.', '_' or '-'";
    for (size_t i = 0; i + 1 < count; i++)
        if (strcmp(all[i].name, b->name) == 0)
            return "name: another item has the same";
    if (b->host[0] == '\0')
        return "host must be the name or address of the remote broker";
    if ((b->cert_file[0] == '\0') != (b->key_file[0] == '\0'))
        return "cert_file and key_file: set both, or neither";
    if (b->cert_file[0] && !b->ca_file[0])
        return "cert_file needs ca_file, whose certificates sign the remote's: without it there is no TLS";
    if (b->password_file[0] && !b->user[0])
        return "password_file needs user";
    if (b->retry_min_ms > b->retry_max_ms)
        return "retry_min_ms must not be above retry_max_ms";
    return NULL;
}

static bool prefix_valid(const char *prefix)
{
    return strpbrk(prefix, "+#") == NULL;
}

static bool filter_valid(const char *prefix, const char *filter)
{
    const struct topic_limits any = {UINT16_MAX, UINT16_MAX};
    struct buf whole;
    buf_init(&whole, FILTER_BYTES_MAX);
    bool valid =
        bridge_topic_filter(prefix, filter, &whole) == ST_OK && topic_filter_valid(buf_slice(&whole), &any);
    buf_deinit(&whole);
    return valid;
}

const char *bridge_topic_flaw(const void *rows, size_t count)
{
    const struct bridge_topic_settings *t = (const struct bridge_topic_settings *)rows + count - 1;
    const struct topic_limits any = {UINT16_MAX, UINT16_MAX};
    if (!topic_filter_valid(slice_cstr(t->filter), &any))
        return "filter must be a topic filter, such as sensors/# or +/status";
    if (!prefix_valid(t->local_prefix) || !filter_valid(t->local_prefix, t->filter))
        return "local_prefix must be the beginning of topic names, such as site1/, without wildcards";
    if (!prefix_valid(t->remote_prefix) || !filter_valid(t->remote_prefix, t->filter))
        return "remote_prefix must be the beginning of topic names, such as site1/, without wildcards";
    if (t->local_prefix[0] == '$' || (t->local_prefix[0] == '\0' && t->filter[0] == '$'))
        return "local topics that begin with $ are not bridged";
    if (t->remote_prefix[0] == '$' || (t->remote_prefix[0] == '\0' && t->filter[0] == '$'))
        return "remote topics that begin with $ ($SYS/, $share/) are not bridged";
    return NULL;
}

static const struct bridge_settings *find_bridge(const struct settings *s, const char *name)
{
    const struct bridge_settings *b = s->bridges.rows;
    for (size_t i = 0; i < s->bridges.count; i++)
        if (strcmp(b[i].name, name) == 0)
            return &b[i];
    return NULL;
}

static bool overlap(const char *prefix_a, const char *filter_a, const char *prefix_b, const char *filter_b)
{
    struct buf a, b;
    buf_init(&a, FILTER_BYTES_MAX);
    buf_init(&b, FILTER_BYTES_MAX);
    bool yes = bridge_topic_filter(prefix_a, filter_a, &a) == ST_OK &&
               bridge_topic_filter(prefix_b, filter_b, &b) == ST_OK &&
               bridge_filters_overlap(buf_slice(&a), buf_slice(&b));
    buf_deinit(&a);
    buf_deinit(&b);
    return yes;
}

/* NULL, or what two items of one bridge must not be. */
static const char *pair_flaw(const struct bridge_settings *bridge, const struct bridge_topic_settings *a,
                             const struct bridge_topic_settings *b)
{
    bool remote = overlap(a->remote_prefix, a->filter, b->remote_prefix, b->filter);
    if (a != b && bridge_topic_sends(a) && bridge_topic_sends(b) &&
        overlap(a->local_prefix, a->filter, b->local_prefix, b->filter))
        return "some local topics match both, and would be sent twice";
    if (a != b && bridge_topic_takes(a) && bridge_topic_takes(b) && remote)
        return "some remote topics match both, and would be taken twice";
    if (bridge->version == BRIDGE_V311 && bridge_topic_sends(a) && bridge_topic_takes(b) && remote)
        return "what is sent would come back from the remote: only version 5 can ask it not to (No Local); "
               "use version: 5, or different remote_prefixes";
    return NULL;
}

enum status bridge_settings_check(const struct settings *s, struct buf *error)
{
    const struct bridge_topic_settings *t = s->bridge_topics.rows;
    enum status st = ST_OK;
    for (size_t i = 0; i < s->bridge_topics.count; i++) {
        const struct bridge_settings *bridge = find_bridge(s, t[i].bridge);
        if (!bridge) {
            st = buf_printf(error, "bridge_topics: item %zu: there is no bridge named '%s' in bridges", i + 1,
                            t[i].bridge);
            return st == ST_OK ? ST_INVALID : st;
        }
        for (size_t k = 0; k < s->bridge_topics.count; k++) {
            const char *flaw = strcmp(t[i].bridge, t[k].bridge) == 0 ? pair_flaw(bridge, &t[i], &t[k]) : NULL;
            if (!flaw)
                continue;
            st = buf_printf(error, "bridge_topics: items %zu and %zu of bridge %s: %s", i + 1, k + 1,
                            t[i].bridge, flaw);
            return st == ST_OK ? ST_INVALID : st;
        }
    }
    return ST_OK;
}
