/* MIRROR is written before the first record and says of which log the rest is. Emptying is done in an order
 * that a crash cannot spoil: MIRROR says "emptying" first and "kept" last, and what lies between is done
 * again by the next start. */
#include "core/store/store_mirror.h"

#include "core/crc32c.h"
#include "core/store/folder.h"
#include "core/store/manifest.h"
#include "core/store/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIRROR_VERSION = 1, MIRROR_BYTES_MAX = 8 << 10 };

struct mirror_file {
    char source[MIRROR_BYTES_MAX]; /* the source as text: equal texts, equal sources */
    uint32_t generation; /* one more each time that it was spoilt */
    bool emptying;
};

static enum status refuse(struct buf *error, enum status st, const char *dir, const char *what)
{
    if (buf_printf(error, "%s: %s", dir, what) != ST_OK)
        buf_clear(error);
    return st;
}

static bool path_of(const char *dir, const char *name, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX;
}

static bool is_here(const char *dir, const char *name)
{
    char path[PATH_MAX];
    return path_of(dir, name, path) && access(path, F_OK) == 0;
}

bool mirror_is_here(const char *dir)
{
    return is_here(dir, "MIRROR");
}

/* --- MIRROR --- */

/* Every part is bounded: it fits. */
static void source_text(const struct mirror_source *s, char out[MIRROR_BYTES_MAX])
{
    size_t len = (size_t)snprintf(out, MIRROR_BYTES_MAX, "kind %.32s\nplace %.255s\nname %.255s\nlanes %u\n",
                                  s->kind, s->place, s->name, s->lane_count);
    assert(s->lane_count >= 1 && s->lane_count <= STORE_LANES_MAX);
    for (unsigned i = 0; i < s->lane_count; i++)
        len += (size_t)snprintf(out + len, MIRROR_BYTES_MAX - len, "head %016" PRIx64 "\n", s->heads[i]);
    assert(len < MIRROR_BYTES_MAX);
}

static enum status file_write(const char *dir, const struct mirror_file *f, struct buf *error)
{
    char path[PATH_MAX], text[MIRROR_BYTES_MAX + 256];
    if (!path_of(dir, "MIRROR", path))
        return refuse(error, ST_INVALID, dir, "the path is too long");
    int len = snprintf(text, sizeof text, "tidegate-mirror %d\nstate %s\ngeneration %" PRIu32 "\n%s",
                       MIRROR_VERSION, f->emptying ? "emptying" : "kept", f->generation, f->source);
    len +=
        snprintf(text + len, sizeof text - (size_t)len, "crc %08" PRIx32 "\n", crc32c(0, text, (size_t)len));
    struct iovec part = {text, (size_t)len};
    if (files_replace(store_files_system(), dir, path, &part, 1) < 0)
        return folder_refuse(error, dir, "write MIRROR");
    return ST_OK;
}

/* ST_CORRUPT: whose it is cannot be told. */
static enum status file_parse(char *text, size_t len, struct mirror_file *out)
{
    char *line = strstr(text, "\ncrc "), state[16];
    int version, used = 0;
    uint32_t crc;
    if (sscanf(text, "tidegate-mirror %d", &version) == 1 && version > MIRROR_VERSION)
        return ST_UNSUPPORTED;
    if (strlen(text) != len || !line || sscanf(line, "\ncrc %8" SCNx32 "\n", &crc) != 1 ||
        crc != crc32c(0, text, (size_t)(line + 1 - text)))
        return ST_CORRUPT;
    line[1] = '\0';
    if (sscanf(text, "tidegate-mirror %d\nstate %15s\ngeneration %" SCNu32 "\n%n", &version, state,
               &out->generation, &used) != 3 ||
        used == 0 || strlen(text + used) >= sizeof out->source)
        return ST_CORRUPT;
    out->emptying = strcmp(state, "kept") != 0;
    memcpy(out->source, text + used, strlen(text + used) + 1);
    return ST_OK;
}

static enum status file_read(const char *dir, struct mirror_file *out)
{
    char path[PATH_MAX], text[MIRROR_BYTES_MAX + 257];
    if (!path_of(dir, "MIRROR", path))
        return ST_IO;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ST_NOT_FOUND : ST_IO;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n < 0)
        return ST_IO;
    text[n] = '\0';
    return file_parse(text, (size_t)n, out);
}

static uint32_t epoch_of(const struct mirror_file *f)
{
    uint32_t epoch = crc32c(0, f->source, strlen(f->source));
    epoch = crc32c(epoch, &f->generation, sizeof f->generation);
    return epoch ? epoch : 1;
}

/* --- emptying --- */

static enum status empty_lane(const char *dir, unsigned lane, struct buf *error)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s/%u", dir, lane) >= (int)sizeof folder)
        return refuse(error, ST_INVALID, dir, "the path is too long");
    DIR *d = opendir(folder);
    if (!d)
        return errno == ENOENT ? ST_OK : folder_refuse(error, folder, "read the folder");
    enum status st = ST_OK;
    for (struct dirent *e; st == ST_OK && (e = readdir(d));) {
        if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0) < 0)
            st = folder_refuse(error, folder, "remove a file");
    }
    closedir(d);
    if (st == ST_OK && files_sync_folder(store_files_system(), folder) < 0)
        st = folder_refuse(error, folder, "sync the folder");
    return st;
}

static enum status empty(const char *dir, struct mirror_file *f, struct buf *error)
{
    char manifest[PATH_MAX];
    f->emptying = true;
    enum status st = file_write(dir, f, error);
    /* The lanes before MANIFEST: segments without one are a damaged log. */
    for (unsigned i = 0; i < STORE_LANES_MAX && st == ST_OK; i++)
        st = empty_lane(dir, i, error);
    if (st == ST_OK && path_of(dir, "MANIFEST", manifest) && unlink(manifest) < 0 && errno != ENOENT)
        st = folder_refuse(error, dir, "remove MANIFEST");
    if (st == ST_OK && files_sync_folder(store_files_system(), dir) < 0)
        st = folder_refuse(error, dir, "sync the folder");
    f->emptying = false;
    return st == ST_OK ? file_write(dir, f, error) : st;
}

static enum status prepare_locked(const char *dir, const struct mirror_source *source, bool spoilt,
                                  uint32_t *epoch, bool *kept, struct buf *error)
{
    struct mirror_file now = {0}, wanted = {0};
    source_text(source, wanted.source);
    enum status st = file_read(dir, &now);
    if (st == ST_UNSUPPORTED)
        return refuse(error, st, dir, "a newer version wrote this mirror; start that version");
    if (st == ST_IO)
        return folder_refuse(error, dir, "read MIRROR");
    if (st == ST_NOT_FOUND && is_here(dir, "MANIFEST"))
        return refuse(error, ST_INVALID, dir,
                      "this folder holds a log of its own (log.backend: embedded), which a mirror would "
                      "replace; set data.dir to an empty folder");
    bool same = st == ST_OK && strcmp(now.source, wanted.source) == 0;
    wanted.generation = same ? now.generation + spoilt : 0;
    *kept = same && !spoilt && !now.emptying && is_here(dir, "MANIFEST");
    st = *kept ? ST_OK : empty(dir, &wanted, error);
    *epoch = epoch_of(&wanted);
    return st;
}

enum status mirror_prepare(const char *dir, const struct mirror_source *source, bool spoilt, uint32_t *epoch,
                           bool *kept, struct buf *error)
{
    char parent[PATH_MAX];
    int lock = -1;
    if (!path_of(dir, "..", parent))
        return refuse(error, ST_INVALID, dir, "the path is too long");
    enum status st = folder_make(store_files_system(), dir, parent, error);
    if (st == ST_OK)
        st = folder_lock(dir, &lock, error);
    if (st != ST_OK)
        return st;
    st = prepare_locked(dir, source, spoilt, epoch, kept, error);
    close(lock);
    return st;
}

/* --- records on their way --- */

/* No place has this seed. */
static uint32_t wire_seed(void)
{
    return record_seed(0, 0);
}

uint64_t mirror_record_bytes(const struct msg *m)
{
    return m->flags & MSG_NOTE ? record_internal_bytes(msg_payload(m)) : record_stored_bytes(m);
}

void mirror_record_encode(const struct msg *m, uint8_t *out)
{
    if (m->flags & MSG_NOTE)
        record_encode_internal(msg_payload(m), 0, 0, wire_seed(), out);
    else
        record_encode_unplaced(m, wire_seed(), out);
}

enum status mirror_record_decode(struct slice bytes, uint32_t partition, uint64_t offset, uint64_t time_ms,
                                 struct msg **out)
{
    struct record r;
    struct msg *m;
    if (record_decode(bytes, wire_seed(), 0, &r) != ST_OK || r.offset != 0 || r.carried || r.time_ms != 0)
        return ST_CORRUPT;
    enum status st = record_to_msg(&r, partition, &m);
    if (st != ST_OK)
        return st == ST_NO_MEMORY ? st : ST_CORRUPT;
    m->offset = m->stored = offset;
    m->ts_ms = time_ms;
    *out = m;
    return ST_OK;
}

enum status mirror_hole(uint64_t offset, uint64_t time_ms, struct msg **out)
{
    static const uint16_t kind = HOLE_KIND;
    const struct slice none = {0};
    struct msg *m;
    enum status st = msg_create(none, none, none, slice_of(&kind, sizeof kind), &m);
    if (st != ST_OK)
        return st;
    m->flags = MSG_NOTE;
    m->offset = m->stored = offset;
    m->ts_ms = time_ms;
    *out = m;
    return ST_OK;
}
