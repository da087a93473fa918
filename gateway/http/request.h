/* A request of the private API from its head to its answer. Knows no sockets and no HTTP library: the door
 * (door.c) feeds it and sends what it says.
 *
 *   request_head    -> READING or DISCARDING, or at once ANSWERED (refuse before the body is read)
 *   request_body    the body's bytes, as they come
 *   request_end     -> ANSWERED, or WAITING for the log or a shard
 *   request_answered, or request_give_up when that takes too long, makes it ANSWERED later
 *
 * A refusal whose body is still to come waits for the end of it (DISCARDING): a server that answers and
 * closes while the peer still sends makes the kernel reset the connection, and the peer may never see the
 * answer. Owning loop only. */
#ifndef TG_GATEWAY_HTTP_REQUEST_H
#define TG_GATEWAY_HTTP_REQUEST_H

#include "gateway/edge.h"
#include "gateway/http/access.h"
#include "gateway/http/batch_split.h"
#include "gateway/http/problem.h"
#include "gateway/target.h"
#include "gateway/request_id.h"
#include "session/principal.h"

enum {
    PAGES_OPEN_MAX = 64, /* that are being read */
    KEPT_BYTES_MIN = 64 << 20, /* bodies and pages kept at a time, besides four of the largest messages */
    PROBLEM_BYTES_MAX = 4096,
    RETRY_MS = 1000,
};

/* What the requests of a door share. */
struct api {
    struct edge *edge;
    struct access_rules access;
    bool probes_open; /* /healthz and the like need no identity even where all else does */
    struct topic_limits topic;
    uint64_t kept_bytes, kept_bytes_max;
    uint64_t requests; /* so far: the next one's number */
    unsigned pages_open;
    struct list answered; /* requests that have waited and may be answered now: struct request.link */
    struct list working; /* batches with work for another turn: api_work */
    struct list orphans; /* batches that were given up and whose publishes are not back */
};

struct answer {
    unsigned status;
    const char *type; /* media type, static */
    const char *allow; /* 405; NULL: none */
    bool last; /* the connection closes: what follows may not be what it seems */
    uint32_t retry_ms;
    struct buf body;
};

enum request_state {
    REQUEST_NEW,
    REQUEST_READING,
    REQUEST_DISCARDING,
    REQUEST_WAITING,
    REQUEST_ANSWERED,
};

struct request {
    struct api *api;
    struct list link; /* api->answered */
    void *owner; /* the door's */
    const struct route *route;
    struct principal *principal; /* never NULL; not known yet while there is a check */
    struct auth_check *check; /* of its credential; the request goes on when that is back */
    bool requires; /* the right to do `op` with the topic */
    enum access_op op;
    enum request_state state;
    struct head head; /* borrowed texts that live as long as the request */
    struct target target;
    struct slice topic; /* in `space`, or in `made` */
    struct slice user; /* /v1/users: as it was named */
    struct buf made; /* a topic that is made of what was given */
    char id[REQUEST_ID_BYTES]; /* what errors and their log lines call it */
    bool deletes, posts; /* the method is DELETE, POST */
    bool parameters_read; /* of the query; else there are none */
    uint64_t body_max; /* limit.message_bytes, unless the route says otherwise */
    struct buf body;
    uint64_t kept_bytes; /* of api->kept_bytes */
    struct answer answer;
    void *pending; /* what it waits for: the route's */
    union {
        struct {
            uint64_t ttl_ms; /* 0: for ever */
            bool accepted; /* do not wait for the disk */
            bool batch; /* several messages */
            enum batch_form form; /* of a batch */
            bool events; /* its items are CloudEvents */
        } publish;
        struct {
            struct place from;
            struct slice from_text; /* as given; read when `reverse` is known */
            uint32_t max;
            bool earliest; /* whatever is the first that is kept; else a gap is answered 410 */
            bool reverse; /* newest first: all below `from` */
            enum store_locate locate; /* the first read finds out where `from` is */
            uint64_t locate_value;
            bool retained; /* retained messages instead of the past; the topic may be a filter */
        } page;
        struct {
            uint64_t after; /* number of a connection */
            uint32_t max;
            bool one; /* `after` is the one that is asked for */
        } list;
    };
    struct slice asked; /* the raw target without the authority of an absolute one */
    size_t raw_len;
    uint8_t texts[]; /* the raw target, then as much again for what is decoded of it */
};

/* The target as it came. NULL: no memory. */
struct request *request_create(struct api *api, struct slice raw_target);
void request_free(struct request *r); /* NULL is allowed */

struct request_line {
    const char *method, *version;
    size_t head_bytes, head_bytes_max;
    bool unread; /* the head has bytes that are in no part of it that we see */
};
/* r->head is filled in. */
void request_head(struct request *r, const struct request_line *line);
void request_body(struct request *r, struct slice bytes);
void request_end(struct request *r);
/* Waiting took too long: an answer that says what is known. The state must be WAITING. */
void request_give_up(struct request *r);

/* Goes on with what was too much for one turn. True: there was something; come again before the loop waits.
 */
bool api_work(struct api *api);
/* The loop has ended: publishes do not come back any more. */
void api_drop_orphans(struct api *api);

/* --- for routes --- */

/* Each makes the answer. The state is the caller's affair except for a WAITING request, which becomes
 * ANSWERED and joins api->answered. */
void request_refuse(struct request *r, const struct problem *p);
void request_bad(struct request *r, const char *detail); /* 400 bad_request */
void request_unsupported(struct request *r, const char *detail); /* 501 */
void request_not_found(struct request *r, const char *detail); /* 404 */
void request_unavailable(struct request *r, const char *detail); /* 503, try again */
/* Takes the body over (leaves zeroes). */
void request_reply(struct request *r, unsigned status, const char *type, struct buf *body);
bool request_is_answered(const struct request *r);
struct slice request_id(const struct request *r);
/* Reads the topic from the path below the route or from ?topic=, and hands the other parameters to
 * `on_parameter` (NULL: there are none), which refuses what it does not like. False: refused. */
bool request_read_topic(struct request *r,
                        void (*on_parameter)(struct request *r, struct slice name, struct slice value));
/* The same of a topic filter. */
bool request_read_filter(struct request *r,
                         void (*on_parameter)(struct request *r, struct slice name, struct slice value));

/* The parameters of the query; `topic` among them goes to r->topic, which must be empty then. */
void request_read_parameters(struct request *r,
                             void (*on_parameter)(struct request *r, struct slice name, struct slice value));
/* 400: there is no parameter of that name here; `more`: which there are, "" or "; there are ...". */
void request_unknown_parameter(struct request *r, struct slice name, const char *more);
/* True: it publishes one message, publish.c does the rest. */
bool request_publishes(const struct request *r);

/* The caller needs that right to r->topic. False: he has not, and the request is refused. While his
 * credential is being checked it is true, and comes to light later. */
bool request_require(struct request *r, enum access_op op);

/* Counts bytes that the request makes us keep. False: too much is kept already. */
bool request_keep(struct request *r, uint64_t bytes);
void request_release(struct request *r, uint64_t bytes);

/* Decimal, 1 to 2^53-1, no sign, no leading zeros. */
bool read_number(struct slice text, uint64_t *out);

/* --- routes --- */

struct route {
    const char *path;
    bool below; /* also everything below it: the topic */
    const char *allow; /* methods, as in the Allow field; NULL: all of it is answered 501 */
    void (*begin)(struct request *r); /* looks at head and target; NULL: nothing to look at */
    void (*run)(struct request *r); /* answers, or waits */
    void (*give_up)(struct request *r);
    bool takes_body;
    bool for_users; /* whoever is known may call it; else only who may administer */
    enum access_op op; /* what is done with the topic; a DELETE publishes */
};
const struct route *route_find(struct slice path); /* NULL: there is none */
extern const struct route routes[];

void publish_begin(struct request *r);
void publish_look_at_head(struct request *r); /* the rest of publish_begin: the topic is known */
void publish_run(struct request *r);
void publish_give_up(struct request *r);
void publish_count_refused(struct request *r); /* by its answer */
/* A token for one message of the caller. False: he is over his rate, and *out says so. */
bool publish_admitted(const struct request *r, struct problem *out);
void publish_refuse(struct request *r, enum status status); /* the log or the shard has refused it */
struct problem publish_problem(enum status status); /* the same, with static texts */
enum metric publish_refusal(unsigned status); /* what a publish that is answered so counts as */

struct publish_item;
/* Why it may not be published. False: it may. */
bool publish_objection(const struct request *r, const struct publish_item *item, struct problem *out);
/* It was not objected to. ST_NO_MEMORY, ST_TOO_LARGE. */
enum status publish_make_msg(const struct request *r, const struct publish_item *item,
                             struct msg **out) MUST_CHECK;

void batch_run(struct request *r);
void batch_give_up(struct request *r);

/* What /v1/history and GET /v1/retained have in common: r->page and r->topic say what is read. */
void page_run(struct request *r);
void page_give_up(struct request *r);
/* Parameters of a page: max and from. True: `name` was one of them. */
bool page_parameter(struct request *r, struct slice name, struct slice value);
void page_defaults(struct request *r);
/* When all parameters are known. It may refuse. */
void page_settle(struct request *r);

void history_begin(struct request *r);

void users_begin(struct request *r);
void users_run(struct request *r);
void users_give_up(struct request *r);

void snapshot_run(struct request *r);
void snapshot_give_up(struct request *r);

void retained_begin(struct request *r);
void retained_run(struct request *r);
void retained_give_up(struct request *r);

void connections_begin(struct request *r);
void connections_run(struct request *r);
void connections_give_up(struct request *r);

void sessions_begin(struct request *r);
void sessions_run(struct request *r);
void sessions_give_up(struct request *r);

void presence_begin(struct request *r);
void presence_run(struct request *r);
void presence_give_up(struct request *r);

void nodes_run(struct request *r);
void nodes_give_up(struct request *r);
void openapi_run(struct request *r);

void tickets_begin(struct request *r);
void tickets_run(struct request *r);

void revocations_begin(struct request *r);
void revocations_run(struct request *r);
void revocations_give_up(struct request *r);

void drops_run(struct request *r);
void drops_give_up(struct request *r);

void drain_run(struct request *r);

void health_live(struct request *r);
void health_ready(struct request *r);
void health_metrics(struct request *r);
void capabilities_run(struct request *r);

#endif
