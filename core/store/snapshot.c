/* Everything is built in <dir>/snapshots/<name>.tmp and gets its name by one rename, when all below it is
 * durable: so a name without ".tmp" is a whole snapshot, whatever was cut. What a cut has left is removed by
 * the next snapshot. */
#include "core/store/snapshot.h"

#include "core/store/folder.h"
#include "core/store/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_ROOM = PATH_MAX + 128, WALK_DESCRIPTORS = 16 };

struct making {
    const struct store_files *files;
    const char *dir;
    char parent[PATH_ROOM]; /* <dir>/snapshots */
    char temporary[PATH_ROOM];
    char final[PATH_ROOM];
    struct snapshot_report *report;
    struct buf *error;
};

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool snapshot_name_valid(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > SNAPSHOT_NAME_BYTES_MAX || name[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_name_byte(name[i]))
            return false;
    return true;
}

void snapshot_name_of_time(uint64_t wall_ms, char out[SNAPSHOT_NAME_BYTES_MAX + 1])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    gmtime_r(&seconds, &tm);
    strftime(out, SNAPSHOT_NAME_BYTES_MAX + 1, "%Y%m%dT%H%M%SZ", &tm);
}

static enum status refuse(struct making *mk, enum status st, const char *where, const char *what)
{
    if (buf_printf(mk->error, "%s: %s", where, what) != ST_OK)
        buf_clear(mk->error);
    return st;
}

/* --- the folder of all snapshots --- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

static bool is_unfinished(const char *name)
{
    size_t len = strlen(name);
    return len > 4 && strcmp(name + len - 4, ".tmp") == 0;
}

/* Removes what cuts have left, counts the rest. */
static enum status look_at_others(struct making *mk, uint64_t snapshots_max)
{
    char path[PATH_ROOM + NAME_MAX + 1];
    uint64_t count = 0;
    DIR *dir = opendir(mk->parent);
    if (!dir)
        return folder_refuse(mk->error, mk->parent, "read the folder");
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", mk->parent, entry->d_name);
        if (is_unfinished(entry->d_name))
            remove_tree(path);
        else
            count++;
    }
    closedir(dir);
    struct stat st;
    if (lstat(mk->final, &st) == 0)
        return refuse(mk, ST_EXISTS, mk->final, "there is a snapshot of this name");
    if (count >= snapshots_max)
        return refuse(mk, ST_QUOTA, mk->parent,
                      "there are log.snapshots_max snapshots; remove one (rm -r) or raise it");
    return ST_OK;
}

/* --- a lane --- */

/* One more name for a file of the log. False: errno. */
static bool link_file(struct making *mk, unsigned lane, const char *name)
{
    char from[PATH_ROOM], to[PATH_ROOM + 64];
    if (snprintf(from, sizeof from, "%s/%u/%s", mk->dir, lane, name) >= (int)sizeof from)
        return false;
    snprintf(to, sizeof to, "%s/%u/%s", mk->temporary, lane, name);
    return link(from, to) == 0;
}

static enum status link_segment(struct making *mk, unsigned lane, uint64_t base_offset)
{
    char name[SEGMENT_NAME_BYTES], path[PATH_ROOM + 64];
    struct stat st;
    segment_name(base_offset, "seg", name);
    snprintf(path, sizeof path, "%s/%u/%s", mk->temporary, lane, name);
    if (!link_file(mk, lane, name) || lstat(path, &st) < 0)
        return folder_refuse(mk->error, path, "link a segment to it");
    mk->report->segments++;
    mk->report->bytes += (uint64_t)st.st_size;
    segment_name(base_offset, "idx", name);
    /* It may not be written yet: an index can always be made anew. */
    if (!link_file(mk, lane, name) && errno != ENOENT)
        return folder_refuse(mk->error, path, "link an index beside it");
    return ST_OK;
}

static enum status link_lane(struct making *mk, unsigned lane, uint64_t first, uint64_t end)
{
    char folder[PATH_ROOM], to[PATH_ROOM + 64];
    enum status st = ST_OK;
    snprintf(to, sizeof to, "%s/%u", mk->temporary, lane);
    if (mkdir(to, 0750) < 0)
        return folder_refuse(mk->error, to, "make this folder");
    if (snprintf(folder, sizeof folder, "%s/%u", mk->dir, lane) >= (int)sizeof folder)
        return refuse(mk, ST_INVALID, mk->dir, "the path is too long");
    DIR *dir = opendir(folder);
    if (!dir)
        return folder_refuse(mk->error, folder, "read the folder");
    for (struct dirent *entry; st == ST_OK && (entry = readdir(dir));) {
        uint64_t base_offset;
        if (segment_name_parse(entry->d_name, "seg", &base_offset) && base_offset >= first &&
            base_offset < end)
            st = link_segment(mk, lane, base_offset);
    }
    closedir(dir);
    if (st == ST_OK && files_sync_folder(mk->files, to) < 0)
        st = folder_refuse(mk->error, to, "sync the folder");
    return st;
}

/* --- the whole --- */

static enum status build(struct making *mk, const struct manifest *m)
{
    enum status st = ST_OK;
    if (mkdir(mk->temporary, 0750) < 0)
        return folder_refuse(mk->error, mk->temporary, "make this folder");
    for (unsigned i = 0; i < m->lane_count && st == ST_OK; i++) {
        st = link_lane(mk, i, m->lanes[i].first, m->lanes[i].end);
        mk->report->next[i] = m->lanes[i].end;
    }
    /* It syncs the folder too, and with it the names of the lanes. */
    if (st == ST_OK && manifest_write(mk->files, mk->temporary, m) < 0)
        st = folder_refuse(mk->error, mk->temporary, "write MANIFEST");
    if (st == ST_OK && mk->files->rename(mk->files->ctx, mk->temporary, mk->final) < 0)
        st = folder_refuse(mk->error, mk->final, "give the snapshot its name");
    if (st != ST_OK) {
        remove_tree(mk->temporary);
        return st;
    }
    if (files_sync_folder(mk->files, mk->parent) == 0)
        return ST_OK;
    st = folder_refuse(mk->error, mk->parent, "sync the folder");
    remove_tree(mk->final);
    return st;
}

enum status snapshot_make(const struct store_files *files, const char *dir, const char *name,
                          uint64_t snapshots_max, const struct manifest *m, struct snapshot_report *out,
                          struct buf *error)
{
    struct making mk = {.files = files, .dir = dir, .report = out, .error = error};
    *out = (struct snapshot_report){.lane_count = m->lane_count};
    if (!snapshot_name_valid(name))
        return refuse(&mk, ST_INVALID, "the name of a snapshot",
                      "must be 1 to 64 letters, digits, '-' and '_', and not begin with '-'");
    if (strlen(dir) + 2 * SNAPSHOT_NAME_BYTES_MAX > sizeof out->path - 64)
        return refuse(&mk, ST_INVALID, dir, "the path is too long");
    snprintf(mk.parent, sizeof mk.parent, "%s/snapshots", dir);
    snprintf(mk.temporary, sizeof mk.temporary, "%s/snapshots/%s.tmp", dir, name);
    snprintf(mk.final, sizeof mk.final, "%s/snapshots/%s", dir, name);
    snprintf(out->path, sizeof out->path, "%s/snapshots/%s", dir, name);
    enum status st = folder_make(files, mk.parent, dir, error);
    if (st == ST_OK)
        st = look_at_others(&mk, snapshots_max);
    return st == ST_OK ? build(&mk, m) : st;
}
