/* The record of a group of shared subscriptions: what is read, written again, is the same bytes. Input: the
 * record's bytes. */
#include "routing/share_record.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void put_run(struct buf *out, struct slice run)
{
    check(share_record_run(out, (uint32_t)share_record_count(run)) == ST_OK);
    for (size_t i = 0; i < share_record_count(run); i++)
        share_record_value(out, share_record_at(run, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct share_record r;
    struct buf again;
    if (share_record_read(slice_of(data, size), &r) != ST_OK)
        return 0;
    buf_init(&again, size);
    check(share_record_begin(&again, r.epoch, r.next) == ST_OK);
    put_run(&again, r.kept);
    put_run(&again, r.open);
    put_run(&again, r.passed);
    check(slice_equal(slice_of(data, size), buf_slice(&again)));
    buf_deinit(&again);
    return 0;
}
