/* The value of a traceparent field (W3C Trace Context). Pure; any thread. */
#ifndef TG_GATEWAY_HTTP_TRACE_H
#define TG_GATEWAY_HTTP_TRACE_H

#include "core/slice.h"

enum { TRACE_BYTES = 55 };

/* Trace Context, 3.2.2, version 00. One that is malformed is as good as none (3.2.2.5). */
bool trace_valid(struct slice t);

#endif
