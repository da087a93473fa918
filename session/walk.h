/* A look at the sessions of all loops, in the order of their numbers: loop after loop, by letter, a bounded
 * number of them at a time, so that no loop stands still however many there are. What joins or leaves
 * meanwhile may be met or not; what stays is met exactly once.
 *
 * The walk belongs to whoever began it, on his loop, between walk_begin and on_end only to the loop it is on.
 */
#ifndef TG_SESSION_WALK_H
#define TG_SESSION_WALK_H

#include "session/hub.h"

struct walk {
    struct hub_visit visit;
    uint64_t after; /* all numbers up to this have been looked at; where it begins is set before */
    bool stopped; /* on_session has had enough */
    uint32_t cost; /* of looking at one, in subscriptions; 0 = 1 */
    bool more; /* the loop has some left for the next round */
    /* On the session's loop. False: enough; it is not called again. */
    bool (*on_session)(struct walk *w, struct session *s);
    /* At home, not inside walk_begin. */
    void (*on_end)(struct walk *w);
};

/* `after`, on_session and on_end are set; the owner keeps it until on_end. */
void walk_begin(struct hub *h, struct walk *w);

/* Is one of its subscriptions for this topic? */
bool session_wants(const struct session *s, struct slice topic);

#endif
