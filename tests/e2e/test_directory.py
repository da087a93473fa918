"""Nodes that share a directory in Redis: each says where users are on all of them, and whether it can be sure."""

import subprocess
import time

import pytest

from clients import Web, curl
from node import PROGRAM, Node, wait_until
from redis_server import Redis, Sentinel
from test_sse import Stream
from tokens import make, mqtt_client

# So short that a test does not wait for them, so long that a busy machine keeps them.
FAST = {"directory.redis.lease_ms": 2000, "directory.redis.timeout_ms": 1500, "directory.redis.retry_max_ms": 200}


class Cluster:
    def __init__(self, folder, redis):
        self.folder, self.redis, self.nodes = folder, redis, []

    def add(self, name, url=None, **settings):
        (self.folder / name).mkdir(exist_ok=True)
        node = Node(self.folder / name, {"node.id": name, "directory.redis.url": url or self.redis.url(), **FAST, **settings}, folds=False)
        self.nodes.append(node)
        return node.start()

    def end(self):
        try:
            for node in self.nodes:
                node.check()
        finally:
            self.redis.stop()


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path, Redis(tmp_path).start())
    yield cluster
    cluster.end()


def where(node, user="alice"):
    return curl(node.api(f"/v1/users/{user}")).json()


def places(answer):
    return [(item["node"], item["door"]) for item in answer["connections"]]


def ready(node):
    return curl(node.api("/readyz")).json()


def fresh(*nodes):
    for node in nodes:
        wait_until(lambda node=node: not where(node, "nobody")["stale"], "a fresh answer")


def same_everywhere(nodes, user, expected):
    """What every node says of the user, in the end: expected, fresh, and the same."""

    def look():
        answers = [where(node, user) for node in nodes]
        return (all(not answer["stale"] and sorted(places(answer)) == sorted(expected) for answer in answers)
                and answers)
    answers = wait_until(look, f"{expected} at every node")
    assert len({str(answer["connections"]) for answer in answers}) == 1
    assert all(answer["count"] == len(expected) and answer["online"] == bool(expected) for answer in answers)
    assert all(abs(answer["as_of"] - time.time() * 1000) < 60000 for answer in answers)
    return answers


def test_a_user_is_where_he_is_at_every_node(cluster):
    a, b, c = nodes = [cluster.add(name) for name in "abc"]
    fresh(*nodes)
    with Web(a, hello={"token": make(a, "alice")}):
        client = mqtt_client(b, make(b, "alice"))
        answers = same_everywhere(nodes, "alice", [("a", "ws"), ("b", "mqtt")])
        assert [item["id"][0] for item in answers[0]["connections"]] == ["a", "b"]  # the older one first
        client.close()
        same_everywhere(nodes, "alice", [("a", "ws")])
    same_everywhere(nodes, "alice", [])
    wait_until(lambda: cluster.redis.ask("KEYS", "tidegate:user:*") == "", "nothing to be left of him")
    wait_until(lambda: ready(c) == {"status": "ok"}, "nothing to be degraded")
    wait_until(lambda: [node.metric("tidegate_redis_up") for node in nodes] == [1, 1, 1], "all to be connected")

    seen = [curl(node.api("/v1/nodes")).json() for node in nodes]
    assert all(not answer["stale"] and [item["node"] for item in answer["nodes"]] == ["a", "b", "c"] for answer in seen)
    assert [[item["self"] for item in answer["nodes"]].index(True) for answer in seen] == [0, 1, 2]
    assert {item["state"] for answer in seen for item in answer["nodes"]} == {"ready"}


def test_what_a_killed_node_has_left_does_not_count(cluster):
    a, b = cluster.add("a"), cluster.add("b")
    fresh(a, b)
    Web(a, hello={"token": make(a, "alice")})
    same_everywhere([a, b], "alice", [("a", "ws")])
    a.kill9()
    same_everywhere([b], "alice", [])
    wait_until(lambda: [item["node"] for item in curl(b.api("/v1/nodes")).json()["nodes"]] == ["b"], "one node")
    # Whoever comes by takes away what the dead have left.
    wait_until(lambda: where(b) and cluster.redis.ask("KEYS", "tidegate:user:*") == "", "the entry to be removed")
    wait_until(lambda: cluster.redis.ask("SMEMBERS", "tidegate:nodes") == "b", "its name to be removed")
    assert b.metric("tidegate_directory_swept_total") >= 1


def test_a_node_that_comes_again_at_once_has_nothing_of_its_former_life(cluster):
    a, b = cluster.add("a"), cluster.add("b", **{"directory.redis.lease_ms": 600000})
    fresh(a, b)
    Web(a, hello={"token": make(a, "alice")})
    same_everywhere([a, b], "alice", [("a", "ws")])
    a.kill9()
    a.start()
    same_everywhere([b], "alice", [])  # not asked at a, which would remove what is its own
    same_everywhere([a, b], "alice", [])


def test_redis_restarts_empty(cluster):
    a, b = cluster.add("a"), cluster.add("b")
    fresh(a, b)
    with Web(a, hello={"token": make(a, "alice")}), Web(b, hello={"token": make(b, "bob")}):
        same_everywhere([a, b], "alice", [("a", "ws")])
        cluster.redis.stop()
        wait_until(lambda: ready(b) == {"status": "ok", "degraded": ["directory"]}, "the node to say so")
        away = where(b)
        # From memory, and as of when; of whom was never asked for nothing is known but what is here.
        assert away["stale"] and places(away) == [("a", "ws")] and away["as_of"] > 0
        own = where(b, "bob")
        assert own["stale"] and places(own) == [("b", "ws")] and own["as_of"] is None
        nodes = curl(b.api("/v1/nodes")).json()
        assert nodes["stale"] and [item["node"] for item in nodes["nodes"]] in (["b"], ["a", "b"])
        assert b.metric("tidegate_redis_up") == 0 and b.metric("tidegate_directory_lookups_total", "stale") > 0
        cluster.redis.start()
        same_everywhere([a, b], "alice", [("a", "ws")])
        same_everywhere([a, b], "bob", [("b", "ws")])
        assert a.metric("tidegate_directory_registrations_again_total", "connection") >= 1
        wait_until(lambda: ready(b) == {"status": "ok"}, "nothing to be degraded")


def test_redis_is_flushed_under_a_connection_that_stays(cluster):
    a, b = cluster.add("a"), cluster.add("b")  # for 3.7 s after it answers are stale: lease, timeout and wait
    fresh(a, b)
    with Web(a, hello={"token": make(a, "alice")}):
        same_everywhere([a, b], "alice", [("a", "ws")])
        cluster.redis.ask("FLUSHALL")
        assert where(b)["stale"]  # nobody can know yet who will register again
        same_everywhere([a, b], "alice", [("a", "ws")])
        assert a.metric("tidegate_directory_registrations_again_total", "lost") >= 1


def test_redis_hangs(cluster):
    a, b = cluster.add("a"), cluster.add("b")
    fresh(a, b)
    with Web(a, hello={"token": make(a, "alice")}) as web:
        same_everywhere([a, b], "alice", [("a", "ws")])
        cluster.redis.freeze()
        answer = where(b)  # within directory.redis.timeout_ms
        assert answer["stale"] and places(answer) == [("a", "ws")]
        with Web(a, hello={"token": make(a, "carol")}):
            web.subscribe("t")
            assert curl(a.api("/v1/publish/t"), data=b"1").json()["dup"] is False
            assert web.next("msg")["topic"] == "t"
            assert places(where(a, "carol")) == [("a", "ws")]
            cluster.redis.thaw()
            same_everywhere([a, b], "carol", [("a", "ws")])
            same_everywhere([a, b], "alice", [("a", "ws")])
        same_everywhere([a, b], "carol", [])


def test_redis_is_not_there_at_the_start(tmp_path):
    redis = Redis(tmp_path)
    cluster = Cluster(tmp_path, redis)
    try:
        a = cluster.add("a")
        assert ready(a) == {"status": "ok", "degraded": ["directory"]}
        assert where(a)["stale"] and a.metric("tidegate_redis_up") == 0
        with Web(a, hello={"token": make(a, "alice")}):
            assert places(where(a)) == [("a", "ws")]
            redis.start()
            b = cluster.add("b")
            same_everywhere([a, b], "alice", [("a", "ws")])
    finally:
        redis.log = getattr(redis, "log", None) or open("/dev/null")
        cluster.end()


# --- who may, and how ------------------------------------------------------------------------------------------------

# As docs/CLUSTER.md has it.
RIGHTS = ("~tidegate:* resetchannels -@all +auth +ping +select +info +get +set +mget +del +sadd +srem +smembers +hset "
          "+hdel +hscan +pexpire").split()


def test_a_user_with_the_least_rights(cluster):
    cluster.redis.ask("ACL", "SETUSER", "tidegate", "on", ">se:cret@1", *RIGHTS)
    cluster.redis.ask("ACL", "SETUSER", "default", "off")
    secret = cluster.folder / "password"
    secret.write_text("se:cret@1\n")
    a = cluster.add("a", **{"directory.redis.user": "tidegate", "directory.redis.password_file": str(secret)})
    b = cluster.add("b", url=cluster.redis.url("tidegate:se%3Acret%401@"))
    fresh(a, b)
    with Web(a, hello={"token": make(a, "alice")}):
        same_everywhere([a, b], "alice", [("a", "ws")])
    same_everywhere([a, b], "alice", [])
    assert a.metric("tidegate_redis_errors_total") == 0 and "cret" not in a.log(1000) + b.log(1000)


def test_a_wrong_password_is_told_and_tried_again(cluster):
    cluster.redis.ask("CONFIG", "SET", "requirepass", "right")
    secret = cluster.folder / "password"
    secret.write_text("wrong\n")
    a = cluster.add("a", **{"directory.redis.password_file": str(secret)})
    wait_until(lambda: "WRONGPASS" in a.log(), "the reason in the log")
    assert ready(a) == {"status": "ok", "degraded": ["directory"]} and where(a)["stale"]
    assert a.metric("tidegate_redis_connects_total", "failed") >= 1
    secret.write_text("right\n")
    fresh(a)
    assert a.log(1000).count("WRONGPASS") == 1  # once, not at each attempt


def test_doctor_says_what_is_wrong_with_redis(cluster, tmp_path):
    ports = [word for door in ("mqtt", "http", "api") for word in ("--set", f"{door}.port=0")]

    def doctor(url):
        done = subprocess.run([PROGRAM, "doctor", "--data", tmp_path / "d", *ports, "--set", f"directory.redis.url={url}"],
                              capture_output=True, text=True, timeout=60)
        return next(line for line in done.stdout.splitlines() if " redis " in line)
    assert doctor(cluster.redis.url()).startswith("ok")
    cluster.redis.ask("CONFIG", "SET", "requirepass", "right")
    assert "WRONGPASS" in doctor(cluster.redis.url(":wrong@"))
    assert "NOAUTH" in doctor(cluster.redis.url())
    assert "refused" in doctor("redis://127.0.0.1:1")


@pytest.mark.parametrize("words", [
    "url=http://x", "url=redis://", "url=redis://h:0", "url=redis://h/a", "sentinels=a:b", "prefix= url=redis://h",
    "ca_file=/x url=redis://h", "cert_file=/x url=rediss://h", "retry_min_ms=3000 url=redis://h"])
def test_settings_that_make_no_sense(words):
    arguments = [item for word in words.split() for item in ("--set", f"directory.redis.{word}")]
    done = subprocess.run([PROGRAM, "config", "check", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "directory.redis." in done.stderr, done.stderr


def test_a_right_that_is_missing_is_told(cluster):
    cluster.redis.ask("ACL", "SETUSER", "tidegate", "on", ">x", *RIGHTS, "-hset")
    a = cluster.add("a", url=cluster.redis.url("tidegate:x@"))
    fresh(a)
    with Web(a, hello={"token": make(a, "alice")}):
        wait_until(lambda: "hset" in a.log(), "the reason in the log")
        assert places(where(a)) == [("a", "ws")]
        cluster.redis.ask("ACL", "SETUSER", "tidegate", "+hset")
        same_everywhere([a], "alice", [("a", "ws")])


def test_tls_with_certificates_of_both_sides(tmp_path, certificates):
    words = ["--tls-cert-file", certificates.pem("ec"), "--tls-key-file", certificates.key("ec"), "--tls-ca-cert-file",
             certificates.pem("client-ca")]
    redis = Redis(tmp_path, *words, tls=["--tls", "--cacert", str(certificates.pem("server-ca")), "--cert",
                                         str(certificates.pem("alice")), "--key", str(certificates.key("alice"))])
    cluster = Cluster(tmp_path, redis.start())
    own = {"directory.redis.ca_file": str(certificates.pem("server-ca")),
           "directory.redis.cert_file": str(certificates.pem("alice")),
           "directory.redis.key_file": str(certificates.key("alice"))}
    try:
        a, b = (cluster.add(name, url=redis.url(scheme="rediss"), **own) for name in "ab")
        fresh(a, b)
        with Web(a, hello={"token": make(a, "alice")}):
            same_everywhere([a, b], "alice", [("a", "ws")])
        # One that believes somebody else, and one that nobody believes.
        c = cluster.add("c", url=redis.url(scheme="rediss"), **{**own, "directory.redis.ca_file": str(certificates.pem("stranger-ca"))})
        d = cluster.add("d", url=redis.url(scheme="rediss"), **{"directory.redis.ca_file": own["directory.redis.ca_file"]})
        wait_until(lambda: "certificate" in c.log() and c.metric("tidegate_redis_connects_total", "failed") >= 1, "the reason")
        wait_until(lambda: d.metric("tidegate_redis_connects_total", "failed") >= 1, "no connection without a certificate")
        assert where(c)["stale"] and where(d)["stale"]
    finally:
        cluster.end()


def test_a_sentinel_names_another_master(tmp_path):
    first, second = Redis(tmp_path).start(), Redis(tmp_path)
    second.words = ("--replicaof", "127.0.0.1", first.port)
    second.start()
    (tmp_path / "s").mkdir()
    configuration = tmp_path / "s" / "sentinel.conf"
    sentinel = Sentinel(tmp_path / "s", configuration)
    configuration.write_text(f"port {sentinel.port}\nbind 127.0.0.1\ndir {tmp_path / 's'}\n"
                             f"sentinel monitor m 127.0.0.1 {first.port} 1\n")
    sentinel.start()
    cluster = Cluster(tmp_path, first)
    by = {"directory.redis.sentinels": f"127.0.0.1:1,127.0.0.1:{sentinel.port}", "directory.redis.master": "m"}
    try:
        wait_until(lambda: f"port={second.port}" in first.ask("INFO", "replication", check=False), "the replica")
        wait_until(lambda: "num-slaves\n1" in sentinel.ask("SENTINEL", "MASTER", "m"), "the Sentinel to know it")
        a, b = (cluster.add(name, url="redis://", **by) for name in "ab")
        fresh(a, b)
        with Web(a, hello={"token": make(a, "alice")}):
            same_everywhere([a, b], "alice", [("a", "ws")])
            sentinel.ask("SENTINEL", "FAILOVER", "m")
            wait_until(lambda: "role:master" in second.ask("INFO", "replication", check=False), "another master")
            first.stop()
            wait_until(lambda: "a" in second.ask("SMEMBERS", "tidegate:nodes", check=False).split() and
                       f"server=127.0.0.1:{second.port}" in a.log(1000), "the node to be there")
            same_everywhere([a, b], "alice", [("a", "ws")])
    finally:
        for server in (second, sentinel):
            server.stop()
        cluster.end()


def test_a_connection_that_ends_while_redis_is_away(cluster):
    a, b = cluster.add("a"), cluster.add("b")
    fresh(a, b)
    with Web(a, hello={"token": make(a, "alice")}):
        same_everywhere([a, b], "alice", [("a", "ws")])
        cluster.redis.freeze()
        wait_until(lambda: "degraded" in ready(a), "the node to give it up")
    wait_until(lambda: not where(a)["connections"], "the connection to end")
    cluster.redis.thaw()
    same_everywhere([a, b], "alice", [])


def listed(node, user, **more):
    query = "".join(f"&{name}={value}" for name, value in more.items())
    return curl(node.api(f"/v1/connections?user={user}{query}")).json()


def test_the_connections_of_a_user_are_listed_at_every_node(cluster):
    a, b, c = nodes = [cluster.add(name) for name in "abc"]
    fresh(*nodes)
    with Web(a, hello={"token": make(a, "alice")}) as web, Web(a, hello={"token": make(a, "alice")}):
        web.subscribe("t")
        client = mqtt_client(b, make(b, "alice"))
        answers = same_everywhere(nodes, "alice", [("a", "ws"), ("a", "ws"), ("b", "mqtt")])
        ids = sorted(item["id"] for item in answers[0]["connections"])
        for node in nodes:
            answer = listed(node, "alice")
            assert sorted(item["id"] for item in answer["connections"]) == ids and not answer["stale"] and "next" not in answer
            assert all(item["user"] == "alice" and item["since_ms"] > 0 for item in answer["connections"])
            # Whole where they are, and only there.
            assert ["subscriptions" in item for item in answer["connections"]] == [item["node"] == node.settings["node.id"]
                                                                                  for item in answer["connections"]]
        first = listed(a, "alice", max=1)
        assert len(first["connections"]) == 1 and "stale" not in first
        rest = listed(a, "alice", after=first["next"])
        assert sorted(item["id"] for item in first["connections"] + rest["connections"]) == ids
        assert {item["node"] for item in listed(a, "alice", topic="t")["connections"]} == {"a"}
        assert listed(c, "nobody")["connections"] == [] and listed(c, "nobody")["stale"] is False
        assert "stale" not in curl(a.api("/v1/connections")).json()
        curl(c.api(f"/v1/connections/{ids[0]}"), check=404)

        cluster.redis.stop()
        wait_until(lambda: all("degraded" in ready(node) for node in nodes), "the nodes to say so")
        away = listed(b, "alice")  # from memory
        assert away["stale"] and away["as_of"] > 0 and sorted(item["id"] for item in away["connections"]) == ids
        with Web(c, hello={"token": make(c, "carol")}):
            own = listed(c, "carol")  # whom it was never asked for
            assert own["stale"] and own["as_of"] is None and [item["node"] for item in own["connections"]] == ["c"]
        cluster.redis.start()
        same_everywhere(nodes, "alice", [("a", "ws"), ("a", "ws"), ("b", "mqtt")])
        assert sorted(item["id"] for item in listed(c, "alice")["connections"]) == ids
        client.close()


# --- what is kept, and for how long ----------------------------------------------------------------------------------

def test_entries_are_written_again_at_half_of_their_time(cluster):
    a = cluster.add("a", **{"directory.redis.entry_ms": 4000})
    fresh(a)
    with Web(a, hello={"token": make(a, "alice")}):
        same_everywhere([a], "alice", [("a", "ws")])
        least = left = 4000

        def again():
            nonlocal least, left
            left = int(cluster.redis.ask("PTTL", "tidegate:user:alice"))
            assert left > 0, "nobody has written it again in time"
            least = min(least, left)
            return left > least + 1000
        wait_until(again, "its time to begin anew")
        same_everywhere([a], "alice", [("a", "ws")])
    same_everywhere([a], "alice", [])


def test_more_removals_than_may_wait(cluster):
    """Redis says nothing for a while. Commands that it owes an answer to are bounded, and so are the removals behind them:
    above that everything is registered again, and nobody who has gone stays in it."""
    a, b = (cluster.add(name, **{"directory.redis.timeout_ms": 60000, "directory.redis.pending": 2, "directory.redis.lease_ms": 60000,
                                 "limit.user_connections": 2000}) for name in "ab")
    wait_until(lambda: cluster.redis.ask("GET", "tidegate:young") == "1", "the first data of this Redis")
    cluster.redis.ask("DEL", "tidegate:young")  # or it would say stale for as long as these times are
    fresh(a, b)
    crowd = []
    webs = {name: Web(a, hello={"token": make(a, name)}) for name in ("alice", "bob", "carol", "dora")}
    try:
        for name in webs:
            same_everywhere([a, b], name, [("a", "ws")])
        before = a.metric("tidegate_directory_registrations_again_total", "overflow")
        cluster.redis.freeze()
        token = make(a, "crowd")
        while a.metric("tidegate_directory_pending") < 1024 + 100:  # two commands each; 1,024 may be owed
            crowd += [Stream(a, f"Authorization: Bearer {token}\r\n", topic="t") for _ in range(20)]
            assert len(crowd) <= 1000
        for name in ("alice", "bob"):
            webs[name].__exit__()
        wait_until(lambda: a.metric("tidegate_directory_entries") == len(crowd) + 2, "both to have gone")
        assert a.metric("tidegate_directory_registrations_again_total", "overflow") == before
        webs["carol"].__exit__()
        wait_until(lambda: a.metric("tidegate_directory_registrations_again_total", "overflow") > before, "the overflow")
        cluster.redis.thaw()
        for name in ("alice", "bob", "carol"):
            same_everywhere([a, b], name, [])
        same_everywhere([a, b], "dora", [("a", "ws")])
        wait_until(lambda: where(b, "crowd")["count"] == len(crowd) and not where(b, "crowd")["stale"], "the crowd to be there")
    finally:
        for stream in crowd:
            stream.close()
        for web in webs.values():
            web.__exit__()


def test_two_nodes_of_one_name_both_say_so(cluster):
    a, twin = cluster.add("a"), cluster.add("twin", **{"node.id": "a"})
    wait_until(lambda: all("another node calls itself by our name" in node.log(1000) for node in (a, twin)), "both to say it")
