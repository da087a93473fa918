#include "core/msg.h"

#include "core/hash.h"
#include "core/pool.h"

#include <assert.h>

static uint8_t *append(uint8_t *to, struct slice part)
{
    if (part.len > 0) /* the pointer of an empty slice may be NULL */
        memcpy(to, part.data, part.len);
    return to + part.len;
}

enum status msg_create(struct slice topic, struct slice key, struct slice props, struct slice payload,
                       struct msg **out)
{
    if (topic.len > MSG_TOPIC_BYTES_MAX || key.len > MSG_KEY_BYTES_MAX || props.len > MSG_PROPS_BYTES_MAX ||
        payload.len > UINT32_MAX)
        return ST_TOO_LARGE;
    uint8_t pool_class;
    struct msg *m = pool_alloc(sizeof *m + topic.len + key.len + props.len + payload.len, &pool_class);
    if (!m)
        return ST_NO_MEMORY;
    *m = (struct msg){
        .refs = 1,
        .pool_class = pool_class,
        .topic_len = (uint16_t)topic.len,
        .key_len = (uint16_t)key.len,
        .props_len = (uint16_t)props.len,
        .payload_len = (uint32_t)payload.len,
        .topic_hash = hash64(topic),
    };
    append(append(append(append(m->bytes, topic), key), props), payload);
    *out = m;
    return ST_OK;
}

void msg_unref(struct msg *m)
{
    if (!m)
        return;
    /* Release: what this thread read of the message happens before the memory is used again.
     * Acquire, for the last one: so does what all others read (their release is this same line). */
    unsigned before = atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before == 1)
        pool_free(m, m->pool_class);
}

bool props_next(struct slice props, size_t *place, enum msg_prop *type, struct slice *value)
{
    if (*place > props.len || props.len - *place < PROP_HEAD_BYTES)
        return false;
    const uint8_t *head = props.data + *place;
    size_t len = (size_t)head[1] | (size_t)head[2] << 8;
    if (len > props.len - *place - PROP_HEAD_BYTES)
        return false;
    *type = (enum msg_prop)head[0];
    *value = slice_of(head + PROP_HEAD_BYTES, len);
    *place += PROP_HEAD_BYTES + len;
    return true;
}

/* Unknown types are valid: a record written by a later version keeps its shape, and its unknown
 * properties are passed over. */
bool props_valid(struct slice props)
{
    size_t place = 0;
    enum msg_prop type;
    struct slice value;
    while (props_next(props, &place, &type, &value)) {
        if (type != PROP_USER)
            continue;
        if (value.len < 2 || ((size_t)value.data[0] | (size_t)value.data[1] << 8) > value.len - 2)
            return false;
    }
    return place == props.len;
}

size_t props_put(uint8_t *out, enum msg_prop type, struct slice value)
{
    out[0] = (uint8_t)type;
    out[1] = (uint8_t)value.len;
    out[2] = (uint8_t)(value.len >> 8);
    if (value.len > 0)
        memcpy(out + PROP_HEAD_BYTES, value.data, value.len);
    return PROP_HEAD_BYTES + value.len;
}

bool props_find(struct slice props, enum msg_prop type, struct slice *value)
{
    size_t place = 0;
    enum msg_prop found;
    struct slice candidate;
    while (props_next(props, &place, &found, &candidate)) {
        if (found == type) {
            *value = candidate;
            return true;
        }
    }
    return false;
}
