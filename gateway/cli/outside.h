/* What a start reads besides the configuration, and could refuse: certificates, keys, addresses, ports. It
 * looks, and makes nothing. */
#ifndef TG_GATEWAY_CLI_OUTSIDE_H
#define TG_GATEWAY_CLI_OUTSIDE_H

#include "core/buf.h"
#include "gateway/settings.h"

/* ST_INVALID, ST_NO_MEMORY: `error` gets one line that says what, where, and why. Blocks on the disk. */
enum status outside_check_files(const struct settings *s, struct buf *error) MUST_CHECK;
/* Each door has an address and a port of its own. Whether they are free on this machine is doctor's. */
enum status outside_check_doors(const struct settings *s, struct buf *error) MUST_CHECK;

#endif
