#include "gateway/cli/node_api.h"

#include "gateway/cli/arguments.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_BYTES_MAX = 4096, ANSWER_MS_MAX = 60000, PIECE_BYTES = 4096 };

/* --- where --- */

static unsigned port_of(const struct settings *s, bool public_port)
{
    char path[TEXT_BYTES_MAX], line[64];
    unsigned port = 0;
    snprintf(path, sizeof path, "%s/ports", s->data_dir);
    FILE *f = fopen(path, "re");
    if (!f)
        return (unsigned)(public_port ? s->http_port : s->api_port);
    while (!port && fgets(line, sizeof line, f))
        if (sscanf(line, public_port ? "http=%u" : "api=%u", &port) != 1)
            port = 0;
    fclose(f);
    return port;
}

const char *node_address(const struct settings *s, bool public_port)
{
    const char *bind = public_port ? s->http_bind : s->api_bind;
    if (strcmp(bind, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(bind, "::") == 0 ? "::1" : bind;
}

static int dial(const char *address, unsigned port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *list;
    char service[16];
    snprintf(service, sizeof service, "%u", port);
    if (port == 0 || getaddrinfo(address, service, &hints, &list) != 0)
        return -1;
    int fd = socket(list->ai_family, list->ai_socktype | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) < 0) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* --- asking --- */

static bool send_all(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes = slice_from(bytes, (size_t)n);
    }
    return true;
}

static enum status send_request(int fd, const struct settings *s, const struct node_request *r)
{
    const char *bearer = r->token ? r->token : r->public_port ? "" : s->api_key;
    struct buf head;
    buf_init(&head, 2 * TEXT_BYTES_MAX + strlen(bearer) + strlen(r->target) + r->fields.len);
    enum status st =
        buf_printf(&head, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", r->method, r->target);
    if (st == ST_OK && bearer[0])
        st = buf_printf(&head, "Authorization: Bearer %s\r\n", bearer);
    if (st == ST_OK && r->body.len > 0)
        st = buf_printf(&head, "Content-Length: %zu\r\n", r->body.len);
    else if (st == ST_OK && strcmp(r->method, "POST") == 0)
        st = buf_put_cstr(&head, "Content-Length: 0\r\n");
    if (st == ST_OK)
        st = buf_put(&head, r->fields);
    if (st == ST_OK)
        st = buf_put_cstr(&head, "\r\n");
    if (st == ST_OK && (!send_all(fd, buf_slice(&head)) || !send_all(fd, r->body)))
        st = ST_IO;
    buf_deinit(&head);
    return st;
}

static enum status ask(const struct settings *s, const struct node_request *r, int *out)
{
    int fd = dial(node_address(s, r->public_port), port_of(s, r->public_port));
    if (fd < 0)
        return ST_NOT_FOUND;
    enum status st = send_request(fd, s, r);
    if (st == ST_OK)
        *out = fd;
    else
        close(fd);
    return st;
}

enum status node_open(const struct settings *s, const struct node_request *r, FILE **out)
{
    int fd;
    enum status st = ask(s, r, &fd);
    if (st != ST_OK)
        return st;
    *out = fdopen(fd, "r");
    if (*out)
        return ST_OK;
    close(fd);
    return ST_NO_MEMORY;
}

/* Everything until the node closes. */
static enum status read_all(int fd, struct buf *answer)
{
    struct timeval patience = {.tv_sec = ANSWER_MS_MAX / 1000};
    char bytes[PIECE_BYTES];
    ssize_t n = -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0)
        while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
            if (buf_put(answer, slice_of(bytes, (size_t)n)) != ST_OK)
                return ST_TOO_LARGE;
    return n == 0 ? buf_put_byte(answer, '\0') : ST_IO;
}

enum status node_call(const struct settings *s, const struct node_request *r, unsigned *status,
                      struct buf *body)
{
    struct buf answer;
    int fd;
    enum status st = ask(s, r, &fd);
    if (st != ST_OK)
        return st;
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    st = read_all(fd, &answer);
    close(fd);
    const char *text = (const char *)answer.data, *end = st == ST_OK ? strstr(text, "\r\n\r\n") : NULL;
    if (st == ST_OK && (!end || sscanf(text, "HTTP/1.1 %u", status) != 1))
        st = ST_IO;
    if (st == ST_OK)
        st = buf_put(body, slice_of(end + 4, strlen(end + 4) + 1));
    buf_deinit(&answer);
    return st;
}

/* --- telling --- */

int node_call_failed(const struct settings *s, const struct node_request *r, enum status st, unsigned status,
                     const char *body)
{
    if (st == ST_NOT_FOUND) {
        fprintf(stderr,
                "tidegate: no node answers at %s:%u; start one (tidegate serve), or name its folder by "
                "--data DIR\n",
                node_address(s, r->public_port), port_of(s, r->public_port));
        return EXIT_CODE_UNAVAILABLE;
    }
    if (st != ST_OK) {
        fprintf(stderr, "tidegate: %s %s: no answer came (%s); it may have been done all the same\n",
                r->method, r->target, status_name(st));
        return EXIT_CODE_RETRY;
    }
    size_t len = strlen(body);
    fprintf(stderr, "tidegate: %s %s: HTTP %u: %s%s", r->method, r->target, status, body,
            len > 0 && body[len - 1] == '\n' ? "" : "\n");
    if (status == 401 || status == 403)
        return EXIT_CODE_PERMISSION;
    return status == 429 || status == 503 ? EXIT_CODE_RETRY : EXIT_CODE_FAILED;
}

enum status node_put_encoded(struct buf *out, struct slice text)
{
    static const char plain[] = "-._~", digits[] = "0123456789ABCDEF";
    enum status st = ST_OK;
    for (size_t i = 0; i < text.len && st == ST_OK; i++) {
        uint8_t c = text.data[i];
        bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (letter || (c != 0 && strchr(plain, c)))
            st = buf_put_byte(out, c);
        else
            st = buf_printf(out, "%%%c%c", digits[c >> 4], digits[c & 15]);
    }
    return st;
}
