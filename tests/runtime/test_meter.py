import subprocess
import sys
import threading
from typing import Any

import pytest

from berrymq_rpc.common.measures import OK
from berrymq_rpc.runtime.meter import Meter, meter_of


@pytest.mark.parametrize("metrics", [False, None])
def test_nothing_is_measured_unless_it_is_asked_for(metrics: object) -> None:
    assert meter_of(metrics) is None


def test_true_makes_a_meter_and_a_meter_is_taken_as_it_is() -> None:
    first, second = meter_of(True), meter_of(True)
    assert isinstance(first, Meter)
    assert first is not second
    assert meter_of(first) is first


@pytest.mark.parametrize("metrics", ["yes", 1, object])
def test_something_else_is_refused(metrics: Any) -> None:
    with pytest.raises(TypeError, match=r"metrics must be True, False or an rpc\.Meter"):
        meter_of(metrics)


@pytest.mark.parametrize("limit", ["max_methods", "max_identifiers"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("9", TypeError)])
def test_a_limit_is_a_number_of_names(limit: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=limit):
        Meter(**{limit: value})


def test_threads_lose_no_count() -> None:
    meter = Meter()

    def count() -> None:
        for _ in range(2000):
            meter.served.ended("add", OK, 0.001)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert meter.snapshot()["served"]["add"]["ok"] == 16_000


FORK = """
import os, sys, threading
from berrymq_rpc.runtime.meter import Meter

meter = Meter()
taken, done = threading.Event(), threading.Event()

class Slow(str):
    def __hash__(self):
        taken.set()
        done.wait(30)
        return super().__hash__()

thread = threading.Thread(target=meter.published, args=(Slow("oven:log"),))
thread.start()
assert taken.wait(30)
child = os.fork()
if not child:
    thread = threading.Thread(target=meter.published, args=("door:open",), daemon=True)
    thread.start()
    thread.join(10)
    os._exit(int(thread.is_alive()))
_, status = os.waitpid(child, 0)
done.set()
thread.join(30)
sys.exit(status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_the_child_of_a_fork_counts_though_a_thread_of_the_parent_was_counting() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
