/* Positions and bookmarks are given out as opaque text, so only what this program could have written is
 * taken back: lower case, fixed width where it is fixed, no leading zeros where it is not. The two forms
 * cannot be confused: the tenth byte of a bookmark is a dot, that of a position a digit of the lane.
 *
 *    position  eeeeeeee llll . oooooooooooooooo        bookmark  b eeeeeeee . n [- n]...
 *              0        8   12 13             29                 0 1       9 10
 */
#include "routing/position.h"

#include <assert.h>

enum {
    EPOCH_DIGITS = 8,
    LANE_DIGITS = 4,
    OFFSET_DIGITS = 16,
    POSITION_DOT = EPOCH_DIGITS + LANE_DIGITS,
    BOOKMARK_DOT = 1 + EPOCH_DIGITS
};

static void hex_write(uint64_t value, unsigned digits, char *out)
{
    for (unsigned i = digits; i > 0; i--, value >>= 4)
        out[i - 1] = "0123456789abcdef"[value & 15];
}

static unsigned hex_digits(uint64_t value)
{
    unsigned digits = 1;
    while (value >>= 4)
        digits++;
    return digits;
}

void position_write(uint32_t epoch, unsigned lane, uint64_t offset, char *out)
{
    assert(lane < PLACE_LANES_MAX);
    hex_write(epoch, EPOCH_DIGITS, out);
    hex_write(lane, LANE_DIGITS, out + EPOCH_DIGITS);
    out[POSITION_DOT] = '.';
    hex_write(offset, OFFSET_DIGITS, out + POSITION_DOT + 1);
}

size_t bookmark_write(uint32_t epoch, const struct place *place, char *out)
{
    assert(place->lane_count > 0 && place->lane_count <= PLACE_LANES_MAX);
    out[0] = 'b';
    hex_write(epoch, EPOCH_DIGITS, out + 1);
    size_t len = BOOKMARK_DOT;
    for (uint32_t lane = 0; lane < place->lane_count; lane++) {
        out[len++] = lane == 0 ? '.' : '-';
        unsigned digits = hex_digits(place->next[lane]);
        hex_write(place->next[lane], digits, out + len);
        len += digits;
    }
    assert(len <= BOOKMARK_BYTES_MAX);
    return len;
}

static bool hex_read(struct slice text, uint64_t *value)
{
    uint64_t result = 0;
    if (text.len == 0 || text.len > OFFSET_DIGITS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c >= '0' && c <= '9')
            result = result << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            result = result << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *value = result;
    return true;
}

/* "0", or digits that do not begin with one: a place has one text only. Nothing has the greatest number: in a
 * read that goes back it stands for the end. */
static bool next_read(struct slice text, uint64_t *value)
{
    return hex_read(text, value) && (text.len == 1 || text.data[0] != '0') && *value != UINT64_MAX;
}

static bool lanes_read(struct slice list, struct place *out)
{
    out->lane_count = 0;
    for (;;) {
        const uint8_t *dash = list.len > 0 ? memchr(list.data, '-', list.len) : NULL;
        size_t len = dash ? (size_t)(dash - list.data) : list.len;
        if (out->lane_count == PLACE_LANES_MAX ||
            !next_read(slice_of(list.data, len), &out->next[out->lane_count]))
            return false;
        out->lane_count++;
        if (!dash)
            return true;
        list = slice_from(list, len + 1);
    }
}

static void lane_fold(struct place *place, size_t lane, uint64_t next, bool before)
{
    if (before ? place->next[lane] > next : place->next[lane] < next)
        place->next[lane] = next;
}

static enum status fold_bookmark(struct place *place, uint32_t epoch, struct slice text, bool before)
{
    struct place read;
    uint64_t text_epoch = 0;
    if (text.data[0] != 'b' || !hex_read(slice_of(text.data + 1, EPOCH_DIGITS), &text_epoch) ||
        !lanes_read(slice_from(text, BOOKMARK_DOT + 1), &read))
        return ST_INVALID;
    if (text_epoch != epoch)
        return ST_GONE; /* before the lanes are counted: another epoch may have had more or fewer */
    if (read.lane_count != place->lane_count)
        return ST_INVALID;
    for (uint32_t lane = 0; lane < read.lane_count; lane++)
        lane_fold(place, lane, read.next[lane], before);
    return ST_OK;
}

static enum status fold_position(struct place *place, uint32_t epoch, struct slice text, bool before)
{
    uint64_t text_epoch = 0, lane = 0, offset = 0;
    if (!hex_read(slice_of(text.data, EPOCH_DIGITS), &text_epoch) ||
        !hex_read(slice_of(text.data + EPOCH_DIGITS, LANE_DIGITS), &lane) ||
        !hex_read(slice_from(text, POSITION_DOT + 1), &offset))
        return ST_INVALID;
    if (text_epoch != epoch)
        return ST_GONE;
    if (lane >= place->lane_count || offset >= UINT64_MAX - 1)
        return ST_INVALID; /* after the last offset there is no next */
    lane_fold(place, lane, before ? offset : offset + 1, before);
    return ST_OK;
}

static enum status fold(struct place *place, uint32_t epoch, struct slice text, bool before)
{
    assert(place->lane_count <= PLACE_LANES_MAX);
    if (text.len > BOOKMARK_DOT && text.data[BOOKMARK_DOT] == '.')
        return fold_bookmark(place, epoch, text, before);
    if (text.len == POSITION_BYTES && text.data[POSITION_DOT] == '.')
        return fold_position(place, epoch, text, before);
    return ST_INVALID;
}

enum status place_fold(struct place *place, uint32_t epoch, struct slice text)
{
    return fold(place, epoch, text, false);
}

enum status place_fold_before(struct place *place, uint32_t epoch, struct slice text)
{
    return fold(place, epoch, text, true);
}

bool place_time_read(struct slice text, uint64_t *time_ms)
{
    enum { PREFIX = 5, DIGITS_MAX = 16 };
    uint64_t value = 0;
    if (!slice_starts_with(text, slice_cstr("time:")))
        return false;
    text = slice_from(text, PREFIX);
    if (text.len == 0 || text.len > DIGITS_MAX || (text.data[0] == '0' && text.len > 1))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *time_ms = value;
    return value < UINT64_C(1) << 53;
}
