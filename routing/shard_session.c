/* Session records: the newest of each session, folded like retained messages but in a table of their own with
 * limits of its own, delivered to nobody. The shard decides who may write: the attachment that wrote the
 * newest record, or a later one that takes the session over, and that only from the record it has read, so
 * that nothing is lost which the one before has written meanwhile. Of two that take over from the same record
 * the second has to read again. */
#include "routing/shard_private.h"

#include "routing/attachment.h"

static bool record_expired(const struct shard *s, const struct msg *m)
{
    return m->expires_ms != 0 && shard_time_ms(s) >= m->expires_ms;
}

enum status shard_admits_session(const struct shard *s, const struct msg *m, enum session_write write,
                                 uint64_t based_on)
{
    struct msg *current = retained_get(s->sessions, msg_topic(m));
    uint64_t ours, theirs = 0;
    if (attachment_read(msg_key(m), &ours) != ST_OK)
        return ST_INVALID;
    if (current && record_expired(s, current))
        current = NULL;
    if (current && attachment_read(msg_key(current), &theirs) != ST_OK)
        theirs = 0; /* not ours: any attachment replaces it */
    uint64_t newest = current ? current->offset + 1 : 0;
    if (write == SESSION_UPDATE)
        return current && ours == theirs && (based_on == 0 || based_on == newest) ? ST_OK : ST_GONE;
    if (newest != based_on)
        return ST_AGAIN;
    return current && ours <= theirs ? ST_GONE : ST_OK;
}

enum status shard_take_session(struct shard *s, const struct publish *p)
{
    struct msg *m = p->msg;
    bool update = p->session == SESSION_UPDATE;
    enum status st = shard_admits_session(s, m, (enum session_write)p->session, update ? 0 : p->based_on);
    if (st != ST_OK)
        return st;
    if (!shard_has_room_to_keep(s, s->sessions, m))
        return ST_QUOTA;
    m->flags |= MSG_STATE;
    struct wish w = {
        .wait = true, .condition = update ? PROPOSAL_UPDATE : PROPOSAL_ATTACH, .based_on = p->based_on};
    if (update && shard_deferred(s))
        w.based_on = retained_get(s->sessions, msg_topic(m))->offset + 1;
    return shard_propose(s, m, &w);
}
