import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from typing import Any

import pytest

from berrymq_rpc.runtime.daemon_executor import DaemonExecutor

PATIENCE = 20


def test_results_and_errors() -> None:
    executor = DaemonExecutor(2, "some")

    def fail() -> None:
        raise SystemExit(3)

    assert executor.submit(lambda a, *, b: (a, b), 1, b=2).result(PATIENCE) == (1, 2)
    with pytest.raises(SystemExit):
        executor.submit(fail).result(PATIENCE)
    assert executor.submit(threading.current_thread).result(PATIENCE).name.startswith("some_")
    assert executor.submit(threading.current_thread).result(PATIENCE).daemon
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(fail)


def test_no_more_threads_than_it_may_have_or_needs() -> None:
    executor = DaemonExecutor(3, "some")
    for _ in range(50):
        executor.submit(int).result(PATIENCE)
    gate = threading.Event()
    names: list[str] = []

    def work() -> None:
        names.append(threading.current_thread().name)
        assert gate.wait(PATIENCE)

    futures = [executor.submit(work) for _ in range(20)]
    gate.set()
    assert not wait_for(futures, PATIENCE).not_done
    assert len(names) == 20
    assert len(set(names)) <= 3
    for _ in range(50):
        executor.submit(int).result(PATIENCE)
    executor.shutdown()


def test_all_threads_are_used() -> None:
    executor = DaemonExecutor(4, "some")
    barrier = threading.Barrier(4)
    futures = [executor.submit(barrier.wait, PATIENCE) for _ in range(4)]
    assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2, 3]
    executor.shutdown()


def test_what_waits_is_cancelled() -> None:
    executor = DaemonExecutor(1, "some")
    started, gate = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return gate.wait(PATIENCE)

    running: Future[Any] = executor.submit(work)
    assert started.wait(PATIENCE)
    waiting = [executor.submit(int) for _ in range(3)]
    executor.shutdown(wait=False, cancel_futures=True)
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
    gate.set()
    assert running.result(PATIENCE)
    executor.shutdown()
