#include "gateway/bridge/remote.h"

#include "gateway/bridge_topics.h"

#include <mosquitto.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    USER_BYTES_MAX = 256 * 1024, /* user properties of one message */
    SECRET_BYTES_MAX = 4096,
    NO_LOCAL_AS_PUBLISHED = 0x04 | 0x08 | 0x10, /* retained only if the subscription is new; 3.8.3.1 */
    WRITES_MAX = 4096, /* packets of one remote_write */
};

/* 2.2.2.2. Not of mqtt_protocol.h, whose names of reason codes are those of packet.h. */
enum {
    ID_PAYLOAD_FORMAT_INDICATOR = 1,
    ID_MESSAGE_EXPIRY_INTERVAL = 2,
    ID_CONTENT_TYPE = 3,
    ID_RESPONSE_TOPIC = 8,
    ID_CORRELATION_DATA = 9,
    ID_SESSION_EXPIRY_INTERVAL = 17,
    ID_USER_PROPERTY = 38,
};

struct remote {
    struct mosquitto *library;
    const struct bridge_settings *settings;
    const struct remote_ops *ops;
    void *ctx;
    bool refused; /* by its CONNACK or a SUBACK */
    struct buf user; /* of the message that is handed over */
    bool up; /* CONNACK has come */
    enum bridge_trouble trouble;
    char tls_why[120]; /* the last word of OpenSSL */
    char why[200];
};

static enum status ended(struct remote *r, int rc)
{
    if (r->refused)
        return ST_CLOSED;
    r->trouble = r->tls_why[0] && !r->up ? BRIDGE_TROUBLE_TLS
                 : r->up                 ? BRIDGE_TROUBLE_LOST
                                         : BRIDGE_TROUBLE_UNREACHABLE;
    if (r->trouble == BRIDGE_TROUBLE_TLS)
        snprintf(r->why, sizeof r->why, "TLS: %s", r->tls_why);
    else
        snprintf(r->why, sizeof r->why, "%s",
                 rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
    return rc == MOSQ_ERR_NOMEM ? ST_NO_MEMORY : ST_CLOSED;
}

const char *remote_why(const struct remote *r)
{
    return r->why;
}

enum bridge_trouble remote_trouble(const struct remote *r)
{
    return r->trouble;
}

/* The library tells why a handshake failed in no other way:
 * "OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed". */
static void on_log(struct mosquitto *library, void *ctx, int level, const char *text)
{
    struct remote *r = ctx;
    static const char mark[] = "OpenSSL Error";
    (void)library;
    (void)level;
    if (strncmp(text, mark, sizeof mark - 1) != 0)
        return;
    const char *words = strrchr(text, ':');
    snprintf(r->tls_why, sizeof r->tls_why, "%s", words ? words + 1 : text);
}

/* --- what comes --------------------------------------------------------------------------------- */

/* 5.0: 3.2.2.2; 3.1.1: 3.2.2.3 */
static bool speaks_of_credentials(const struct remote *r, int reason)
{
    return r->settings->version == BRIDGE_V5
               ? reason == MQTT_RC_BAD_USER_NAME_OR_PASSWORD || reason == MQTT_RC_NOT_AUTHORIZED
               : reason == 4 || reason == 5;
}

static void on_connect(struct mosquitto *library, void *ctx, int reason, int flags,
                       const mosquitto_property *props)
{
    struct remote *r = ctx;
    (void)library;
    (void)flags;
    (void)props;
    if (reason == 0) {
        r->up = true;
        r->ops->on_up(r->ctx);
        return;
    }
    r->refused = true;
    r->trouble = speaks_of_credentials(r, reason) ? BRIDGE_TROUBLE_CREDENTIALS : BRIDGE_TROUBLE_REFUSED;
    snprintf(r->why, sizeof r->why, "it refuses: %s",
             r->settings->version == BRIDGE_V5 ? mosquitto_reason_string(reason)
                                               : mosquitto_connack_string(reason));
}

static void on_subscribe(struct mosquitto *library, void *ctx, int id, int count, const int *granted)
{
    struct remote *r = ctx;
    (void)library;
    (void)id;
    for (int i = 0; i < count; i++) {
        if (granted[i] < 0x80)
            continue;
        r->refused = true;
        r->trouble = BRIDGE_TROUBLE_REFUSED;
        snprintf(r->why, sizeof r->why, "it refuses a subscription: reason 0x%02x", (unsigned)granted[i]);
    }
}

static void on_publish(struct mosquitto *library, void *ctx, int id, int reason,
                       const mosquitto_property *props)
{
    struct remote *r = ctx;
    (void)library;
    (void)props;
    r->ops->on_acked(r->ctx, id, (uint8_t)reason);
}

static bool put_text(struct buf *b, const char *text)
{
    size_t len = strlen(text);
    return buf_put_byte(b, (uint8_t)(len >> 8)) == ST_OK && buf_put_byte(b, (uint8_t)len) == ST_OK &&
           buf_put(b, slice_of(text, len)) == ST_OK;
}

/* The texts of `props` are copies, freed by props_free. */
static void take_property(struct remote *r, const mosquitto_property *one, struct mqtt_props *props,
                          char **name, char **value)
{
    void *bytes = NULL;
    uint16_t len = 0;
    switch (mosquitto_property_identifier(one)) {
    case ID_PAYLOAD_FORMAT_INDICATOR:
        mosquitto_property_read_byte(one, ID_PAYLOAD_FORMAT_INDICATOR, &props->payload_format, false);
        props->present |= MQTT_HAS_PAYLOAD_FORMAT;
        break;
    case ID_MESSAGE_EXPIRY_INTERVAL:
        mosquitto_property_read_int32(one, ID_MESSAGE_EXPIRY_INTERVAL, &props->message_expiry_s, false);
        props->present |= MQTT_HAS_MESSAGE_EXPIRY;
        break;
    case ID_CONTENT_TYPE:
        mosquitto_property_read_string(one, ID_CONTENT_TYPE, value, false);
        props->content_type = slice_cstr(*value);
        props->present |= MQTT_HAS_CONTENT_TYPE;
        *value = NULL;
        break;
    case ID_RESPONSE_TOPIC:
        mosquitto_property_read_string(one, ID_RESPONSE_TOPIC, value, false);
        props->response_topic = slice_cstr(*value);
        props->present |= MQTT_HAS_RESPONSE_TOPIC;
        *value = NULL;
        break;
    case ID_CORRELATION_DATA:
        mosquitto_property_read_binary(one, ID_CORRELATION_DATA, &bytes, &len, false);
        props->correlation = slice_of(bytes, len);
        props->present |= MQTT_HAS_CORRELATION;
        break;
    case ID_USER_PROPERTY:
        mosquitto_property_read_string_pair(one, ID_USER_PROPERTY, name, value, false);
        if (*name && *value && buf_put_byte(&r->user, ID_USER_PROPERTY) == ST_OK)
            (void)(put_text(&r->user, *name) && put_text(&r->user, *value));
        props->present |= MQTT_HAS_USER_PROPERTY;
        break;
    default: /* topic alias, subscription identifier: of that connection only */
        break;
    }
}

static void props_free(struct mqtt_props *props)
{
    free((void *)(uintptr_t)props->content_type.data);
    free((void *)(uintptr_t)props->response_topic.data);
    free((void *)(uintptr_t)props->correlation.data);
}

static void on_message(struct mosquitto *library, void *ctx, const struct mosquitto_message *m,
                       const mosquitto_property *list)
{
    struct remote *r = ctx;
    (void)library;
    struct mqtt_publish p = {.qos = (uint8_t)m->qos,
                             .retain = m->retain,
                             .topic = slice_cstr(m->topic),
                             .payload = slice_of(m->payload, (size_t)m->payloadlen)};
    buf_clear(&r->user);
    for (const mosquitto_property *one = list; one; one = mosquitto_property_next(one)) {
        char *name = NULL, *value = NULL;
        take_property(r, one, &p.props, &name, &value);
        free(name);
        free(value);
    }
    p.props.raw = buf_slice(&r->user);
    r->ops->on_message(r->ctx, &p);
    props_free(&p.props);
}

/* --- opening and closing ------------------------------------------------------------------------ */

static int read_secret(const char *path, char *secret, size_t size)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return MOSQ_ERR_ERRNO;
    bool ok = fgets(secret, (int)size, f) != NULL;
    fclose(f);
    secret[ok ? strcspn(secret, "\r\n") : 0] = '\0';
    return MOSQ_ERR_SUCCESS;
}

static int set_options(struct remote *r)
{
    const struct bridge_settings *s = r->settings;
    char secret[SECRET_BYTES_MAX] = "";
    int rc = mosquitto_int_option(r->library, MOSQ_OPT_PROTOCOL_VERSION,
                                  s->version == BRIDGE_V5 ? MQTT_V5 : MQTT_V311);
    if (!rc)
        rc = mosquitto_threaded_set(r->library, true); /* see the header */
    if (!rc)
        rc = mosquitto_int_option(r->library, MOSQ_OPT_SEND_MAXIMUM, (int)s->inflight);
    if (!rc && s->version == BRIDGE_V5)
        rc = mosquitto_int_option(r->library, MOSQ_OPT_RECEIVE_MAXIMUM, (int)s->inflight);
    if (!rc && s->password_file[0])
        rc = read_secret(s->password_file, secret, sizeof secret);
    if (!rc && s->user[0])
        rc = mosquitto_username_pw_set(r->library, s->user, s->password_file[0] ? secret : NULL);
    memset(secret, 0, sizeof secret);
    if (!rc && s->ca_file[0])
        rc = mosquitto_tls_set(r->library, s->ca_file, NULL, s->cert_file[0] ? s->cert_file : NULL,
                               s->key_file[0] ? s->key_file : NULL, NULL);
    return rc;
}

/* The name has a copy in the library. NULL: no memory. */
static struct mosquitto *make_library(const struct bridge_settings *s, const char *node_id, void *ctx)
{
    struct buf id;
    struct mosquitto *made = NULL;
    buf_init(&id, 65535);
    enum status st =
        s->client_id[0] ? buf_put_cstr(&id, s->client_id) : buf_printf(&id, "%s-%s", node_id, s->name);
    if (st == ST_OK && buf_put_byte(&id, 0) == ST_OK)
        made = mosquitto_new((const char *)id.data, s->clean, ctx);
    buf_deinit(&id);
    return made;
}

enum status remote_open(const struct bridge_settings *s, const char *node_id, const struct remote_ops *ops,
                        void *ctx, struct remote **out)
{
    struct remote *r = calloc(1, sizeof *r);
    mosquitto_property *props = NULL;
    if (!r)
        return ST_NO_MEMORY;
    *r = (struct remote){.settings = s, .ops = ops, .ctx = ctx};
    buf_init(&r->user, USER_BYTES_MAX);
    r->library = make_library(s, node_id, r);
    if (!r->library) {
        free(r);
        return ST_NO_MEMORY;
    }
    *out = r;
    mosquitto_connect_v5_callback_set(r->library, on_connect);
    mosquitto_subscribe_callback_set(r->library, on_subscribe);
    mosquitto_publish_v5_callback_set(r->library, on_publish);
    mosquitto_message_v5_callback_set(r->library, on_message);
    mosquitto_log_callback_set(r->library, on_log);
    int rc = set_options(r);
    if (!rc && s->version == BRIDGE_V5 && !s->clean)
        rc = mosquitto_property_add_int32(&props, ID_SESSION_EXPIRY_INTERVAL, UINT32_MAX);
    if (!rc)
        rc = mosquitto_connect_bind_v5(r->library, s->host, (int)s->port, (int)s->keep_alive_s, NULL, props);
    mosquitto_property_free_all(&props);
    return rc ? ended(r, rc) : ST_OK;
}

void remote_close(struct remote *r, bool politely, bool forever)
{
    mosquitto_property *props = NULL;
    if (!r)
        return;
    if (politely && forever && r->settings->version == BRIDGE_V5 &&
        mosquitto_property_add_int32(&props, ID_SESSION_EXPIRY_INTERVAL, 0) != MOSQ_ERR_SUCCESS)
        props = NULL; /* no memory: then it stays */
    if (politely && mosquitto_disconnect_v5(r->library, 0, props) == MOSQ_ERR_SUCCESS)
        (void)mosquitto_loop_write(r->library, WRITES_MAX);
    mosquitto_property_free_all(&props);
    mosquitto_destroy(r->library);
    buf_deinit(&r->user);
    free(r);
}

/* --- running ------------------------------------------------------------------------------------ */

int remote_fd(const struct remote *r)
{
    return mosquitto_socket(r->library);
}

bool remote_wants_write(const struct remote *r)
{
    return mosquitto_want_write(r->library);
}

static enum status judge(struct remote *r, int rc)
{
    if (rc)
        return ended(r, rc);
    return r->refused ? ST_CLOSED : ST_OK;
}

enum status remote_read(struct remote *r)
{
    return judge(r, mosquitto_loop_read(r->library, 1));
}

enum status remote_write(struct remote *r)
{
    return judge(r, mosquitto_loop_write(r->library, WRITES_MAX));
}

enum status remote_tick(struct remote *r)
{
    return judge(r, mosquitto_loop_misc(r->library));
}

enum status remote_subscribe(struct remote *r, const char *filter, int qos)
{
    int options = r->settings->version == BRIDGE_V5 ? NO_LOCAL_AS_PUBLISHED : 0;
    return judge(r, mosquitto_subscribe_v5(r->library, NULL, filter, qos, options, NULL));
}

enum status remote_unsubscribe(struct remote *r, const char *filter)
{
    return judge(r, mosquitto_unsubscribe(r->library, NULL, filter));
}

/* --- what goes ---------------------------------------------------------------------------------- */

static char *text_of(struct slice s)
{
    return strndup((const char *)s.data, s.len);
}

static int add_text(mosquitto_property **list, int id, struct slice value)
{
    char *text = text_of(value);
    int rc = text ? mosquitto_property_add_string(list, id, text) : MOSQ_ERR_NOMEM;
    free(text);
    return rc;
}

static int add_users(mosquitto_property **list, struct slice raw)
{
    struct slice name, value;
    size_t place = 0;
    int rc = MOSQ_ERR_SUCCESS;
    while (!rc && mqtt_user_property_next(raw, &place, &name, &value)) {
        char *first = text_of(name), *second = text_of(value);
        rc = first && second ? mosquitto_property_add_string_pair(list, ID_USER_PROPERTY, first, second)
                             : MOSQ_ERR_NOMEM;
        free(first);
        free(second);
    }
    return rc;
}

static int add_props(mosquitto_property **list, const struct mqtt_props *props, const char *left)
{
    int rc = add_users(list, props->raw);
    if (!rc)
        rc = mosquitto_property_add_string_pair(list, ID_USER_PROPERTY, BRIDGE_LEFT, left);
    if (!rc && props->present & MQTT_HAS_PAYLOAD_FORMAT)
        rc = mosquitto_property_add_byte(list, ID_PAYLOAD_FORMAT_INDICATOR, props->payload_format);
    if (!rc && props->present & MQTT_HAS_MESSAGE_EXPIRY)
        rc = mosquitto_property_add_int32(list, ID_MESSAGE_EXPIRY_INTERVAL, props->message_expiry_s);
    if (!rc && props->present & MQTT_HAS_CONTENT_TYPE)
        rc = add_text(list, ID_CONTENT_TYPE, props->content_type);
    if (!rc && props->present & MQTT_HAS_RESPONSE_TOPIC)
        rc = add_text(list, ID_RESPONSE_TOPIC, props->response_topic);
    if (!rc && props->present & MQTT_HAS_CORRELATION)
        rc = mosquitto_property_add_binary(list, ID_CORRELATION_DATA, props->correlation.data,
                                           (uint16_t)props->correlation.len);
    return rc;
}

enum status remote_publish(struct remote *r, struct slice topic, const struct mqtt_publish *p, int qos,
                           const char *left, int *message_id)
{
    mosquitto_property *list = NULL;
    char *name = text_of(topic);
    int rc = name ? MOSQ_ERR_SUCCESS : MOSQ_ERR_NOMEM;
    if (!rc && r->settings->version == BRIDGE_V5)
        rc = add_props(&list, &p->props, left);
    if (!rc)
        rc = mosquitto_publish_v5(r->library, message_id, name, (int)p->payload.len, p->payload.data, qos,
                                  p->retain, list);
    mosquitto_property_free_all(&list);
    free(name);
    switch (rc) {
    case MOSQ_ERR_SUCCESS:
        return ST_OK;
    case MOSQ_ERR_OVERSIZE_PACKET:
    case MOSQ_ERR_PAYLOAD_SIZE:
        return ST_TOO_LARGE;
    case MOSQ_ERR_NO_CONN:
    case MOSQ_ERR_NOMEM:
        return ended(r, rc);
    default:
        return ST_INVALID;
    }
}
