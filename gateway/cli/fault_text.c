#include "gateway/cli/fault_text.h"

#include "gateway/json_out.h"

#include <inttypes.h>

static const char *const names[] = {
    [FAULT_RECORDS] = "records", [FAULT_MISSING] = "missing", [FAULT_HEADER] = "header",
    [FAULT_REMOVED] = "removed", [FAULT_FOREIGN] = "foreign", [FAULT_INDEX] = "index",
};

enum status fault_text(struct buf *out, unsigned lane, const char *path, const struct walk_fault *f)
{
    switch (f->kind) {
    case FAULT_RECORDS:
        if (f->from == f->to)
            return buf_printf(
                out, "%s: bytes %" PRIu64 " to %" PRIu64 " do not verify; no record is missing there", path,
                f->position, f->position_end);
        return buf_printf(out,
                          "%s: records %" PRIu64 " to %" PRIu64
                          " of partition %u do not verify (bytes %" PRIu64 " to %" PRIu64 ")",
                          path, f->from, f->to - 1, lane, f->position, f->position_end);
    case FAULT_MISSING:
        return buf_printf(out,
                          "%s: is missing: records %" PRIu64 " to %" PRIu64 " of partition %u are not there",
                          path, f->from, f->to - 1, lane);
    case FAULT_REMOVED:
        return buf_printf(out,
                          "records %" PRIu64 " to %" PRIu64
                          " of partition %u were removed by the node's retention before they were read",
                          f->from, f->to - 1, lane);
    case FAULT_HEADER:
        return buf_printf(out, "%s: the segment's header does not verify (bytes 0 to 64)", path);
    case FAULT_FOREIGN:
        return buf_printf(out, "%s: belongs to another log or place; a start will refuse it", path);
    case FAULT_INDEX:
        break;
    }
    return buf_printf(
        out, "%s: the index does not agree with its segment; delete it, the next start makes it anew", path);
}

static void put_member(struct json_out *o, const char *name, uint64_t value)
{
    json_out_literal(o, ",");
    json_out_string(o, slice_cstr(name));
    json_out_literal(o, ":");
    json_out_number(o, value);
}

enum status fault_json(struct buf *out, unsigned lane, const char *path, const struct walk_fault *f)
{
    struct json_out o = {.buf = out, .status = ST_OK};
    json_out_literal(&o, "{\"fault\":");
    json_out_string(&o, slice_cstr(names[f->kind]));
    put_member(&o, "partition", lane);
    json_out_literal(&o, ",\"file\":");
    json_out_string(&o, slice_cstr(path));
    if (f->to > f->from) {
        put_member(&o, "from", f->from);
        put_member(&o, "to", f->to);
    }
    if (f->kind == FAULT_RECORDS) {
        put_member(&o, "position", f->position);
        put_member(&o, "position_end", f->position_end);
    }
    json_out_literal(&o, "}");
    return o.status;
}
