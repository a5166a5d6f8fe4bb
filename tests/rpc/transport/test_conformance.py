"""Each transport passes the checks of `berrymq_rpc.testing.conformance`."""

import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from berrymq_rpc.rpc.transport import memory, zeromq
from berrymq_rpc.rpc.transport.mdns.browser import Browser
from berrymq_rpc.rpc.transport.mdns.dialler import MdnsPort
from berrymq_rpc.rpc.transport.mdns.service import Service
from berrymq_rpc.rpc.transport.port import Port, PortHandler, PortOptions
from berrymq_rpc.testing.conformance import CHECKS, Check, TransportUnderTest

_numbers = itertools.count()


def memory_transport(_: Path) -> TransportUnderTest:
    return TransportUnderTest(
        memory.listen, memory.dial, "mem://*", lambda: f"mem://conformance-{next(_numbers)}"
    )


def unused_tcp() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def tcp_transport(_: Path) -> TransportUnderTest:
    return TransportUnderTest(zeromq.listen, zeromq.dial, "tcp://127.0.0.1:*", unused_tcp)


def ipc_transport(folder: Path) -> TransportUnderTest:
    return TransportUnderTest(
        zeromq.listen, zeromq.dial, "ipc://*", lambda: f"ipc://{folder}/{next(_numbers)}"
    )


def nats_transport(request: pytest.FixtureRequest) -> TransportUnderTest:
    server = request.getfixturevalue("nats_server")
    from berrymq_rpc.rpc.transport import nats

    return TransportUnderTest(
        nats.listen,
        nats.dial,
        f"{server.url}/*",
        lambda: f"{server.url}/conformance-{os.getpid()}-{next(_numbers)}",
        is_shared=True,
    )


def announced_transport(_: Path) -> TransportUnderTest:
    """A client's port that finds one server, as if by multicast DNS."""

    async def dial(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
        class Found(Browser):
            def start(self) -> None:
                places = (endpoint,)
                self.services["0"] = Service("calc", "0", "server", places, False, "")
                self._on_change()

        class FoundPort(MdnsPort):
            # The endpoint of the port itself is the name.
            endpoints = (endpoint,)

        return FoundPort("mdns://calc", handler, options, Found)

    return TransportUnderTest(zeromq.listen, dial, "tcp://127.0.0.1:*", unused_tcp)


MAKERS: dict[str, Callable[[Path], TransportUnderTest]] = {
    "memory": memory_transport,
    "zeromq-tcp": tcp_transport,
    "zeromq-ipc": ipc_transport,
    "mdns": announced_transport,
}


#: It carries by the port of another one, which has been checked.
BY_ANOTHER = {"mdns"}


@pytest.fixture(
    params=[
        *sorted(MAKERS.keys() - BY_ANOTHER),
        *(pytest.param(name, marks=pytest.mark.slow) for name in BY_ANOTHER),
        "nats",
    ]
)
def transport(request: pytest.FixtureRequest) -> Iterator[TransportUnderTest]:
    if request.param == "nats":
        yield nats_transport(request)
        return
    if request.param == "mdns":
        pytest.importorskip("zeroconf", reason="discovery needs zeroconf")
    # Not tmp_path: the path of a Unix socket may have some 100 characters.
    with tempfile.TemporaryDirectory() as folder:
        yield MAKERS[request.param](Path(folder))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
async def test_conformance(check: Check, transport: TransportUnderTest) -> None:
    await check(transport)
