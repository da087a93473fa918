"""The model test of MQTT (tests/model/mqtt.py): a random walk of many clients through everything that a broker has for them."""

import os
import sys
from pathlib import Path

import pytest

from node import PATIENCE

sys.path.append(str(Path(__file__).resolve().parents[1] / "model"))

import mqtt as model  # noqa: E402

# The full run: TIDEGATE_MODEL_STEPS=10000, any TIDEGATE_MODEL_SEED
STEPS = int(os.environ.get("TIDEGATE_MODEL_STEPS", max(100, 300 // PATIENCE)))
SEED = int(os.environ.get("TIDEGATE_MODEL_SEED", 7))


@pytest.mark.deadline(120 + STEPS // 5)
def test_a_random_walk_of_mqtt_clients(tmp_path):
    print(f"seed {SEED}")
    counts = model.run(tmp_path, STEPS, SEED, partitions=4, loops=2, kill_every=min(100, STEPS // 2))
    assert counts["records"] > 0
