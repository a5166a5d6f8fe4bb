"""What holds for every test: bounds, and nothing left behind.

A test that is an ``async def`` runs on an event loop of its own, in asyncio's debug mode, and is
cancelled after 30 seconds, or after half of what ``@pytest.mark.timeout(seconds)`` grants it. It
fails when it leaves a task running, or when an exception reached the loop's exception handler (a
test that expects one sets a handler of its own). Unclosed sockets fail it as well: their
`ResourceWarning` is an error, and what is garbage is collected before the test is over. It may
carry ``@given`` of hypothesis, and gets a loop for each example then.
"""

import asyncio
import contextlib
import functools
import gc
import inspect
import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import hypothesis
import pytest

from berrymq_rpc.runtime.log import renew_all
from berrymq_rpc.testing.nats_server import NatsServer, find_nats_server

if TYPE_CHECKING:
    from .spans import Spans

FAULTS = Path(__file__).parent / "faults"

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

# What pytest-timeout is set to. It stops the test from outside: a bound of the test's own, well
# before that, shows where it stood.
DEFAULT_TIMEOUT = 60.0

#: Seconds in which what has to happen happens, on a machine that is busy with other things.
PATIENCE = 10.0

# A task that was cancelled, or that waits for nothing any more, needs a few turns of the loop.
TURNS_TO_FINISH = 10

# Times differ too much between machines for a deadline. On CI a failure must come back on the next
# run, not on some run.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--uvloop", action="store_true", help="run ``async def`` tests on uvloop")
    parser.addoption("--no-processes", action="store_true", help="skip tests that start a process")


#: The audit events of what starts a process.
PROCESS_EVENTS = frozenset(
    ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system")
)


def pytest_configure(config: pytest.Config) -> None:
    # A shell has its background jobs ignore Ctrl-C, and so would the programs of the tests.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--no-processes"):
        # A list of these tests would have to be kept up by hand.
        sys.addaudithook(skip_at_process)


def skip_at_process(event: str, arguments: tuple[Any, ...]) -> None:
    # pytest sets the variable while a test runs; between tests a plugin may start what it needs.
    if event in PROCESS_EVENTS and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip("starts a process")


@pytest.fixture(autouse=True)
def log_limits() -> None:
    """What other tests have logged leaves no record of this one out."""
    renew_all()


@pytest.fixture
def until() -> Callable[..., Any]:
    """``await until(condition)`` for what no event reports, such as a handler's state."""

    async def wait(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def spans() -> Iterator["Spans"]:
    """What is traced while a test runs; what it makes is."""
    from berrymq_rpc.opentelemetry import instrument, uninstrument

    from .spans import Spans

    recorded = Spans()
    instrument(recorded.provider)
    yield recorded
    uninstrument()
    recorded.provider.shutdown()


@pytest.fixture
def default_port() -> Iterator[int]:
    """The port that a node has by default, in use."""
    port = 5555
    end = time.monotonic() + PATIENCE
    with socket.socket() as held:
        # As ZeroMQ does: a port that was in use a moment ago is free.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                held.bind(("127.0.0.1", port))
                held.listen()
            except OSError:
                # Another test has it, and ends; or another program, and does not.
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            else:
                break
        yield port


@pytest.fixture(scope="session")
def ipv6() -> None:
    """Skip the test where this host has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A NATS server that tests share, with JetStream: each takes names of its own."""
    # Each stream reserves its bytes, whatever this disk has.
    with started_nats("jetstream { max_file_store: 1TB }", jetstream=True) as server:
        yield server


@pytest.fixture
def start_nats() -> Iterator[Callable[..., NatsServer]]:
    """``start_nats(config="", jetstream=False)``: a server of the test's own."""
    with contextlib.ExitStack() as servers:
        yield lambda *args, **kwargs: servers.enter_context(started_nats(*args, **kwargs))


def started_nats(*args: Any, **kwargs: Any) -> NatsServer:
    pytest.importorskip("nats", reason="NATS needs nats-py")
    if find_nats_server() is None:
        pytest.skip("there is no nats-server")
    return NatsServer(*args, **kwargs)


@pytest.fixture(scope="session")
def plain_aiozmq() -> ModuleType:
    """The module `aiozmq.rpc`; aiozmq 1.0 cannot be imported from Python 3.14 on."""
    module: ModuleType = pytest.importorskip(
        "aiozmq.rpc", reason="aiozmq.rpc cannot be imported", exc_type=ImportError
    )
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # They measure how long something takes, with processes of their own: one at a time, and
        # beside it one of those at NATS, as one group alone would be the last to end.
        if item.path.is_relative_to(FAULTS):
            names = {"nats_server", "start_nats"}.intersection(getattr(item, "fixturenames", ()))
            item.add_marker(pytest.mark.xdist_group("faults-nats" if names else "faults"))


@hypothesis.given(hypothesis.strategies.none())
@hypothesis.settings(max_examples=1, database=None)
def start_hypothesis(nothing: None) -> None:
    """Have hypothesis make its random number generator: its check cannot see frozen objects."""


def pytest_collection_finish() -> None:
    start_hypothesis()
    # What pytest has made is not looked through again after each test: that took 40 ms a test.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    marker = pyfuncitem.get_closest_marker("timeout")
    timeout = marker.args[0] if marker and marker.args else DEFAULT_TIMEOUT
    debug = pyfuncitem.get_closest_marker("nodebug") is None
    new_loop: LoopFactory | None = None
    if pyfuncitem.config.getoption("--uvloop"):
        new_loop = pytest.importorskip("uvloop").new_event_loop

    def synchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            run_bounded(test(*args, **kwargs), timeout / 2, debug, new_loop)

        return run

    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):
        names = inspect.signature(test).parameters
        synchronous(test)(**{name: pyfuncitem.funcargs[name] for name in names})
        return True
    if getattr(test, "is_hypothesis_test", False):
        given = test.hypothesis
        if inspect.iscoroutinefunction(given.inner_test):
            given.inner_test = synchronous(given.inner_test)
    return None


def run_bounded(
    coroutine: Coroutine[Any, Any, None],
    seconds: float,
    debug: bool,
    new_loop: LoopFactory | None = None,
) -> None:
    """Run `coroutine` on a new loop, for `seconds` at most; fail for what it leaves behind."""
    reports: list[dict[str, Any]] = []
    with asyncio.Runner(debug=debug, loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reports.append(context))
        # What asyncio logs of slow callbacks says how busy the machine is, and would be among the
        # log records that tests compare.
        runner.get_loop().slow_callback_duration = math.inf
        left_over = runner.run(_bounded(coroutine, seconds))
    # A task's exception that was never retrieved is reported when the task is collected.
    del coroutine
    gc.collect()
    complaints = [f"left running: {task}" for task in left_over]
    complaints += [_told(context) for context in reports]
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


async def _bounded(coroutine: Coroutine[Any, Any, None], seconds: float) -> list[str]:
    try:
        async with asyncio.timeout(seconds) as bound:
            await coroutine
    except TimeoutError as error:
        if bound.expired():
            error.add_note(f"The test was not done after {seconds:g} s; above is where it stood.")
        raise
    this = asyncio.current_task()
    for _ in range(TURNS_TO_FINISH):
        if asyncio.all_tasks() == {this}:
            return []
        await asyncio.sleep(0)
    return [repr(task) for task in asyncio.all_tasks() - {this}]


def _told(context: dict[str, Any]) -> str:
    lines = [f"reported to the event loop: {context['message']}"]
    lines += [f"  {key}: {context[key]!r}" for key in context if key != "message"]
    if isinstance(context.get("exception"), BaseException):
        lines += traceback.format_exception(context["exception"])
    return "\n".join(lines)
