"""The dialect of aiozmq.rpc 1.0, against frames made and read as its own code does it."""

import pickle
import struct
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import count
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joined import AIOZMQ, Pair, Recorder, aiozmq, check, native, opened, start

from berrymq_rpc.errors import (
    ConnectionLostError,
    GenericError,
    NotFoundError,
    ParametersError,
    ProtocolError,
    ServiceClosedError,
    TooLargeError,
)
from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.aiozmq_dialect import MAX_ROUTE, AiozmqDialect, AiozmqSession
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.record import CALL, NO_KWARGS

# -- what aiozmq/rpc/rpc.py and aiozmq/rpc/packer.py do --------------------------------------

CALL_HEADER = struct.Struct("=HHLd")
ANSWER_HEADER = struct.Struct("=HHLd?")
DATES = {date: 127, datetime: 126, time: 125, timedelta: 124}


def packb(value: Any) -> bytes:
    def ext(value: Any) -> msgpack.ExtType:
        code = 123 if isinstance(value, timezone) else DATES[type(value)]
        return msgpack.ExtType(code, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))

    data: bytes = msgpack.packb(value, use_bin_type=True, default=ext)
    return data


def unpackb(data: bytes) -> Any:
    # As theirs, which unpickles what this side packed.
    return msgpack.unpackb(
        data, use_list=False, raw=False, ext_hook=lambda code, data: pickle.loads(data)
    )


def their_call(
    request: int, name: str, args: Any = (), kwargs: Any = None, sender: tuple[int, int] = (77, 88)
) -> list[bytes]:
    """``_ClientProtocol.call``"""
    header = CALL_HEADER.pack(*sender, request, 1.7e9)
    return [header, name.encode("utf-8"), packb(args), packb(kwargs or {})]


def their_answer(request: int, answer: Any, is_error: bool = False) -> list[bytes]:
    """``_ServerProtocol.process_call_result``"""
    return [ANSWER_HEADER.pack(99, 100, request, 1.7e9, is_error), packb(answer)]


def read_call(frames: Sequence[Any]) -> tuple[int, str, Any, Any]:
    """``_ServerProtocol.msg_received``"""
    *pre, header, name, args, kwargs = frames
    assert not pre
    _, _, request, _ = CALL_HEADER.unpack(header)
    return request, name.decode("utf-8"), unpackb(args), unpackb(kwargs)


def read_answer(frames: Sequence[Any]) -> tuple[int, bool, Any]:
    """``_ClientProtocol.msg_received``"""
    header, answer = frames
    _, _, request, _, is_error = ANSWER_HEADER.unpack(header)
    return request, is_error, unpackb(answer)


def connected(limits: Limits | None = None, **settings: Any) -> AiozmqSession:
    session: AiozmqSession = opened(aiozmq(limits, **settings))
    return session


def test_header_sizes() -> None:
    assert CALL_HEADER.size == 16
    assert ANSWER_HEADER.size == 17


# -- how it differs from other dialects ------------------------------------------------------


@pytest.mark.parametrize("route", [[], [b""], [b"identity"], [b"\0" * 5, b""], [b"x" * 16] * 3])
def test_recognises_a_call(route: list[bytes]) -> None:
    assert AIOZMQ.recognises([*route, *their_call(1, "method")])


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [bytes(16)],
        [bytes(16), b"", b""],
        [bytes(16), b"", b"", b"", b""],
        [bytes(15), b"", b"", b""],
        [bytes(17), b"", b"", b""],
        [b"", bytes(16), b"", b""],
        their_answer(1, None),
    ],
)
def test_does_not_recognise(frames: list[bytes]) -> None:
    assert not AIOZMQ.recognises(frames)


def test_does_not_recognise_native_messages() -> None:
    session = native()
    session.connected(0.0)
    session.item(1, [bytes(10_000)] * 3)
    for frames in session.messages(0.0):
        assert not AIOZMQ.recognises(frames)


# -- as the server of a plain aiozmq.rpc client ----------------------------------------------


def test_a_call_of_theirs() -> None:
    session = connected()
    frames = their_call(5, "ns.add", (1, 2), {"key": "value"})
    assert session.receive(frames, 1.0) == [
        (CALL, 5, "ns.add", (1, 2), {"key": "value"}, None, None)
    ]
    session.result(5, (3, "x"))
    (answer,) = session.messages(2.5)
    assert answer[0] == ANSWER_HEADER.pack(0x1111, 0x2222, 5, 2.5, False)
    assert read_answer(answer) == (5, False, (3, "x"))


def test_calls_without_named_arguments_share_a_map_that_stays_empty() -> None:
    ((*_, kwargs, _, _),) = connected().receive(their_call(1, "method"), 0.0)
    assert kwargs is NO_KWARGS


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**63),
        2**64 - 1,
        1.5,
        "text",
        b"bytes",
        (1, (2, ("three",))),
        {"a": {"b": ()}},
        date(2024, 2, 29),
        datetime(2024, 2, 29, 23, 59, 58, 999_999),
        datetime(2024, 2, 29, tzinfo=UTC),
        time(1, 2, 3, 4),
        timedelta(days=-1, seconds=5),
        timezone(timedelta(hours=-3), "home"),
    ],
)
def test_values_in_both_directions(value: Any) -> None:
    session = connected()
    ((*_, args, kwargs, _, _),) = session.receive(their_call(1, "m", (value,), {"k": value}), 0.0)
    assert args == (value,)
    assert kwargs == {"k": value}
    session.result(1, value)
    (answer,) = session.messages(0.0)
    assert read_answer(answer) == (1, False, value)


@pytest.mark.parametrize("route", [[b""], [b"a", b"bb", b""], [b"x" * 16] * MAX_ROUTE])
def test_the_way_back_is_returned_as_it_came(route: list[bytes]) -> None:
    session = connected()
    frames = [memoryview(frame) for frame in [*route, *their_call(5, "method")]]
    ((_, call_id, *_),) = session.receive(frames, 0.0)
    assert hash(call_id)
    session.result(call_id, "value")
    session.error(call_id, Failure("builtins.ValueError", (), ""))
    for answer in session.messages(0.0):
        assert list(answer[:-2]) == route
        assert read_answer(answer[-2:])[0] == 5


def test_the_same_id_by_two_ways() -> None:
    session = connected()
    events = session.receive([b"a", *their_call(5, "method")], 0.0)
    events += session.receive([b"b", *their_call(5, "method")], 0.0)
    events += session.receive(their_call(5, "method"), 0.0)
    assert len({event[1] for event in events}) == 3


def test_a_way_back_that_is_too_long() -> None:
    session = connected()
    with pytest.raises(ProtocolError, match="a route back of 17 frames"):
        session.receive([b""] * (MAX_ROUTE + 1) + their_call(5, "method"), 0.0)
    assert session.malformed == 1


BAD_CALLS = [
    pytest.param({"args": b"\xc1"}, id="args are no msgpack"),
    pytest.param({"args": b""}, id="no args"),
    pytest.param({"args": b"\x90\x90"}, id="bytes after the args"),
    pytest.param({"args": b"\x05"}, id="args are a number"),
    pytest.param({"args": b"\x80"}, id="args are a map"),
    pytest.param({"args": b"\xa1x"}, id="args are text"),
    pytest.param({"args": b"\x91" * 500 + b"\x90"}, id="args are nested too deep"),
    pytest.param({"args": b"\x91\xc7\x09\x7fcos\nsystem"}, id="a pickle"),
    pytest.param({"args": b"\xdd\xff\xff\xff\xff"}, id="a length that is a lie"),
    pytest.param({"kwargs": b"\xc1"}, id="kwargs are no msgpack"),
    pytest.param({"kwargs": b""}, id="no kwargs"),
    pytest.param({"kwargs": b"\x90"}, id="kwargs are an array"),
    pytest.param({"kwargs": b"\xc0"}, id="kwargs are nil"),
    pytest.param({"kwargs": b"\x81\x81\x01\x02\x03"}, id="a key that is a map"),
    pytest.param({"name": b"\xff\xfe"}, id="a name that is no UTF-8"),
]


@pytest.mark.parametrize("parts", BAD_CALLS)
@pytest.mark.parametrize("route", [[], [b"way", b"back"]])
def test_a_readable_header_gets_an_answer(parts: dict[str, bytes], route: list[bytes]) -> None:
    header, name, args, kwargs = their_call(5, "method")
    frames = [
        *route,
        header,
        parts.get("name", name),
        parts.get("args", args),
        parts.get("kwargs", kwargs),
    ]
    session = connected()
    assert session.receive(frames, 0.0) == []
    assert session.malformed == 1
    (answer,) = session.messages(0.0)
    assert list(answer[:-2]) == route
    request, is_error, (_, _, text) = read_answer(answer[-2:])
    assert (request, is_error) == (5, True)
    assert text
    # And the next call is served.
    assert session.receive(their_call(6, "method"), 0.0)


@pytest.mark.parametrize("part", ["name", "args", "kwargs"])
def test_a_call_that_is_too_large_is_answered(part: str) -> None:
    session = connected(Limits(max_message=1000))
    values = {"name": "m", "args": (), "kwargs": {}}
    values[part] = {"name": "m" * 5000, "args": ("x" * 5000,), "kwargs": {"k": "x" * 5000}}[part]
    assert session.receive(their_call(5, **values), 0.0) == []
    (answer,) = session.messages(0.0)
    request, is_error, (name, _, _) = read_answer(answer)
    assert (request, is_error) == (5, True)
    assert name.endswith("TooLargeError")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"", b""],
        [bytes(16)],
        [bytes(16), b"m", b"\x90"],
        [bytes(15), b"m", b"\x90", b"\x80"],
        [bytes(16), b"m", b"\x90", b"\x80", b""],
        [bytes(17)],
        [bytes(17), b"", b""],
        [b"\xc1bq\x01" + bytes(14)],
        [b'{"jsonrpc": "2.0"}'],
        [b"x"] * 11,
    ],
)
def test_what_is_no_message(frames: list[bytes]) -> None:
    session = connected()
    with pytest.raises(ProtocolError, match=r"malformed message of aiozmq\.rpc"):
        session.receive(frames, 5.0)
    assert session.malformed == 1
    assert session.messages(5.0) == []


# -- errors to a plain client ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("builtins.ValueError", "builtins.ValueError"),
        ("berrymq_rpc.errors.NotFoundError", "aiozmq.rpc.base.NotFoundError"),
        ("berrymq_rpc.errors.ParametersError", "aiozmq.rpc.base.ParametersError"),
        ("asyncio.queues.QueueFull", "asyncio.QueueFull"),
        ("some.module.OwnError", "some.module.OwnError"),
    ],
)
def test_names_of_errors(here: str, there: str) -> None:
    session = connected()
    session.error(5, Failure(here, ("x", 1), "text", "a traceback"))
    (answer,) = session.messages(0.0)
    assert read_answer(answer) == (5, True, (there, ("x", 1), "text"))


@pytest.mark.parametrize("argument", [object(), "x" * 30_000, {1: 2}, 2**70, {1, 2}])
def test_an_error_always_finds_a_form_that_travels(argument: Any) -> None:
    session = connected(Limits(max_message=2_500))
    session.error(5, Failure("builtins.ValueError", (argument,), "text"))
    (answer,) = session.messages(0.0)
    assert read_answer(answer) == (5, True, ("builtins.ValueError", (), "text"))


@pytest.mark.parametrize("began", [False, True])
def test_a_closing_side_has_no_other_word(began: bool) -> None:
    session = connected()
    session.closed(5, "closing", began=began)
    (answer,) = session.messages(0.0)
    name, args, _ = read_answer(answer)[2]
    assert (name, args) == ("aiozmq.rpc.base.ServiceClosedError", ("closing",))
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(caller.id, (name, args, "text"), True), 0.0)
    assert type(caller.error) is ServiceClosedError


# -- as the client of a plain aiozmq.rpc server ----------------------------------------------


def test_a_call_of_ours() -> None:
    session = connected()
    caller = start(session, "ns.add", 1, 2, key="value")
    (frames,) = session.messages(2.5)
    assert frames[0] == CALL_HEADER.pack(0x1111, 0x2222, caller.id, 2.5)
    assert read_call(frames) == (caller.id, "ns.add", (1, 2), {"key": "value"})
    assert session.receive(their_answer(caller.id, {"a": (1,)}), 3.0) == []
    assert caller.value == {"a": (1,)}
    assert session.last_heard == 3.0
    assert session.idle
    check(session)


def test_the_sender_is_two_numbers_of_16_bits() -> None:
    session = opened(AiozmqDialect(AiozmqCodec(), {}, (0x12345, 0x6789A)).session(Limits()))
    start(session)
    ((header, *_),) = session.messages(0.0)
    assert CALL_HEADER.unpack(header)[:2] == (0x2345, 0x789A)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("builtins.ValueError", ValueError),
        ("aiozmq.rpc.base.NotFoundError", NotFoundError),
        ("aiozmq.rpc.base.ParametersError", ParametersError),
        ("builtins.TimeoutError", TimeoutError),
        ("their.module.OwnError", GenericError),
        ("builtins.SystemExit", GenericError),
    ],
)
def test_an_error_of_theirs(name: str, cls: type[Exception]) -> None:
    session = connected()
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(caller.id, (name, ("x", 1), "text"), True), 0.0)
    assert type(caller.error) is cls
    if cls is GenericError:
        assert caller.error.args == (name, ("x", 1), "text")
    else:
        assert caller.error.args == ("x", 1)
    assert session.in_window == 0


def test_an_own_error_class() -> None:
    class OwnError(Exception):
        pass

    dialect = AiozmqDialect(AiozmqCodec(), {"their.OwnError": OwnError}, (1, 2))
    session = opened(dialect.session(Limits()))
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(caller.id, ("their.OwnError", (1,), ""), True), 0.0)
    assert type(caller.error) is OwnError


@pytest.mark.parametrize(
    ("is_error", "answer"),
    [
        (False, b""),
        (False, b"\xc1"),
        (False, b"\x01\x02"),
        (False, b"\x91" * 500 + b"\x90"),
        (False, b"\xc7\x09\x7fcos\nsystem"),
        (True, b"\xc1"),
        (True, packb(5)),
        (True, packb(None)),
        (True, packb(("name", ()))),
        (True, packb(("name", (), "text", "more"))),
        (True, packb(("name", 5, "text"))),
    ],
)
def test_an_answer_that_cannot_be_read_fails_the_caller(is_error: bool, answer: bytes) -> None:
    session = connected()
    caller = start(session, "ns.add")
    session.messages(0.0)
    header, _ = their_answer(caller.id, None, is_error)
    session.receive([header, answer], 0.0)
    assert isinstance(caller.error, ProtocolError)
    assert str(caller.error).startswith("the answer cannot be read: ")
    assert "'ns.add' was sent" in str(caller.error)
    assert session.malformed == 1
    assert session.idle
    check(session)


@pytest.mark.parametrize(
    "answer",
    [("name", "args", "text"), (5, (), 5), ((), {"a": 1}, ()), {"a": 1, "b": 2, "c": 3}, "abc"],
)
def test_an_odd_error_is_one_all_the_same(answer: Any) -> None:
    session = connected()
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(caller.id, answer, True), 0.0)
    assert isinstance(caller.error, Exception)
    check(session)


def test_an_answer_that_is_too_large_fails_the_caller() -> None:
    session = connected(Limits(max_message=1000))
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(caller.id, "x" * 5000), 0.0)
    assert isinstance(caller.error, TooLargeError)
    assert session.malformed == 1
    assert session.idle


def test_the_largest_messages() -> None:
    """Four times `max_message`: texts of up to 65,535 bytes have a header of 3, here."""
    limits = Limits(max_message=1000)
    session = connected(limits)
    with pytest.raises(TooLargeError):
        session.result(5, "x" * 3998)
    session.result(5, "x" * 3997)
    ((_, data),) = session.messages(0.0)
    assert len(data) == 4000
    client = connected(limits)
    caller = start(client)
    client.messages(0.0)
    client.receive(their_answer(caller.id, "x" * 3997), 0.0)
    assert len(caller.value) == 3997
    # A name of 6 bytes, an array of 1 and its text, and a map of 0.
    assert client.receive(their_call(1, "method", ("x" * (4000 - 6 - 1 - 3 - 1),)), 0.0)
    assert not client.receive(their_call(1, "method", ("x" * (4000 - 6 - 1 - 3),)), 0.0)


def test_answers_of_nobody_are_dropped() -> None:
    session = connected()
    caller = start(session)
    session.messages(0.0)
    assert session.receive(their_answer(caller.id + 1, None), 0.0) == []
    assert caller.outcomes == []
    assert session.malformed == 0
    check(session)


def test_an_answer_before_the_call_was_sent_is_dropped() -> None:
    session = connected()
    session.window = 0
    caller = start(session)
    session.receive(their_answer(caller.id, "a guess"), 0.0)
    assert caller.outcomes == []
    check(session)


def test_the_answer_of_a_notification_is_dropped() -> None:
    session = connected()
    session.notify("log", ("done",), {}, 0.0)
    (frames,) = session.messages(0.0)
    request, name, args, kwargs = read_call(frames)
    assert (name, args, kwargs) == ("log", ("done",), {})
    session.receive(their_answer(request, None), 0.0)
    assert session.idle
    check(session)


# -- a peer that cannot be told to stop ------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "expire"])
@pytest.mark.parametrize("flushed", [False, True])
def test_giving_up_gives_the_slot_back_at_once(how: str, flushed: bool) -> None:
    """The peer may never answer: the slot would be lost for good."""
    session = connected()
    session.window = 1
    caller, waiting = start(session, deadline=2.0), start(session)
    if flushed:
        session.messages(0.0)
        assert session.pending_records == 0
    if how == "cancel":
        session.cancel(caller.id)
    else:
        session.expire(2.0)
        assert isinstance(caller.error, TimeoutError)
    check(session)
    assert session.in_window == 0
    # What waits goes with the next messages, and it is told that there are some.
    assert session.pending_records > 0
    messages = session.messages(2.0)
    assert waiting.sent == 2.0
    assert [read_call(frames)[0] for frames in messages] == (
        [waiting.id] if flushed else [caller.id, waiting.id]
    )
    # A late answer is dropped.
    session.receive(their_answer(caller.id, "late"), 3.0)
    assert len(caller.outcomes) == (how == "expire")
    session.receive(their_answer(waiting.id, "value"), 3.0)
    assert waiting.value == "value"
    assert session.idle
    check(session)


def test_a_server_that_answers_nothing_for_a_while_serves_the_others_later() -> None:
    session = connected(Limits(window=5))
    lost = [start(session, deadline=1.0) for _ in range(5)]
    kept = [start(session) for _ in range(7)]
    session.messages(0.0)
    session.expire(1.0)
    served = [read_call(frames)[0] for frames in session.messages(1.0)]
    assert served == [caller.id for caller in kept[:5]]
    for request in served:
        session.receive(their_answer(request, request), 2.0)
    for frames in session.messages(2.0):
        session.receive(their_answer(read_call(frames)[0], None), 2.0)
    assert all(caller.outcomes for caller in lost + kept)
    assert session.idle
    check(session)


# -- ids of 32 bits --------------------------------------------------------------------------


def test_ids_wrap_with_one_pending() -> None:
    session = connected(ids=count(0xFFFFFFFE))
    old = [start(session), start(session)]
    session.ids = count((1 << 32) + 0xFFFFFFFE)
    new = [start(session) for _ in range(4)]
    requests = [read_call(frames)[0] for frames in session.messages(0.0)]
    # Those of the old ones are taken, and then those that took the next instead.
    assert requests == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1, 2, 3]
    assert len(set(requests)) == 6
    for request in requests:
        session.receive(their_answer(request, request), 0.0)
    assert [caller.value for caller in old + new] == requests
    assert session.idle
    check(session)


def test_an_id_is_free_again_after_its_call() -> None:
    session = connected(ids=count(5))
    caller = start(session)
    session.messages(0.0)
    session.receive(their_answer(5, None), 0.0)
    session.ids = count((1 << 32) + 5)
    caller = start(session)
    (frames,) = session.messages(0.0)
    assert read_call(frames)[0] == 5
    session.cancel(caller.id)
    session.ids = count((2 << 32) + 5)
    start(session)
    (frames,) = session.messages(0.0)
    assert read_call(frames)[0] == 5
    check(session)


def test_a_notification_takes_no_id_that_is_in_use() -> None:
    session = connected(ids=count(5))
    caller = start(session)
    session.ids = count((1 << 32) + 5)
    session.notify("log", (), {}, 0.0)
    requests = [read_call(frames)[0] for frames in session.messages(0.0)]
    assert requests == [5, 6]
    session.receive(their_answer(6, "of the notification"), 0.0)
    session.receive(their_answer(5, "of the call"), 0.0)
    assert caller.value == "of the call"


def test_moved_calls_get_an_id_where_they_are_sent() -> None:
    ids = count(5)
    waiting, session = aiozmq(ids=ids), connected(ids=ids)
    caller = start(waiting)
    session.ids = count((1 << 32) + 5)
    own = start(session)
    session.adopt(waiting.take_backlog(), 0.0)
    requests = [read_call(frames)[0] for frames in session.messages(0.0)]
    assert sorted(requests) == [5, 6]
    session.receive(their_answer(requests[0], "own"), 0.0)
    session.receive(their_answer(requests[1], "moved"), 0.0)
    assert (own.value, caller.value) == ("own", "moved")
    check(waiting)
    check(session)


def test_loss_forgets_the_ids() -> None:
    session = connected()
    caller = start(session)
    session.messages(0.0)
    session.lost(ConnectionLostError("gone"), 1.0)
    assert isinstance(caller.error, ConnectionLostError)
    session.receive(their_answer(caller.id, "late"), 1.0)
    check(session)


# -- more ------------------------------------------------------------------------------------


def test_bytes_that_wait_are_counted() -> None:
    session = connected()
    session.result(1, "x" * 1000)
    assert 1000 < session.large_bytes < 1010
    session.messages(0.0)
    assert session.large_bytes == 0


def test_a_pair_of_ours() -> None:
    pair = Pair("aiozmq", client=Limits(window=10)).settled()
    callers = [pair.call("echo", number) for number in range(100)]
    pair.shuttle(lambda event: pair.server.result(event[1], event[3][0]))
    assert [caller.value for caller in callers] == list(range(100))
    assert pair.client.idle


@given(
    request=st.integers(0, 2**32 - 1),
    name=st.text(max_size=50),
    args=st.lists(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()),
    kwargs=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    route=st.lists(st.binary(max_size=20), max_size=MAX_ROUTE),
)
def test_any_call(
    request: int, name: str, args: list[Any], kwargs: dict[str, Any], route: list[bytes]
) -> None:
    session = connected()
    frames = [*route, *their_call(request, name, args, kwargs)]
    ((kind, call_id, method, given_args, given_kwargs, when, _),) = session.receive(frames, 0.0)
    assert (kind, method, given_args, given_kwargs, when) == (CALL, name, tuple(args), kwargs, None)
    session.result(call_id, args)
    (answer,) = session.messages(0.0)
    assert list(answer[:-2]) == route
    assert read_answer(answer[-2:]) == (request, False, tuple(args))


def test_recorders_are_told_once() -> None:
    caller = Recorder()
    session = connected()
    session.call(caller, "method", (), {}, 0.0)
    session.messages(0.0)
    for _ in range(3):
        session.receive(their_answer(caller.id, 1), 0.0)
    assert caller.value == 1
