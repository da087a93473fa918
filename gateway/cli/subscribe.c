/* An event stream is lines of text: a message is a block with one `data:` line and no event name; `gap` and
 * `bye` name their event first (PROTOCOL.md 1). So a client of it needs no library. */
#include "gateway/cli/subscribe.h"

#include "core/base64.h"
#include "core/json.h"
#include "gateway/cli/log_target.h"
#include "gateway/cli/node_api.h"
#include "gateway/cli/node_target.h"

#include <stdio.h>
#include <stdlib.h>

enum { TARGET_BYTES_MAX = 1 << 18, EVENT_BYTES = 32, TEXT_BYTES_MAX = 1 << 29 };

struct subscribing {
    struct node_target node;
    const char *from, *token;
    uint64_t left; /* messages until the end; UINT64_MAX: there is none */
    bool json;
    struct buf target, text;
};

/* --- printing ----------------------------------------------------------------------------------- */

static enum status put_payload(struct slice object, struct buf *out)
{
    struct json_value v;
    if (json_find(object, "data", &v) == ST_OK)
        return buf_put(out, v.raw);
    if (json_find(object, "text", &v) == ST_OK)
        return json_text(v, out);
    if (json_find(object, "b64", &v) != ST_OK || v.type != JSON_IS_STRING)
        return ST_INVALID;
    return base64_decode(slice_of(v.raw.data + 1, v.raw.len - 2), out); /* it has no escapes */
}

/* "topic payload", bytes as they are. */
static enum status put_plain(struct slice object, struct buf *out)
{
    struct json_value topic;
    enum status st = json_find(object, "topic", &topic);
    if (st == ST_OK)
        st = json_text(topic, out);
    if (st == ST_OK)
        st = buf_put_byte(out, ' ');
    return st == ST_OK ? put_payload(object, out) : st;
}

/* The `data:` line of a block. False: that was the last one that is wanted, or nobody reads any more. */
static bool on_message(struct subscribing *s, struct slice data)
{
    struct json_value msg;
    struct slice object = data;
    if (json_find(data, "msg", &msg) == ST_OK)
        object = msg.raw;
    buf_clear(&s->text);
    enum status st = s->json ? buf_put(&s->text, object) : put_plain(object, &s->text);
    if (st != ST_OK) {
        fprintf(stderr, "tidegate: a message that cannot be shown (%s)\n", status_name(st));
        return true;
    }
    fwrite(s->text.data, 1, s->text.len, stdout);
    putchar('\n');
    if (fflush(stdout) != 0) /* the reader of the pipe has gone: no error */
        return false;
    return s->left == UINT64_MAX || --s->left > 0;
}

/* --- reading ------------------------------------------------------------------------------------ */

static struct slice line_after(const char *line, size_t len, const char *name)
{
    size_t n = strlen(name);
    if (len < n || memcmp(line, name, n) != 0)
        return (struct slice){0};
    while (n < len && line[n] == ' ')
        n++;
    return slice_of(line + n, len - n);
}

/* Until the stream ends or enough has come. */
static int read_events(struct subscribing *s, FILE *f, char **line, size_t *room)
{
    char event[EVENT_BYTES] = "";
    ssize_t got;
    while ((got = getline(line, room, f)) > 0) {
        size_t len = (size_t)got;
        while (len > 0 && ((*line)[len - 1] == '\n' || (*line)[len - 1] == '\r'))
            len--;
        struct slice name = line_after(*line, len, "event:"), data = line_after(*line, len, "data:");
        if (len == 0)
            event[0] = '\0';
        else if (name.data)
            snprintf(event, sizeof event, "%.*s", SLICE_ARG(name));
        else if (data.data && event[0] == '\0' && !on_message(s, data))
            return EXIT_CODE_OK;
        else if (data.data && event[0] != '\0')
            fprintf(stderr, "tidegate: %s %.*s\n", event, SLICE_ARG(data));
    }
    fputs("tidegate: the node has ended the stream\n", stderr);
    return EXIT_CODE_RETRY;
}

/* The head of the answer. Its status; 0: there was none. */
static unsigned read_head(FILE *f, char **line, size_t *room)
{
    unsigned status = 0;
    ssize_t got;
    while ((got = getline(line, room, f)) > 0 && (*line)[0] != '\r' && (*line)[0] != '\n')
        if (status == 0 && sscanf(*line, "HTTP/1.1 %u", &status) != 1)
            return 0;
    return got > 0 ? status : 0;
}

static int subscribe_run(struct subscribing *s)
{
    const struct node_request r = {
        .public_port = true, .method = "GET", .target = (const char *)s->target.data, .token = s->token};
    char *line = NULL;
    size_t room = 0;
    FILE *f;
    enum status st = node_open(&s->node.settings, &r, &f);
    if (st != ST_OK)
        return node_call_failed(&s->node.settings, &r, st, 0, "");
    unsigned status = read_head(f, &line, &room);
    int code;
    if (status == 200) {
        code = read_events(s, f, &line, &room);
    } else {
        ssize_t got = status ? getline(&line, &room, f) : -1; /* the problem is one line */
        code = node_call_failed(&s->node.settings, &r, status ? ST_OK : ST_IO, status, got > 0 ? line : "");
    }
    free(line);
    fclose(f);
    return code;
}

static enum status put_target(struct subscribing *s)
{
    enum status st = buf_put_cstr(&s->target, "/sse?topic=");
    if (st == ST_OK)
        st = node_put_encoded(&s->target, slice_cstr(s->node.arguments.operands[0]));
    if (st == ST_OK && s->from)
        st = buf_put_cstr(&s->target, "&from=");
    if (st == ST_OK && s->from)
        st = node_put_encoded(&s->target, slice_cstr(s->from));
    return st == ST_OK ? buf_put_byte(&s->target, '\0') : st;
}

int subscribe_command(int count, char **words)
{
    struct subscribing s = {.left = UINT64_MAX};
    const char *wanted = NULL;
    const struct argument_option options[] = {
        {"--from", &s.from, NULL},
        {"--count", &wanted, NULL},
        {"--json", NULL, &s.json},
        {"--token", &s.token, NULL},
    };
    int code = node_target_parse(count, words, options, sizeof options / sizeof options[0], 1, &s.node);
    if (code != 0)
        return code;
    buf_init(&s.target, TARGET_BYTES_MAX);
    buf_init(&s.text, TEXT_BYTES_MAX);
    if (s.node.arguments.operand_count == 0)
        code = arguments_refuse("sub needs a topic filter", NULL);
    else if (wanted && (!argument_number(wanted, &s.left) || s.left == 0))
        code = arguments_refuse("--count must be a whole number above 0, not", wanted);
    else if (put_target(&s) != ST_OK)
        code = arguments_refuse("the filter is too long", NULL);
    else
        code = subscribe_run(&s);
    buf_deinit(&s.target);
    buf_deinit(&s.text);
    node_target_free(&s.node);
    return code;
}
