/* Arbitrary bytes as a segment file: the store opens or refuses, does not crash, and whatever it serves is a
 * record that a second, naive reading of the same bytes also finds valid at that offset (docs/FORMAT.md 4).
 *
 * The first byte says what is done to the rest: bit 0: a valid segment header is put before it; bit 1: CRCs
 * of what looks like frame headers and records are mended, so that the fuzzer gets past them; bit 2: the
 * MANIFEST says that the last stop was clean. */
#include "core/crc32c.h"
#include "core/logging.h"
#include "core/store/format.h"
#include "core/store/frame.h"
#include "core/store/manifest.h"
#include "core/store/record.h"
#include "core/store/segment.h"
#include "fakes/store_world.h"

#include <fcntl.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint64_t EPOCH = 0x1234567812345678;
enum { LOG_EPOCH = 0xabc, INPUT_BYTES_MAX = 32 << 10 };
static struct world w;

static void clean_up(void)
{
    world_remove(w.dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    log_setup((enum log_level)(LOG_ERROR + 1), LOG_FORM_TEXT);
    world_init(&w, 1);
    w.options.segment_bytes = 64 << 10;
    atexit(clean_up);
    return 0;
}

static void put_header(uint8_t *bytes)
{
    struct segment_header h = {
        .magic = SEGMENT_MAGIC, .version = 1, .segment_epoch = EPOCH, .log_epoch = LOG_EPOCH};
    h.crc = crc32c(0, &h, offsetof(struct segment_header, crc));
    memcpy(bytes, &h, sizeof h);
}

static void mend_records(uint8_t *body, size_t len, uint64_t frame_base)
{
    uint32_t seed = record_seed(EPOCH, frame_base);
    for (size_t at = 0; at + sizeof(struct record_header) <= len;) {
        uint32_t claimed = record_claimed_bytes(body + at, len - at);
        if (claimed == 0)
            return;
        uint32_t crc = crc32c(seed, body + at + 4, claimed - 4);
        memcpy(body + at, &crc, sizeof crc);
        at += claimed;
    }
}

static void mend(uint8_t *bytes, size_t len)
{
    for (size_t at = 64; at + sizeof(struct frame_header) <= len;) {
        struct frame_header h;
        memcpy(&h, bytes + at, sizeof h);
        if (h.frame_bytes < sizeof h || h.frame_bytes > len - at || h.frame_bytes % 8 != 0)
            return;
        h.segment_epoch = EPOCH;
        h.body_bytes = h.frame_bytes - (uint32_t)sizeof h;
        h.flags &= FRAME_CONTROL;
        frame_header_encode(&h, bytes + at);
        mend_records(bytes + at + sizeof h, h.body_bytes, h.base_offset);
        at += h.frame_bytes;
    }
}

static void place_file(const uint8_t *bytes, size_t len, bool stopped)
{
    char path[400];
    struct manifest m = {.epoch = LOG_EPOCH, .lane_count = 1, .incarnation = 1, .stopped = stopped};
    snprintf(path, sizeof path, "%s/0", w.dir);
    world_remove(path);
    if (mkdir(path, 0750) < 0)
        world_die("mkdir");
    snprintf(path, sizeof path, "%s/0/00000000000000000000.seg", w.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (write(fd, bytes, len) != (ssize_t)len)
        world_die("write");
    close(fd);
    if (manifest_write(store_files_system(), w.dir, &m) < 0)
        world_die("manifest");
}

/* Is there a valid record with this offset, topic and payload anywhere in the bytes? */
static bool stands_in(const uint8_t *bytes, size_t len, const struct msg *m)
{
    struct segment_header segment;
    uint64_t epoch = segment_header_decode(bytes, &segment) == ST_OK ? segment.segment_epoch : 0;
    for (size_t at = 64; at + sizeof(struct record_header) <= len; at += 8) {
        struct record r;
        struct record_header h;
        uint32_t claimed = record_claimed_bytes(bytes + at, len - at);
        if (claimed == 0)
            continue;
        memcpy(&h, bytes + at, sizeof h);
        uint64_t base = m->offset - h.offset_delta;
        if (epoch == 0) /* the header is damaged: the first frame says it */
            memcpy(&epoch, bytes + 64 + 8, sizeof epoch);
        if (record_decode(slice_of(bytes + at, claimed), record_seed(epoch, base), base, &r) == ST_OK &&
            r.offset == m->offset && slice_equal(r.topic, msg_topic(m)) &&
            slice_equal(r.payload, msg_payload(m)))
            return true;
    }
    return false;
}

static void read_all(const uint8_t *bytes, size_t len, struct slice topic)
{
    uint64_t from = store_first(w.store, 0);
    for (unsigned reads = 0;; reads++) {
        struct world_read r;
        world_read_init(&r, 0, from);
        r.read.topic = topic;
        world_read_run(&w, &r);
        for (uint64_t i = 0; i < r.read.found; i++) {
            if (!stands_in(bytes, len, r.read.msgs[i]))
                world_die("served what is not there");
        }
        uint64_t next = r.read.next, end = r.read.end;
        world_read_free(&r);
        if (next >= end)
            return;
        if (next <= from || reads > 100000)
            world_die("a read that does not move");
        from = next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[INPUT_BYTES_MAX + 64];
    if (size < 1 || size > INPUT_BYTES_MAX)
        return 0;
    size_t head = data[0] & 1 ? 64 : 0, len = head + size - 1;
    memset(bytes, 0, sizeof bytes);
    if (head)
        put_header(bytes);
    memcpy(bytes + head, data + 1, size - 1);
    if (data[0] & 2)
        mend(bytes, len);
    place_file(bytes, len, data[0] & 4);
    if (world_try_open(&w) != ST_OK)
        return 0;
    read_all(bytes, len, (struct slice){0});
    read_all(bytes, len, slice_cstr("t"));
    world_close(&w);
    loop_dispatch(w.loop);
    return 0;
}
