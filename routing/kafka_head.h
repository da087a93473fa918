/* The first record of a Kafka partition: whose log it is. As a record on its way (core/store/store_mirror.h)
 * it is a note: u16 kind 4, u16 version 1, u32 partitions, u64 number by chance. Pure; any thread. */
#ifndef TG_ROUTING_KAFKA_HEAD_H
#define TG_ROUTING_KAFKA_HEAD_H

#include "core/slice.h"
#include "core/status.h"

#include <stdint.h>

enum { KAFKA_HEAD_RECORD_BYTES_MAX = 128 };

enum status kafka_head_encode(uint64_t id, unsigned lanes, uint8_t out[KAFKA_HEAD_RECORD_BYTES_MAX],
                              uint32_t *len) MUST_CHECK; /* ST_NO_MEMORY */
enum status kafka_head_decode(struct slice record, uint64_t *id, unsigned *lanes) MUST_CHECK; /* ST_CORRUPT */

#endif
