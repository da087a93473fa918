#include "routing/once_id.h"

#include "core/hash.h"
#include "core/utf8.h"

#include <assert.h>

/* {u8 type, u16 length} {u64 value, u16 principal length, principal, name} */
enum { FIXED_BYTES = 8 + 2 };

static uint8_t *put(uint8_t *to, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(to, bytes, len);
    return to + len;
}

size_t once_id_write(const struct once_id *id, uint8_t *out)
{
    assert(id->principal.len <= ONCE_PRINCIPAL_BYTES_MAX && id->name.len >= 1 &&
           id->name.len <= ONCE_NAME_BYTES_MAX);
    uint16_t principal_len = (uint16_t)id->principal.len,
             len = (uint16_t)(FIXED_BYTES + id->principal.len + id->name.len);
    uint8_t *at = out;
    *at++ = id->kind == ONCE_PRODUCER ? PROP_PRODUCER : PROP_IDEMPOTENCY;
    at = put(at, &len, sizeof len);
    at = put(at, &id->value, sizeof id->value);
    at = put(at, &principal_len, sizeof principal_len);
    at = put(at, id->principal.data, id->principal.len);
    at = put(at, id->name.data, id->name.len);
    return (size_t)(at - out);
}

static bool read_value(enum once_kind kind, struct slice bytes, struct once_id *out)
{
    uint16_t principal_len;
    if (bytes.len < FIXED_BYTES)
        return false;
    *out = (struct once_id){.kind = kind};
    memcpy(&out->value, bytes.data, sizeof out->value);
    memcpy(&principal_len, bytes.data + sizeof out->value, sizeof principal_len);
    bytes = slice_from(bytes, FIXED_BYTES);
    if (principal_len > bytes.len || principal_len > ONCE_PRINCIPAL_BYTES_MAX)
        return false;
    out->principal = slice_of(bytes.data, principal_len);
    out->name = slice_from(bytes, principal_len);
    return out->name.len >= 1 && out->name.len <= ONCE_NAME_BYTES_MAX &&
           (kind == ONCE_KEY || out->value <= ONCE_SEQUENCE_MAX);
}

bool once_id_read(struct slice props, struct once_id *out)
{
    struct slice value;
    if (props_find(props, PROP_PRODUCER, &value))
        return read_value(ONCE_PRODUCER, value, out);
    return props_find(props, PROP_IDEMPOTENCY, &value) && read_value(ONCE_KEY, value, out);
}

uint64_t once_digest(struct slice payload, struct slice type, struct slice key, bool retain)
{
    /* Each part by its own hash: parts that are joined differently do not look alike. */
    uint64_t parts[4] = {hash64_stable(payload), hash64_stable(type), hash64_stable(key), retain};
    return hash64_stable(slice_of(parts, sizeof parts));
}

bool once_name_valid(struct slice name)
{
    return name.len >= 1 && name.len <= ONCE_NAME_BYTES_MAX && utf8_valid_mqtt(name);
}

bool once_sequence_read(struct slice text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.len < 1 || text.len > 16 || (text.data[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return value <= ONCE_SEQUENCE_MAX;
}
