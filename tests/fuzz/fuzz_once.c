/* part: http */
/* What a shard reads from the log, and a door from a client, about publishes that are stored once.
 * Properties: what is read is exactly what would be written. Byte 0 chooses: a property, a note, an
 * Idempotency-Key. */
#include "gateway/http/once_key.h"
#include "routing/once_note.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool claim)
{
    if (!claim)
        abort();
}

/* The first property with an identity decides, whatever else there is. */
static void check_property(struct slice props)
{
    struct once_id id, again;
    uint8_t written[ONCE_PROP_BYTES_MAX];
    if (!props_valid(props) || !once_id_read(props, &id))
        return;
    size_t len = once_id_write(&id, written);
    check(len <= sizeof written && once_id_read(slice_of(written, len), &again));
    check(again.kind == id.kind && again.value == id.value && slice_equal(again.name, id.name) &&
          slice_equal(again.principal, id.principal));
}

static void check_note(struct slice bytes)
{
    struct once_note n;
    if (once_note_read(bytes, &n) != ST_OK)
        return;
    struct buf out;
    buf_init(&out, ONCE_NOTE_BYTES_MAX);
    check(once_note_begin(&out, &n) == ST_OK);
    for (uint32_t i = 0; i < n.count; i++) {
        struct once_member m = once_note_member(&n, i);
        check(once_note_add(&out, &m) == ST_OK);
    }
    check(out.len == bytes.len &&
          out.len == once_note_bytes(n.principal.len + n.name.len + n.topic.len, n.count));
    check(memcmp(out.data, bytes.data, 22) == 0 && memcmp(out.data + 24, bytes.data + 24, out.len - 24) == 0);
    buf_deinit(&out);
}

/* A key that was read, quoted, is read as the same. */
static void check_key(struct slice field)
{
    uint8_t space[ONCE_NAME_BYTES_MAX], quoted[2 * ONCE_NAME_BYTES_MAX + 2], other[ONCE_NAME_BYTES_MAX];
    struct slice key, again;
    size_t len = 0;
    if (!once_key_read(field, space, &key))
        return;
    check(key.data == space && key.len >= 1);
    quoted[len++] = '"';
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] == '"' || key.data[i] == '\\')
            quoted[len++] = '\\';
        quoted[len++] = key.data[i];
    }
    quoted[len++] = '"';
    check(once_key_read(slice_of(quoted, len), other, &again) && slice_equal(again, key));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    struct slice rest = slice_of(copy + 1, size - 1);
    if (data[0] % 3 == 0)
        check_property(rest);
    else if (data[0] % 3 == 1)
        check_note(rest);
    else
        check_key(rest);
    free(copy);
    return 0;
}
