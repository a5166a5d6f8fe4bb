"""What a test hears on a bus, and what it expects there: `Heard`."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..bus import Bus, Message
from ..identifier import Identifier
from ..rpc.validation import checked_seconds
from .loop import running_loop

__all__ = ["Heard"]

#: Seconds that `Heard.expect` waits, unless the test says otherwise.
TIMEOUT = 5.0

#: Messages that a failure shows.
SHOWN = 20


class Heard:
    """The messages of an identifier since `Kit.listen`, oldest first. Any thread may use it.

    It iterates over its messages, and `messages` has them as a list. Each message that was expected
    is taken once: two that are alike are two `expect`.
    """

    def __init__(self, bus: Bus, identifier: Identifier | str) -> None:
        self._bus = bus
        self.identifier = Identifier(identifier)
        self._changed = threading.Condition()
        self._messages: list[tuple[float, Message]] = []
        self._expected: set[int] = set()
        self._began = time.monotonic()
        #: The tasks that wait: their loops, and what wakes them there.
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        bus.regist_function(self.identifier, self._receive)

    def _receive(self, message: Message) -> None:
        with self._changed:
            self._messages.append((time.monotonic() - self._began, message))
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    @property
    def messages(self) -> list[Message]:
        """All messages so far, whether they were expected or not."""
        with self._changed:
            return [message for _, message in self._messages]

    def expect(
        self,
        identifier: Identifier | str,
        /,
        *args: Any,
        timeout: float = TIMEOUT,
        **kwargs: Any,
    ) -> Message:
        """Take the first message that matches; wait for it, if it has not come.

        Args:
            identifier: what it is about; wildcards match as for followers.
            args, kwargs: the message's, all of them. Without any, its arguments do not matter.
            timeout: seconds to wait.

        Returns:
            The message.

        Raises:
            AssertionError: none has come in time; the text has what was heard.
            ValueError: `identifier` can match nothing that is listened to here.
            RuntimeError: it has not come, and to wait would hold the event loop that runs in this
                thread: ``await heard.wait(...)`` instead.
        """
        __tracebackhide__ = True
        wanted = self._wanted(identifier, args, kwargs)
        end = time.monotonic() + checked_seconds(timeout, "timeout", zero=True)
        with self._changed:
            while (found := self._take(wanted)) is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(self._missing(identifier, args, kwargs, timeout))
                if running_loop() is not None:
                    raise RuntimeError(
                        f"{self._missing(identifier, args, kwargs, 0)}\nTo wait for it in an async "
                        "test: await heard.wait(...), with the same arguments"
                    )
                self._changed.wait(left)
        return found

    async def wait(
        self,
        identifier: Identifier | str,
        /,
        *args: Any,
        timeout: float = TIMEOUT,
        **kwargs: Any,
    ) -> Message:
        """`expect` for async tests: the event loop runs on while it waits.

        Cancelling it takes no message.
        """
        __tracebackhide__ = True
        wanted = self._wanted(identifier, args, kwargs)
        loop = asyncio.get_running_loop()
        end = loop.time() + checked_seconds(timeout, "timeout", zero=True)
        while True:
            came = asyncio.Event()
            with self._changed:
                found = self._take(wanted)
                if found is not None:
                    return found
                self._waiters.append((loop, came))
            try:
                async with asyncio.timeout_at(end):
                    await came.wait()
            except TimeoutError:
                raise AssertionError(self._missing(identifier, args, kwargs, timeout)) from None

    def expect_none(
        self, identifier: Identifier | str = "*:*", /, *args: Any, **kwargs: Any
    ) -> None:
        """Fail if a message that matches has come and was not expected.

        It does not wait: first expect what comes last.

        Args:
            identifier, args, kwargs: as of `expect`; without any, no message at all.

        Raises:
            AssertionError: one has come; the text has what was heard.
            ValueError: as `expect`.
        """
        __tracebackhide__ = True
        wanted = self._wanted(identifier, args, kwargs)
        with self._changed:
            for index, (_, message) in enumerate(self._messages):
                if index not in self._expected and wanted(message):
                    raise AssertionError(
                        f"heard {_shown(message.id, message.args, message.kwargs)}, and expected "
                        f"no {_wanted_text(identifier, args, kwargs)}\n{self._report()}"
                    )

    def clear(self) -> None:
        """Forget what was heard so far."""
        with self._changed:
            self._messages.clear()
            self._expected.clear()

    def close(self) -> None:
        """Hear nothing more. The kit does so at the end of the test."""
        self._bus.unfollow(self.identifier, self._receive)

    def _wanted(
        self, identifier: Identifier | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[Message], bool]:
        __tracebackhide__ = True
        parsed = Identifier(identifier)
        if not parsed.is_match(self.identifier):
            raise ValueError(
                f"{str(parsed)!r} is never heard here: this listens to {str(self.identifier)!r}"
            )

        def matches(message: Message) -> bool:
            if not parsed.is_match(Identifier(message.id)):
                return False
            return not (args or kwargs) or (message.args == args and message.kwargs == kwargs)

        return matches

    def _take(self, wanted: Callable[[Message], bool]) -> Message | None:
        for index, (_, message) in enumerate(self._messages):
            if index not in self._expected and wanted(message):
                self._expected.add(index)
                return message
        return None

    def _missing(self, identifier: object, args: Any, kwargs: Any, timeout: float) -> str:
        within = f" within {timeout:g} s" if timeout else ""
        return f"no {_wanted_text(identifier, args, kwargs)} came{within}\n{self._report()}"

    def _report(self) -> str:
        if not self._messages:
            return f"heard nothing on {str(self.identifier)!r}"
        lines = [f"heard {len(self._messages)} on {str(self.identifier)!r}:"]
        for index, (when, message) in enumerate(self._messages[:SHOWN]):
            shown = _shown(message.id, message.args, message.kwargs)
            taken = ", expected before" if index in self._expected else ""
            lines.append(f"  {shown} after {when:.3f} s{taken}")
        if len(self._messages) > SHOWN:
            lines.append(f"  and {len(self._messages) - SHOWN} more")
        return "\n".join(lines)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"<Heard {len(self)} on {self.identifier}>"


def _wanted_text(identifier: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    # Without arguments, those of the message do not matter.
    return _shown(identifier, args, kwargs) if args or kwargs else str(identifier)


def _shown(identifier: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A message as text: ``oven:log(42, unit='C')``."""
    arguments = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    text = ", ".join(arguments)
    return f"{identifier}({text if len(text) <= 200 else text[:197] + '...'})"
