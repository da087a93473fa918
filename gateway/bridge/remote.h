/* The remote side of a bridge: one connection by libmosquitto, seen as packets of gateway/mqtt/packet.h.
 *
 * The library acknowledges a QoS 1 message as soon as it has read it; but it only queues that, since it is
 * told that there are threads, and nothing leaves before remote_write. So whoever waits with remote_write
 * until what was read is durable acknowledges nothing too early.
 *
 * One thread: the bridge's. It may block (name look-up, connecting). */
#ifndef TG_GATEWAY_BRIDGE_REMOTE_H
#define TG_GATEWAY_BRIDGE_REMOTE_H

#include "gateway/edge.h"
#include "gateway/mqtt/packet.h"
#include "gateway/settings.h"

struct remote;

/* Called from remote_read. */
struct remote_ops {
    void (*on_up)(void *ctx); /* CONNACK with success */
    void (*on_message)(void *ctx, const struct mqtt_publish *p);
    void (*on_acked)(void *ctx, int message_id, uint8_t reason); /* of remote_publish; QoS 0: it is out */
};

/* Connects; CONNACK comes later. ST_CLOSED: it could not; see remote_why. *out is set in any case but
 * ST_NO_MEMORY. */
enum status remote_open(const struct bridge_settings *s, const char *node_id, const struct remote_ops *ops,
                        void *ctx, struct remote **out) MUST_CHECK;
/* NULL is allowed. politely: with DISCONNECT; forever: its session ends too, where the version can say so. */
void remote_close(struct remote *r, bool politely, bool forever);
/* It ended. */
const char *remote_why(const struct remote *r);
enum bridge_trouble remote_trouble(const struct remote *r);

int remote_fd(const struct remote *r);
bool remote_wants_write(const struct remote *r);
/* ST_CLOSED: it has ended. */
enum status remote_read(struct remote *r) MUST_CHECK; /* about one packet */
enum status remote_write(struct remote *r) MUST_CHECK; /* all that the socket takes */
enum status remote_tick(struct remote *r) MUST_CHECK; /* keep alive; at least once a second */

enum status remote_subscribe(struct remote *r, const char *filter, int qos) MUST_CHECK;
enum status remote_unsubscribe(struct remote *r, const char *filter) MUST_CHECK;
/* `topic` and properties of `p`; `left`: whose user property BRIDGE_LEFT is added. ST_INVALID, ST_TOO_LARGE:
 * the remote will never take this message. ST_CLOSED. */
enum status remote_publish(struct remote *r, struct slice topic, const struct mqtt_publish *p, int qos,
                           const char *left, int *message_id) MUST_CHECK;

#endif
