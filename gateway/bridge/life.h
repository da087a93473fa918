/* What a bridge's thread does between connecting and being disconnected; for bridge.c, which makes the
 * thread. */
#ifndef TG_GATEWAY_BRIDGE_LIFE_H
#define TG_GATEWAY_BRIDGE_LIFE_H

#include "gateway/bridge/bridge.h"
#include "gateway/bridge/local.h"
#include "gateway/bridge/remote.h"

#include <pthread.h>
#include <sys/eventfd.h>

/* Sent to the remote, not acknowledged yet. */
struct crossing {
    int message_id;
    uint16_t local_id;
};

/* Reasons are told to other threads by pointer: each that was told once stays. */
enum { BRIDGE_WHY_COUNT_MAX = 32 };

struct bridge {
    struct bridge_home home;
    struct bridge_plan *plan;
    const struct bridge_settings *settings; /* in the plan */
    const char *node_id;
    struct metrics *metrics;
    struct bridge_figures figures;
    char *whys[BRIDGE_WHY_COUNT_MAX];
    unsigned why_count;

    /* How it begins and ends. The flags are set by the main thread, then `wake` is written. */
    pthread_t thread;
    bool started, joined; /* of the main thread */
    atomic_bool former_gone; /* set by the heir: `thread` is joined and nothing of it is read any more */
    bool has_heir;
    int wake; /* eventfd */
    atomic_bool released, leaving, stopping;
    uint64_t expiry_ms; /* of its session, when it is removed; before `leaving` */
    struct bridge *former; /* before `released` */
    struct bridge *next; /* of its owner */
    struct buf gone; /* filters of its former's that are not its own, as of UNSUBSCRIBE */
    struct buf remote_gone; /* the same at the remote, each with a NUL */
    uint32_t gone_count;

    /* Of one life. */
    struct local local;
    struct remote *remote;
    bool primed; /* once a process: its session has all its filters */
    bool remote_up, settling; /* settling: what was read waits until it is durable */
    bool failed;
    enum bridge_trouble trouble;
    const char *why;
    uint64_t since_ms; /* of what is waited for */
    uint32_t unacked_in;
    uint32_t crossing_count;
    struct crossing *crossings; /* settings->inflight of them */
    struct buf topic, user; /* scratch */
};

void life_init(struct bridge *b);
/* One life: connects to both sides and carries messages until one of them ends, or the bridge is over. */
void life_live(struct bridge *b);
void life_end(struct bridge *b); /* what is left of it goes; a failure is told */
/* A bridge that is removed leaves its session as if it were any client's: it ends in its time. */
void life_release_session(struct bridge *b);

/* No further life begins. */
static inline bool bridge_is_over(const struct bridge *b)
{
    return atomic_load(&b->stopping) || atomic_load(&b->leaving);
}

/* What `wake` was written for is in the flags. */
static inline void bridge_calm(struct bridge *b)
{
    eventfd_t count;
    (void)eventfd_read(b->wake, &count);
}

static inline void bridge_count(_Atomic uint64_t *figure)
{
    atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

#endif
