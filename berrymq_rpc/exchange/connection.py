"""A node's connections to other nodes: what all styles share, and style 02."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, Self

from ..common.backoff import Backoff
from ..errors import ConnectionLostError, RPCTimeoutError, ServiceClosedError
from ..identifier import Identifier
from ..rpc import Call, Client
from ..runtime.fork import OwnerProcess
from ..runtime.log import Log
from ..runtime.meter import Meter
from .status import INVALID_TOKEN, OK, TIMEOUT

__all__ = ["Connection", "Keeper", "OnewayConnection", "StreamKeeper"]

logger = Log("berrymq_rpc.exchange")

#: Seconds between two attempts to restore a connection: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Keeper(Protocol):
    """Keeps the peer from forgetting a connection."""

    def keep(self, token: str) -> AsyncGenerator[None, None]:
        """Use the token until the peer has forgotten it; yield each time that it is confirmed."""

    def forget(self, token: str) -> None:
        """The peer does not know the token any more, as another call has shown."""


class StreamKeeper:
    """A `Keeper` that uses a token by a stream, which ends when the peer does.

    Args:
        client: calls the peer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def keep(self, token: str) -> AsyncGenerator[None, None]:
        # The heartbeat ends the stream when the peer does not answer any more.
        stream = self._client.with_timeout(None).rpc.keep_alive((token,))
        async with aclosing(stream):
            async for statuses in stream:
                if statuses.get(token) != OK:
                    return
                yield

    def forget(self, token: str) -> None:
        """Do nothing: the stream ends by itself."""


class Connection(ABC):
    """One connection to a node. Made by a `Node`; close it, or use it with ``async with``.

    It is kept alive, and restored when the peer comes back, for as long as it is open. A peer that
    was away for longer than the ttl, or was restarted, has forgotten it; it is then registered
    again, and a warning is logged.

    Args:
        keeper: keeps it alive.
        endpoint: where the peer is.
        client: calls the peer; closed with the connection.
        ttl: seconds for which the peer keeps the connection when this process is gone.
        timeout: seconds that the peer has for each answer.
        on_close: called when the connection is closed.
    """

    #: berryMQ's number of the style.
    style: str

    def __init__(
        self,
        keeper: Keeper,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        on_close: Callable[["Connection"], object],
    ) -> None:
        self._keeper = keeper
        self._endpoint = endpoint
        self._client = client
        self._ttl = ttl
        self._timeout = timeout
        self._on_close = on_close
        self._owner = OwnerProcess("connection")
        #: ``None`` while the peer has given none.
        self._token: str | None = None
        self._has_token = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_up = True
        self._is_closed = False
        #: Whether it sends what is left, and is closed then: it does not try again.
        self._is_closing = False
        #: Called with ``"lost"`` or ``"restored"`` and what is known about it; set by the node.
        self.report: Callable[..., object] = lambda action, **about: None

    def measure(self, meter: Meter) -> None:
        """Have a meter count the calls to the peer from now on."""
        client: object = self._client
        # Those over plain HTTP have another kind, which counts nothing.
        if isinstance(client, Client):
            client.measure(meter)

    @property
    def endpoint(self) -> str:
        """Where the peer is."""
        return self._endpoint

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    @property
    def is_up(self) -> bool:
        """Whether the peer has answered when it was asked last."""
        return self._is_up and not self._is_closed

    async def send_message(self, identifier: Identifier | str, /, *args: Any, **kwargs: Any) -> str:
        """Send a message to the peer, which publishes it on its bus.

        Args:
            identifier: what the message is about.
            args: the message's arguments, of the kinds that calls may have.
            kwargs: those with names.

        Returns:
            The status of the peer, ``"ok"``. ``"invalid token"`` or ``"timeout"`` only if the
            peer has forgotten this connection twice in a row.

        Raises:
            ValueError, TypeError: `identifier` is not an identifier or is local, or an argument
                cannot be sent; nothing was sent.
            RPCTimeoutError: no answer in time. The message is taken back: if the peer has not
                published it by then, it does not.
            ConnectionLostError: the peer is gone, or did not appear in time.
            ServiceClosedError: this connection was closed, or the peer is closing.
        """
        parsed = Identifier(identifier).require_exportable()
        return str(await self._ask("send_message", parsed.id_str(), args, kwargs))

    async def close(self) -> None:
        """Close the connection; a peer that can be reached frees its part. Can be called again."""
        if self._is_closed or not self._owner.is_this:
            return
        self._is_closed = True
        self._has_token.set()
        self._on_close(self)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        try:
            if self._token is not None and self._is_up:
                await self._client.rpc.close_connection(self._token)
        except Exception as error:
            # The peer frees its part when the ttl expires.
            logger.debug(
                "connection to %s: closed, but the peer could not be asked to: %r",
                self._endpoint,
                error,
            )
        finally:
            self._client.close()
            await self._client.wait_closed()

    async def open(self) -> None:
        """Register at the peer, and keep the connection alive from then on. For `Node`.

        Raises:
            Exception: as the peer's function does; the connection is closed then.
        """
        try:
            self._set_token(await self._register())
            if self._is_closed:
                raise ServiceClosedError(
                    f"the connection to {self._endpoint} is closed: open a new one"
                )
        except BaseException:
            await self.close()
            raise
        self._task = asyncio.create_task(self._keep(), name=f"keep {self!r}")

    @abstractmethod
    async def _register(self) -> str:
        """Ask the peer for a connection; return its token."""

    def _peer_up(self) -> None:
        """The peer answers and knows the token."""
        if not self._is_up:
            self._is_up = True
            logger.info("connection to %s: restored", self._endpoint)
            self.report("restored", endpoint=self._endpoint, style=self.style)

    def _peer_down(self, error: Exception) -> None:
        """The peer does not answer, or answers with an error."""
        if self._is_up:
            self._is_up = False
            if self._is_closing:
                return
            # If the peer is gone, the error says only which call has noticed it.
            gone = isinstance(error, ConnectionLostError | ServiceClosedError)
            reason = "the peer is gone" if gone else repr(error)
            logger.warning("connection to %s: lost: %s; trying again", self._endpoint, reason)
            self.report("lost", endpoint=self._endpoint, style=self.style, reason=reason)

    async def _ask(self, name: str, *args: Any, client: Client | None = None) -> Any:
        """Call one of the peer's functions with the token.

        A token that the peer has forgotten was not used for anything, so the call is made once
        more with the next one.
        """
        if self._is_closed:
            raise ServiceClosedError(
                f"the connection to {self._endpoint} is closed: open a new one"
            )
        self._owner.check()
        client = client or self._client
        deadline = math.inf if client.timeout is None else self._now() + client.timeout
        token = await self._next_token(None, deadline)
        answer = await self._answer(name, client.call(name, token, *args))
        if answer != INVALID_TOKEN and (answer != TIMEOUT or self._times_out(name, args)):
            return answer
        token = await self._next_token(token, deadline)
        if deadline < math.inf:
            client = client.with_timeout(max(deadline - self._now(), FIRST_PAUSE))
        return await self._answer(name, client.call(name, token, *args))

    async def _answer(self, name: str, call: Call) -> Any:
        """Return what the call gives."""
        return await call

    def _times_out(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether "timeout" may be the answer of the call, and not the status of the token."""
        return False

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _next_token(self, old: str | None, deadline: float) -> str:
        """Wait for the token, and if it is `old`, for the next one."""
        if self._is_closed:
            # It was closed while the call ran: the peer has forgotten it as it was asked to.
            raise ServiceClosedError(
                f"the connection to {self._endpoint} is closed: open a new one"
            )
        if old is not None and self._token == old:
            self._forget_token()
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                while self._token is None:
                    await self._has_token.wait()
                    if self._is_closed:
                        raise ServiceClosedError(
                            f"the connection to {self._endpoint} is closed: open a new one"
                        )
        except TimeoutError:
            raise RPCTimeoutError(
                f"{self._endpoint} did not restore the connection in time: nothing was sent"
            ) from None
        return self._token

    def _set_token(self, token: str) -> None:
        self._token = token
        self._has_token.set()

    def _forget_token(self) -> None:
        """The peer does not know the token any more: `_keep` registers again."""
        if self._token is not None:
            self._keeper.forget(self._token)
        logger.warning(
            "connection to %s: forgotten by the peer; registering again, messages may be missing",
            self._endpoint,
        )
        self._token = None
        self._has_token.clear()
        if self._is_up:
            self._is_up = False
            reason = "the peer has forgotten it"
            self.report("lost", endpoint=self._endpoint, style=self.style, reason=reason)

    async def _keep(self) -> None:
        """Keep the peer from forgetting the connection; register again when it has."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            began = self._now()
            try:
                token = self._token
                if token is None:
                    token = await self._register()
                    self._set_token(token)
                await self._use_token(token)
            except Exception as error:
                self._peer_down(error)
            await asyncio.sleep(backoff.next(self._now() - began))

    async def _use_token(self, token: str) -> None:
        """Use the token until the peer has forgotten it."""
        async with aclosing(self._keeper.keep(token)) as confirmations:
            async for _ in confirmations:
                self._peer_up()
        if self._token == token:
            self._forget_token()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._is_up else "lost"
        return f"<{type(self).__name__} {self._endpoint} {state}>"


class OnewayConnection(Connection):
    """Style 02: this side only sends."""

    style = "02"

    def __init__(
        self,
        *args: Any,
        introduce: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """As `Connection`; `introduce` leaves the node's will at the peer, by the token."""
        super().__init__(*args)
        self._introduce = introduce

    async def _register(self) -> str:
        token = str(await self._client.rpc.connect_oneway(self._ttl))
        if self._introduce is not None:
            await self._introduce(token)
        return token
