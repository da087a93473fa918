/* Four arrays behind a header, in the form in which memory has them, so a look-up is a binary search in
 * the mapping and an answer points into it. The file is never changed after its rename; a lost one is
 * made anew from its segment. A posting is not believed either: the record it points to proves its
 * offset and topic. */
#include "core/store/index_file.h"

#include "core/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = sizeof(struct index_header) };

static uint32_t header_crc(const struct index_header *h)
{
    return crc32c(0, h, offsetof(struct index_header, crc));
}

static uint64_t body_bytes(const struct index_header *h)
{
    return h->topic_count * (uint64_t)sizeof(struct index_topic) +
           ((uint64_t)h->posting_count + h->frame_count) * sizeof(struct index_place) +
           h->bad_count * (uint64_t)sizeof(struct index_range);
}

static enum status status_of_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT ? ST_NO_SPACE : ST_IO;
}

/* The postings of `x`: where they are, or, of a live index, in arrays of *made. */
static enum status sorted_postings(const struct topic_index *x, struct postings *made, struct postings *out)
{
    *out = topic_index_sorted(x);
    if (out->places)
        return ST_OK;
    made->topics = malloc(out->topic_count * sizeof *made->topics + 1);
    made->places = malloc(out->place_count * sizeof *made->places + 1);
    if (!made->topics || !made->places)
        return ST_NO_MEMORY;
    topic_index_export(x, made->topics, made->places);
    out->topics = made->topics;
    out->places = made->places;
    return ST_OK;
}

/* pwritev takes a non-const base and does not write through it. */
static struct iovec part_of(const void *bytes, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)bytes, len};
}

static int write_parts(const struct store_files *files, const char *folder, const char *path,
                       struct index_header *h, const struct topic_index *x, const struct postings *p)
{
    struct index_places frames = topic_index_frames(x);
    const struct index_range *bad = topic_index_bad(x, &h->bad_count);
    memcpy(h->magic, INDEX_MAGIC, sizeof h->magic);
    h->version = FORMAT_VERSION;
    h->topic_count = p->topic_count;
    h->posting_count = p->place_count;
    h->frame_count = frames.count;
    h->body_bytes = body_bytes(h);
    struct iovec parts[] = {part_of(h, HEADER_BYTES), part_of(p->topics, p->topic_count * sizeof *p->topics),
                            part_of(p->places, p->place_count * sizeof *p->places),
                            part_of(frames.places, frames.count * sizeof *frames.places),
                            part_of(bad, h->bad_count * sizeof *bad)};
    int count = sizeof parts / sizeof *parts;
    for (int i = 1; i < count; i++)
        h->body_crc = crc32c(h->body_crc, parts[i].iov_base, parts[i].iov_len);
    h->crc = header_crc(h);
    return files_replace(files, folder, path, parts, count);
}

enum status index_file_write(const struct store_files *files, const char *folder, const char *path,
                             const struct index_header *header, const struct topic_index *x)
{
    struct index_header h = *header;
    struct postings made = {0}, p;
    enum status st = sorted_postings(x, &made, &p);
    int error = 0;
    if (st == ST_OK && write_parts(files, folder, path, &h, x, &p) < 0) {
        st = status_of_errno();
        error = errno;
    }
    free(made.topics);
    free(made.places);
    errno = error;
    return st;
}

/* Opens and checks the header and the length. */
static enum status open_checked(const char *path, int *fd_out, struct index_header *h)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ST_NOT_FOUND : ST_IO;
    struct stat stat;
    bool sound = pread(fd, h, sizeof *h, 0) == (ssize_t)sizeof *h && fstat(fd, &stat) == 0 &&
                 memcmp(h->magic, INDEX_MAGIC, sizeof h->magic) == 0 && h->crc == header_crc(h) &&
                 h->version == FORMAT_VERSION && h->flags == 0 && h->body_bytes == body_bytes(h) &&
                 (uint64_t)stat.st_size == h->body_bytes + HEADER_BYTES && h->base_offset <= h->next_offset;
    if (!sound) {
        close(fd);
        return ST_CORRUPT;
    }
    *fd_out = fd;
    return ST_OK;
}

enum status index_file_peek(const char *path, struct index_header *out)
{
    int fd;
    enum status st = open_checked(path, &fd, out);
    if (st == ST_OK)
        close(fd);
    return st;
}

enum status index_file_map(const char *path, bool verify, struct index_file *out)
{
    int fd;
    struct index_file f = {0};
    enum status st = open_checked(path, &fd, &f.header);
    if (st != ST_OK)
        return st;
    f.len = f.header.body_bytes + HEADER_BYTES;
    void *bytes = mmap(NULL, f.len, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED)
        return ST_IO;
    f.bytes = bytes;
    if (verify && crc32c(0, f.bytes + HEADER_BYTES, f.header.body_bytes) != f.header.body_crc) {
        index_file_unmap(&f);
        return ST_CORRUPT;
    }
    *out = f;
    return ST_OK;
}

void index_file_unmap(struct index_file *f)
{
    if (f->bytes)
        munmap((void *)(uintptr_t)f->bytes, f->len);
    memset(f, 0, sizeof *f);
}

static const struct index_topic *topics_of(const struct index_file *f)
{
    return (const struct index_topic *)(const void *)(f->bytes + HEADER_BYTES);
}

static const struct index_place *postings_of(const struct index_file *f)
{
    return (const struct index_place *)(const void *)(topics_of(f) + f->header.topic_count);
}

struct index_places index_file_find(const struct index_file *f, uint64_t topic_id)
{
    const struct index_topic *topics = topics_of(f);
    uint32_t low = index_topics_below(topics, f->header.topic_count, topic_id);
    struct index_places none = {NULL, 0};
    if (low == f->header.topic_count || topics[low].topic_id != topic_id)
        return none;
    /* The CRC held when it was first used; a page that came back wrong since must not lead outside. */
    if (topics[low].first > f->header.posting_count ||
        topics[low].count > f->header.posting_count - topics[low].first)
        return none;
    return (struct index_places){postings_of(f) + topics[low].first, topics[low].count};
}

struct index_places index_file_frames(const struct index_file *f)
{
    return (struct index_places){postings_of(f) + f->header.posting_count, f->header.frame_count};
}

const struct index_range *index_file_bad(const struct index_file *f, uint32_t *count)
{
    struct index_places frames = index_file_frames(f);
    *count = f->header.bad_count;
    return (const struct index_range *)(const void *)(frames.places + frames.count);
}
