/* POST /v1/node/snapshot: {"name":"..."} or nothing. The work is done by gateway/snapshots.c. */
#include "gateway/http/request.h"

#include "core/json.h"
#include "gateway/json_out.h"
#include "gateway/snapshots.h"

#include <stdio.h>

enum { BODY_BYTES_MAX = 1024, ANSWER_BYTES_MAX = 64 << 10 };

static enum status put_report(struct buf *out, const struct snapshot_report *report)
{
    struct json_out o = {.buf = out, .status = ST_OK};
    json_out_literal(&o, "{\"path\":");
    json_out_string(&o, slice_cstr(report->path));
    json_out_literal(&o, ",\"bytes\":");
    json_out_number(&o, report->bytes);
    json_out_literal(&o, ",\"segments\":");
    json_out_number(&o, report->segments);
    json_out_literal(&o, ",\"next\":[");
    for (unsigned i = 0; i < report->lane_count; i++) {
        if (i > 0)
            json_out_literal(&o, ",");
        json_out_number(&o, report->next[i]);
    }
    json_out_literal(&o, "]}\n");
    return o.status;
}

static void refuse(struct request *r, const struct snapshots_result *result)
{
    char detail[512];
    struct problem p = {.status = 503, .code = "unavailable", .detail = detail};
    snprintf(detail, sizeof detail, "%.*s", SLICE_ARG(result->error));
    if (result->error.len == 0)
        p.detail = status_name(result->status);
    switch ((int)result->status) {
    case ST_EXISTS:
    case ST_QUOTA:
        p.status = 409;
        p.code = "conflict";
        break;
    case ST_NO_SPACE:
        p.code = "storage_full";
        break;
    case ST_IO:
    case ST_NOT_FOUND:
    case ST_FORBIDDEN:
        p.status = 500;
        p.code = "internal";
        break;
    default:
        p.retry_ms = RETRY_MS;
    }
    request_refuse(r, &p);
}

static void on_done(void *ctx, const struct snapshots_result *result)
{
    struct request *r = ctx;
    struct buf body;
    r->pending = NULL;
    metric_add(r->api->edge->metrics, M_SNAPSHOTS, result->status == ST_OK);
    if (result->status != ST_OK) {
        refuse(r, result);
        return;
    }
    buf_init(&body, ANSWER_BYTES_MAX);
    if (put_report(&body, result->report) != ST_OK) /* it is there all the same: the status says so */
        buf_clear(&body);
    request_reply(r, 200, "application/json", &body);
}

/* False: refused. */
static bool read_name(struct request *r, char name[SNAPSHOT_NAME_BYTES_MAX + 1])
{
    size_t place = 0;
    struct slice key;
    struct json_value value;
    struct buf text;
    enum status st = r->body.len > 0 ? ST_OK : ST_NOT_FOUND;
    buf_init(&text, SNAPSHOT_NAME_BYTES_MAX);
    snapshot_name_of_time(loop_wall_ms(r->api->edge->loop), name);
    while (st == ST_OK && (st = json_member(buf_slice(&r->body), &place, &key, &value)) == ST_OK) {
        if (text.len > 0 || !json_key_is(key, "name") || json_text(value, &text) != ST_OK || text.len == 0)
            st = ST_INVALID;
    }
    if (text.len > 0) {
        memcpy(name, text.data, text.len);
        name[text.len] = '\0';
    }
    bool fine = st == ST_NOT_FOUND && strlen(name) >= text.len && snapshot_name_valid(name);
    buf_deinit(&text);
    if (!fine)
        request_bad(r,
                    "the body may be {\"name\":\"...\"}: 1 to 64 letters, digits, '-' and '_', not beginning "
                    "with '-'");
    return fine;
}

void snapshot_run(struct request *r)
{
    char name[SNAPSHOT_NAME_BYTES_MAX + 1];
    if (r->body.len > BODY_BYTES_MAX) {
        request_bad(r, "the body is too long");
        return;
    }
    if (!read_name(r, name))
        return;
    if (r->api->edge->facts->kafka) {
        request_unsupported(
            r, "with log.backend kafka this node has a copy of the log: Kafka's is to be backed up");
        return;
    }
    r->pending = r->api->edge->snapshots;
    if (snapshots_start(r->api->edge->snapshots, name, on_done, r) == ST_OK)
        return;
    r->pending = NULL;
    request_refuse(r, &(struct problem){.status = 409,
                                        .code = "conflict",
                                        .detail = "a snapshot is being made",
                                        .retry_ms = RETRY_MS});
}

void snapshot_give_up(struct request *r)
{
    snapshots_forget(r->pending);
    r->pending = NULL;
    request_refuse(r, &(struct problem){.status = 503,
                                        .code = "unavailable",
                                        .detail = "the snapshot was not ready in time; it may be made yet",
                                        .retry_ms = RETRY_MS,
                                        .members = "\"unknown\":true"});
}
