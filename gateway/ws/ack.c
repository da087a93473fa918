/* `ack`, `credit`, and the frames of numbered messages. The number is of this connection, so it stands in
 * front of the object that all receivers share:
 *
 *   shared  {"msg":{...}}            {"sub":"a/+","msg":{...}}
 *   ours    {"n":7,"msg":{...}}      {"n":7,"sub":"a/+","msg":{...}}      */
#include "gateway/ws/serve.h"

#include <stdio.h>

enum { NUMBER_BYTES_MAX = 5 + 20 };

size_t ack_text_bytes(const struct conn *c, struct slice shared)
{
    char number[NUMBER_BYTES_MAX + 1];
    int len = snprintf(number, sizeof number, "\"n\":%lu,", (unsigned long)(c->flow.sent + 1));
    return shared.len + (size_t)len;
}

enum status ack_put(struct conn *c, struct slice shared, const struct flow_sent *sent)
{
    char number[NUMBER_BYTES_MAX + 1];
    uint8_t header[WS_HEADER_BYTES_MAX];
    int len = snprintf(number, sizeof number, "\"n\":%lu,", (unsigned long)(c->flow.sent + 1));
    size_t text = shared.len + (size_t)len;
    size_t header_len = ws_header_write(header, WS_TEXT, text);
    enum status st = flow_spend_numbered(&c->flow, sent);
    if (st != ST_OK)
        return st;
    metric_add(c->door->metrics, M_UNACKED_WS, 1);
    uint8_t *to = outq_reserve(&c->out, header_len + text);
    if (!to)
        return ST_NO_MEMORY;
    memcpy(to, header, header_len);
    to += header_len;
    *to++ = '{';
    memcpy(to, number, (size_t)len);
    memcpy(to + len, shared.data + 1, shared.len - 1);
    c->last_out_ms = conn_now(c);
    conn_touch(c);
    return ST_OK;
}

/* There may be room in the window again: cursors go on at the end of the turn. */
static void ack_made_room(struct conn *c)
{
    if (!c->flow.waiting)
        return;
    c->flow.waiting = false;
    c->starved = true;
    conn_touch(c);
}

void serve_ack(struct conn *c, const struct ws_request *r)
{
    uint64_t count, inbox_open = inbox_open_count(c);
    if (flow_ack(&c->flow, r->n, &count) != ST_OK) {
        serve_error(c, serve_id(r), "bad_request", "n is beyond what was sent");
        return;
    }
    metric_sub(c->door->metrics, M_UNACKED_WS, count);
    metric_add(c->door->metrics, M_DELIVERED_WS, count);
    if (count == 0)
        return;
    inbox_acked(c, inbox_open - inbox_open_count(c));
    ack_made_room(c);
    if (c->keeper)
        keeper_moved(c->keeper, count);
}

void serve_credit(struct conn *c, const struct ws_request *r)
{
    if (flow_add(&c->flow, r->msgs, r->bytes) != ST_OK)
        serve_error(c, serve_id(r), "bad_request", "the window would be over 2^53-1");
    else
        ack_made_room(c);
}

bool serve_window(struct conn *c, const struct ws_request *r)
{
    if (!r->has_msgs && !r->has_bytes)
        return true;
    /* What was sent before would return credit that was never taken. */
    if (flow_bounded(&c->flow) || c->flow.sent > 0) {
        serve_error(c, serve_id(r), "conflict", "a window is given once, before the first numbered message");
        return false;
    }
    if (r->has_msgs)
        flow_set_msgs(&c->flow, r->msgs);
    if (r->has_bytes)
        flow_set_bytes(&c->flow, r->bytes);
    return true;
}
