#include "core/store/space.h"

#include "core/logging.h"
#include "core/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

/* A level is left this far below where it begins: else a disk at the border would flap. */
enum { LEAVE_PERCENT = 2, NEVER_PERCENT = 100, BALLAST_ROOM_TIMES = 2 };

/* --- levels --- */

/* Does a level that begins at `percent` hold? 0 and 100: it never does. */
static bool holds(uint64_t percent, bool before, uint64_t used_percent)
{
    if (percent == 0 || percent >= NEVER_PERCENT)
        return false;
    uint64_t from = before && percent > LEAVE_PERCENT ? percent - LEAVE_PERCENT : percent;
    return used_percent >= from;
}

static void tell_level(const struct space *s, enum space_level level, uint64_t used_percent,
                       uint64_t free_bytes)
{
    unsigned long long used = used_percent, left = free_bytes, refuse = s->options->disk_refuse_percent;
    const char *dir = s->options->dir;
    if (level == SPACE_REFUSE)
        log_error(
            "the log's disk is nearly full: publishes are refused until there is room used_percent=%llu "
            "free_bytes=%llu path=%s; make room, or set log.retention_bytes",
            used, left, dir);
    else if (level == SPACE_LOW && s->level == SPACE_OK)
        log_warn("the log's disk is filling up used_percent=%llu refuse_percent=%llu free_bytes=%llu path=%s",
                 used, refuse, left, dir);
    else
        log_warn("the log's disk has more room again used_percent=%llu free_bytes=%llu path=%s", used, left,
                 dir);
}

static void set_level(struct space *s, uint64_t used_percent, uint64_t free_bytes)
{
    enum space_level level = SPACE_OK;
    if (holds(s->options->disk_refuse_percent, s->level == SPACE_REFUSE, used_percent))
        level = SPACE_REFUSE;
    else if (holds(s->options->disk_warn_percent, s->level != SPACE_OK, used_percent))
        level = SPACE_LOW;
    metric_add(s->metrics, M_LOG_DISK_FREE_BYTES, free_bytes - s->free_bytes);
    s->free_bytes = free_bytes;
    if (level == s->level)
        return;
    tell_level(s, level, used_percent, free_bytes);
    metric_add(s->metrics, M_LOG_DISK_LEVEL, (uint64_t)level - (uint64_t)s->level);
    s->level = level;
    atomic_store_explicit(s->refuse, level == SPACE_REFUSE, memory_order_relaxed);
}

/* --- ballast --- */

static void ballast_path(const struct space *s, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/ballast", s->options->dir);
}

static bool make_ballast(struct space *s)
{
    char path[PATH_MAX];
    ballast_path(s, path);
    int fd = s->files->open(s->files->ctx, path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (fd < 0)
        return false;
    int rc = s->files->allocate(s->files->ctx, fd, (off_t)s->options->ballast_bytes), error = errno;
    close(fd);
    if (rc < 0)
        s->files->unlink(s->files->ctx, path);
    errno = error;
    return rc == 0;
}

/* Of an earlier process, and of this size. */
static bool find_ballast(const struct space *s)
{
    char path[PATH_MAX];
    struct stat st;
    ballast_path(s, path);
    if (stat(path, &st) < 0)
        return false;
    if (s->options->ballast_bytes > 0 && (uint64_t)st.st_size == s->options->ballast_bytes)
        return true;
    s->files->unlink(s->files->ctx, path);
    return false;
}

void space_give_ballast(struct space *s)
{
    char path[PATH_MAX];
    if (!s->ballast_held)
        return;
    ballast_path(s, path);
    s->ballast_held = false;
    atomic_store_explicit(&s->ballast_given, true, memory_order_relaxed);
    if (s->files->unlink(s->files->ctx, path) < 0) {
        log_warn("cannot give up the ballast path=%s error=\"%s\"", path, strerror(errno));
        return;
    }
    metric_add(s->metrics, M_LOG_BALLAST_GIVEN, 1);
    log_warn("the log's disk is full: the ballast was given up, so that retention can go on path=%s "
             "bytes=%llu; make "
             "room, or set log.retention_bytes",
             path, (unsigned long long)s->options->ballast_bytes);
}

bool space_take_ballast_back(struct space *s)
{
    if (!atomic_load_explicit(&s->ballast_given, memory_order_relaxed))
        return true;
    if (!make_ballast(s))
        return false;
    s->ballast_held = true;
    atomic_store_explicit(&s->ballast_given, false, memory_order_relaxed);
    return true;
}

static void look_at_ballast(struct space *s, uint64_t free_bytes)
{
    if (s->ballast_held || s->options->ballast_bytes == 0)
        return;
    bool room = free_bytes / BALLAST_ROOM_TIMES >= s->options->ballast_bytes && s->level != SPACE_REFUSE;
    if (room && make_ballast(s)) {
        s->ballast_held = true;
        atomic_store_explicit(&s->ballast_given, false, memory_order_relaxed);
        return;
    }
    if (!s->ballast_warned)
        log_warn("there is no room for the ballast, it is made when there is path=%s/ballast bytes=%llu",
                 s->options->dir, (unsigned long long)s->options->ballast_bytes);
    s->ballast_warned = true;
}

void space_look(struct space *s, bool full)
{
    struct files_space now;
    if (s->files->space(s->files->ctx, s->options->dir, &now) < 0 || now.total_bytes == 0)
        return; /* a file system that does not tell */
    uint64_t used = now.total_bytes - now.free_bytes;
    /* By double: terabytes times a hundred fit, and a percent is not an exact thing. */
    set_level(s, (uint64_t)((double)used * 100 / (double)now.total_bytes), now.free_bytes);
    if (!full)
        look_at_ballast(s, now.free_bytes);
}

void space_init(struct space *s, const struct store_options *options, const struct store_files *files,
                struct metrics *metrics, atomic_bool *refuse)
{
    *s = (struct space){.options = options, .files = files, .metrics = metrics, .refuse = refuse};
    s->ballast_held = find_ballast(s);
}

void space_deinit(struct space *s)
{
    metric_sub(s->metrics, M_LOG_DISK_FREE_BYTES, s->free_bytes);
    metric_sub(s->metrics, M_LOG_DISK_LEVEL, s->level);
}
