#include "session/away.h"

#include "routing/attachment.h"
#include "session/hub_private.h"

enum { PAGE = 256 };

static struct slice away_topic(const struct away *a)
{
    return slice_of(a->topic, AWAY_TOPIC_BYTES);
}

void away_init(struct away *a, struct hub *h, const char name[KEEPER_NAME_BYTES])
{
    a->hub = h;
    memcpy(a->topic, "$session/", 9);
    memcpy(a->topic + 9, name, KEEPER_NAME_BYTES);
}

static void away_has_read(struct read *r)
{
    struct away *a = LIST_OF(r, struct away, read);
    struct msg *m = r->store.status == ST_OK && r->store.found > 0 ? msg_ref(r->store.msgs[0]) : NULL;
    bool found = m && attachment_read(msg_key(m), &a->attachment) == ST_OK;
    read_release(r);
    if (found)
        a->expires_ms = m->expires_ms;
    a->on_read(a, found ? ST_OK : ST_NOT_FOUND, found ? msg_payload(m) : (struct slice){0});
    msg_unref(m);
}

void away_read(struct away *a)
{
    a->read = (struct read){.store = {.lane = topic_partition(away_topic(a), a->hub->map->lane_count),
                                      .to = UINT64_MAX,
                                      .topic = away_topic(a),
                                      .count_max = 1},
                            .session = true,
                            .on_read = away_has_read};
    hub_read_retained(a->hub, &a->read);
}

static void away_has_written(struct publish *p)
{
    struct away *a = p->owner;
    enum status st = p->status;
    a->hub->letters--;
    publish_free(p);
    metric_add(a->hub->metrics, st == ST_OK ? M_SESSION_WRITES : M_SESSION_WRITES_REFUSED, 1);
    a->on_written(a, st);
}

enum status away_write(struct away *a, struct slice record, uint64_t expires_ms)
{
    struct msg *m;
    struct publish *p;
    char key[ATTACHMENT_BYTES];
    attachment_write(a->attachment, key);
    if (msg_create(away_topic(a), slice_of(key, sizeof key), (struct slice){0}, record, &m) != ST_OK)
        return ST_NO_MEMORY;
    m->flags = MSG_RETAIN;
    m->content = CONTENT_BINARY;
    m->expires_ms = record.len > 0 ? expires_ms : 0;
    m->partition = topic_partition(away_topic(a), a->hub->map->lane_count);
    if (publish_create(m, &p) != ST_OK) {
        msg_unref(m);
        return ST_NO_MEMORY;
    }
    p->wait = true;
    p->session = SESSION_UPDATE;
    p->on_published = away_has_written;
    p->owner = a;
    a->hub->letters++;
    shard_map_publish(a->hub->map, a->hub->courier, m->partition, p);
    return ST_OK;
}

bool away_holder_ended(const struct away *a, uint64_t incarnation)
{
    const struct shard_map *map = a->hub->map;
    unsigned lane = topic_partition(away_topic(a), map->lane_count);
    return hub_is_home(a->hub, lane) && shard_elsewhere(map->lanes[lane].shard) &&
           shard_incarnation_ended(map->lanes[lane].shard, incarnation);
}

/* --- all of a lane ------------------------------------------------------------------------------ */

static bool walk_wants(void *ctx, struct slice topic)
{
    (void)ctx;
    return topic.len == AWAY_TOPIC_BYTES;
}

static void walk_has_read(struct read *r)
{
    struct away_walk *w = LIST_OF(r, struct away_walk, read);
    bool more = r->store.status == ST_OK && r->store.next < r->store.end;
    for (uint64_t i = 0; i < r->store.found && !w->enough; i++) {
        struct msg *m = r->store.msgs[i];
        w->on_record(w, (const char *)msg_topic(m).data + 9, msg_payload(m));
    }
    read_release(r);
    if (!more || w->enough) {
        w->on_end(w);
        return;
    }
    r->store.from = r->store.next;
    hub_read_retained(w->hub, r);
}

void away_walk_start(struct away_walk *w)
{
    w->read =
        (struct read){.store = {.lane = w->lane, .to = UINT64_MAX, .wants = walk_wants, .count_max = PAGE},
                      .session = true,
                      .on_read = walk_has_read};
    hub_read_retained(w->hub, &w->read);
}
