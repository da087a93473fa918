"""A user's inbox by MQTT: acknowledgements move its one cursor, as those of WebSockets do, and the other way round."""

import struct
import time

import pytest

from clients import WAIT_S, curl, paho_client
from mqtt_wire import PUBACK, SUBACK, UNSUBACK, End, Wire, connect, puback, read_varint, subscribe, text, unsubscribe, user
from node import wait_until
from test_users import come, nothing_more, send, settled, take, unread
from tokens import make

INBOX = "$user/alice/#"
FROM_INBOX = user("tg-from", "inbox")
SLOW = {"session.save_ms": 3600000, "session.save_count": 1000000}
LOOPS = pytest.mark.parametrize("loops", [1, 2])


def client(node, version=5, name="", kept=False, token=None):
    """One of alice's; `kept`: its session outlives the connection."""
    wire = Wire(node, version, connected=False)
    flags = (0 if kept else 0x02) | 0x40 | (0x80 if version != 5 else 0)
    rest = (text("alice") if version != 5 else b"") + text(token or make(node, "alice"))
    wire.send(connect(version, name, flags, rest=rest, props=b"\x11\xff\xff\xff\xff" if kept else b""))
    wire.connack = wire.expect(2)
    assert wire.connack[1] == 0, wire.connack.hex()
    return wire


def at_cursor(wire, qos=1, **options):
    assert wire.subscribe((INBOX, qos), props=FROM_INBOX, **options) == bytes([qos])
    return wire


def fill(node, count, first=0):
    for number in range(first, first + count):
        send(node, "alice", b"%d" % number, below=f"/x/{number}" if number % 3 == 2 else "")


def got(wire, count):
    """The next messages, not acknowledged: their payloads and identifiers."""
    messages = [wire.message(acknowledge=False) for _ in range(count)]
    assert all(message.qos == 1 for message in messages)
    return [int(message.payload) for message in messages], [message.number for message in messages]


def acknowledge(wire, *numbers):
    wire.send(b"".join(puback(number) for number in numbers))


def heard(wire):
    """All it has sent has been handled. Messages may come meanwhile: there must be none."""
    wire.ping()


@LOOPS
def test_what_one_door_has_read_the_other_does_not_get(make_node, loops):
    node = make_node({**SLOW, "node.loops": loops, "log.partitions": 4})
    fill(node, 6)
    wire = at_cursor(client(node))
    values, ids = got(wire, 6)
    assert values == list(range(6))
    acknowledge(wire, *ids[:2])
    settled(node, 4)
    with come(node) as web:
        assert take(web, 4) == [2, 3, 4, 5]
        web.post({"ack": {"n": 3}})
        settled(node, 1)
        acknowledge(wire, *ids[2:4])  # behind what the other has read: the cursor does not go back
        heard(wire)
        assert unread(node) == 1
        other = at_cursor(client(node))
        assert got(other, 1)[0] == [5]
        # All have what comes now; the furthest counts.
        send(node, "alice", b"6")
        assert take(web, 1) == [6] and got(wire, 1)[0] == [6]
        values, ids = got(other, 1)
        assert values == [6]
        acknowledge(other, ids[0])
        heard(other)
        assert unread(node) == 2  # it still has 5
    other.close()
    wire.close()


@pytest.mark.parametrize("version, qos", [(4, 1), (5, 1), (5, 2)])
def test_it_lies_at_the_first_that_is_not_acknowledged(node, version, qos):
    """Identifiers need not come back in order."""
    with client(node, version) as wire:
        assert wire.subscribe((INBOX, qos)) == bytes([qos])  # with the present, and nothing is unread
        fill(node, 5)
        assert unread(node) == 5
        values, ids = got(wire, 5)
        assert values == list(range(5))
        acknowledge(wire, ids[3], ids[1])
        heard(wire)
        assert unread(node) == 5
        acknowledge(wire, ids[0])
        settled(node, 3)
        acknowledge(wire, ids[4])
        heard(wire)
        assert unread(node) == 3
        acknowledge(wire, ids[2])
        settled(node, 0)
        with come(node) as web:
            nothing_more(web, node)


def test_one_that_began_with_the_present_does_not_pass_what_is_unread(node):
    send(node, "alice", b"0")
    with client(node) as wire:
        assert wire.subscribe(INBOX) == b"\x01"
        send(node, "alice", b"1")
        wire.message()
        heard(wire)
        assert unread(node) == 2
        # Again: it goes on where it was, and nothing has been read meanwhile.
        assert wire.subscribe(INBOX) == b"\x01"
        send(node, "alice", b"2")
        wire.message()
        heard(wire)
        assert unread(node) == 3
        # A place that the client names counts, as by WebSocket.
        assert wire.subscribe(INBOX, props=user("tg-from", "earliest")) == b"\x01"
        assert [wire.message().payload for _ in range(3)] == [b"0", b"1", b"2"]
        settled(node, 0)
        # And stays with the subscription that goes on in its place.
        assert wire.subscribe(INBOX) == b"\x01"
        send(node, "alice", b"3")
        wire.message()
        settled(node, 0)


def test_what_does_not_move_it(node):
    with client(node) as wire:
        assert wire.subscribe((INBOX, 0), ("$user/alice", 1), ("$user/alice/x/#", 1)) == b"\x00\x01\x01"
        send(node, "alice", b"0")
        send(node, "alice", b"2", below="/x")
        for _ in range(4):
            wire.message()
        heard(wire)
        assert unread(node) == 2
        # One that moved it, and ended: what came between is unread.
        at_cursor(wire)
        for _ in range(2):
            wire.message()
        settled(node, 0)
        wire.send(unsubscribe(9, INBOX))
        wire.expect(UNSUBACK)
        send(node, "alice", b"3")
        wire.message()  # of the filter beside it
        assert wire.subscribe(INBOX) == b"\x01"
        send(node, "alice", b"4")
        for _ in range(2):
            wire.message()
        heard(wire)
        assert unread(node) == 2


def test_only_the_inbox_has_such_a_place(node):
    with client(node) as wire:
        assert wire.subscribe("a/b", "$user/alice", INBOX, "$user/bob/#", props=FROM_INBOX) == b"\x83\x83\x01\x87"
    with Wire(node) as wire:
        assert wire.subscribe("$user//#", props=FROM_INBOX) == b"\x87"
    with client(node) as wire:
        wire.send(subscribe(1, INBOX, props=FROM_INBOX * 2))
        assert wire.packet()[0] == 0xE0
        with pytest.raises(End):
            wire.packet()


def test_subscriptions_that_wait_for_their_place(node):
    """Several packets at once: each is answered, the last one counts."""
    fill(node, 2)
    with client(node) as wire:
        wire.send(subscribe(1, INBOX, "a", props=FROM_INBOX) + subscribe(2, (INBOX, 2), props=FROM_INBOX) +
                  unsubscribe(3, INBOX) + subscribe(4, INBOX) + unsubscribe(5, INBOX, "b") +
                  subscribe(6, "b", INBOX, "c", props=user("tg-from", "earliest")) + subscribe(7, INBOX, props=FROM_INBOX))
        answers, values = {}, []
        while len(answers) < 7 or len(values) < 2:
            first, body = wire.packet()
            if first >> 4 == 3:
                values.append(body[-1:])
                continue
            assert first >> 4 in (SUBACK, UNSUBACK)
            length, place = read_varint(body, 2)  # a reason string may stand there
            answers[struct.unpack_from(">H", body)[0]] = body[place + length:]
        assert answers == {1: b"\x01\x83", 2: b"\x02", 3: b"\x00", 4: b"\x01", 5: b"\x00\x11", 6: b"\x01\x01\x01", 7: b"\x01"}
        assert values[-2:] == [b"0", b"1"]
    # Away before it is known.
    for _ in range(5):
        wire = client(node)
        wire.send(subscribe(1, INBOX, props=FROM_INBOX))
        wire.close()
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "all to be gone")


@pytest.mark.parametrize("way", ["cut", "kill -9"])
@LOOPS
def test_a_session_goes_on_at_its_own_place_and_moves_it(make_node, loops, way):
    node = make_node({"node.loops": loops, "log.partitions": 4, "session.save_count": 1}, keep_ports=True)
    token = make(node, "alice")
    fill(node, 5)
    wire = at_cursor(client(node, name="phone", kept=True))
    values, ids = got(wire, 5)
    assert values == list(range(5))
    acknowledge(wire, ids[0])
    settled(node, 4)
    wait_until(lambda: node.metric("tidegate_inbox_writes_total", "ok") == 1, "the cursor to be written")
    send(node, "alice", b"5")
    assert got(wire, 1)[0] == [5]
    # The record knows of all six: what is asked for behind them is answered behind them.
    assert wire.subscribe("elsewhere", number=7) == b"\x01"
    if way == "cut":
        wire.close()
        wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "it to be gone")
    else:
        node.kill9()
        node.restart()
    assert unread(node) == 5
    with come(node, token=token) as web:
        assert take(web, 5) == [1, 2, 3, 4, 5]
        web.post({"ack": {"n": 2}})
        settled(node, 3)
        wire = client(node, name="phone", kept=True, token=token)
        assert wire.connack[0] == 1
        values, ids = got(wire, 5)  # its own place: what others have read is no matter
        assert values == [1, 2, 3, 4, 5]
        acknowledge(wire, *ids[:2])
        heard(wire)
        assert unread(node) == 3
        acknowledge(wire, *ids[3:])
        heard(wire)
        assert unread(node) == 3  # 3 is still out
        acknowledge(wire, ids[2])
        settled(node, 0)
        send(node, "alice", b"6")
        wire.message()
        settled(node, 0)
        wire.close()


def test_a_session_that_passed_over_something_unread_does_not_move_it_later(make_node):
    node = make_node({"session.save_count": 1}, keep_ports=True)
    fill(node, 1)
    wire = client(node, name="phone", kept=True)
    assert wire.subscribe(INBOX) == b"\x01"
    wire.close()
    fill(node, 2, first=1)
    node.kill9()
    node.restart()
    with client(node, name="phone", kept=True) as wire:
        assert [wire.message().payload for _ in range(2)] == [b"1", b"2"]
        heard(wire)
        assert unread(node) == 3


def test_what_is_not_kept_is_skipped_and_counted(make_node):
    node = make_node({"inbox.keep_messages": 3})
    fill(node, 1)
    with at_cursor(client(node)) as wire:
        wire.message()
        settled(node, 0)
    fill(node, 5, first=1)
    with at_cursor(client(node)) as wire:
        assert [wire.message().payload for _ in range(3)] == [b"3", b"4", b"5"]
        settled(node, 0)
    assert node.metric("tidegate_messages_dropped_total", "retention") == 2


def test_a_real_client_reads_and_its_user_goes_on_by_websocket(node):
    values, client_ = [], paho_client("desk")
    client_.username_pw_set("alice", make(node, "alice"))
    client_.on_message = lambda _client, _data, message: values.append(int(message.payload))
    subscribed = []
    client_.on_subscribe = lambda *_: subscribed.append(1)
    client_.connect("127.0.0.1", node.ports["mqtt"])
    client_.loop_start()
    wait_until(client_.is_connected, "paho to be connected")
    client_.subscribe(INBOX, 1)
    wait_until(lambda: subscribed, "SUBACK")
    fill(node, 3)
    wait_until(lambda: values == [0, 1, 2], "three messages")
    settled(node, 0)
    client_.disconnect()
    client_.loop_stop()
    fill(node, 1, first=3)
    with come(node) as web:
        assert take(web, 1) == [3]
        nothing_more(web, node)
