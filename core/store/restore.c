/* Positions name the epoch of the log. A log that goes on from a snapshot gives its next positions to other
 * messages than the log that it was taken from; so it is another log, with an epoch of its own, and whoever
 * holds a position of the old one is told that it is gone. The headers of the copied segments get the new
 * epoch (log_epoch is under the header's CRC only): a file of the old log that is put beside them later is
 * refused, as any strange file.
 *
 * Order: the segments, each synced; their folders; then MANIFEST, under another name while the copy is
 * checked. What a cut leaves has no MANIFEST beside its segments and is no log. */
#include "core/store/restore.h"

#include "core/crc32c.h"
#include "core/store/folder.h"
#include "core/store/segment.h"
#include "core/store/view_private.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_BYTES = 1 << 20, WALK_DESCRIPTORS = 16 };

struct restoring {
    const struct store_files *files;
    const struct view *from;
    const char *dir;
    uint32_t epoch;
    struct restore_report *report;
    struct buf *error;
    uint8_t *bytes; /* COPY_BYTES */
    bool made; /* the folder was not there */
};

static enum status refuse(struct restoring *r, enum status st, const char *where, const char *what)
{
    if (buf_printf(r->error, "%s: %s", where, what) != ST_OK)
        buf_clear(r->error);
    return st;
}

/* --- the folder --- */

/* What a new file system has at its top is in nobody's way. */
static bool is_nothing(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0;
}

static enum status make_empty_folder(struct restoring *r)
{
    char parent[PATH_MAX];
    if (snprintf(parent, sizeof parent, "%s/..", r->dir) >= (int)sizeof parent - 64)
        return refuse(r, ST_INVALID, r->dir, "the path is too long");
    r->made = access(r->dir, F_OK) < 0;
    enum status st = folder_make(r->files, r->dir, parent, r->error);
    DIR *dir = st == ST_OK ? opendir(r->dir) : NULL;
    if (!dir)
        return st != ST_OK ? st : folder_refuse(r->error, r->dir, "read the folder");
    for (struct dirent *entry; st == ST_OK && (entry = readdir(dir));)
        if (!is_nothing(entry->d_name))
            st = refuse(r, ST_EXISTS, r->dir, "the folder is not empty; restore into a new one");
    closedir(dir);
    return st;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* What `build` has made, and the folder when it was not there before. */
static void remove_built(const struct restoring *r)
{
    char path[PATH_MAX + 64];
    for (unsigned i = 0; i < r->from->manifest.lane_count; i++) {
        snprintf(path, sizeof path, "%s/%u", r->dir, i);
        nftw(path, remove_one, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
    }
    snprintf(path, sizeof path, "%s/MANIFEST", r->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/MANIFEST.tmp", r->dir);
    unlink(path);
    if (r->made)
        rmdir(r->dir);
}

/* --- a file --- */

/* The first bytes of a segment whose header verifies get the new epoch. */
static void renew_header(const struct restoring *r, size_t len)
{
    struct segment_header h;
    if (len < sizeof h || segment_header_decode(r->bytes, &h) != ST_OK)
        return; /* damaged: the walk over the copy says so */
    h.log_epoch = r->epoch;
    h.crc = crc32c(0, &h, offsetof(struct segment_header, crc));
    memcpy(r->bytes, &h, sizeof h);
}

static enum status copy_bytes(struct restoring *r, int from, int to, bool segment, const char *path)
{
    uint64_t at = 0;
    ssize_t n;
    while ((n = pread(from, r->bytes, COPY_BYTES, (off_t)at)) > 0) {
        if (segment && at == 0)
            renew_header(r, (size_t)n);
        struct iovec iov = {r->bytes, (size_t)n};
        if (files_write_all(r->files, to, &iov, 1, (off_t)at) < 0)
            return folder_refuse(r->error, path, "write it");
        at += (uint64_t)n;
    }
    r->report->bytes += at;
    return n < 0 ? folder_refuse(r->error, path, "read what is copied to it") : ST_OK;
}

static enum status copy_file(struct restoring *r, unsigned lane, const char *name, bool segment)
{
    char source[PATH_MAX + 64], path[PATH_MAX + 64];
    snprintf(source, sizeof source, "%s/%u/%s", r->from->dir, lane, name);
    snprintf(path, sizeof path, "%s/%u/%s", r->dir, lane, name);
    int from = open(source, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return folder_refuse(r->error, source, "open it");
    int to = r->files->open(r->files->ctx, path, O_WRONLY | O_CREAT | O_EXCL, 0640);
    enum status st = to < 0 ? folder_refuse(r->error, path, "make it") : ST_OK;
    if (st == ST_OK)
        st = copy_bytes(r, from, to, segment, path);
    if (st == ST_OK && r->files->sync(r->files->ctx, to) < 0)
        st = folder_refuse(r->error, path, "sync it");
    if (to >= 0)
        close(to);
    close(from);
    r->report->segments += segment;
    return st;
}

static enum status copy_lane(struct restoring *r, unsigned lane)
{
    char source[PATH_MAX + 64], path[PATH_MAX + 64];
    uint64_t base_offset;
    snprintf(source, sizeof source, "%s/%u", r->from->dir, lane);
    snprintf(path, sizeof path, "%s/%u", r->dir, lane);
    enum status st = folder_make(r->files, path, r->dir, r->error);
    DIR *dir = st == ST_OK ? opendir(source) : NULL;
    if (!dir)
        return st != ST_OK ? st : folder_refuse(r->error, source, "read the folder");
    for (struct dirent *entry; st == ST_OK && (entry = readdir(dir));) {
        bool segment = segment_name_parse(entry->d_name, "seg", &base_offset);
        if (segment || segment_name_parse(entry->d_name, "idx", &base_offset))
            st = copy_file(r, lane, entry->d_name, segment);
    }
    closedir(dir);
    if (st == ST_OK && files_sync_folder(r->files, path) < 0)
        st = folder_refuse(r->error, path, "sync the folder");
    return st;
}

/* --- checking --- */

static enum status check_lane(struct restoring *r, struct view *copy, unsigned lane)
{
    struct walk *w;
    enum status st = walk_open(copy, lane, &(struct walk_options){.check_indexes = true}, &w, r->error);
    if (st != ST_OK)
        return st;
    for (enum walk_event e; st == ST_OK && (e = walk_next(w)) != WALK_END;) {
        if (e == WALK_FAILED)
            st = ST_NO_MEMORY;
        else if (e == WALK_FAULT)
            st = refuse(r, ST_CORRUPT, r->from->dir,
                        "the snapshot is damaged: see tidegate log verify; nothing was restored");
        else if (e == WALK_SEGMENT)
            r->report->messages += walk_look(w)->segment.messages;
    }
    walk_close(w);
    return st;
}

/* `m` is what will be its MANIFEST. */
static enum status check(struct restoring *r, const struct manifest *m)
{
    struct view copy = {.manifest = *m};
    enum status st = ST_OK;
    snprintf(copy.dir, sizeof copy.dir, "%s", r->dir);
    for (unsigned i = 0; i < m->lane_count && st == ST_OK; i++)
        st = check_lane(r, &copy, i);
    return st;
}

/* --- the whole --- */

static enum status new_epoch(struct restoring *r)
{
    r->epoch = r->from->manifest.epoch;
    while (r->epoch == r->from->manifest.epoch || r->epoch == 0)
        if (getrandom(&r->epoch, sizeof r->epoch, 0) != (ssize_t)sizeof r->epoch)
            return folder_refuse(r->error, r->dir, "get random numbers");
    return ST_OK;
}

static enum status build(struct restoring *r)
{
    struct manifest m = r->from->manifest;
    enum status st = new_epoch(r);
    for (unsigned i = 0; i < m.lane_count && st == ST_OK; i++)
        st = copy_lane(r, i);
    m.epoch = r->epoch;
    m.snapshot = false;
    if (st == ST_OK)
        st = check(r, &m);
    if (st == ST_OK && manifest_write(r->files, r->dir, &m) < 0)
        st = folder_refuse(r->error, r->dir, "write MANIFEST");
    return st;
}

enum status restore_run(const struct store_files *files, struct view *snapshot, const char *dir,
                        struct restore_report *out, struct buf *error)
{
    struct restoring r = {.files = files, .from = snapshot, .dir = dir, .report = out, .error = error};
    *out = (struct restore_report){0};
    if (!snapshot->manifest.stopped || snapshot->running)
        return refuse(&r, ST_INVALID, snapshot->dir, "is a log in use or one that crashed, not a snapshot");
    enum status st = make_empty_folder(&r);
    if (st != ST_OK)
        return st;
    r.bytes = malloc(COPY_BYTES);
    st = r.bytes ? build(&r) : ST_NO_MEMORY;
    free(r.bytes);
    if (st != ST_OK)
        remove_built(&r);
    out->epoch = r.epoch;
    return st;
}
