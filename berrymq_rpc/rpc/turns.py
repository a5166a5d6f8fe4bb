"""Turns: how long one peer may hold the event loop, and who goes on in the next turn of it.

What a peer sends costs what it likes: a message may hold thousands of calls. So a peer is served
for a share of a second at a time, and what is left waits (`connection.Connection.postpone`,
`inbound.Inbound.stalled`). Between two turns the event loop serves everybody else.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol

__all__ = ["MAX_STARTED", "MIN_STARTED", "TURN", "TurnTaker", "Turns"]

#: Seconds for which peers are served in one turn of the event loop. Others wait for a few of these
#: at most; much shorter ones would spend the time on turns.
TURN = 0.01

#: Seconds that each of many peers has in a turn.
_MIN_SHARE = 0.001

#: Calls of one peer that are started in a turn, most and least: the first step of each runs before
#: anything else does, however long it takes.
MAX_STARTED = 50
MIN_STARTED = 5


class TurnTaker(Protocol):
    """A peer with work left: its `connection.Connection`."""

    loop: asyncio.AbstractEventLoop

    def take_turn(self, end: float) -> bool:
        """Go on until `end`, and return whether work is left."""

    def end_turns(self) -> None:
        """Drop what is left, as this side has closed."""


class Turns:
    """The peers with work left, which go on one after another, a turn each.

    All peers of a client or server share one, so that many of them hold the event loop no longer
    than one does.
    """

    def __init__(self) -> None:
        self._waiting: deque[TurnTaker] = deque()
        self._is_scheduled = False

    def add(self, taker: TurnTaker) -> None:
        """Have a peer go on in the next turn of the event loop."""
        self._waiting.append(taker)
        self._schedule(taker)

    def _schedule(self, taker: TurnTaker) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            taker.loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        waiting = self._waiting
        now = monotonic()
        end = now + TURN
        for left in range(len(waiting), 0, -1):
            if now >= end or not waiting:
                break
            taker = waiting.popleft()
            share = max(_MIN_SHARE, (end - now) / left)
            is_left = True
            try:
                is_left = taker.take_turn(now + share)
            finally:
                # A handler may end the event loop by a KeyboardInterrupt.
                if is_left:
                    waiting.append(taker)
            now = monotonic()
        if waiting:
            self._schedule(waiting[0])

    def close(self) -> None:
        """Drop what is left."""
        waiting = list(self._waiting)
        self._waiting.clear()
        for taker in waiting:
            taker.end_turns()
