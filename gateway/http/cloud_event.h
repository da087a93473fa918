/* CloudEvents 1.0: structured mode (JSON event format) and binary mode (HTTP protocol binding) as messages.
 *
 *   subject            the topic, unless the request names one
 *   datacontenttype    the message's type
 *   data, data_base64  the payload
 *   source and id      an Idempotency-Key of their own: the same event twice is stored once
 *   all attributes     but datacontenttype: user properties under their names, in the order they were given,
 *                      as MQTT's binding has them
 *
 * Pure, any thread. */
#ifndef TG_GATEWAY_HTTP_CLOUD_EVENT_H
#define TG_GATEWAY_HTTP_CLOUD_EVENT_H

#include "gateway/http/head.h"
#include "gateway/publish_item.h"

enum {
    CLOUD_EVENT_TEXTS = 6, /* what `texts` must have as limit, in bodies, and CLOUD_EVENT_EXTRA more */
    CLOUD_EVENT_EXTRA = 512,
};

/* An event as JSON. `topic`: of the request; empty: the subject is it. Slices point into `object`, `topic` or
 * `texts`, which is cleared first. ST_OK: `out` is filled (see `refused`). ST_NO_MEMORY. */
enum status cloud_event_parse(struct slice object, struct slice topic, struct buf *texts,
                              struct publish_item *out) MUST_CHECK;

/* The ce-* fields of a head: out->user_props, out->once_key and, when it is empty, out->topic. `texts` as
 * above, for the head's bytes. ST_OK, also when out->refused says what is wrong. ST_NO_MEMORY. */
enum status cloud_event_read_head(const struct head *h, struct buf *texts,
                                  struct publish_item *out) MUST_CHECK;

#endif
