"""Acknowledged means durable: kill -9 under load, over and over. Whatever any door acknowledged is read back, and
every subscriber that resumes by position gets it, in order."""

import os
import random
import time

import pytest

from clients import Web
from load import FILTERS, Ledger, Load, Watcher

# The full run, whose summary is docs/results/kill-9.md: TIDEGATE_KILL_ROUNDS=200
ROUNDS = int(os.environ.get("TIDEGATE_KILL_ROUNDS", 20))
LOAD_S = (0.15, 0.6)


@pytest.mark.deadline(180 + 6 * ROUNDS)
@pytest.mark.parametrize("partitions", [1, 4])
def test_kill_9_under_load(make_node, partitions):
    node = make_node({"log.partitions": partitions}, keep_ports=True)
    dice = random.Random(20)
    ledger = Ledger()
    watchers = [Watcher(text, ledger) for text in FILTERS]
    rounds = ROUNDS if partitions == 1 else ROUNDS // 4
    restart_s = []
    for _ in range(rounds):
        for watcher in watchers:
            watcher.open(node)
        load = Load(node, ledger, watchers)
        # Not before something is acknowledged at each door, and much altogether, then at any moment.
        load.wait_for_each_door(100)
        time.sleep(dice.uniform(*LOAD_S))
        node.kill9()
        load.end()
        began = time.monotonic()
        node.restart()
        restart_s.append(time.monotonic() - began)
    assert ledger.count() >= 100 * rounds

    lost = ledger.check_kept(node)
    for watcher in watchers:
        ledger.check_watcher(node, watcher)
        watcher.web.close()
    print(f"{partitions} partitions: {rounds} rounds, {ledger.count()} acknowledged, {lost} lost, "
          f"{len(ledger.seen)} positions seen, {len(ledger.unkept)} delivered and not kept, "
          f"{len(ledger.faults)} faults; restart until ready: {1000 * sorted(restart_s)[rounds // 2]:.0f} ms median, "
          f"{1000 * max(restart_s):.0f} ms at most")
    assert ledger.faults == []


@pytest.mark.deadline(60)
def test_positions_jump_ahead_after_kill_9(make_node):
    """Offsets are never reused: after an unclean stop the next one lies far ahead, because subscribers may have
    seen some that the disk never got."""
    node = make_node()
    with Web(node) as web:
        before = web.ask({"pub": {"topic": "a", "data": 1}})["ok"]["pos"]
    node.kill9()
    node.restart()
    with Web(node) as web:
        after = web.ask({"pub": {"topic": "a", "data": 2}})["ok"]["pos"]
    lane, offset = before.rsplit(".", 1)
    lane_after, offset_after = after.rsplit(".", 1)
    assert lane == lane_after
    assert int(offset_after, 16) - int(offset, 16) >= 1 << 20
