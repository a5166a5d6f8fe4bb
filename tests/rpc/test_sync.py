"""The client for threads without asyncio."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import rpc

ROOT = Path(__file__).parents[2]

#: Seconds in which what has to happen happens.
PATIENCE = 10.0


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.inner = {"name": rpc.method(lambda: "inner")}
        self.noted: list[Any] = []
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.open = 0

    @rpc.method
    def add(self, a, b=1):
        return a + b

    @rpc.method
    async def add_later(self, a, b=1):
        await asyncio.sleep(0)
        return a + b

    @rpc.method
    def fail(self):
        raise FileNotFoundError(2, "No such file", "/x")

    @rpc.method
    def note(self, value):
        self.noted.append(value)

    @rpc.method
    async def forever(self):
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @rpc.method
    async def ticks(self, count=None):
        self.open += 1
        try:
            number = 0
            while count is None or number < count:
                yield number
                number += 1
        finally:
            self.open -= 1

    @rpc.method
    async def stuck(self):
        yield 1
        await self.forever()

    @rpc.method
    async def back(self, name):
        return await rpc.context().peer.call(name)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture(params=["tcp://127.0.0.1:*", "mem://*"])
def endpoint(request: pytest.FixtureRequest, handler: Handler) -> Iterator[str]:
    """Of a server on a thread of its own."""
    found: list[str] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with await rpc.start_server(handler, bind=request.param, grace=0.05) as server:
            found.append(server.endpoints[0])
            ready.set()
            await done.wait()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE)
    yield found[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_calls(endpoint: str) -> None:
    with rpc.SyncClient(connect=endpoint, timeout=5) as client:
        assert client.rpc.add(1, 2) == 3
        assert client.rpc.add_later(1, b=3) == 4
        assert client.rpc.inner.name() == "inner"
        assert client.call("inner.name") == "inner"
        assert client.endpoints == (endpoint,)
        assert endpoint in repr(client)
        names = [method["name"] for method in client.describe()["methods"]]
        assert "inner.name" in names


def test_failures(endpoint: str) -> None:
    with rpc.SyncClient(connect=endpoint, timeout=5) as client:
        with pytest.raises(FileNotFoundError) as caught:
            client.rpc.fail()
        assert caught.value.filename == "/x"
        with pytest.raises(rpc.NotFoundError):
            client.rpc.nope()
        with pytest.raises(rpc.ParametersError):
            client.rpc.add()
        with pytest.raises(TypeError, match="args"):
            client.rpc.add(object())
        with pytest.raises(AttributeError):
            _ = client.rpc._private
        assert client.rpc.add(1) == 2


def test_notify(endpoint: str, handler: Handler) -> None:
    with rpc.SyncClient(connect=endpoint) as client:
        for number in range(100):
            assert client.notify.note(number) is None
        until(lambda: len(handler.noted) == 100)
        assert handler.noted == list(range(100))
        with pytest.raises(TypeError):
            client.notify.note(object())


def test_streams(endpoint: str, handler: Handler) -> None:
    with rpc.SyncClient(connect=endpoint, timeout=5) as client:
        assert list(client.stream.ticks(200)) == list(range(200))
        for item in client.stream.ticks():
            if item == 10:
                break
        gc.collect()
        until(lambda: not handler.open)
        items = client.stream.ticks()
        assert next(items) == 0
        items.close()  # type: ignore[attr-defined]
        until(lambda: not handler.open)
        with contextlib.closing(client.stream.ticks()):  # type: ignore[type-var]
            # Begun, though nothing was read.
            until(lambda: handler.open)
        until(lambda: not handler.open)
        unread = client.stream.ticks()
        until(lambda: handler.open)
        del unread
        gc.collect()
        until(lambda: not handler.open)
        # The advice can be followed with this client.
        with pytest.raises(rpc.ProtocolError, match=r"not a stream: use client.rpc, not client.s"):
            list(client.stream.add(1))
        with pytest.raises(rpc.ProtocolError, match=r"a stream: use client.stream, not client.r"):
            client.rpc.ticks(1)
        assert client.rpc.add(1) == 2


def test_timeouts(endpoint: str, handler: Handler) -> None:
    with rpc.SyncClient(connect=endpoint) as client:
        quick = client.with_timeout(0.1)
        with pytest.raises(rpc.RPCTimeoutError, match="'forever'"):
            quick.rpc.forever()
        assert handler.cancelled.wait(PATIENCE)
        items = quick.stream.stuck()
        assert next(items) == 1
        with pytest.raises(rpc.RPCTimeoutError):
            next(items)
        with pytest.raises(StopIteration):
            next(items)
        with pytest.raises(ValueError, match="timeout"):
            client.with_timeout(0)
        assert quick.with_timeout(None).rpc.add(1) == 2


def test_no_server() -> None:
    with (
        rpc.SyncClient(connect="mem://nobody", connect_timeout=0.1) as client,
        pytest.raises(rpc.ConnectionLostError, match="no connection"),
    ):
        client.rpc.add(1)


def test_bad_arguments() -> None:
    before = threading.active_count()
    for arguments, error in (
        ({}, ValueError),
        ({"connect": "nonsense"}, ValueError),
        ({"connect": "mem://x", "timeout": -1}, ValueError),
        ({"connect": "mem://x", "nonsense": 1}, TypeError),
        ({"bind": "tcp://127.0.0.1:1:1"}, (OSError, ValueError)),
    ):
        with pytest.raises(error):  # type: ignore[call-overload]
            rpc.SyncClient(**arguments)  # type: ignore[arg-type]
    until(lambda: threading.active_count() == before)


def test_eight_threads(endpoint: str) -> None:
    with (
        rpc.SyncClient(connect=endpoint, timeout=20) as client,
        ThreadPoolExecutor(8) as pool,
    ):

        def work(worker: int) -> None:
            for number in range(100):
                assert client.rpc.add(worker * 1000, number) == worker * 1000 + number
                assert client.rpc.add_later(number) == number + 1
            assert list(client.stream.ticks(100)) == list(range(100))

        list(pool.map(work, range(8)))


def test_handler(endpoint: str) -> None:
    client: list[rpc.SyncClient] = []
    threads: list[int] = []

    class Mine(rpc.AttrHandler):
        @rpc.method
        def hello(self):
            threads.append(threading.get_ident())
            return "hello"

        @rpc.method
        def call_again(self):
            return client[0].rpc.add(1)

        @rpc.method
        def stream_again(self):
            return list(client[0].stream.ticks(1))

        @rpc.method
        def notify_again(self):
            client[0].notify.note(1)

        @rpc.method(thread=True)
        def call_again_in_a_thread(self):
            return client[0].rpc.add(1)

        @rpc.method
        async def call_again_elsewhere(self):
            return await asyncio.to_thread(client[0].rpc.add, 1)

    with rpc.SyncClient(connect=endpoint, handler=Mine(), timeout=5) as opened:
        client.append(opened)
        assert opened.rpc.back("hello") == "hello"
        assert threads != [threading.get_ident()]
        for name in ("call_again", "stream_again", "notify_again"):
            with pytest.raises(RuntimeError, match=r"wait for itself.*thread=True.*to_thread"):
                opened.rpc.back(name)
        assert opened.rpc.back("call_again_in_a_thread") == 2
        assert opened.rpc.back("call_again_elsewhere") == 2


def test_closed(endpoint: str) -> None:
    client = rpc.SyncClient(connect=endpoint)
    other = client.with_timeout(5)
    items = client.stream.ticks()
    assert next(items) == 0
    client.close()
    client.close()
    for use in (
        lambda: client.rpc.add(1),
        lambda: client.notify.add(1),
        lambda: client.stream.ticks(),
        lambda: other.rpc.add(1),
        lambda: client.describe(),
        lambda: next(items),
    ):
        with pytest.raises(rpc.ServiceClosedError, match="closed"):
            use()
    other.close()
    with client:
        pass


def test_close_while_calls_wait(endpoint: str, handler: Handler) -> None:
    client = rpc.SyncClient(connect=endpoint)
    outcomes: list[BaseException | str] = []

    def wait() -> None:
        try:
            client.rpc.forever()
        except BaseException as error:
            outcomes.append(error)
        else:
            outcomes.append("answered")

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert handler.started.wait(PATIENCE)
    client.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert {type(outcome) for outcome in outcomes} == {rpc.ServiceClosedError}
    assert handler.cancelled.wait(PATIENCE)


def test_close_while_threads_call(endpoint: str) -> None:
    """However the two meet, no thread waits forever."""
    for round_ in range(20):
        client = rpc.SyncClient(connect=endpoint)
        client.rpc.add(1)
        outcomes: list[BaseException] = []

        def work(client: rpc.SyncClient = client, outcomes: list[Any] = outcomes) -> None:
            try:
                while True:
                    client.rpc.add(1)
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.0005 * (round_ % 5))
        client.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a call waits forever"
        assert {type(outcome) for outcome in outcomes} == {rpc.ServiceClosedError}


def test_two_threads_close_at_once(endpoint: str) -> None:
    for _ in range(10):
        client = rpc.SyncClient(connect=endpoint)
        threads = [threading.Thread(target=client.close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        with pytest.raises(rpc.ServiceClosedError):
            client.rpc.add(1)


def test_close_in_its_own_handler(endpoint: str) -> None:
    """It cannot wait for itself."""
    client: list[rpc.SyncClient] = []
    mine = {"end": rpc.method(lambda: client[0].close())}
    with rpc.SyncClient(connect=endpoint, handler=mine, timeout=5) as opened:
        client.append(opened)
        with pytest.raises(RuntimeError, match="wait for itself"):
            opened.rpc.back("end")
        assert opened.rpc.add(1) == 2


def test_many_clients_leave_no_thread(endpoint: str) -> None:
    before = threading.active_count()
    for _ in range(10):
        with rpc.SyncClient(connect=endpoint) as client:
            assert client.rpc.add(1) == 2
    until(lambda: threading.active_count() == before)


def test_in_a_running_loop(endpoint: str) -> None:
    """It blocks that loop, but works, as the server is elsewhere."""

    async def use() -> None:
        with rpc.SyncClient(connect=endpoint, timeout=5) as client:
            assert client.rpc.add(1) == 2

    asyncio.run(use())


INTERRUPTED = """
    import os, signal, sys, threading
    from berrymq_rpc import rpc

    client = rpc.SyncClient(connect=sys.argv[1])
    assert client.rpc.add(1) == 2
    print("calling", flush=True)
    try:
        client.rpc.forever()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert client.rpc.add(1) == 2
    client.close()
    print("closed", flush=True)
"""


def test_ctrl_c(server_process: Any) -> None:
    server = server_process()
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(INTERRUPTED), server.endpoint]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "calling\n"
            until(lambda: "started" in server.lines)
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert err == ""
    assert out == "interrupted\nclosed\n"
    until(lambda: "cancelled" in server.lines)


def test_a_program_that_does_not_close_ends(run_program: Any, server_process: Any) -> None:
    program = """
    import sys
    from berrymq_rpc import rpc
    client = rpc.SyncClient(connect=sys.argv[1])
    print(client.rpc.add(1), flush=True)
    """
    finished = run_program(textwrap.dedent(program), server_process().endpoint)
    assert finished.stdout == "2\n"
    assert finished.returncode == 0


FORKED = """
    import os, sys, warnings
    from berrymq_rpc import rpc

    warnings.simplefilter("ignore", DeprecationWarning)
    client = rpc.SyncClient(connect=sys.argv[1], timeout=5)
    assert client.rpc.add(1) == 2
    items = client.stream.ticks()
    assert next(items) == 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            refused = 0
            for use in (lambda: client.rpc.add(1), lambda: client.notify.add(1),
                        lambda: next(items)):
                try:
                    use()
                except rpc.Error as error:
                    refused += "fork" in str(error)
            client.close()
            with rpc.SyncClient(connect=sys.argv[1], timeout=5) as mine:
                status = 0 if mine.rpc.add(1) == 2 and refused == 3 else 10 + refused
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.rpc.add(1) == 2
    items.close()
    client.close()
    print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_fork(run_program: Any, server_process: Any) -> None:
    finished = run_program(textwrap.dedent(FORKED), server_process().endpoint)
    assert finished.stderr == ""
    assert finished.stdout == "fine\n"
