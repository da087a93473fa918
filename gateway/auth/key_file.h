/* <data>/token.key: the node's own secret of HS256, 32 random bytes as 64 hexadecimal digits, mode 0600.
 * Start-up and command line. */
#ifndef TG_GATEWAY_AUTH_KEY_FILE_H
#define TG_GATEWAY_AUTH_KEY_FILE_H

#include "core/buf.h"

enum { TOKEN_KEY_BYTES = 32 };

/* Reads it, and makes it when there is none; two that make it at once end up with the same. `error` gets a
 * line: ST_INVALID (not such a file), ST_FORBIDDEN, ST_NOT_FOUND (no such folder), ST_NO_SPACE, ST_IO. */
enum status key_file_load(const char *data_dir, uint8_t key[TOKEN_KEY_BYTES], struct buf *error) MUST_CHECK;

#endif
