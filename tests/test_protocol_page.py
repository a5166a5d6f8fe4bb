"""``docs/reference/protocol.rst``: check all examples of bytes against the code, both ways.

An example is a block of text: a title of one or more lines, a blank line, and lines of bytes in
hexadecimal with what they mean at their right. ``[...]`` on a line of its own begins a frame.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest

from berrymq_rpc import errors
from berrymq_rpc.bus import Bus, Message
from berrymq_rpc.exchange import ExportedFunctions
from berrymq_rpc.exchange.batch import (
    MAX_COUNT,
    MAX_NAME_LENGTH,
    Batch,
    parse_batch,
)
from berrymq_rpc.exchange.link import MAX_IN_FLIGHT
from berrymq_rpc.exchange.reorder import FIRST_PATIENCE, PATIENCE
from berrymq_rpc.exchange.router import Router
from berrymq_rpc.exchange.send_buffer import SendBuffer
from berrymq_rpc.rpc.method_table import collect_methods
from berrymq_rpc.rpc.wire import clock, record
from berrymq_rpc.rpc.wire import native_session as native
from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.aiozmq_dialect import AiozmqDialect
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.exception_codec import Failure, describe
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_records import MAX_BATCH, MIN_DETACHED
from berrymq_rpc.rpc.wire.native_session import NativeDialect
from berrymq_rpc.rpc.wire.record import CALL, NO_KWARGS
from berrymq_rpc.rpc.wire.session import Session

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "protocol.rst"
TEXT = PAGE.read_text(encoding="utf-8")
#: The same, without regard to where its lines end.
PROSE = " ".join(TEXT.split())

KINDS = {name: number for name, number in vars(record).items() if type(number) is int}
NAMES = {number: name for name, number in KINDS.items()}

CODEC = Codec()
NATIVE = NativeDialect(CODEC, {})
AIOZMQ = AiozmqDialect(AiozmqCodec(), {}, (4660, 22136))


# -- the page --------------------------------------------------------------------------------


class Example(NamedTuple):
    """One block of the page: the first word of its title, the rest of it, and its frames."""

    kind: str
    title: str
    frames: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        (frame,) = self.frames
        return frame

    @property
    def value(self) -> Any:
        return json.loads(self.title)


BYTES = re.compile(r"((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:   .*)?")


def read_page() -> Iterator[Example]:
    for block in re.findall(r"\.\. code-block:: text\n\n((?:   .*\n|\n)+)", TEXT):
        title, _, body = re.sub("^   ", "", block, flags=re.MULTILINE).partition("\n\n")
        frames: list[bytes] = []
        times: list[int] = []
        for line in body.splitlines():
            if not line:
                continue
            if line.startswith("["):
                repeated = re.search(r"([\d,]+) times", line)
                times.append(int(repeated[1].replace(",", "")) if repeated else 1)
                frames.append(b"")
                continue
            if not frames:
                frames, times = [b""], [1]
            match = BYTES.fullmatch(line)
            assert match, f"neither bytes nor a frame: {line!r}"
            frames[-1] += bytes.fromhex(match[1])
        kind, _, rest = " ".join(title.split()).partition(" ")
        repeated_frames = (frame * n for frame, n in zip(frames, times, strict=True))
        yield Example(kind, rest, tuple(repeated_frames))


EXAMPLES = list(read_page())
RECORDS = [example for example in EXAMPLES if example.kind in KINDS]
MESSAGES = [example for example in EXAMPLES if example.kind == "MESSAGE"]
VALUES = {example.title: example for example in EXAMPLES if example.kind == "VALUE"}
FRAMES = {example.title: example for example in EXAMPLES if example.kind == "FRAMES"}
BATCHES = [example for example in EXAMPLES if example.kind == "BATCH"]


def table(title: str) -> list[str]:
    """The first column of the table whose first column has that title."""
    match = re.search(
        rf"^=+ .*\n{re.escape(title)} +.*\n=+ .*\n((?:.+\n)+?)=+ ", TEXT, re.MULTILINE
    )
    assert match, title
    return re.findall(r"^(\S.*?)(?:  |$)", match[1], re.MULTILINE)


# -- helpers ---------------------------------------------------------------------------------


class Caller:
    """A call that records its events."""

    made_at = 0.0
    accepted_at: float | None = None

    def __init__(self, method: str = "method", deadline: float | None = None) -> None:
        self.id = 0
        self.method = method
        self.deadline = deadline
        self.sent: float | None = None
        self.events: list[tuple[Any, ...]] = []

    def succeed(self, value: Any, /) -> None:
        self.events.append(("RESULT", value))

    def fail(self, error: BaseException, /) -> None:
        self.events.append(("ERROR", error))

    def refused(self, error: BaseException, /) -> None:
        self.events.append(("REFUSED", error))

    def accepted(self, now: float, released: bool, /) -> None:
        self.events.append(("ACCEPTED", released))

    def item(self, value: Any, /) -> None:
        self.events.append(("ITEM", value))

    def end(self) -> None:
        self.events.append(("END",))


def opened(dialect: Any = NATIVE, limits: Limits | None = None, first_id: int = 1) -> Any:
    session = dialect.session(limits or Limits(), ids=count(first_id))
    session.connected(0.0)
    session.messages(0.0)
    return session


def begin(session: Session, method: str, *args: Any, now: float = 0.0, **more: Any) -> Caller:
    caller = Caller(method, more.get("deadline"))
    kwargs, metadata = more.get("kwargs", {}), more.get("metadata")
    if metadata is None:
        session.call(caller, method, args, kwargs, now)
    else:
        session.call_with(caller, method, args, kwargs, now, metadata)
    return caller


def payload(frames: Any) -> bytes:
    """The records of a message of one frame."""
    (frame,) = frames
    return bytes(frame[17:])


def as_message(example: Example) -> tuple[bytes]:
    return (b"\xc1bq\x01" + bytes(8) + b"\xdd\x00\x00\x00\x01" + example.data,)


def arrays(value: Any) -> Any:
    """With tuples as lists, as in JSON."""
    if isinstance(value, tuple | list):
        return [arrays(item) for item in value]
    if isinstance(value, dict):
        return {key: arrays(item) for key, item in value.items()}
    return value


# -- the page as a whole ---------------------------------------------------------------------


def test_every_block_is_read() -> None:
    assert (
        len(EXAMPLES)
        == TEXT.count(".. code-block::")
        == len(re.findall(r"^ {3}[A-Z]+ ", TEXT, re.M))
    )
    assert {example.kind for example in EXAMPLES} == {
        *KINDS,
        "MESSAGE",
        "VALUE",
        "FRAMES",
        "BATCH",
    }
    assert all(example.frames for example in EXAMPLES)


def test_every_record_has_an_example() -> None:
    assert {example.kind for example in RECORDS} == set(KINDS)
    # In the order of their numbers, as sections.
    sections = re.findall(r"^([A-Z]+)\n~+$", TEXT, re.MULTILINE)
    assert sections == sorted(KINDS, key=lambda name: KINDS[name])


def test_the_table_of_records_is_that_of_the_module() -> None:
    rows = re.findall(r"^\d+ +[A-Z]+ .*$", record.__doc__ or "", re.MULTILINE)
    assert len(rows) == len(KINDS)
    for row in rows:
        assert f"\n{row}\n" in TEXT


def test_numbers_on_the_page() -> None:
    limits = Limits()
    assert MAX_BATCH == 131_072
    assert "131,072 bytes (128 KiB)" in PROSE
    assert f"{MAX_BATCH + 17:,} bytes in any case" in PROSE
    assert f"{MIN_DETACHED:,} bytes or more (8 KiB)" in PROSE
    assert f"{native.FIRST_WINDOW} calls may be in flight" in PROSE
    assert f"keeps up to {native.FIRST_WINDOW} calls" in PROSE
    assert f"{clock.DRIFT} (500 parts per million)" in PROSE
    assert native.SILENCE == 1.5
    assert limits.max_message == 1 << 20
    assert "1 MiB by default" in PROSE
    assert limits.max_frame == 64 << 20
    assert "64 MiB by default" in PROSE
    assert f"nested {limits.max_depth} levels" in PROSE
    assert f"({limits.stream_window} by default)" in PROSE


def test_the_properties_of_a_greeting() -> None:
    session = NATIVE.session(Limits())
    session.connected(0.0)
    ((_, properties),) = CODEC.unpack(session.messages(0.0)[0][0][12:])
    assert [f"``{name}``" for name in properties] == table("property")
    (example,) = (example for example in RECORDS if example.kind == "HELLO")
    assert arrays(properties) == example.value[1]


def test_the_types_of_errors_are_there() -> None:
    names = [name.strip("`") for name in table("type")]
    for name in names:
        if name.startswith("berrymq_rpc."):
            cls = getattr(errors, name.removeprefix("berrymq_rpc.errors."))
            assert issubclass(cls, errors.Error)
    assert len(names) > 5


# -- records ---------------------------------------------------------------------------------

by_title = [pytest.param(e, id=f"{e.kind} {e.title[:40]}") for e in RECORDS]


@pytest.mark.parametrize("example", by_title)
def test_bytes_of_a_record(example: Example) -> None:
    assert NAMES[example.value[0]] == example.kind
    assert CODEC.pack(example.value) == example.data
    assert arrays(CODEC.unpack(example.data)) == example.value


def call_fields(
    fields: list[Any],
) -> tuple[str, tuple[Any, ...], dict[str, Any], float | None, dict[str, Any] | None]:
    """Method, args, kwargs, the deadline in seconds, and the metadata."""
    kwargs = fields[2] if len(fields) > 2 else {}
    deadline = fields[3] / 1e6 if len(fields) > 3 and fields[3] is not None else None
    return fields[0], tuple(fields[1]), kwargs, deadline, fields[4] if len(fields) > 4 else None


def notify_fields(
    fields: list[Any],
) -> tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any] | None]:
    """Method, args, kwargs and the metadata."""
    method, args, kwargs, *_ = call_fields(fields[:3])
    return method, args, kwargs, fields[3] if len(fields) > 3 else None


def greeted(session: Any) -> Any:
    """The session, once the peer has said what it takes."""
    (example,) = (example for example in RECORDS if example.kind == "HELLO")
    session.receive(as_message(example), 0.0)
    return session


def say(example: Example) -> Any:
    """Have a session send that record, by the method that its owner calls."""
    _, *fields = example.value
    if example.kind == "HELLO":
        ours = ("versions", "metadata")
        properties = {name: value for name, value in fields[0].items() if name not in ours}
        session = NATIVE.session(Limits(**properties))
        session.connected(0.0)
        return session.messages(0.0)
    session = opened(first_id=fields[0] if example.kind in ("CALL", "CANCEL", "ACKNOWLEDGE") else 1)
    match example.kind:
        case "CALL":
            method, args, kwargs, deadline, metadata = call_fields(fields[1:])
            more = {"kwargs": kwargs, "deadline": deadline, "metadata": metadata}
            begin(greeted(session), method, *args, **more)
        case "NOTIFY":
            method, args, kwargs, metadata = notify_fields(fields)
            if metadata is None:
                session.notify(method, args, kwargs, 0.0)
            else:
                greeted(session).notify_with(method, args, kwargs, 0.0, metadata)
        case "ACCEPTED":
            session.accepted(*fields)
        case "RESULT":
            session.result(*fields[:2], acknowledge=len(fields) > 2)
        case "ERROR":
            call_id, type_name, args, *rest = fields
            session.error(call_id, Failure(type_name, tuple(args), *rest))
        case "CANCEL":
            begin(session, "method")
            session.messages(0.0)
            session.cancel(fields[0])
        case "ITEM":
            session.item(*fields)
        case "CREDIT":
            session.credit(*fields)
        case "ACKNOWLEDGE":
            begin(session, "method")
            session.messages(0.0)
            session.receive(framed([KINDS["RESULT"], fields[0], "value", True]), 0.0)
        case "PING":
            session.tick(fields[0] / 1e6)
        case "PONG":
            session.receive(framed([KINDS["PING"], fields[0]]), 0.0)
        case "GOODBYE":
            session.goodbye(fields[0])
        case "END":
            session.end(fields[0])
        case "CLOSED":
            session.closed(*fields[:2], began=fields[2])
    return session.messages(0.0)


def framed(value: Any) -> tuple[bytes]:
    return as_message(Example("", "", (CODEC.pack(value),)))


@pytest.mark.parametrize("example", by_title)
def test_a_session_sends_it(example: Example) -> None:
    (message,) = say(example)
    assert payload(message) == example.data


@pytest.mark.parametrize("example", by_title)
def test_a_session_reads_it(example: Example) -> None:
    kind, *fields = example.value
    session = opened(first_id=7)
    callers = [begin(session, "method") for _ in range(3)]
    session.messages(0.0)
    asked = session.receive(as_message(example), 0.0)
    events = callers[0].events
    assert session.malformed == 0
    match example.kind:
        case "HELLO":
            assert session.window == fields[0]["window"]
        case "CALL":
            method, args, kwargs, deadline, metadata = call_fields(fields[1:])
            when = None if deadline is None else pytest.approx(deadline)
            assert asked == [(CALL, fields[0], method, args, kwargs, when, metadata)]
        case "NOTIFY":
            method, args, kwargs, metadata = notify_fields(fields)
            assert asked == [(kind, None, method, args, kwargs, None, metadata)]
        case "ACCEPTED":
            assert [caller.events for caller in callers] == [
                [("ACCEPTED", call_id in fields[1])] for call_id in fields[0]
            ]
            assert session.in_window == len(callers) - len(fields[1])
        case "RESULT":
            assert events == [("RESULT", fields[1])]
            assert bool(session.pending_records) is (len(fields) > 2)
        case "ERROR":
            ((_, error),) = events
            failure = describe(error, CODEC)
            if isinstance(error, errors.GenericError):
                assert [error.exc_type, list(error.arguments), error.exc_repr] == fields[1:4]
            else:
                assert arrays(failure[:3]) == fields[1:4]
            assert hasattr(error, "__notes__") is (len(fields) > 4)
        case "ITEM":
            assert events == [("ITEM", fields[1])]
        case "END":
            assert events == [("END",)]
        case "CLOSED":
            ((outcome, error),) = events
            assert outcome == ("ERROR" if fields[2] else "REFUSED")
            assert isinstance(error, errors.ServiceClosedError)
            assert str(error).startswith(fields[1])
        case "PING":
            (pong,) = session.messages(0.0)
            assert payload(pong) == CODEC.pack([KINDS["PONG"], fields[0]])
        case "PONG":
            assert asked == []
            assert session.pending_records == 0
        case "GOODBYE":
            assert asked == [(kind, None, fields[0], (), NO_KWARGS, None, None)]
        case "CREDIT":
            assert asked == [(kind, fields[0], "", (fields[1],), NO_KWARGS, None, None)]
        case _:
            assert asked == [(kind, fields[0], "", (), NO_KWARGS, None, None)]


# -- messages --------------------------------------------------------------------------------


def moment(example: Example) -> float:
    found = re.fullmatch(r"(client to server|server to client), at ([\d.]+) s", example.title)
    assert found, example.title
    return float(found[2])


def test_a_message() -> None:
    example = MESSAGES[0]
    session = opened()
    session.receive(framed([KINDS["PING"], 5]), 0.0)
    assert session.messages(moment(example)) == [example.frames]
    other = opened()
    assert other.receive(example.frames, 0.0) == []
    assert other.malformed == 0


def test_a_message_with_a_frame_of_its_own() -> None:
    example = MESSAGES[1]
    picture = b"*" * MIN_DETACHED
    session = opened(first_id=9)
    begin(session, "save", "picture", picture)
    # The value on the page is one string; the call itself is described in words.
    (message,) = session.messages(moment(example))
    assert [bytes(frame) for frame in message][1:] == [picture]
    ((_, call_id, method, args, *_),) = opened().receive(example.frames, 0.0)
    assert (call_id, method, args) == (9, "save", ("picture", picture))
    assert [bytes(frame) for frame in message] == list(example.frames)


def test_the_whole_exchange() -> None:
    script = iter(MESSAGES[2:])
    client, server = NATIVE.session(Limits()), NATIVE.session(Limits())
    asked: list[Any] = []

    def next_is(sender: Session, receiver: Session) -> None:
        example = next(script)
        direction = "client to server" if sender is client else "server to client"
        assert example.title.startswith(direction)
        now = moment(example)
        assert [tuple(map(bytes, frames)) for frames in sender.messages(now)] == [example.frames]
        # What the other side reads are the bytes of the page.
        there = now + (95.0 if receiver is server else -95.0)
        asked.extend(receiver.receive(example.frames, there))

    client.connected(5.0)
    add = begin(client, "math.add", 1, 2, now=5.0, deadline=7.0)
    server.connected(100.0)
    next_is(client, server)
    asking = (CALL, 1, "math.add", (1, 2), {}, pytest.approx(102.0, abs=0.1), None)
    assert asked.pop() == asking
    server.accepted([1], [])
    next_is(server, client)
    assert client.window == 500
    server.result(1, 3)
    next_is(server, client)
    assert add.events == [("ACCEPTED", False), ("RESULT", 3)]
    assert client.in_window == 0

    client.notify("log", ("3",), {}, 5.012)
    ticks = begin(client, "ticks", now=5.012)
    next_is(client, server)
    assert [event[2] for event in asked] == ["log", "ticks"]
    server.accepted([2], [2])
    server.item(2, "tick")
    server.item(2, "tock")
    next_is(server, client)
    assert client.in_window == 0
    client.credit(2, 2)
    next_is(client, server)
    assert asked.pop()[3] == (2,)
    server.end(2)
    next_is(server, client)
    assert ticks.events == [("ACCEPTED", True), ("ITEM", "tick"), ("ITEM", "tock"), ("END",)]

    slow = begin(client, "slow", now=5.016)
    next_is(client, server)
    client.cancel(slow.id)
    next_is(client, server)
    assert asked.pop()[:2] == (KINDS["CANCEL"], 3)
    server.error(3, Failure("asyncio.exceptions.CancelledError", (), "CancelledError()"))
    next_is(server, client)
    assert slow.events == []
    assert client.in_window == 0
    assert client.idle

    server.goodbye("the server is closing")
    next_is(server, client)
    assert asked.pop()[2] == "the server is closing"
    assert next(script, None) is None
    assert client.malformed == server.malformed == 0


def test_the_least_that_a_client_needs() -> None:
    server = NATIVE.session(Limits())
    server.connected(0.0)
    server.messages(0.0)
    server.receive(framed([KINDS["HELLO"], {"versions": [1]}]), 1000.0)
    ((_, call_id, *_),) = server.receive(framed([KINDS["CALL"], 1, "math.add", [1, 2]]), 2000.0)
    server.result(call_id, 3)
    (message,) = server.messages(2000.0)
    assert CODEC.unpack(payload(message)) == (KINDS["RESULT"], 1, 3)


@pytest.mark.parametrize(("levels", "taken"), [(98, True), (99, False)])
def test_levels_are_counted_from_the_records_own_array(levels: int, taken: bool) -> None:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    # Packed without the sender's own bound.
    example = Example("", "", (msgpack.packb([CALL, 1, "method", [value]]),))
    assert bool(opened().receive(as_message(example), 0.0)) is taken


# -- values ----------------------------------------------------------------------------------

PYTHON_VALUES: dict[str, Any] = {
    "2 to the power of 64": 2**64,
    "29 February 2024, 23:59:58.5, an hour ahead of UTC": datetime(
        2024, 2, 29, 23, 59, 58, 500_000, timezone(timedelta(hours=1))
    ),
    "29 February 2024": date(2024, 2, 29),
    "23:59, without a zone": time(23, 59),
    "minus one second": timedelta(seconds=-1),
    "the zone UTC": UTC,
    "the zone Europe/Berlin": ZoneInfo("Europe/Berlin"),
    "the decimal number 1.50": Decimal("1.50"),
    "the UUID 00010203-0405-0607-0809-0a0b0c0d0e0f": UUID(bytes=bytes(range(16))),
    "the set of 1": {1},
    "the empty frozenset": frozenset(),
    "the complex number 1.5 - 2j": 1.5 - 2j,
}


def test_every_tag_has_an_example() -> None:
    assert set(VALUES) == set(PYTHON_VALUES)
    tags = {example.data[example.data.index(126) + 1] for example in VALUES.values()}
    assert tags == set(range(1, 12))


@pytest.mark.parametrize("title", PYTHON_VALUES)
def test_bytes_of_a_value(title: str) -> None:
    value, data = PYTHON_VALUES[title], VALUES[title].data
    assert CODEC.pack(value) == data
    unpacked = CODEC.unpack(data)
    assert type(unpacked) is type(value)
    assert unpacked == value
    assert str(unpacked) == str(value)


# -- the dialect of aiozmq.rpc ---------------------------------------------------------------

native_order = pytest.mark.skipif(
    sys.byteorder != "little", reason="the page shows the header as little-endian machines have it"
)


@native_order
def test_aiozmq_call() -> None:
    frames = FRAMES["a call"].frames
    session = opened(AIOZMQ, first_id=7)
    begin(session, "math.add", 1, 2)
    assert session.messages(2.5) == [frames]
    assert opened(AIOZMQ).receive(frames, 0.0) == [(CALL, 7, "math.add", (1, 2), {}, None, None)]
    assert AIOZMQ.recognises(frames)
    assert not NATIVE.recognises(frames)


@native_order
def test_aiozmq_result() -> None:
    frames = FRAMES["a result"].frames
    session = opened(AIOZMQ)
    session.result(7, 3)
    assert session.messages(2.5) == [frames]
    client = opened(AIOZMQ, first_id=7)
    caller = begin(client, "math.add")
    client.messages(0.0)
    client.receive(frames, 0.0)
    assert caller.events == [("RESULT", 3)]


@native_order
def test_aiozmq_error() -> None:
    frames = FRAMES["an error"].frames
    session = opened(AIOZMQ)
    session.error(7, describe(errors.NotFoundError("math.sub"), CODEC))
    assert session.messages(2.5) == [frames]
    client = opened(AIOZMQ, first_id=7)
    caller = begin(client, "math.sub")
    client.messages(0.0)
    client.receive(frames, 0.0)
    ((_, error),) = caller.events
    assert type(error) is errors.NotFoundError
    assert error.args == ("math.sub",)


def test_every_group_of_frames_is_checked() -> None:
    assert set(FRAMES) == {"a call", "a result", "an error"}


# -- nodes -----------------------------------------------------------------------------------


class Place:
    """A node without lines: what is sent on its bus, and what comes."""

    def __init__(self, name: str, epoch: int) -> None:
        self.bus = Bus()
        self.router = Router(self.bus.gateway, name, epoch=epoch)
        self.send_buffer = SendBuffer()
        self.bus.gateway.add_forwarder(self.router.forward)
        self.router.add(self.send_buffer)
        self.heard: list[Message] = []

    def sent(self) -> Batch:
        self.router.collect()
        (batch,) = self.send_buffer.take(10, 1 << 30)
        return batch

    def receive(self, example: Example) -> None:
        self.router.receive(self.send_buffer, parse_batch(example.value, example.data), 0.0)


def test_batches() -> None:
    messages, answer = BATCHES
    plant, far = Place("plant", 1700000000000000), Place("far", 5)
    for _ in range(6):
        plant.bus.twitter("earlier:one")
    plant.sent()
    plant.bus.twitter("job:new", 1, "two")
    plant.bus.talk("quest:go", "answer:go", k=2)
    batch = plant.sent()
    assert (batch.data, batch.envelope()) == (messages.data, messages.value)
    far.bus.regist_function("job:*", far.heard.append)
    far.bus.regist_function("quest:*", lambda m: 40 + m.kwargs["k"])
    far.receive(messages)
    (message,) = far.heard
    assert (message.id, message.args, message.origin) == ("job:new", (1, "two"), "plant")
    batch = far.sent()
    assert (batch.data, arrays(batch.envelope())) == (answer.data, answer.value)
    plant.bus.regist_function("answer:*", plant.heard.append)
    plant.receive(answer)
    (message,) = plant.heard
    assert (message.id, message.args, message.origin) == ("answer:go", (42,), "far")


def test_what_an_envelope_has() -> None:
    error = describe(ValueError("no"), CODEC)[:3]
    batch = Batch(("a", 1), 2, 1, b"", (), ("b", 2), error, withheld=1)
    retained = Batch(("a", 1), 2, 1, b"")
    retained.stamp = (5, 6)
    traced = Batch(("a", 1), 2, 1, b"").set_trace({"traceparent": "00"})
    keys = [*batch.envelope(), *retained.envelope(), *traced.envelope(), "presence"]
    assert set(table("key")) == {f"``{key}``" for key in keys}


def test_the_methods_of_a_node() -> None:
    names = {method.name for method in collect_methods(ExportedFunctions(Bus()))}
    page = TEXT[TEXT.index("\nNodes\n") : TEXT.index("\nInterconnecting\n")]
    assert set(re.findall(r"``(\w+)\(", page)) == names


def test_numbers_of_nodes_on_the_page() -> None:
    assert f"a text of 1 to {MAX_NAME_LENGTH} characters" in PROSE
    assert f"from 1 to {MAX_COUNT:,}; if it is left out, 1" in PROSE
    assert MAX_IN_FLIGHT == 4 << 20
    assert "more than 4 MiB are not confirmed" in PROSE
    assert f"for at most {PATIENCE:g} seconds in which" in PROSE
    assert f"({FIRST_PATIENCE:g} second for a new origin)" in PROSE
