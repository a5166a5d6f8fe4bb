"""The pytest plugin of berrymq_rpc: the fixture ``berrymq`` and the option ``--berrymq``.

pytest imports it in every run of an environment in which berrymq_rpc is installed. So it stands
beside the package, and imports nothing of it until a test asks for the fixture.
"""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from berrymq_rpc.testing import Kit
    from berrymq_rpc.testing.nats_server import NatsServer
    from berrymq_rpc.testing.network import Network

__all__ = ["berrymq", "berrymq_nats", "pytest_addoption", "pytest_runtest_teardown"]


#: The kits of the tests that run now.
_kits: "dict[pytest.Item, Kit]" = {}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the option to pytest."""
    # pytest rewrites the asserts of a plugin's whole distribution, for which it would compile all
    # of the package again: 0.2 s in each run that uses it, where no bytecode can be written.
    rewritten = getattr(pluginmanager.rewrite_hook, "_must_rewrite", None)
    if isinstance(rewritten, set):
        rewritten.discard("berrymq_rpc")
    parser.getgroup("berrymq").addoption(
        "--berrymq",
        choices=("mem", "tcp", "nats"),
        default="mem",
        help="over what servers and clients of the fixture berrymq meet (default: mem)",
    )


@pytest.fixture
def berrymq(request: pytest.FixtureRequest) -> "Iterator[Kit]":
    """Servers, clients and buses for one test, closed after it; see docs/howto/testing.rst."""
    from berrymq_rpc.testing.kit import Kit

    kit = Kit(_network(request))
    item: Any = request.node
    # Not all that pytest runs is a function, and hypothesis calls one many times.
    test = getattr(item, "obj", None)
    is_wrapped = inspect.isroutine(test) and not hasattr(test, "hypothesis")
    if is_wrapped:
        # The end of the test closes them, while its event loop still runs, whoever runs that.
        item.obj = _closing(kit, test)
    _kits[item] = kit
    try:
        yield kit
    finally:
        if is_wrapped:
            item.obj = test
        del _kits[item]
        _close(kit)


@pytest.fixture(scope="session")
def berrymq_nats() -> "Iterator[NatsServer]":
    """The NATS server of a run with ``--berrymq=nats``; a test is skipped if there is none."""
    from berrymq_rpc.runtime.extra import install_command
    from berrymq_rpc.testing.nats_server import NatsServer, find_nats_server

    pytest.importorskip("nats", reason=f"--berrymq=nats needs nats-py: {install_command('nats')}")
    if find_nats_server() is None:
        advice = install_command("nats-server")
        pytest.skip(f"--berrymq=nats needs a nats-server: {advice}")
    with NatsServer() as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Close what an async fixture has opened for a test that did not begin.

    The fixture itself would be late: anyio's plugin closes the event loop with the last async one.
    """
    kit = _kits.get(item)
    if kit is not None:
        _close(kit)


def _close(kit: "Kit") -> None:
    try:
        kit.close()
    except RuntimeError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=1)


def _network(request: pytest.FixtureRequest) -> "Network":
    from berrymq_rpc.testing.network import MemoryNetwork, NatsNetwork, TcpNetwork

    name = request.config.getoption("--berrymq")
    if name == "nats":
        return NatsNetwork(request.getfixturevalue("berrymq_nats").port)
    return TcpNetwork() if name == "tcp" else MemoryNetwork()


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Skip tests of faults that there are not, and show leaks without the kit's own frames."""
    from berrymq_rpc.testing.kit import LeakError
    from berrymq_rpc.testing.link import UnsupportedFault

    __tracebackhide__ = True
    try:
        yield
    except UnsupportedFault as error:
        raise pytest.skip.Exception(str(error), _use_item_location=True) from None
    except LeakError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _closing(kit: "Kit", test: Any) -> Any:
    """A test that closes the kit at its end, and fails for what it leaves behind."""
    if inspect.iscoroutinefunction(test):

        @functools.wraps(test)
        async def run_async(*args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            with _failing():
                async with kit:
                    await test(*args, **kwargs)

        return run_async

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        with _failing(), kit:
            test(*args, **kwargs)

    return run
