/* The ports of the doors: sockets that a service manager has opened and hands over (sd_listen_fds(3):
 * LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES), and own ones for the rest. Start-up only; main thread. */
#ifndef TG_GATEWAY_ACTIVATION_H
#define TG_GATEWAY_ACTIVATION_H

#include "core/buf.h"

enum { ACTIVATION_SOCKETS_MAX = 64 };

struct activation {
    unsigned count, loop_count;
    struct handed {
        int fd;
        char door[8]; /* "mqtt", "mqtts", "http", "https", "api"; "": whose port it has */
        bool taken;
    } sockets[ACTIVATION_SOCKETS_MAX];
};

/* Takes what is there; the variables are gone afterwards. ST_INVALID: `error` gets a line. */
enum status activation_begin(struct activation *a, unsigned loop_count, struct buf *error) MUST_CHECK;
/* A listening socket for one loop's door, the caller's. Handed over: that of the door's name, else of its
 * port; it must have the address that is configured, for that says who may stay anonymous, and its port
 * unless that is 0. Of several the loop gets its own (ReusePort=), of one every loop the same. Not handed
 * over: listen_open, with a port of its own per loop. `key`: the setting of the port. As listen_open. */
enum status activation_open(struct activation *a, unsigned loop, const char *what, const char *address,
                            uint16_t *port, const char *key, int *fd, struct buf *error) MUST_CHECK;
/* All doors are open. ST_INVALID: a socket was for none of them; `error` gets a line. */
enum status activation_end(struct activation *a, struct buf *error) MUST_CHECK;
/* Closes what nobody has; for every end. */
void activation_close(struct activation *a);

#endif
