"""Tickets and cookies: how browsers say who they are (PROTOCOL.md 6)."""

import json
import time

import pytest

from clients import Web, curl, module
from node import wait_until
from tokens import bearer, headers, make

JSON = ("-H", "Content-Type: application/json")


class At(Web):
    """A WebSocket at another URL."""

    def __init__(self, node, path, **options):
        self.path = path
        super().__init__(node, **options)

    async def open(self, url, options):
        return await self.websockets.connect(url.removesuffix("/ws") + self.path, **options)


def ticket(node, *arguments, check=200, **what):
    return curl(node.api("/v1/tickets"), *JSON, *arguments, data=json.dumps(what).encode(), check=check).json()


def use(node, text, **options):
    return At(node, f"/ws?ticket={text}", **options)


def is_refused(web, code, error="unauthorized"):
    return web.next("err")["code"] == error and web.close_code() == code


def test_a_ticket_opens_one_websocket(make_node):
    node = make_node({"node.loops": 4})
    for _ in range(8):  # whatever loop gets it
        made = ticket(node, user="ann", ttl_ms=60000, claims={"tidegate": {"sub": ["a/#"], "pub": []}})
        assert 50000 < made["expires"] - time.time() * 1000 <= 60000
        with use(node, made["ticket"]) as web:
            web.subscribe("$user/ann")  # sent before the ticket's verdict is known
            web.subscribe("a/1")
            assert web.ask({"sub": {"topic": "b"}})["err"]["code"] == "forbidden"
            assert web.ask({"hello": {}})["ok"]["user"] == "ann"
        with use(node, made["ticket"]) as web:
            assert is_refused(web, 4100)
    assert node.metric("tidegate_auth_failures_total", "ticket") == 8


def test_a_user_gets_tickets_for_himself(make_node):
    node = make_node()
    token = make(node, tidegate={"sub": ["a"]}, jti="t1", exp=int(time.time()) + 60)
    for what in ({}, {"user": "ann"}, {"ttl_ms": 1000}):
        with use(node, ticket(node, *bearer(token), **what)["ticket"]) as web:
            assert web.ask({"hello": {}})["ok"]["user"] == "ann"
            assert web.ask({"sub": {"topic": "b"}})["err"]["code"] == "forbidden"
    assert curl(node.api("/v1/tickets"), "-X", "POST", *bearer(token)).json()["ticket"]
    for what in ({"user": "bob"}, {"claims": {}}, {"claims": {"tidegate": {"sub": ["#"]}}}):
        assert ticket(node, *bearer(token), check=403, **what)["code"] == "forbidden"
    made = ticket(node, *bearer(token))["ticket"]
    curl(node.api("/v1/revocations"), *JSON, data=b'{"token_id":"t1"}')
    with use(node, made) as web:
        assert is_refused(web, 4101)


def test_a_ticket_lapses(make_node):
    node = make_node({"limit.tickets": 2})
    first = ticket(node, user="ann", ttl_ms=1)
    wait_until(lambda: time.time() * 1000 > first["expires"] + 50, "it to lapse")
    with use(node, first["ticket"]) as web:
        assert is_refused(web, 4100)
    ticket(node, user="ann", ttl_ms=1)
    second = ticket(node, user="ann", ttl_ms=60000)
    wait_until(lambda: ticket_fits(node), "the lapsed to be let go")
    assert ticket(node, check=503, user="ann")["code"] == "quota_exceeded"
    with use(node, second["ticket"]) as web:
        assert web.ask({"hello": {}})["ok"]["user"] == "ann"


def ticket_fits(node):
    return curl(node.api("/v1/tickets"), *JSON, data=b'{"user":"ann","ttl_ms":60000}', check=None).status == 200


@pytest.mark.parametrize("what", [{}, {"user": 1}, {"user": ""}, {"user": "a", "ttl_ms": 0}, {"user": "a", "ttl_ms": 600001}, {"user": "a", "claims": []},
                                  {"user": "a", "claims": {"sub": "b"}}, {"user": "a", "claims": {"tidegate": {"sub": ["a#"]}}}])
def test_what_is_no_wish_for_a_ticket(make_node, what):
    node = make_node()
    assert ticket(node, check=400, **what)["code"] == "bad_request"


def test_a_ticket_where_nobody_stays_anonymous(make_node):
    node = make_node({"auth.anonymous": "never", "api.key": "k"})
    made = ticket(node, *bearer("k"), user="ann")["ticket"]
    with use(node, made) as web:
        assert "ok" in web.ask({"sub": {"topic": "a"}})
    curl(node.api("/v1/tickets"), *JSON, data=b'{"user":"ann"}', check=401)


def test_no_token_in_a_url(make_node):
    node = make_node()
    for name in ("token", "access_token", "jwt"):
        with pytest.raises(Exception) as refused:
            At(node, f"/ws?{name}={make(node)}")
        assert "400" in str(refused.value)
    with use(node, "nonsense") as web:
        assert is_refused(web, 4100)


def test_a_cookie_counts_beside_an_origin_that_may(make_node):
    node = make_node({"auth.cookie": "tide", "http.origins": "https://app.example"})
    own, good = f"http://127.0.0.1:{node.ports['http']}", make(node)
    for origin in (own, "https://app.example"):
        with Web(node, **headers({"Origin": origin, "Cookie": f"a=b; tide={good}; c=d"})) as web:
            web.subscribe("$user/ann")
            assert web.ask({"hello": {}})["ok"]["user"] == "ann"
    for token, code in ((make(node, exp=1), 4100), (good + "x", 4200), ("x", 4200)):
        with Web(node, **headers({"Origin": own, "Cookie": f"tide={token}"})) as web:
            assert is_refused(web, code)
    for fields in ({"Cookie": f"tide={good}"}, {"Origin": own, "Cookie": f"tid={good}; xtide={good}"}, {"Origin": own, "Cookie": "tide="}):
        with Web(node, **headers(fields)) as web:
            assert "user" not in web.ask({"hello": {}})["ok"]
    with pytest.raises(module("websockets").InvalidStatusCode if hasattr(module("websockets"), "InvalidStatusCode") else Exception):
        Web(node, **headers({"Origin": "https://evil.example", "Cookie": f"tide={good}"}))


def test_without_the_setting_a_cookie_says_nothing(make_node):
    node = make_node()
    with Web(node, **headers({"Origin": f"http://127.0.0.1:{node.ports['http']}", "Cookie": f"tide={make(node)}"})) as web:
        assert "user" not in web.ask({"hello": {}})["ok"]
