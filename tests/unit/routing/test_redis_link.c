#include "routing/redis_link.h"

#include "routing/redis_reply.h"
#include "tests/fakes/redis_peer.h"

#include <stdio.h>
#include <stdlib.h>

static struct loop *loop;
static struct metrics *metrics;
static struct redis_peer peer;
static struct redis_link *link_;
static unsigned opened, downs, replies;
static bool closes; /* the callback that comes next closes the link */
static char why[256], story[256];

static void on_open(void *ctx)
{
    (void)ctx;
    opened++;
}

static void on_down(void *ctx, const char *text)
{
    (void)ctx;
    downs++;
    snprintf(why, sizeof why, "%s", text);
    if (closes) {
        redis_link_close(link_);
        link_ = NULL;
    }
}

static const struct redis_link_ops ops = {.on_open = on_open, .on_down = on_down};

static void open_link(void)
{
    cr_assert_eq(redis_link_open(loop, metrics, (struct sockaddr *)&peer.at, sizeof peer.at, NULL,
                                 "127.0.0.1", &ops, NULL, &link_),
                 ST_OK);
    PEER_UNTIL(&peer, loop, opened > 0 && peer.fd >= 0);
}

static void setup(void)
{
    opened = downs = replies = 0;
    closes = false;
    memset(story, 0, sizeof story);
    cr_assert_eq(loop_create(clock_system(), 0, &loop), ST_OK);
    metrics = metrics_register();
    (void)loop_prepare(loop);
    peer_open(&peer);
}

static void teardown(void)
{
    redis_link_close(link_);
    link_ = NULL;
    peer_close(&peer);
    loop_destroy(loop);
}

TestSuite(redis_link, .init = setup, .fini = teardown);

/* The story of replies: the subject's letter, then what it got. */
static void on_reply(void *ctx, void *subject, const struct redisReply *r)
{
    struct slice text = redis_reply_is_error(r) ? redis_reply_error(r) : redis_reply_text(r);
    size_t at = strlen(story);
    (void)ctx;
    snprintf(story + at, sizeof story - at, "%s%.*s ", (const char *)subject, SLICE_ARG(text));
    replies++;
    if (closes) {
        redis_link_close(link_);
        link_ = NULL;
    }
}

static enum status ask(const char *word, const char *subject)
{
    const struct slice words[] = {slice_cstr(word)};
    return redis_link_ask(link_, words, 1, on_reply, NULL, (void *)(uintptr_t)subject);
}

Test(redis_link, commands_of_a_turn_leave_together_and_replies_come_in_order)
{
    static const char batch[] = "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$5\r\na b\r\n\r\n*1\r\n$0\r\n\r\n";
    const struct slice get[] = {slice_cstr("GET"), slice_cstr("a b\r\n")};
    open_link();
    cr_assert_eq(redis_link_owed_since_ms(link_), UINT64_MAX);
    cr_assert_eq(ask("PING", "A"), ST_OK);
    cr_assert_eq(redis_link_ask(link_, get, 2, on_reply, NULL, (void *)(uintptr_t) "B"), ST_OK);
    cr_assert_eq(ask("", "C"), ST_OK);
    cr_assert_eq(redis_link_open_count(link_), 3);
    PEER_UNTIL(&peer, loop, peer.len == sizeof batch - 1);
    cr_assert_str_eq(peer.got, batch);
    cr_assert_neq(redis_link_owed_since_ms(link_), UINT64_MAX);
    for (const char *c = "+one\r\n$3\r\ntwo\r\n-ERR three\r\n"; *c; c++) { /* in pieces of any size */
        peer_say_bytes(&peer, c, 1);
        loop_dispatch(loop);
        (void)loop_prepare(loop);
    }
    PEER_UNTIL(&peer, loop, replies == 3);
    cr_assert_str_eq(story, "Aone Btwo CERR three ");
    cr_assert_eq(redis_link_open_count(link_), 0);
    cr_assert_eq(downs, 0);
}

Test(redis_link, commands_without_their_reply_are_bounded)
{
    open_link();
    for (unsigned i = 0; i < REDIS_LINK_OPEN_MAX; i++)
        cr_assert_eq(ask("X", "x"), ST_OK);
    cr_assert_eq(ask("X", "x"), ST_FULL);
    PEER_UNTIL(&peer, loop, peer.len > 0);
    peer_say(&peer, "+\r\n");
    PEER_UNTIL(&peer, loop, replies == 1);
    cr_assert_eq(ask("X", "x"), ST_OK);
    cr_assert_eq(ask("X", "x"), ST_FULL);
}

Test(redis_link, bytes_that_wait_are_bounded_and_no_command_is_cut)
{
    enum { LARGE = 1 << 20 };
    char *large = calloc(1, LARGE);
    const struct slice words[] = {slice_cstr("SET"), slice_of(large, LARGE)};
    unsigned taken = 0;
    size_t bytes = 0;
    open_link();
    while (redis_link_ask(link_, words, 2, on_reply, NULL, (void *)(uintptr_t) "l") == ST_OK)
        taken++;
    cr_assert_eq(taken, REDIS_LINK_OUT_BYTES_MAX / LARGE - 1);
    cr_assert_eq(redis_link_ask(link_, words, 2, on_reply, NULL, NULL), ST_FULL);
    cr_assert_eq(ask("PING", "p"), ST_OK); /* a short one has room */
    size_t whole =
        taken * (strlen("*2\r\n$3\r\nSET\r\n$1048576\r\n\r\n") + LARGE) + strlen("*1\r\n$4\r\nPING\r\n");
    PEER_UNTIL(&peer, loop, (bytes += peer.len, peer.len = 0, bytes == whole));
    free(large);
}

struct hostile {
    const char *text;
    const char *says;
};

Test(redis_link, what_is_no_reply_ends_the_link)
{
    static const struct hostile table[] = {
        {"no reply\r\n", "no reply"},
        {"*2147483647\r\n", "no reply"},
        {"*65537\r\n", "no reply"},
        {"*2\r\n*40000\r\n+a\r\n", ""}, /* as many as are allowed: it waits for the rest */
        {"$-5\r\n", "no reply"},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n", "no reply"},
        {"+one\r\n+two\r\n", "nobody has asked for"},
        {":12x\r\n", "no reply"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        opened = downs = 0;
        memset(why, 0, sizeof why);
        open_link();
        cr_assert_eq(ask("PING", "p"), ST_OK);
        PEER_UNTIL(&peer, loop, peer.len > 0);
        peer_say(&peer, table[i].text);
        if (table[i].says[0]) {
            PEER_UNTIL(&peer, loop, downs > 0);
            cr_assert(strstr(why, table[i].says), "%s: %s", table[i].text, why);
            cr_assert_eq(ask("PING", "p"), ST_FULL, "%s", table[i].text);
        } else {
            peer_hang_up(&peer);
            PEER_UNTIL(&peer, loop, downs > 0);
            cr_assert(strstr(why, "closed"), "%s: %s", table[i].text, why);
        }
        cr_assert_eq(downs, 1);
        redis_link_close(link_);
        link_ = NULL;
        peer_hang_up(&peer);
    }
}

Test(redis_link, a_reply_without_an_end_is_not_kept)
{
    static char junk[1 << 16];
    memset(junk, 'x', sizeof junk);
    open_link();
    cr_assert_eq(ask("GET", "g"), ST_OK);
    PEER_UNTIL(&peer, loop, peer.len > 0);
    peer_say(&peer, "$500000000\r\n");
    size_t said = 0;
    PEER_UNTIL(&peer, loop, (peer_say_bytes(&peer, junk, sizeof junk), said += sizeof junk, downs > 0));
    cr_assert(strstr(why, "too large"), "%s", why);
    cr_assert_eq(replies, 0);
}

Test(redis_link, it_may_be_closed_inside_every_callback)
{
    open_link();
    cr_assert_eq(ask("ONE", "1"), ST_OK);
    cr_assert_eq(ask("TWO", "2"), ST_OK);
    PEER_UNTIL(&peer, loop, peer.len > 0);
    closes = true;
    peer_say(&peer, "+a\r\n+b\r\n");
    PEER_UNTIL(&peer, loop, replies > 0);
    cr_assert_str_eq(story, "1a "); /* nothing comes of a closed link */
    closes = false;
    opened = 0;
    open_link();
    closes = true;
    peer_hang_up(&peer);
    PEER_UNTIL(&peer, loop, downs > 0);
}

Test(redis_link, nobody_listens)
{
    struct sockaddr_in at = peer.at;
    peer_close(&peer);
    cr_assert_eq(redis_link_open(loop, metrics, (struct sockaddr *)&at, sizeof at, NULL, "127.0.0.1", &ops,
                                 NULL, &link_),
                 ST_OK);
    peer_open(&peer);
    PEER_UNTIL(&peer, loop, downs > 0);
    cr_assert(strstr(why, "connect"), "%s", why);
    cr_assert_eq(opened, 0);
}
