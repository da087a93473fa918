"""Keys of other issuers: PEM, JWK sets by file and by URL, issuers and audiences (PROTOCOL.md 6)."""

import http.server
import json
import subprocess
import threading
import time

import pytest

from clients import Web, module
from node import wait_until
from tokens import feeds_say, headers, http_says, jwt, make, mqtt_says, tidegate, ws_says

FAILURES = "tidegate_auth_failures_total"


def openssl(*words):
    return subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60).stdout


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """name -> (private, public), by the openssl command"""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name, words in (("rsa", ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")), ("rsa2", ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")),
                        ("ec", ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"))):
        path = folder / f"{name}.pem"
        path.write_bytes(openssl("genpkey", "-algorithm", *words))
        public = folder / f"{name}.pub"
        public.write_bytes(openssl("pkey", "-in", str(path), "-pubout"))
        made[name] = (path.read_text(), public)
    return made


def jwk(pems, name, key_id):
    algorithms = module("jwt.algorithms")
    kind = algorithms.ECAlgorithm if name.startswith("ec") else algorithms.RSAAlgorithm
    key = kind(kind.SHA256).prepare_key(pems[name][1].read_text())
    if name.startswith("ec"):
        numbers = key.public_numbers()
        part = lambda n: jwt.utils.base64url_encode(n.to_bytes(32, "big")).decode()
        return {"kty": "EC", "crv": "P-256", "x": part(numbers.x), "y": part(numbers.y), "kid": key_id, "use": "sig"}
    return {**json.loads(algorithms.RSAAlgorithm.to_jwk(key)), "kid": key_id, "alg": "RS256"}


class Issuer:
    """Serves a JWK set, or what else it is told to."""

    def __init__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                outer.open.wait(30)
                body = outer.body if isinstance(outer.body, bytes) else json.dumps({"keys": outer.body}).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.asked, self.status, self.body = 0, 200, []
        self.open = threading.Event()
        self.open.set()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/keys"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    made.open.set()
    made.server.shutdown()
    made.server.server_close()


def test_keys_of_files(make_node, pems, tmp_path):
    jwks = tmp_path / "set.json"
    jwks.write_text(json.dumps({"keys": [jwk(pems, "rsa2", "two")]}))
    node = make_node({"auth.keys": f"{pems['rsa'][1]},{pems['ec'][1]},{jwks}"})
    rsa, rsa2, ec = (pems[name][0] for name in ("rsa", "rsa2", "ec"))
    for token in (make(node, key=rsa, alg="RS256"), make(node, key=ec, alg="ES256"), make(node),
                  make(node, key=rsa2, alg="RS256", headers={"kid": "two"}), make(node, key=rsa2, alg="RS256")):
        assert ws_says(node, token) == ("ann", None)
        assert mqtt_says(node, token) == 0 and http_says(node, token) == (200, None) and feeds_say(node, token) == [200, 200]
        tidegate("token", "check", token, "--data", str(node.data), "--set", f"auth.keys={node.settings['auth.keys']}")
    assert node.metric(FAILURES) == 0
    # The public key as the secret of an HMAC; PyJWT does not want to make such a token.
    text = pems["rsa"][1].read_bytes()
    first = b".".join(jwt.utils.base64url_encode(json.dumps(part).encode()) for part in ({"alg": "HS256"}, {"sub": "ann"}))
    confused = (first + b"." + jwt.utils.base64url_encode(module("hmac").digest(text, first, "sha256"))).decode()
    for token in (confused, make(node, key=rsa2, alg="RS256", headers={"kid": "other"}), make(node, key=rsa, alg="RS512"),
                  make(node, key=rsa, alg="PS256")):
        assert ws_says(node, token) == ("unauthorized", 4200)
        assert mqtt_says(node, token) == 0x86 and http_says(node, token) == (401, "unauthorized") and feeds_say(node, token) == [401, 401]


@pytest.mark.parametrize("text, why", [("", "PEM"), ("hello", "PEM"), ('{"keys":[]}', "none of its keys"), ("{", "JWK")])
def test_a_file_without_keys_is_told(tmp_path, text, why):
    path = tmp_path / "key"
    path.write_text(text)
    said = tidegate("serve", "--set", f"data.dir={tmp_path / 'data'}", "--set", f"auth.keys={path}", code=78).stderr
    assert str(path) in said and why in said
    assert "auth.keys" in tidegate("serve", "--set", f"data.dir={tmp_path / 'data'}", "--set", "auth.keys=/none", code=78).stderr


def test_issuer_and_audience(make_node):
    rules = {"auth.issuers": "https://a,https://b", "auth.audiences": "tide,gate", "auth.leeway_ms": "60s"}
    node = make_node(rules)
    good = {"iss": "https://b", "aud": ["x", "gate"]}
    now = int(time.time())
    assert ws_says(node, make(node, **good)) == ("ann", None)
    assert ws_says(node, make(node, **good, exp=now - 30)) == ("ann", None)
    for reason, claims in (("issuer", {"iss": None}), ("issuer", {"iss": "https://c"}), ("audience", {"aud": None}),
                           ("audience", {"aud": "tid"}), ("expired", {"exp": now - 90}), ("not_yet_valid", {"nbf": now + 90})):
        token = make(node, **{**good, **claims})
        before = node.metric(FAILURES, reason)
        late = reason in ("expired", "not_yet_valid")
        assert ws_says(node, token) == ("unauthorized", 4100 if reason == "expired" else 4200)
        assert http_says(node, token) == (401, "unauthorized")
        assert mqtt_says(node, token) == (0x87 if late else 0x86) and mqtt_says(node, token, 4) == (5 if late else 4)
        assert feeds_say(node, token) == [401, 401]
        assert node.metric(FAILURES, reason) == before + 6
    words = [word for key, value in rules.items() for word in ("--set", f"{key}={value}")]
    own = tidegate("token", "create", "ann", "--data", str(node.data), *words).stdout.strip()
    assert ws_says(node, own) == ("ann", None)


def test_keys_of_a_url_are_fetched_and_rotated(make_node, pems, issuer):
    issuer.body = [jwk(pems, "rsa", "one")]
    node = make_node({"auth.jwks_url": issuer.url, "auth.jwks_refresh_ms": "200ms", "node.loops": 2})
    one = make(node, key=pems["rsa"][0], alg="RS256", headers={"kid": "one"})
    two = make(node, key=pems["ec"][0], alg="ES256", headers={"kid": "two"})
    assert ws_says(node, one) == ("ann", None) and mqtt_says(node, one) == 0 and http_says(node, one) == (200, None)
    tidegate("token", "check", one, "--data", str(node.data), "--set", f"auth.jwks_url={issuer.url}")
    issuer.body = [jwk(pems, "ec", "two")]
    wait_until(lambda: http_says(node, two)[0] == 200 and http_says(node, one)[0] == 401, "the keys to change")
    issuer.status = 500  # what was fetched stays in force
    asked = issuer.asked
    wait_until(lambda: issuer.asked > asked + 1, "two more fetches")
    assert ws_says(node, two) == ("ann", None)
    wait_until(lambda: "keys not fetched" in node.log(), "it to be logged")
    issuer.status, issuer.body = 200, b"{" * 300_000
    asked = issuer.asked
    wait_until(lambda: issuer.asked > asked + 1, "two more fetches")
    assert ws_says(node, two) == ("ann", None)


def test_a_token_waits_for_its_key(make_node, pems, issuer):
    """The first fetch hangs: who comes meanwhile is answered when it is there, by whatever door."""
    issuer.open.clear()
    node = make_node({"auth.jwks_url": issuer.url})
    token = make(node, key=pems["rsa"][0], alg="RS256", headers={"kid": "one"})
    wait_until(lambda: issuer.asked == 1, "the node to ask")
    issuer.body = [jwk(pems, "rsa", "one")]
    said = {}
    doors = {"ws": lambda: ws_says(node, token), "mqtt": lambda: mqtt_says(node, token), "http": lambda: http_says(node, token)}
    threads = [threading.Thread(target=lambda name=name, ask=ask: said.update({name: ask()})) for name, ask in doors.items()]
    with Web(node, hello={"token": make(node)}) as web:  # others are served meanwhile
        for thread in threads:
            thread.start()
        waits = Web(node)
        number = waits.request({"hello": {"token": token}})
        pub = waits.request({"pub": {"topic": "a", "data": 1}})
        gone = Web(node)
        gone.request({"hello": {"token": token}})
        gone.abort()
        assert "ok" in web.ask({"pub": {"topic": "a", "data": 1}})
        assert not said and number not in waits.answers
        issuer.open.set()
        for thread in threads:
            thread.join(60)
        assert said == {"ws": ("ann", None), "mqtt": 0, "http": (200, None)}
        assert waits.answer(number)["ok"]["user"] == "ann" and "ok" in waits.answer(pub)
        waits.close()


def test_an_unknown_key_is_looked_for_now_and_then(make_node, pems, issuer):
    issuer.body = [jwk(pems, "rsa", "one")]
    node = make_node({"auth.jwks_url": issuer.url})
    wait_until(lambda: issuer.asked == 1, "the first fetch")
    strange = make(node, key=pems["ec"][0], alg="ES256", headers={"kid": "x"})
    for _ in range(20):
        assert http_says(node, strange) == (401, "unauthorized")
    assert issuer.asked <= 3
    assert node.metric(FAILURES, "unknown_key") == 20


def test_the_node_stops_while_it_fetches(make_node, pems, issuer):
    issuer.open.clear()
    node = make_node({"auth.jwks_url": issuer.url})
    wait_until(lambda: issuer.asked == 1, "the node to ask")
    web = Web(node)
    web.request({"hello": {"token": make(node, key=pems["rsa"][0], alg="RS256")}})
    node.stop()
    issuer.open.set()
    web.close()


def test_a_wrong_url_is_told():
    assert "auth.jwks_url" in tidegate("config", "check", "--set", "auth.jwks_url=file:///etc/passwd", code=78).stderr


def test_whoever_is_anonymous_can_be_kept_out(make_node):
    node = make_node({"auth.anonymous": "never", "api.key": "s3cret"})
    assert http_says(node, make(node)) == (200, None) and ws_says(node, make(node)) == ("ann", None)
    assert mqtt_says(node, make(node)) == 0 and mqtt_says(node, None, 5, None) == 0x87 and mqtt_says(node, None, 4, None) == 5
    with Web(node) as web:
        assert web.ask({"sub": {"topic": "a"}})["err"]["code"] == "unauthorized" and web.close_code() == 4200
    curl = module("clients").curl
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/v1/capabilities", 401), ("/v1/history/a", 401)):
        curl(node.api(path), check=status)
    curl(node.api("/metrics"), "-H", "Authorization: Bearer s3cret")


def test_clients_of_an_open_port_need_a_credential(make_node):
    node = make_node({"mqtt.bind": "0.0.0.0", "http.bind": "0.0.0.0"})
    assert mqtt_says(node, None, 5, None) == 0x87 and mqtt_says(node, make(node)) == 0
    with Web(node) as web:
        assert web.ask({"pub": {"topic": "a", "data": 1}})["err"]["code"] == "unauthorized"
    assert ws_says(node, make(node)) == ("ann", None)
