/* Every step may be done twice: cutting to the same length, and the same MANIFEST. The order matters: a file
 * that kept its torn end while later frames vouch for what is above it would be rot at the next start. */
#include "core/store/onset.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t count_uncut(const struct shelf *shelves, unsigned lane_count)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < lane_count; i++)
        for (uint32_t k = 0; k < shelves[i].count; k++)
            count += shelves[i].volumes[k]->uncut;
    return count;
}

static enum status add_cut(struct onset *o, const struct shelf *s, const struct volume *v)
{
    char path[PATH_MAX];
    enum status st = shelf_path(s, v->base_offset, "seg", path, sizeof path);
    if (st != ST_OK)
        return st;
    struct onset_cut *cut = &o->cuts[o->cut_count];
    *cut = (struct onset_cut){.path = strdup(path), .bytes = v->data_end};
    if (!cut->path)
        return ST_NO_MEMORY;
    o->cut_count++;
    return ST_OK;
}

enum status onset_init(struct onset *o, const struct store_files *files, const char *dir, struct manifest *m,
                       const struct shelf *shelves, unsigned lane_count)
{
    *o = (struct onset){.files = files, .dir = dir, .manifest = m};
    atomic_init(&o->done, false);
    uint32_t count = count_uncut(shelves, lane_count);
    o->cuts = calloc(count + 1, sizeof *o->cuts);
    if (!o->cuts)
        return ST_NO_MEMORY;
    enum status st = ST_OK;
    for (unsigned i = 0; i < lane_count; i++)
        for (uint32_t k = 0; k < shelves[i].count && st == ST_OK; k++)
            if (shelves[i].volumes[k]->uncut)
                st = add_cut(o, &shelves[i], shelves[i].volumes[k]);
    return st;
}

void onset_deinit(struct onset *o)
{
    for (uint32_t i = 0; i < o->cut_count; i++)
        free(o->cuts[i].path);
    free(o->cuts);
    o->cuts = NULL;
    o->cut_count = 0;
}

static int cut_file(const struct store_files *files, const struct onset_cut *cut)
{
    int fd = files->open(files->ctx, cut->path, O_WRONLY, 0);
    if (fd < 0)
        return -1;
    int rc = files->truncate(files->ctx, fd, (off_t)cut->bytes);
    if (rc == 0)
        rc = files->sync(files->ctx, fd);
    int error = errno;
    close(fd);
    errno = error;
    return rc;
}

static enum status refuse(struct onset *o, const char *where)
{
    int error = errno;
    snprintf(o->where, sizeof o->where, "%s", where);
    errno = error;
    return error == ENOSPC || error == EDQUOT ? ST_AGAIN : ST_IO;
}

enum status onset_try(struct onset *o)
{
    if (onset_done(o))
        return ST_OK;
    for (; o->cuts_done < o->cut_count; o->cuts_done++)
        if (cut_file(o->files, &o->cuts[o->cuts_done]) < 0)
            return refuse(o, o->cuts[o->cuts_done].path);
    /* Removes the clean-stop mark, before anything is appended. */
    if (manifest_write(o->files, o->dir, o->manifest) < 0)
        return refuse(o, o->dir);
    atomic_store_explicit(&o->done, true, memory_order_release);
    return ST_OK;
}
