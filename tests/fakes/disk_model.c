#include "fakes/disk_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512, BLOCK_BYTES = 4096 };

enum op_kind { OP_CREATE, OP_WRITE, OP_SIZE, OP_SYNC, OP_SYNC_FOLDER, OP_RENAME, OP_UNLINK };

struct disk_op {
    enum op_kind kind;
    unsigned file;
    char name[DISK_NAME_BYTES]; /* OP_SYNC_FOLDER: "" or "<lane>" */
    char to[DISK_NAME_BYTES]; /* OP_RENAME */
    uint8_t *bytes; /* OP_WRITE; owned */
    size_t len; /* OP_WRITE; OP_SIZE: the size */
    size_t at;
};

/* Of the trace that is being taken. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk_trace *trace;
static char root[256];
static struct disk_name live[DISK_FILES_MAX]; /* what each name is now */
static unsigned live_count, live_files;

static void die(const char *what)
{
    fprintf(stderr, "disk_model: %s\n", what);
    abort();
}

/* --- names --- */

static struct disk_name *find(struct disk_name *names, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

static void set_name(struct disk_name *names, unsigned *count, const char *name, unsigned file)
{
    struct disk_name *n = find(names, *count, name);
    if (!n) {
        if (*count == DISK_FILES_MAX)
            die("too many names");
        n = &names[(*count)++];
        snprintf(n->name, sizeof n->name, "%s", name);
    }
    n->file = file;
}

static void drop_name(struct disk_name *names, unsigned *count, const char *name, unsigned file)
{
    struct disk_name *n = find(names, *count, name);
    if (n && n->file == file)
        *n = names[--*count];
}

static void apply_name(struct disk_name *names, unsigned *count, const struct disk_op *op)
{
    if (op->kind == OP_CREATE)
        set_name(names, count, op->name, op->file);
    else if (op->kind == OP_UNLINK || op->kind == OP_RENAME)
        drop_name(names, count, op->name, op->file);
    if (op->kind == OP_RENAME)
        set_name(names, count, op->to, op->file);
}

/* --- the port --- */

/* Below the folder, or NULL. */
static const char *inside(const char *path)
{
    size_t len = strlen(root);
    if (!trace || strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0'))
        return NULL;
    return path + len + (path[len] == '/');
}

static const char *inside_of_fd(int fd, char path[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0)
        die("a descriptor without a path");
    path[len] = '\0';
    return inside(path);
}

static struct disk_op *note(enum op_kind kind, const char *name, unsigned file)
{
    if (trace->count == trace->cap) {
        trace->cap = trace->cap ? trace->cap * 2 : 64;
        trace->ops = realloc(trace->ops, trace->cap * sizeof *trace->ops);
        if (!trace->ops)
            die("no memory");
    }
    struct disk_op *op = &trace->ops[trace->count++];
    *op = (struct disk_op){.kind = kind, .file = file};
    snprintf(op->name, sizeof op->name, "%s", name);
    return op;
}

/* The file behind a descriptor; NULL: none of the trace's (it has no name any more, say). */
static struct disk_name *live_of_fd(int fd)
{
    char path[PATH_MAX];
    const char *name = inside_of_fd(fd, path);
    return name ? find(live, live_count, name) : NULL;
}

static int model_open(void *ctx, const char *path, int flags, mode_t mode)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int fd = store_files_system()->open(NULL, path, flags, mode);
    const char *name = fd >= 0 && (flags & O_CREAT) ? inside(path) : NULL;
    struct disk_name *n = name ? find(live, live_count, name) : NULL;
    if (n && (flags & O_TRUNC)) {
        note(OP_SIZE, n->name, n->file);
    } else if (name && !n) {
        set_name(live, &live_count, name, live_files);
        note(OP_CREATE, name, live_files++);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static ssize_t model_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t position)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    struct disk_name *n = live_of_fd(fd);
    if (n) {
        struct disk_op *op = note(OP_WRITE, n->name, n->file);
        op->at = (size_t)position;
        for (int i = 0; i < count; i++)
            op->len += iov[i].iov_len;
        op->bytes = malloc(op->len + 1);
        size_t at = 0;
        for (int i = 0; i < count && op->bytes; at += iov[i++].iov_len)
            if (iov[i].iov_len > 0)
                memcpy(op->bytes + at, iov[i].iov_base, iov[i].iov_len);
    }
    ssize_t done = pwritev(fd, iov, count, position);
    pthread_mutex_unlock(&lock);
    return done;
}

static int model_sync(void *ctx, int fd)
{
    (void)ctx;
    struct stat stat;
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *name = inside_of_fd(fd, path);
    struct disk_name *n = name ? find(live, live_count, name) : NULL;
    if (n)
        note(OP_SYNC, n->name, n->file);
    else if (name && fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode))
        note(OP_SYNC_FOLDER, name, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

static int set_size(int fd, off_t length, bool only_grow)
{
    struct stat stat;
    pthread_mutex_lock(&lock);
    struct disk_name *n = live_of_fd(fd);
    bool same = only_grow && fstat(fd, &stat) == 0 && stat.st_size >= length;
    int rc = same ? 0 : ftruncate(fd, length);
    if (n && rc == 0 && !same)
        note(OP_SIZE, n->name, n->file)->len = (size_t)length;
    pthread_mutex_unlock(&lock);
    return rc;
}

static int model_truncate(void *ctx, int fd, off_t length)
{
    (void)ctx;
    return set_size(fd, length, false);
}

static int model_allocate(void *ctx, int fd, off_t length)
{
    (void)ctx;
    return set_size(fd, length, true);
}

static int model_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int rc = rename(from, to);
    const char *name = rc == 0 ? inside(from) : NULL, *target = rc == 0 ? inside(to) : NULL;
    struct disk_name *n = name && target ? find(live, live_count, name) : NULL;
    if (n) {
        struct disk_op *op = note(OP_RENAME, name, n->file);
        snprintf(op->to, sizeof op->to, "%s", target);
        apply_name(live, &live_count, op);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

static int model_unlink(void *ctx, const char *path)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int rc = unlink(path), error = errno;
    const char *name = rc == 0 ? inside(path) : NULL;
    struct disk_name *n = name ? find(live, live_count, name) : NULL;
    if (n)
        apply_name(live, &live_count, note(OP_UNLINK, name, n->file));
    pthread_mutex_unlock(&lock);
    errno = error;
    return rc;
}

const struct store_files *disk_port(void)
{
    static struct store_files port;
    if (!port.open) {
        port = *store_files_system();
        port.open = model_open;
        port.pwritev = model_pwritev;
        port.datasync = model_sync;
        port.sync = model_sync;
        port.truncate = model_truncate;
        port.allocate = model_allocate;
        port.rename = model_rename;
        port.unlink = model_unlink;
    }
    return &port;
}

void disk_trace_start(struct disk_trace *t, const struct disk *d, const char *dir)
{
    pthread_mutex_lock(&lock);
    *t = (struct disk_trace){0};
    trace = t;
    snprintf(root, sizeof root, "%s", dir);
    memcpy(live, d->names, sizeof live);
    live_count = d->name_count;
    live_files = d->file_count;
    pthread_mutex_unlock(&lock);
}

unsigned disk_trace_count(void)
{
    pthread_mutex_lock(&lock);
    unsigned count = trace ? trace->count : 0;
    pthread_mutex_unlock(&lock);
    return count;
}

void disk_trace_stop(void)
{
    pthread_mutex_lock(&lock);
    trace = NULL;
    pthread_mutex_unlock(&lock);
}

void disk_trace_free(struct disk_trace *t)
{
    for (unsigned i = 0; i < t->count; i++)
        free(t->ops[i].bytes);
    free(t->ops);
    *t = (struct disk_trace){0};
}

/* --- disks --- */

static void read_file(struct disk *d, const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat stat;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) < 0)
        die("cannot read the folder");
    if (d->file_count == DISK_FILES_MAX)
        die("too many files");
    size_t len = (size_t)stat.st_size;
    uint8_t *bytes = calloc(1, len + 1);
    if (!bytes || pread(fd, bytes, len, 0) != (ssize_t)len)
        die("cannot read a file");
    close(fd);
    d->files[d->file_count].bytes = bytes;
    d->files[d->file_count].len = len;
    set_name(d->names, &d->name_count, name, d->file_count++);
}

static void read_folder(struct disk *d, const char *dir, const char *below)
{
    char path[PATH_MAX], name[600];
    snprintf(path, sizeof path, "%s/%s", dir, below);
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        snprintf(name, sizeof name, "%s%s%s", below, *below ? "/" : "", e->d_name);
        if (e->d_name[0] == '.' || strcmp(name, "LOCK") == 0)
            continue;
        if (e->d_type == DT_DIR)
            read_folder(d, dir, name);
        else
            read_file(d, dir, name);
    }
    if (folder)
        closedir(folder);
}

void disk_read(struct disk *d, const char *dir)
{
    read_folder(d, dir, "");
}

static void write_file(const uint8_t *bytes, size_t len, const char *path)
{
    static const uint8_t zero[BLOCK_BYTES];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
        die("cannot write the folder");
    for (size_t at = 0; at < len; at += BLOCK_BYTES) {
        size_t part = len - at < BLOCK_BYTES ? len - at : BLOCK_BYTES;
        if (memcmp(bytes + at, zero, part) != 0 && pwrite(fd, bytes + at, part, (off_t)at) < 0)
            die("cannot write a file");
    }
    close(fd);
}

void disk_write(const struct disk *d, const char *dir, unsigned lanes)
{
    char path[PATH_MAX];
    mkdir(dir, 0750);
    for (unsigned i = 0; i < lanes; i++) {
        snprintf(path, sizeof path, "%s/%u", dir, i);
        mkdir(path, 0750);
    }
    for (unsigned i = 0; i < d->name_count; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, d->names[i].name);
        write_file(d->files[d->names[i].file].bytes, d->files[d->names[i].file].len, path);
    }
}

void disk_free(struct disk *d)
{
    for (unsigned i = 0; i < d->file_count; i++)
        free(d->files[i].bytes);
    *d = (struct disk){0};
}

/* --- the cut --- */

static void set_len(struct disk *d, unsigned file, size_t len)
{
    size_t old = d->files[file].len;
    uint8_t *bytes = realloc(d->files[file].bytes, len + 1);
    if (!bytes)
        die("no memory");
    if (len > old)
        memset(bytes + old, 0, len - old);
    d->files[file].bytes = bytes;
    d->files[file].len = len;
}

enum keep { KEEP_NONE, KEEP_ALL, KEEP_SOME };

static void apply_bytes(struct disk *d, const struct disk_op *op, enum keep keep)
{
    if (op->kind == OP_SIZE && (keep == KEEP_ALL || (keep == KEEP_SOME && rand() % 2)))
        set_len(d, op->file, op->len);
    if (op->kind != OP_WRITE || keep == KEEP_NONE)
        return;
    size_t end = op->at + op->len;
    for (size_t at = op->at, next; at < end; at = next) {
        next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        next = next < end ? next : end;
        if (keep == KEEP_SOME && rand() % 2)
            continue;
        if (next > d->files[op->file].len)
            set_len(d, op->file, next);
        memcpy(d->files[op->file].bytes + at, op->bytes + (at - op->at), next - at);
    }
}

static bool is_of_bytes(const struct disk_op *op)
{
    return op->kind == OP_WRITE || op->kind == OP_SIZE;
}

static bool is_of_names(const struct disk_op *op)
{
    return op->kind == OP_CREATE || op->kind == OP_RENAME || op->kind == OP_UNLINK;
}

static bool lies_in(const char *name, const char *folder)
{
    const char *slash = strchr(name, '/');
    size_t len = slash ? (size_t)(slash - name) : 0;
    return *name && strlen(folder) == len && strncmp(name, folder, len) == 0;
}

static bool touches(const struct disk_op *op, const char *folder)
{
    return lies_in(op->name, folder) || (op->kind == OP_RENAME && lies_in(op->to, folder));
}

/* The first call behind those before `at` whose bytes of `file` are durable. */
static unsigned synced_before(const struct disk_trace *t, unsigned at, unsigned file)
{
    for (unsigned i = at; i > 0; i--)
        if (t->ops[i - 1].kind == OP_SYNC && t->ops[i - 1].file == file)
            return i;
    return 0;
}

/* The same of names: all up to the last one that the sync of a folder covers. */
static unsigned names_before(const struct disk_trace *t, unsigned at)
{
    for (unsigned i = at; i > 0; i--)
        for (unsigned k = i; is_of_names(&t->ops[i - 1]) && k < at; k++)
            if (t->ops[k].kind == OP_SYNC_FOLDER && touches(&t->ops[i - 1], t->ops[k].name))
                return i;
    return 0;
}

static void copy_disk(const struct disk *d, const struct disk_trace *t, unsigned at, struct disk *out)
{
    *out = (struct disk){.file_count = d->file_count, .name_count = d->name_count};
    memcpy(out->names, d->names, sizeof out->names);
    for (unsigned i = 0; i < d->file_count; i++) {
        set_len(out, i, d->files[i].len);
        memcpy(out->files[i].bytes, d->files[i].bytes, d->files[i].len);
    }
    for (unsigned i = 0; i < at; i++)
        if (t->ops[i].kind == OP_CREATE)
            out->file_count = t->ops[i].file + 1;
    if (out->file_count > DISK_FILES_MAX)
        die("too many files");
    for (unsigned i = d->file_count; i < out->file_count; i++)
        set_len(out, i, 0);
}

void disk_cut(const struct disk *d, const struct disk_trace *t, unsigned at, unsigned mood, struct disk *out)
{
    static const enum keep of_bytes[] = {KEEP_NONE, KEEP_ALL, KEEP_NONE, KEEP_ALL, KEEP_SOME, KEEP_SOME};
    static const enum keep of_names[] = {KEEP_NONE, KEEP_ALL, KEEP_ALL, KEEP_NONE, KEEP_SOME, KEEP_ALL};
    copy_disk(d, t, at, out);
    unsigned names = names_before(t, at), kept = at;
    bool choice = of_names[mood] == KEEP_SOME && rand() % 2;
    if (of_names[mood] == KEEP_NONE)
        kept = names;
    else if (of_names[mood] == KEEP_SOME && !choice)
        kept = names + (unsigned)rand() % (at - names + 1);
    for (unsigned i = 0; i < at; i++) {
        const struct disk_op *op = &t->ops[i];
        if (is_of_bytes(op))
            apply_bytes(out, op, i < synced_before(t, at, op->file) ? KEEP_ALL : of_bytes[mood]);
        else if (is_of_names(op) && i < kept && (i < names || !choice || rand() % 2))
            apply_name(out->names, &out->name_count, op);
    }
}
