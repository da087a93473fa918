/* Segments of two lanes are read by several threads at a start that has lost its indexes: the same files come
 * out as were there, whoever read which. For ThreadSanitizer. */
#include "fakes/store_world.h"
#include "race/check.h"

enum { LANES = 2, RECORDS = 8000, TOPICS = 300, THREADS = 8, FILES_MAX = 256 };

struct copy {
    char path[700];
    uint8_t *bytes;
    size_t len;
};

static struct copy copies[FILES_MAX];
static unsigned copy_count;

static uint8_t *read_whole(const char *path, size_t *len)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    CHECK(f && fstat(fileno(f), &st) == 0);
    *len = (size_t)st.st_size;
    uint8_t *bytes = malloc(*len + 1);
    CHECK(bytes && fread(bytes, 1, *len, f) == *len);
    fclose(f);
    return bytes;
}

static void take_indexes(const struct world *w)
{
    for (unsigned lane = 0; lane < LANES; lane++) {
        char folder[300];
        snprintf(folder, sizeof folder, "%s/%u", w->dir, lane);
        DIR *dir = opendir(folder);
        CHECK(dir);
        for (struct dirent *e; (e = readdir(dir));) {
            if (!strstr(e->d_name, ".idx"))
                continue;
            CHECK(copy_count < FILES_MAX);
            struct copy *c = &copies[copy_count++];
            snprintf(c->path, sizeof c->path, "%s/%s", folder, e->d_name);
            c->bytes = read_whole(c->path, &c->len);
            CHECK(unlink(c->path) == 0);
        }
        closedir(dir);
    }
}

static void fill(struct world *w)
{
    for (unsigned i = 0; i < RECORDS; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "t/%u", i * 7919u % TOPICS);
        world_put(w, i % LANES, topic, "some sixty bytes of payload, so that there are many segments");
        if (i % 100 == 99)
            for (unsigned lane = 0; lane < LANES; lane++)
                store_flush(w->store, lane);
    }
    for (unsigned lane = 0; lane < LANES; lane++)
        world_wait_durable(w, lane, store_next(w->store, lane));
}

int main(void)
{
    struct world w;
    world_init(&w, LANES);
    w.options.segment_bytes = 64 << 10;
    w.options.recovery_threads = THREADS;
    world_open(&w);
    fill(&w);
    world_close(&w);
    take_indexes(&w);
    CHECK(copy_count > 10);
    world_open(&w);
    for (unsigned i = 0; i < copy_count; i++) {
        size_t len;
        uint8_t *bytes = read_whole(copies[i].path, &len);
        CHECK(len == copies[i].len && memcmp(bytes, copies[i].bytes, len) == 0);
        free(bytes);
        free(copies[i].bytes);
    }
    CHECK(world_count(&w, 0, NULL) + world_count(&w, 1, NULL) == RECORDS);
    world_deinit(&w);
    return 0;
}
