/* Who reads the figures of bridges reads them by facts->bridges, a list that is replaced as a whole. What a
 * commit has taken out of it stays in memory until the next commit at least: before that every loop has gone
 * over to other settings (node_use_settings), so none has the former list in its hands any more.
 *
 *   current --commit--> retired --the next commit, if the thread has ended--> freed
 */
#include "gateway/bridge/bridges.h"

#include "core/logging.h"
#include "gateway/bridge/bridge.h"

#include <mosquitto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* A generation: what the configuration names. */
struct generation {
    size_t count;
    struct bridge **each;
    bool *kept; /* of the generation before */
    struct bridge_list *list; /* what others see */
};

struct bridges {
    struct bridge_home home;
    struct generation now, next;
    uint64_t leave_expiry_ms; /* of the configuration to come */
    struct bridge_list *former_list;
    struct bridge *retired; /* by bridge_next */
    struct metrics **spare; /* of bridges that are gone; sets live until exit */
    size_t spare_count, spare_room;
    bool library;
};

static void generation_free(struct generation *g)
{
    free((void *)g->each);
    free(g->kept);
    free(g->list);
    *g = (struct generation){0};
}

static enum status generation_init(struct generation *g, size_t count)
{
    *g = (struct generation){.each = (struct bridge **)calloc(count + 1, sizeof(struct bridge *)),
                             .kept = calloc(count + 1, sizeof *g->kept),
                             .list = calloc(1, sizeof *g->list + count * sizeof g->list->each[0])};
    if (g->each && g->kept && g->list)
        return ST_OK;
    generation_free(g);
    return ST_NO_MEMORY;
}

static struct bridge *find(const struct generation *g, const char *name)
{
    for (size_t i = 0; i < g->count; i++)
        if (strcmp(bridge_plan_of(g->each[i])->bridge.name, name) == 0)
            return g->each[i];
    return NULL;
}

/* --- sets of metrics, used again ---------------------------------------------------------------- */

static struct metrics *metrics_take(struct bridges *all)
{
    return all->spare_count > 0 ? all->spare[--all->spare_count] : metrics_register();
}

/* Room for it was made when it was taken. */
static void metrics_give(struct bridges *all, struct metrics *m)
{
    all->spare[all->spare_count++] = m;
}

static enum status metrics_make_room(struct bridges *all)
{
    struct metrics **more =
        (struct metrics **)realloc((void *)all->spare, (all->spare_room + 1) * sizeof(struct metrics *));
    if (!more)
        return ST_NO_MEMORY;
    all->spare = more;
    all->spare_room++;
    return ST_OK;
}

/* --- making ------------------------------------------------------------------------------------- */

static void end_bridge(struct bridges *all, struct bridge *b)
{
    metrics_give(all, bridge_metrics_of(b));
    bridge_destroy(b);
}

/* Takes the plan. */
static enum status add_fresh(struct bridges *all, struct bridge_plan *plan, struct bridge **out,
                             struct buf *error)
{
    enum status st = all->spare_count > 0 ? ST_OK : metrics_make_room(all);
    if (st != ST_OK) {
        bridge_plan_destroy(plan);
        return st;
    }
    if (!all->library)
        mosquitto_lib_init();
    all->library = true;
    struct metrics *m = metrics_take(all);
    st = bridge_create(&all->home, plan, m, out, error);
    if (st != ST_OK)
        metrics_give(all, m);
    return st;
}

/* all->next of `s`; what is the same as now is taken from there. */
static enum status make_next(struct bridges *all, const struct settings *s, struct buf *error)
{
    struct generation *g = &all->next;
    enum status st = generation_init(g, s->bridges.count);
    for (size_t i = 0; i < s->bridges.count && st == ST_OK; i++) {
        struct bridge_plan *plan;
        struct bridge *made = NULL;
        st = bridge_plan_create(s, i, &plan);
        if (st != ST_OK)
            break;
        struct bridge *now = find(&all->now, plan->bridge.name);
        if (now && bridge_plan_equal(bridge_plan_of(now), plan)) {
            bridge_plan_destroy(plan);
            made = now;
            g->kept[i] = true;
        } else {
            st = add_fresh(all, plan, &made, error);
        }
        if (st != ST_OK)
            break;
        g->each[i] = made;
        g->list->each[i] = bridge_figures_of(made);
        g->list->count = g->count = i + 1;
    }
    return st;
}

/* Those that are not of the generation before end, whether they were started or not. */
static void drop_next(struct bridges *all)
{
    struct generation *g = &all->next;
    for (size_t i = 0; i < g->count; i++) {
        if (g->kept[i])
            continue;
        bridge_stop(g->each[i]);
        bridge_join(g->each[i]);
        end_bridge(all, g->each[i]);
    }
    generation_free(g);
}

static void show(struct bridges *all)
{
    /* Release: who reads the list sees what is in it. */
    atomic_store_explicit(&all->home.edge->facts->bridges, all->now.list, memory_order_release);
}

enum status bridges_create(const struct settings *s, struct edge *edge, struct bridges **out,
                           struct buf *error)
{
    struct bridges *all = calloc(1, sizeof *all);
    if (!all)
        return ST_NO_MEMORY;
    all->home = (struct bridge_home){
        .edge = edge, .node_id = s->node_id, .message_bytes_max = (size_t)s->limit_message_bytes};
    enum status st = make_next(all, s, error);
    if (st != ST_OK) {
        drop_next(all);
        bridges_destroy(all);
        return st;
    }
    all->now = all->next;
    all->next = (struct generation){0};
    show(all);
    *out = all;
    return ST_OK;
}

static void on_nudge(int number)
{
    (void)number;
}

enum status bridges_start(struct bridges *all)
{
    /* Ends a connect() that takes long when a bridge is to stop; without SA_RESTART. */
    const struct sigaction nudge = {.sa_handler = on_nudge};
    if (sigaction(SIGRTMIN, &nudge, NULL) != 0)
        return ST_IO;
    for (size_t i = 0; i < all->now.count; i++) {
        enum status st = bridge_start(all->now.each[i]);
        if (st != ST_OK)
            return st;
        bridge_release(all->now.each[i], NULL);
    }
    return ST_OK;
}

/* --- changing ----------------------------------------------------------------------------------- */

enum status bridges_prepare(void *bridges, const struct settings *next, struct buf *error)
{
    struct bridges *all = bridges;
    all->leave_expiry_ms = next->session_expiry_ms;
    enum status st = make_next(all, next, error);
    for (size_t i = 0; i < all->next.count && st == ST_OK; i++)
        if (!all->next.kept[i])
            st = bridge_start(all->next.each[i]);
    if (st != ST_OK)
        drop_next(all);
    return st;
}

void bridges_abandon(void *bridges)
{
    drop_next(bridges);
}

static void reap(struct bridges *all)
{
    struct bridge **link = &all->retired;
    while (*link) {
        struct bridge *b = *link;
        if (!bridge_gone(b)) {
            link = bridge_next(b);
            continue;
        }
        *link = *bridge_next(b);
        end_bridge(all, b);
    }
}

static void retire(struct bridges *all, struct bridge *b)
{
    *bridge_next(b) = all->retired;
    all->retired = b;
}

void bridges_commit(void *bridges)
{
    struct bridges *all = bridges;
    struct generation former = all->now;
    reap(all);
    free(all->former_list);
    all->now = all->next;
    all->next = (struct generation){0};
    show(all);
    for (size_t i = 0; i < former.count; i++) {
        const char *name = bridge_plan_of(former.each[i])->bridge.name;
        struct bridge *heir = find(&all->now, name);
        if (heir == former.each[i])
            continue;
        log_info("bridge %s bridge=%s", heir ? "changed" : "removed", name);
        bridge_leave(former.each[i], heir ? 0 : all->leave_expiry_ms);
        retire(all, former.each[i]);
    }
    for (size_t i = 0; i < all->now.count; i++) {
        struct bridge *b = all->now.each[i];
        struct bridge *before = find(&former, bridge_plan_of(b)->bridge.name);
        if (before == b)
            continue;
        if (!before)
            log_info("bridge added bridge=%s", bridge_plan_of(b)->bridge.name);
        bridge_release(b, before);
    }
    all->former_list = former.list;
    former.list = NULL;
    generation_free(&former);
}

/* --- ending ------------------------------------------------------------------------------------- */

void bridges_stop(struct bridges *all)
{
    if (!all)
        return;
    for (struct bridge *b = all->retired; b; b = *bridge_next(b))
        bridge_stop(b);
    for (size_t i = 0; i < all->now.count; i++)
        bridge_stop(all->now.each[i]);
    for (size_t i = 0; i < all->now.count; i++)
        bridge_join(all->now.each[i]); /* each has joined its former */
    for (struct bridge *b = all->retired; b; b = *bridge_next(b))
        bridge_join(b);
}

void bridges_destroy(struct bridges *all)
{
    if (!all)
        return;
    atomic_store_explicit(&all->home.edge->facts->bridges, NULL, memory_order_release);
    for (size_t i = 0; i < all->now.count; i++)
        end_bridge(all, all->now.each[i]);
    reap(all);
    generation_free(&all->now);
    free(all->former_list);
    free((void *)all->spare);
    if (all->library)
        mosquitto_lib_cleanup();
    free(all);
}
