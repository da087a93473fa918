/* Threads that hold, take and release the same keys: whatever they do at the same moment, nobody's count is
 * lost, the limit of holders is kept, and tokens are given once. */
#include "check.h"

#include "core/buckets.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 20000, KEYS = 40, MOST = 3 };

static struct buckets *table;
static atomic_uint inside; /* threads that hold key 0 */
static atomic_ulong taken;

static void *run(void *ctx)
{
    unsigned seed = *(unsigned *)ctx;
    const struct bucket_rate rate = {1, 1000000000};
    for (unsigned n = 0; n < ROUNDS; n++) {
        bool shared;
        seed = seed * 1103515245 + 12345;
        unsigned key = seed >> 16 & 1 ? 0 : (seed >> 17) % KEYS;
        struct bucket_place *p = buckets_hold(table, slice_of(&key, sizeof key), MOST, 1, &shared);
        if (!p)
            continue;
        if (key == 0) /* it is held from the beginning to the end: it cannot lose its place */
            CHECK(!shared && atomic_fetch_add(&inside, 1) < MOST - 1);
        if (key == 0) {
            bucket_take(p, BUCKET_PUBLISH, &rate, 0);
            atomic_fetch_add(&taken, 1);
            atomic_fetch_sub(&inside, 1);
        }
        buckets_release(p);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS], zero = 0;
    bool shared;
    CHECK(buckets_create(64, &table) == ST_OK);
    struct bucket_place *kept = buckets_hold(table, slice_of(&zero, sizeof zero), 0, 1, &shared);
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        CHECK(pthread_create(&threads[i], NULL, run, &seeds[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(bucket_holders(kept) == 1);
    CHECK(atomic_load(&kept->full_at_ns[BUCKET_PUBLISH]) == atomic_load(&taken));
    buckets_release(kept);
    for (unsigned key = 0; key < KEYS; key++) {
        struct bucket_place *p = buckets_hold(table, slice_of(&key, sizeof key), 1, 1, &shared);
        CHECK(p != NULL);
        buckets_release(p);
    }
    buckets_destroy(table);
    return 0;
}
