/* A step opens the file, walks frames for about STEP_BYTES, and closes it: so a segment that retention takes
 * away meanwhile is never open here, and all that is kept between two steps are numbers. The pages are
 * dropped from the cache before they are read, since it is the disk that is to be checked. */
#include "core/store/scrub.h"

#include "core/logging.h"
#include "core/store/scan.h"
#include "core/store/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

enum { STEP_BYTES = 64 << 10, CYCLE_REST_MS = 1000 };

void scrub_init(struct scrub *s, const struct store_options *options, struct metrics *metrics)
{
    *s = (struct scrub){.options = options, .metrics = metrics};
    s->next_at_ms = s->cycle_begun_ms = clock_mono_ms(options->clock);
    source_init(&s->source);
}

void scrub_deinit(struct scrub *s)
{
    metric_sub(s->metrics, M_LOG_SCRUB_DAMAGED, s->damaged_told);
    metric_sub(s->metrics, M_LOG_SCRUB_CYCLE_SECONDS, s->cycle_told);
    source_deinit(&s->source);
}

static void tell_damaged(struct scrub *s)
{
    uint64_t damaged = s->damaged > s->damaged_before ? s->damaged : s->damaged_before;
    metric_add(s->metrics, M_LOG_SCRUB_DAMAGED, damaged - s->damaged_told);
    s->damaged_told = damaged;
}

/* Is it known from a cycle before? Else it is from now on. */
static bool is_known(struct scrub *s, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < s->found_count; i++) {
        struct scrub_found *f = &s->found[i];
        if (f->lane == s->lane && f->from == from && f->to == to) {
            f->seen = true;
            return true;
        }
    }
    if (s->found_count == SCRUB_FOUND_MAX) {
        if (!s->more_told)
            log_error("the scrub finds more damage than it tells one by one; see tidegate log verify");
        s->more_told = true;
        return true;
    }
    s->found[s->found_count++] = (struct scrub_found){s->lane, from, to, true};
    return false;
}

/* What was not found again has been mended, or removed. */
static void forget_unseen(struct scrub *s)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < s->found_count; i++) {
        if (!s->found[i].seen)
            continue;
        s->found[kept] = s->found[i];
        s->found[kept++].seen = false;
    }
    s->found_count = kept;
}

/* Counted in each cycle, logged in the first. */
static void note_damage(struct scrub *s, const char *path, uint64_t from, uint64_t to, bool io_failed)
{
    s->damaged += to - from;
    tell_damaged(s);
    if (is_known(s, from, to))
        return;
    log_error("log records %s, found by the scrub path=%s from=%llu to=%llu; they are answered as damaged, "
              "restore the "
              "segment from a backup to get them back",
              io_failed ? "cannot be read" : "do not verify", path, (unsigned long long)from,
              (unsigned long long)to);
}

static void end_cycle(struct scrub *s, uint64_t now_ms)
{
    uint64_t seconds = (now_ms - s->cycle_begun_ms) / 1000;
    s->damaged_before = s->damaged;
    s->damaged = 0;
    tell_damaged(s);
    forget_unseen(s);
    metric_add(s->metrics, M_LOG_SCRUB_CYCLE_SECONDS, seconds - s->cycle_told);
    s->cycle_told = seconds;
    s->lane = 0;
    s->base_offset = 0;
    s->cycle_begun_ms = now_ms + CYCLE_REST_MS;
    s->next_at_ms = s->cycle_begun_ms;
}

/* The sealed segment to go on with. NULL: the cycle is complete. */
static const struct volume *find_volume(struct scrub *s, const struct shelf *shelves, struct lane *lanes)
{
    for (; s->lane < s->options->lane_count; s->lane++, s->base_offset = 0, s->position = 0) {
        const struct shelf *shelf = &shelves[s->lane];
        /* Acquire: the writer's release after it has synced the sealed file. */
        uint64_t sealed = atomic_load_explicit(&lanes[s->lane].sealed_next, memory_order_acquire);
        uint32_t i = shelf_find(shelf, s->base_offset);
        while (i < shelf->count && shelf->volumes[i]->segment_epoch == 0)
            i++; /* nothing in it can be read; recovery has told so */
        if (i + 1 >= shelf->count || shelf->volumes[i]->next_offset > sealed)
            continue;
        const struct volume *v = shelf->volumes[i];
        if (v->base_offset != s->base_offset)
            s->position = 0; /* the one before was removed meanwhile */
        s->base_offset = v->base_offset;
        return v;
    }
    return NULL;
}

static void next_volume(struct scrub *s, const struct volume *v)
{
    s->base_offset = v->next_offset > v->base_offset ? v->next_offset : v->base_offset + 1;
    s->position = 0;
}

/* Walks on from s->position. Returns the bytes that were read. */
static uint64_t walk(struct scrub *s, const struct volume *v, const char *path)
{
    struct scan scan;
    uint64_t begin = s->position;
    scan_init(&scan, &s->source, v->segment_epoch, v->base_offset, s->position, s->next_offset);
    for (;;) {
        switch (scan_next(&scan)) {
        case SCAN_FRAME:
            if (scan.frame_position >= begin + STEP_BYTES) {
                s->position = scan.frame_position;
                s->next_offset = scan.frame.base_offset;
                return s->position - begin;
            }
            break;
        case SCAN_RECORD:
            break;
        case SCAN_BAD:
            note_damage(s, path, scan.bad_from, scan.bad_to, scan.io_failed);
            break;
        case SCAN_END:
            if (scan.next_offset < v->next_offset)
                note_damage(s, path, scan.next_offset, v->next_offset, scan.io_failed);
            next_volume(s, v);
            return v->data_end - begin;
        }
    }
}

static uint64_t step(struct scrub *s, const struct shelf *shelf, const struct volume *v)
{
    char path[PATH_MAX];
    if (shelf_path(shelf, v->base_offset, "seg", path, sizeof path) != ST_OK)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        note_damage(s, path, v->base_offset, v->next_offset, true);
        next_volume(s, v);
        return STEP_BYTES;
    }
    if (s->position == 0) {
        s->position = sizeof(struct segment_header);
        s->next_offset = v->base_offset;
    }
    posix_fadvise(fd, (off_t)s->position, 2 * STEP_BYTES, POSIX_FADV_DONTNEED);
    s->source.files = shelf->files;
    source_open(&s->source, fd, v->data_end, NULL, NULL);
    s->source.ahead = STEP_BYTES;
    uint64_t bytes = walk(s, v, path);
    close(fd);
    s->source.fd = -1;
    return bytes;
}

void scrub_turn(struct scrub *s, const struct shelf *shelves, struct lane *lanes)
{
    if (s->options->scrub_bytes_per_s == 0)
        return;
    uint64_t now_ms = clock_mono_ms(s->options->clock);
    if (now_ms < s->next_at_ms)
        return;
    const struct volume *v = find_volume(s, shelves, lanes);
    if (!v) {
        end_cycle(s, now_ms);
        return;
    }
    uint64_t bytes = step(s, &shelves[s->lane], v);
    metric_add(s->metrics, M_LOG_SCRUB_BYTES, bytes);
    s->next_at_ms = now_ms + 1 + bytes * 1000 / s->options->scrub_bytes_per_s;
}

uint64_t scrub_due_ms(const struct scrub *s)
{
    if (s->options->scrub_bytes_per_s == 0)
        return UINT64_MAX;
    uint64_t now_ms = clock_mono_ms(s->options->clock);
    return s->next_at_ms > now_ms ? s->next_at_ms - now_ms : 0;
}
