"""MQTT's bytes once more, over TLS: whatever holds for plain sockets holds there."""

import pytest

from test_mqtt_bytes import *  # noqa: F401,F403 (the tests)
from test_ws_tls import make_node  # noqa: F401
