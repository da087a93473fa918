/* What a payload is (PROTOCOL.md 2, "Content class"), decided once at the door that takes it. Pure; any
 * thread. */
#ifndef TG_GATEWAY_CONTENT_H
#define TG_GATEWAY_CONTENT_H

#include "core/msg.h"

/* `type` is the declared media type; empty = undeclared. Declared JSON (application/json, +json) must be
 * valid: ST_INVALID. Other declared types are text if text/..., else as undeclared: JSON if it begins with
 * '{' or '[' and is valid, text if UTF-8, else binary. */
enum status content_classify(struct slice type, struct slice payload, enum content_class *out) MUST_CHECK;

#endif
