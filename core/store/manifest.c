#include "core/store/manifest.h"

#include "core/crc32c.h"
#include "core/store/format.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>

enum { MANIFEST_BYTES_MAX = 16 << 10 };

static bool path_of(const char *dir, char out[PATH_MAX])
{
    return snprintf(out, PATH_MAX, "%s/MANIFEST", dir) < PATH_MAX;
}

int manifest_write(const struct store_files *files, const char *dir, const struct manifest *m)
{
    char path[PATH_MAX], text[MANIFEST_BYTES_MAX];
    if (!path_of(dir, path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int len = snprintf(text, sizeof text,
                       "tidegate-log %d\nepoch %08" PRIx32 "\nlanes %" PRIu32 "\nincarnation %" PRIu64
                       "\nstate %s\n",
                       FORMAT_VERSION, m->epoch, m->lane_count, m->incarnation,
                       m->snapshot  ? "snapshot"
                       : m->stopped ? "stopped"
                                    : "running");
    for (uint32_t i = 0; i < m->lane_count; i++)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "lane %" PRIu32 " first %" PRIu64 " end %" PRIu64 " next %" PRIu64 "\n", i,
                        m->lanes[i].first, m->lanes[i].end, m->lanes[i].next);
    len +=
        snprintf(text + len, sizeof text - (size_t)len, "crc %08" PRIx32 "\n", crc32c(0, text, (size_t)len));
    struct iovec part = {text, (size_t)len};
    return files_replace(files, dir, path, &part, 1);
}

static enum status read_text(const char *dir, char text[MANIFEST_BYTES_MAX], size_t *len)
{
    char path[PATH_MAX];
    if (!path_of(dir, path))
        return ST_IO;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ST_NOT_FOUND : ST_IO;
    ssize_t n = read(fd, text, MANIFEST_BYTES_MAX - 1);
    close(fd);
    if (n < 0)
        return ST_IO;
    text[n] = '\0';
    *len = (size_t)n;
    return ST_OK;
}

/* The CRC's line is the last one and covers all before it. */
static bool crc_holds(const char *text, size_t len)
{
    const char *line = strstr(text, "\ncrc ");
    if (!line || strlen(text) != len)
        return false;
    line++;
    uint32_t crc;
    int used = 0;
    if (sscanf(line, "crc %8" SCNx32 "\n%n", &crc, &used) != 1 || line[used] != '\0')
        return false;
    return crc == crc32c(0, text, (size_t)(line - text));
}

enum status manifest_read(const char *dir, struct manifest *out)
{
    char text[MANIFEST_BYTES_MAX], state[16];
    size_t len;
    enum status st = read_text(dir, text, &len);
    if (st != ST_OK)
        return st;
    int version, used = 0;
    if (sscanf(text, "tidegate-log %d\n", &version) != 1 || !crc_holds(text, len))
        return ST_CORRUPT;
    if (version != FORMAT_VERSION)
        return ST_UNSUPPORTED;
    struct manifest m = {0};
    const char *p = text;
    if (sscanf(p,
               "tidegate-log %d epoch %8" SCNx32 " lanes %" SCNu32 " incarnation %" SCNu64 " state %15s\n%n",
               &version, &m.epoch, &m.lane_count, &m.incarnation, state, &used) != 5 ||
        m.lane_count < 1 || m.lane_count > STORE_LANES_MAX)
        return ST_CORRUPT;
    m.snapshot = strcmp(state, "snapshot") == 0;
    m.stopped = m.snapshot || strcmp(state, "stopped") == 0;
    for (uint32_t i = 0; i < m.lane_count; i++) {
        uint32_t lane;
        p += used;
        used = 0;
        if (sscanf(p, "lane %" SCNu32 " first %" SCNu64 " end %" SCNu64 " next %" SCNu64 "\n%n", &lane,
                   &m.lanes[i].first, &m.lanes[i].end, &m.lanes[i].next, &used) != 4 ||
            lane != i)
            return ST_CORRUPT;
    }
    *out = m;
    return ST_OK;
}
