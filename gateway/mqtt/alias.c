#include "gateway/mqtt/alias.h"

#include <assert.h>
#include <stdlib.h>

struct alias_topic {
    size_t len;
    uint8_t bytes[];
};

void aliases_deinit(struct aliases *a)
{
    for (unsigned i = 0; a->topics && i < a->max; i++)
        free(a->topics[i]);
    free(a->topics);
    a->topics = NULL;
}

enum status aliases_set(struct aliases *a, uint16_t alias, struct slice topic)
{
    assert(alias >= 1 && alias <= a->max);
    if (!a->topics)
        a->topics = calloc(a->max, sizeof(struct alias_topic *));
    if (!a->topics)
        return ST_NO_MEMORY;
    struct alias_topic **place = &a->topics[alias - 1];
    free(*place);
    *place = malloc(sizeof **place + topic.len);
    if (!*place)
        return ST_NO_MEMORY;
    (*place)->len = topic.len;
    memcpy((*place)->bytes, topic.data, topic.len);
    return ST_OK;
}

void aliases_forget(struct aliases *a, uint16_t alias)
{
    assert(alias >= 1 && alias <= a->max);
    if (!a->topics)
        return;
    free(a->topics[alias - 1]);
    a->topics[alias - 1] = NULL;
}

bool aliases_get(const struct aliases *a, uint16_t alias, struct slice *topic)
{
    if (alias < 1 || alias > a->max || !a->topics || !a->topics[alias - 1])
        return false;
    *topic = slice_of(a->topics[alias - 1]->bytes, a->topics[alias - 1]->len);
    return true;
}

uint16_t aliases_choose(const struct aliases *a, struct slice topic, uint64_t topic_hash, bool *known)
{
    struct slice held;
    uint16_t alias = (uint16_t)((topic_hash >> 16) % a->max + 1);
    *known = aliases_get(a, alias, &held) && slice_equal(held, topic);
    return alias;
}
