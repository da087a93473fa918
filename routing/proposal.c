#include "routing/proposal.h"

#include <string.h>

static void put_le(uint8_t *to, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_le(const uint8_t *from)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

enum status proposal_stamp(const struct msg *m, const struct proposal *p, struct msg **out)
{
    uint8_t value[PROPOSAL_BYTES], props[MSG_PROPS_BYTES_MAX];
    size_t len = m->props_len;
    if (len + PROP_HEAD_BYTES + PROPOSAL_BYTES > sizeof props)
        return ST_TOO_LARGE;
    value[0] = (uint8_t)p->condition;
    put_le(value + 1, p->incarnation);
    put_le(value + 9, p->sequence);
    put_le(value + 17, p->based_on);
    memcpy(props, msg_props(m).data, len);
    len += props_put(props + len, PROP_PROPOSAL, slice_of(value, sizeof value));
    struct msg *stamped;
    enum status st = msg_create(msg_topic(m), msg_key(m), slice_of(props, len), msg_payload(m), &stamped);
    if (st != ST_OK)
        return st;
    stamped->content = m->content;
    stamped->qos = m->qos;
    stamped->flags = m->flags;
    stamped->partition = m->partition;
    stamped->expires_ms = m->expires_ms;
    *out = stamped;
    return ST_OK;
}

bool proposal_read(struct slice props, struct proposal *out)
{
    struct slice value;
    if (!props_find(props, PROP_PROPOSAL, &value) || value.len != PROPOSAL_BYTES ||
        value.data[0] > PROPOSAL_DOWN)
        return false;
    *out = (struct proposal){.condition = (enum proposal_condition)value.data[0],
                             .incarnation = get_le(value.data + 1),
                             .sequence = get_le(value.data + 9),
                             .based_on = get_le(value.data + 17)};
    return true;
}
