#include "gateway/bridge/plan.h"

#include "core/config_value.h"
#include "gateway/bridge_topics.h"

#include <stdlib.h>
#include <string.h>

static const struct config_list *list_named(const char *key)
{
    const struct config_table *t = settings_table();
    size_t i = 0;
    while (strcmp(t->lists[i].key, key) != 0)
        i++;
    return &t->lists[i];
}

static char **text_at(const struct config_option *field, void *row)
{
    return (char **)(void *)((char *)row + field->place);
}

static void row_free(const struct config_list *l, void *row)
{
    for (size_t i = 0; i < l->field_count; i++)
        config_value_free(&l->fields[i], row);
}

/* Fails with a row that row_free takes. */
static enum status row_copy(const struct config_list *l, void *to, const void *from)
{
    enum status st = ST_OK;
    memcpy(to, from, l->row_bytes);
    for (size_t i = 0; i < l->field_count; i++) {
        if (l->fields[i].type != CONFIG_TEXT)
            continue;
        char **text = text_at(&l->fields[i], to);
        *text = strdup(*text);
        if (!*text)
            st = ST_NO_MEMORY;
    }
    return st;
}

static bool row_equal(const struct config_list *l, const void *a, const void *b)
{
    for (size_t i = 0; i < l->field_count; i++)
        if (!config_value_equal(&l->fields[i], a, b))
            return false;
    return true;
}

enum status bridge_plan_create(const struct settings *s, size_t index, struct bridge_plan **out)
{
    const struct bridge_settings *bridge = (const struct bridge_settings *)s->bridges.rows + index;
    const struct bridge_topic_settings *topics = s->bridge_topics.rows;
    struct bridge_plan *p = calloc(1, sizeof *p);
    if (!p)
        return ST_NO_MEMORY;
    enum status st = row_copy(list_named("bridges"), &p->bridge, bridge);
    p->topics = calloc(s->bridge_topics.count + 1, sizeof *p->topics);
    if (!p->topics)
        st = ST_NO_MEMORY;
    for (size_t i = 0; i < s->bridge_topics.count && st == ST_OK; i++)
        if (strcmp(topics[i].bridge, bridge->name) == 0)
            st = row_copy(list_named("bridge_topics"), &p->topics[p->topic_count++], &topics[i]);
    if (st == ST_OK)
        *out = p;
    else
        bridge_plan_destroy(p);
    return st;
}

void bridge_plan_destroy(struct bridge_plan *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->topic_count; i++)
        row_free(list_named("bridge_topics"), &p->topics[i]);
    row_free(list_named("bridges"), &p->bridge);
    free(p->topics);
    free(p);
}

bool bridge_plan_equal(const struct bridge_plan *a, const struct bridge_plan *b)
{
    if (a->topic_count != b->topic_count || !row_equal(list_named("bridges"), &a->bridge, &b->bridge))
        return false;
    for (size_t i = 0; i < a->topic_count; i++)
        if (!row_equal(list_named("bridge_topics"), &a->topics[i], &b->topics[i]))
            return false;
    return true;
}

/* prefix + filter are the same text: "a/" + "#" and "" + "a/#" are one filter. */
static bool same_filter(const char *prefix_a, const char *filter_a, const char *prefix_b,
                        const char *filter_b)
{
    size_t a = strlen(prefix_a), b = strlen(prefix_b);
    if (a > b)
        return same_filter(prefix_b, filter_b, prefix_a, filter_a);
    return strncmp(prefix_a, prefix_b, a) == 0 && strncmp(filter_a, prefix_b + a, b - a) == 0 &&
           strcmp(filter_a + (b - a), filter_b) == 0;
}

bool bridge_plan_sends(const struct bridge_plan *p, const struct bridge_topic_settings *t)
{
    for (size_t i = 0; i < p->topic_count; i++)
        if (bridge_topic_sends(&p->topics[i]) &&
            same_filter(p->topics[i].local_prefix, p->topics[i].filter, t->local_prefix, t->filter))
            return true;
    return false;
}

bool bridge_plan_takes(const struct bridge_plan *p, const struct bridge_topic_settings *t)
{
    for (size_t i = 0; i < p->topic_count; i++)
        if (bridge_topic_takes(&p->topics[i]) &&
            same_filter(p->topics[i].remote_prefix, p->topics[i].filter, t->remote_prefix, t->filter))
            return true;
    return false;
}

bool bridge_plan_same_session(const struct bridge_plan *a, const struct bridge_plan *b)
{
    return strcmp(a->bridge.host, b->bridge.host) == 0 && a->bridge.port == b->bridge.port &&
           strcmp(a->bridge.client_id, b->bridge.client_id) == 0;
}
