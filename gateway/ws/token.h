/* Tokens of sessions: 128 random bits, 32 hexadecimal digits. The server keeps only a hash of them, by which
 * a session's record is named: whoever reads the log cannot resume sessions. Any thread. */
#ifndef TG_GATEWAY_WS_TOKEN_H
#define TG_GATEWAY_WS_TOKEN_H

#include "core/slice.h"
#include "core/status.h"
#include "session/keeper.h"

enum { TOKEN_BYTES = 32 };

/* With a NUL. ST_IO: the kernel gave no random bytes. */
enum status token_make(char out[TOKEN_BYTES + 1]) MUST_CHECK;
/* Could it be one of ours? */
bool token_valid(struct slice token);
/* The record's name of a session of `user` ("" = anonymous): another user finds nothing under the same token.
 * No NUL. ST_NO_MEMORY. */
enum status token_name(struct slice token, struct slice user, char out[KEEPER_NAME_BYTES]) MUST_CHECK;

#endif
