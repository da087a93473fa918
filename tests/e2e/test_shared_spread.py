"""How evenly a group of clean and kept members is served: each within 15 % of its share."""

import pytest

from node import wait_until
from test_mqtt_sessions import leave
from test_shared import SPREAD, Member, all_of, pump, send
from test_shared_kept import back, kept

FILTER = "$share/g/work/#"


def even(members, count, before=None):
    """Of `count` messages since `before` was how many each had."""
    got = [len(m.got) - (before[i] if before else 0) for i, m in enumerate(members)]
    share = count / len(members)
    assert sum(got) == count and all(abs(n - share) <= 0.15 * share for n in got), got


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("qos", [1, 2])
def test_clean_and_kept_members(make_node, loops, qos):
    node = make_node({"node.loops": loops, **SPREAD})
    members = [member for version in (5, 4) for member in (
        Member(node, version, qos=qos, filter=FILTER), kept(node, f"kept{version}", version, filter=FILTER, qos=qos))]
    sent = send(node, 800, qos=qos)
    pump(members, lambda: sum(len(m.got) for m in members) >= 800, "all")
    even(members, 800)
    pump(members, lambda: all(m.released == len(m.got) * (qos == 2) for m in members), "all to be released")
    pump(members, lambda: node.metric("tidegate_shared_given") == 0, "all to be settled")
    # Without one of the kept ones the others have it all; when it comes back it has its share again.
    leave(members[1], "disconnect")
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 3, "it to be away")
    others = [members[0], *members[2:]]
    before = [len(m.got) for m in others]
    sent += send(node, 600, qos=qos, first=800)
    pump(others, lambda: sum(len(m.got) for m in others) - sum(before) >= 600, "all without it")
    even(others, 600, before)
    returned = back(node, "kept5")
    before = [len(m.got) for m in [*others, returned]]
    sent += send(node, 800, qos=qos, first=1400)
    everyone = [*others, returned]
    pump(everyone, lambda: sum(len(m.got) for m in everyone) - sum(before) >= 800, "all with it")
    even(everyone, 800, before)
    assert sorted(all_of(members) + returned.payloads()) == sent
