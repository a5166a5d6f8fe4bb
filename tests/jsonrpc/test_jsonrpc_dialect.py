"""The dialect of JSON-RPC: the session alone, and at the port of a server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st
from specification import EXAMPLES, same, subtract

from berrymq_rpc import rpc
from berrymq_rpc.errors import ProtocolError, TooLargeError
from berrymq_rpc.jsonrpc import RPCError
from berrymq_rpc.jsonrpc.dialect import JSONRPCDialect, JSONRPCSession
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.record import CALL, NOTIFY

DIALECT = JSONRPCDialect({})


class Recorder:
    """A call of this side that records its outcome."""

    made_at = 0.0
    accepted_at: float | None = None

    def __init__(self, deadline: float | None = None) -> None:
        self.id = 0
        self.method = "method"
        self.deadline = deadline
        self.sent: float | None = None
        self.outcomes: list[Any] = []

    def succeed(self, value: Any, /) -> None:
        self.outcomes.append(value)

    def fail(self, error: BaseException, /) -> None:
        self.outcomes.append(error)

    @property
    def error(self) -> Any:
        (error,) = self.outcomes
        assert isinstance(error, Exception)
        return error


def connected(**limits: Any) -> JSONRPCSession:
    session = DIALECT.session(Limits(**limits))
    session.connected(0.0)
    return session


def text(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def sent(session: JSONRPCSession) -> list[Any]:
    """The payloads of what is to be sent, each after an empty frame."""
    payloads = []
    for frames in session.messages(0.0):
        empty, data = frames
        assert empty == b""
        payloads.append(json.loads(bytes(data)))
    return payloads


# -- how it differs from other dialects ------------------------------------------------------


@pytest.mark.parametrize("frames", [[b"{"], [b"[1]"], [b"", b"{}"], [memoryview(b"{}")]])
def test_recognises(frames: Any) -> None:
    assert DIALECT.recognises(frames)


@pytest.mark.parametrize(
    "frames",
    [[], [b""], [b"", b""], [b" {}"], [b"1"], [b"x", b"{}"], [b"", b"", b"{}"], [b"{}", b""]],
)
def test_does_not_recognise(frames: Any) -> None:
    assert not DIALECT.recognises(frames)


# -- calls of this side ----------------------------------------------------------------------


def test_a_call() -> None:
    session = connected()
    calls = [Recorder(), Recorder(), Recorder()]
    session.call(calls[0], "a", (1, [2]), {}, 0.0)
    session.call(calls[1], "ns.b", (), {"x": {3}}, 0.0)
    session.call(calls[2], "c", (), {}, 0.0)
    session.notify("d", (1,), {}, 0.0)
    assert session.pending_records == 4
    assert sent(session) == [
        {"jsonrpc": "2.0", "method": "a", "params": [1, [2]], "id": 1},
        {"jsonrpc": "2.0", "method": "ns.b", "params": {"x": [3]}, "id": 2},
        {"jsonrpc": "2.0", "method": "c", "params": [], "id": 3},
        {"jsonrpc": "2.0", "method": "d", "params": [1]},
    ]
    session.receive([text({"jsonrpc": "2.0", "result": [1], "id": 2})], 1.0)
    session.receive([b"", text({"result": None, "error": None, "id": 1})], 1.0)
    error = {"code": -32000, "message": "no", "data": {"type": "builtins.KeyError", "args": ["k"]}}
    session.receive([text({"jsonrpc": "2.0", "result": None, "error": error, "id": 3})], 1.0)
    assert calls[1].outcomes == [[1]]
    assert calls[0].outcomes == [None]
    assert type(calls[2].error) is KeyError
    assert session.idle
    assert session.in_window == 0
    assert session.last_heard == 1.0


def test_answers_in_a_batch() -> None:
    session = connected()
    calls = [Recorder(), Recorder()]
    for call in calls:
        session.call(call, "a", (), {}, 0.0)
    session.receive([text([{"jsonrpc": "2.0", "result": n, "id": n} for n in (2, 1)])], 0.0)
    assert [call.outcomes for call in calls] == [[1], [2]]


@pytest.mark.parametrize("wrong", [2, "1", 1.0, True, None])
def test_answers_to_nothing(wrong: Any) -> None:
    session = connected()
    calls = [Recorder(), Recorder()]
    session.call(calls[0], "a", (), {}, 0.0)
    session.receive([text({"jsonrpc": "2.0", "result": 5, "id": wrong})], 0.0)
    assert calls[0].outcomes == []
    session.receive([text({"jsonrpc": "2.0", "result": 5, "id": 1})], 0.0)
    assert calls[0].outcomes == [5]


def test_an_error_without_id_is_for_the_only_call() -> None:
    session = connected()
    calls = [Recorder(), Recorder()]
    answer = text({"jsonrpc": "2.0", "error": {"code": -32700, "message": "no"}, "id": None})
    for call in calls:
        session.call(call, "a", (), {}, 0.0)
    session.receive([answer], 0.0)
    # It may be either.
    assert [call.outcomes for call in calls] == [[], []]
    assert session.malformed == 1
    session.receive([text({"jsonrpc": "2.0", "result": 5, "id": 1})], 0.0)
    session.receive([answer], 0.0)
    assert calls[1].error.code == -32700


def test_an_malformed_answer() -> None:
    session = connected()
    call = Recorder()
    session.call(call, "a", (), {}, 0.0)
    session.receive([text({"jsonrpc": "2.0", "result": 1, "error": 1, "id": 1})], 0.0)
    assert type(call.error) is ProtocolError
    assert session.malformed == 1
    assert sent(session) == [{"jsonrpc": "2.0", "method": "a", "params": [], "id": 1}]


def test_arguments_that_cannot_travel() -> None:
    session = connected(max_message=1000)
    with pytest.raises(TypeError, match="by position or by name"):
        session.call(Recorder(), "a", (1,), {"b": 2}, 0.0)
    with pytest.raises(TypeError):
        session.call(Recorder(), "a", (object(),), {}, 0.0)
    with pytest.raises(TooLargeError):
        session.notify("a", ("x" * 5000,), {}, 0.0)
    assert session.idle


def test_the_window() -> None:
    session = connected(window=2)
    calls = [Recorder(deadline=5.0) for _ in range(5)]
    for call in calls:
        session.call(call, "a", (), {}, 0.0)
    assert [payload["id"] for payload in sent(session)] == [1, 2]
    session.receive([text({"jsonrpc": "2.0", "result": 0, "id": 1})], 0.0)
    assert [payload["id"] for payload in sent(session)] == [3]
    # One that is given up makes room at once: the peer may never answer.
    session.cancel(2)
    assert session.pending_records
    assert [payload["id"] for payload in sent(session)] == [4]
    session.receive([text({"jsonrpc": "2.0", "result": "late", "id": 2})], 0.0)
    assert calls[1].outcomes == []
    session.expire(6.0)
    assert all(isinstance(call.error, TimeoutError) for call in calls[2:])
    assert session.in_window == 0


def test_a_peer_of_version_1_is_called_in_version_1() -> None:
    session = connected()
    session.receive([b"", text({"method": "a", "params": [], "id": None})], 0.0)
    session.call(Recorder(), "a", (1,), {}, 0.0)
    session.call(Recorder(), "b", (), {"x": 1}, 0.0)
    session.notify("c", (2,), {}, 0.0)
    assert sent(session) == [
        {"method": "a", "params": [1], "id": 1},
        {"method": "b", "params": [{"x": 1}], "id": 2},
        {"method": "c", "params": [2], "id": None},
    ]
    session.receive([b"", text({"jsonrpc": "2.0", "method": "a"})], 0.0)
    session.notify("c", (), {"x": 2}, 0.0)
    assert sent(session) == [{"jsonrpc": "2.0", "method": "c", "params": {"x": 2}}]


def test_a_server_is_called_in_version_2_whatever_it_sends() -> None:
    session = connected()
    session.call(Recorder(), "a", (), {"x": 1}, 0.0)
    session.receive([b"", text({"method": "note", "params": [], "id": None})], 0.0)
    session.notify("a", (), {"x": 1}, 0.0)
    assert all(payload["jsonrpc"] == "2.0" for payload in sent(session))


def test_lost_notifications_are_counted() -> None:
    session = connected()
    session.notify("a", (), {}, 0.0)
    session.call(Recorder(), "a", (), {}, 0.0)
    session.lost(ConnectionError("gone"), 0.0)
    assert session.notifications_lost == 1


# -- calls of the peer's ---------------------------------------------------------------------


def test_calls_of_the_peer() -> None:
    session = connected()
    payload = [
        {"jsonrpc": "2.0", "method": "a", "params": [1], "id": "x"},
        {"jsonrpc": "2.0", "method": "b", "params": {"c": 1}},
        {"jsonrpc": "2.0", "method": "a", "id": "x"},
    ]
    first, note, last = session.receive([b"", text(payload)], 0.0)
    assert note == (NOTIFY, None, "b", (), {"c": 1}, None, None)
    assert (first[0], first[2:]) == (CALL, ("a", (1,), {}, None, None))
    # The peer may use an id twice.
    assert first[1] != last[1]
    session.result(last[1], {2})
    assert not session.pending_records
    session.error(first[1], Failure("builtins.KeyError", ("k",), "KeyError('k')"))
    assert session.pending_records
    assert session.large_bytes
    ((one, other),) = sent(session)
    assert one == {"jsonrpc": "2.0", "result": [2], "id": "x"}
    assert other["error"]["data"]["type"] == "builtins.KeyError"
    assert session.large_bytes == 0


def test_the_answer_goes_the_way_of_the_question() -> None:
    session = connected()
    call = {"method": "a", "params": [], "id": 1}
    for frames in ([text(call)], [b"", text(call)]):
        ((_, call_id, *_),) = session.receive(frames, 0.0)
        session.result(call_id, 5)
        ((*route, answer),) = session.messages(0.0)
        assert route == frames[:-1]
        assert json.loads(bytes(answer)) == {"result": 5, "error": None, "id": 1}


def test_a_result_that_cannot_travel() -> None:
    session = connected(max_message=1000)
    call = text({"jsonrpc": "2.0", "method": "a", "id": 1})
    for value, error in (
        (object(), TypeError),
        ("\ud800", ValueError),
        ("x" * 5000, TooLargeError),
    ):
        ((_, call_id, *_),) = session.receive([call], 0.0)
        with pytest.raises(error):
            session.result(call_id, value)
        session.closed(call_id, "closing", began=False)
        ((answer,),) = session.messages(0.0)
        assert json.loads(bytes(answer))["error"]["data"]["args"] == ["closing"]
    with pytest.raises(TypeError, match="does not support streams"):
        session.item(call_id, 1)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"5", b"[" * 1000])
def test_what_is_no_request_is_answered(data: bytes) -> None:
    session = connected()
    assert session.receive([b"", data], 0.0) == []
    (answer,) = sent(session)
    assert answer["error"]["code"] in (-32700, -32600)
    assert session.malformed == 1


@pytest.mark.parametrize("frames", [[], [b"x", b"{}"], [b"", b"", b"{}"]])
def test_what_is_no_message(frames: Any) -> None:
    session = connected()
    with pytest.raises(ProtocolError):
        session.receive(frames, 0.0)
    assert session.malformed == 1


@given(st.lists(st.binary(), max_size=4))
def test_nothing_else_raises(frames: list[bytes]) -> None:
    session = connected()
    try:
        session.receive(frames, 0.0)
    except ProtocolError:
        assert len(frames) != 1
    for message in session.messages(0.0):
        json.loads(bytes(message[-1]))


# -- at the port of a server -----------------------------------------------------------------


class Handler(rpc.AttrHandler):
    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.noted = asyncio.Event()
        self.ns = Inner()

    subtract = rpc.method(staticmethod(subtract))

    @rpc.method
    async def sum(self, *args):
        await asyncio.sleep(0)
        return sum(args)

    @rpc.method
    def get_data(self):
        return ["hello", 5]

    @rpc.method
    def update(self, *args):
        self.notes.append(args)
        self.noted.set()

    @rpc.method
    def notify_hello(self, *args):
        self.notes.append(args)

    @rpc.method
    async def notify_sum(self, *args):
        self.notes.append(args)

    @rpc.method
    def fail(self, *args):
        raise ValueError(*args)

    @rpc.method
    def own(self):
        raise RPCError(42, "no", data={"a": 1})

    @rpc.method
    def value(self):
        return object()

    @rpc.method
    async def ticks(self):
        yield 1


class Inner(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b=1):
        return a + b


@asynccontextmanager
async def peer(
    kind: int = zmq.REQ, handler: Any = None, **settings: Any
) -> AsyncIterator[tuple[rpc.Server, zmq.asyncio.Socket]]:
    context = zmq.asyncio.Context()
    try:
        async with await rpc.start_server(
            handler or Handler(), bind="tcp://127.0.0.1:*", grace=0.1, **settings
        ) as server:
            socket = context.socket(kind)
            socket.connect(server.endpoints[0])
            yield server, socket
    finally:
        context.destroy(0)


async def ask(socket: zmq.asyncio.Socket, payload: Any) -> Any:
    data = payload if isinstance(payload, bytes) else text(payload)
    await socket.send(data)
    async with asyncio.timeout(5):
        return json.loads(await socket.recv())


async def test_examples_of_the_specification_at_the_port() -> None:
    handler = Handler()
    async with peer(zmq.DEALER, handler) as (_, socket):
        for sent_text, expected in EXAMPLES.values():
            await socket.send(sent_text.encode())
            # What needs no answer gets none: the next one would be it.
            if expected is not None:
                async with asyncio.timeout(5):
                    assert same(json.loads(await socket.recv()), expected)
        last = {"jsonrpc": "2.0", "method": "ns.add", "params": [1], "id": "last"}
        assert (await ask(socket, last))["id"] == "last"
    assert sorted(handler.notes) == [(1, 2, 3, 4, 5), (1, 2, 4), (7,), (7,)]


async def test_version_1_at_the_port() -> None:
    async with peer() as (_, socket):
        call = {"method": "ns.add", "params": [1, 2], "id": 1}
        assert await ask(socket, call) == {"result": 3, "error": None, "id": 1}


async def test_errors_at_the_port() -> None:
    async with peer() as (_, socket):

        async def error(method: str, params: Any = ()) -> Any:
            call = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
            return (await ask(socket, call))["error"]

        assert (await error("subtract", [1]))["code"] == -32602
        assert (await error("subtract", {"a": 1}))["code"] == -32602
        assert (await error("__init__"))["code"] == -32601
        told = await error("fail", ["x", 1])
        assert told["code"] == -32000
        assert told["data"] == {
            "type": "builtins.ValueError",
            "args": ["x", 1],
            "repr": "ValueError('x', 1)",
        }
        assert await error("own") == {"code": 42, "message": "no", "data": {"a": 1}}
        unwritable = await error("value")
        assert (unwritable["code"], unwritable["data"]["type"]) == (-32603, "builtins.TypeError")
        assert (await error("ticks"))["code"] == -32000
        # The connection works on.
        assert await ask(socket, b"\xff\xfe")
        assert (await ask(socket, [1]))[0]["error"]["code"] == -32600


async def test_traceback_when_the_server_says_so() -> None:
    async with peer(send_traceback=True) as (_, socket):
        call = {"jsonrpc": "2.0", "method": "fail", "id": 1}
        told = (await ask(socket, call))["error"]["data"]
        assert "raise ValueError" in told["traceback"]


async def test_bounds_at_the_port() -> None:
    async with peer(limits=rpc.Limits(max_message=1000, max_depth=5)) as (_, socket):
        call = {"jsonrpc": "2.0", "method": "fail", "params": ["x" * 5000], "id": 1}
        assert (await ask(socket, call))["error"]["code"] == -32700
        assert (await ask(socket, b"[" * 6 + b"]" * 6))["error"]["code"] == -32700
        batch = [{"jsonrpc": "2.0"}] * 1001
        assert (await ask(socket, text(batch)[:3000]))["error"]["code"] == -32700


async def test_a_batch_that_is_too_long() -> None:
    async with peer() as (_, socket):
        batch = [{"jsonrpc": "2.0", "method": "sum", "id": 1}] * 1001
        assert (await ask(socket, batch))["error"]["code"] == -32600
        assert len(await ask(socket, batch[:1000])) == 1000


async def test_a_server_that_does_not_speak_it() -> None:
    async with peer(zmq.DEALER, dialects=("native",)) as (server, socket):
        await socket.send(b'{"jsonrpc":"2.0","method":"sum","id":1}')
        async with asyncio.timeout(5):
            while not server.statistics()["malformed_messages"]:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:*", "mem://*"])
async def test_our_client(bind: str) -> None:
    handler = Handler()
    async with (
        await rpc.start_server(handler, bind=bind, grace=0.1) as server,
        await rpc.open_client(connect=server.endpoints, dialect="jsonrpc", timeout=5) as client,
    ):
        assert await client.rpc.subtract(5, 3) == 2
        assert await client.rpc.subtract(minuend=5, subtrahend=3) == 2
        assert await asyncio.gather(*(client.rpc.sum(n, 1) for n in range(1000))) == [
            n + 1 for n in range(1000)
        ]
        client.notify.update(1)
        await handler.noted.wait()
        with pytest.raises(ValueError, match="x") as caught:
            await client.rpc.fail("x", 1)
        assert caught.value.args == ("x", 1)
        with pytest.raises(rpc.NotFoundError):
            await client.rpc.nothing()
        with pytest.raises(rpc.ParametersError):
            await client.rpc.subtract(1)
        with pytest.raises(RPCError) as own:
            await client.rpc.own()
        assert (own.value.code, own.value.data) == (42, {"a": 1})
        with pytest.raises(TypeError, match="by position or by name"):
            await client.rpc.subtract(5, subtrahend=3)
        assert len((await client.describe())["methods"]) > 5


async def test_our_client_at_a_rep_socket_and_a_router() -> None:
    context = zmq.asyncio.Context()
    try:
        for kind in (zmq.REP, zmq.ROUTER):
            socket = context.socket(kind)
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            async with await rpc.open_client(
                connect=f"tcp://127.0.0.1:{port}", dialect="jsonrpc", timeout=5
            ) as client:
                call = client.rpc.echo(7)
                async with asyncio.timeout(5):
                    frames = await socket.recv_multipart()
                request = json.loads(frames[-1])
                assert request["params"] == [7]
                # As jsonrpc2-zeromq answers, at a ROUTER without the empty frame.
                answer = text({"jsonrpc": "2.0", "result": 7, "id": request["id"]})
                await socket.send_multipart([*frames[:-1][:1], answer])
                assert await call == 7
            socket.close(0)
    finally:
        context.destroy(0)


async def test_three_dialects_at_one_port() -> None:
    async with (
        peer() as (server, socket),
        await rpc.open_client(connect=server.endpoints) as native,
        await rpc.open_client(connect=server.endpoints, dialect="jsonrpc") as ours,
        await rpc.open_client(connect=server.endpoints, dialect="aiozmq") as aiozmq,
    ):
        for client in (native, ours, aiozmq):
            assert await client.rpc.ns.add(1, 2) == 3
        call = {"jsonrpc": "2.0", "method": "ns.add", "params": [1, 2], "id": 1}
        assert (await ask(socket, call))["result"] == 3
        assert server.statistics()["peers"] == 4


def test_a_message_is_read_whole() -> None:
    assert connected().receive_rest(0.0) == []
