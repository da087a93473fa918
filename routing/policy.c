/* A topic is matched once and then found by its hash. The hash is keyed (core/hash.h), so no stranger can
 * make two names that meet in all of its 64 bits, and the name itself need not be kept. */
#include "routing/policy.h"

#include "routing/topic.h"

#include <stdlib.h>

enum { CACHE_BITS = 12 };

struct cached {
    uint64_t hash;
    const struct topic_policy *policy;
    bool known;
};

struct policies {
    struct cached cache[1 << CACHE_BITS];
    size_t count;
    struct topic_policy rows[];
};

enum status policies_create(const struct topic_policy *rows, size_t count, struct policies **out)
{
    size_t text_bytes = 0;
    *out = NULL;
    if (count == 0)
        return ST_OK;
    for (size_t i = 0; i < count; i++)
        text_bytes += rows[i].filter.len;
    struct policies *p = calloc(1, sizeof *p + count * sizeof p->rows[0] + text_bytes);
    if (!p)
        return ST_NO_MEMORY;
    uint8_t *text = (uint8_t *)&p->rows[count];
    for (size_t i = 0; i < count; i++) {
        p->rows[i] = rows[i];
        p->rows[i].filter = slice_of(text, rows[i].filter.len);
        memcpy(text, rows[i].filter.data, rows[i].filter.len);
        text += rows[i].filter.len;
    }
    p->count = count;
    *out = p;
    return ST_OK;
}

void policies_destroy(struct policies *p)
{
    free(p);
}

static const struct topic_policy *match(const struct policies *p, struct slice topic)
{
    for (size_t i = 0; i < p->count; i++)
        if (topic_matches(p->rows[i].filter, topic))
            return &p->rows[i];
    return NULL;
}

const struct topic_policy *policies_find(struct policies *p, struct slice topic, uint64_t topic_hash)
{
    struct cached *c = &p->cache[topic_hash >> (64 - CACHE_BITS)];
    if (!c->known || c->hash != topic_hash)
        *c = (struct cached){.hash = topic_hash, .policy = match(p, topic), .known = true};
    return c->policy;
}
