#include "core/pool.h"

#include <criterion/criterion.h>
#include <string.h>

enum { NONE = POOL_CLASS_NONE };

Test(pool, size_decides_the_class)
{
    static const struct {
        size_t size;
        uint8_t want;
    } rows[] = {
        {0, 0},    {1, 0},    {63, 0},   {64, 0},      {65, 1},       {128, 1},        {129, 2},  {256, 2},
        {257, 3},  {512, 3},  {513, 4},  {1024, 4},    {1025, 5},     {2048, 5},       {2049, 6}, {4096, 6},
        {4097, 7}, {8191, 7}, {8192, 7}, {8193, NONE}, {65536, NONE}, {1 << 20, NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t got = 77;
        void *block = pool_alloc(rows[i].size, &got);
        cr_assert_not_null(block);
        cr_assert_eq(got, rows[i].want, "size %zu: %d, not %d", rows[i].size, got, rows[i].want);
        memset(block, 0xee, rows[i].size); /* all of it is ours: AddressSanitizer watches */
        pool_free(block, got);
    }
    pool_drain();
}

Test(pool, the_last_block_freed_comes_back_first)
{
    uint8_t class_a, class_b, class_c;
    void *a = pool_alloc(100, &class_a), *b = pool_alloc(100, &class_b);
    pool_free(a, class_a);
    pool_free(b, class_b);
    cr_assert_eq(pool_alloc(128, &class_c), b);
    cr_assert_eq(pool_alloc(65, &class_c), a);
    pool_free(a, class_a);
    pool_free(b, class_b);
    pool_drain();
}

Test(pool, blocks_are_aligned_for_any_type)
{
    uint8_t pool_class;
    for (size_t size = 1; size <= 8192; size = size * 3 / 2 + 1) {
        void *block = pool_alloc(size, &pool_class);
        cr_assert_eq((uintptr_t)block % _Alignof(max_align_t), 0);
        pool_free(block, pool_class);
    }
    pool_drain();
}

/* More than the lists keep, in every class: what is over goes to malloc, and draining leaves nothing
 * (LeakSanitizer watches). */
Test(pool, gives_back_what_is_over_its_bound)
{
    enum { BLOCKS = 20000 };
    static void *blocks[BLOCKS];
    for (size_t size = 64; size <= 8192; size *= 2) {
        uint8_t pool_class;
        int count = size <= 128 ? BLOCKS : 1500;
        for (int i = 0; i < count; i++)
            cr_assert_not_null(blocks[i] = pool_alloc(size, &pool_class));
        for (int i = 0; i < count; i++)
            pool_free(blocks[i], pool_class);
    }
    pool_drain();
    pool_drain();
}

Test(pool, frees_null)
{
    pool_free(NULL, 0);
    pool_free(NULL, POOL_CLASS_NONE);
}
