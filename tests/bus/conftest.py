"""What the tests of the bus share, as fixtures."""

from typing import Any

import pytest

from berrymq_rpc.bus import Bus, Message, Queue


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def errors(bus: Bus) -> list[tuple[BaseException, Message, Any]]:
    """What the bus has reported since: error, message and receiver."""
    seen: list[tuple[BaseException, Message, Any]] = []
    bus.on_error = lambda error, message, receiver: seen.append((error, message, receiver))
    return seen


@pytest.fixture
def answers(bus: Bus) -> Queue:
    return Queue("answer", bus=bus)
