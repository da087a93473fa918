/* Which damage is a torn tail and which is rot decides between losing nothing and losing acknowledged
 * records, so there is one rule and it needs a witness: `synced_below`, from any later frame, any index, or
 * the MANIFEST. Below the highest witness nothing may be missing: damage is rot and stays. At or above it
 * nothing was acknowledged: the first damage is where the log ends.
 *
 *     segment 0 (indexed)   segment 1            segment 2
 *     |###############|     |####x####|          |###?......|
 *                                ^ rot: below S   ^ S   ^ torn: the file is cut here
 */
#include "core/store/recovery.h"

#include "core/crew.h"
#include "core/logging.h"
#include "core/store/folder.h"
#include "core/store/scan.h"
#include "core/store/segment.h"
#include "core/store/survey.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ERROR_BYTES_MAX = 4096 };

/* One segment file. */
struct item {
    uint64_t base_offset;
    uint64_t previous_next; /* what its header says of the segment before; base_offset when it says nothing */
    uint64_t file_bytes;
    uint64_t segment_epoch; /* 0: not known, nothing can be read */
    bool blank; /* its first bytes are zero: made, never written */
    bool reused; /* behind its end may be what an earlier life of the file has left */
    bool indexed;
    struct index_header index;
    struct survey survey; /* when not indexed */
    int fd; /* while not indexed */
    bool uncut; /* behind file_bytes are bytes that were to go, and the disk had no room for that */
    bool judged; /* its end is where it is to be, and synced */
    struct index_range *bad; /* of one that got its index early: what is to be told of it */
    uint32_t bad_count;
    enum status status; /* of looking at it, and what that says */
    struct buf error;
    uint64_t torn_bytes;
};

struct run {
    struct shelf *shelf;
    struct recovery *r;
    struct buf *error;
    struct item *items;
    uint32_t count, cap;
    uint64_t synced_below;
    struct survey_tools *tools;
};

static enum status refuse(struct run *run, enum status st, const struct item *item, const char *what)
{
    char path[PATH_MAX] = "";
    if (item && shelf_path(run->shelf, item->base_offset, "seg", path, sizeof path) != ST_OK)
        path[0] = '\0';
    /* Only a line for people: what does not fit is left out. */
    if (buf_printf(run->error, "%s: %s", item ? path : run->shelf->folder, what) != ST_OK)
        buf_clear(run->error);
    return st;
}

static enum status refuse_errno(struct run *run, const struct item *item, const char *what)
{
    char path[PATH_MAX];
    int error = errno;
    bool named = item && shelf_path(run->shelf, item->base_offset, "seg", path, sizeof path) == ST_OK;
    errno = error;
    return folder_refuse(run->error, named ? path : run->shelf->folder, what);
}

/* --- the folder --- */

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->base_offset < y->base_offset ? -1 : x->base_offset > y->base_offset;
}

static enum status add_item(struct run *run, uint64_t base_offset)
{
    if (run->count == run->cap) {
        uint32_t cap = run->cap ? run->cap * 2 : 64;
        struct item *items = realloc(run->items, cap * sizeof *items);
        if (!items)
            return refuse(run, ST_NO_MEMORY, NULL, "no memory");
        run->items = items;
        run->cap = cap;
    }
    run->items[run->count++] =
        (struct item){.base_offset = base_offset, .previous_next = base_offset, .fd = -1};
    return ST_OK;
}

static enum status list_items(struct run *run)
{
    enum status st = ST_OK;
    DIR *dir = opendir(run->shelf->folder);
    if (!dir)
        return refuse_errno(run, NULL, "read the folder");
    for (struct dirent *entry; st == ST_OK && (entry = readdir(dir));) {
        uint64_t base_offset;
        size_t len = strlen(entry->d_name);
        bool segment = segment_name_parse(entry->d_name, "seg", &base_offset);
        if ((segment || segment_name_parse(entry->d_name, "idx", &base_offset)) &&
            base_offset < run->r->first)
            /* Retention had said that it goes, and was cut short. */
            unlinkat(dirfd(dir), entry->d_name, 0);
        else if (segment)
            st = add_item(run, base_offset);
        else if (len > 4 && strcmp(entry->d_name + len - 4, ".tmp") == 0)
            unlinkat(dirfd(dir), entry->d_name, 0); /* an index that was not finished */
    }
    closedir(dir);
    if (run->count > 0)
        qsort(run->items, run->count, sizeof *run->items, compare_items);
    return st;
}

static enum status remove_file(struct run *run, uint64_t base_offset, const char *suffix)
{
    char path[PATH_MAX];
    const struct store_files *files = run->shelf->files;
    enum status st = shelf_path(run->shelf, base_offset, suffix, path, sizeof path);
    if (st != ST_OK)
        return refuse(run, st, NULL, "the path is too long");
    if (files->unlink(files->ctx, path) < 0 && errno != ENOENT)
        return refuse_errno(run, NULL, "remove a file");
    return ST_OK;
}

/* --- looking at a segment --- */

static enum status read_header(struct run *run, struct item *item)
{
    uint8_t bytes[sizeof(struct segment_header) + sizeof(struct frame_header)] = {0};
    static const uint8_t zero[sizeof bytes];
    ssize_t n = files_read_all(run->shelf->files, item->fd, bytes, sizeof bytes, 0);
    if (n < 0)
        return refuse_errno(run, item, "read it");
    item->blank = memcmp(bytes, zero, sizeof bytes) == 0;
    struct segment_header h;
    enum status st = segment_header_decode(bytes, &h);
    if (st == ST_UNSUPPORTED)
        return refuse(run, st, item, "a newer version wrote it; start that version");
    if (st == ST_OK) {
        if (h.lane != run->shelf->lane || h.base_offset != item->base_offset ||
            h.log_epoch != run->r->log_epoch)
            return refuse(run, ST_CORRUPT, item,
                          "belongs to another log or place; put the folder back as it was");
        item->segment_epoch = h.segment_epoch;
        item->reused = h.life > 0;
        item->previous_next = h.previous_next < h.base_offset ? h.previous_next : h.base_offset;
        return ST_OK;
    }
    /* The header is damaged; the first frame knows the epoch too. */
    item->reused = true;
    struct frame_header frame;
    uint64_t room = item->file_bytes < sizeof h ? 0 : item->file_bytes - sizeof h;
    if (n == (ssize_t)sizeof bytes && frame_header_decode_any(bytes + sizeof h, room, &frame) == ST_OK &&
        frame.base_offset == item->base_offset)
        item->segment_epoch = frame.segment_epoch;
    if (!item->blank)
        log_warn("log segment header is damaged lane=%u segment=%" PRIu64 " readable=%d", run->shelf->lane,
                 item->base_offset, item->segment_epoch != 0);
    return ST_OK;
}

static bool has_index(const struct run *run, struct item *item)
{
    char path[PATH_MAX];
    if (shelf_path(run->shelf, item->base_offset, "idx", path, sizeof path) != ST_OK ||
        index_file_peek(path, &item->index) != ST_OK)
        return false;
    const struct index_header *h = &item->index;
    if (h->lane != run->shelf->lane || h->base_offset != item->base_offset ||
        h->segment_bytes != item->file_bytes ||
        (item->segment_epoch != 0 && h->segment_epoch != item->segment_epoch))
        return false;
    item->segment_epoch = h->segment_epoch;
    return true;
}

/* Where the last bytes are that were ever written: a preallocated file is mostly hole. */
static uint64_t written_bytes(const struct item *item)
{
    off_t end = 0;
    for (;;) {
        off_t data = lseek(item->fd, end, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? (uint64_t)end : item->file_bytes;
        off_t hole = lseek(item->fd, data, SEEK_HOLE);
        if (hole <= data)
            return item->file_bytes;
        end = hole;
    }
}

static enum status survey_item(struct run *run, struct item *item)
{
    topic_index_destroy(item->survey.index);
    survey_deinit(&item->survey);
    uint64_t end = item->segment_epoch ? written_bytes(item) : sizeof(struct segment_header);
    end = end < item->file_bytes ? end : item->file_bytes;
    source_open(&run->tools->source, item->fd, end, NULL, NULL);
    run->tools->source.ahead = 128 << 10;
    if (survey_run(run->tools, item->segment_epoch, item->base_offset, item->reused, &item->survey) != ST_OK)
        return refuse(run, ST_NO_MEMORY, item, "no memory for its index");
    if (item->survey.io_failed) {
        errno = EIO;
        return refuse_errno(run, item, "read it");
    }
    return ST_OK;
}

static enum status open_item(struct run *run, struct item *item)
{
    char path[PATH_MAX];
    struct stat stat;
    enum status st = shelf_path(run->shelf, item->base_offset, "seg", path, sizeof path);
    if (st != ST_OK)
        return refuse(run, st, NULL, "the path is too long");
    item->fd = open(path, O_RDWR | O_CLOEXEC);
    if (item->fd < 0 || fstat(item->fd, &stat) < 0)
        return refuse_errno(run, item, "open it");
    item->file_bytes = (uint64_t)stat.st_size;
    return ST_OK;
}

/* Its header, and whether it has its index. */
static enum status examine(struct run *run, struct item *item)
{
    enum status st = open_item(run, item);
    if (st == ST_OK)
        st = read_header(run, item);
    if (st != ST_OK)
        return st;
    item->indexed = has_index(run, item);
    close(item->fd);
    item->fd = -1;
    return ST_OK;
}

/* --- judging --- */

static uint64_t item_end(const struct item *item)
{
    return item->indexed ? item->index.next_offset : item->survey.next_offset;
}

static uint64_t highest_witness(const struct run *run)
{
    if (run->r->mirror)
        return 0;
    uint64_t synced = run->r->synced_below;
    for (uint32_t i = 0; i < run->count; i++) {
        const struct item *item = &run->items[i];
        uint64_t says = item->indexed ? item->index.next_offset : item->survey.synced_below;
        synced = says > synced ? says : synced;
    }
    return synced;
}

/* Where item `i` should end, from what follows it. */
static uint64_t expected_end(const struct run *run, uint32_t i)
{
    return i + 1 < run->count ? run->items[i + 1].previous_next : run->synced_below;
}

/* The first torn place of item `i`. False: it has none. */
static bool find_tear(const struct run *run, uint32_t i, uint64_t *position)
{
    const struct item *item = &run->items[i];
    for (uint32_t k = 0; k < item->survey.spot_count; k++) {
        if (item->survey.spots[k].frame_offset >= run->synced_below) {
            *position = item->survey.spots[k].position;
            return true;
        }
    }
    bool short_of_next = i + 1 < run->count && item->survey.next_offset < expected_end(run, i);
    *position = item->survey.data_end;
    return short_of_next && item->survey.next_offset >= run->synced_below;
}

/* --- mending --- */

static enum status sync_item(struct run *run, const struct item *item)
{
    const struct store_files *files = run->shelf->files;
    return files->sync(files->ctx, item->fd) == 0 ? ST_OK : refuse_errno(run, item, "sync it");
}

static enum status cut_file(struct run *run, struct item *item, uint64_t position)
{
    const struct store_files *files = run->shelf->files;
    bool cut = files->truncate(files->ctx, item->fd, (off_t)position) == 0;
    if (!cut && errno != ENOSPC && errno != EDQUOT)
        return refuse_errno(run, item, "cut its torn end");
    item->uncut = !cut; /* it is cut before anything is appended */
    item->file_bytes = position;
    return ST_OK;
}

static void item_deinit(struct item *item)
{
    if (item->fd >= 0)
        close(item->fd);
    item->fd = -1;
    topic_index_destroy(item->survey.index);
    survey_deinit(&item->survey);
    free(item->bad);
    item->bad = NULL;
    buf_deinit(&item->error);
}

/* Removes the items from `from` on: nothing in them was acknowledged. */
static enum status remove_items(struct run *run, uint32_t from)
{
    enum status st = ST_OK;
    while (run->count > from && st == ST_OK) {
        struct item *item = &run->items[run->count - 1];
        if (!item->indexed)
            run->r->torn_bytes += item->survey.noise_end - sizeof(struct segment_header);
        st = remove_file(run, item->base_offset, "idx");
        if (st == ST_OK)
            st = remove_file(run, item->base_offset, "seg");
        item_deinit(item);
        run->count--;
    }
    return st;
}

/* The newest file holds nothing. One that was never written goes; what we do not understand is kept aside. */
static enum status drop_empty_last(struct run *run)
{
    struct item *item = &run->items[run->count - 1];
    const struct store_files *files = run->shelf->files;
    char path[PATH_MAX], aside[PATH_MAX];
    if (item->blank || item->segment_epoch != 0)
        return remove_items(run, run->count - 1);
    if (shelf_path(run->shelf, item->base_offset, "seg", path, sizeof path) != ST_OK ||
        shelf_path(run->shelf, item->base_offset, "bad", aside, sizeof aside) != ST_OK)
        return refuse(run, ST_TOO_LARGE, NULL, "the path is too long");
    if (files->rename(files->ctx, path, aside) < 0)
        return refuse_errno(run, item, "set it aside");
    log_warn("log segment holds nothing that verifies, set aside path=%s", aside);
    item_deinit(item);
    run->count--;
    return ST_OK;
}

static enum status cut_tear(struct run *run, uint32_t i, uint64_t position)
{
    struct item *item = &run->items[i];
    run->r->torn_bytes += item->survey.noise_end - position;
    enum status st = remove_items(run, i + 1);
    if (st == ST_OK)
        st = cut_file(run, item, position);
    return st == ST_OK ? survey_item(run, item) : st;
}

/* What should be there and is not, behind the last valid frame: rot at the end. */
static enum status note_missing_end(struct run *run, uint32_t i)
{
    struct item *item = &run->items[i];
    struct survey *s = &item->survey;
    uint64_t end = expected_end(run, i);
    if (end > item->base_offset + UINT32_MAX)
        end = item->base_offset + UINT32_MAX;
    struct index_range range = {(uint32_t)(s->next_offset - item->base_offset),
                                (uint32_t)(end - item->base_offset)};
    if (topic_index_add_bad(s->index, range) != ST_OK)
        return refuse(run, ST_NO_MEMORY, item, "no memory for its index");
    s->next_offset = end;
    s->data_end = item->file_bytes; /* the bytes stay, someone may want to look at them */
    return ST_OK;
}

static enum status judge(struct run *run, uint32_t i)
{
    struct item *item = &run->items[i];
    uint64_t position;
    enum status st = ST_OK;
    if (find_tear(run, i, &position))
        st = cut_tear(run, i, position);
    if (st != ST_OK)
        return st;
    if (item_end(item) < expected_end(run, i))
        st = note_missing_end(run, i);
    else if (item->survey.data_end < item->file_bytes) {
        /* Preallocated and not used, or a torn end behind the last frame. */
        run->r->torn_bytes += item->survey.noise_end - item->survey.data_end;
        st = cut_file(run, item, item->survey.data_end);
    }
    return st == ST_OK ? sync_item(run, item) : st;
}

static void tell(struct run *run, const char *what, uint64_t from, uint64_t to)
{
    log_error("log records %s and will be answered as damaged lane=%u from=%" PRIu64 " to=%" PRIu64
              "; restore the segment from a backup to get them back",
              what, run->shelf->lane, from, to);
}

static void tell_rot(struct run *run, const struct item *item)
{
    const struct index_range *bad = item->bad;
    uint32_t count = item->bad_count;
    if (!item->indexed)
        bad = topic_index_bad(item->survey.index, &count);
    for (uint32_t k = 0; k < count; k++)
        tell(run, "do not verify", item->base_offset + bad[k].from, item->base_offset + bad[k].to);
}

/* Files that somebody has removed. */
static void tell_missing(struct run *run)
{
    uint64_t end = run->r->first;
    for (uint32_t i = 0; i < run->count; i++) {
        if (run->items[i].previous_next > end)
            tell(run, "are not there", end, run->items[i].previous_next);
        end = item_end(&run->items[i]);
    }
    if (run->synced_below > end && run->r->first < run->synced_below)
        tell(run, "are not there", end, run->synced_below);
}

static enum status shelve(struct run *run, struct item *item)
{
    struct volume *v;
    enum status st = shelf_add(run->shelf, item->base_offset, item->previous_next, item->segment_epoch, &v);
    if (st != ST_OK)
        return refuse(run, st, item, "no memory");
    v->next_offset = item_end(item);
    v->uncut = item->uncut;
    tell_rot(run, item);
    if (item->indexed) {
        shelf_set_end(run->shelf, v, item->index.segment_bytes);
        v->last_time_ms = item->index.last_time_ms;
        return ST_OK;
    }
    shelf_set_end(run->shelf, v, item->survey.data_end);
    v->last_time_ms = item->survey.last_time_ms;
    v->index = item->survey.index;
    item->survey.index = NULL;
    st = volume_write_index(run->shelf, v);
    if (st == ST_OK || v->write_refused)
        return ST_OK; /* a full disk is found out by the next write that cannot be done without */
    return refuse(run, st, item, "cannot write its index");
}

/* A mirror: something is missing between item `i` and the one before. */
static bool lost_before(const struct run *run, uint32_t i)
{
    uint64_t end = i > 0 ? item_end(&run->items[i - 1]) : run->r->first;
    return run->items[i].previous_next > end;
}

static enum status judge_all(struct run *run)
{
    enum status st = ST_OK;
    run->synced_below = highest_witness(run);
    for (uint32_t i = 0; i < run->count && st == ST_OK; i++) {
        if (i > 0 && run->items[i].base_offset < item_end(&run->items[i - 1]))
            return refuse(run, ST_CORRUPT, &run->items[i],
                          "overlaps the segment before it; put the folder back as it was");
        if (run->r->mirror && lost_before(run, i))
            st = remove_items(run, i);
        else if (!run->items[i].indexed && !run->items[i].judged)
            st = judge(run, i);
    }
    /* Also one with an index: a mark that did not fit began it, and then the process stopped. */
    while (st == ST_OK && run->count > 0 &&
           item_end(&run->items[run->count - 1]) == run->items[run->count - 1].base_offset)
        st = drop_empty_last(run);
    return st;
}

/* --- surveys, several at once --- */

/* Everything below is known to be synced before any frame has been read. */
static uint64_t known_witness(const struct run *run)
{
    if (run->r->mirror)
        return 0;
    uint64_t synced = run->r->synced_below;
    for (uint32_t i = 0; i < run->count; i++) {
        const struct item *item = &run->items[i];
        synced = item->indexed && item->index.next_offset > synced ? item->index.next_offset : synced;
    }
    return synced;
}

/* Item `i` lies wholly below the witness, by its neighbour's name: whatever is wrong there is rot. */
static bool is_settled(const struct run *run, uint32_t i)
{
    return i + 1 < run->count && run->items[i + 1].base_offset <= run->synced_below;
}

static enum status keep_bad(struct run *run, struct item *item)
{
    const struct index_range *bad = topic_index_bad(item->survey.index, &item->bad_count);
    if (item->bad_count == 0)
        return ST_OK;
    item->bad = malloc(item->bad_count * sizeof *bad);
    if (!item->bad)
        return refuse(run, ST_NO_MEMORY, item, "no memory for its index");
    memcpy(item->bad, bad, item->bad_count * sizeof *bad);
    return ST_OK;
}

/* Judges item `i` before the others are known, and writes its index: so a log that has lost all of them is
 * not held in memory. */
static enum status settle(struct run *run, uint32_t i)
{
    struct item *item = &run->items[i];
    char path[PATH_MAX];
    uint64_t position;
    if (item_end(item) > run->items[i + 1].base_offset || find_tear(run, i, &position))
        return ST_OK; /* judge_all has something to say */
    enum status st = judge(run, i);
    if (st == ST_OK)
        st = keep_bad(run, item);
    if (st != ST_OK || shelf_path(run->shelf, item->base_offset, "idx", path, sizeof path) != ST_OK)
        return st;
    item->judged = true;
    item->index = (struct index_header){.lane = run->shelf->lane,
                                        .base_offset = item->base_offset,
                                        .segment_epoch = item->segment_epoch,
                                        .next_offset = item->survey.next_offset,
                                        .segment_bytes = item->survey.data_end,
                                        .last_time_ms = item->survey.last_time_ms};
    item->indexed = index_file_write(run->shelf->files, run->shelf->folder, path, &item->index,
                                     item->survey.index) == ST_OK;
    if (!item->indexed)
        return ST_OK; /* it is tried again, and told, when it is shelved */
    topic_index_destroy(item->survey.index);
    survey_deinit(&item->survey);
    close(item->fd);
    item->fd = -1;
    return ST_OK;
}

struct surveys {
    struct run *run;
    uint32_t *numbers; /* of the items that have no index */
    struct survey_tools tools[CREW_MAX];
};

/* One of them; any worker. It touches its own item alone, and reads what the others do not change. */
static void survey_one(void *ctx, unsigned worker, uint32_t n)
{
    struct surveys *all = ctx;
    uint32_t i = all->numbers[n];
    struct item *item = &all->run->items[i];
    struct recovery r = {.log_epoch = all->run->r->log_epoch, .first = all->run->r->first};
    struct run run = *all->run;
    run.r = &r;
    run.error = &item->error;
    run.tools = &all->tools[worker];
    buf_init(&item->error, ERROR_BYTES_MAX);
    item->status = open_item(&run, item);
    /* After a failed sync the cache may show what the disk does not have; not of what was known to be synced
     * by then. Dirty pages stay. */
    if (item->status == ST_OK && !is_settled(&run, i))
        posix_fadvise(item->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (item->status == ST_OK)
        item->status = survey_item(&run, item);
    if (item->status == ST_OK && is_settled(&run, i))
        item->status = settle(&run, i);
    item->torn_bytes = r.torn_bytes;
}

static enum status survey_all(struct run *run)
{
    struct surveys all = {.run = run, .numbers = malloc(run->count * sizeof(uint32_t) + 1)};
    uint32_t count = 0;
    if (!all.numbers)
        return refuse(run, ST_NO_MEMORY, NULL, "no memory");
    for (uint32_t i = 0; i < run->count; i++)
        if (!run->items[i].indexed)
            all.numbers[count++] = i;
    run->synced_below = known_witness(run);
    for (unsigned i = 0; i < CREW_MAX; i++) {
        survey_tools_init(&all.tools[i]);
        all.tools[i].source.files = run->shelf->files;
    }
    crew_run(run->r->threads, count, survey_one, &all);
    for (unsigned i = 0; i < CREW_MAX; i++)
        survey_tools_deinit(&all.tools[i]);
    enum status st = ST_OK;
    for (uint32_t n = 0; n < count && st == ST_OK; n++) {
        const struct item *item = &run->items[all.numbers[n]];
        run->r->torn_bytes += item->torn_bytes;
        st = item->status;
        if (st != ST_OK && buf_put(run->error, buf_slice(&item->error)) != ST_OK)
            buf_clear(run->error);
    }
    free(all.numbers);
    return st;
}

enum status recovery_run(struct shelf *shelf, struct recovery *r, struct buf *error)
{
    struct survey_tools tools;
    struct run run = {.shelf = shelf, .r = r, .error = error, .tools = &tools};
    survey_tools_init(&tools);
    tools.source.files = shelf->files;
    enum status st = list_items(&run);
    for (uint32_t i = 0; i < run.count && st == ST_OK; i++)
        st = examine(&run, &run.items[i]);
    if (st == ST_OK)
        st = survey_all(&run);
    if (st == ST_OK)
        st = judge_all(&run);
    /* What was removed stays removed, before anything new gets its name. */
    if (st == ST_OK && files_sync_folder(shelf->files, shelf->folder) < 0)
        st = refuse_errno(&run, NULL, "sync the folder");
    if (st == ST_OK)
        tell_missing(&run);
    r->end = r->mirror ? r->first : r->synced_below;
    for (uint32_t i = 0; i < run.count && st == ST_OK; i++) {
        st = shelve(&run, &run.items[i]);
        r->end = item_end(&run.items[i]) > r->end ? item_end(&run.items[i]) : r->end;
    }
    for (uint32_t i = 0; i < run.count; i++)
        item_deinit(&run.items[i]);
    free(run.items);
    survey_tools_deinit(&tools);
    return st;
}
