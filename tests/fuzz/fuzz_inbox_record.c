/* The record of an inbox's cursor: what is read is exactly what would be written, and nothing else is read.
 * Input: the record's bytes. */
#include "routing/inbox_record.h"

#include <stdlib.h>

enum { EPOCH = 0x01020304 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool claim)
{
    if (!claim)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t again[INBOX_RECORD_BYTES];
    uint64_t next = 0;
    enum status st = inbox_record_read(slice_of(data, size), EPOCH, &next);
    check(st == ST_OK || st == ST_INVALID || (st == ST_GONE && size == INBOX_RECORD_BYTES));
    if (st == ST_OK) {
        inbox_record_write(EPOCH, next, again);
        check(slice_equal(slice_of(data, size), slice_of(again, sizeof again)));
    }
    return 0;
}
