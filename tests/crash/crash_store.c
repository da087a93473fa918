/* Power to kill: what the store has acknowledged it gives back, whatever happens to the process or to the
 * end of a file.
 *
 * 1. A child appends with several waiting and writes each acknowledgement to a pipe; the parent kills it at a
 * random time, opens the folder and reads: every acknowledged record is there, in order, whole, and no offset
 * has two contents over all rounds.
 * 2. Every length of a small log's last frame: opens, serves a prefix, nothing else.
 * 3. Every bit of a small log's files (segment, index, MANIFEST) flipped: opens or refuses, and never serves
 * anything but what was written; what was acknowledged below the flip is served or answered as damaged. */
#include "core/crc32c.h"
#include "core/hash.h"
#include "core/logging.h"
#include "core/store/format.h"
#include "fakes/seed.h"
#include "fakes/store_world.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

enum { ROUNDS = 20, IN_FLIGHT = 64, LANES = 2, PAYLOAD_BYTES_MAX = 400 };

static int failures;

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                  \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fprintf(stderr, "\n");                                                                           \
            failures++;                                                                                      \
        }                                                                                                    \
    } while (0)

/* --- 1. kill --- */

struct ack {
    uint32_t lane;
    uint32_t round;
    uint64_t sequence; /* of the child: the record's content */
    uint64_t offset;
};

/* Content is a function of (round, lane, sequence), so the parent can recompute it. */
static size_t make_payload(uint32_t round, uint32_t lane, uint64_t sequence, uint8_t *out)
{
    uint64_t head[3] = {round, lane, sequence};
    size_t len = sizeof head + hash64_stable(slice_of(head, sizeof head)) % PAYLOAD_BYTES_MAX;
    for (size_t i = sizeof head; i < len; i++)
        out[i] = (uint8_t)(sequence + i * 31);
    memcpy(out, head, sizeof head);
    return len;
}

struct child {
    struct world w;
    int pipe;
    uint32_t round;
    struct ack ring[LANES][IN_FLIGHT * 4]; /* appended, not acknowledged */
    uint64_t head[LANES], tail[LANES];
    uint64_t sequence;
};

static void child_on_durable(void *ctx, unsigned lane, uint64_t next)
{
    struct child *c = ctx;
    struct ack out[IN_FLIGHT * 4];
    size_t n = 0;
    while (c->tail[lane] < c->head[lane]) {
        struct ack *a = &c->ring[lane][c->tail[lane] % (IN_FLIGHT * 4)];
        if (a->offset >= next)
            break;
        out[n++] = *a;
        c->tail[lane]++;
    }
    if (n > 0 && write(c->pipe, out, n * sizeof *out) < 0)
        _exit(3);
}

static void child_run(struct world *template, int pipe, uint32_t round)
{
    static const struct store_events events = {.on_durable = child_on_durable};
    static struct child c;
    c.w = *template;
    c.pipe = pipe;
    c.round = round;
    c.w.metrics = metrics_register();
    if (loop_create(clock_system(), 0, &c.w.loop) != ST_OK ||
        store_open(&c.w.options, &c.w.store, &c.w.error) != ST_OK)
        _exit(2);
    for (unsigned i = 0; i < LANES; i++)
        store_bind(c.w.store, i, c.w.loop, &events, &c, c.w.metrics);
    for (;;) {
        for (unsigned lane = 0; lane < LANES; lane++) {
            while (c.head[lane] - c.tail[lane] < IN_FLIGHT) {
                uint8_t payload[PAYLOAD_BYTES_MAX + 32];
                char topic[32];
                struct ack a = {.lane = lane, .round = round, .sequence = c.sequence++};
                size_t len = make_payload(round, lane, a.sequence, payload);
                snprintf(topic, sizeof topic, "t/%u", (unsigned)(a.sequence % 7));
                if (world_append(&c.w, lane, topic, slice_of(payload, len), a.sequence % 5 != 0, &a.offset) !=
                    ST_OK)
                    _exit(4);
                c.ring[lane][c.head[lane]++ % (IN_FLIGHT * 4)] = a;
            }
            store_flush(c.w.store, lane);
        }
        world_turn(&c.w);
    }
}

/* What is known of an offset: who wrote it. */
struct known {
    uint64_t offset;
    uint64_t sequence;
    uint32_t round;
    bool acked;
};
static struct known *known[LANES];
static size_t known_count[LANES];

static void remember(unsigned lane, struct known k)
{
    if ((known_count[lane] & (known_count[lane] + 1)) == 0 || !known[lane])
        known[lane] = realloc(known[lane], (known_count[lane] * 2 + 2) * sizeof **known);
    known[lane][known_count[lane]++] = k;
}

static int by_offset(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t read_acks(int fd)
{
    struct ack a;
    size_t n = 0;
    while (read(fd, &a, sizeof a) == (ssize_t)sizeof a) {
        remember(a.lane, (struct known){a.offset, a.sequence, a.round, true});
        n++;
    }
    return n;
}

static void check_record(const struct msg *m, unsigned lane, uint32_t *round, uint64_t *sequence)
{
    uint8_t want[PAYLOAD_BYTES_MAX + 32];
    struct slice payload = msg_payload(m);
    uint64_t head[3] = {0};
    CHECK(payload.len >= sizeof head, "offset %lu", m->offset);
    memcpy(head, payload.data, sizeof head);
    size_t len = make_payload((uint32_t)head[0], (uint32_t)head[1], head[2], want);
    CHECK(head[1] == lane && slice_equal(payload, slice_of(want, len)), "offset %lu", m->offset);
    *round = (uint32_t)head[0];
    *sequence = head[2];
}

/* Reads the whole lane and compares with what is known; what is new becomes known. */
static void check_lane(struct world *w, unsigned lane)
{
    if (known_count[lane] > 0)
        qsort(known[lane], known_count[lane], sizeof **known, by_offset);
    size_t k = 0, count = known_count[lane];
    uint64_t from = store_first(w->store, lane), last = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, lane, from);
        world_read_run(w, &r);
        CHECK(r.read.status == ST_OK, "status %s at %lu", status_name(r.read.status), from);
        for (uint64_t i = 0; i < r.read.found; i++) {
            const struct msg *m = r.read.msgs[i];
            uint32_t round;
            uint64_t sequence;
            check_record(m, lane, &round, &sequence);
            CHECK(last == 0 || m->offset > last, "order %lu after %lu", m->offset, last);
            last = m->offset;
            for (; k < count && known[lane][k].offset < m->offset; k++)
                CHECK(!known[lane][k].acked, "lane %u lost acknowledged offset %lu", lane,
                      known[lane][k].offset);
            if (k < count && known[lane][k].offset == m->offset) {
                CHECK(known[lane][k].round == round && known[lane][k].sequence == sequence,
                      "offset %lu was used twice", m->offset);
                k++;
            } else {
                remember(lane, (struct known){m->offset, sequence, round, true}); /* synced by recovery */
            }
        }
        from = r.read.next;
        bool all = from >= r.read.end || r.read.status != ST_OK;
        world_read_free(&r);
        if (all)
            break;
    }
    for (; k < count; k++)
        CHECK(!known[lane][k].acked, "lane %u lost acknowledged offset %lu", lane, known[lane][k].offset);
}

static void test_kill(unsigned seed)
{
    struct world w;
    size_t acked = 0;
    world_init(&w, LANES);
    w.options.segment_bytes = 256 << 10; /* rolls often */
    srand(seed);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        int fds[2];
        if (pipe(fds) < 0 || fcntl(fds[0], F_SETPIPE_SZ, 1 << 20) < 0)
            world_die("no pipe");
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child_run(&w, fds[1], round);
        }
        close(fds[1]);
        usleep((useconds_t)(1000 + rand() % 250000)); /* when it is killed, not a wait for something */
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        CHECK(WIFSIGNALED(status), "the child ended by itself with %d", WEXITSTATUS(status));
        acked += read_acks(fds[0]);
        close(fds[0]);
        world_open(&w);
        for (unsigned lane = 0; lane < LANES; lane++)
            check_lane(&w, lane);
        /* Half of the time the parent dies too, in its way: the next start is unclean again. */
        world_close(&w);
        if (failures)
            break;
    }
    printf("kill: %d rounds, %zu acknowledged, %zu known\n", ROUNDS, acked, known_count[0] + known_count[1]);
    CHECK(acked > 0, "nothing was acknowledged");
    for (unsigned lane = 0; lane < LANES; lane++)
        free(known[lane]);
    world_deinit(&w);
}

/* --- a small log as bytes --- */

enum { SMALL_RECORDS = 12 };

struct small {
    struct world w;
    char path[300]; /* of the segment */
    uint8_t *bytes;
    size_t len;
    size_t third_frame; /* of messages: where it begins */
    uint64_t base, next;
};

static void small_text(uint64_t offset, char out[64])
{
    snprintf(out, 64, "text of %lu %.*s", offset, (int)(offset % 30), "..............................");
}

/* Three frames of four records each. */
static void small_make(struct small *s)
{
    /* Thousands of starts, each with a dozen syncs: what counts here is what is in the files, not the disk.
     */
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    world_init(&s->w, 1);
    s->w.options.segment_bytes = 64 << 10;
    world_open(&s->w);
    s->base = store_next(s->w.store, 0);
    for (unsigned i = 0; i < SMALL_RECORDS; i++) {
        char text[64];
        small_text(store_next(s->w.store, 0), text);
        world_put(&s->w, 0, i % 2 ? "odd" : "even", text);
        if (i % 4 == 3) {
            store_flush(s->w.store, 0);
            world_wait_durable(&s->w, 0, store_next(s->w.store, 0));
        }
    }
    s->next = store_next(s->w.store, 0);
    snprintf(s->path, sizeof s->path, "%s/0/00000000000000000000.seg", s->w.dir);
    world_close(&s->w);
    int fd = open(s->path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        world_die("no segment");
    s->len = (size_t)st.st_size;
    s->bytes = malloc(s->len);
    if (read(fd, s->bytes, s->len) != (ssize_t)s->len)
        world_die("cannot read the segment");
    close(fd);
    s->third_frame = sizeof(struct segment_header);
    for (int i = 0; i < 3; i++) /* START and two of messages */
        s->third_frame +=
            ((const struct frame_header *)(const void *)(s->bytes + s->third_frame))->frame_bytes;
}

/* The log as it was when it crashed with these bytes in its only segment. */
static void small_restore(struct small *s, const uint8_t *bytes, size_t len)
{
    char path[400], text[256];
    snprintf(path, sizeof path, "%s/0", s->w.dir);
    world_remove(path);
    mkdir(path, 0750);
    int fd = open(s->path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (write(fd, bytes, len) != (ssize_t)len)
        world_die("cannot write the segment");
    close(fd);
    snprintf(path, sizeof path, "%s/MANIFEST", s->w.dir);
    int n = snprintf(text, sizeof text,
                     "tidegate-log 1\nepoch %08x\nlanes 1\nincarnation 1\nstate running\n"
                     "lane 0 first 0 end 0 next 0\n",
                     ((const struct segment_header *)(const void *)s->bytes)->log_epoch);
    n += snprintf(text + n, sizeof text - (size_t)n, "crc %08x\n", crc32c(0, text, (size_t)n));
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (write(fd, text, (size_t)n) != n)
        world_die("cannot write MANIFEST");
    close(fd);
}

/* Reads all; every record must be what was written at its offset. Returns how many; damage is noted as
 * bits of `damaged`. */
static unsigned small_check(struct small *s, const char *topic, uint64_t *served, uint64_t *damaged)
{
    unsigned count = 0;
    uint64_t from = store_first(s->w.store, 0);
    *served = *damaged = 0;
    for (;;) {
        struct world_read r;
        world_read_init(&r, 0, from);
        if (topic)
            r.read.topic = slice_cstr(topic);
        world_read_run(&s->w, &r);
        CHECK(r.read.status == ST_OK || r.read.status == ST_CORRUPT, "status %s", status_name(r.read.status));
        CHECK(r.read.status == ST_OK || r.read.found == 0, "records with damage");
        for (uint64_t i = 0; i < r.read.found; i++) {
            const struct msg *m = r.read.msgs[i];
            char text[64];
            small_text(m->offset, text);
            bool even = (m->offset - s->base) % 2 == 0;
            CHECK(m->offset >= s->base && m->offset < s->next, "offset %lu", m->offset);
            CHECK(slice_equal_cstr(msg_payload(m), text), "payload of %lu", m->offset);
            CHECK(slice_equal_cstr(msg_topic(m), even ? "even" : "odd"), "topic of %lu", m->offset);
            *served |= 1ull << (m->offset - s->base);
            count++;
        }
        uint64_t old = from;
        from = r.read.next;
        for (uint64_t o = old; r.read.status == ST_CORRUPT && o < from && o < s->next; o++)
            *damaged |= o < s->base ? 0 : 1ull << (o - s->base);
        CHECK(from > old || from >= r.read.end, "a read that does not move at %lu", from);
        bool all = from >= r.read.end;
        world_read_free(&r);
        if (all || from == old)
            break;
    }
    return count;
}

static void test_lengths(struct small *s)
{
    unsigned opened = 0;
    for (size_t len = sizeof(struct segment_header); len <= s->len && !failures; len++) {
        uint64_t served, damaged;
        small_restore(s, s->bytes, len);
        world_open(&s->w);
        unsigned count = small_check(s, NULL, &served, &damaged);
        CHECK(damaged == 0 && served == (1ull << count) - 1, "length %zu: not a prefix", len);
        CHECK(count % 4 == 0 && count <= SMALL_RECORDS, "length %zu: %u records", len, count);
        CHECK(len < s->len || count == SMALL_RECORDS, "the whole log gave %u", count);
        CHECK(store_next(s->w.store, 0) >= STORE_OFFSET_JUMP, "no jump");
        world_close(&s->w);
        opened++;
    }
    printf("lengths: %u\n", opened);
}

static void test_segment_bits(struct small *s)
{
    uint8_t *bytes = malloc(s->len);
    unsigned opened = 0, whole = 0;
    for (size_t bit = 0; bit < s->len * 8 && !failures; bit++) {
        uint64_t served, damaged, served_even, damaged_even;
        size_t at = bit / 8;
        memcpy(bytes, s->bytes, s->len);
        bytes[at] ^= (uint8_t)(1u << bit % 8);
        small_restore(s, bytes, s->len);
        if (world_try_open(&s->w) != ST_OK)
            continue; /* refused, with a line that names the file: allowed, never silent */
        unsigned count = small_check(s, NULL, &served, &damaged);
        CHECK((served & damaged) == 0, "byte %zu: served and damaged", at);
        /* The third frame vouches for all before it: nothing of that may be lost in silence, nor may the
         * third. */
        if (at < s->third_frame)
            CHECK((served | damaged) == 0xfff && served >> 8 == 0xf, "byte %zu: lost in silence: %lx %lx", at,
                  served, damaged);
        small_check(s, "even", &served_even, &damaged_even);
        CHECK(served_even == (served & 0x555), "byte %zu: index and walk differ", at);
        whole += count == SMALL_RECORDS;
        opened++;
        world_close(&s->w);
    }
    printf("segment: %zu bits, %u opened, %u without loss\n", s->len * 8, opened, whole);
    CHECK(opened > s->len * 8 * 9 / 10, "only %u of %zu opened", opened, s->len * 8);
    free(bytes);
}

static uint8_t *load_file(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) < 0)
        world_die("no file");
    uint8_t *bytes = malloc((size_t)st.st_size);
    if (read(fd, bytes, (size_t)st.st_size) != st.st_size)
        world_die("cannot read");
    close(fd);
    *len = (size_t)st.st_size;
    return bytes;
}

static void store_file(const char *path, const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        world_die("cannot write");
    close(fd);
}

/* Every bit of a file beside the segment: the log is whole and served right, or the start is refused. */
static void test_other_bits(struct small *s, const char *name, bool may_refuse)
{
    char path[400], idx_path[400];
    size_t len, idx_len;
    snprintf(path, sizeof path, "%s/%s", s->w.dir, name);
    snprintf(idx_path, sizeof idx_path, "%s/0/00000000000000000000.idx", s->w.dir);
    small_restore(s, s->bytes, s->len);
    world_open(&s->w); /* makes the index */
    world_close(&s->w);
    uint8_t *idx = load_file(idx_path, &idx_len);
    small_restore(s, s->bytes, s->len);
    store_file(idx_path, idx, idx_len);
    uint8_t *bytes = load_file(path, &len);
    unsigned refused = 0;
    for (size_t bit = 0; bit < len * 8 && !failures; bit++) {
        uint64_t served, damaged;
        small_restore(s, s->bytes, s->len);
        store_file(idx_path, idx, idx_len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        store_file(path, bytes, len);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (world_try_open(&s->w) != ST_OK) {
            CHECK(may_refuse && s->w.error.len > 0, "%s bit %zu: refused", name, bit);
            refused++;
            continue;
        }
        CHECK(small_check(s, NULL, &served, &damaged) == SMALL_RECORDS && damaged == 0, "%s bit %zu", name,
              bit);
        CHECK(small_check(s, "even", &served, &damaged) == SMALL_RECORDS / 2 && damaged == 0,
              "%s bit %zu: by topic", name, bit);
        world_close(&s->w);
    }
    printf("%s: %zu bits, %u refused\n", name, len * 8, refused);
    free(bytes);
    free(idx);
}

int main(int argc, char **argv)
{
    unsigned seed = argc > 1 ? (unsigned)atoi(argv[1]) : test_seed();
    printf("seed %u\n", seed);
    log_setup((enum log_level)(LOG_ERROR + 1),
              LOG_FORM_TEXT); /* thousands of damaged logs would fill the output */
    test_kill(seed);
    static struct small s;
    small_make(&s);
    test_lengths(&s);
    test_segment_bits(&s);
    test_other_bits(&s, "0/00000000000000000000.idx", false);
    test_other_bits(&s, "MANIFEST", true);
    free(s.bytes);
    world_deinit(&s.w);
    return failures ? 1 : 0;
}
