"""What a client may expect, as plainly as it can be said: a list of records, and for each subscription the records it
is still owed. No offsets, no cursors, no windows: if these two disagree, the node is wrong (or this page is)."""

from collections import deque


def matches(text, topic):
    """MQTT filters (MQTT 5.0, 4.7)."""
    filters, levels = text.split("/"), topic.split("/")
    if topic.startswith("$") and text[0] in "+#":
        return False
    for place, level in enumerate(filters):
        if level == "#":
            return True
        if place >= len(levels) or level not in ("+", levels[place]):
            return False
    return len(filters) == len(levels)


class Record:
    __slots__ = ("topic", "payload", "retain", "optional", "durable", "lost")

    def __init__(self, topic, payload, retain):
        self.topic, self.payload, self.retain = topic, payload, retain
        self.optional = False  # QoS 0: an MQTT client that has no room, or is away, does not get it
        self.durable = False  # acknowledged, so it outlives whatever happens
        self.lost = False

    def __repr__(self):
        return f"{self.topic}={self.payload[:40]!r}"


class Log:
    """All that was published, in order, and what is retained."""

    def __init__(self):
        self.records = []
        self.retained = {}

    def add(self, record):
        self.records.append(record)
        self.fold(record)

    def fold(self, record):
        if record.retain and record.payload:
            self.retained[record.topic] = record
        elif record.retain:
            self.retained.pop(record.topic, None)

    def of(self, topic):
        return [record for record in self.records if record.topic == topic]

    def reconcile(self, kept):
        """After a crash: `kept` is what the node now has, {topic: [payload, ...]}. What was acknowledged must be there,
        in order; of the rest some may be gone. Returns what is."""
        lost = []
        for topic in {record.topic for record in self.records} | set(kept):
            there = deque(kept.get(topic, ()))
            for record in self.of(topic):
                if there and there[0] == record.payload:
                    there.popleft()
                    record.durable = True  # it was read back, so it is in the log
                else:
                    assert not record.durable, f"acknowledged and lost: {record}; next in the log: {list(there)[:3]}"
                    record.lost = True
                    lost.append(record)
            assert not there, f"{topic}: never published, or twice, or in another order: {list(there)[:3]}"
        self.records = [record for record in self.records if not record.lost]
        self.retained = {}
        for record in self.records:
            self.fold(record)
        return lost


class Owed:
    """What one subscription is to get: for each topic these payloads, in this order, each once; and at its beginning
    the retained messages that were there, each once, but those that something newer has replaced meanwhile."""

    def __init__(self, name, text, log, past=False, lossy=False):
        self.name, self.text, self.lossy = name, text, lossy
        self.live = {}  # topic -> deque of records
        self.retained = {} if past else {t: r for t, r in log.retained.items() if matches(text, t)}
        self.skipped = self.got = 0
        if past:
            for record in log.records:
                self.add(record)

    def add(self, record):
        if matches(self.text, record.topic):
            self.live.setdefault(record.topic, deque()).append(record)
            if record.retain and record.topic in self.retained:
                self.retained[record.topic] = None  # may come as it was, or not: what replaced it comes

    def forget(self, lost):
        """What a crash took with it need not come."""
        for topic in {record.topic for record in lost if matches(self.text, record.topic)}:
            self.live[topic] = deque(record for record in self.live.get(topic, ()) if not record.lost)

    def take(self, topic, payload, retained):
        self.got += 1
        if retained:
            assert topic in self.retained, f"{self.name}: {topic} comes as retained, and was not, or comes again"
            record = self.retained.pop(topic)
            assert record is None or record.payload == payload, f"{self.name}: retained {payload!r}, not {record}"
            return
        assert matches(self.text, topic), f"{self.name}: {topic} does not match {self.text}"
        waiting = self.live.get(topic, deque())
        while self.lossy and waiting and waiting[0].payload != payload:
            waiting.popleft()
            self.skipped += 1
        assert waiting, f"{self.name}: {topic} {payload[:60]!r} comes again, or was never published"
        assert waiting[0].payload == payload, (
            f"{self.name}: {payload[:60]!r} where {waiting[0]} is due (then {list(waiting)[1:3]})")
        waiting.popleft()

    def complete(self):
        if any(record for record in self.retained.values()):
            return False
        return not any(self.live.values())

    def __str__(self):
        missing = {topic: list(records)[:3] for topic, records in self.live.items() if records}
        return f"{self.name} ({self.text}): live {missing} retained {[r for r in self.retained.values() if r]}"


class OwedAgain:
    """What a session with acknowledgements is to get: as Owed, but each at least once. After a resume a topic may begin
    again with anything that has come already; from there on it goes in order, with nothing left out."""

    def __init__(self, name, text):
        self.name, self.text, self.lossy = name, text, False
        self.due = {}  # topic -> records
        self.places = {}  # topic -> how many of them may have come: one number, or several after a resume
        self.got = 0

    def add(self, record):
        if matches(self.text, record.topic):
            self.due.setdefault(record.topic, []).append(record)
            self.places.setdefault(record.topic, {0})

    def forget(self, lost):
        for topic in {record.topic for record in lost} & set(self.due):
            records = self.due[topic]
            self.places[topic] = {sum(not record.lost for record in records[:place]) for place in self.places[topic]}
            self.due[topic] = [record for record in records if not record.lost]

    def resumed(self):
        self.places = {topic: set(range(max(places) + 1)) for topic, places in self.places.items()}

    def take(self, topic, payload, retained):
        self.got += 1
        assert not retained, f"{self.name}: retained messages were not asked for"
        records, places = self.due.get(topic, []), self.places.get(topic, set())
        self.places[topic] = {place + 1 for place in places if place < len(records) and records[place].payload == payload}
        assert self.places[topic], (f"{self.name}: {topic} {payload[:60]!r} where " +
                                    " or ".join(str(records[place:place + 2]) for place in sorted(places)[-3:]) + " is due")

    def complete(self):
        return all(max(self.places[topic]) == len(records) for topic, records in self.due.items())

    def __str__(self):
        missing = {t: r[max(self.places[t]):][:3] for t, r in self.due.items() if max(self.places[t]) < len(r)}
        return f"{self.name} ({self.text}): {missing}"


class OwedSession(OwedAgain):
    """What a persistent MQTT session is to get: as OwedAgain, but it may do without what was published with QoS 0; and
    at its beginning the retained messages that were there, each at least once, unless something newer replaced them."""

    def __init__(self, name, text, log):
        super().__init__(name, text)
        self.retained = {topic: record for topic, record in log.retained.items() if matches(text, topic)}
        self.seen = set()  # topics of these that have come
        self.came = set()

    def add(self, record):
        super().add(record)
        if record.retain and record.topic in self.retained and matches(self.text, record.topic):
            self.retained[record.topic] = None

    def forget(self, lost):
        super().forget(lost)
        for topic, record in self.retained.items():
            if record and record.lost:
                self.retained[topic] = None

    def take(self, topic, payload, retained):
        self.got += 1
        if retained:
            assert topic in self.retained, f"{self.name}: {topic} comes as retained, and was not"
            record = self.retained[topic]
            assert record is None or record.payload == payload, f"{self.name}: retained {payload!r}, not {record}"
            self.seen.add(topic)
            return
        records, places, now = self.due.get(topic, []), self.places.get(topic, set()), set()
        for place in places:
            while place < len(records):
                if records[place].payload == payload:
                    now.add(place + 1)
                if not records[place].optional:
                    break
                place += 1
        assert now, (f"{self.name}: {topic} {payload[:60]!r} where " +
                     " or ".join(str(records[place:place + 2]) for place in sorted(places)[-3:]) + " is due")
        self.places[topic] = now

    def on_its_way(self):
        """What may still come when the filter is unsubscribed: what the node had begun to deliver it goes on with, and
        a connection that ended may have taken it along unread (MQTT 3.1.1, 3.10.4)."""
        owed = {(topic, record.payload) for topic, records in self.due.items() for record in records}
        return owed | {(topic, record.payload) for topic, record in self.retained.items() if record}

    def complete(self):
        if any(record and topic not in self.seen for topic, record in self.retained.items()):
            return False
        return all(all(record.optional for record in records[max(self.places[topic]):]) for topic, records in self.due.items())


class Inbox:
    """A user's inbox: what was sent to him, and how much of it some connection of his has acknowledged: what the node is
    certain to know, what of that a crash leaves, and what was said at all."""

    def __init__(self, user):
        self.user, self.records = user, []
        self.said = self.certain = self.durable = 0

    def crashed(self):
        self.certain = self.durable

    def stopped(self):
        self.durable = self.certain


class OwedInbox:
    """What one connection is to get of it: from a place between what the node must know and what it can know when the
    connection comes, everything, in order, each once."""

    lossy = False

    def __init__(self, name, inbox):
        self.name, self.inbox = name, inbox
        self.least, self.place, self.first, self.got = inbox.certain, None, None, 0

    def add(self, record):
        """The inbox has it."""

    def forget(self, lost):
        assert not {id(record) for record in lost} & {id(record) for record in self.inbox.records}, "lost from an inbox"

    def take(self, topic, payload):
        records = self.inbox.records
        if self.place is None:
            # Payloads are unique. What was said after the connection came cannot have moved its beginning beyond that.
            found = [at for at, record in enumerate(records) if (record.topic, record.payload) == (topic, payload)]
            assert found, f"{self.name}: {topic} {payload[:60]!r} was never sent"
            self.first = self.place = found[0]
            assert self.least <= self.first <= self.inbox.said, (
                f"{self.name}: begins at {self.first}, acknowledged were {self.least} to {self.inbox.said}")
        self.got += 1
        due = records[self.place] if self.place < len(records) else None
        assert due and (due.topic, due.payload) == (topic, payload), (
            f"{self.name}: {topic} {payload[:60]!r} where {due} is due")
        self.place += 1

    def complete(self):
        return self.inbox.said == len(self.inbox.records) if self.place is None else self.place == len(self.inbox.records)

    def __str__(self):
        return f"{self.name} ({self.inbox.user}): {self.inbox.records[self.place or 0:][:3]} from {self.place}"
