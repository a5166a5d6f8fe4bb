"""Two joined sessions doing all that they can in any order: each call has exactly one outcome.

Messages arrive late, but whole and in order, as transports promise. Each side calls and serves.
"""

from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from joined import DIALECTS, Recorder, check

from berrymq_rpc.errors import ConnectionLostError, ServiceClosedError
from berrymq_rpc.rpc.wire.exception_codec import Failure
from berrymq_rpc.rpc.wire.limits import Limits
from berrymq_rpc.rpc.wire.native_records import MIN_DETACHED
from berrymq_rpc.rpc.wire.record import ACKNOWLEDGE, CALL, CANCEL, CREDIT, GOODBYE, NOTIFY
from berrymq_rpc.rpc.wire.session import Session, State

WINDOW = 3
LIMITS = Limits(window=WINDOW)
CANCELLED = Failure("asyncio.exceptions.CancelledError", (), "CancelledError()")
FAILURE = Failure("builtins.ValueError", ("x",), "ValueError('x')")
PAYLOADS = [None, 5, "text", b"x" * MIN_DETACHED, ["y" * 70_000, b"z" * 20_000]]


class Caller(Recorder):
    """A call, and what became of it in the model."""

    given_up = False


class End:
    """One of the two: its session, the calls it made, and those of the other that it serves."""

    def __init__(self, dialect: str) -> None:
        self.ids = count(1)
        self.dialect = dialect
        self.callers: list[Caller] = []
        self.reconnect()
        self.waiting: Session = DIALECTS[dialect].session(LIMITS, ids=self.ids)

    def reconnect(self) -> None:
        self.session: Any = DIALECTS[self.dialect].session(LIMITS, ids=self.ids)
        #: Ids of the calls that it serves and has not answered, and whether they hold a slot.
        self.serving: dict[Any, bool] = {}
        self.arriving: list[Any] = []
        self.unacknowledged: set[Any] = set()


class Machine(RuleBasedStateMachine):
    dialect = "native"

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.ends = (End(self.dialect), End(self.dialect))
        self.connect()

    def connect(self) -> None:
        for end in self.ends:
            end.session.connected(self.now)
            end.session.adopt(end.waiting.take_backlog(), self.now)

    def other(self, end: End) -> End:
        return self.ends[end is self.ends[0]]

    # -- what happens ------------------------------------------------------------------------

    @rule(
        side=st.integers(0, 1),
        payload=st.sampled_from(PAYLOADS),
        timeout=st.none() | st.floats(0.1, 20),
    )
    def call(self, side: int, payload: Any, timeout: float | None) -> None:
        end = self.ends[side]
        caller = Caller("method", None if timeout is None else self.now + timeout)
        arguments = (caller, "method", (payload,), {}, self.now)
        try:
            end.session.call(*arguments)
        except ServiceClosedError:
            assert end.session.state is State.CLOSING
            end.waiting.call(*arguments)
        end.callers.append(caller)

    @rule(side=st.integers(0, 1), payload=st.sampled_from(PAYLOADS))
    def notify(self, side: int, payload: Any) -> None:
        session = self.ends[side].session
        if session.state is State.OPEN:
            session.notify("log", (payload,), {}, self.now)

    @rule(side=st.integers(0, 1), data=st.data())
    def cancel(self, side: int, data: st.DataObject) -> None:
        end = self.ends[side]
        if end.callers:
            caller = data.draw(st.sampled_from(end.callers))
            if not caller.outcomes:
                caller.given_up = True
            end.session.cancel(caller.id)
            end.waiting.cancel(caller.id)

    @rule(side=st.integers(0, 1))
    def flush(self, side: int) -> None:
        end = self.ends[side]
        self.other(end).arriving += end.session.messages(self.now)

    @rule(side=st.integers(0, 1))
    def arrive(self, side: int) -> None:
        end = self.ends[side]
        if not end.arriving:
            return
        for event in end.session.receive(end.arriving.pop(0), self.now):
            kind, call_id, *_ = event
            if kind == CALL:
                assert call_id not in end.serving
                end.serving[call_id] = True
            elif kind == CANCEL and call_id in end.serving:
                del end.serving[call_id]
                end.session.error(call_id, CANCELLED)
            elif kind in (CANCEL, ACKNOWLEDGE):
                end.unacknowledged.discard(call_id)
            elif kind == GOODBYE:
                end.waiting.adopt(end.session.take_backlog(), self.now)
            else:
                assert kind in (NOTIFY, CREDIT)
        assert end.session.malformed == 0

    @rule(
        side=st.integers(0, 1),
        payload=st.sampled_from(PAYLOADS),
        how=st.sampled_from(["result", "acknowledged result", "error", "end", "closed"]),
        data=st.data(),
    )
    def answer(self, side: int, payload: Any, how: str, data: st.DataObject) -> None:
        end = self.ends[side]
        if not end.serving:
            return
        call_id = data.draw(st.sampled_from(list(end.serving)))
        del end.serving[call_id]
        if how == "error" or (how == "end" and self.dialect != "native"):
            end.session.error(call_id, FAILURE)
        elif how == "end":
            end.session.end(call_id)
        elif how == "closed":
            end.session.closed(call_id, "closing", began=payload is None)
        else:
            wanted = how == "acknowledged result" and end.session.acknowledges
            end.session.result(call_id, payload, acknowledge=wanted)
            if wanted:
                end.unacknowledged.add(call_id)

    @rule(side=st.integers(0, 1), share=st.floats(0, 1), released=st.booleans())
    def accept(self, side: int, share: float, released: bool) -> None:
        end = self.ends[side]
        running = list(end.serving)[: int(share * len(end.serving) + 0.5)]
        if self.dialect == "native" and running:
            for call_id in running if released else ():
                end.serving[call_id] = False
            end.session.accepted(running, running if released else [])

    @rule(side=st.integers(0, 1), payload=st.sampled_from(PAYLOADS), data=st.data())
    def item(self, side: int, payload: Any, data: st.DataObject) -> None:
        end = self.ends[side]
        if self.dialect == "native" and end.serving:
            end.session.item(data.draw(st.sampled_from(list(end.serving))), payload)

    @rule(side=st.integers(0, 1), data=st.data())
    def credit(self, side: int, data: st.DataObject) -> None:
        end = self.ends[side]
        if end.session.pending:
            end.session.credit(data.draw(st.sampled_from(list(end.session.pending))), 1)

    @rule(seconds=st.floats(0, 3))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            for session in (end.session, end.waiting):
                when = session.next_deadline()
                session.expire(self.now)
                left = session.next_deadline()
                assert left is None or left > self.now
                assert when is None or left is None or left >= when

    @precondition(lambda self: self.dialect == "native")
    @rule(side=st.integers(0, 1))
    def say_goodbye(self, side: int) -> None:
        self.ends[side].session.goodbye("closing")

    @rule()
    def lose(self) -> None:
        """The line is cut, with what is under way; then there is another."""
        for end in self.ends:
            end.session.lost(ConnectionLostError("gone"), self.now)
            check(end.session)
            end.reconnect()
        self.connect()

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def tables_agree(self) -> None:
        for end in self.ends:
            check(end.session)
            check(end.waiting)

    @invariant()
    def no_peer_is_asked_more_than_its_window(self) -> None:
        for end in self.ends:
            assert 0 <= end.session.in_window <= WINDOW
            if self.dialect == "native":
                assert sum(end.serving.values()) <= WINDOW

    @invariant()
    def nobody_is_told_twice(self) -> None:
        for end in self.ends:
            for caller in end.callers:
                assert len(caller.outcomes) + caller.given_up <= 1

    def teardown(self) -> None:
        """Let all that is asked be answered."""
        for _ in range(3 * sum(len(end.callers) for end in self.ends) + 10):
            for end in self.ends:
                self.other(end).arriving += end.session.messages(self.now)
                while end.arriving:
                    self.arrive(self.ends.index(end))
                for call_id in list(end.serving):
                    del end.serving[call_id]
                    end.session.result(call_id, None)
        for end in self.ends:
            assert end.session.in_window == 0
            assert not end.session.pending
            assert not end.session.abandoned
            assert not end.session.released
            assert not end.unacknowledged
            # What the peer's goodbye came before waits for another peer.
            end.waiting.lost(ConnectionLostError("nobody came"), self.now)
            for caller in end.callers:
                assert len(caller.outcomes) + caller.given_up == 1
            assert end.session.idle


class AiozmqMachine(Machine):
    dialect = "aiozmq"


TestNative = Machine.TestCase
TestAiozmq = AiozmqMachine.TestCase
TestNative.settings = TestAiozmq.settings = settings(stateful_step_count=60, max_examples=60)
