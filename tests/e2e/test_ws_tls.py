"""The public port once more, over TLS: whatever holds for plain sockets holds there."""

import pytest

from test_ws import *  # noqa: F401,F403 (the tests)


@pytest.fixture
def make_node(make_node, certificates):
    def make(settings=None, **options):
        node = make_node({**certificates.settings(), **(settings or {})}, **options)
        node.tls = certificates.client()
        return node
    return make
