#include "routing/directory_record.h"

#include "routing/directory.h"

enum { FORMAT = 1 };

/* --- words ---------------------------------------------------------------------------------------- */

/* Takes what stands before the next space, or all. Nothing left: an empty slice. */
static struct slice next_word(struct slice *rest)
{
    size_t len = 0;
    while (len < rest->len && rest->data[len] != ' ')
        len++;
    struct slice word = slice_of(rest->data, len);
    *rest = len < rest->len ? slice_from(*rest, len + 1) : (struct slice){0};
    return word;
}

/* As we write it only: no sign, no leading zeros, lower case. */
static bool take_number(struct slice *rest, unsigned base, uint64_t *out)
{
    struct slice word = next_word(rest);
    uint64_t value = 0;
    if (word.len == 0 || (word.data[0] == '0' && word.len > 1))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        uint8_t c = word.data[i];
        unsigned digit = c >= '0' && c <= '9' ? c - 48u : c >= 'a' && c <= 'f' ? c - 87u : 99u;
        if (digit >= base || value > (UINT64_MAX - digit) / base)
            return false;
        value = value * base + digit;
    }
    *out = value;
    return true;
}

static bool word_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == '+' || c == '~';
}

static bool take_word(struct slice *rest, char out[DIRECTORY_WORD_BYTES_MAX + 1])
{
    struct slice word = next_word(rest);
    if (word.len == 0 || word.len > DIRECTORY_WORD_BYTES_MAX)
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (!word_char(word.data[i]))
            return false;
        out[i] = (char)word.data[i];
    }
    out[word.len] = '\0';
    return true;
}

/* A space at the end would be an empty word: `rest` must have run out with the last one. */
static bool at_end(struct slice text, struct slice rest)
{
    return rest.len == 0 && text.len > 0 && text.data[text.len - 1] != ' ';
}

/* --- records -------------------------------------------------------------------------------------- */

enum status directory_node_write(const struct directory_node *n, struct buf *out)
{
    return buf_printf(out, "%d %lx %lx %d %lx %s %s %lu %lx %lu %lu", FORMAT, (unsigned long)n->incarnation,
                      (unsigned long)n->registration, n->settled ? 1 : 0, (unsigned long)n->life, n->state,
                      n->version, (unsigned long)n->started_ms, (unsigned long)n->epoch,
                      (unsigned long)n->partitions, (unsigned long)n->connections);
}

enum status directory_node_read(struct slice text, struct directory_node *out)
{
    struct directory_node n = {0};
    struct slice rest = text;
    uint64_t format, settled;
    if (text.len > DIRECTORY_RECORD_BYTES_MAX || !take_number(&rest, 10, &format) || format != FORMAT ||
        !take_number(&rest, 16, &n.incarnation) || !take_number(&rest, 16, &n.registration) ||
        !take_number(&rest, 10, &settled) || settled > 1 || !take_number(&rest, 16, &n.life) ||
        !take_word(&rest, n.state) || !take_word(&rest, n.version) ||
        !take_number(&rest, 10, &n.started_ms) || !take_number(&rest, 16, &n.epoch) ||
        !take_number(&rest, 10, &n.partitions) || !take_number(&rest, 10, &n.connections) ||
        !at_end(text, rest))
        return ST_INVALID;
    n.settled = settled == 1;
    memcpy(n.id, out->id, sizeof n.id);
    *out = n;
    return ST_OK;
}

enum status directory_field_write(const struct directory_field *f, struct buf *out)
{
    char id[DIRECTORY_NODE_BYTES_MAX + CONNECTION_ID_TAIL_BYTES + 1];
    size_t len = connection_id_write(f->node, f->incarnation, f->connection, id, sizeof id);
    enum status st = buf_printf(out, "%lx.", (unsigned long)f->registration);
    return st == ST_OK ? buf_put(out, slice_of(id, len)) : st;
}

enum status directory_field_read(struct slice text, struct directory_field *out)
{
    const uint8_t *dot = text.len > 0 ? memchr(text.data, '.', text.len) : NULL;
    struct directory_field f = {0};
    struct slice node;
    if (!dot)
        return ST_INVALID;
    struct slice number = slice_of(text.data, (size_t)(dot - text.data));
    if (memchr(number.data, ' ', number.len) || !take_number(&number, 16, &f.registration) ||
        !connection_id_read(slice_from(text, (size_t)(dot - text.data) + 1), &node, &f.incarnation,
                            &f.connection))
        return ST_INVALID;
    if (node.len == 0 || node.len > DIRECTORY_NODE_BYTES_MAX || memchr(node.data, 0, node.len))
        return ST_INVALID;
    memcpy(f.node, node.data, node.len);
    *out = f;
    return ST_OK;
}

enum status directory_place_write(const struct directory_place *p, struct buf *out)
{
    return buf_printf(out, "%lu %s", (unsigned long)p->since_ms, p->door);
}

enum status directory_place_read(struct slice text, struct directory_place *out)
{
    struct directory_place p = {0};
    struct slice rest = text;
    if (text.len > DIRECTORY_RECORD_BYTES_MAX || !take_number(&rest, 10, &p.since_ms) ||
        !take_word(&rest, p.door) || !at_end(text, rest))
        return ST_INVALID;
    *out = p;
    return ST_OK;
}
