/* Positions and bookmarks: what is taken in is exactly what would be written. A text that folds into an
 * empty place is either the bookmark of that place or the position just before its one next offset.
 * Input: byte 0 the number of lanes; then texts, separated by newlines. */
#include "routing/position.h"

#include <stdlib.h>

enum { EPOCH = 0xb00df00d };

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void check_canonical(const struct place *read, struct slice text)
{
    char again[BOOKMARK_BYTES_MAX];
    size_t len = bookmark_write(EPOCH, read, again);
    if (slice_equal(text, slice_of(again, len)))
        return;
    unsigned lane = 0;
    while (lane < read->lane_count && read->next[lane] == 0)
        lane++;
    check(lane < read->lane_count);
    position_write(EPOCH, lane, read->next[lane] - 1, again);
    check(slice_equal(text, slice_of(again, POSITION_BYTES)));
}

static void check_text(struct place *all, struct slice text)
{
    struct place before = *all, alone = {.lane_count = all->lane_count};
    enum status st = place_fold(all, EPOCH, text);
    check(st == ST_OK || st == ST_INVALID || st == ST_GONE);
    check(place_fold(&alone, EPOCH, text) == st);
    if (st == ST_OK)
        check_canonical(&alone, text);
    for (uint32_t lane = 0; lane < all->lane_count; lane++) {
        uint64_t newest = before.next[lane] > alone.next[lane] ? before.next[lane] : alone.next[lane];
        check(all->next[lane] == newest);
    }
    if (st != ST_OK)
        check(memcmp(all, &before, sizeof(before)) == 0);
}

static void check_written(const struct place *place)
{
    char text[BOOKMARK_BYTES_MAX];
    struct place back = {.lane_count = place->lane_count};
    size_t len = bookmark_write(EPOCH, place, text);
    check(len <= sizeof(text));
    check(place_fold(&back, EPOCH, slice_of(text, len)) == ST_OK);
    check(memcmp(back.next, place->next, sizeof(back.next)) == 0);
    check(place_fold(&back, EPOCH + 1, slice_of(text, len)) == ST_GONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct place all = {.lane_count = 1U + data[0] % PLACE_LANES_MAX};
    size_t start = 1;
    for (size_t i = 1; i <= size; i++) {
        if (i == size || data[i] == '\n') {
            check_text(&all, slice_of(data + start, i - start));
            start = i + 1;
        }
    }
    check_written(&all);
    return 0;
}
