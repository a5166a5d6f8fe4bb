"""The way between a client and a server over TCP, by a proxy that a test makes fail."""

import asyncio
from collections.abc import Callable

from ..rpc.validation import checked_seconds
from .link import Link, Towards, UnsupportedFault, checked_towards
from .loop import run_on
from .message_faults import MessageFaults
from .tcp_proxy import Direction, TcpProxy

__all__ = ["TcpLink"]


class TcpLink(Link):
    """A proxy that has been started on the running event loop.

    Args:
        proxy: the proxy.
        endpoint: what connects to it.
        messages: which messages are lost or come twice; ``None`` if it does not know messages.
    """

    def __init__(self, proxy: TcpProxy, endpoint: str, messages: MessageFaults | None) -> None:
        self.endpoint = endpoint
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._messages = messages
        self._is_down = False
        self._is_killed = False
        if messages is not None:
            proxy.filters = messages.filter

    @property
    def delay(self) -> float:
        return self._proxy.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._proxy.delay = checked_seconds(seconds, "delay", zero=True)

    def drop(self, count: int = 1, *, towards: Towards) -> None:
        __tracebackhide__ = True
        direction = _direction(towards)
        self._known_messages("loses").drops[direction] += count

    def duplicate(self, count: int = 1, *, towards: Towards) -> None:
        __tracebackhide__ = True
        direction = _direction(towards)
        self._known_messages("repeats").duplicates[direction] += count

    def cut(self) -> None:
        self._run(self._proxy.close)

    def down(self) -> None:
        self._is_down = True
        self._run(self._proxy.refuse)

    def up(self) -> None:
        self._is_down = False
        self._run(self._take_again)

    def kill(self) -> None:
        self._is_killed = True
        self._run(self._proxy.refuse)
        self._run(self._proxy.resume)

    def revive(self) -> None:
        self._is_killed = False
        self._run(self._take_again)

    def freeze(self) -> None:
        self._run(self._proxy.pause)

    def thaw(self) -> None:
        self._run(self._proxy.resume)

    async def close(self) -> None:
        await self._proxy.aclose()

    def _take_again(self) -> None:
        self._proxy.refuses = self._is_down or self._is_killed

    def _run(self, change: Callable[[], None]) -> None:
        run_on(self._loop, change)

    def _known_messages(self, what: str) -> MessageFaults:
        __tracebackhide__ = True
        if self._messages is None:
            raise UnsupportedFault(f"over NATS no link {what} single messages")
        return self._messages


def _direction(towards: Towards) -> Direction:
    __tracebackhide__ = True
    return "up" if checked_towards(towards) == "server" else "down"
