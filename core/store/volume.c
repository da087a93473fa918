/* Descriptors and mappings are opened when a read needs them and given back when too many are open
 * (reader.c counts). An index that was lost or does not verify is made anew from its segment, on the thread
 * that needs it: a quarter of a second for 256 MiB, once. */
#include "core/store/volume.h"

#include "core/logging.h"
#include "core/store/segment.h"
#include "core/store/survey.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Gives back descriptor and mapping. */
static void volume_rest(struct volume *v)
{
    if (v->fd >= 0)
        close(v->fd);
    v->fd = -1;
    index_file_unmap(&v->file);
}

static void volume_free(struct volume *v)
{
    volume_rest(v);
    topic_index_destroy(v->index);
    free(v);
}

void shelf_deinit(struct shelf *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        volume_free(s->volumes[i]);
    free(s->volumes);
    vocabulary_destroy(s->words);
    memset(s, 0, sizeof *s);
}

enum status shelf_add(struct shelf *s, uint64_t base_offset, uint64_t previous_next, uint64_t segment_epoch,
                      struct volume **out)
{
    if (s->count == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 16;
        struct volume **volumes = realloc(s->volumes, cap * sizeof *volumes);
        if (!volumes)
            return ST_NO_MEMORY;
        s->volumes = volumes;
        s->cap = cap;
    }
    struct volume *v = malloc(sizeof *v);
    if (!v)
        return ST_NO_MEMORY;
    *v = (struct volume){.base_offset = base_offset,
                         .next_offset = base_offset,
                         .previous_next = previous_next,
                         .segment_epoch = segment_epoch,
                         .data_end = sizeof(struct segment_header),
                         .fd = -1};
    s->volumes[s->count++] = v;
    s->bytes += v->data_end;
    *out = v;
    return ST_OK;
}

void shelf_set_end(struct shelf *s, struct volume *v, uint64_t data_end)
{
    s->bytes += data_end - v->data_end;
    v->data_end = data_end;
}

static void cache_remove(struct volume_cache *cache, const struct volume *v)
{
    for (uint32_t i = 0; i < cache->count; i++)
        if (cache->open[i] == v)
            cache->open[i--] = cache->open[--cache->count];
}

void shelf_remove_first(struct volume_cache *cache, struct shelf *s, uint32_t count)
{
    assert(count <= s->count);
    for (uint32_t i = 0; i < count; i++) {
        s->bytes -= s->volumes[i]->data_end;
        cache_remove(cache, s->volumes[i]);
        volume_free(s->volumes[i]);
    }
    s->count -= count;
    memmove(s->volumes, s->volumes + count, s->count * sizeof(struct volume *));
    s->unwritten = s->unwritten > count ? s->unwritten - count : 0;
}

uint64_t shelf_trim_words(struct shelf *s)
{
    uint64_t bytes = s->words ? vocabulary_bytes(s->words) : 0;
    if (!s->words || !vocabulary_trimmed(s->words))
        return 0;
    for (uint32_t i = 0; i < s->count; i++)
        s->volumes[i]->known_from = s->volumes[i]->known_to = 0;
    return bytes;
}

uint32_t shelf_find(const struct shelf *s, uint64_t offset)
{
    uint32_t low = 0, high = s->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->volumes[middle]->next_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum status shelf_path(const struct shelf *s, uint64_t base_offset, const char *suffix, char *out,
                       size_t size)
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(base_offset, suffix, name);
    return snprintf(out, size, "%s/%s", s->folder, name) < (int)size ? ST_OK : ST_TOO_LARGE;
}

/* ST_IO: errno. */
static enum status volume_open(const struct shelf *s, struct volume *v)
{
    char path[PATH_MAX];
    if (v->fd >= 0)
        return ST_OK;
    enum status st = shelf_path(s, v->base_offset, "seg", path, sizeof path);
    if (st != ST_OK)
        return st;
    v->fd = open(path, O_RDONLY | O_CLOEXEC);
    return v->fd >= 0 ? ST_OK : ST_IO;
}

static enum status map_index(const struct shelf *s, struct volume *v)
{
    char path[PATH_MAX];
    enum status st = shelf_path(s, v->base_offset, "idx", path, sizeof path);
    if (st == ST_OK)
        st = index_file_map(path, !v->file_verified, &v->file);
    if (st != ST_OK)
        return st;
    const struct index_header *h = &v->file.header;
    if (h->segment_epoch != v->segment_epoch || h->base_offset != v->base_offset ||
        h->next_offset != v->next_offset || h->segment_bytes != v->data_end) {
        index_file_unmap(&v->file);
        return ST_CORRUPT;
    }
    v->file_verified = true;
    return ST_OK;
}

static enum status remake_index(const struct shelf *s, struct volume *v)
{
    struct survey_tools tools;
    struct survey survey;
    enum status st = volume_open(s, v);
    if (st != ST_OK)
        return st;
    survey_tools_init(&tools);
    tools.source.files = s->files;
    source_open(&tools.source, v->fd, v->data_end, NULL, NULL);
    st = survey_run(&tools, v->segment_epoch, v->base_offset, false, &survey);
    survey_tools_deinit(&tools);
    if (st != ST_OK)
        return st;
    if (survey.next_offset < v->next_offset)
        st = topic_index_add_bad(survey.index,
                                 (struct index_range){(uint32_t)(survey.next_offset - v->base_offset),
                                                      (uint32_t)(v->next_offset - v->base_offset)});
    v->index = survey.index;
    survey_deinit(&survey);
    return st;
}

/* The index in memory, or its file mapped, or made anew. */
static enum status volume_load(const struct shelf *s, struct volume *v)
{
    if (v->index || v->file.bytes)
        return ST_OK;
    if (v->lost)
        return ST_CORRUPT;
    enum status st = map_index(s, v);
    if (st == ST_OK)
        return ST_OK;
    log_warn("log index not usable, made anew lane=%u segment=%llu why=%s", s->lane,
             (unsigned long long)v->base_offset, status_name(st));
    st = remake_index(s, v);
    if (st == ST_OK) {
        if (volume_write_index(s, v) == ST_OK)
            st = map_index(s, v);
        /* Not written (a full disk): it stays in memory. */
        return v->index ? ST_OK : st;
    }
    log_error("log segment cannot be read lane=%u segment=%llu why=%s error=\"%s\"", s->lane,
              (unsigned long long)v->base_offset, status_name(st), strerror(errno));
    v->lost = true;
    return ST_CORRUPT;
}

static void cache_add(struct volume_cache *cache, struct volume *v)
{
    if (cache->count < VOLUMES_OPEN_MAX) {
        cache->open[cache->count++] = v;
        return;
    }
    uint32_t oldest = 0;
    for (uint32_t i = 1; i < cache->count; i++) {
        if (cache->open[i]->used < cache->open[oldest]->used)
            oldest = i;
    }
    volume_rest(cache->open[oldest]);
    cache->open[oldest]->used = 0;
    cache->open[oldest] = v;
}

enum status volume_use(struct volume_cache *cache, const struct shelf *s, struct volume *v)
{
    if (v->used == 0)
        cache_add(cache, v);
    v->used = ++cache->uses;
    enum status st = volume_load(s, v);
    if (st != ST_OK)
        return st;
    st = volume_open(s, v);
    /* The writer makes an active segment's file; until then all of it is in memory. */
    return st == ST_IO && errno == ENOENT && v->index ? ST_OK : st;
}

enum status volume_write_index(const struct shelf *s, struct volume *v)
{
    char path[PATH_MAX];
    enum status st = shelf_path(s, v->base_offset, "idx", path, sizeof path);
    if (st != ST_OK)
        return st;
    struct index_header h = {.lane = s->lane,
                             .base_offset = v->base_offset,
                             .segment_epoch = v->segment_epoch,
                             .next_offset = v->next_offset,
                             .segment_bytes = v->data_end,
                             .last_time_ms = v->last_time_ms};
    st = index_file_write(s->files, s->folder, path, &h, v->index);
    if (st != ST_OK) {
        v->write_refused = true;
        log_warn("cannot write a log index, kept in memory path=%s error=\"%s\"", path, strerror(errno));
        return st;
    }
    topic_index_destroy(v->index);
    v->index = NULL;
    v->file_verified = true; /* these are the bytes that were just written */
    return ST_OK;
}

void volume_source(const struct shelf *s, const struct volume *v, struct source *source)
{
    const struct frame *first = s->memory_first, *end;
    while (first && first->segment->header.segment_epoch != v->segment_epoch)
        first = first->reader_next;
    for (end = first; end && end->segment == first->segment;)
        end = end->reader_next;
    source->files = s->files;
    source_open(source, v->fd, v->data_end, first, end);
}

struct index_places volume_find(const struct volume *v, uint64_t topic_id)
{
    return v->index ? topic_index_find(v->index, topic_id) : index_file_find(&v->file, topic_id);
}

struct index_places volume_frames(const struct volume *v)
{
    return v->index ? topic_index_frames(v->index) : index_file_frames(&v->file);
}

void volume_frame_before(const struct volume *v, uint64_t offset, uint64_t *position, uint64_t *frame_offset)
{
    struct index_places frames = volume_frames(v);
    uint32_t low = index_places_below(frames, offset - v->base_offset + 1);
    *position = low ? frames.places[low - 1].place * 8ull : sizeof(struct segment_header);
    *frame_offset = v->base_offset + (low ? frames.places[low - 1].delta : 0);
}

static const struct index_range *volume_bad(const struct volume *v, uint32_t *count)
{
    return v->index ? topic_index_bad(v->index, count) : index_file_bad(&v->file, count);
}

bool volume_bad_from(const struct volume *v, uint64_t offset, uint64_t *from, uint64_t *to)
{
    uint32_t count;
    const struct index_range *bad = volume_bad(v, &count);
    for (uint32_t i = 0; i < count; i++) {
        if (v->base_offset + bad[i].to > offset) {
            *from = v->base_offset + bad[i].from;
            *to = v->base_offset + bad[i].to;
            return true;
        }
    }
    return false;
}

bool volume_bad_below(const struct volume *v, uint64_t offset, uint64_t *from, uint64_t *to)
{
    uint32_t count;
    const struct index_range *bad = volume_bad(v, &count);
    while (count-- > 0) {
        if (v->base_offset + bad[count].from < offset) {
            *from = v->base_offset + bad[count].from;
            *to = v->base_offset + bad[count].to;
            return true;
        }
    }
    return false;
}
