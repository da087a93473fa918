/* From any loop to the shard of a lane: a direct call when the shard is at home on the calling loop, else
 * a letter whose on_arrival makes the same call there. */
#include "routing/shard.h"

#include "core/pool.h"

#include <assert.h>
#include <stdlib.h>

static void publish_arrived(struct mail *mail)
{
    struct publish *p = LIST_OF(mail, struct publish, mail);
    shard_publish(p->shard, p);
}

static void attach_arrived(struct mail *mail)
{
    struct attach *a = LIST_OF(mail, struct attach, mail);
    shard_attach(a->shard, a);
}

static void detach_arrived(struct mail *mail)
{
    struct detach *d = LIST_OF(mail, struct detach, mail);
    shard_detach(d->shard, d);
}

static void read_arrived(struct mail *mail)
{
    struct read *r = LIST_OF(mail, struct read, mail);
    shard_read(r->shard, r);
}

static void inbox_arrived(struct mail *mail)
{
    struct inbox_letter *l = LIST_OF(mail, struct inbox_letter, mail);
    shard_inbox(l->shard, l);
}

static void share_arrived(struct mail *mail)
{
    struct share_letter *l = LIST_OF(mail, struct share_letter, mail);
    shard_share(l->shard, l);
}

static void settle_arrived(struct mail *mail)
{
    struct share_settle *l = LIST_OF(mail, struct share_settle, mail);
    struct shard *s = l->shard;
    const struct share_settle what = *l;
    pool_free(l, l->pool_class);
    shard_settle(s, &what);
}

static bool at_home(const struct shard_map *map, const struct courier *from, unsigned lane)
{
    assert(lane < map->lane_count);
    return map->lanes[lane].loop_index == courier_index(from);
}

void shard_map_publish(struct shard_map *map, struct courier *from, unsigned lane, struct publish *p)
{
    p->home = (uint16_t)courier_index(from);
    if (at_home(map, from, lane)) {
        shard_publish(map->lanes[lane].shard, p);
        return;
    }
    p->shard = map->lanes[lane].shard;
    p->mail.on_arrival = publish_arrived;
    courier_send(from, map->lanes[lane].loop_index, &p->mail);
}

void shard_map_attach(struct shard_map *map, struct courier *from, struct attach *a)
{
    a->home = (uint16_t)courier_index(from);
    if (at_home(map, from, a->lane)) {
        shard_attach(map->lanes[a->lane].shard, a);
        return;
    }
    a->shard = map->lanes[a->lane].shard;
    a->mail.on_arrival = attach_arrived;
    courier_send(from, map->lanes[a->lane].loop_index, &a->mail);
}

void shard_map_detach(struct shard_map *map, struct courier *from, struct detach *d)
{
    if (at_home(map, from, d->lane)) {
        shard_detach(map->lanes[d->lane].shard, d);
        return;
    }
    d->shard = map->lanes[d->lane].shard;
    d->mail.on_arrival = detach_arrived;
    courier_send(from, map->lanes[d->lane].loop_index, &d->mail);
}

void shard_map_read(struct shard_map *map, struct courier *from, struct read *r)
{
    r->home = (uint16_t)courier_index(from);
    r->store.home = courier_loop(from);
    unsigned lane = r->store.lane;
    if (at_home(map, from, lane)) {
        shard_read(map->lanes[lane].shard, r);
        return;
    }
    r->shard = map->lanes[lane].shard;
    r->mail.on_arrival = read_arrived;
    courier_send(from, map->lanes[lane].loop_index, &r->mail);
}

void shard_map_inbox(struct shard_map *map, struct courier *from, struct inbox_letter *l)
{
    l->home = (uint16_t)courier_index(from);
    if (at_home(map, from, l->lane)) {
        shard_inbox(map->lanes[l->lane].shard, l);
        return;
    }
    l->shard = map->lanes[l->lane].shard;
    l->mail.on_arrival = inbox_arrived;
    courier_send(from, map->lanes[l->lane].loop_index, &l->mail);
}

void shard_map_share(struct shard_map *map, struct courier *from, struct share_letter *l)
{
    l->home = (uint16_t)courier_index(from);
    if (at_home(map, from, l->lane)) {
        shard_share(map->lanes[l->lane].shard, l);
        return;
    }
    l->shard = map->lanes[l->lane].shard;
    l->mail.on_arrival = share_arrived;
    courier_send(from, map->lanes[l->lane].loop_index, &l->mail);
}

void shard_map_settle(struct shard_map *map, struct courier *from, unsigned lane,
                      const struct share_settle *what)
{
    if (at_home(map, from, lane)) {
        shard_settle(map->lanes[lane].shard, what);
        return;
    }
    uint8_t pool_class;
    struct share_settle *l = pool_alloc(sizeof *l, &pool_class);
    if (!l)
        abort(); /* 64 bytes: the node cannot keep its promise any more; a restart can */
    *l = *what;
    l->pool_class = pool_class;
    l->shard = map->lanes[lane].shard;
    l->mail.on_arrival = settle_arrived;
    courier_send(from, map->lanes[lane].loop_index, &l->mail);
}
