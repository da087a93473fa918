#include "core/store/manifest.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/tg-manifest-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}

static void teardown(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/MANIFEST", dir);
    unlink(path);
    rmdir(dir);
}

TestSuite(manifest, .init = setup, .fini = teardown);

static struct manifest sample(uint32_t lanes)
{
    struct manifest m = {.epoch = 0xa1, .lane_count = lanes, .incarnation = 12, .stopped = true};
    for (uint32_t i = 0; i < lanes; i++) {
        m.lanes[i].first = i;
        m.lanes[i].end = UINT64_MAX - 100 - i;
        m.lanes[i].next = UINT64_MAX - i;
    }
    return m;
}

Test(manifest, round_trip)
{
    for (uint32_t lanes = 1; lanes <= STORE_LANES_MAX; lanes += 21) {
        struct manifest m = sample(lanes), back;
        cr_assert_eq(manifest_write(store_files_system(), dir, &m), 0);
        cr_assert_eq(manifest_read(dir, &back), ST_OK);
        cr_assert(back.epoch == m.epoch && back.lane_count == lanes && back.incarnation == 12 &&
                  back.stopped);
        cr_assert_eq(memcmp(m.lanes, back.lanes, sizeof m.lanes), 0);
    }
}

Test(manifest, missing_is_not_damaged)
{
    struct manifest m;
    cr_assert_eq(manifest_read(dir, &m), ST_NOT_FOUND);
}

Test(manifest, every_flipped_byte_and_every_length_is_seen)
{
    struct manifest m = sample(2), back;
    char path[128], text[1024];
    cr_assert_eq(manifest_write(store_files_system(), dir, &m), 0);
    snprintf(path, sizeof path, "%s/MANIFEST", dir);
    int fd = open(path, O_RDWR);
    ssize_t len = read(fd, text, sizeof text);
    for (ssize_t i = 0; i < len; i++) {
        char changed = (char)(text[i] ^ 4);
        cr_assert_eq(pwrite(fd, &changed, 1, i), 1);
        cr_assert_neq(manifest_read(dir, &back), ST_OK, "byte %zd", i);
        cr_assert_eq(pwrite(fd, &text[i], 1, i), 1);
    }
    cr_assert_eq(manifest_read(dir, &back), ST_OK);
    for (ssize_t i = len - 2; i >= 0; i--) { /* the last line's end may be missing */
        cr_assert_eq(ftruncate(fd, i), 0);
        cr_assert_neq(manifest_read(dir, &back), ST_OK, "length %zd", i);
    }
    close(fd);
}
