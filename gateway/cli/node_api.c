#include "gateway/cli/node_api.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_BYTES_MAX = 4096, ANSWER_MS_MAX = 60000 };

static bool api_port(const char *dir, unsigned *port)
{
    char path[TEXT_BYTES_MAX], line[64];
    snprintf(path, sizeof path, "%s/ports", dir);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "api=%u", port) == 1;
    if (f)
        fclose(f);
    return found;
}

static int call(const char *address, unsigned port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *list;
    struct timeval patience = {.tv_sec = ANSWER_MS_MAX / 1000};
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(address, service, &hints, &list) != 0)
        return -1;
    int fd = socket(list->ai_family, list->ai_socktype | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
                    connect(fd, list->ai_addr, list->ai_addrlen) < 0)) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* Everything until the node closes. */
static bool ask(int fd, struct slice request, struct buf *answer)
{
    char bytes[4096];
    ssize_t n;
    while (request.len > 0) {
        n = send(fd, request.data, request.len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        request = slice_from(request, (size_t)n);
    }
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        if (buf_put(answer, slice_of(bytes, (size_t)n)) != ST_OK)
            return false;
    return n == 0 && buf_put_byte(answer, '\0') == ST_OK;
}

const char *node_api_address(const struct settings *s)
{
    if (strcmp(s->api_bind, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(s->api_bind, "::") == 0 ? "::1" : s->api_bind;
}

enum status node_api_post(const struct settings *s, const char *path, struct slice json, unsigned *status,
                          struct buf *body)
{
    struct buf request, answer;
    unsigned port;
    int fd = api_port(s->data_dir, &port) ? call(node_api_address(s), port) : -1;
    if (fd < 0)
        return ST_NOT_FOUND;
    buf_init(&request, TEXT_BYTES_MAX + strlen(s->api_key) + json.len);
    buf_init(&answer, NODE_API_ANSWER_BYTES_MAX);
    enum status st = buf_printf(&request,
                                "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                "%s%s%sContent-Length: %zu\r\n\r\n%.*s",
                                path, s->api_key[0] ? "Authorization: Bearer " : "", s->api_key,
                                s->api_key[0] ? "\r\n" : "", json.len, SLICE_ARG(json));
    if (st == ST_OK && !ask(fd, buf_slice(&request), &answer))
        st = ST_IO;
    close(fd);
    const char *text = (const char *)answer.data, *end = st == ST_OK ? strstr(text, "\r\n\r\n") : NULL;
    if (st == ST_OK && (!end || sscanf(text, "HTTP/1.1 %u", status) != 1))
        st = ST_IO;
    if (st == ST_OK)
        st = buf_put(body, slice_of(end + 4, strlen(end + 4) + 1));
    buf_deinit(&request);
    buf_deinit(&answer);
    return st;
}
