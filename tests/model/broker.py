"""What an MQTT client may expect of a broker, as plainly as it can be said (MQTT 5.0 and 3.1.1, docs/PROTOCOL.md 3): for each
subscription of a session the messages that it is owed, in order. No offsets, no windows of the server's, no log. If these
two disagree, the node is wrong (or this page is).

Of a topic, QoS 0 makes one line and QoS 1 and 2 another: a QoS 2 message waits for the session's record, a QoS 0 message for
nothing. Within a line everything comes in the order in which it was published."""

from model import matches

SURE, MAYBE, LOST = "sure", "maybe", "lost"
SLACK_S = 1.5  # of clocks that count whole seconds


class Record:
    """A message as it was published. MAYBE: nobody was told that it is stored."""

    def __init__(self, number, topic, payload, qos, retain, by, props=(), expiry=None):
        self.number, self.topic, self.payload, self.qos, self.retain = number, topic, payload, qos, retain
        self.by, self.props, self.expiry = by, tuple(props), expiry
        self.numbered = False  # its number stands in a user property
        self.state, self.will, self.delayed, self.gone_at = MAYBE, False, False, None

    def stored(self, now):
        self.state = SURE
        if self.expiry is not None:
            self.gone_at = now + self.expiry + SLACK_S

    def gone(self, now):
        """Whoever begins to read now gets it no more."""
        return self.gone_at is not None and now > self.gone_at

    @property
    def short(self):
        return self.expiry is not None and self.expiry < 60

    def __repr__(self):
        return f"#{self.number} {self.topic} QoS {self.qos}{' retain' if self.retain else ''} {self.state}"


class Item:
    """A record as one subscription is to get it."""

    def __init__(self, record, qos, retain, optional):
        self.record, self.qos, self.retain, self.optional = record, qos, retain, optional
        self.came = 0  # how often
        self.connection = None  # in which it came last
        self.again = False  # retained, and a crash has forgotten that it came
        self.settled = False  # acknowledged, and the server certainly knows
        self.index = 0

    def due(self):
        return not (self.came or self.optional or self.record.state is not SURE or self.record.short)


class Line:
    """Of one subscription, topic and kind of delivery."""

    def __init__(self):
        self.items, self.first, self.last = [], 0, (None, -1)

    def add(self, item):
        item.index = len(self.items)
        self.items.append(item)

    def missing(self):
        """The first that must come and has not."""
        while self.first < len(self.items):
            item = self.items[self.first]
            if item.due():
                return item
            if item.record.state is MAYBE and not item.came:
                break  # it may become due
            self.first += 1
        for item in self.items[self.first:]:
            if item.due():
                return item
        return None


class Subscription:
    def __init__(self, filter, qos, ident=None, no_local=False, as_published=False):
        self.filter, self.qos, self.ident = filter, qos, ident
        self.no_local, self.as_published = no_local, as_published
        self.lines = {}  # (topic, with acknowledgement) -> Line
        self.kept = {}  # topic -> Item of a retained message
        self.found = {}  # (topic, number or payload) -> [Item]

    def key(self, record_or_message, with_number):
        number = record_or_message.number if with_number else None
        return record_or_message.topic, number if number is not None else record_or_message.payload

    def file(self, item, with_number):
        for key in {self.key(item.record, True), self.key(item.record, False)}:
            self.found.setdefault(key, []).append(item)

    def add(self, record, owner, here, perhaps=False):
        """A message is published while the subscription is there, and its client is (or perhaps)."""
        if not matches(self.filter, record.topic):
            return
        own = record.by == owner
        if record.retain and record.topic in self.kept:
            self.kept[record.topic].optional = True  # may come as it was, or not: what replaced it comes
        if own and self.no_local and not record.will:
            return
        qos = min(self.qos, record.qos)
        if qos == 0 and not (here or perhaps):
            return
        optional = (own and record.will) or (qos == 0 and not here)
        item = Item(record, qos, record.retain and self.as_published, optional)
        self.lines.setdefault((record.topic, qos > 0), Line()).add(item)
        self.file(item, True)

    def bring(self, retained, owner, now):
        """What was retained when the subscription was made."""
        for topic, record in retained.items():
            if matches(self.filter, topic) and not record.gone(now):
                # Before No Local was asked for, nobody noted whose it was.
                item = Item(record, min(self.qos, record.qos), True, record.short or (self.no_local and record.by == owner))
                self.kept[topic] = item
                self.file(item, True)

    def left(self):
        """Its client is gone: QoS 0 that has not come need not come; an acknowledgement may not have arrived."""
        for line in self.lines.values():
            for item in line.items[line.first:]:
                item.optional |= item.qos == 0
        for item in self.kept.values():
            item.optional |= item.qos == 0

    def crashed(self):
        """Acknowledgements of QoS 1 are durable some time later only, and so is the place in what is retained."""
        for item in self.kept.values():
            item.again = item.qos < 2
        for items in self.found.values():
            for item in items:
                item.settled = False

    def may_come(self):
        """Something that expires soon: it is not waited for, and may come all the same."""
        return any(item.record.short and not item.came for items in self.found.values() for item in items)

    def ended(self):
        """Unsubscribed: what was under way may come to its end."""
        for item in (item for items in self.found.values() for item in items):
            item.optional = True

    def missing(self):
        for line in self.lines.values():
            item = line.missing()
            if item:
                return item
        return next((item for item in self.kept.values() if item.due()), None)

    def take(self, message, connection, resumed):
        """The item that this message is, or the reasons why it is none that is due."""
        reasons = []
        found = self.found.get(self.key(message, message.number is not None), ())
        # 3.1.1 has no number to tell empty ones apart: those that are waited for come first.
        for item in sorted(found, key=lambda item: bool(item.came or item.optional)) if not message.payload else found:
            why = self.objection(item, message, connection, resumed)
            if why is None:
                item.came += 1
                item.connection = connection
                line = self.lines.get((message.topic, item.qos > 0))
                if line and item.index < len(line.items) and line.items[item.index] is item:
                    line.last = (connection, item.index)
                return item, reasons
            reasons.append(f"{item.record}: {why}")
        return None, reasons

    def objection(self, item, message, connection, resumed):
        if (item.qos, item.retain) != (message.qos, message.retained):
            return f"with QoS {item.qos} and RETAIN {item.retain:d}, not {message.qos} and {message.retained:d}"
        if message.five and item.record.numbered != (message.number is not None):
            return "has other properties"
        if item.record.state is LOST:
            return "is not stored"
        if item.came and item.record.delayed and item.came < 2:
            return None  # PROTOCOL.md 3, Will messages: its client came back at that very moment
        if item.came and item.again and item.connection != connection:
            return None
        if item.came:
            if item.qos != 1 or item.connection == connection:
                return "comes again"
            if item.settled:
                return "comes again, and was acknowledged"
        if message.dup and not (resumed and item.qos):
            return "DUP, and this is the first time"
        line = self.lines.get((message.topic, item.qos > 0))
        if not line or item.index >= len(line.items) or line.items[item.index] is not item:
            return None  # retained: in any order
        if line.last[0] == connection and line.last[1] >= item.index:
            return f"behind {line.items[line.last[1]].record}"
        before = line.missing()
        if before is not None and before.index < item.index:
            return f"{before.record} is due before"
        return None


class Session:
    """What a broker keeps of a client, and what the client keeps of its half."""

    def __init__(self):
        self.subscriptions, self.ghosts = {}, []  # ghosts: unsubscribed, with something under way
        self.held = {}  # QoS 2 that came and is not released: identifier -> Item
        self.open = {}  # what the client has published with QoS 2 and is not finished: identifier -> [Record, released]

    def all(self):
        return [*self.subscriptions.values(), *self.ghosts]

    def missing(self):
        for subscription in self.subscriptions.values():
            item = subscription.missing()
            if item:
                return f"{subscription.filter} ({subscription.ident}): {item.record}"
        return None

    def take(self, name, message, connection, resumed):
        """Which of its subscriptions is it for? Each filter delivers for itself, and its copies carry its identifier."""
        reasons = []
        for subscription in self.all():
            if subscription.ident == message.ident:
                item, why = subscription.take(message, connection, resumed)
                if item:
                    return item
                reasons += [f"{subscription.filter}: {text}" for text in why]
        raise AssertionError(f"{name} was not owed {message}" + "".join(f"\n    {reason}" for reason in reasons))


class Retained:
    """What is retained: the last of each topic with RETAIN and something in it."""

    def __init__(self):
        self.records = {}

    def add(self, record):
        if record.retain and record.payload:
            self.records[record.topic] = record
        elif record.retain:
            self.records.pop(record.topic, None)

    def again(self, topic, records):
        """Some of the topic turned out not to be stored."""
        self.records.pop(topic, None)
        for record in records:
            self.add(record)
