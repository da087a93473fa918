/* Read whole, sorted, searched by halving: a file of 100,000 users is some 13 MB and is read again only when
 * it has changed. */
#include "gateway/auth/password_file.h"

#include "core/utf8.h"
#include "session/principal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    struct scrypt scrypt;
    size_t len;
    uint8_t name[PRINCIPAL_USER_BYTES_MAX];
};

struct password_file {
    struct entry *entries; /* in the order of their names */
    size_t count, cap;
};

bool password_name_valid(struct slice name)
{
    if (name.len == 0 || name.len > PRINCIPAL_USER_BYTES_MAX || !utf8_valid(name))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < 0x20 || name.data[i] == 0x7f || name.data[i] == ':')
            return false;
    return name.data[0] != '#'; /* a remark */
}

/* --- the set ------------------------------------------------------------------------------------ */

static int order(struct slice a, const struct entry *e)
{
    size_t shorter = a.len < e->len ? a.len : e->len;
    int o = memcmp(a.data, e->name, shorter);
    return o != 0 ? o : a.len < e->len ? -1 : a.len > e->len;
}

/* Where it is or would be. */
static size_t place_of(const struct password_file *f, struct slice name, bool *found)
{
    size_t low = 0, high = f->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int o = order(name, &f->entries[middle]);
        if (o == 0) {
            *found = true;
            return middle;
        }
        if (o < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

const struct scrypt *password_file_find(const struct password_file *f, struct slice name)
{
    bool found;
    size_t at = name.len > 0 ? place_of(f, name, &found) : 0;
    return name.len > 0 && found ? &f->entries[at].scrypt : NULL;
}

void password_file_each(const struct password_file *f, void (*on_user)(void *ctx, struct slice name),
                        void *ctx)
{
    for (size_t i = 0; i < f->count; i++)
        on_user(ctx, slice_of(f->entries[i].name, f->entries[i].len));
}

enum status password_file_put(struct password_file *f, struct slice name, const struct scrypt *s)
{
    bool found;
    size_t at = place_of(f, name, &found);
    if (!found && f->count == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 16;
        struct entry *grown = realloc(f->entries, cap * sizeof *grown);
        if (!grown)
            return ST_NO_MEMORY;
        f->entries = grown;
        f->cap = cap;
    }
    if (!found) {
        memmove(f->entries + at + 1, f->entries + at, (f->count - at) * sizeof *f->entries);
        f->count++;
        f->entries[at].len = name.len;
        if (name.data)
            memcpy(f->entries[at].name, name.data, name.len);
    }
    f->entries[at].scrypt = *s;
    return ST_OK;
}

enum status password_file_remove(struct password_file *f, struct slice name)
{
    bool found;
    size_t at = place_of(f, name, &found);
    if (!found)
        return ST_NOT_FOUND;
    memmove(f->entries + at, f->entries + at + 1, (f->count - at - 1) * sizeof *f->entries);
    f->count--;
    return ST_OK;
}

void password_file_free(struct password_file *f)
{
    if (!f)
        return;
    free(f->entries);
    free(f);
}

/* --- the file ----------------------------------------------------------------------------------- */

static enum status complain(const char *what, const char *path, struct buf *error)
{
    int reason = errno;
    enum status st = buf_printf(error, "%s %s: %s", what, path, strerror(reason));
    (void)st;
    return reason == EACCES || reason == EPERM || reason == EROFS ? ST_FORBIDDEN
           : reason == ENOSPC                                     ? ST_NO_SPACE
                                                                  : ST_IO;
}

static enum status read_line(struct password_file *f, struct slice line)
{
    const uint8_t *colon = line.len > 0 ? memchr(line.data, ':', line.len) : NULL;
    struct scrypt s;
    if (line.len == 0 || line.data[0] == '#')
        return ST_OK;
    struct slice name = colon ? slice_of(line.data, (size_t)(colon - line.data)) : (struct slice){0};
    if (!password_name_valid(name) || scrypt_read(slice_from(line, name.len + 1), &s) != ST_OK ||
        password_file_find(f, name))
        return ST_INVALID;
    return password_file_put(f, name, &s);
}

static enum status read_lines(struct password_file *f, FILE *in, const char *path, struct buf *error)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    enum status st = ST_OK;
    for (unsigned number = 1; st == ST_OK && (len = getline(&line, &cap, in)) >= 0; number++) {
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            len--;
        st = read_line(f, slice_of(line, (size_t)len));
        if (st == ST_INVALID) {
            enum status told =
                buf_printf(error,
                           "%s:%u: is no \"name:$scrypt$...\" of a user that stands there once; mend it, "
                           "or make it anew by: tidegate user add NAME",
                           path, number);
            (void)told;
        }
    }
    free(line);
    if (st == ST_OK && ferror(in))
        st = complain("cannot read", path, error);
    return st;
}

enum status password_file_load(const char *path, struct password_file **out, struct buf *error)
{
    struct stat about;
    struct password_file *f = calloc(1, sizeof *f);
    if (!f)
        return ST_NO_MEMORY;
    FILE *in = fopen(path, "re");
    enum status st = ST_OK;
    if (!in && errno != ENOENT)
        st = complain("cannot read", path, error);
    if (in && (fstat(fileno(in), &about) != 0 || !S_ISREG(about.st_mode) ||
               about.st_size > PASSWORD_FILE_BYTES_MAX)) {
        st = buf_printf(error, "%s: is no file of at most 64 MiB", path);
        st = ST_INVALID;
    }
    if (in && st == ST_OK)
        st = read_lines(f, in, path, error);
    if (in)
        fclose(in);
    if (st != ST_OK) {
        password_file_free(f);
        return st;
    }
    *out = f;
    return ST_OK;
}

static enum status write_entries(const struct password_file *f, FILE *out)
{
    struct buf line;
    enum status st = ST_OK;
    buf_init(&line, 1024);
    for (size_t i = 0; st == ST_OK && i < f->count; i++) {
        buf_clear(&line);
        st = buf_printf(&line, "%.*s:", (int)f->entries[i].len, (const char *)f->entries[i].name);
        if (st == ST_OK)
            st = scrypt_write(&f->entries[i].scrypt, &line);
        if (st == ST_OK && fprintf(out, "%.*s\n", SLICE_ARG(buf_slice(&line))) < 0)
            st = ST_IO;
    }
    buf_deinit(&line);
    return st;
}

enum status password_file_save(const struct password_file *f, const char *path, struct buf *error)
{
    char fresh[PATH_MAX];
    snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid());
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!out)
        return complain("cannot write", fresh, error);
    enum status st = write_entries(f, out);
    if (st == ST_OK && (fflush(out) != 0 || fsync(fd) != 0))
        st = complain("cannot write", fresh, error);
    if (fclose(out) != 0 && st == ST_OK)
        st = complain("cannot write", fresh, error);
    if (st == ST_OK && rename(fresh, path) != 0)
        st = complain("cannot replace", path, error);
    if (st != ST_OK)
        (void)unlink(fresh);
    return st;
}
