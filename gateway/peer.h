/* Who is at the other end of a socket, as text. */
#ifndef TG_GATEWAY_PEER_H
#define TG_GATEWAY_PEER_H

#include "session/transport.h"

/* "127.0.0.1:50000", "[::1]:50000"; no NUL. Returns its length; 0: the socket has no peer any more. A system
 * call. Any thread. */
size_t peer_address(int fd, char out[ADDRESS_BYTES_MAX]);

#endif
