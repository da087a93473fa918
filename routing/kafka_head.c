#include "routing/kafka_head.h"

#include "core/store/store_mirror.h"

#include <assert.h>
#include <string.h>

enum { HEAD_KIND = 4, HEAD_VERSION = 1 };

struct head {
    uint16_t kind, version;
    uint32_t lanes;
    uint64_t id;
};

enum status kafka_head_encode(uint64_t id, unsigned lanes, uint8_t out[KAFKA_HEAD_RECORD_BYTES_MAX],
                              uint32_t *len)
{
    const struct head h = {.kind = HEAD_KIND, .version = HEAD_VERSION, .lanes = lanes, .id = id};
    const struct slice none = {0};
    struct msg *m;
    enum status st = msg_create(none, none, none, slice_of(&h, sizeof h), &m);
    if (st != ST_OK)
        return st;
    m->flags = MSG_NOTE;
    uint64_t bytes = mirror_record_bytes(m);
    assert(bytes <= KAFKA_HEAD_RECORD_BYTES_MAX);
    mirror_record_encode(m, out);
    *len = (uint32_t)bytes;
    msg_unref(m);
    return ST_OK;
}

enum status kafka_head_decode(struct slice record, uint64_t *id, unsigned *lanes)
{
    struct head h;
    struct msg *m;
    if (!record.data || mirror_record_decode(record, 0, 0, 0, &m) != ST_OK)
        return ST_CORRUPT;
    struct slice payload = msg_payload(m);
    bool right = (m->flags & MSG_NOTE) && payload.len == sizeof h;
    if (right)
        memcpy(&h, payload.data, sizeof h);
    msg_unref(m);
    if (!right || h.kind != HEAD_KIND || h.version != HEAD_VERSION)
        return ST_CORRUPT;
    *id = h.id;
    *lanes = h.lanes;
    return ST_OK;
}
