"""Malformed records: nothing but `ProtocolError` is raised, and each caller gets one error."""

import datetime
from decimal import Decimal
from typing import Any

import pytest
from joined import HEAD, check, message, native, opened, received, sent, start

from berrymq_rpc.errors import ProtocolError
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_session import NativeSession
from berrymq_rpc.rpc.wire.record import (
    ACCEPTED,
    ACKNOWLEDGE,
    CALL,
    CANCEL,
    CLOSED,
    CREDIT,
    END,
    ERROR,
    GOODBYE,
    HELLO,
    ITEM,
    NOTIFY,
    PING,
    PONG,
    RESULT,
)
from berrymq_rpc.rpc.wire.session import State

CODEC = Codec()

#: A value of an ext type that is none: it can be skipped, but not unpacked.
NOTHING = b"\xc7\x01\x7e\x63"

# One well-formed record of each kind, with all its elements; ids are those of this side's call, 1,
# and of the peer's, 7.
WELL_FORMED: dict[str, tuple[Any, ...]] = {
    "HELLO": (HELLO, {"versions": [1], "window": 50}),
    "CALL": (CALL, 7, "method", ["arg"], {"key": 1}, 10**15),
    "NOTIFY": (NOTIFY, "method", ["arg"], {"key": 1}),
    "ACCEPTED": (ACCEPTED, [1], [1]),
    "RESULT": (RESULT, 1, "value"),
    "RESULT with acknowledgement": (RESULT, 1, "value", True),
    "ERROR": (ERROR, 1, "builtins.ValueError", ["arg"], "text", "traceback"),
    "CANCEL": (CANCEL, 7),
    "ITEM": (ITEM, 1, "item"),
    "CREDIT": (CREDIT, 7, 3),
    "ACKNOWLEDGE": (ACKNOWLEDGE, 7),
    "PING": (PING, 5),
    "PONG": (PONG, 5),
    "GOODBYE": (GOODBYE, "reason"),
    "END": (END, 1),
    "CLOSED": (CLOSED, 1, "reason", True),
}

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.0,
    float("nan"),
    float("inf"),
    2**64 - 1,
    -(2**63),
    2**70,
    10**400,
    "",
    "text",
    "\ud800",
    b"",
    b"\x04\x01\x02",
    [],
    [[]],
    [1],
    [None, {}],
    {},
    {1: 2},
    {"versions": 5},
    {"versions": {}},
    {"versions": [[]]},
    {1: {}},
    set(),
    frozenset({1}),
    Decimal("sNaN"),
    Decimal(1),
    1j,
    datetime.datetime(2024, 1, 1),
    datetime.timedelta(1),
]

REPLACED = [
    pytest.param(
        (*record[:index], odd, *record[index + 1 :]), id=f"{name}-{index}-{str(odd)[:20]!a}"
    )
    for name, record in WELL_FORMED.items()
    for index in range(len(record))
    for odd in ODD
]
CUT = [
    pytest.param(record[:length], id=f"{name}-{length}")
    for name, record in WELL_FORMED.items()
    for length in range(len(record))
]
LENGTHENED = [
    pytest.param((*record, odd), id=f"{name}-{str(odd)[:20]!a}")
    for name, record in WELL_FORMED.items()
    for odd in (None, 1, "text", [], {})
]
NO_RECORDS = [
    *ODD,
    (99, 1),
    (14, 1),
    (-1, 1),
    (2**70, 1),
    ("CALL", 1),
    ([CALL], 1),
    ({}, 1),
    (Decimal("sNaN"), 1),
    {0: CALL, 1: 7, 2: "method", 3: []},
    {0: RESULT, 1: 1, 2: "value"},
    {0: CANCEL, 1: 7},
    "\x01\x07\x00\x00",
    b"\x01\x07\x00\x00",
    b"\x05\x01\x02\x03\x04",
]


def exchange(record: Any, session: NativeSession | None = None) -> tuple[Any, Any, Any, list[Any]]:
    """Let a session take a record between two good ones; check what must hold in any case."""
    session = session or opened(native(), window=50)
    caller, other = start(session), start(session)
    session.messages(0.0)
    frames = message((CALL, 100, "first", ()), CODEC.pack(record), (RESULT, 2, "other"))
    try:
        asked = session.receive(frames, 0.0)
    except ProtocolError as error:
        pytest.fail(f"the good records were not taken: {error}")
    assert [event[1] for event in asked if event[1] == 100] == [100]
    # Without a common version, all has failed by then.
    assert len(other.outcomes) == 1
    assert session.state is State.CLOSING or other.value == "other"
    assert len(caller.outcomes) <= 1
    check(session)
    for kind, call_id, method, args, kwargs, deadline, metadata in asked:
        assert metadata is None or type(metadata) is dict
        # What the owner relies on without looking.
        assert type(method) is str
        assert type(args) is tuple
        assert type(kwargs) is dict
        assert deadline is None or deadline > 0
        assert kind in (NOTIFY, GOODBYE) or (type(call_id) is int and call_id >= 0)
        if kind == CREDIT:
            assert type(args[0]) is int
            assert args[0] >= 0
    said = sent(session)
    answers = [r for r in said if r[0] in (RESULT, ERROR) and r[1] == 7]
    events = [event for event in asked if event[:2] == (CALL, 7)]
    assert len(answers) + len(events) <= 1
    if concerns(record, (CALL,)) and record[1] == 7:
        assert len(answers) + len(events) == 1
    return session, caller, [e for e in asked if e[1] != 100], said


def concerns(record: Any, kinds: tuple[int, ...]) -> bool:
    """Whether a record is of a kind and has an id that can be read."""
    return (
        isinstance(record, tuple | list)
        and len(record) > 1
        and type(record[0]) is int
        and record[0] in kinds
        and type(record[1]) is int
    )


@pytest.mark.parametrize("record", [*REPLACED, *CUT, *LENGTHENED])
def test_odd_records(record: tuple[Any, ...]) -> None:
    session, caller, _, _ = exchange(record)
    # What is meant as the last word about a call is one.
    if concerns(record, (RESULT, ERROR, END)) and record[1] == 1:
        assert len(caller.outcomes) == 1
        assert session.in_window == 0
    # The session works on.
    assert session.receive(message((CANCEL, 3)), 0.0)


@pytest.mark.parametrize("record", NO_RECORDS, ids=lambda record: f"{str(record)[:30]!a}")
def test_what_is_no_record(record: Any) -> None:
    exchange(record)


@pytest.mark.parametrize("use_list", [False, True])
@pytest.mark.parametrize("record", [*CUT, *LENGTHENED])
def test_where_arrays_are_lists(record: tuple[Any, ...], use_list: bool) -> None:
    exchange(record, opened(NativeSession(Codec(use_list=use_list), Limits(), {}), window=50))


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed_ones_are_not_counted(name: str) -> None:
    session, *_ = exchange(WELL_FORMED[name])
    assert session.malformed == 0


@pytest.mark.parametrize("name", WELL_FORMED)
@pytest.mark.parametrize("state", State)
def test_in_any_state(name: str, state: State) -> None:
    session = opened(native(), window=50)
    caller = start(session)
    if state is State.LOST:
        session.lost(ProtocolError("gone"), 0.0)
    session.state = state
    session.receive(message(WELL_FORMED[name]), 0.0)
    assert len(caller.outcomes) <= 1
    assert session.malformed == 0


@pytest.mark.parametrize(
    "record",
    [
        (CALL, 7),
        (CALL, 7, "method"),
        (CALL, 7, 5, []),
        (CALL, 7, b"method", []),
        (CALL, 7, "method", {}),
        (CALL, 7, "method", "args"),
        (CALL, 7, "method", b"args"),
        (CALL, 7, "method", None),
        (CALL, 7, "method", [], []),
        (CALL, 7, "method", [], None),
        (CALL, 7, "method", [], {}, "soon"),
        (CALL, 7, "method", [], {}, -1),
        # These cannot be unpacked.
        b"\x94\x01\x07\xa1m\x91\xc7\x01\x7e\x63",
        b"\x94\x01\x07\xa1m\x91\x81\x81\x01\x01\x01",
        b"\x94\x01\x07\xa1m\x91\xd4\x7f\x00",
        b"\x94\x01\x07\xa1m" + b"\x91" * 200 + b"\x90",
    ],
)
def test_an_malformed_call_is_answered(record: Any) -> None:
    session = opened(native())
    asked = session.receive(message(record, (CALL, 8, "good", ())), 0.0)
    assert [event[1] for event in asked] == [8]
    ((kind, call_id, name, _, text),) = sent(session)
    assert (kind, call_id, name) == (ERROR, 7, "berrymq_rpc.errors.ProtocolError")
    told = (
        "a malformed record",
        "a call is a method's name, an array and a map",
        "a deadline is a whole number of microseconds",
        "an ext value of type 126",
        "no value in msgpack",
        "a frame with a long byte string is missing",
        "nested more than 100 levels deep",
    )
    assert any(words in text for words in told), text
    assert session.malformed == 1


def test_the_answer_says_what_is_wrong_where_that_is_known() -> None:
    session = opened(native())
    session.receive(message((CALL, 7, 5, [])), 0.0)
    ((*_, text),) = sent(session)
    assert "a call is a method's name, an array and a map" in text


@pytest.mark.parametrize(
    "record",
    [
        (ERROR, 1, None, [], "text"),
        (ERROR, 1, b"builtins.ValueError", [], "text"),
        (ERROR, 1, "builtins.ValueError", "args", "text"),
        (ERROR, 1, "builtins.ValueError", {}, "text"),
        (ERROR, 1, "builtins.ValueError", [], None),
        (ERROR, 1, "builtins.ValueError", [], b"text"),
        (ERROR, 1, "builtins.ValueError", [], "text", 5),
        (ERROR, 1, "builtins.ValueError", [], "text", []),
    ],
)
def test_an_malformed_error_is_a_protocol_error(record: Any) -> None:
    session, caller, *_ = exchange(record)
    assert type(caller.error) is ProtocolError
    assert session.malformed == 1


@pytest.mark.parametrize("record", [(ERROR, 1, "builtins.ValueError", [], "text", None)])
def test_an_error_without_a_traceback_may_say_so(record: Any) -> None:
    _, caller, *_ = exchange(record)
    assert type(caller.error) is ValueError


@pytest.mark.parametrize("call_id", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("more", [(), ({},), ({}, 10**15)])
def test_any_whole_number_is_an_id(call_id: int, more: tuple[Any, ...]) -> None:
    session = opened(native())
    frames = message((CALL, call_id, "method", (), *more), (CANCEL, call_id), (PING, call_id))
    assert [event[1] for event in session.receive(frames, 0.0)] == [call_id, call_id]
    assert sent(session) == [[PONG, call_id]]


@pytest.mark.parametrize(
    "record",
    [
        (CALL,),
        (CALL, -7, "method", []),
        (CALL, "7", "method", []),
        (CALL, 7.0, "method", []),
        (CALL, True, "method", []),
        (CALL, None, "method", []),
        (CALL, [7], "method", []),
    ],
)
def test_a_call_without_a_readable_id_is_counted(record: Any) -> None:
    session = opened(native())
    assert session.receive(message(record), 0.0) == []
    assert session.messages(0.0) == []
    assert session.malformed == 1


def test_bytes_that_are_no_msgpack_end_the_message() -> None:
    """Where the next record begins cannot be known. The one that they are in is told."""
    session = opened(native())
    frames = message((CALL, 6, "good", ()), b"\x94\x01\x07\xa1m\xc1", (CALL, 8, "lost", ()))
    assert [event[1] for event in session.receive(frames, 0.0)] == [6]
    assert [record[:2] for record in sent(session)] == [[ERROR, 7]]


@pytest.mark.parametrize("record", [(RESULT, 1), (ERROR, 1, 5, [], ""), b"\x93\x04\x01\xc1"])
def test_the_text_for_the_caller_names_the_method(record: Any) -> None:
    session = opened(native())
    caller = start(session, "ns.add")
    session.receive(message(record), 0.0)
    assert isinstance(caller.error, ProtocolError)
    assert str(caller.error).startswith("the answer cannot be read: ")
    assert "'ns.add' was sent" in str(caller.error)


def test_order_is_kept_around_a_bad_record() -> None:
    session = opened(native())
    caller = start(session)
    frames = message((ITEM, 1, "first"), b"\x93\x07\x63" + NOTHING, (ITEM, 1, "second"), (END, 1))
    session.receive(frames, 0.0)
    assert caller.items == ["first", "second"]
    assert caller.outcomes == [("end",)]


def test_all_calls_of_a_window_that_cannot_be_unpacked_are_answered() -> None:
    session = opened(native())
    ids = range(256, 256 + Limits().window)
    bad = [b"\x94\x01\xcd" + i.to_bytes(2, "big") + b"\xa1m\x91" + NOTHING for i in ids]
    assert received(session, message(*bad)) == []
    assert [record[:2] for record in sent(session)] == [[ERROR, i] for i in ids]


def test_the_payload_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "berrymq_rpc.rpc")
    session = opened(native())
    session.receive(message(b"\x94\x01\x07\xa1m\xc1", ("secret" * 10_000,), (CALL, "secret")), 0.0)
    assert sum(len(record.getMessage()) for record in caplog.records) < 1000
    assert "secret" not in caplog.text


def test_a_peer_cannot_make_its_message_fill_the_memory() -> None:
    """Lengths that are lies: each is an array or map of 2^32 - 1 elements."""
    session = opened(native())
    for lie in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        head = HEAD.pack(b"\xc1bq", 1, 0, 0xDD, 0xFFFFFFFF)
        session.receive((head + b"\x94\x01\x07\xa1m" + lie * 1000,), 0.0)
    assert [record[:2] for record in sent(session)] == [[ERROR, 7]] * 3
