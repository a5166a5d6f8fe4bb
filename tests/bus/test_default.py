"""The functions of the module: they act on the default bus, and are the package's own names."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import berrymq_rpc as berrymq
from berrymq_rpc import bus as bus_package
from berrymq_rpc.bus import Bus, Message, default_bus

ROOT = Path(__file__).resolve().parents[2]


def test_functions_act_on_the_default_bus() -> None:
    heard: list[Any] = []

    def receive(message: Message) -> None:
        heard.append(message.args)

    class Listener(metaclass=berrymq.Follower):
        @berrymq.following("test-default:method", guard=lambda message: bool(message.args))
        def receive(self, message: Message) -> None:
            heard.append("method")

    listener = Listener()
    berrymq.following_function("test-default:function")(receive)
    berrymq.regist_function("test-default:registered", receive)
    berrymq.regist_method("test-default:registered", listener.receive)
    try:
        assert berrymq.twitter("test-default:function", 1) == 1
        assert berrymq.twitter("test-default:registered", 2) == 2
        assert default_bus.twitter("test-default:method", 3) == 1
        assert berrymq.twitter("test-default:*", 4) == 4
        order = ["method", (4,), (4,), "method"]
        assert heard == [(1,), (2,), "method", "method", *order]
    finally:
        assert berrymq.unfollow("test-default:function", receive) == 1
        assert berrymq.unfollow("test-default:registered", receive) == 1
    assert berrymq.twitter("test-default:function") == 0


def test_the_other_functions_do_too() -> None:
    heard: list[Any] = []

    @berrymq.auto_twitter("test-default:x", exit=True)
    @berrymq.twitter_exception("test-default:failed")
    def work() -> None:
        raise ValueError

    def receive(message: Message) -> int:
        heard.append(message.id)
        return 5

    berrymq.regist_function("test-default", receive)
    try:
        work()
        assert berrymq.talk("test-default:ask", "test-default:answer") == 1
        assert asyncio.run(berrymq.publish("test-default:published")) == 1
        actions = ["failed", "exit", "ask", "answer", "published"]
        assert heard == [f"test-default:{action}" for action in actions]
        assert "test-default:*" in berrymq.show_followers()
        assert "test-default:failed" in berrymq.show_network()
        berrymq.set_multiplicity(2)
        assert default_bus.multiplicity == 2
    finally:
        berrymq.set_multiplicity(0)
        assert berrymq.unfollow("test-default", receive) == 1


def test_one_set_of_names() -> None:
    assert isinstance(default_bus, Bus)
    for name in bus_package.__all__:
        assert getattr(berrymq, name) is getattr(bus_package, name)


PROGRAM = """
import sys
before = set(sys.modules)
import berrymq_rpc
loaded = set(sys.modules) - before
heavy = {"asyncio", "zmq", "aiozmq", "msgpack", "logging", "inspect", "socket", "ssl"}
print(sorted(loaded & heavy), any(name.startswith("berrymq_rpc.rpc") for name in loaded))
"""


def test_import_is_light() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert finished.stdout.strip() == "[] False"


@pytest.mark.parametrize("name", berrymq.__all__)
def test_public_names_are_documented(name: str) -> None:
    assert (getattr(berrymq, name).__doc__ or "").strip()
