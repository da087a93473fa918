"""Fixtures of the conformance tests: one node for all tests of a module, as its SETTINGS say, and names of a test's own."""

import importlib.util
import itertools
import sys
from pathlib import Path

import pytest

E2E = Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))

from node import PROGRAM, Node  # noqa: E402

spec = importlib.util.spec_from_file_location("conftest_of_e2e", E2E / "conftest.py")
of_e2e = importlib.util.module_from_spec(spec)
spec.loader.exec_module(of_e2e)
pytest_configure = of_e2e.pytest_configure
pytest_collection_finish = of_e2e.pytest_collection_finish
deadline = of_e2e.deadline
make_node = of_e2e.make_node


@pytest.fixture(scope="module")
def node(request, tmp_path_factory):
    assert PROGRAM.exists(), f"{PROGRAM} is not built (./dev build)"
    made = Node(tmp_path_factory.mktemp("node"), getattr(request.module, "SETTINGS", {}))
    made.data.parent.mkdir(exist_ok=True)
    yield made.start()
    made.check()


numbers = itertools.count(1)


@pytest.fixture
def name():
    """No other test has topics or clients of this name."""
    return f"n{next(numbers)}"
