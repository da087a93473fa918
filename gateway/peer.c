#include "gateway/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

size_t peer_address(int fd, char out[ADDRESS_BYTES_MAX])
{
    struct sockaddr_storage peer = {0};
    char host[INET6_ADDRSTRLEN], text[ADDRESS_BYTES_MAX];
    socklen_t size = sizeof peer;
    int len = 0;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        return 0;
    if (peer.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&peer;
        if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof host))
            len = snprintf(text, sizeof text, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (peer.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&peer;
        if (inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host))
            len = snprintf(text, sizeof text, "[%s]:%u", host, (unsigned)ntohs(in->sin6_port));
    }
    if (len <= 0 || (size_t)len >= sizeof text)
        return 0;
    memcpy(out, text, (size_t)len);
    return (size_t)len;
}
