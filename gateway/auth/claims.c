/* What a token may say, and what it means here:
 *
 *   sub, jti, iss, aud, exp, nbf, iat     RFC 7519
 *   tidegate {sub, pub, hist: [filter], max_conns: n, admin: bool}
 *   acl {sub, pub, all: [filter]}         as EMQX has it; ${username} and ${clientid} are %u and %c
 *   channels [topic]                      as Centrifugo has it: topics to subscribe to
 *
 * Once any list of topics stands there, the token may do what its lists say and no more, whether it expires
 * or not. Without `hist` the past of what may be subscribed to may be read. */
#include "gateway/auth/claims.h"

#include "core/json.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

enum { TOPIC_BYTES_MAX = 65535 };
enum {
    SUBSCRIBES = 1 << ACL_SUBSCRIBE | 1 << ACL_PRESENCE,
    READS = 1 << ACL_HISTORY,
    PUBLISHES = 1 << ACL_PUBLISH
};

struct rule_list {
    struct acl_rule rules[CLAIMS_RULES_MAX];
    size_t count;
    bool given; /* the token has an access list, if an empty one */
    bool invalid;
    struct buf texts; /* of rules whose placeholders were written otherwise; never moved */
};

static struct slice text_of(const json_t *v)
{
    return json_is_string(v) ? slice_of(json_string_value(v), json_string_length(v)) : (struct slice){0};
}

/* --- time, issuer, audience --------------------------------------------------------------------- */

/* A NumericDate in milliseconds. False: there, and no number that is a time. */
static bool read_time(const json_t *claims, const char *name, uint64_t *out)
{
    const double most = 253402300800.0; /* the year 10000 */
    const json_t *v = json_object_get(claims, name);
    *out = 0;
    if (!v)
        return true;
    double seconds = json_is_number(v) ? json_number_value(v) : NAN;
    if (!(seconds >= 0 && seconds < most))
        return false;
    *out = (uint64_t)(seconds * 1000);
    return true;
}

static bool list_has(const char *list, struct slice text)
{
    while (*list) {
        size_t len = strcspn(list, "\n");
        if (len > 0 && slice_equal(slice_of(list, len), text))
            return true;
        list += len + (list[len] == '\n');
    }
    return false;
}

static bool audience_fits(const json_t *aud, const char *list)
{
    const json_t *item;
    size_t i;
    if (*list == '\0' || list_has(list, text_of(aud)))
        return true;
    json_array_foreach(aud, i, item) if (list_has(list, text_of(item))) return true;
    return false;
}

static enum auth_verdict judge(const json_t *claims, const struct claims_rules *rules, uint64_t now_ms,
                               struct principal_spec *spec)
{
    uint64_t not_before_ms;
    spec->user = text_of(json_object_get(claims, "sub"));
    spec->token_id = text_of(json_object_get(claims, "jti"));
    if (spec->user.len == 0 || !read_time(claims, "exp", &spec->expires_ms) ||
        !read_time(claims, "nbf", &not_before_ms) || !read_time(claims, "iat", &spec->issued_ms))
        return AUTH_CLAIMS;
    if (*rules->issuers && !list_has(rules->issuers, text_of(json_object_get(claims, "iss"))))
        return AUTH_ISSUER;
    if (!audience_fits(json_object_get(claims, "aud"), rules->audiences))
        return AUTH_AUDIENCE;
    if (json_object_get(claims, "exp") && now_ms >= spec->expires_ms + rules->leeway_ms)
        return AUTH_EXPIRED;
    if (not_before_ms > now_ms + rules->leeway_ms)
        return AUTH_NOT_YET;
    return AUTH_OK;
}

/* --- access lists ------------------------------------------------------------------------------- */

/* EMQX's names for %u and %c. */
static struct slice translate(struct rule_list *l, struct slice topic)
{
    static const struct {
        const char *from, *to;
    } names[] = {{"${username}", "%u"}, {"${clientid}", "%c"}};
    size_t before = l->texts.len;
    enum status st = ST_OK;
    for (size_t at = 0; at < topic.len && st == ST_OK;) {
        struct slice rest = slice_from(topic, at);
        unsigned n = 0;
        while (n < 2 && !slice_starts_with(rest, slice_cstr(names[n].from)))
            n++;
        st = n < 2 ? buf_put_cstr(&l->texts, names[n].to) : buf_put_byte(&l->texts, rest.data[0]);
        at += n < 2 ? strlen(names[n].from) : 1;
    }
    l->invalid = l->invalid || st != ST_OK;
    return slice_of(l->texts.data + before, l->texts.len - before);
}

static void add_rule(struct rule_list *l, struct slice topic, unsigned ops)
{
    if (l->count == CLAIMS_RULES_MAX || topic.len == 0 || topic.len > TOPIC_BYTES_MAX) {
        l->invalid = true;
        return;
    }
    topic = translate(l, topic);
    if (l->invalid)
        return;
    if (!acl_topic_valid(topic)) {
        l->invalid = true;
        return;
    }
    l->rules[l->count++] = (struct acl_rule){.who = ACL_EVERYBODY, .ops = (uint8_t)ops, .topic = topic};
}

static void add_list(struct rule_list *l, const json_t *list, unsigned ops)
{
    const json_t *item;
    size_t i;
    if (!list)
        return;
    l->given = true;
    l->invalid = l->invalid || !json_is_array(list);
    json_array_foreach(list, i, item) add_rule(l, text_of(item), ops);
}

/* Names that are no topics here grant nothing: Centrifugo's may be. */
static void add_channels(struct rule_list *l, const json_t *list)
{
    const json_t *item;
    size_t i;
    if (!list)
        return;
    l->given = true;
    json_array_foreach(list, i, item)
    {
        struct slice topic = text_of(item);
        if (topic.len > 0 && acl_topic_valid(topic))
            add_rule(l, topic, SUBSCRIBES | READS);
    }
}

static void read_lists(struct rule_list *l, const json_t *claims)
{
    const json_t *own = json_object_get(claims, "tidegate"), *emqx = json_object_get(claims, "acl");
    const json_t *hist = json_object_get(own, "hist");
    l->invalid = (own && !json_is_object(own)) || (emqx && !json_is_object(emqx));
    add_list(l, json_object_get(own, "sub"), hist ? SUBSCRIBES : SUBSCRIBES | READS);
    add_list(l, json_object_get(own, "pub"), PUBLISHES);
    add_list(l, hist, READS);
    add_list(l, json_object_get(emqx, "sub"), SUBSCRIBES | READS);
    add_list(l, json_object_get(emqx, "pub"), PUBLISHES);
    add_list(l, json_object_get(emqx, "all"), ACL_ANY_OP);
    add_channels(l, json_object_get(claims, "channels"));
}

static enum auth_verdict read_rights(const json_t *claims, size_t bytes, struct principal_spec *spec)
{
    struct rule_list *l = calloc(1, sizeof *l);
    const json_t *own = json_object_get(claims, "tidegate"), *most = json_object_get(own, "max_conns"),
                 *admin = json_object_get(own, "admin");
    enum auth_verdict v = AUTH_OK;
    if (!l)
        return AUTH_NO_MEMORY;
    buf_init(&l->texts, bytes + 1); /* a translation is never longer */
    if (!buf_reserve(&l->texts, bytes + 1))
        v = AUTH_NO_MEMORY;
    else
        read_lists(l, claims);
    if (l->invalid || (admin && !json_is_boolean(admin)) ||
        (most &&
         (!json_is_integer(most) || json_integer_value(most) < 1 || json_integer_value(most) > UINT32_MAX)))
        v = AUTH_CLAIMS;
    if (v == AUTH_OK && l->given && acl_create(l->rules, l->count, &spec->own) != ST_OK)
        v = AUTH_NO_MEMORY;
    spec->admin = json_is_true(admin);
    spec->connections_max = (uint32_t)json_integer_value(most);
    buf_deinit(&l->texts);
    free(l);
    return v;
}

enum auth_verdict claims_read(struct slice payload, const struct claims_rules *rules, uint64_t now_ms,
                              struct principal **out)
{
    struct principal_spec spec = {.policy = rules->policy};
    json_t *claims = NULL;
    if (json_valid(payload)) /* it knows limit.json_depth */
        claims = json_loadb((const char *)payload.data, payload.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
                            NULL);
    enum auth_verdict v = json_is_object(claims) ? judge(claims, rules, now_ms, &spec) : AUTH_MALFORMED;
    if (v == AUTH_OK)
        v = read_rights(claims, payload.len, &spec);
    if (v == AUTH_OK) {
        enum status st = principal_create(&spec, out);
        v = st == ST_OK ? AUTH_OK : st == ST_INVALID ? AUTH_CLAIMS : AUTH_NO_MEMORY;
    }
    acl_unref(spec.own);
    json_decref(claims);
    return v;
}
