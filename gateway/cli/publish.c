/* One request a message, each answered when the message is durable, so that the exit code tells the truth. */
#include "gateway/cli/publish.h"

#include "gateway/cli/node_api.h"
#include "gateway/cli/node_target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TARGET_BYTES_MAX = 1 << 18,
    FIELDS_BYTES_MAX = 1 << 17,
    DATA_BYTES_MAX = 1 << 28,
    PIECE_BYTES = 65536
};

struct publishing {
    struct node_target node;
    const char *data, *file, *user, *key, *ttl, *token;
    bool retain;
    struct buf target, fields;
};

/* A value that goes into a header line must not end it. */
static bool is_field_value(const char *text)
{
    return strpbrk(text, "\r\n") == NULL;
}

static enum status put_target(struct publishing *p)
{
    const char *topic = p->node.arguments.operand_count > 0 ? p->node.arguments.operands[0] : NULL;
    enum status st = buf_put_cstr(&p->target, p->user ? "/v1/users?user=" : "/v1/publish?topic=");
    if (st == ST_OK)
        st = node_put_encoded(&p->target, slice_cstr(p->user ? p->user : topic));
    if (st == ST_OK && p->user && topic)
        st = buf_put_cstr(&p->target, "&topic=");
    if (st == ST_OK && p->user && topic)
        st = node_put_encoded(&p->target, slice_cstr(topic));
    return st == ST_OK ? buf_put_byte(&p->target, '\0') : st;
}

static enum status put_fields(struct publishing *p)
{
    enum status st = ST_OK;
    if (p->key)
        st = buf_printf(&p->fields, "Tidegate-Key: %s\r\n", p->key);
    if (st == ST_OK && p->ttl)
        st = buf_printf(&p->fields, "Tidegate-Ttl-Ms: %s\r\n", p->ttl);
    if (st == ST_OK && p->retain)
        st = buf_put_cstr(&p->fields, "Tidegate-Retain: 1\r\n");
    return st;
}

static int publish_one(struct publishing *p, struct slice payload)
{
    const struct node_request r = {.method = "POST",
                                   .target = (const char *)p->target.data,
                                   .fields = buf_slice(&p->fields),
                                   .token = p->token,
                                   .body = payload};
    struct buf body;
    unsigned status = 0;
    buf_init(&body, NODE_API_ANSWER_BYTES_MAX);
    enum status st = node_call(&p->node.settings, &r, &status, &body);
    int code = st == ST_OK && status / 100 == 2
                   ? EXIT_CODE_OK
                   : node_call_failed(&p->node.settings, &r, st, status, (const char *)body.data);
    buf_deinit(&body);
    return code;
}

static int publish_file(struct publishing *p)
{
    struct buf all;
    char bytes[PIECE_BYTES];
    size_t n;
    int code = EXIT_CODE_OK;
    FILE *f = strcmp(p->file, "-") == 0 ? stdin : fopen(p->file, "re");
    if (!f) {
        fprintf(stderr, "tidegate: %s: cannot be read: %s\n", p->file, strerror(errno));
        return EXIT_CODE_FAILED;
    }
    buf_init(&all, DATA_BYTES_MAX);
    while (code == 0 && (n = fread(bytes, 1, sizeof bytes, f)) > 0)
        if (buf_put(&all, slice_of(bytes, n)) != ST_OK)
            code = arguments_refuse("this is too large for a message:", p->file);
    if (code == 0 && ferror(f)) {
        fprintf(stderr, "tidegate: %s: cannot be read: %s\n", p->file, strerror(errno));
        code = EXIT_CODE_FAILED;
    }
    if (code == 0)
        code = publish_one(p, buf_slice(&all));
    if (f != stdin)
        fclose(f);
    buf_deinit(&all);
    return code;
}

/* A message a line; the first that is refused ends it. */
static int publish_lines(struct publishing *p)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    int code = EXIT_CODE_OK;
    while (code == 0 && (len = getline(&line, &room, stdin)) >= 0)
        code = publish_one(p, slice_of(line, (size_t)len - (len > 0 && line[len - 1] == '\n')));
    free(line);
    return code;
}

static int publish_run(struct publishing *p)
{
    if (!p->user && p->node.arguments.operand_count == 0)
        return arguments_refuse("pub needs a topic, or --user", NULL);
    if (p->data && p->file)
        return arguments_refuse("-d and -f exclude each other", NULL);
    if ((p->key && !is_field_value(p->key)) || (p->ttl && !is_field_value(p->ttl)))
        return arguments_refuse("--key and --ttl are one line", NULL);
    if (put_target(p) != ST_OK || put_fields(p) != ST_OK)
        return arguments_refuse("the topic, the user or the key is too long", NULL);
    if (p->data)
        return publish_one(p, slice_cstr(p->data));
    return p->file ? publish_file(p) : publish_lines(p);
}

int publish_command(int count, char **words)
{
    struct publishing p = {0};
    const struct argument_option options[] = {
        {"-d", &p.data, NULL},       {"-f", &p.file, NULL},   {"--user", &p.user, NULL},
        {"--key", &p.key, NULL},     {"--ttl", &p.ttl, NULL}, {"--retain", NULL, &p.retain},
        {"--token", &p.token, NULL},
    };
    int code = node_target_parse(count, words, options, sizeof options / sizeof options[0], 1, &p.node);
    if (code != 0)
        return code;
    buf_init(&p.target, TARGET_BYTES_MAX);
    buf_init(&p.fields, FIELDS_BYTES_MAX);
    code = publish_run(&p);
    buf_deinit(&p.target);
    buf_deinit(&p.fields);
    node_target_free(&p.node);
    return code;
}
