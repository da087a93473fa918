/* CONNECT: what this build can keep is accepted, what it cannot is refused by the code that the standard has
 * for it, never accepted and forgotten. The client identifier is claimed at its registry first; CONNACK waits
 * for that. */
#include "gateway/mqtt/keep.h"

#include "core/logging.h"
#include "gateway/auth/jwt.h"
#include "gateway/gate.h"
#include "routing/once_window.h"

#include <stdlib.h>

struct mqtt_connect_kept {
    bool anonymous, assigned; /* the client identifier is ours; and is told */
    bool clean_start;
    bool wants_response_information;
    bool expiry_told; /* it is another than the client asked for */
    uint32_t expiry_s;
    uint16_t server_keep_alive_s;
};

void mqtt_connect_forget(struct mqtt_conn *c)
{
    free(c->kept);
    c->kept = NULL;
}

/* MQTT 3.1.1, table 3.1, for the few reasons that are given here. */
static uint8_t return_code(uint8_t reason)
{
    switch (reason) {
    case MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID:
        return 2;
    case MQTT_RC_BAD_USER_NAME_OR_PASSWORD:
        return 4;
    case MQTT_RC_NOT_AUTHORIZED:
        return 5;
    default:
        return 3;
    }
}

void mqtt_connect_refuse(struct mqtt_conn *c, uint8_t reason, const char *why)
{
    static struct log_limit limit = {.every_ms = 1000};
    struct mqtt_packet p = {.type = MQTT_CONNACK};
    uint64_t held;
    p.connack.reason = c->version == MQTT_V5 ? reason : return_code(reason);
    mqtt_conn_say(c, &p.connack.props, why);
    if (log_permitted(&limit, &held))
        log_info("MQTT CONNECT refused client=%.*s why=\"%s\" repeated=%lu", (int)c->client_id.len,
                 (const char *)c->client_id.data, why, (unsigned long)held);
    mqtt_conn_send(c, &p);
    metric_add(c->door->edge->metrics, M_CONNECTS_REFUSED_MQTT, 1);
    mqtt_conn_close(c, M_DISCONNECT_PROTOCOL, false);
}

/* `tg-pos` (PROTOCOL.md 3) would be a promise of positions on every message. */
static bool connect_asks_for_positions(const struct mqtt_connect *p)
{
    struct slice name, value;
    size_t place = 0;
    while (mqtt_user_property_next(p->props.raw, &place, &name, &value))
        if (slice_equal_cstr(name, "tg-pos") && !slice_equal_cstr(value, "0"))
            return true;
    return false;
}

/* NULL, or why this CONNECT cannot be served; *reason is its 5.0 code. */
static const char *connect_objection(const struct mqtt_conn *c, const struct mqtt_connect *p, uint8_t *reason)
{
    if (p->props.present & MQTT_HAS_AUTH_METHOD) {
        *reason = MQTT_RC_BAD_AUTHENTICATION_METHOD;
        return "this build has no authentication methods";
    }
    if (p->client_id.len == 0 && (p->version == MQTT_V31 || (p->version == MQTT_V311 && !p->clean_start))) {
        *reason = MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID;
        return "a client identifier is needed";
    }
    if (slice_starts_with(p->client_id, slice_cstr("$bridge/")) && !c->principal->admin) {
        *reason = MQTT_RC_CLIENT_IDENTIFIER_NOT_VALID;
        return "client identifiers that begin with $bridge/ are the node's own";
    }
    *reason = MQTT_RC_IMPLEMENTATION_SPECIFIC_ERROR;
    return connect_asks_for_positions(p) ? "this build has no tg-pos" : NULL;
}

/* --- who is it? --------------------------------------------------------------------------------- */

/* Who has a name already, by his certificate, may say it again, no other. Takes the reference over. */
static enum auth_verdict connect_become(struct mqtt_conn *c, struct principal *p)
{
    if (c->principal->user.len > 0 && !slice_equal(c->principal->user, p->user)) {
        principal_unref(p);
        auth_failed(c->door->edge->auth, AUTH_OTHER_USER);
        return AUTH_OTHER_USER;
    }
    principal_unref(c->principal);
    c->principal = p;
    return AUTH_OK;
}

static void connect_checked(void *ctx, enum auth_verdict v, struct principal *p)
{
    struct mqtt_conn *c = ctx;
    c->check = NULL;
    if (v == AUTH_OK && c->state != MQTT_STATE_CHECKING) /* closed meanwhile */
        principal_unref(p);
    if (c->state != MQTT_STATE_CHECKING)
        return;
    c->judged = true;
    c->verdict = v == AUTH_OK ? connect_become(c, p) : v;
    c->state = MQTT_STATE_NEW;
    c->in_event = true; /* it may be refused and closed under the parser's feet */
    mqtt_conn_continue(c); /* CONNECT again */
    c->in_event = false;
    mqtt_conn_free_if_done(c);
}

/* A password that is a token stands beside its user, "jwt" or nothing. */
static bool connect_name_fits(const struct mqtt_conn *c, const struct mqtt_connect *p)
{
    return !jwt_looks_like(p->password) || p->user_name.len == 0 || slice_equal_cstr(p->user_name, "jwt") ||
           slice_equal(p->user_name, c->principal->user);
}

/* AUTH_PENDING: CONNECT comes again. */
static enum auth_verdict connect_judge(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    struct auth *a = c->door->edge->auth;
    const struct auth_credential credential = {
        .is_token = jwt_looks_like(p->password), .user = p->user_name, .secret = p->password};
    struct principal *who;
    if (c->judged)
        return c->verdict;
    if (!p->has_password && c->principal->user.len > 0) /* by its certificate; it may repeat the name */
        return !p->has_user_name || slice_equal(p->user_name, c->principal->user) ? AUTH_OK : AUTH_OTHER_USER;
    if (!p->has_user_name && !p->has_password) {
        enum auth_verdict v = c->nameless ? AUTH_ANONYMOUS : AUTH_OK;
        auth_failed(a, v);
        return v;
    }
    enum auth_verdict v = auth_check(a, &credential, connect_checked, c, &who, &c->check);
    return v == AUTH_OK ? connect_become(c, who) : v;
}

static enum auth_verdict connect_identify(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    enum auth_verdict v = connect_judge(c, p);
    if (v == AUTH_OK && p->has_password && !connect_name_fits(c, p)) {
        v = AUTH_OTHER_USER;
        auth_failed(c->door->edge->auth, v);
    }
    return v;
}

/* Standard codes: 0x86 / 4 for what was said, 0x87 / 5 when it is not, or no longer, or not yet enough. */
static uint8_t connect_reason(enum auth_verdict v)
{
    if (auth_temporary(v))
        return MQTT_RC_SERVER_BUSY;
    return auth_lapsed(v) ? MQTT_RC_NOT_AUTHORIZED : MQTT_RC_BAD_USER_NAME_OR_PASSWORD;
}

static void connect_taken_over(struct claim *claim)
{
    struct mqtt_conn *c = LIST_OF(claim, struct mqtt_conn, claim);
    if (c->state == MQTT_STATE_CLAIMING)
        c->taken = true; /* there is no CONNACK that says so: it gets its own first */
    else
        mqtt_conn_refuse(c, MQTT_RC_SESSION_TAKEN_OVER, M_DISCONNECT_SERVER);
}

/* Response Information (3.2.2.3.15): where this client may let answers be sent to. False: nothing is set, or
 * it names a user and there is none. */
static bool connect_response_information(const struct mqtt_conn *c, struct buf *out)
{
    const struct acl_asker who = {.user = c->principal->user,
                                  .encoded_user = c->principal->inbox_id,
                                  .client_id = buf_slice(&c->client_id)};
    struct slice pattern = slice_cstr(c->door->edge->settings->mqtt_response_information);
    return pattern.len > 0 && acl_topic_put(pattern, &who, out) == ST_OK;
}

static void connect_send_connack(struct mqtt_conn *c, bool session_present)
{
    const struct mqtt_connect_kept *kept = c->kept;
    struct mqtt_packet p = {.type = MQTT_CONNACK, .connack = {.session_present = session_present}};
    struct mqtt_props *props = &p.connack.props;
    props->present = MQTT_HAS_RECEIVE_MAXIMUM | MQTT_HAS_MAXIMUM_PACKET_SIZE | MQTT_HAS_SHARED_AVAILABLE;
    props->receive_maximum = c->receive_max;
    props->shared_available = mqtt_shared_available(c);
    props->maximum_packet_bytes = c->door->packet_bytes_max;
    if (c->aliases_in.max > 0) {
        props->present |= MQTT_HAS_TOPIC_ALIAS_MAXIMUM;
        props->topic_alias_maximum = c->aliases_in.max;
    }
    if (kept->assigned) {
        props->present |= MQTT_HAS_ASSIGNED_CLIENT_ID;
        props->assigned_client_id = buf_slice(&c->client_id);
    }
    if (kept->expiry_told) {
        props->present |= MQTT_HAS_SESSION_EXPIRY;
        props->session_expiry_s = kept->expiry_s;
    }
    if (kept->server_keep_alive_s) {
        props->present |= MQTT_HAS_SERVER_KEEP_ALIVE;
        props->server_keep_alive_s = kept->server_keep_alive_s;
    }
    struct buf information;
    buf_init(&information, UINT16_MAX);
    if (kept->wants_response_information && connect_response_information(c, &information)) {
        props->present |= MQTT_HAS_RESPONSE_INFO;
        props->response_info = buf_slice(&information);
    }
    mqtt_conn_send(c, &p);
    buf_deinit(&information);
}

static void connect_claimed(struct claim *claim)
{
    struct mqtt_conn *c = LIST_OF(claim, struct mqtt_conn, claim);
    c->letters--;
    c->claimed = true;
    if (c->state != MQTT_STATE_CLAIMING) { /* closed meanwhile */
        mqtt_claim_return(c);
        return;
    }
    const struct settings *s = c->door->edge->settings;
    const struct principal *who = c->principal;
    if (session_create(c->door->edge->hub, &mqtt_transport, c, &c->session) != ST_OK ||
        session_identify(c->session, who->user, principal_connections_max(who, s->limit_user_connections)) !=
            ST_OK) {
        mqtt_connect_refuse(c, MQTT_RC_SERVER_BUSY, "out of memory");
        return;
    }
    /* A name that we have just made up has no earlier session. */
    bool fresh = c->kept->anonymous && c->kept->expiry_s == 0 && !c->will;
    if (fresh)
        mqtt_connect_done(c, false);
    else if (mqtt_resume(c, c->kept->clean_start, c->kept->expiry_s) != ST_OK)
        mqtt_connect_refuse(c, MQTT_RC_SERVER_BUSY, "out of memory");
}

void mqtt_connect_done(struct mqtt_conn *c, bool session_present)
{
    c->state = MQTT_STATE_CONNECTED;
    c->established = true;
    connect_send_connack(c, session_present);
    mqtt_connect_forget(c);
    metric_add(c->door->edge->metrics, M_CONNECTS_OK_MQTT, 1);
    if (c->taken) {
        mqtt_conn_refuse(c, MQTT_RC_SESSION_TAKEN_OVER, M_DISCONNECT_SERVER);
        return;
    }
    mqtt_conn_rearm(c);
    mqtt_conn_rewatch(c);
    mqtt_conn_continue(c);
}

static enum status connect_assign_id(struct mqtt_conn *c)
{
    struct mqtt_door *d = c->door;
    return buf_printf(&c->client_id, "tg-%08x-%x-%lx",
                      d->edge->facts->epoch ^ (uint32_t)d->edge->facts->incarnation,
                      loop_index(d->edge->loop), (unsigned long)++d->next_assigned_id);
}

static void connect_set_limits(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    const struct settings *s = c->door->edge->settings;
    uint32_t window = (uint32_t)s->limit_inflight;
    uint64_t keep_alive_s = p->keep_alive_s;
    if (p->props.present & MQTT_HAS_RECEIVE_MAXIMUM && p->props.receive_maximum < window)
        window = p->props.receive_maximum;
    if (p->version == MQTT_V5 && (keep_alive_s == 0 || keep_alive_s > s->mqtt_keep_alive_max_s)) {
        keep_alive_s = s->mqtt_keep_alive_max_s;
        c->kept->server_keep_alive_s = (uint16_t)keep_alive_s;
    }
    if (p->version == MQTT_V5) {
        c->aliases_in.max = (uint16_t)s->mqtt_topic_aliases;
        c->aliases_out.max = p->props.topic_alias_maximum < c->aliases_in.max ? p->props.topic_alias_maximum
                                                                              : c->aliases_in.max;
    }
    c->keep_alive_ms = (uint32_t)(keep_alive_s * 1500); /* 1.5 times: MQTT-3.1.2-24 */
    /* Of what is stored under the identity of a session so many are remembered (routing/once_window.h). */
    c->receive_max = (uint16_t)(s->limit_publish_open < ONCE_WINDOW ? s->limit_publish_open : ONCE_WINDOW);
    flights_init(&c->flights, (uint16_t)window);
}

uint32_t mqtt_expiry_allowed(const struct mqtt_conn *c, uint32_t asked_s)
{
    uint32_t most_s = (uint32_t)c->door->edge->settings->mqtt_session_expiry_max_s;
    return asked_s < most_s ? asked_s : most_s;
}

/* Before 5.0 a session that is not clean never expires (3.1.1, 3.1.2.4). */
static void connect_set_session(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    uint32_t asked_s = p->version == MQTT_V5 ? p->props.session_expiry_s : p->clean_start ? 0 : RECORD_NEVER;
    c->kept->clean_start = p->clean_start;
    c->kept->expiry_s = mqtt_expiry_allowed(c, asked_s);
    c->kept->expiry_told = p->version == MQTT_V5 && c->kept->expiry_s != asked_s;
}

/* What holds for a refusal, too. */
static void connect_set_manners(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    c->version = p->version;
    c->problem_information =
        p->version == MQTT_V5 && (!(p->props.present & MQTT_HAS_REQUEST_PROBLEM) || p->props.request_problem);
    if (p->props.present & MQTT_HAS_MAXIMUM_PACKET_SIZE)
        c->client_packet_max = p->props.maximum_packet_bytes;
}

void mqtt_handle_connect(struct mqtt_conn *c, const struct mqtt_connect *p)
{
    uint8_t reason;
    connect_set_manners(c, p);
    buf_clear(&c->client_id); /* CONNECT may come a second time: see MQTT_STATE_CHECKING */
    if (buf_put(&c->client_id, p->client_id) != ST_OK) {
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    const char *objection = connect_objection(c, p, &reason);
    if (objection) {
        mqtt_connect_refuse(c, reason, objection);
        return;
    }
    enum auth_verdict verdict = connect_identify(c, p);
    if (verdict == AUTH_PENDING) {
        c->state = MQTT_STATE_CHECKING;
        return;
    }
    if (verdict != AUTH_OK) {
        mqtt_connect_refuse(c, connect_reason(verdict), auth_text(verdict));
        return;
    }
    gate_leave(c->user_place);
    c->user_place = gate_user(c->door->edge, c->principal->user);
    if (gate_connect_wait_ms(c->door->edge, c->user_place) > 0) {
        mqtt_connect_refuse(c, MQTT_RC_CONNECTION_RATE_EXCEEDED, gate_connect_text);
        return;
    }
    reason = p->will ? mqtt_will_keep(c, p) : 0;
    if (reason) {
        mqtt_connect_refuse(c, reason, "the will message would not be taken");
        return;
    }
    c->kept = calloc(1, sizeof *c->kept);
    if (!c->kept || (p->client_id.len == 0 && connect_assign_id(c) != ST_OK)) {
        mqtt_conn_close(c, M_DISCONNECT_LIMIT, true);
        return;
    }
    c->kept->anonymous = p->client_id.len == 0;
    c->kept->wants_response_information = p->props.request_response;
    c->kept->assigned = p->client_id.len == 0 && p->version == MQTT_V5;
    connect_set_session(c, p);
    connect_set_limits(c, p);
    c->state = MQTT_STATE_CLAIMING;
    c->claim.id = buf_slice(&c->client_id);
    c->claim.on_claimed = connect_claimed;
    c->claim.on_taken_over = connect_taken_over;
    c->claim.patient = true;
    c->letters++;
    registry_claim(c->door->edge->registry, &c->claim);
}
