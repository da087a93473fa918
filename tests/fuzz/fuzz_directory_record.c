/* What the directory finds in Redis: what is taken in is exactly what would be written. Input: texts,
 * separated by newlines, each of which is tried as a node, as a field and as a place. */
#include "routing/directory_record.h"

#include <stdlib.h>

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void check_same(struct buf *written, struct slice text, enum status st)
{
    check(st == ST_OK && slice_equal(buf_slice(written), text));
    buf_deinit(written);
}

static void check_text(struct slice text)
{
    struct directory_node node = {.id = "kept"};
    struct directory_field field;
    struct directory_place place;
    struct buf again;
    buf_init(&again, DIRECTORY_RECORD_BYTES_MAX);
    if (directory_node_read(text, &node) == ST_OK)
        check_same(&again, text, directory_node_write(&node, &again));
    check(strcmp(node.id, "kept") == 0);
    buf_init(&again, DIRECTORY_FIELD_BYTES_MAX);
    if (directory_field_read(text, &field) == ST_OK)
        check_same(&again, text, directory_field_write(&field, &again));
    buf_init(&again, DIRECTORY_RECORD_BYTES_MAX);
    if (directory_place_read(text, &place) == ST_OK)
        check_same(&again, text, directory_place_write(&place, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t start = 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && data[i] != '\n')
            continue;
        check_text(slice_of(data + start, i - start));
        start = i + 1;
    }
    return 0;
}
