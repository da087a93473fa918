/* START and NODE_DOWN (docs/CLUSTER.md): which incarnations of nodes write into the lane is part of its
 * state. A node introduces itself by START before anything else; that, or a NODE_DOWN that another node
 * proposes, ends an incarnation at its place in the lane. From there on whatever it has proposed is void, at
 * every node alike. So a node that was frozen, and does not know yet what has happened, changes nothing. */
#include "routing/shard_private.h"

#include "routing/once_id.h"

static const char prefix[] = "$node/";

static uint64_t own_incarnation(const struct shard *s)
{
    return s->group->log.ops->incarnation(s->group->log.ctx);
}

static struct slice node_of(const struct msg *m)
{
    return slice_from(msg_topic(m), sizeof prefix - 1);
}

static enum status node_propose(struct shard *s, struct slice node, const char *says, const struct wish *w)
{
    char topic[sizeof prefix - 1 + NODE_NAME_BYTES_MAX];
    struct msg *m;
    if (node.len > NODE_NAME_BYTES_MAX)
        return ST_INVALID;
    memcpy(topic, prefix, sizeof prefix - 1);
    memcpy(topic + sizeof prefix - 1, node.data, node.len);
    enum status st = msg_create(slice_of(topic, sizeof prefix - 1 + node.len), (struct slice){0},
                                (struct slice){0}, slice_cstr(says), &m);
    if (st != ST_OK)
        return st;
    m->flags = MSG_RETAIN | MSG_STATE; /* it is read again at a start */
    m->content = CONTENT_TEXT;
    m->partition = s->lane;
    st = shard_hand_in(s, m, w);
    msg_unref(m);
    return st;
}

enum status shard_introduces(struct shard *s)
{
    struct slice node = slice_of(s->group->node.name, s->group->node.len);
    if (node.len == 0 || s->proposed.introduced == own_incarnation(s))
        return ST_OK;
    enum status st = node_propose(s, node, "start", &(struct wish){.condition = PROPOSAL_START});
    if (st == ST_OK)
        s->proposed.introduced = own_incarnation(s);
    return st;
}

/* Its START was to come first: it was lost on its way, and is proposed again; if that fails, before the next
 * record. */
void shard_node_heard(struct shard *s, const struct proposal *p)
{
    if (p->incarnation != s->proposed.introduced ||
        incarnations_introduced(s->incarnations, p->incarnation) ||
        incarnations_ended(s->incarnations, p->incarnation))
        return;
    s->proposed.introduced = 0;
    (void)!shard_introduces(s);
}

enum status shard_introduce(struct shard *s)
{
    return shard_introduces(s);
}

enum status shard_node_down(struct shard *s, struct slice node, uint64_t incarnation)
{
    enum status st = shard_introduces(s);
    if (st != ST_OK)
        return st;
    return node_propose(s, node, "down", &(struct wish){.condition = PROPOSAL_DOWN, .based_on = incarnation});
}

bool shard_incarnation_ended(const struct shard *s, uint64_t incarnation)
{
    return incarnations_ended(s->incarnations, incarnation);
}

void shard_each_incarnation(const struct shard *s,
                            void (*on_live)(void *ctx, struct slice node, uint64_t incarnation), void *ctx)
{
    incarnations_each(s->incarnations, on_live, ctx);
}

/* --- the fold ----------------------------------------------------------------------------------------- */

/* What a start reads again: all else has no part in the state, so it must not move the sequence either. */
static bool is_state(const struct msg *m)
{
    struct once_id id;
    return (m->flags & MSG_RETAIN) || once_id_read(msg_props(m), &id);
}

bool shard_node_admits(struct shard *s, const struct msg *m, const struct proposal *p)
{
    if (incarnations_ended(s->incarnations, p->incarnation))
        return false;
    return !is_state(m) || incarnations_pass(s->incarnations, p->incarnation, p->sequence);
}

/* What was waited for under it will be void when it comes. */
static void node_ended(void *ctx, uint64_t incarnation)
{
    struct shard *s = ctx;
    const struct shard_watch *watch = s->group->watch;
    shard_refuse_own(s, incarnation);
    if (watch)
        watch->on_ended(s->group->watch_ctx, s->lane, incarnation, incarnation == own_incarnation(s));
}

static void node_told_down(struct shard *s, uint64_t incarnation)
{
    const struct shard_watch *watch = s->group->watch;
    if (incarnation != own_incarnation(s) || !watch || !watch->on_told_down) {
        node_ended(s, incarnation);
        return;
    }
    shard_refuse_own(s, incarnation);
    watch->on_told_down(s->group->watch_ctx, s->lane);
}

/* Nothing is waited for yet, and nobody is told what was before. */
static void node_had_ended(void *ctx, uint64_t incarnation)
{
    (void)ctx;
    (void)incarnation;
}

bool shard_node_fold(struct shard *s, const struct msg *m, const struct proposal *p, bool arrived)
{
    void (*on_ended)(void *ctx, uint64_t incarnation) = arrived ? node_ended : node_had_ended;
    if (p->condition == PROPOSAL_START)
        return incarnations_start(s->incarnations, node_of(m), p->incarnation, on_ended, s);
    if (!incarnations_end(s->incarnations, node_of(m), p->based_on))
        return false;
    if (arrived)
        node_told_down(s, p->based_on);
    return true;
}
