/* A sorted array of names; a look-up is a binary search over what was found at start. */
#include "gateway/ws/files.h"

#include "core/logging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct files {
    struct file *items;
    size_t count, bytes;
};

static const struct {
    const char *ending, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".mjs", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".json", "application/json"},
    {".map", "application/json"},
    {".txt", "text/plain; charset=utf-8"},
    {".md", "text/markdown; charset=utf-8"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".jpg", "image/jpeg"},
    {".webp", "image/webp"},
    {".ico", "image/x-icon"},
    {".woff2", "font/woff2"},
    {".wasm", "application/wasm"},
    {".webmanifest", "application/manifest+json"},
};

static const char *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i].ending) == 0)
            return types[i].type;
    return "application/octet-stream";
}

static enum status complain(struct buf *error, enum status st, const char *what, const char *path,
                            const char *why)
{
    buf_clear(error);
    enum status told = buf_printf(error, "%s %s: %s", what, path, why);
    (void)told; /* a line that does not fit changes nothing about what happened */
    return st;
}

static enum status read_whole(int fd, uint8_t *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, to + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ST_IO; /* it has shrunk while we read */
        done += (size_t)n;
    }
    return ST_OK;
}

/* Adds an open file; the array's place is already there. */
static enum status add_file(struct files *f, int fd, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    uint8_t *memory = malloc(name_len + len + 1);
    if (!memory)
        return ST_NO_MEMORY;
    memcpy(memory, name, name_len);
    enum status st = read_whole(fd, memory + name_len, len);
    if (st != ST_OK) {
        free(memory);
        return st;
    }
    f->items[f->count++] = (struct file){
        .name = slice_of(memory, name_len), .bytes = slice_of(memory + name_len, len), .type = type_of(name)};
    f->bytes += len;
    return ST_OK;
}

static enum status load_folder(struct files *f, int folder_fd, const char *prefix, unsigned depth,
                               struct buf *error);

/* `path` is relative to the folder that is served. The name is not followed if it is a link. */
static enum status load_entry(struct files *f, int folder_fd, const char *name, const char *path,
                              unsigned depth, struct buf *error)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat about;
    enum status st = ST_OK;
    if (fd < 0 && errno == ELOOP)
        return ST_OK;
    if (fd < 0 || fstat(fd, &about) != 0) {
        st = complain(error, ST_IO, "cannot read", path, strerror(errno));
    } else if (S_ISDIR(about.st_mode)) {
        return load_folder(f, fd, path, depth + 1, error); /* takes the descriptor over */
    } else if (S_ISREG(about.st_mode)) {
        if (f->count == FILES_COUNT_MAX || about.st_size < 0 ||
            (uint64_t)about.st_size > FILES_BYTES_MAX - f->bytes)
            st = complain(error, ST_TOO_LARGE, "the folder of the demo is too large at", path,
                          "at most 512 files and 16 MiB");
        else if ((st = add_file(f, fd, (size_t)about.st_size, path)) != ST_OK)
            st = complain(error, st, "cannot read", path, status_name(st));
    }
    if (fd >= 0)
        close(fd);
    return st;
}

static enum status load_folder(struct files *f, int folder_fd, const char *prefix, unsigned depth,
                               struct buf *error)
{
    DIR *folder = depth > FILES_DEPTH_MAX ? NULL : fdopendir(folder_fd);
    if (!folder) {
        close(folder_fd);
        return complain(error, ST_IO, "cannot read", prefix, "too deep, or no folder");
    }
    enum status st = ST_OK;
    const struct dirent *entry;
    while (st == ST_OK && (entry = readdir(folder))) {
        char path[1024];
        if (entry->d_name[0] == '.')
            continue;
        int len = snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "/" : "", entry->d_name);
        if (len < 0 || (size_t)len >= sizeof path)
            st = complain(error, ST_TOO_LARGE, "too long a name", entry->d_name, "at most 1023 bytes");
        else
            st = load_entry(f, folder_fd, entry->d_name, path, depth, error);
    }
    closedir(folder);
    return st;
}

static int compare_names(struct slice a, struct slice b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_files(const void *left, const void *right)
{
    const struct file *a = left, *b = right;
    return compare_names(a->name, b->name);
}

enum status files_load(const char *folder, struct files **out, struct buf *error)
{
    struct files *f = calloc(1, sizeof *f);
    if (!f || !(f->items = calloc(FILES_COUNT_MAX, sizeof *f->items))) {
        free(f);
        return ST_NO_MEMORY;
    }
    enum status st = ST_OK;
    int fd = folder && *folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0)
        st = load_folder(f, fd, "", 0, error);
    else if (folder && *folder)
        log_warn("no demo pages: cannot open the folder path=%s error=\"%s\"", folder, strerror(errno));
    if (st != ST_OK) {
        files_free(f);
        return st;
    }
    qsort(f->items, f->count, sizeof *f->items, compare_files);
    *out = f;
    return ST_OK;
}

void files_free(struct files *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->count; i++)
        free((void *)(uintptr_t)f->items[i].name.data); /* one block: the name, then the bytes */
    free(f->items);
    free(f);
}

static const struct file *find_exactly(const struct files *f, struct slice name)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_names(f->items[middle].name, name);
        if (order == 0)
            return &f->items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct file *files_find(const struct files *f, struct slice name)
{
    char path[1024];
    static const char index[] = "index.html";
    if (name.len > 0 && name.data[name.len - 1] != '/')
        return find_exactly(f, name);
    if (name.len + sizeof index > sizeof path)
        return NULL;
    if (name.len > 0)
        memcpy(path, name.data, name.len);
    memcpy(path + name.len, index, sizeof index - 1);
    return find_exactly(f, slice_of(path, name.len + sizeof index - 1));
}
