/* Counts by topic, of a whole log: how many messages, how many bytes, is one retained. One thread. */
#ifndef TG_GATEWAY_CLI_TOPIC_TABLE_H
#define TG_GATEWAY_CLI_TOPIC_TABLE_H

#include "core/msg.h"

struct topic_count {
    char *topic; /* ends with NUL besides */
    uint32_t topic_bytes;
    uint64_t hash;
    uint64_t messages, payload_bytes;
    uint64_t retained_expires_ms; /* of its retained message; 0 = never */
    bool retained;
};

struct topic_table {
    struct topic_count *slots;
    size_t slot_count, count;
};

void topic_table_deinit(struct topic_table *t);
/* The message is the newest of its topic so far. A carried one (stored != offset) counts only as retained.
 * ST_NO_MEMORY. */
enum status topic_table_add(struct topic_table *t, const struct msg *m) MUST_CHECK;
uint64_t topic_table_retained(const struct topic_table *t, uint64_t now_ms);
/* Sorts by payload bytes, the most first: afterwards slots[0] to slots[count - 1] are the topics, and nothing
 * more may be added. */
void topic_table_sort(struct topic_table *t);

#endif
