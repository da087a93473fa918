/* A segment goes in three steps that may be cut apart anywhere:
 *
 *   its owner has what it still needs of it in the log again, durably      (store.h, on_trim_wanted)
 *   MANIFEST: first = the base of the next one, durable                    from here on it is gone
 *   unlink .idx; unlink .seg, or the maker takes it for a new segment      a start finishes this (recovery.c)
 *
 * So the names on the disk never say less than the MANIFEST, and a file that is there although it is below
 * `first` is garbage, not damage. */
#include "core/store/retention.h"

#include "core/logging.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

/* A log of years that gets a limit must not keep the reads waiting until all of it has gone. */
enum { VOLUMES_A_TRIM = 8, LIVE_TIMES = 2, SEALING_MS = 10 };

uint64_t retention_due(const struct shelf *s, const struct store_options *o, uint64_t sealed_next,
                       uint64_t live_bytes, uint64_t wall_ms)
{
    uint64_t upto = 0, limit = o->retention_bytes;
    if (limit == 0)
        limit = UINT64_MAX;
    else if (limit < LIVE_TIMES * live_bytes)
        limit = LIVE_TIMES * live_bytes;
    /* The last one counts as its file, which has its size from the beginning. */
    uint64_t left = s->count == 0 ? 0 : s->bytes - s->volumes[s->count - 1]->data_end + o->segment_bytes;
    for (uint32_t i = 0; i + 1 < s->count && i < VOLUMES_A_TRIM; i++) {
        const struct volume *v = s->volumes[i];
        bool old = o->retention_ms > 0 && wall_ms >= v->last_time_ms + o->retention_ms;
        if ((left <= limit && !old) || v->next_offset > sealed_next)
            break;
        left -= v->data_end;
        upto = s->volumes[i + 1]->base_offset;
    }
    return upto;
}

uint64_t retention_due_ms(const struct shelf *s, const struct store_options *o, uint64_t wall_ms)
{
    if (o->retention_ms == 0 || s->count < 2)
        return UINT64_MAX;
    uint64_t due_ms = s->volumes[0]->last_time_ms + o->retention_ms;
    return due_ms > wall_ms ? due_ms - wall_ms : SEALING_MS; /* due: it waits for the writer to seal it */
}

uint32_t retention_count_below(const struct shelf *s, uint64_t upto)
{
    uint32_t count = 0;
    while (count + 1 < s->count && s->volumes[count + 1]->base_offset <= upto)
        count++;
    return count;
}

enum status retention_mark(struct manifest *m, const struct store_options *o, const struct shelf *s,
                           uint32_t count)
{
    uint64_t first = s->volumes[count]->base_offset, before = m->lanes[s->lane].first,
             end = m->lanes[s->lane].end;
    assert(count > 0 && first > before);
    m->lanes[s->lane].first = first;
    /* All below was sealed and synced: the log does not end before it, whatever becomes of the rest. */
    if (end < first)
        m->lanes[s->lane].end = first;
    if (manifest_write(s->files, o->dir, m) == 0)
        return ST_OK;
    log_warn("cannot write that log segments are to be removed, they stay for now path=%s/MANIFEST "
             "error=\"%s\"",
             o->dir, strerror(errno));
    m->lanes[s->lane].first = before;
    m->lanes[s->lane].end = end;
    return ST_IO;
}

static void remove_file(const struct shelf *s, struct maker *maker, uint64_t base_offset, const char *suffix)
{
    char path[PATH_MAX];
    if (shelf_path(s, base_offset, suffix, path, sizeof path) != ST_OK || (maker && maker_offer(maker, path)))
        return;
    if (s->files->unlink(s->files->ctx, path) < 0 && errno != ENOENT)
        log_warn("cannot remove a file of the log, the next start does path=%s error=\"%s\"", path,
                 strerror(errno));
}

void retention_remove(struct volume_cache *cache, struct shelf *s, struct maker *maker, uint32_t count)
{
    uint64_t bases[VOLUMES_A_TRIM];
    while (count > 0) {
        uint32_t n = count < VOLUMES_A_TRIM ? count : VOLUMES_A_TRIM;
        for (uint32_t i = 0; i < n; i++)
            bases[i] = s->volumes[i]->base_offset;
        /* First: a file that is used again must not be open here. */
        shelf_remove_first(cache, s, n);
        for (uint32_t i = 0; i < n; i++) {
            remove_file(s, NULL, bases[i], "idx");
            remove_file(s, maker, bases[i], "seg");
        }
        count -= n;
    }
}
