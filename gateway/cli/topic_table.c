/* Open addressing, at most half full. It holds every topic of the log: the counts could not be exact
 * otherwise. */
#include "gateway/cli/topic_table.h"

#include <stdlib.h>

enum { SLOTS_FIRST = 1024 };

void topic_table_deinit(struct topic_table *t)
{
    for (size_t i = 0; i < t->slot_count; i++)
        free(t->slots[i].topic);
    free(t->slots);
    memset(t, 0, sizeof *t);
}

static struct topic_count *find(struct topic_count *slots, size_t slot_count, uint64_t hash,
                                struct slice topic)
{
    size_t i = (size_t)hash & (slot_count - 1);
    while (slots[i].topic && (slots[i].hash != hash || slots[i].topic_bytes != topic.len ||
                              memcmp(slots[i].topic, topic.data, topic.len) != 0))
        i = (i + 1) & (slot_count - 1);
    return &slots[i];
}

static enum status grow(struct topic_table *t)
{
    if (t->count * 2 < t->slot_count)
        return ST_OK;
    size_t slot_count = t->slot_count ? t->slot_count * 2 : SLOTS_FIRST;
    struct topic_count *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return ST_NO_MEMORY;
    for (size_t i = 0; i < t->slot_count; i++) {
        const struct topic_count *c = &t->slots[i];
        if (c->topic)
            *find(slots, slot_count, c->hash, slice_of(c->topic, c->topic_bytes)) = *c;
    }
    free(t->slots);
    t->slots = slots;
    t->slot_count = slot_count;
    return ST_OK;
}

enum status topic_table_add(struct topic_table *t, const struct msg *m)
{
    enum status st = grow(t);
    if (st != ST_OK)
        return st;
    struct topic_count *c = find(t->slots, t->slot_count, m->topic_hash, msg_topic(m));
    if (!c->topic) {
        char *topic = calloc(1, m->topic_len + 1u);
        if (!topic)
            return ST_NO_MEMORY;
        memcpy(topic, msg_topic(m).data, m->topic_len);
        *c = (struct topic_count){.topic = topic, .topic_bytes = m->topic_len, .hash = m->topic_hash};
        t->count++;
    }
    if (m->stored == m->offset) {
        c->messages++;
        c->payload_bytes += m->payload_len;
    }
    if (m->flags & MSG_RETAIN) {
        c->retained = m->payload_len > 0;
        c->retained_expires_ms = m->expires_ms;
    }
    return ST_OK;
}

uint64_t topic_table_retained(const struct topic_table *t, uint64_t now_ms)
{
    uint64_t count = 0;
    for (size_t i = 0; i < t->slot_count; i++) {
        const struct topic_count *c = &t->slots[i];
        count += c->topic && c->retained && (c->retained_expires_ms == 0 || c->retained_expires_ms > now_ms);
    }
    return count;
}

static int compare(const void *a, const void *b)
{
    const struct topic_count *x = a, *y = b;
    if (!x->topic || !y->topic)
        return !x->topic - !y->topic;
    if (x->payload_bytes != y->payload_bytes)
        return x->payload_bytes > y->payload_bytes ? -1 : 1;
    if (x->messages != y->messages)
        return x->messages > y->messages ? -1 : 1;
    return strcmp(x->topic, y->topic);
}

void topic_table_sort(struct topic_table *t)
{
    if (t->slot_count > 0)
        qsort(t->slots, t->slot_count, sizeof *t->slots, compare);
}
