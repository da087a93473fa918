/*   0  u16 kind = 2          2  u16 flags: 1 = a key    4  u32 count
 *   8  u64 last_ms          16  u16 principal bytes    18  u16 name bytes   20  u16 topic bytes   22  u16 0
 *  24  principal, name, topic, then count times {u64 sequence, u64 check, u64 offset} */
#include "routing/once_note.h"

enum { NOTE_KIND = 2, NOTE_IS_KEY = 1, MEMBER_BYTES = 24 };

struct note_head {
    uint16_t kind, flags;
    uint32_t count;
    uint64_t last_ms;
    uint16_t principal_bytes, name_bytes, topic_bytes, reserved;
};
_Static_assert(sizeof(struct note_head) == 24, "FORMAT.md 5");

enum status once_note_begin(struct buf *out, const struct once_note *n)
{
    struct note_head h = {.kind = NOTE_KIND,
                          .flags = n->kind == ONCE_KEY ? NOTE_IS_KEY : 0,
                          .last_ms = n->last_ms,
                          .principal_bytes = (uint16_t)n->principal.len,
                          .name_bytes = (uint16_t)n->name.len,
                          .topic_bytes = (uint16_t)n->topic.len};
    buf_clear(out);
    enum status st = buf_put(out, slice_of(&h, sizeof h));
    if (st == ST_OK)
        st = buf_put(out, n->principal);
    if (st == ST_OK)
        st = buf_put(out, n->name);
    if (st == ST_OK)
        st = buf_put(out, n->topic);
    return st;
}

enum status once_note_add(struct buf *out, const struct once_member *m)
{
    uint64_t fields[3] = {m->sequence, m->check, m->offset};
    enum status st = buf_put(out, slice_of(fields, sizeof fields));
    if (st != ST_OK)
        return st;
    uint32_t count;
    uint8_t *at = out->data + offsetof(struct note_head, count);
    memcpy(&count, at, sizeof count);
    count++;
    memcpy(at, &count, sizeof count);
    return ST_OK;
}

static struct slice take(struct slice *bytes, size_t len)
{
    struct slice part = slice_of(bytes->data, len);
    *bytes = slice_from(*bytes, len);
    return part;
}

enum status once_note_read(struct slice bytes, struct once_note *out)
{
    struct note_head h;
    if (bytes.len < sizeof h.kind)
        return ST_INVALID;
    memcpy(&h.kind, bytes.data, sizeof h.kind);
    if (h.kind != NOTE_KIND)
        return ST_UNSUPPORTED;
    if (bytes.len < sizeof h)
        return ST_INVALID;
    memcpy(&h, bytes.data, sizeof h);
    if ((h.flags & ~NOTE_IS_KEY) != 0)
        return ST_UNSUPPORTED;
    size_t names = (size_t)h.principal_bytes + h.name_bytes + h.topic_bytes;
    struct once_note n = {
        .kind = h.flags & NOTE_IS_KEY ? ONCE_KEY : ONCE_PRODUCER, .last_ms = h.last_ms, .count = h.count};
    bool names_fit = h.principal_bytes <= ONCE_PRINCIPAL_BYTES_MAX && h.name_bytes >= 1 &&
                     h.name_bytes <= ONCE_NAME_BYTES_MAX && (n.kind == ONCE_KEY) == (h.topic_bytes > 0);
    if (!names_fit || n.count < 1 || n.count > ONCE_WINDOW || (n.kind == ONCE_KEY && n.count != 1) ||
        bytes.len != sizeof h + names + (size_t)n.count * MEMBER_BYTES)
        return ST_INVALID;
    bytes = slice_from(bytes, sizeof h);
    n.principal = take(&bytes, h.principal_bytes);
    n.name = take(&bytes, h.name_bytes);
    n.topic = take(&bytes, h.topic_bytes);
    n.members = bytes;
    *out = n;
    return ST_OK;
}

struct once_member once_note_member(const struct once_note *n, uint32_t i)
{
    uint64_t fields[3];
    memcpy(fields, n->members.data + (size_t)i * MEMBER_BYTES, sizeof fields);
    return (struct once_member){.sequence = fields[0], .check = fields[1], .offset = fields[2]};
}
