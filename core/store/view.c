/* What is there, before it is read: the MANIFEST, the files of a lane, and the witness that tells rot from a
 * torn end (recovery.c: the same rule, but nothing is mended here).
 *
 * Beside a running node the end of the last file moves while it is read, and a frame may be seen half
 * written. So each file without an index is read twice. The first pass (here) finds where its last valid
 * frame ends and what was synced by then; the second (walk.c) reads no further than that. Whatever the first
 * pass has seen vouched for is completely in the file when the second comes by, so what does not verify then
 * is damage and no race. */
#include "core/store/view_private.h"

#include "core/store/segment.h"
#include "core/store/survey.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_TRIES = 5, HEADER_RETRY_US = 1000 };

static enum status refuse(struct buf *error, enum status st, const char *where, const char *what)
{
    if (buf_printf(error, "%s: %s", where, what) != ST_OK)
        buf_clear(error);
    return st;
}

static enum status refuse_errno(struct buf *error, const char *where, const char *what)
{
    enum status st = errno == EACCES || errno == EPERM ? ST_FORBIDDEN : errno == ENOTDIR ? ST_INVALID : ST_IO;
    if (buf_printf(error, "%s: cannot %s: %s", where, what, strerror(errno)) != ST_OK)
        buf_clear(error);
    return st;
}

bool view_path(const struct view *v, unsigned lane, uint64_t base_offset, const char *suffix,
               char out[PATH_MAX])
{
    char name[SEGMENT_NAME_BYTES];
    segment_name(base_offset, suffix, name);
    return snprintf(out, PATH_MAX, "%s/%u/%s", v->dir, lane, name) < PATH_MAX;
}

/* --- opening --- */

/* The lock is shared for an instant: store_open, which wants it alone, tries for longer than that. */
static bool is_held(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/LOCK", dir) >= (int)sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

static bool is_lane_name(const char *name)
{
    size_t len = strspn(name, "0123456789");
    return len > 0 && name[len] == '\0';
}

static bool has_lanes(const char *dir)
{
    bool found = false;
    DIR *folder = opendir(dir);
    if (!folder)
        return false;
    for (struct dirent *entry; !found && (entry = readdir(folder));)
        found = is_lane_name(entry->d_name);
    closedir(folder);
    return found;
}

enum status view_open(const char *dir, struct view **out, struct buf *error)
{
    struct view *v = calloc(1, sizeof *v);
    if (!v)
        return refuse(error, ST_NO_MEMORY, dir, "no memory");
    enum status st = ST_INVALID;
    if (strlen(dir) >= sizeof v->dir - 64) {
        free(v);
        return refuse(error, st, dir, "the path is too long");
    }
    memcpy(v->dir, dir, strlen(dir) + 1);
    v->running = is_held(dir);
    st = manifest_read(dir, &v->manifest);
    if (st == ST_NOT_FOUND && has_lanes(dir))
        st = refuse(error, ST_CORRUPT, dir, "MANIFEST is missing; restore it from a backup");
    else if (st == ST_NOT_FOUND)
        refuse(error, st, dir, "there is no log in this folder");
    else if (st == ST_CORRUPT)
        refuse(error, st, dir, "MANIFEST is damaged; restore it from a backup");
    else if (st == ST_UNSUPPORTED)
        refuse(error, st, dir, "a newer version wrote this log; use that version");
    else if (st != ST_OK)
        st = refuse_errno(error, dir, "read MANIFEST");
    if (st != ST_OK) {
        free(v);
        return st;
    }
    *out = v;
    return ST_OK;
}

void view_close(struct view *v)
{
    free(v);
}

uint32_t view_epoch(const struct view *v)
{
    return v->manifest.epoch;
}

unsigned view_lane_count(const struct view *v)
{
    return v->manifest.lane_count;
}

bool view_running(const struct view *v)
{
    return v->running;
}

bool view_stopped(const struct view *v)
{
    return v->manifest.stopped;
}

uint64_t view_first(const struct view *v, unsigned lane)
{
    return v->manifest.lanes[lane].first;
}

const char *view_dir(const struct view *v)
{
    return v->dir;
}

uint64_t view_first_now(struct view *v, unsigned lane)
{
    struct manifest m;
    if (v->running && manifest_read(v->dir, &m) == ST_OK && m.lane_count == v->manifest.lane_count &&
        m.lanes[lane].first > v->manifest.lanes[lane].first)
        v->manifest.lanes[lane].first = m.lanes[lane].first;
    return v->manifest.lanes[lane].first;
}

/* --- the files of a lane --- */

static int compare_items(const void *a, const void *b)
{
    const struct view_item *x = a, *y = b;
    return (x->base_offset > y->base_offset) - (x->base_offset < y->base_offset);
}

static enum status add_item(struct view_items *list, uint64_t base_offset)
{
    if (list->count == list->cap) {
        uint32_t cap = list->cap ? list->cap * 2 : 16;
        struct view_item *items = realloc(list->items, cap * sizeof *items);
        if (!items)
            return ST_NO_MEMORY;
        list->items = items;
        list->cap = cap;
    }
    list->items[list->count++] = (struct view_item){.base_offset = base_offset, .previous_next = base_offset};
    return ST_OK;
}

static enum status list_names(struct view *v, unsigned lane, struct view_items *list, struct buf *error)
{
    char folder[PATH_MAX];
    enum status st = ST_OK;
    if (snprintf(folder, sizeof folder, "%s/%u", v->dir, lane) >= (int)sizeof folder)
        return refuse(error, ST_INVALID, v->dir, "the path is too long");
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT)
        return ST_OK; /* then all of it is missing */
    if (!dir)
        return refuse_errno(error, folder, "read the folder");
    for (struct dirent *entry; st == ST_OK && (entry = readdir(dir));) {
        uint64_t base_offset;
        /* Below `first`: retention had said that it goes, and was cut short. */
        if (segment_name_parse(entry->d_name, "seg", &base_offset) && base_offset >= list->first)
            st = add_item(list, base_offset);
    }
    closedir(dir);
    if (list->count > 0)
        qsort(list->items, list->count, sizeof *list->items, compare_items);
    return st == ST_OK ? st : refuse(error, st, folder, "no memory");
}

static void read_header(const struct view *v, unsigned lane, int fd, struct view_item *item)
{
    uint8_t bytes[sizeof(struct segment_header) + sizeof(struct frame_header)] = {0};
    static const uint8_t zero[sizeof bytes];
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    struct segment_header h;
    struct frame_header frame;
    item->blank = n >= 0 && memcmp(bytes, zero, sizeof bytes) == 0;
    if (segment_header_decode(bytes, &h) == ST_OK) {
        item->foreign =
            h.lane != lane || h.base_offset != item->base_offset || h.log_epoch != v->manifest.epoch;
        item->segment_epoch = item->foreign ? 0 : h.segment_epoch;
        if (!item->foreign && h.previous_next < h.base_offset)
            item->previous_next = h.previous_next;
        return;
    }
    item->header_bad = !item->blank;
    item->reused = true;
    uint64_t room = item->file_bytes < sizeof h ? 0 : item->file_bytes - sizeof h;
    if (n == (ssize_t)sizeof bytes && frame_header_decode_any(bytes + sizeof h, room, &frame) == ST_OK &&
        frame.base_offset == item->base_offset)
        item->segment_epoch = frame.segment_epoch;
}

static void use_index(struct view_item *item, const struct index_header *h)
{
    item->segment_epoch = h->segment_epoch;
    item->indexed = true;
    item->next_offset = item->synced_below = h->next_offset;
    item->last_ms = h->last_time_ms;
    item->end = item->noise_end = item->file_bytes;
}

static enum status survey(int fd, struct survey_tools *tools, struct view_item *item)
{
    struct survey s;
    source_open(&tools->source, fd, item->segment_epoch ? item->file_bytes : sizeof(struct segment_header),
                NULL, NULL);
    enum status st = survey_run(tools, item->segment_epoch, item->base_offset, item->reused, &s);
    if (st != ST_OK)
        return st;
    item->end = s.data_end;
    item->noise_end = s.noise_end;
    item->next_offset = s.next_offset;
    item->synced_below = s.synced_below;
    item->last_ms = s.last_time_ms;
    topic_index_destroy(s.index);
    survey_deinit(&s);
    return ST_OK;
}

/* *there = false: the file has gone meanwhile. */
static enum status look_at(struct view *v, unsigned lane, struct survey_tools *tools, struct view_item *item,
                           bool *there, struct buf *error)
{
    char path[PATH_MAX];
    struct index_header index;
    struct stat stat;
    /* First the index: it comes after the file got its last length. */
    bool fits = view_path(v, lane, item->base_offset, "idx", path); /* view_open has seen to it */
    enum status has_index = index_file_peek(path, &index), st = ST_OK;
    fits = view_path(v, lane, item->base_offset, "seg", path) && fits;
    assert(fits);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *there = fd >= 0 || errno != ENOENT;
    if (fd < 0)
        return *there ? refuse_errno(error, path, "open it") : ST_OK;
    if (fstat(fd, &stat) < 0) {
        st = refuse_errno(error, path, "look at it");
        goto out_fd;
    }
    item->file_bytes = (uint64_t)stat.st_size;
    item->next_offset = item->base_offset;
    read_header(v, lane, fd, item);
    /* Perhaps it is just being written. */
    for (int tries = 0; v->running && item->header_bad && tries < HEADER_TRIES; tries++) {
        usleep(HEADER_RETRY_US);
        read_header(v, lane, fd, item);
    }
    bool agrees = has_index == ST_OK && index.lane == lane && index.base_offset == item->base_offset &&
                  index.segment_bytes == item->file_bytes &&
                  (item->segment_epoch == 0 || index.segment_epoch == item->segment_epoch);
    item->index_bad = has_index != ST_NOT_FOUND && !agrees;
    if (item->foreign)
        item->end = item->noise_end = 0;
    else if (agrees)
        use_index(item, &index);
    else if (survey(fd, tools, item) != ST_OK)
        st = refuse(error, ST_NO_MEMORY, path, "no memory");
out_fd:
    close(fd);
    return st;
}

enum status view_list(struct view *v, unsigned lane, struct survey_tools *tools, struct view_items *out,
                      struct buf *error)
{
    struct view_items list = {.first = v->manifest.lanes[lane].first,
                              .synced_below = v->manifest.lanes[lane].end};
    enum status st = list_names(v, lane, &list, error);
    for (uint32_t i = 0; i < list.count && st == ST_OK;) {
        struct view_item *item = &list.items[i];
        bool there;
        st = look_at(v, lane, tools, item, &there, error);
        if (!there) {
            memmove(item, item + 1, (--list.count - i) * sizeof *item);
            continue;
        }
        if (item->synced_below > list.synced_below)
            list.synced_below = item->synced_below;
        i++;
    }
    if (st != ST_OK) {
        free(list.items);
        return st;
    }
    list.first = view_first_now(v, lane);
    *out = list;
    return ST_OK;
}
