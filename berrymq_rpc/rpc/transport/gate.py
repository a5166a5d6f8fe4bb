"""Ask whether a key may come in, without waiting: a user's function may take any time."""

import asyncio
import contextlib
from collections.abc import Awaitable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from ...runtime.log import Log
from ...runtime.worker_thread import WorkerThread
from ...security.authorization import Authorization

__all__ = ["Gate"]

logger = Log("berrymq_rpc.security")


class Gate:
    """Who may come in by one socket.

    Args:
        authorization: answers for each key.
        loop: where async functions run; ``None`` in programs without asyncio.
        endpoint: the socket's address, for the log.
        max_waiting: keys that wait for a user's function; further ones are refused.
    """

    def __init__(
        self,
        authorization: Authorization,
        loop: asyncio.AbstractEventLoop | None,
        endpoint: str,
        max_waiting: int,
    ) -> None:
        self.authorization = authorization
        self.endpoint = endpoint
        self._loop = loop
        #: Runs a user's functions, so that one which blocks holds up this socket alone.
        self._worker = (
            WorkerThread("authorization", max_items=max_waiting, logger=logger)
            if authorization.may_block
            else None
        )

    def ask(self, key: str) -> "Future[Any]":
        """Ask whether a key may come in."""
        future: Future[Any] = Future()
        if self._worker is None:
            self._ask(key, future)
        else:
            self._worker.put(lambda: self._ask(key, future))
        return future

    def _ask(self, key: str, future: "Future[Any]") -> None:
        try:
            answer = self.authorization.check(key)
            if not isinstance(answer, Awaitable):
                _settle(future, answer)
            elif self._loop is None:
                _close(answer)
                raise TypeError("authorized is an async function, and this server has no loop")
            else:
                asked = asyncio.run_coroutine_threadsafe(_awaited(answer), self._loop)
                asked.add_done_callback(lambda done: _pass_on(done, future))
                future.add_done_callback(lambda done: done.cancelled() and asked.cancel())
        except BaseException as error:
            _settle(future, error=error)

    def close(self) -> None:
        """Let the thread of the user's functions end."""
        if self._worker is not None:
            self._worker.stop(0.0)


def _settle(
    future: "Future[Any]", answer: object = None, error: BaseException | None = None
) -> None:
    # An answer that came too late is dropped.
    with contextlib.suppress(InvalidStateError):
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)


def _pass_on(done: "Future[Any]", future: "Future[Any]") -> None:
    if done.cancelled():
        _settle(future, error=RuntimeError("the event loop ended"))
    elif (error := done.exception()) is not None:
        _settle(future, error=error)
    else:
        _settle(future, done.result())


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _close(answer: Awaitable[Any]) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()
