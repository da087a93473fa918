"""The model test (tests/model/run.py): a random walk of many clients of all doors through everything they can do."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "model"))

import run as model  # noqa: E402

# The full run: TIDEGATE_MODEL_STEPS=100000, any TIDEGATE_MODEL_SEED
STEPS = int(os.environ.get("TIDEGATE_MODEL_STEPS", 5000))
SEED = int(os.environ.get("TIDEGATE_MODEL_SEED", 20))


@pytest.mark.deadline(120 + STEPS // 20)
@pytest.mark.parametrize("partitions, loops", [(1, 1), (4, 3)])
def test_a_random_walk(tmp_path, partitions, loops):
    print(f"seed {SEED}")
    counts = model.run(tmp_path, STEPS, SEED, partitions, loops)
    assert counts["records"] > STEPS
