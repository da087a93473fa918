"""TLS on the MQTT port and the public HTTP port: versions, certificates, who is refused and how, and what handshakes may
not do to others. What holds for plain sockets is tried over TLS by test_ws_tls.py and test_mqtt_tls.py."""

import contextlib
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import mqtt_wire
from certificates import openssl
from clients import WAIT_S, Closed, MosquittoSub, Web, curl, mosquitto_pub, need, publish
from node import PATIENCE, PROGRAM, STOP_S, spans, wait_until
from test_tickets import At
from test_ws import KEY, Raw, frame
from tokens import bearer, headers, make

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def make_tls(make_node, certificates):
    def make(settings=None, *names, client=None, **options):
        node = make_node({**certificates.settings(*names), **(settings or {})}, **options)
        node.tls = client or certificates.client()
        return node
    return make


@pytest.fixture
def tls_node(make_tls):
    return make_tls()


def failures(node, reason):
    return node.metric("tidegate_tls_handshake_failures_total", f'"{reason}"')


def open_connections(node):
    """Those of clients: the one that asks is an API connection."""
    return node.metric("tidegate_connections", "mqtt") + node.metric("tidegate_connections", "ws") + node.metric(
        "tidegate_tls_handshakes_open")


def lives(node):
    with mqtt_wire.Wire(node) as wire, Web(node, hello={}) as web:
        wire.send(mqtt_wire.PING)
        assert wire.expect(mqtt_wire.PINGRESP) == b""
        assert web.hello["node"] == "test"


def refused(node, context, door="mqtt"):
    """The handshake, or with TLS 1.3 the first read after it, says no."""
    node.tls = context
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with node.connect(door) as wire:
            wire.sendall(mqtt_wire.connect(5, "x"))
            if not wire.recv(1):
                raise ConnectionResetError


# --- versions, keys, protocols ---------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_mosquitto(tls_node, certificates, version):
    ca = ["--cafile", str(certificates.pem("server-ca")), "--tls-version", version, "-p", str(tls_node.ports["mqtts"])]
    with MosquittoSub(tls_node, "a/#", *ca) as sub:
        mosquitto_pub(tls_node, "a/b", b"hello", *ca)
        assert sub.next() == ("a/b", b"hello")


@pytest.mark.parametrize("version, ciphers, key", [(V12, "ECDHE-ECDSA-AES128-GCM-SHA256", "id-ecPublicKey"),
                                                   (V12, "ECDHE-RSA-AES128-GCM-SHA256", "rsaEncryption"),
                                                   (V13, None, "id-ecPublicKey")])
@pytest.mark.parametrize("door", ["mqtt", "http"])
def test_both_kinds_of_keys(make_tls, certificates, tmp_path, door, version, ciphers, key):
    node = make_tls(client=certificates.client(version=version, ciphers=ciphers))
    with node.connect(door) as wire:
        assert wire.version() == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]
        (tmp_path / "seen.der").write_bytes(wire.getpeercert(binary_form=True))
    assert key in openssl("x509", "-inform", "DER", "-in", tmp_path / "seen.der", "-noout", "-text")


def test_oldest_version(make_tls, certificates):
    node = make_tls({"tls.min_version": "1.3"})
    lives(node)
    refused(node, certificates.client(version=V12))
    wait_until(lambda: failures(node, "version") == 1, "the refusal to be counted")
    node.tls = certificates.client(version=V13)
    lives(node)


def test_tls_1_1_is_not_spoken(tls_node, certificates):
    old = certificates.client(ciphers="ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    refused(tls_node, old)
    tls_node.tls = certificates.client()
    lives(tls_node)


@pytest.mark.parametrize("door, offered, chosen", [
    ("mqtt", ["mqtt"], "mqtt"), ("mqtt", ["h2", "mqtt"], "mqtt"), ("mqtt", None, None),
    ("http", ["h2", "http/1.1"], "http/1.1"), ("http", None, None)])
def test_application_protocol(make_tls, certificates, door, offered, chosen):
    node = make_tls(client=certificates.client(alpn=offered))
    with node.connect(door) as wire:
        assert wire.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("door, offered", [("mqtt", ["http/1.1"]), ("mqtt", ["mqt", "mqtts"]), ("http", ["mqtt"]),
                                           ("http", ["h2"])])
def test_a_client_of_another_protocol_ends_in_the_handshake(tls_node, certificates, door, offered):
    refused(tls_node, certificates.client(alpn=offered), door)
    wait_until(lambda: failures(tls_node, "alpn") == 1, "the refusal to be counted")
    tls_node.tls = certificates.client()
    lives(tls_node)


def test_no_renegotiation(tls_node, certificates):
    client = subprocess.Popen([need("openssl"), "s_client", "-tls1_2", "-connect", f"127.0.0.1:{tls_node.ports['https']}",
                               "-CAfile", certificates.pem("server-ca")],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    client.stdin.write(b"R\n")
    client.stdin.flush()
    said, _ = client.communicate(timeout=WAIT_S)
    assert b"Verify return code: 0" in said and b"no renegotiation" in said, said[-500:]
    lives(tls_node)


@pytest.mark.parametrize("version", [V12, V13])
def test_tickets_resume(make_tls, certificates, version):
    """On any loop: they share the keys."""
    node = make_tls({"node.loops": 2}, client=certificates.client(version=version))
    resumed = 0
    for _ in range(6):
        with mqtt_wire.Wire(node) as wire:  # the ticket of 1.3 comes with the first bytes
            session = wire.socket.session
        again = socket.create_connection(("127.0.0.1", node.ports["mqtts"]))
        with node.tls.wrap_socket(again, server_hostname="127.0.0.1", session=session) as wire:
            resumed += wire.session_reused
    assert resumed == 6
    wait_until(lambda: node.metric("tidegate_tls_handshakes_total", "resumed") == 6, "all six to be counted")


# --- configuration ---------------------------------------------------------------------------------------------

def test_without_a_certificate_there_is_no_tls(make_node):
    node = make_node()
    assert "mqtts" not in node.ports and "https" not in node.ports
    assert "tidegate_tls_cert_expiry_seconds" not in node.metrics()


def test_expiry_is_told(tls_node):
    assert 4.9 * 86400 < tls_node.metrics()["tidegate_tls_cert_expiry_seconds"] < 5.1 * 86400


@pytest.mark.parametrize("change, words", [
    (lambda c: {"tls.key_file": ""}, ["tls.key_file"]),
    (lambda c: {"tls.cert_file": str(c.folder / "none.pem")}, ["tls.cert_file", "none.pem", "No such file"]),
    (lambda c: {"tls.cert_file": str(c.key("ec"))}, ["tls.cert_file", "ec.key"]),
    (lambda c: {"tls.key_file": f"{c.key('rsa')},{c.key('ec')}"}, ["tls.key_file", "rsa.key"]),
    (lambda c: {"tls.key_file": str(c.key("ec"))}, ["rsa.pem", "no key"]),
    (lambda c: {"tls.cert_file": str(c.pem("ec"))}, ["rsa.key", "no certificate"]),
    (lambda c: {"tls.cert_file": f"{c.pem('ec')},{c.pem('ec')}", "tls.key_file": f"{c.key('ec')},{c.key('ec')}"},
     ["ec.pem", "same kind"]),
    (lambda c: {"tls.client_verify": "require"}, ["tls.client_ca_file"]),
    (lambda c: {"tls.client_identity": "cn"}, ["tls.client_verify"]),
    (lambda c: {"tls.client_verify": "optional", "tls.client_ca_file": str(c.key("ec"))}, ["tls.client_ca_file", "ec.key"]),
])
def test_what_is_wrong_with_the_files_is_said(certificates, tmp_path, change, words):
    settings = {**certificates.settings(), **change(certificates), "data.dir": tmp_path / "data", "mqtt.port": 0,
                "http.port": 0, "api.port": 0, "mqtt.tls_port": 0, "http.tls_port": 0}
    done = subprocess.run([PROGRAM, "serve", *(word for pair in settings.items() for word in ("--set", "%s=%s" % pair))],
                          capture_output=True, text=True, timeout=30 * PATIENCE, stdin=subprocess.DEVNULL)
    assert done.returncode == 78, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_an_encrypted_key_is_refused_not_asked_for(certificates, tmp_path):
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", certificates.key("ec"), "-aes128", "-passout", "pass:secret", "-out", locked)
    done = subprocess.run([PROGRAM, "serve", "--set", f"tls.cert_file={certificates.pem('ec')}", "--set",
                           f"tls.key_file={locked}", "--set", f"data.dir={tmp_path / 'data'}"],
                          capture_output=True, text=True, timeout=30 * PATIENCE, stdin=subprocess.DEVNULL)
    assert done.returncode == 78 and "locked.key" in done.stderr, done.stderr


# --- clients' certificates -------------------------------------------------------------------------------------

def test_a_certificate_that_is_required(make_tls, certificates):
    node = make_tls({"tls.client_verify": "require", "tls.client_ca_file": certificates.pem("client-ca")},
                    client=certificates.client("alice"))
    lives(node)
    for door in ("mqtt", "http"):
        refused(node, certificates.client(), door)
        refused(node, certificates.client("mallory"), door)
    wait_until(lambda: failures(node, "client_cert") == 4, "the refusals to be counted")
    node.tls = certificates.client("alice")
    lives(node)


def test_a_certificate_that_is_optional_must_be_good(make_tls, certificates):
    node = make_tls({"tls.client_verify": "optional", "tls.client_ca_file": certificates.pem("client-ca")})
    lives(node)
    node.tls = certificates.client("alice")
    lives(node)
    refused(node, certificates.client("mallory"))
    wait_until(lambda: failures(node, "client_cert") == 1, "the refusal to be counted")
    node.tls = certificates.client()


def with_clients(certificates, name="alice", verify="optional", **more):
    return {"tls.client_verify": verify, "tls.client_ca_file": certificates.pem("client-ca"), **more}


@pytest.mark.parametrize("kind, user", [("cn", "alice"), ("san", "alice@example.org")])
def test_a_certificate_is_an_identity(make_tls, certificates, kind, user):
    """At both doors: the own inbox is open, another's is not. A session that is resumed keeps the name."""
    node = make_tls(with_clients(certificates, **{"tls.client_identity": kind}), client=certificates.client("alice"))
    inbox = "$user/" + user
    with Web(node, hello={}) as web:
        assert web.hello["user"] == user
        web.subscribe(inbox)
        assert web.ask({"sub": {"topic": "$user/bob"}})["err"]["code"] == "forbidden"
        session = None
        for _ in range(2):
            with node.tls.wrap_socket(socket.create_connection(("127.0.0.1", node.ports["mqtts"])), session=session,
                                      server_hostname="127.0.0.1") as wire:
                wire.settimeout(WAIT_S)
                wire.sendall(mqtt_wire.connect(5, "device") + mqtt_wire.subscribe(1, inbox, "$user/bob"))
                said = b""
                while not said.endswith(b"\x01\x87"):
                    piece = wire.recv(1000)
                    assert piece, said
                    said += piece
                assert wire.session_reused == bool(session)
                session = wire.session


def test_no_certificate_no_identity(make_tls, certificates):
    node = make_tls(with_clients(certificates, **{"tls.client_identity": "cn"}))
    with Web(node, hello={}) as web:
        assert not web.hello.get("user")
        assert web.ask({"sub": {"topic": "$user/alice"}})["err"]["code"] == "forbidden"
    refused(node, certificates.client("mallory"))
    node.tls = certificates.client()


def test_a_certificate_alone_names_nobody(make_tls, certificates):
    node = make_tls(with_clients(certificates), client=certificates.client("alice"))
    with Web(node, hello={}) as web:
        assert not web.hello.get("user")


def test_who_has_a_certificate_needs_no_other_credential(make_tls, certificates):
    node = make_tls(with_clients(certificates, **{"tls.client_identity": "cn", "auth.anonymous": "never"}),
                    client=certificates.client("alice"))
    with Web(node, hello={}) as web:
        assert web.hello["user"] == "alice"
    for name, code in (("alice", 0), ("bob", 0x86)):
        with node.connect("mqtt") as wire:
            wire.sendall(mqtt_wire.connect(5, "x", flags=0x82, rest=mqtt_wire.text(name)))
            assert wire.recv(100)[3] == code
    node.tls = certificates.client()
    with node.connect("mqtt") as wire:
        wire.sendall(mqtt_wire.connect(5, "x"))
        assert wire.recv(100)[3] in (0x86, 0x87)


def test_a_token_of_somebody_else_is_refused(make_tls, certificates):
    node = make_tls(with_clients(certificates, **{"tls.client_identity": "cn"}), client=certificates.client("alice"))

    def token(user):
        return subprocess.run([PROGRAM, "token", "create", user, "--set", f"data.dir={node.data}"], check=True,
                              capture_output=True, text=True, timeout=WAIT_S).stdout.strip()
    with Web(node) as web:
        assert web.ask({"hello": {"token": token("bob")}})["err"]["code"] == "unauthorized"
    with Web(node) as web:
        assert web.ask({"hello": {"token": token("alice")}})["ok"]["user"] == "alice"
    for user, code in (("bob", 0x86), ("alice", 0)):
        with node.connect("mqtt") as wire:
            wire.sendall(mqtt_wire.connect(5, "x", flags=0xC2, rest=mqtt_wire.text("jwt") + mqtt_wire.text(token(user))))
            assert wire.recv(100)[3] == code


def test_a_certificate_is_an_identity_for_pages_and_streams(make_tls, certificates):
    """What a rule denies its user it does not get as a stranger either."""
    rules = "[{principal: alice, effect: deny, op: subscribe, topic: 'closed/#'}, {effect: allow, topic: '#'}]"
    node = make_tls(with_clients(certificates, **{"tls.client_identity": "cn", "acl": rules}), client=certificates.client("alice"))
    publish(node, "closed/x", b"1")
    publish(node, "open/x", b"1")
    alice = ["-k", "--cert", str(certificates.pem("alice")), "--key", str(certificates.key("alice"))]
    url = f"https://127.0.0.1:{node.ports['https']}"

    def token(user):
        return bearer(make(node, user))

    for path in ("/poll", "/sse"):
        curl(f"{url}{path}?topic=closed/x&after=earliest", *alice, check=403)
        curl(f"{url}{path}?topic=open/x", *alice, *token("bob"), check=401)
        # A proxy's certificate is not its clients'.
        curl(f"{url}{path}?topic=open/x", *alice, "-H", "X-Forwarded-For: 10.0.0.1", check=401)
    assert curl(f"{url}/poll?topic=open/x&after=earliest", *alice).json()["messages"]
    assert curl(f"{url}/poll?topic=open/x&after=earliest", *alice, *token("alice")).json()["messages"]
    forwarded = {"X-Forwarded-For": "10.0.0.1"}
    assert curl(f"{url}/poll?topic=closed/x&after=earliest", *alice, *token("bob"), "-H", "X-Forwarded-For: 10.0.0.1").json()["messages"]
    with Web(node, **headers(forwarded)) as web:
        assert web.ask({"hello": {"token": make(node, "bob")}})["ok"]["user"] == "bob"
        web.subscribe("$user/bob")
    with Web(node, **headers(forwarded)) as web:
        assert web.ask({"sub": {"topic": "$user/alice"}})["err"]["code"] == "unauthorized"
    node = make_tls(with_clients(certificates, **{"tls.client_identity": "cn"}), client=certificates.client("alice"))
    ticket = curl(node.api("/v1/tickets"), "-H", "Content-Type: application/json", data=b'{"user":"bob"}').json()["ticket"]
    with At(node, f"/ws?ticket={ticket}") as web:
        assert web.close_code() == 4200


# --- new certificates ------------------------------------------------------------------------------------------

class Renewed:
    """A node whose files are its own, so that they can be replaced."""

    def __init__(self, make_node, certificates, folder):
        self.certificates, self.folder = certificates, folder
        self.put("ec")
        self.node = make_node({"tls.cert_file": folder / "a.pem", "tls.key_file": folder / "a.key"})
        self.node.tls = certificates.client()

    def put(self, name, key=None):
        (self.folder / "a.pem").write_bytes(self.certificates.pem(name).read_bytes())
        (self.folder / "a.key").write_bytes(self.certificates.key(key or name).read_bytes())

    def reload(self, words):
        said = len(self.node.stderr)
        self.node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(all(word in line for word in words) for line in self.node.stderr[said:]),
                   f"{words} in the log")

    def serial(self):
        with self.node.connect("mqtt") as wire:
            return int(wire.getpeercert()["serialNumber"], 16)


@pytest.fixture
def renewed(make_node, certificates, tmp_path):
    return Renewed(make_node, certificates, tmp_path)


def test_new_certificates_on_sighup(renewed, certificates):
    certificates.make("next", "server-ca", number=777777, days=9)
    with mqtt_wire.Wire(renewed.node) as wire, Web(renewed.node, hello={}) as web:
        renewed.put("next")
        renewed.reload(["certificates read again"])
        wait_until(lambda: renewed.serial() == 777777, "the new certificate to be shown")
        assert renewed.node.metrics()["tidegate_tls_cert_expiry_seconds"] > 8 * 86400
        wire.send(mqtt_wire.PING)
        assert wire.expect(mqtt_wire.PINGRESP) == b""
        web.subscribe("a")


@pytest.mark.parametrize("name, key, words", [("ec", "rsa", ["a.key"]), ("rsa", "ec", ["a.key"]),
                                              ("expired", None, ["a.pem", "expired"])])
def test_a_bad_new_certificate_is_refused_and_the_old_stays(renewed, certificates, name, key, words):
    if name == "expired":
        certificates.make("expired", "server-ca", days=-1)
    before = renewed.serial()
    renewed.put(name, key)
    renewed.reload(["nothing has changed", *words])
    assert renewed.serial() == before
    (renewed.folder / "a.pem").unlink()
    renewed.reload(["nothing has changed", "a.pem", "No such file"])
    assert renewed.serial() == before
    lives(renewed.node)
    renewed.put("ec")  # a node is started once more when the test is over


def test_tickets_of_old_certificates_are_not_taken(renewed):
    """What a client was believed for under the old rules is not believed under the new ones."""
    with mqtt_wire.Wire(renewed.node) as wire:
        session = wire.socket.session
    renewed.reload(["certificates read again"])
    again = socket.create_connection(("127.0.0.1", renewed.node.ports["mqtts"]))
    with renewed.node.tls.wrap_socket(again, server_hostname="127.0.0.1", session=session) as wire:
        assert not wire.session_reused
    lives(renewed.node)


# --- what is not TLS, or stops in the middle of it -------------------------------------------------------------

@pytest.mark.parametrize("port", ["mqtts", "https"])
@pytest.mark.parametrize("data", [mqtt_wire.connect(5, "x"), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 70000])
def test_plain_bytes_on_a_tls_port(tls_node, port, data):
    with socket.create_connection(("127.0.0.1", tls_node.ports[port]), timeout=WAIT_S) as wire:
        try:
            wire.sendall(data)
            said = wire.recv(1000)
        except ConnectionError:
            said = b""
        assert said == b"" or said[0] == 21, "nothing, or an alert"
    wait_until(lambda: failures(tls_node, "not_tls") == 1, "the failure to be counted")
    lives(tls_node)


@pytest.mark.parametrize("door", ["mqtt", "http"])
def test_tls_on_a_plain_port(tls_node, certificates, door):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with socket.create_connection(("127.0.0.1", tls_node.ports[door]), timeout=WAIT_S) as wire:
            certificates.client().wrap_socket(wire, server_hostname="localhost")
    lives(tls_node)


@pytest.mark.parametrize("port", ["mqtts", "https"])
@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_does_not_come_ends(make_tls, port, data):
    node = make_tls({"mqtt.connect_timeout_ms": 300, "ws.hello_timeout_ms": 300})
    with socket.create_connection(("127.0.0.1", node.ports[port]), timeout=WAIT_S) as wire:
        with contextlib.suppress(ConnectionError):  # it may be ended before that is sent
            wire.sendall(data)
            assert wire.recv(100) == b""
    wait_until(lambda: failures(node, "timeout") == 1 and open_connections(node) == 0, "it to be counted and gone")


@pytest.mark.parametrize("door", ["mqtt", "http"])
@spans(0.3, 2, 10)
def test_silence_after_the_handshake_ends(make_tls, door, span):
    node = make_tls({"mqtt.connect_timeout_ms": int(1000 * span), "ws.hello_timeout_ms": int(1000 * span)})
    with node.connect(door) as wire:
        assert wire.recv(100) == b""
    wait_until(lambda: open_connections(node) == 0, "the connection to be gone")


def test_a_handshake_may_come_byte_by_byte(tls_node, certificates):
    """ClientHello and all that follows in pieces of one byte."""
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    inner = certificates.client().wrap_bio(server, client, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", tls_node.ports["mqtts"]), timeout=WAIT_S) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        done = False
        while not done:
            try:
                inner.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            for byte in client.read():
                wire.sendall(bytes([byte]))
            if not done:
                server.write(wire.recv(65536))
        inner.write(mqtt_wire.connect(5, "slow"))
        for byte in client.read():
            wire.sendall(bytes([byte]))
        answer = b""
        while not answer:
            server.write(wire.recv(65536))
            try:
                answer = inner.read(100)
            except ssl.SSLWantReadError:
                pass
        assert answer[0] >> 4 == mqtt_wire.CONNACK


def test_an_aborted_handshake_leaves_nothing(tls_node):
    for port in ("mqtts", "https"):
        for size in (0, 1, 5, 100):
            socket.create_connection(("127.0.0.1", tls_node.ports[port])).close()
            with socket.create_connection(("127.0.0.1", tls_node.ports[port])) as wire:
                wire.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * size)
    wait_until(lambda: open_connections(tls_node) == 0, "all to be gone")
    lives(tls_node)


# --- HTTP over TLS ---------------------------------------------------------------------------------------------

def test_pages_by_curl(make_tls, certificates, tmp_path):
    (tmp_path / "pages").mkdir()
    body = bytes(range(256)) * 16_000
    (tmp_path / "pages" / "big.js").write_bytes(body)
    node = make_tls({"demo.dir": tmp_path / "pages"})
    answer = curl(node.web("/demo/big.js"), "--cacert", str(certificates.pem("server-ca")))
    assert answer.body == body
    answer = curl(node.web("/demo/big.js"), "--cacert", str(certificates.pem("server-ca")), "--http2", "--limit-rate", "8M")
    assert answer.body == body
    wait_until(lambda: open_connections(node) == 0, "all to be gone")


def test_a_head_that_is_too_long(tls_node):
    with Raw(tls_node) as raw:
        raw.send(b"GET /demo/ HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000)
        assert raw.answer()[0] in (None, 400, 403, 414, 431)
    lives(tls_node)


def test_more_slow_readers_of_pages_than_there_are_pairs(make_tls, tmp_path):
    """The oldest go, and WebSockets still open."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "big.js").write_bytes(b"x" * 6_000_000)
    node = make_tls({"demo.dir": tmp_path / "pages"})
    slow = []
    for _ in range(70):
        raw = Raw(node, receive_bytes=4096)
        raw.send(b"GET /demo/big.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert raw.file.readline().startswith(b"HTTP/1.1 200")
        slow.append(raw)
    lives(node)
    for raw in slow:
        raw.close()
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "all to be gone")


# --- slow readers ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [V12, V13])
def test_a_slow_reader_gets_every_byte(make_tls, certificates, version):
    """Records that are half out when more is queued behind them: OpenSSL wants the same bytes again."""
    node = make_tls({"out.bytes_max": "256K"}, client=certificates.client(version=version))
    sizes = [1 + number * 7919 % 60_000 for number in range(300)]
    wire = mqtt_wire.Wire(node, receive_buffer=4096)
    wire.subscribe(("big", 1))
    with Raw(node, receive_bytes=4096) as slow, Web(node) as web:
        slow.upgrade()
        slow.ask({"id": 1, "sub": {"topic": "big"}})
        waiting = [web.request({"pub": {"topic": "big", "text": f"{n:06d}" + "x" * size}}) for n, size in enumerate(sizes)]
        for n, size in enumerate(sizes):
            assert slow.item("msg")["msg"]["text"] == f"{n:06d}" + "x" * size
            assert wire.message().payload == f"{n:06d}".encode() + b"x" * size
        for number in waiting:
            assert "ok" in web.answer(number)
    wire.close()


def test_a_stopped_reader_of_small_messages_is_told_4002(make_tls):
    """The record that is half out holds many whole messages: none of them may be left out any more."""
    node = make_tls({"out.bytes_max": "64K", "out.stall_ms": 500})
    with Raw(node, receive_bytes=4096) as slow, Web(node) as web:
        slow.upgrade()
        slow.ask({"id": 1, "sub": {"topic": "small"}})
        for start in range(0, 20_000, 100):
            web.post_text("\n".join('{"pub":{"topic":"small","text":"%06d%s"}}' % (number, "x" * 200)
                                    for number in range(start, start + 100)))
        wait_until(lambda: node.metrics()["tidegate_subscriptions"] == 0, "the node to give the reader up")
        seen = 0
        with pytest.raises(Closed) as info:
            while True:
                if "msg" in (item := slow.item()):
                    assert int(item["msg"]["text"][:6]) == seen
                    seen += 1
        assert info.value.code == 4002 and seen > 50


# --- storms ----------------------------------------------------------------------------------------------------

def test_a_storm_of_handshakes_does_not_keep_others_waiting(tls_node, certificates):
    """No figure is asserted (the machine may be loaded), only that everybody gets through."""
    stop, pings, errors = threading.Event(), [], []
    wire = mqtt_wire.Wire(tls_node)

    def ping():
        while not stop.is_set():
            wire.send(mqtt_wire.PING)
            wire.expect(mqtt_wire.PINGRESP)
            pings.append(time.monotonic())

    def connect_many():
        try:
            for _ in range(20):
                with mqtt_wire.Wire(tls_node):
                    pass
        except Exception as error:
            errors.append(error)

    pinger = threading.Thread(target=ping)
    pinger.start()
    crowd = [threading.Thread(target=connect_many) for _ in range(10)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(60 * PATIENCE)
    stop.set()
    pinger.join(WAIT_S)
    assert not errors and len(pings) > 10
    assert tls_node.metric("tidegate_tls_handshakes_total") >= 201
    wire.close()


def test_who_is_over_the_limit_is_told_behind_the_handshake(make_tls):
    node = make_tls({"limit.connections": 2})
    first, second = mqtt_wire.Wire(node), mqtt_wire.Wire(node)
    for version, answer in ((4, b"\x20\x02\x00\x03"), (5, b"\x20\x03\x00\x97\x00")):
        with mqtt_wire.Wire(node, version, connected=False) as late:
            late.send(mqtt_wire.connect(version, "late"))
            assert late.rest() == answer
    with node.connect("http") as late:
        late.sendall(b"GET /demo/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert late.recv(4096).startswith(b"HTTP/1.1 503")
    assert node.metric("tidegate_connects_total", "limit") == 3
    first.close()
    wait_until(lambda: open_connections(node) == 1, "room again")
    mqtt_wire.Wire(node).close()
    second.ping()
    second.close()


def test_limit_of_connections_counts_handshakes(make_tls):
    node = make_tls({"limit.connections": 3, "mqtt.refused_max": 0})
    idle = [socket.create_connection(("127.0.0.1", node.ports["mqtts"])) for _ in range(3)]
    wait_until(lambda: node.metric("tidegate_tls_handshakes_open") == 3, "three handshakes")
    with socket.create_connection(("127.0.0.1", node.ports["mqtts"]), timeout=WAIT_S) as wire:
        assert wire.recv(1) == b""
    for wire in idle:
        wire.close()
    wait_until(lambda: node.metric("tidegate_tls_handshakes_open") == 0, "room again")
    lives(node)


def test_stopping_with_handshakes_under_way(make_tls):
    node = make_tls()
    wires = [socket.create_connection(("127.0.0.1", node.ports[port]), timeout=WAIT_S) for port in ("mqtts", "https")]
    wait_until(lambda: node.metric("tidegate_tls_handshakes_open") == 2, "both to be seen")
    node.process.send_signal(signal.SIGTERM)
    for wire in wires:
        assert wire.recv(1) == b""
        wire.close()
    assert node.process.wait(STOP_S) == 0
