"""A log with a limit: the disk stays bounded, what is retained stays, and who comes too late is told what is missing."""

import errno
import json
import os
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, Web, curl, history, publish
from mqtt_wire import BYE, CONNACK, Wire, connect, puback, publish as publish_packet
from node import PROGRAM, ROOT, Node, wait_until
from test_limits import StoppedWeb
from test_mqtt_sessions import keep, present
from test_retained import KEEP, all_kept, kept, set_by_http, set_by_web, set_by_mosquitto, values

SEGMENT = 64 << 10
LIMIT = 8 * SEGMENT
SETTINGS = {"log.segment_bytes": SEGMENT, "log.retention_bytes": LIMIT}
# The file made ahead, indexes, and what comes while it is trimmed: that takes the disk some syncs, and at this speed
# a segment is full every few milliseconds. What is written in all is 320 segments and more.
SPARE = 64 * SEGMENT


def log_bytes(node):
    """What the log's files take on the disk."""
    total = 0
    for path in [*node.data.glob("*/*"), *node.data.glob("*.seg")]:
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            pass
    return total


def segments(node):
    return sorted(path.name for path in (node.data / "0").glob("*.seg"))


def order(position):
    return int(position.rsplit(".", 1)[1], 16)


class Load:
    """MQTT: runs of QoS 0, each with a QoS 1 at its end, so that the disk keeps up."""

    def __init__(self, node, topic="load/mqtt", size=1000):
        self.wire = Wire(node)
        self.topic, self.payload = topic, b"x" * size

    def send(self, count):
        self.wire.send(publish_packet(self.topic, self.payload) * (count - 1))
        assert self.wire.publish(self.topic, self.payload) == 0


def turn_over(node, times=1):
    """Fills the log anew so many times."""
    load = Load(node)
    for _ in range(times):
        before = node.metric("tidegate_log_trimmed_bytes_total")
        while node.metric("tidegate_log_trimmed_bytes_total") < before + LIMIT:
            load.send(100)
    load.wire.close()


def test_the_disk_stays_bounded_under_load_from_all_doors(make_node):
    node = make_node(SETTINGS)
    most, stop, errors = [0], threading.Event(), []

    def watch():
        while not stop.is_set():
            most[0] = max(most[0], log_bytes(node))
            time.sleep(0.005)

    def by_mqtt():
        load = Load(node)
        while not stop.is_set():
            load.send(20)

    def by_http():
        while not stop.is_set():
            publish(node, "load/http", b"h" * 2000)

    def by_web():
        with Web(node) as web:
            while not stop.is_set():
                assert "ok" in web.ask({"pub": {"topic": "load/ws", "text": "w" * 3000}})

    def guarded(run):
        def body():
            try:
                run()
            except BaseException as error:
                errors.append(error)
                stop.set()
        return body

    threads = [threading.Thread(target=guarded(run)) for run in (watch, by_mqtt, by_http, by_web)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: errors or node.metric("tidegate_log_trimmed_bytes_total") > 40 * LIMIT, "turnovers")
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert not errors, errors
    assert most[0] <= LIMIT + SPARE, f"{most[0]} bytes on the disk"
    # What waits for the disk is counted too.
    wait_until(lambda: node.metric("tidegate_log_size_bytes") <= LIMIT, "the rest to be trimmed")
    assert node.metric("tidegate_messages_refused_total") == 0


def test_what_is_retained_survives_turnovers_and_kill9(make_node):
    node = make_node(SETTINGS)
    expected = {}
    for number in range(60):
        topic = f"state/{number}"
        expected[topic] = f"value {number}"
        (set_by_http, set_by_web)[number % 2](node, topic, expected[topic].encode())
    set_by_mosquitto(node, "state/mosquitto", b"by mqtt")
    expected["state/mosquitto"] = "by mqtt"
    publish(node, "state/short", b"gone soon", *KEEP, "-H", "Tidegate-Ttl-Ms: 200")
    wait_until(lambda: kept(node, "state/short") == [], "it to expire")
    before = {message["topic"]: (message["pos"], message["ts"]) for message in all_kept(node, "state/%23")}
    for round in range(3):
        turn_over(node, 2)
        set_by_http(node, "state/3", b"")
        expected.pop("state/3", None)
        set_by_http(node, "state/4", b"new %d" % round)
        expected["state/4"] = f"new {round}"
        got = all_kept(node, "state/%23")
        assert values(got) == expected, f"round {round}"
        for message in got:
            if message["topic"] != "state/4":
                assert (message["pos"], message["ts"]) == before[message["topic"]], "position and time stay"
        node.kill9()
        node.restart()
        assert values(all_kept(node, "state/%23")) == expected, f"round {round}, after kill -9"
    assert node.metric("tidegate_retained_messages") == len(expected)
    # A subscriber gets them, once each, and nothing of the carrying.
    with Web(node) as web:
        web.subscribe("state/#")
        got = {}
        while True:
            item = web.event()
            if "live" in item:
                break
            if "msg" in item or "sub" in item:
                message = item["msg"]
                assert message["topic"] not in got and message["retained"] is True
                got[message["topic"]] = message.get("text")
        assert got == expected
        turn_over(node)
        set_by_http(node, "state/5", b"live")
        assert web.next()["text"] == "live", "what is carried is not delivered"
    assert [message["topic"] for message in history(node, "state/7")] == [], "nor shown by history"


def test_a_position_that_is_gone(make_node):
    node = make_node(SETTINGS)
    first = publish(node, "t/1", b"1").json()["pos"]
    turn_over(node)
    last = publish(node, "t/1", b"2").json()["pos"]
    for topic in ("t/1", "load/mqtt"):
        answer = curl(node.api(f"/v1/history/{topic}?from={first}"), check=410).json()
        while "earliest" in answer:  # again, when the log is still being trimmed
            assert answer["code"] == "position_gone"
            answer = curl(node.api(f"/v1/history/{topic}?from={answer['earliest']}&max=1000"), check=None).json()
        assert answer["messages"], "earliest is where it goes on"
        with Web(node) as web:
            error = web.ask({"get": {"topic": topic, "from": {"after": [first]}}})["err"]
            assert error["code"] == "position_gone"
            ok = web.ask({"get": {"topic": topic, "from": {"after": [error["earliest"]]}}})["ok"]
            assert ok["messages"]
    with Web(node) as web:
        web.subscribe("t/1", {"after": [first]})
        gap = web.next("gap")
        assert gap["why"] == "retention"
        assert gap["count"] == order(gap["to"]) - order(gap["from"]) + 1
        assert order(gap["from"]) == order(first) + 1
        item = web.event()
        assert item["msg"]["pos"] == last
        assert "live" in web.event()


def ask_back(node, web, topic, place):
    """Code and `earliest` of a refusal, by both doors, which must agree."""
    answer = curl(node.api(f"/v1/history/{topic}?reverse=1&from={place}"), check=None)
    error = web.ask({"get": {"topic": topic, "from": {"after": [place]}, "reverse": True}}).get("err")
    assert (answer.status == 200) == (error is None), (answer.body, error)
    if error is None:
        return None, answer.json()["messages"]
    problem = answer.json()
    assert problem["code"] == error["code"] and answer.status == {"position_gone": 410, "bad_request": 400}[error["code"]]
    return error["code"], problem.get("earliest")


def test_backwards_from_what_is_no_place_any_more_or_never_was(make_node):
    node = make_node({**SETTINGS, "log.partitions": 4})
    # One topic in each partition.
    topics = {}
    for number in range(100):
        position = publish(node, f"t/{number}", b"1").json()["pos"]
        topics.setdefault(position[8:12], (f"t/{number}", position))
    with Web(node) as web:
        place = web.subscribe("t/#")["pos"]
        epoch, lanes = place[:10], [int(lane, 16) for lane in place[10:].split("-")]
        assert len(topics) == len(lanes) == 4
        for lane, (topic, position) in topics.items():
            lane = int(lane)
            assert len(ask_back(node, web, topic, place)[1]) == 1

            def forged(value):
                return epoch + "-".join(f"{value if i == lane else next:x}" for i, next in enumerate(lanes))

            assert ask_back(node, web, topic, forged(2 ** 64 - 1))[0] == "bad_request", "nothing has this number"
            assert ask_back(node, web, topic, forged(2 ** 64 - 2)) == ("position_gone", "earliest")
            assert ask_back(node, web, topic, forged(lanes[lane] + 1)) == ("position_gone", "earliest")
            assert ask_back(node, web, topic, forged(0))[0] == "bad_request", "there is nothing before the first"
            # Its own end is one; it says nothing of other topics.
            end = curl(node.api(f"/v1/history/{topic}?reverse=1")).json()["next"]
            assert ask_back(node, web, topic, end) == (None, [])
            for other, (stranger, _) in topics.items():
                if int(other) != lane:
                    assert ask_back(node, web, stranger, end)[0] == "bad_request"
        load = "load/mqtt"
        lane = publish(node, load, b"1").json()["pos"][8:12]
        turn_over(node)
        wait_until(lambda: node.metric("tidegate_log_size_bytes") <= LIMIT * len(topics), "the rest to be trimmed")
        topic, position = topics[lane]
        for stale in (place, position):
            code, earliest = ask_back(node, web, topic, stale)
            assert code == "position_gone" and earliest[8:12] == lane
            assert order(earliest) >= order(position)
            answer = curl(node.api(f"/v1/history/{load}?from={earliest}"), check=None)
            while answer.status == 410:  # the log is still being trimmed
                answer = curl(node.api(f"/v1/history/{load}?from={answer.json()['earliest']}"), check=None)
            assert answer.status == 200 and answer.json()["messages"], "it is where reading forwards begins"
            # Paging goes back to where the log begins, and ends there.
            page = curl(node.api(f"/v1/history/{load}?reverse=1&max=1000")).json()
            while page["messages"]:
                page = curl(node.api(f"/v1/history/{load}?reverse=1&max=1000&from={page['next']}"), check=None).json()
                assert "messages" in page, page
        for other, (topic, _) in topics.items():
            if other != lane:
                assert len(ask_back(node, web, topic, place)[1]) == 1, "others have lost nothing"


def test_a_slow_subscriber_is_told_how_much_it_missed(make_node):
    node = make_node({**SETTINGS, "out.bytes_max": 4096, "out.stall_ms": "60s"})
    slow = StoppedWeb(node, "load/mqtt")
    sent, before = 1, 0
    while sent != before:  # until the sockets' buffers are full too: nothing leaves any more
        before = sent
        turn_over(node)
        sent = node.metric("tidegate_bytes_sent_total", "ws")
    turn_over(node, 3)
    end = order(publish(node, "load/mqtt", b"end").json()["pos"])
    got, gaps = [], []
    while not got or got[-1] != end:
        for line in slow.frame().split(b"\n"):
            item = json.loads(line)
            if "msg" in item:
                got.append(order(item["msg"]["pos"]))
            elif "gap" in item:
                gap = item["gap"]
                assert gap["why"] == "retention"
                assert gap["count"] == order(gap["to"]) - order(gap["from"]) + 1
                gaps.append((order(gap["from"]), order(gap["to"])))
    slow.close()
    assert gaps, "retention has overtaken it"
    assert got == sorted(set(got))
    # Everything is either there or in a gap: all records between its first and its last were for it.
    missing = set(range(got[0], end + 1)) - set(got)
    assert missing <= {offset for start, stop in gaps for offset in range(start, stop + 1)}
    told = {offset for start, stop in gaps for offset in range(start, stop + 1)}
    assert not told & set(got)
    assert node.metric("tidegate_messages_dropped_total", "retention") == sum(b - a + 1 for a, b in gaps)


def test_the_place_of_an_idle_session_moves_with_the_log(make_node):
    """Nothing was for it up to there: what retention has removed meanwhile is no loss of its."""
    node = make_node(SETTINGS)
    with keep(node, 5, "idle") as wire:
        assert wire.subscribe("quiet/#") == b"\x01"
        publish(node, "quiet/1", b"1")
        assert wire.message().payload == b"1"
        turn_over(node, 2)
        wire.ping()
        wire.send(BYE)
        assert wire.rest() == b""
    publish(node, "quiet/1", b"2")
    with keep(node, 5, "idle") as wire:
        assert present(wire) and wire.message().payload == b"2"
        wire.ping()
    assert node.metric("tidegate_messages_dropped_total", "retention") == 0


def test_by_age(make_node):
    node = make_node({"log.segment_bytes": SEGMENT, "log.retention_ms": "2s"})
    first = publish(node, "t/1", b"1").json()["pos"]
    set_by_http(node, "t/2", b"kept")

    def gone():
        publish(node, "t/3", b"3")
        return segments(node)[0] > f"{order(first) + 1:020d}.seg"  # and something after `first` with it

    wait_until(gone, "the first segment to go")
    assert curl(node.api(f"/v1/history/t/1?from={first}"), check=410).json()["code"] == "position_gone"
    assert kept(node, "t/2") == ["kept"]


# --- a full disk -----------------------------------------------------------------------------------------------

@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB with a file on it that can make room."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", point], capture_output=True, text=True)
    if mounted.returncode != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no mount: {mounted.stderr}")
    (point / "ballast").write_bytes(b"b" * (3 << 20))
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_full_disk_refuses_and_recovers_by_itself(small_disk):
    node = Node(small_disk, {"log.segment_bytes": SEGMENT, "log.disk_refuse_percent": 100, "log.disk_warn_percent": 100,
                             "log.ballast_bytes": "128K"}).start()
    ballast = node.data / "ballast"
    try:
        wait_until(ballast.exists, "the ballast")
        positions = []
        while True:
            answer = publish(node, "t/1", b"x" * 3000, check=None)
            if answer.status != 200:
                break
            positions.append(answer.json()["pos"])
        assert answer.status == 503 and answer.json()["code"] == "storage_full", answer.body
        assert len(positions) > 150
        with Wire(node) as wire:
            assert wire.publish("t/1", b"x" * 3000) == 0x97
        with Web(node) as web:
            assert web.ask({"pub": {"topic": "t/1", "text": "x" * 3000}})["err"]["code"] == "storage_full"
            web.subscribe("t/1", {"after": [positions[-3]]})
            assert [web.next()["pos"] for _ in range(2)] == positions[-2:], "reads go on"
        assert [message["pos"] for message in history(node, "t/1")] == positions
        assert node.metric("tidegate_log_disk_full") == 1
        wait_until(lambda: not ballast.exists(), "the ballast to be given up")

        (small_disk / "ballast").unlink()

        def goes_on():
            answer = publish(node, "t/1", b"y" * 3000, check=None)
            if answer.status == 200:
                positions.append(answer.json()["pos"])
            return answer.status == 200

        wait_until(goes_on, "the node to see that there is room")
        assert node.metric("tidegate_log_disk_full") == 0
        assert ballast.stat().st_size == 128 << 10, "what was given up is taken back first"
        for _ in range(50):
            positions.append(publish(node, "t/1", b"z" * 3000).json()["pos"])
        node.kill9()
        node.restart()
        assert [message["pos"] for message in history(node, "t/1")] == positions
    finally:
        node.check()


def test_a_disk_that_is_nearly_full_refuses_before_it_is_full(small_disk):
    node = Node(small_disk, {"log.segment_bytes": SEGMENT, "log.ballast_bytes": 0, "log.disk_warn_percent": 60,
                             "log.disk_refuse_percent": 85}).start()
    try:
        wait_until(lambda: node.metric("tidegate_log_disk_level") == 1, "the warning")
        position = publish(node, "t/1", b"taken").json()["pos"]
        (small_disk / "more").write_bytes(b"m" * (600 << 10))
        wait_until(lambda: node.metric("tidegate_log_disk_level") == 2, "the level")
        assert node.metric("tidegate_log_disk_free_bytes") > 0
        answer = publish(node, "t/1", b"refused", check=None)
        assert answer.status == 503 and answer.json()["code"] == "storage_full", answer.body
        assert [message["pos"] for message in history(node, "t/1")] == [position], "reads go on"
        (small_disk / "more").unlink()
        (small_disk / "ballast").unlink()
        wait_until(lambda: publish(node, "t/1", b"again", check=None).status == 200, "it to recover by itself")
        assert node.metric("tidegate_log_disk_level") == 0
    finally:
        node.check()


@pytest.mark.parametrize("how", ["nearly full", "full"])
def test_acknowledgements_go_on_while_publishes_are_refused(small_disk, how):
    """Sessions and how far they are have room of their own, also across kill -9."""
    settings = {"log.segment_bytes": SEGMENT, "log.ballast_bytes": 0, "session.save_ms": 50}
    never = {"log.disk_warn_percent": 100, "log.disk_refuse_percent": 100}
    settings.update(never if how == "full" else {"log.disk_warn_percent": 60, "log.disk_refuse_percent": 85})
    node = Node(small_disk, settings).start()
    try:
        with keep(node, 5, "kept") as wire:
            assert wire.subscribe("t/#") == b"\x01"
            publish(node, "t/1", b"first")
            message = wire.message()
            if how == "nearly full":
                (small_disk / "more").write_bytes(b"m" * (600 << 10))

            def refused():
                return publish(node, "x", b"z" * 3000, check=None).status == 503

            wait_until(refused, "publishes to be refused")
            wire.send(puback(message.number))
            wire.ping()
            with keep(node, 5, "new") as new:
                assert new.subscribe("u/#") == b"\x01", "a new session has room too"
            wait_until(lambda: node.metric("tidegate_messages_unacknowledged") == 0, "the acknowledgement")
            wire.send(BYE)
            assert wire.rest() == b""
        wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the connections to be gone")
        assert node.metric("tidegate_session_writes_total", "refused") == 0
        node.kill9()
        for name in ("more", "ballast"):
            (small_disk / name).unlink(missing_ok=True)
        node.settings.update(never)
        node.restart()
        with keep(node, 5, "kept") as wire:
            assert present(wire)
            wire.ping()  # nothing comes again
        with keep(node, 5, "new") as new:
            assert present(new)
    finally:
        node.check()


def test_what_retention_removed_does_not_come_from_memory(make_node):
    node = make_node({"log.segment_bytes": SEGMENT, "log.retention_ms": "2s"})
    first = publish(node, "t/1", b"0").json()["pos"]
    for number in range(4):
        before, old = first if number == 0 else old, publish(node, "t/1", b"old %d" % number).json()["pos"]

    def gone():
        publish(node, "t/3", b"3")
        return curl(node.api(f"/v1/history/t/1?from={before}"), check=None).status == 410

    wait_until(gone, "the segments with the old ones to go")
    last = publish(node, "t/1", b"new").json()["pos"]
    with Web(node) as web:
        ok = web.subscribe("t/1", {"after": [first]})
        assert ok["replay"] == 1
        gap = web.next("gap")
        assert gap["why"] == "retention" and order(gap["from"]) == order(first) + 1
        item = web.event()
        assert item["msg"]["pos"] == last and "live" in web.event()


def test_retention_does_not_wait_for_the_interval_of_syncs(make_node):
    """A trim needs what was carried on the disk: it asks for its sync. 300 segments that wait for one every 10 s take minutes."""
    node = make_node({"log.segment_bytes": "64K", "log.retention_bytes": "1M", "log.sync": "interval:10000"})
    with Web(node) as web:
        for _ in range(20):
            for request in [web.request({"pub": {"topic": "a", "text": "x" * 50000}}) for _ in range(20)]:
                assert "ok" in web.answer(request)
    wait_until(lambda: node.metric("tidegate_log_size_bytes") < 4 << 20, "the oldest segments to go")


def start_failing(folder, settings=None, **options):
    """Exit code and last words of a start that must fail."""
    node = Node(folder, settings)
    ended = subprocess.run(node.command(), cwd=ROOT, capture_output=True, text=True, timeout=30, **options)
    return ended.returncode, ended.stderr


class Serving(Node):
    """One that need not be ready, and finds no room for the file of its ports."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, keep_ports=True, **options)
        self.wanted = 503

    def is_ready(self):
        if self.process.poll() is not None:
            return super().is_ready()
        self.ports = {door: self.settings[f"{door}.port"] for door in ("mqtt", "http", "api")}
        try:
            return curl(self.api("/readyz"), check=None).status in (200, self.wanted)
        except AssertionError:
            return False


def fill(folder):
    """To the last byte."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"f" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


@pytest.mark.parametrize("lost_indexes", [False, True], ids=["", "indexes lost"])
def test_a_start_on_a_full_disk_serves_what_there_is(small_disk, lost_indexes):
    (small_disk / "ballast").unlink()
    node = Serving(small_disk, {"log.segment_bytes": SEGMENT, "log.ballast_bytes": 0, "log.disk_refuse_percent": 100,
                                "log.disk_warn_percent": 100}).start()
    try:
        assert curl(node.api("/readyz")).json() == {"status": "ok"}
        positions = [publish(node, "t/1", b"x" * 3000).json()["pos"] for _ in range(40)]
        set_by_http(node, "state/1", b"kept")
        with Web(node) as web:
            session = web.ask({"hello": {}})["ok"]["session"]
            web.subscribe("t/1", {"after": [positions[-3]]}, ack=True)
            assert [web.next()["pos"] for _ in range(2)] == positions[-2:]
            web.abort()
        node.kill9()
        if lost_indexes:
            for path in node.data.glob("*/*.idx"):
                path.unlink()
        # What a start would remove or cut off would be room for it.
        for path in node.data.glob("ahead-*.seg"):
            path.unlink()
        for folder in node.data.glob("[0-9]*"):
            last = max(folder.glob("*.seg"))
            os.truncate(last, len(last.read_bytes().rstrip(b"\0")) // 8 * 8 + 64)  # a record may end with zeros
        (node.data / "ports").touch()
        fill(small_disk)
        node.restart()
        answer = curl(node.api("/readyz"), check=None)
        assert answer.status == 503 and answer.json()["reasons"] == ["storage_full"], answer.body
        assert "refused until there is room" in answer.json()["detail"]
        assert curl(node.api("/healthz")).status == 200
        assert node.metric("tidegate_log_disk_full") == 1
        assert [message["pos"] for message in history(node, "t/1")] == positions
        assert kept(node, "state/1") == ["kept"]
        answer = publish(node, "t/1", b"y", check=None)
        assert answer.status == 503 and answer.json()["code"] == "storage_full", answer.body
        with Wire(node) as wire:
            assert wire.publish("t/1", b"y") == 0x97
            wire.subscribe("state/#")
            assert wire.message().payload == b"kept"
        with Wire(node, connected=False) as wire:
            wire.send(connect(5, "stays", 0, props=b"\x11\xff\xff\xff\xff"))
            assert wire.expect(CONNACK)[1] == 0x88, "a session that could not be kept is refused"
        with Web(node) as web:
            assert web.ask({"pub": {"topic": "t/1", "text": "y"}})["err"]["code"] == "storage_full"
            web.subscribe("t/1", {"after": [positions[-3]]})
            assert [web.next()["pos"] for _ in range(2)] == positions[-2:]

        (small_disk / "filler").unlink()
        wait_until(lambda: curl(node.api("/readyz"), check=None).status == 200, "it to see that there is room", 30)
        positions.append(publish(node, "t/1", b"z").json()["pos"])
        with Web(node, hello={"session": session}) as web:
            assert web.next()["pos"] == positions[-3], "the session has lost nothing"
        node.kill9()
        node.restart()
        assert [message["pos"] for message in history(node, "t/1")] == positions
        assert not any("damaged" in line for line in node.stderr), node.log()
    finally:
        node.check()


def test_a_first_start_on_a_full_disk_says_what_to_do(small_disk):
    """There is nothing to serve, and no room for a folder."""
    fill(small_disk)
    code, said = start_failing(small_disk)
    assert code == 75, said
    assert str(small_disk) in said and "make room on this disk or move data.dir" in said
    (small_disk / "filler").unlink()
    (small_disk / "ballast").unlink()
    node = Node(small_disk, {"log.segment_bytes": "2M", "log.ballast_bytes": 0}).start()
    node.check()


def test_a_start_without_the_right_to_the_folder_ends_with_77(tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    if os.geteuid() == 0:
        target = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "test", "-x", PROGRAM])
        if target.returncode != 0:
            pytest.skip("the program lies where another user cannot start it")
        for folder in tmp_path.parents:
            if str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        tmp_path.chmod(0o755)
        code, said = start_failing(tmp_path, user=65534, extra_groups=[])
    else:
        (tmp_path / "data").chmod(0)
        code, said = start_failing(tmp_path)
        (tmp_path / "data").chmod(0o700)
    assert code == 77, said
    assert str(tmp_path / "data") in said and "right" in said


def test_a_second_node_on_the_folder_names_the_first(make_node):
    node = make_node()
    code, said = start_failing(node.data.parent)
    assert code == 69, said
    assert f"process {node.pid} uses this log" in said
