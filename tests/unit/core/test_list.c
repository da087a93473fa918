#include "core/list.h"

#include <criterion/criterion.h>

struct item {
    int value;
    struct list link;
};

static void check(struct list *head, const int *want, int count)
{
    int i = 0;
    LIST_EACH (it, head) {
        cr_assert_lt(i, count);
        cr_assert_eq(LIST_OF(it, struct item, link)->value, want[i++]);
        cr_assert_eq(it->next->prev, it);
    }
    cr_assert_eq(i, count);
    cr_assert_eq(list_empty(head), count == 0);
}

static void fill(struct list *head, struct item *items, int count)
{
    list_init(head);
    for (int i = 0; i < count; i++) {
        items[i].value = i;
        list_push(head, &items[i].link);
    }
}

Test(list, keeps_the_order_of_pushes)
{
    struct list head;
    struct item items[4];
    fill(&head, items, 0);
    check(&head, NULL, 0);
    fill(&head, items, 4);
    check(&head, (int[]){0, 1, 2, 3}, 4);
}

Test(list, unlinks_anywhere_and_twice)
{
    struct list head;
    struct item items[3];
    fill(&head, items, 3);
    list_unlink(&items[1].link);
    check(&head, (int[]){0, 2}, 2);
    cr_assert(list_empty(&items[1].link), "an unlinked node points to itself");
    list_unlink(&items[1].link);
    list_unlink(&items[0].link);
    list_unlink(&items[2].link);
    check(&head, NULL, 0);
}

Test(list, pushes_before_any_node)
{
    struct list head;
    struct item items[2], first = {.value = 7};
    fill(&head, items, 2);
    list_push(head.next, &first.link);
    check(&head, (int[]){7, 0, 1}, 3);
}

Test(list, splices_to_the_tail)
{
    struct list a, b;
    struct item items_a[2], items_b[2];
    fill(&a, items_a, 2);
    fill(&b, items_b, 2);
    list_splice(&a, &b);
    check(&a, (int[]){0, 1, 0, 1}, 4);
    check(&b, NULL, 0);
    list_splice(&a, &b);
    check(&a, (int[]){0, 1, 0, 1}, 4);
    list_splice(&b, &a);
    check(&b, (int[]){0, 1, 0, 1}, 4);
    check(&a, NULL, 0);
}

Test(list, may_lose_the_current_node_in_a_walk)
{
    struct list head;
    struct item items[5];
    fill(&head, items, 5);
    LIST_EACH (it, &head)
        if (LIST_OF(it, struct item, link)->value % 2 == 0)
            list_unlink(it);
    check(&head, (int[]){1, 3}, 2);
}
