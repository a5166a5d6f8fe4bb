"""Options: frozen values that are checked once and handed whole to every port."""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from berrymq_rpc import rpc
from berrymq_rpc.rpc import transport
from berrymq_rpc.rpc.options import CallOptions, ClientOptions, ServerOptions
from berrymq_rpc.rpc.transport import memory
from berrymq_rpc.rpc.transport.port import PortOptions
from berrymq_rpc.security import CurveClient, CurveServer, KeyPair

NOT_OPTIONS = {"handler"}


def names(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - NOT_OPTIONS


def fields(options: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(options)}


def test_each_argument_is_an_option() -> None:
    internal = {"avoided_services", "tracing", "untranslated"}
    assert names(rpc.start_server) == fields(ServerOptions) - {"connect_timeout"} - internal
    client = fields(ClientOptions) - {"call", "dialects", "send_traceback"} - internal
    of_calls = fields(CallOptions) - {"metadata"}
    assert names(rpc.open_client) == client | of_calls | {"dialect"}


def test_they_are_frozen() -> None:
    for options in (CallOptions(), ClientOptions(), ServerOptions()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            options.timeout = 1  # type: ignore[union-attr, misc]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dialects", ()),
        ("dialects", ("native", "latin")),
        ("connect_timeout", 0),
        ("slow_handler", -1),
        ("threads", 0),
        ("grace", -1),
        ("bind", ("tcp://*:0",)),
    ],
)
def test_values_that_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|a dialect is one of|would let"):
        ServerOptions(**{option: value})


def test_values_are_checked_again_when_replaced() -> None:
    with pytest.raises(ValueError, match="timeout must be above 0"):
        dataclasses.replace(CallOptions(1.0), timeout=-1)


class RecordingTransport:
    """The transport in memory, which keeps the options of each port."""

    def __init__(self) -> None:
        self.opened: list[PortOptions] = []

    async def listen(self, endpoint: str, handler: Any, options: PortOptions) -> Any:
        self.opened.append(options)
        return await memory.listen(endpoint, handler, options)

    async def dial(self, endpoint: str, handler: Any, options: PortOptions) -> Any:
        self.opened.append(options)
        return await memory.dial(endpoint, handler, options)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[PortOptions]:
    recording = RecordingTransport()
    module: Any = SimpleNamespace(listen=recording.listen, dial=recording.dial)
    monkeypatch.setitem(
        transport.TRANSPORTS, "mem", transport.Transport("mem://name", lambda: module)
    )
    return recording.opened


def test_security_needs_another_process() -> None:
    keys = KeyPair.generate()
    with pytest.raises(ValueError, match="mem:// is within this one"):
        ServerOptions(bind=("mem://options",), security=CurveServer(keys, ()))
    with pytest.raises(ValueError, match="mem:// is within this one"):
        ClientOptions(connect=("mem://options",), security=CurveClient(server=keys.public))


def test_one_endpoint_for_each_key() -> None:
    keys = [KeyPair.generate(), KeyPair.generate()]
    with pytest.raises(ValueError, match="2 keys for 1 endpoints: bind one for each key"):
        ServerOptions(bind=("tcp://127.0.0.1:*",), security=CurveServer(keys, ()))


def test_keys_are_enough_beyond_loopback() -> None:
    keys = KeyPair.generate()
    with pytest.raises(ValueError, match=r"no authentication\. Give security=, bind to"):
        ServerOptions(bind=("tcp://*:5555",))
    ServerOptions(bind=("tcp://*:5555",), security=CurveServer(keys, ()))


@pytest.mark.parametrize("dialect", ["native", "aiozmq", "jsonrpc"])
async def test_a_bound_client_says_whether_it_expects_one_server(
    dialect: str, ports: list[PortOptions]
) -> None:
    async with await rpc.open_client(bind="mem://single", dialect=dialect):
        pass
    assert [options.single for options in ports] == [dialect != "native"]
