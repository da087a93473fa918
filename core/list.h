/* Intrusive, circular, doubly linked list. A node that is in no list points to itself, so linking
 * and unlinking never fail, need no memory, and a pointer is never checked for NULL. The owner of
 * the list owns the nodes' order, not their memory. Owning loop only. */
#ifndef TG_CORE_LIST_H
#define TG_CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Links `node` before `at`; with `at` the head that is the tail of the list. `node` is unlinked. */
static inline void list_push(struct list *at, struct list *node)
{
    node->next = at;
    node->prev = at->prev;
    at->prev->next = node;
    at->prev = node;
}

/* Safe on a node that is in no list. */
static inline void list_unlink(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Moves all nodes of `from` to the tail of `to`; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define LIST_OF(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* `it` may be unlinked and freed in the body; `it`'s successor may not. */
#define LIST_EACH(it, head)                                                                                  \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                                \
         it = it##_next, it##_next = it->next)

#endif
