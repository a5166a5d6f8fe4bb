"""Names that are not exported, and bytes that would be code: nothing is reached by them."""

import asyncio
import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from berrymq_rpc import rpc

#: Each fault is tried with keys as well.
pytestmark = pytest.mark.keys

#: Every attribute that objects of Python have, and what hides behind it in the server's process.
ATTRIBUTES = sorted(
    {
        name
        for thing in (object(), dict, print, asyncio.sleep, (lambda: 0), type, rpc.AttrHandler())
        for name in dir(thing)
    }
)

NAMES = [
    *ATTRIBUTES,
    *(f"add.{name}" for name in ATTRIBUTES),
    *(f"__class__.{name}" for name in ATTRIBUTES),
    "__dict__.server.close",
    "__class__.__init__.__globals__",
    "__slots__.x",
    "add.__func__.__globals__.os.system",
    "server",
    "server.close",
    "ran",
    "watch",
    "watching",
    "_private",
    "_exported_and_private",
    "unmarked",
    "os.system",
    "builtins.eval",
    "eval",
    "",
    ".",
    "..",
    "add.",
    ".add",
    "add..add",
    "rpc",
    "rpc.",
    "rpc._describe",
    "rpc.describe.__self__",
    "ADD",
    "add ",
    "add\0",
    "\N{FULLWIDTH LATIN SMALL LETTER A}dd",
    "x" * 100_000,
    "." * 100_000,
]


@pytest.mark.nodebug
@pytest.mark.keys(quick=True)
async def test_what_is_not_exported(server_process: Any, raw: Any) -> None:
    """Not found, in either dialect; never silence, and nothing else is revealed."""
    server = server_process()
    names = [name for name in NAMES if name not in ("rpc.describe",)]

    def ask() -> tuple[Any, Any]:
        with raw.dealer(server.endpoint) as enemy:
            for number, name in enumerate(names):
                enemy.send(raw.native_message(raw.record(raw.CALL, number, name, [])))
            native = enemy.native_answers(len(names))
        with raw.dealer(server.endpoint) as enemy:
            for number, name in enumerate(names):
                enemy.send(raw.plain_call(number, name))
            plain = enemy.plain_answers(len(names))
        return native, plain

    native, plain = await asyncio.to_thread(ask)
    assert {fields[1] for fields in native} == set(range(len(names)))
    for kind, number, type_name, *_, text in native:
        assert (kind, type_name) == (raw.ERROR, "berrymq_rpc.errors.NotFoundError"), names[number]
        assert len(text) < 1000
    assert {call_id for call_id, _, _ in plain} == set(range(len(names)))
    for call_id, is_error, (type_name, *_) in plain:
        assert (is_error, type_name) == (True, "aiozmq.rpc.base.NotFoundError"), names[call_id]
    assert server.lines == []
    async with await rpc.open_client(connect=server.endpoint) as client:
        assert await client.rpc.add(1) == 2


async def test_names_that_are_no_text(server_process: Any, raw: Any) -> None:
    server = server_process()
    things = [None, 0, 1.5, b"add", [], ["add"], {}, {"add": 1}, True, "\ud800"]

    def ask() -> Any:
        with raw.dealer(server.endpoint) as enemy:
            for number, name in enumerate(things):
                enemy.send(raw.native_message(raw.record(raw.CALL, number, name, [])))
            native = enemy.native_answers(len(things))
        with raw.dealer(server.endpoint) as enemy:
            for number, name in enumerate([b"\xff", b"\xed\xa0\x80", b"\x93add"]):
                enemy.send(raw.plain_call(number, name))
            enemy.plain_answers(3)
        return native

    native = await asyncio.to_thread(ask)
    assert {fields[0] for fields in native} == {raw.ERROR}
    assert {fields[1] for fields in native} == set(range(len(things)))


# -- code in bytes -----------------------------------------------------------------------------


def pickles(folder: Path) -> list[bytes]:
    """They make a folder in `folder` when they are unpickled."""

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "made"),)

    return [pickle.dumps(Evil(), protocol) for protocol in (0, 2, 5)]


def exts(folder: Path) -> list[bytes]:
    """In each code that msgpack has."""
    return [
        # msgpack's own packer refuses some.
        b"\xc8" + len(payload).to_bytes(2) + code.to_bytes(1, signed=True) + payload
        for code in range(-128, 128)
        for payload in pickles(folder)
    ]


@pytest.mark.nodebug
async def test_no_code_runs_at_a_server(server_process: Any, raw: Any, tmp_path: Path) -> None:
    server = server_process()
    values = exts(tmp_path)

    def ask() -> None:
        with raw.dealer(server.endpoint) as enemy:
            for number, value in enumerate(values):
                for method in ("take", "nope"):
                    call = msgpack.packb((raw.CALL, number, method, []))[:-1] + b"\x91" + value
                    enemy.send(raw.native_message(call))
            enemy.native_answers(2 * len(values))
        with raw.dealer(server.endpoint) as enemy:
            for number, value in enumerate(values):
                for method in (b"take", b"nope"):
                    header = raw.REQUEST.pack(1, 2, number, 0.0)
                    enemy.send([header, method, b"\x91" + value, b"\x80"])
                    enemy.send([header, method, b"\x90", b"\x81\xa1k" + value])
            enemy.plain_answers(4 * len(values))

    await asyncio.to_thread(ask)
    assert not (tmp_path / "made").exists()
    async with await rpc.open_client(connect=server.endpoint) as client:
        assert await client.rpc.add(1) == 2


@pytest.mark.nodebug
@pytest.mark.parametrize("dialect", ["native", "aiozmq"])
async def test_no_code_runs_at_a_client(raw: Any, tmp_path: Path, dialect: str) -> None:
    """As a result, and among the arguments of an exception."""
    values = exts(tmp_path)
    answers = [value for pair in zip(values, values, strict=True) for value in pair]

    with zmq.Context() as context, context.socket(zmq.ROUTER) as enemy:
        enemy.linger = 0
        enemy.rcvtimeo = 5000
        port = raw.bind(enemy)

        def native(call_id: int, value: bytes, is_error: bool) -> list[bytes]:
            if is_error:
                start = msgpack.packb((raw.ERROR, call_id, "builtins.OSError"))[1:]
                return raw.native_message(b"\x95" + start + b"\x91" + value + b"\xa4text")  # type: ignore[no-any-return]
            return raw.native_message(msgpack.packb((raw.RESULT, call_id, 0))[:-1] + value)  # type: ignore[no-any-return]

        def plain(call_id: int, value: bytes, is_error: bool) -> list[bytes]:
            if is_error:
                value = b"\x93\xa7OSError\x91" + value + b"\xa4text"
            return [raw.RESPONSE.pack(1, 2, call_id, 0.0, is_error), value]

        def serve() -> None:
            left = list(answers)
            while left:
                key, *frames = enemy.recv_multipart()
                if dialect == "aiozmq":
                    calls = [raw.REQUEST.unpack(frames[0])[2]]
                else:
                    records = msgpack.unpackb(frames[0][12:], strict_map_key=False)
                    calls = [fields[1] for fields in records if fields[0] == raw.CALL]
                for call_id in calls:
                    value = left.pop()
                    answer = native if dialect == "native" else plain
                    enemy.send_multipart([key, *answer(call_id, value, bool(len(left) % 2))])

        serving = asyncio.create_task(asyncio.to_thread(serve))
        async with await rpc.open_client(
            connect=f"tcp://127.0.0.1:{port}", dialect=dialect
        ) as client:
            async with asyncio.timeout(20):
                for _ in answers:
                    with contextlib.suppress(rpc.Error, OSError, ValueError, TypeError):
                        await client.rpc.anything()
        await serving
    assert not (tmp_path / "made").exists()
