/* Power to cut. kill -9 leaves the page cache; a power cut takes what was not synced, sector by sector, in
 * any choice. Here the file port notes which bytes of which file have been written since their last sync. At
 * random moments everything stops, the folder is copied, and in the copy each sector of those bytes is set
 * back to what it was before, or kept, by chance: zeros, or what an earlier life of the file has left there
 * (retention's files become new segments). The copy is opened: every record that was acknowledged before the
 * moment is there, whole, in order; nothing is damaged; the next offset lies above everything that anybody
 * saw.
 *
 * The log has a limit, so retention runs all the time, and a keeper carries what is retained: of each of its
 * topics the start finds the message that was acknowledged, or a younger one.
 *
 * The copy is then the log of the next round. */
#include "core/logging.h"
#include "core/store/files.h"
#include "fakes/seed.h"
#include "fakes/store_keeper.h"

#include <fcntl.h>
#include <pthread.h>

enum { CUTS = 100, RANGES_MAX = 4096, FDS_MAX = 1024, SECTOR_BYTES = 512, SEEN_MAX = 200000 };

struct range {
    char path[320];
    off_t from, to;
    uint8_t *old; /* what was there before; owned */
};

/* The port's state; the lock also holds the disk still while the folder is copied. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct range ranges[RANGES_MAX];
static unsigned range_count;
static char fd_paths[FDS_MAX][320];

static void die(const char *what)
{
    fprintf(stderr, "crash_power: %s\n", what);
    abort();
}

/* --- the port --- */

static int power_open(void *ctx, const char *path, int flags, mode_t mode)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int fd = store_files_system()->open(NULL, path, flags, mode);
    if (fd >= FDS_MAX)
        die("too many descriptors");
    if (fd >= 0)
        snprintf(fd_paths[fd], sizeof fd_paths[fd], "%s", path);
    pthread_mutex_unlock(&lock);
    return fd;
}

static void remember(struct range *r, const char *path, off_t from, size_t len)
{
    snprintf(r->path, sizeof r->path, "%s", path);
    r->from = from;
    r->to = from + (off_t)len;
    r->old = calloc(1, len);
    int fd = open(path, O_RDONLY);
    if (!r->old || fd < 0 || pread(fd, r->old, len, from) < 0)
        die("cannot look at what is written over");
    close(fd);
}

static void forget_range(unsigned i)
{
    free(ranges[i].old);
    ranges[i] = ranges[--range_count];
}

static ssize_t power_pwritev(void *ctx, int fd, const struct iovec *iov, int count, off_t position)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (range_count == RANGES_MAX)
        die("too many writes without a sync");
    remember(&ranges[range_count++], fd_paths[fd], position, len);
    ssize_t n = pwritev(fd, iov, count, position);
    if (n != (ssize_t)len)
        die("a short write");
    pthread_mutex_unlock(&lock);
    return n;
}

static int power_sync(void *ctx, int fd)
{
    (void)ctx;
    /* A disk takes its time: so that most cuts find something that was written and not synced. */
    usleep((useconds_t)(rand() % 1500));
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < range_count;) {
        if (strcmp(ranges[i].path, fd_paths[fd]) == 0)
            forget_range(i);
        else
            i++;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static int power_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int rc = rename(from, to);
    for (unsigned i = 0; i < range_count; i++) {
        if (strcmp(ranges[i].path, from) == 0)
            snprintf(ranges[i].path, sizeof ranges[i].path, "%s", to);
    }
    for (unsigned i = 0; i < FDS_MAX; i++) /* a file keeps its descriptor when it gets another name */
        if (strcmp(fd_paths[i], from) == 0)
            snprintf(fd_paths[i], sizeof fd_paths[i], "%s", to);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int power_truncate(void *ctx, int fd, off_t length)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int rc = ftruncate(fd, length);
    pthread_mutex_unlock(&lock);
    return rc;
}

static int power_unlink(void *ctx, const char *path)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    int rc = unlink(path);
    pthread_mutex_unlock(&lock);
    return rc;
}

static struct store_files power_port(void)
{
    struct store_files port = *store_files_system();
    port.open = power_open;
    port.pwritev = power_pwritev;
    port.datasync = power_sync;
    port.sync = power_sync;
    port.rename = power_rename;
    port.truncate = power_truncate;
    port.unlink = power_unlink;
    return port;
}

/* --- the cut --- */

static void lose_sectors(const char *dir, const char *copy, const struct range *r)
{
    char path[700];
    snprintf(path, sizeof path, "%s%s", copy, r->path + strlen(dir));
    int fd = open(path, O_RDWR);
    if (fd < 0)
        return; /* a temporary file that has gone */
    int mood = rand() % 4; /* all lost, all kept, or mixed */
    for (off_t at = r->from; at < r->to;) {
        off_t end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        end = end < r->to ? end : r->to;
        if ((mood == 0 || (mood >= 2 && rand() % mood == 0)) &&
            pwrite(fd, r->old + (at - r->from), (size_t)(end - at), at) < 0)
            die("cannot write");
        at = end;
    }
    close(fd);
}

/* What the disk has if the power fails now. */
static void cut(const struct world *w, char copy[256])
{
    pthread_mutex_lock(&lock);
    world_crash_copy(w, copy);
    while (range_count > 0) {
        lose_sectors(w->dir, copy, &ranges[range_count - 1]);
        forget_range(range_count - 1);
    }
    pthread_mutex_unlock(&lock);
}

/* --- what is known --- */

struct seen {
    uint64_t offset;
    uint32_t content;
    bool acked;
};
static struct seen seen[SEEN_MAX]; /* ascending by offset */
static unsigned seen_count;
static uint64_t highest; /* offset that was ever given */

static void text_of(uint32_t content, char out[700])
{
    int len = snprintf(out, 700, "content %u ", content);
    int more = (int)(content * 2654435761u % 600);
    memset(out + len, 'a' + (int)(content % 26), (size_t)more);
    out[len + more] = '\0';
}

static void note_acks(uint64_t durable)
{
    for (unsigned i = seen_count; i-- > 0 && !seen[i].acked;)
        seen[i].acked = seen[i].offset < durable;
}

/* --- what is retained --- */

static struct {
    uint32_t content;
    uint64_t offset;
} retained[KEEPER_TOPICS], retained_acked[KEEPER_TOPICS];
static uint32_t retained_content;

static void retain_some(struct keeper *k)
{
    for (unsigned count = (unsigned)(rand() % 3); count > 0; count--) {
        char text[16];
        unsigned topic = (unsigned)rand() % KEEPER_TOPICS;
        retained[topic].content = ++retained_content;
        snprintf(text, sizeof text, "%u", retained_content);
        retained[topic].offset = keeper_put(k, topic, text, rand() % 2);
        highest = retained[topic].offset;
    }
    store_flush(k->w->store, 0);
}

static void note_retained_acks(uint64_t durable)
{
    for (unsigned i = 0; i < KEEPER_TOPICS; i++)
        if (retained[i].offset < durable)
            retained_acked[i] = retained[i];
}

static void check_retained(const struct keeper *k)
{
    for (unsigned i = 0; i < KEEPER_TOPICS; i++) {
        const struct msg *m = k->msgs[i];
        if (!m && retained_acked[i].content > 0)
            die("a retained message is lost");
        if (!m) { /* what was not acknowledged may be lost */
            retained[i].content = 0;
            retained[i].offset = 0;
            continue;
        }
        uint32_t content = keeper_number(m, 0);
        if (content < retained_acked[i].content)
            die("a retained message is an old one");
        if (content == retained_acked[i].content && m->offset != retained_acked[i].offset)
            die("a retained message has another position");
        retained[i].content = content;
        retained[i].offset = m->offset;
        retained_acked[i] = retained[i]; /* recovery has synced it */
    }
}

static void append_some(struct world *w, uint32_t *content)
{
    unsigned count = (unsigned)(rand() % 20);
    for (unsigned i = 0; i < count; i++) {
        char text[700], topic[16];
        struct seen s = {.content = (*content)++};
        text_of(s.content, text);
        snprintf(topic, sizeof topic, "t/%u", s.content % 5);
        if (seen_count == SEEN_MAX ||
            world_append(w, 0, topic, slice_cstr(text), rand() % 2, &s.offset) != ST_OK)
            die("append");
        if (s.offset <= highest && highest > 0)
            die("an offset was given twice");
        highest = s.offset;
        seen[seen_count++] = s;
    }
    store_flush(w->store, 0);
}

/* Reads all and compares; what the cut has taken is forgotten. */
static void check(struct world *w)
{
    unsigned k = 0, kept = 0;
    uint64_t first = store_first(w->store, 0), from = first;
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        world_read_run(w, &r);
        if (r.read.status == ST_GONE) {
            from = r.read.next;
            world_read_free(&r);
            continue;
        }
        if (r.read.status != ST_OK)
            die("a torn tail was taken for damage");
        for (uint64_t i = 0; i < r.read.found; i++) {
            char text[700];
            const struct msg *m = r.read.msgs[i];
            if (msg_topic(m).data[0] == 'r')
                continue;
            for (; k < seen_count && seen[k].offset < m->offset; k++) {
                if (seen[k].acked && seen[k].offset >= first)
                    die("an acknowledged record is lost");
            }
            if (k == seen_count || seen[k].offset != m->offset)
                die("a record that nobody wrote");
            text_of(seen[k].content, text);
            if (!slice_equal_cstr(msg_payload(m), text))
                die("wrong content");
            seen[kept] = seen[k++];
            seen[kept++].acked = true; /* recovery has synced it */
        }
        from = r.read.next;
        bool all = from >= r.read.end;
        world_read_free(&r);
        if (all)
            break;
    }
    for (; k < seen_count; k++) {
        if (seen[k].acked && seen[k].offset >= first)
            die("an acknowledged record is lost");
    }
    seen_count = kept;
    if (store_next(w->store, 0) <= highest)
        die("offsets could be given twice");
}

int main(int argc, char **argv)
{
    struct world w;
    struct keeper keeper;
    uint64_t trims = 0;
    struct store_files port = power_port();
    unsigned seed = argc > 1 ? (unsigned)atoi(argv[1]) : test_seed();
    uint32_t content = 0;
    printf("seed %u\n", seed);
    srand(seed);
    log_setup((enum log_level)(LOG_ERROR + 1), LOG_FORM_TEXT);
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    w.options.retention_bytes = 256 << 10;
    w.options.lazy_ms = 1;
    w.options.files = &port;
    world_open(&w);
    keeper_open(&keeper, &w);
    for (unsigned i = 0; i < CUTS; i++) {
        char copy[256];
        for (unsigned turns = (unsigned)(rand() % 30); turns > 0; turns--) {
            append_some(&w, &content);
            retain_some(&keeper);
            if (rand() % 3)
                world_turn(&w);
            note_acks(store_durable(w.store, 0));
            note_retained_acks(store_durable(w.store, 0));
        }
        cut(&w, copy);
        trims += keeper.trims;
        keeper_close(&keeper);
        world_close(&w);
        loop_dispatch(w.loop);
        world_remove(w.dir);
        while (range_count > 0)
            forget_range(range_count - 1);
        memcpy(w.dir, copy, sizeof w.dir);
        world_open(&w);
        check(&w); /* nothing is trimmed before the keeper is there */
        keeper_open(&keeper, &w);
        check_retained(&keeper);
    }
    unsigned reused = (unsigned)metrics_sum(M_LOG_SEGMENTS_REUSED);
    printf("cuts %d, appended %u, kept %u, trims %u, reused %u\n", CUTS, content, seen_count, (unsigned)trims,
           reused);
    if (trims == 0 || reused == 0)
        die("retention had nothing to do");
    keeper_close(&keeper);
    world_deinit(&w);
    return 0;
}
