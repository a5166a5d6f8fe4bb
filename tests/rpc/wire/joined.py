"""Two sessions joined back to back, with a clock that a test sets, and callers that take notes."""

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack

from berrymq_rpc.rpc.wire.aiozmq_codec import AiozmqCodec
from berrymq_rpc.rpc.wire.aiozmq_dialect import AiozmqDialect, AiozmqSession
from berrymq_rpc.rpc.wire.codec import Codec
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_session import NativeDialect, NativeSession
from berrymq_rpc.rpc.wire.record import InboundEvent
from berrymq_rpc.rpc.wire.session import Frames, Session, State

NATIVE = NativeDialect(Codec(), {})
AIOZMQ = AiozmqDialect(AiozmqCodec(), {}, (0x1111, 0x2222))
DIALECTS = {"native": NATIVE, "aiozmq": AIOZMQ}


class Recorder:
    """A call of this side that records its outcome."""

    made_at = 0.0
    accepted_at: float | None = None

    def __init__(self, method: str = "method", deadline: float | None = None) -> None:
        self.id = 0
        self.method = method
        self.deadline = deadline
        self.sent: float | None = None
        #: Each last word: ``("result", value)``, ``("error", exception)`` or ``("end",)``.
        self.outcomes: list[tuple[Any, ...]] = []
        self.items: list[Any] = []
        #: Each acceptance: the time, and whether the slot was released.
        self.acceptances: list[tuple[float, bool]] = []

    def succeed(self, value: Any, /) -> None:
        self.outcomes.append(("result", value))

    def fail(self, error: BaseException, /) -> None:
        self.outcomes.append(("error", error))

    def refused(self, error: BaseException, /) -> None:
        self.outcomes.append(("refused", error))

    def accepted(self, now: float, released: bool, /) -> None:
        self.accepted_at = now
        self.acceptances.append((now, released))

    def item(self, value: Any, /) -> None:
        self.items.append(value)

    def end(self) -> None:
        self.outcomes.append(("end",))

    @property
    def value(self) -> Any:
        """The result, which must be the only outcome."""
        assert [outcome[0] for outcome in self.outcomes] == ["result"], self.outcomes
        return self.outcomes[0][1]

    @property
    def error(self) -> BaseException:
        """The error, which must be the only outcome."""
        assert [outcome[0] for outcome in self.outcomes] == ["error"], self.outcomes
        return self.outcomes[0][1]


def native(limits: Limits | None = None, **settings: Any) -> NativeSession:
    """A native session that is not connected."""
    return NATIVE.session(limits or Limits(), **settings)


def aiozmq(limits: Limits | None = None, **settings: Any) -> AiozmqSession:
    """An aiozmq.rpc session that is not connected."""
    return AIOZMQ.session(limits or Limits(), **settings)


def opened(session: Any, now: float = 0.0, window: int | None = None) -> Any:
    """The session, connected, its greeting taken out; with a window that the peer told."""
    session.connected(now)
    session.messages(now)
    if window is not None:
        session.window = window
    return session


def connected(limits: Limits | None = None, **settings: Any) -> NativeSession:
    """A native session, connected, its greeting taken out."""
    session: NativeSession = opened(native(limits), **settings)
    return session


def start(
    session: Session,
    method: str = "method",
    *args: Any,
    now: float = 0.0,
    deadline: float | None = None,
    **kwargs: Any,
) -> Recorder:
    """Make a call."""
    caller = Recorder(method, deadline)
    caller.made_at = now
    session.call(caller, method, args, kwargs, now)
    return caller


# -- native messages, made and read by hand --------------------------------------------------

HEAD = struct.Struct(">3sBQBI")


def pack(value: Any) -> bytes:
    """Plain msgpack."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def message(*records: Any, clock: int = 0) -> tuple[bytes]:
    """The native message of some records; `bytes` stand for a record that is packed already."""
    body = b"".join(r if isinstance(r, bytes) else pack(r) for r in records)
    return (HEAD.pack(b"\xc1bq", 1, clock, 0xDD, len(records)) + body,)


def records(frames: Frames) -> list[Any]:
    """The records of a native message without frames of its own."""
    (head,) = frames
    prefix, version, _, array, count = HEAD.unpack_from(head)
    assert (prefix, version, array) == (b"\xc1bq", 1, 0xDD)
    found: list[Any] = msgpack.unpackb(bytes(head[12:]), strict_map_key=False)
    assert len(found) == count
    return found


def received(session: Session, frames: Frames, now: float = 0.0) -> list[Any]:
    """What a message asks, all of its records taken."""
    asked = session.receive(frames, now)
    while session.unread:
        asked += session.receive_rest(now)
    return asked


def sent(session: Session, now: float = 0.0) -> list[Any]:
    """The records of all messages that wait, none of which may have frames of its own."""
    return [record for frames in session.messages(now) for record in records(frames)]


# -- two sessions ----------------------------------------------------------------------------


class Side:
    """One of the two: its session, what it was asked, and what is under way to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.asked: list[InboundEvent] = []
        self.arriving: deque[Frames] = deque()


class Pair:
    """Two connected sessions, and the messages between them.

    Args:
        dialect: that of both.
        client, server: the limits of each.
        offset: how many seconds the server's clock is ahead.
    """

    def __init__(
        self,
        dialect: str = "native",
        client: Limits | None = None,
        server: Limits | None = None,
        offset: float = 0.0,
    ) -> None:
        make = DIALECTS[dialect].session
        self.now = 1000.0
        self.offset = offset
        self.left = Side(make(client or Limits()))
        self.right = Side(make(server or Limits()))
        self.client: Any = self.left.session
        self.server: Any = self.right.session
        self.client.connected(self.now)
        self.server.connected(self.now + offset)

    def settled(self) -> "Pair":
        """The pair after its greetings."""
        self.shuttle()
        return self

    def flush(self) -> None:
        """Put what waits on its way."""
        self.right.arriving.extend(self.client.messages(self.now))
        self.left.arriving.extend(self.server.messages(self.now + self.offset))
        self.check()

    def deliver(self, side: Side, index: int = 0) -> list[InboundEvent]:
        """Let one message arrive, the oldest unless told otherwise."""
        frames = side.arriving[index]
        del side.arriving[index]
        now = self.now + (self.offset if side is self.right else 0.0)
        asked = received(side.session, frames, now)
        side.asked += asked
        self.check()
        return asked

    def shuttle(self, answer: Callable[[InboundEvent], None] | None = None) -> None:
        """Let everything arrive, until nothing more is said; `answer` serves the server's part."""
        self.flush()
        while self.left.arriving or self.right.arriving:
            for side in (self.right, self.left):
                while side.arriving:
                    for event in self.deliver(side):
                        if answer is not None and side is self.right:
                            answer(event)
            self.flush()

    def call(
        self, method: str = "method", *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> Recorder:
        """Make a call from the client."""
        deadline = None if timeout is None else self.now + timeout
        return start(self.client, method, *args, now=self.now, deadline=deadline, **kwargs)

    def check(self) -> None:
        """Both sessions' tables agree."""
        check(self.client)
        check(self.server)


def check(session: Any) -> None:
    """The tables of a session agree with each other."""
    under_way = {i for i, caller in session.pending.items() if caller.sent is not None}
    waiting = {entry.caller.id for entry in session.backlog if entry.caller is not None}
    assert session.pending.keys() - under_way <= waiting
    if session.state is State.LOST:
        tables = (session.pending, session.backlog, session.abandoned, session.released)
        assert not any(tables)
        assert session.in_window == 0
        if isinstance(session, AiozmqSession):
            assert not session.wire_ids
            assert not session.call_ids
        return
    assert not under_way & session.abandoned
    assert session.released <= under_way | session.abandoned
    assert session.in_window == len((under_way | session.abandoned) - session.released)
    if isinstance(session, AiozmqSession):
        assert session.wire_ids == {call: wire for wire, call in session.call_ids.items()}
        assert session.wire_ids.keys() <= under_way
