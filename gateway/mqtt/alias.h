/* Topic aliases of one direction of a connection (MQTT 5.0, 3.3.2.3.4): numbers that stand for topic names.
 * The table takes memory with the first alias only. Pure; owning loop only. */
#ifndef TG_GATEWAY_MQTT_ALIAS_H
#define TG_GATEWAY_MQTT_ALIAS_H

#include "core/slice.h"
#include "core/status.h"

#include <stdint.h>

struct alias_topic;
struct aliases {
    uint16_t max; /* aliases 1 to max; 0: there are none */
    struct alias_topic **topics; /* by alias - 1 */
};

void aliases_deinit(struct aliases *a); /* keeps max */

/* `alias` (1 to max) stands for the topic from now on. ST_NO_MEMORY: it stands for nothing. */
enum status aliases_set(struct aliases *a, uint16_t alias, struct slice topic) MUST_CHECK;
void aliases_forget(struct aliases *a, uint16_t alias); /* it stands for nothing any more */
/* False: it stands for nothing yet. The slice lives until that alias is set again. */
bool aliases_get(const struct aliases *a, uint16_t alias, struct slice *topic);

/* For the sender: the alias that a topic of that hash is sent under (max is not 0). *known: the receiver
 * knows it already, so the name may be left out; else it goes with the name, after aliases_set. Topics share
 * an alias by their hash, the newest has it: no search, no order of use to be kept. */
uint16_t aliases_choose(const struct aliases *a, struct slice topic, uint64_t topic_hash, bool *known);

#endif
