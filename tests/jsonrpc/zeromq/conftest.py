"""What the tests of the servers and clients with threads share."""

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

PATIENCE = 10.0


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread, no open file and no socket of ZeroMQ is left behind."""
    context = zmq.Context.instance()
    threads = set(threading.enumerate())
    yield
    gc.collect()
    assert {thread for thread in threading.enumerate() if thread.is_alive()} <= threads
    assert [socket for socket in context._sockets if not socket.closed] == []


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """``wait_until(condition)`` for what no event reports, such as what was received."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    return wait
