/* The process_* metrics, names as Prometheus' own client libraries have them. For metrics.c. */
#ifndef TG_CORE_METRICS_PROCESS_H
#define TG_CORE_METRICS_PROCESS_H

#include "core/buf.h"

/* Asks the kernel. What cannot be found out (no /proc) is left out. Any thread. */
enum status metrics_render_process(struct buf *out) MUST_CHECK;

#endif
