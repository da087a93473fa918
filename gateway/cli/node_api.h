/* A request of a command to the private API of the node that uses a data folder: its port is in <data>/ports,
 * api.bind and api.key are of the configuration. Blocking. */
#ifndef TG_GATEWAY_CLI_NODE_API_H
#define TG_GATEWAY_CLI_NODE_API_H

#include "gateway/settings.h"

enum { NODE_API_ANSWER_BYTES_MAX = 1 << 20 };

/* POST with a JSON body. ST_OK: *status is the answer's, `body` (whose limit is NODE_API_ANSWER_BYTES_MAX)
 * its body, ended by NUL. ST_NOT_FOUND: nobody answers at *address. ST_IO: no answer came, though the request
 * may have been taken. */
enum status node_api_post(const struct settings *s, const char *path, struct slice json, unsigned *status,
                          struct buf *body) MUST_CHECK;
const char *node_api_address(const struct settings *s);

#endif
