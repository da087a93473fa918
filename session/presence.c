#include "session/presence.h"

#include "core/hash.h"

#include <stdlib.h>

enum { LENGTH_BYTES = 2, USERS_BYTES_MAX = 4 << 20 };

enum status presence_create(struct presence **out)
{
    struct presence *p = calloc(1, sizeof *p);
    if (!p)
        return ST_NO_MEMORY;
    buf_init(&p->users, USERS_BYTES_MAX);
    *out = p;
    return ST_OK;
}

void presence_free(struct presence *p)
{
    if (!p)
        return;
    buf_deinit(&p->users);
    free(p);
}

bool presence_user_next(const struct presence *p, size_t *place, struct slice *user)
{
    if (*place >= p->users.len)
        return false;
    const uint8_t *at = p->users.data + *place;
    *user = slice_of(at + LENGTH_BYTES, (size_t)at[0] | (size_t)at[1] << 8);
    *place += LENGTH_BYTES + user->len;
    return true;
}

/* The slot where the user stands or would stand: there are always free ones. */
static uint32_t *slot_of(struct presence *p, struct slice user)
{
    size_t i = (size_t)hash64(user) % PRESENCE_SLOTS;
    for (; p->slots[i] != 0; i = (i + 1) % PRESENCE_SLOTS) {
        size_t place = p->slots[i] - 1;
        struct slice known;
        if (presence_user_next(p, &place, &known) && slice_equal(known, user))
            break;
    }
    return &p->slots[i];
}

static void note_user(struct presence *p, struct slice user)
{
    uint32_t *slot = slot_of(p, user);
    uint8_t *to;
    if (*slot != 0)
        return;
    if (p->user_count == PRESENCE_USERS_MAX || user.len > UINT16_MAX ||
        !(to = buf_reserve(&p->users, LENGTH_BYTES + user.len))) {
        p->more_users = true;
        return;
    }
    *slot = (uint32_t)p->users.len + 1;
    to[0] = (uint8_t)user.len;
    to[1] = (uint8_t)(user.len >> 8);
    memcpy(to + LENGTH_BYTES, user.data, user.len);
    buf_advance(&p->users, LENGTH_BYTES + user.len);
    p->user_count++;
}

static bool on_session(struct walk *w, struct session *s)
{
    struct presence *p = LIST_OF(w, struct presence, walk);
    if (!session_wants(s, p->topic))
        return true;
    struct slice user = session_user(s);
    p->connections++;
    if (user.len > 0)
        note_user(p, user);
    return true;
}

static void on_end(struct walk *w)
{
    struct presence *p = LIST_OF(w, struct presence, walk);
    p->on_counted(p);
}

void presence_ask(struct hub *h, struct presence *p)
{
    p->walk.after = 0;
    p->walk.on_session = on_session;
    p->walk.on_end = on_end;
    walk_begin(h, &p->walk);
}
