/* A fault of the log in words, and as JSON. Pure. */
#ifndef TG_GATEWAY_CLI_FAULT_TEXT_H
#define TG_GATEWAY_CLI_FAULT_TEXT_H

#include "core/store/view.h"

/* "<path>: records 10 to 12 of partition 0 do not verify (bytes 4096 to 5120)". */
enum status fault_text(struct buf *out, unsigned lane, const char *path,
                       const struct walk_fault *f) MUST_CHECK;
/* {"fault":"records","partition":0,"file":"...","from":10,"to":12,"position":4096,"position_end":5120}; `to`
 * is exclusive; members that mean nothing are left out. */
enum status fault_json(struct buf *out, unsigned lane, const char *path,
                       const struct walk_fault *f) MUST_CHECK;

#endif
