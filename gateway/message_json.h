/* A message as JSON, the same at every door that speaks it (PROTOCOL.md 1, `msg`). Pure, any thread. */
#ifndef TG_GATEWAY_MESSAGE_JSON_H
#define TG_GATEWAY_MESSAGE_JSON_H

#include "core/buf.h"
#include "core/msg.h"

/* Appends {"topic","pos","ts","key","type","props","data"|"text"|"b64"}, without a line break, and
 * "retained":true where `retained` says so. User
 * properties are an object; a name that is given more than once has an array of its values, in order.
 * ST_FULL (the buffer's limit) or ST_NO_MEMORY: the buffer holds a part of it. */
enum status message_json_put(struct buf *out, uint32_t epoch, const struct msg *m, bool retained) MUST_CHECK;

#endif
