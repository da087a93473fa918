/* libmosquitto behind the line protocol of client.js; it has no WebSocket. A thread for each
 * connection; an answer is written by the callback that brings it. */
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS_MAX = 256, WORDS_MAX = 10 };

struct client {
    struct mosquitto *library;
    pthread_t thread;
    char name[64];
    int connects;
};

static struct client clients[CLIENTS_MAX];

static struct client *find(const char *name)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (strcmp(clients[i].name, name) == 0)
            return &clients[i];
    abort();
}

/* One call a line: the lines of several threads do not mix. */
static void answer(const struct client *c, int rc)
{
    if (rc)
        printf("err %s %s\n", c->name, mosquitto_strerror(rc));
    else
        printf("ok %s\n", c->name);
}

static void on_connect(struct mosquitto *library, void *ctx, int rc, int flags,
                       const mosquitto_property *props)
{
    struct client *c = ctx;
    (void)library;
    (void)props;
    if (rc)
        printf("err %s %s\n", c->name, mosquitto_reason_string(rc));
    else if (c->connects++ == 0)
        printf("ok %s %d\n", c->name, flags & 1);
    else
        printf("up %s\n", c->name);
}

/* The thread of a connection: mosquitto_loop_start's own would not say how it ended, and a handshake that
 * fails calls no callback. */
static void *run(void *ctx)
{
    struct client *c = ctx;
    int rc = mosquitto_loop_forever(c->library, -1, 1);
    if (c->connects == 0)
        answer(c, rc ? rc : MOSQ_ERR_CONN_LOST);
    return NULL;
}

static void on_subscribe(struct mosquitto *library, void *ctx, int id, int count, const int *granted)
{
    (void)library;
    (void)id;
    (void)count;
    answer(ctx, granted[0] < 128 ? 0 : MOSQ_ERR_ACL_DENIED);
}

static void on_publish(struct mosquitto *library, void *ctx, int id, int reason,
                       const mosquitto_property *props)
{
    (void)library;
    (void)id;
    (void)props;
    answer(ctx, reason < 128 ? 0 : MOSQ_ERR_ACL_DENIED);
}

static void on_message(struct mosquitto *library, void *ctx, const struct mosquitto_message *m)
{
    const struct client *c = ctx;
    char *hex = malloc((size_t)m->payloadlen * 2 + 2);
    (void)library;
    if (!hex)
        abort();
    strcpy(hex, "-");
    for (int i = 0; i < m->payloadlen; i++)
        sprintf(hex + 2 * i, "%02x", ((const unsigned char *)m->payload)[i]);
    printf("msg %s %s %d %d %s\n", c->name, m->topic, m->qos, m->retain, hex);
    free(hex);
}

/* open NAME ID CARRIER PORT CLEAN WILL CA */
static void open_client(char **w)
{
    struct client *c = find("");
    mosquitto_property *props = NULL;
    snprintf(c->name, sizeof c->name, "%s", w[1]);
    int clean = w[5][0] == '1';
    c->library = mosquitto_new(w[2], clean, c);
    mosquitto_threaded_set(c->library, true);
    int rc = mosquitto_int_option(c->library, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_connect_v5_callback_set(c->library, on_connect);
    mosquitto_subscribe_callback_set(c->library, on_subscribe);
    mosquitto_publish_v5_callback_set(c->library, on_publish);
    mosquitto_message_callback_set(c->library, on_message);
    mosquitto_reconnect_delay_set(c->library, 1, 1, false);
    if (!rc && strcmp(w[6], "-") != 0)
        rc = mosquitto_will_set(c->library, w[6], 4, "gone", 1, false);
    if (!rc && strcmp(w[7], "-") != 0)
        rc = mosquitto_tls_set(c->library, w[7], NULL, NULL, NULL, NULL);
    if (!rc && !clean)
        rc = mosquitto_property_add_int32(&props, MQTT_PROP_SESSION_EXPIRY_INTERVAL, 600);
    if (!rc)
        rc = mosquitto_connect_bind_v5(c->library, "127.0.0.1", atoi(w[4]), 60, NULL, props);
    if (!rc && pthread_create(&c->thread, NULL, run, c) != 0)
        rc = MOSQ_ERR_ERRNO;
    mosquitto_property_free_all(&props);
    if (rc)
        answer(c, rc);
}

static void publish(struct client *c, char **w)
{
    size_t length = strcmp(w[5], "-") == 0 ? 0 : strlen(w[5]) / 2;
    unsigned char *payload = malloc(length + 1);
    if (!payload)
        abort();
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {w[5][2 * i], w[5][2 * i + 1], 0};
        payload[i] = (unsigned char)strtoul(digits, NULL, 16);
    }
    int rc = mosquitto_publish(c->library, NULL, w[2], (int)length, payload, atoi(w[3]), w[4][0] == '1');
    free(payload);
    if (rc)
        answer(c, rc);
}

static void command(char *line)
{
    char *words[WORDS_MAX] = {0}, *rest = line;
    for (int i = 0; i < WORDS_MAX && rest; i++)
        words[i] = strsep(&rest, " ");
    if (strcmp(words[0], "open") == 0) {
        open_client(words);
        return;
    }
    struct client *c = find(words[1]);
    if (strcmp(words[0], "sub") == 0) {
        int rc = mosquitto_subscribe(c->library, NULL, words[2], atoi(words[3]));
        if (rc)
            answer(c, rc);
    } else if (strcmp(words[0], "pub") == 0) {
        publish(c, words);
    } else {
        mosquitto_disconnect(c->library);
        pthread_join(c->thread, NULL);
        answer(c, 0);
        mosquitto_destroy(c->library);
        c->name[0] = '\0';
        c->connects = 0;
    }
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    mosquitto_lib_init();
    setvbuf(stdout, NULL, _IOLBF, 1 << 20);
    while (getline(&line, &cap, stdin) > 0) {
        line[strcspn(line, "\n")] = '\0';
        command(line);
    }
    return 0; /* the library's threads end with the process */
}
