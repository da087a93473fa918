"""The same principal by the same credentials at /ws, /sse and /poll (PROTOCOL.md 6)."""

import base64
import json
import socket
import time

import pytest

from clients import Web, curl, module, publish
from node import Node, wait_until
from test_demo_page import browser  # noqa: F401  (a fixture)
from test_passwords import add
from test_sse import Stream
from test_tickets import At, ticket
from tokens import headers, make

DOORS = ("ws", "sse", "poll")
OTHER = "https://app.example"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    made = Node(tmp_path_factory.mktemp("credentials"), {"auth.cookie": "tide", "http.origins": OTHER, "node.loops": 2}).start()
    add(made, "ann", "secret:1")
    yield made
    made.check()


def basic(text):
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def cookie(token, **fields):
    return {"Cookie": f"a=b; tide={token}", **{name.replace("_", "-"): value for name, value in fields.items()}}


def by_ws(node, query, fields):
    try:
        with At(node, "/ws" + (f"?{query}" if query else ""), **headers(fields)) as web:
            answer = web.ask({"hello": {}})
            if "ok" in answer:
                return answer["ok"].get("user", "")
    except module("websockets").InvalidHandshake as refused:
        return getattr(refused, "status_code", None) or refused.response.status_code
    except Exception as closed:
        return closed.code
    return web.close_code()


def by_feed(node, door, query, fields):
    """The user; "": nobody. His inbox tells who it is."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection(("127.0.0.1", node.ports["http"]), 30) as wire:
        wire.sendall(f"GET /{door}?topic=$user/ann{'&' if query else ''}{query} HTTP/1.1\r\nHost: 127.0.0.1:{node.ports['http']}\r\n{lines}\r\n".encode())
        head = wire.makefile("rb").readline()
    status = int(head.split()[1])
    return {200: "ann", 403: ""}.get(status, status)


def who(node, door, query="", fields={}):
    return by_ws(node, query, fields) if door == "ws" else by_feed(node, door, query, fields)


GOOD = {
    "a token": lambda node: ("", bearer(make(node))),
    "the scheme in small letters": lambda node: ("", {"Authorization": f"bearer  {make(node)}"}),
    "a password": lambda node: ("", basic("ann:secret:1")),
    "a ticket": lambda node: ("ticket=" + ticket(node, user="ann")["ticket"], {}),
    "a ticket beside a bad cookie": lambda node: ("ticket=" + ticket(node, user="ann")["ticket"], cookie("x", Origin=OTHER)),
    "a token beside a bad cookie": lambda node: ("", {**bearer(make(node)), **cookie("x", Origin=OTHER)}),
    "a cookie of our own page": lambda node: ("", cookie(make(node), Origin=f"http://127.0.0.1:{node.ports['http']}")),
    "a cookie of a listed page": lambda node: ("", cookie(make(node), Origin=OTHER)),
    "a cookie of the same origin": lambda node: ("", cookie(make(node), Sec_Fetch_Site="same-origin")),
}


@pytest.mark.parametrize("name", GOOD)
def test_who_it_is_at_every_door(node, name):
    for door in DOORS:
        assert who(node, door, *GOOD[name](node)) == "ann", door


NOBODY = {
    "nothing": lambda node: ("", {}),
    "a cookie of who knows whom": lambda node: ("", cookie(make(node))),
    "a cookie of another site": lambda node: ("", cookie(make(node), Sec_Fetch_Site="cross-site")),
    "a cookie of the same site": lambda node: ("", cookie(make(node), Sec_Fetch_Site="same-site")),
    "another cookie": lambda node: ("", {"Cookie": f"tid={make(node)}", "Origin": OTHER}),
    "a cookie without value": lambda node: ("", cookie("", Origin=OTHER)),
}


@pytest.mark.parametrize("name", NOBODY)
def test_who_stays_anonymous(node, name):
    for door in DOORS:
        assert who(node, door, *NOBODY[name](node)) == "", door


def used(node):
    made = ticket(node, user="ann")["ticket"]
    assert by_ws(node, f"ticket={made}", {}) == "ann"
    return f"ticket={made}"


# what -> (credential, at /ws); 401 at the others
BAD = {
    "a ticket without text": (lambda node: ("ticket=", {}), 4100),
    "a ticket without '='": (lambda node: ("ticket", {}), 4100),
    "no ticket of ours": (lambda node: ("ticket=" + "0" * 32, {}), 4100),
    "a ticket that was used": (lambda node: (used(node), {}), 4100),
    "a ticket that has lapsed": (lambda node: ("ticket=" + lapsed(node), {}), 4100),
    "a forged token": (lambda node: ("", bearer(make(node, key=b"x" * 32))), 4200),
    "an expired token": (lambda node: ("", bearer(make(node, exp=1))), 4100),
    "no token": (lambda node: ("", bearer("x")), 4200),
    "an expired cookie": (lambda node: ("", cookie(make(node, exp=1), Origin=OTHER)), 4100),
    "a wrong password": (lambda node: ("", basic("ann:secret")), 4200),
    "an unknown user": (lambda node: ("", basic("bob:secret:1")), 4200),
    "no colon": (lambda node: ("", basic("ann")), 401),
    "no base64": (lambda node: ("", {"Authorization": "Basic !"}), 401),
    "an empty field": (lambda node: ("", {"Authorization": ""}), 401),
    "a scheme alone": (lambda node: ("", {"Authorization": "Bearer"}), 401),
    "another scheme": (lambda node: ("", {"Authorization": "Digest x"}), 401),
}


def lapsed(node):
    made = ticket(node, user="ann", ttl_ms=1)
    wait_until(lambda: time.time() * 1000 > made["expires"] + 50, "it to lapse")
    return made["ticket"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_credential_is_nobody_anywhere(node, name):
    credential, at_ws = BAD[name]
    for door in DOORS:
        before = node.metric("tidegate_auth_failures_total")
        assert who(node, door, *credential(node)) == (at_ws if door == "ws" else 401), door
        assert node.metric("tidegate_auth_failures_total") == before + 1, "a refusal is counted, once"


@pytest.mark.parametrize("query, fields", [("ticket=TICKET", "TOKEN"), ("ticket=TICKET&ticket=TICKET", ""), ("token=x", ""), ("jwt", ""), ("x=1", ""),
                                           ("access_token=" + "x" * 600, ""), ("x=1&ticket=TICKET", ""), ("&&x", "")])
def test_what_may_not_stand_in_a_url(node, query, fields):
    for door in DOORS:
        text = query.replace("TICKET", ticket(node, user="ann")["ticket"])
        assert who(node, door, text, bearer(make(node)) if fields else {}) == 400, door


def test_the_unknown_parameter_is_named(node):
    for path in ("/sse?topic=a&wait_ms=1", "/poll?topic=a&Wait-ms=1"):
        said = curl(node.web(path), check=400).json()
        assert path.rsplit("&", 1)[1].split("=")[0] in said["detail"].split(";")[0]
    assert "\"" not in curl(node.web('/poll?topic=a&%22b=1'), check=400).json()["detail"]


def test_mqtt_over_websocket_has_its_connect(node):
    for query, fields in (("?ticket=x", {}), ("", bearer(make(node)))):
        with pytest.raises(module("websockets").InvalidHandshake) as refused:
            At(node, "/mqtt" + query, subprotocols=["mqtt"], **headers(fields))
        assert "501" in str(refused.value)


# --- tickets of event streams --------------------------------------------------------------------------------------

def test_the_ticket_of_a_stream_opens_it_again(node):
    """A browser's EventSource comes back to the same URL, with Last-Event-ID."""
    made = ticket(node, user="ann", claims={"tidegate": {"sub": ["t"]}})["ticket"]
    with Stream(node, topic="t", ticket=made) as stream:
        mark = stream.wait_id()
    for i in range(3):
        publish(node, "t", str(i).encode())
        for door in DOORS:  # it is good for nothing else
            assert who(node, door, f"ticket={made}") == (4100 if door == "ws" else 401)
        with Stream(node, topic="t", ticket=made, fields=f"Last-Event-ID: {mark}\r\n") as stream:
            assert stream.message()["text"] == str(i)
            mark = stream.wait_id(after=mark)
    with Stream(node, topic="other", ticket=made, fields=f"Last-Event-ID: {mark}\r\n") as stream:
        assert stream.status == 403
    poll = ticket(node, user="ann")["ticket"]
    assert who(node, "poll", f"ticket={poll}") == "ann" and who(node, "sse", f"ticket={poll}") == 401


def test_spent_tickets_give_way_to_new_ones(make_node):
    node = make_node({"limit.tickets": 2})
    made = [ticket(node, user="ann", ttl_ms=60000)["ticket"] for _ in range(2)]
    for text in made:
        with Stream(node, topic="t", ticket=text) as stream:
            mark = stream.wait_id()
    again = f"Last-Event-ID: {mark}\r\n"
    fresh = ticket(node, user="ann", ttl_ms=60000)["ticket"]
    with Stream(node, topic="t", ticket=made[0], fields=again) as stream:
        assert stream.status == 401, "the one not used for longest has gone"
    with Stream(node, topic="t", ticket=made[1], fields=again) as stream:
        assert stream.status == 200
    assert by_ws(node, f"ticket={fresh}", {}) == "ann"


# --- how many ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("settings, claims", [({}, {"tidegate": {"max_conns": 1}}), ({"limit.user_connections": 1}, {})])
def test_a_stream_too_many_is_refused_before_it_begins(make_node, settings, claims):
    node = make_node({"node.loops": 4, **settings})
    fields = "".join(f"{name}: {value}\r\n" for name, value in bearer(make(node, **claims)).items())
    with Stream(node, topic="a", fields=fields):
        for door in ("sse", "poll") * 4:
            with Stream(node, topic=["a"], fields=fields, door=door) as other:
                assert other.status == 503 and other.head["content-type"] == "application/problem+json"
                assert json.loads(other.body)["code"] == "quota_exceeded"
    wait_until(lambda: curl(node.api("/v1/users/ann")).json()["count"] == 0, "the stream to be gone")
    with Stream(node, topic=["a", "b"], fields=fields) as stream:
        publish(node, "b", b"1")
        assert stream.message()["text"] == "1"


# --- a browser -----------------------------------------------------------------------------------------------------

def test_a_cookie_in_chromium(make_node, browser):  # noqa: F811
    """An EventSource of our own page sends no Origin; of another page it does."""
    node = make_node({"auth.cookie": "tide"})
    browser.get(node.web("/demo/"))
    browser.execute_script(f"""
        document.cookie = 'tide={make(node)}; path=/';
        window.opened = []; window.failed = 0;
        const source = new EventSource('/sse?topic=%24user%2Fann');
        source.onopen = () => window.opened.push('sse'); source.onerror = () => window.failed++;
        const socket = new WebSocket('ws://' + location.host + '/ws');
        socket.onopen = () => socket.send('{{"id":1,"sub":{{"topic":"$user/ann"}}}}');
        socket.onmessage = e => e.data.includes('"ok"') && window.opened.push('ws');
        fetch('/poll?topic=%24user%2Fann').then(a => a.ok && window.opened.push('poll'));""")
    wait_until(lambda: sorted(browser.execute_script("return window.opened")) == ["poll", "sse", "ws"], "all three to be open")
    assert browser.execute_script("return window.failed") == 0
