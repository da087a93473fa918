#include "gateway/http/head.h"

#include "gateway/field.h"

#include <strings.h>

static const struct {
    const char *name;
    bool repeatable; /* only its presence counts */
} rows[HEAD_FIELD_COUNT] = {
    [HEAD_HOST] = {"Host", false},
    [HEAD_ORIGIN] = {"Origin", false},
    [HEAD_AUTHORIZATION] = {"Authorization", false},
    [HEAD_FORWARDED] = {"Forwarded", true},
    [HEAD_X_FORWARDED_FOR] = {"X-Forwarded-For", true},
    [HEAD_TRANSFER_ENCODING] = {"Transfer-Encoding", true},
    [HEAD_CONTENT_LENGTH] = {"Content-Length", false},
    [HEAD_CONTENT_TYPE] = {"Content-Type", false},
    [HEAD_CONTENT_ENCODING] = {"Content-Encoding", true},
    [HEAD_EXPECT] = {"Expect", false},
    [HEAD_TRACEPARENT] = {"traceparent", false},
    [HEAD_IDEMPOTENCY_KEY] = {"Idempotency-Key", false},
    [HEAD_REQUEST_ID] = {"X-Request-Id", true},
    [HEAD_CE_SPECVERSION] = {"ce-specversion", false},
    [HEAD_KEY] = {"Tidegate-Key", false},
    [HEAD_TTL_MS] = {"Tidegate-Ttl-Ms", false},
    [HEAD_WAIT] = {"Tidegate-Wait", false},
    [HEAD_RETAIN] = {"Tidegate-Retain", false},
    [HEAD_DELIVER_AT] = {"Tidegate-Deliver-At", false},
};

static void add_event_field(struct head *h, struct slice name, struct slice value)
{
    h->ce_over |= h->ce_count == HEAD_CE_MAX;
    if (h->ce_over)
        return;
    h->ce[h->ce_count].name = name;
    h->ce[h->ce_count++].value = value;
}

void head_add(struct head *h, struct slice name, struct slice value)
{
    static const char family[] = "Tidegate-";
    if (!field_is_token(name))
        h->bad_name = true;
    if (name.len > 3 && strncasecmp((const char *)name.data, "ce-", 3) == 0)
        add_event_field(h, slice_from(name, 3), field_trimmed(value));
    for (unsigned i = 0; i < HEAD_FIELD_COUNT; i++) {
        if (!field_is_called(name, rows[i].name))
            continue;
        if ((h->given & 1u << i) != 0 && !rows[i].repeatable)
            h->repeated = rows[i].name;
        h->given |= 1u << i;
        h->fields[i] = field_trimmed(value);
        return;
    }
    if (name.len >= sizeof family - 1 && strncasecmp((const char *)name.data, family, sizeof family - 1) == 0)
        h->unknown_tidegate = true;
}
