"""Messages: what receivers are called with, and what queues give."""

import reprlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from ..identifier import Identifier

__all__ = [
    "DeadMessage",
    "Message",
    "OutcomeMessage",
    "RelayedMessage",
    "RetainedMessage",
    "TalkMessage",
    "identifier_of",
    "original_of",
    "parts_of",
]

Result = TypeVar("Result")

# Characters of a message's `repr`: it goes into logs, and arguments may be of any size.
MAX_REPR = 400

_arguments = reprlib.Repr()
_arguments.maxlevel = 3
_arguments.maxstring = _arguments.maxother = 80


class Message:
    """What was sent. The bus makes it; all receivers share one.

    Each keyword argument can be read as an attribute as well, unless its name is that of an
    attribute below or begins with two underscores: ``message.kwargs["id"]`` is the argument,
    ``message.id`` the identifier.
    """

    __slots__ = ("__weakref__", "_args", "_identifier", "_kwargs")

    def __init__(
        self, identifier: Identifier, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._identifier = identifier
        self._args = args
        self._kwargs = kwargs

    @property
    def id(self) -> str:
        """The canonical text of the identifier that it was sent with, such as ``"job:done"``."""
        return self._identifier.id_str()

    @property
    def name(self) -> str:
        """The identifier's name."""
        return self._identifier.name

    @property
    def namespace(self) -> str | None:
        """The identifier's namespace, or `None`."""
        return self._identifier.namespace

    @property
    def action(self) -> str:
        """The identifier's action."""
        return self._identifier.action

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return self._args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments, shared by all receivers."""
        return self._kwargs

    @property
    def origin(self) -> Any:
        """The name of the node that it comes from; `None` for this process."""
        return None

    @property
    def retained(self) -> bool:
        """Whether it was sent before its receiver followed, and the bus has kept it.

        See `Bus.retain`.
        """
        return False

    @property
    def reply_to(self) -> str | None:
        """The canonical text of the identifier to which the answers of `Bus.talk` go.

        `None` if the message was not sent by `talk`, or if that identifier is local: answers from
        other processes do not reach it.
        """
        return None

    @property
    def error(self) -> Any:
        """The exception of a receiver, in its answer to `Bus.talk` or sent by `twitter_exception`.

        For other messages the keyword argument of that name, or `None`.
        """
        return self._kwargs.get("error")

    def apply(self, func: Callable[..., Result]) -> Result:
        """Call `func` with the message's arguments, and return its result."""
        return func(*self._args, **self._kwargs)

    def __getattr__(self, name: str) -> Any:
        # Called only for what is not a field. Private names come here in a message that has not
        # been filled yet, as `copy` makes it.
        if not name.startswith("__") and name not in Message.__slots__:
            try:
                return self._kwargs[name]
            except KeyError:
                pass
        raise AttributeError(f"the message has no argument {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        args, kwargs = _shown(self._args), _shown(self._kwargs)
        text = f"<Message {self.id} args={args} kwargs={kwargs}>"
        return text if len(text) <= MAX_REPR else f"{text[: MAX_REPR - 4]}...>"


class RelayedMessage(Message):
    """A message that came from another process."""

    __slots__ = ("_origin",)

    def __init__(
        self, identifier: Identifier, args: tuple[Any, ...], kwargs: dict[str, Any], origin: Any
    ) -> None:
        self._identifier = identifier
        self._args = args
        self._kwargs = kwargs
        self._origin = origin

    @property
    def origin(self) -> Any:
        return self._origin


class DeadMessage(RelayedMessage):
    """A message that a queue has delivered as often as it may, without success."""

    __slots__ = ("_dead",)

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: Any,
        dead: dict[str, Any],
    ) -> None:
        super().__init__(identifier, args, kwargs, origin)
        self._dead = dead

    @property
    def dead(self) -> dict[str, Any]:
        """What became of it.

        ``identifier``: that of the message before; ``queue``: that of the queue; ``tries``: how
        often it was delivered; ``error``: why it came back the last time.
        """
        return self._dead


class RetainedMessage(Message):
    """A message that the bus has kept, for receivers that follow later."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        super().__init__(message._identifier, message._args, message._kwargs)
        self._message = message

    @property
    def retained(self) -> bool:
        return True

    @property
    def origin(self) -> Any:
        return self._message.origin

    @property
    def error(self) -> Any:
        return self._message.error

    def __getattr__(self, name: str) -> Any:
        # Such as `dead`. A copy that is not filled yet has not even a message.
        if name == "_message":
            raise AttributeError(name)
        return getattr(self._message, name)


class TalkMessage(Message):
    """A message whose receivers answer."""

    __slots__ = ("_reply_to",)

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reply_to: Identifier,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._reply_to = reply_to

    @property
    def reply_to(self) -> str | None:
        return None if self._reply_to.is_local else str(self._reply_to)


class OutcomeMessage(Message):
    """A message with an outcome: what a receiver answers, or what was raised."""

    __slots__ = ("_error", "_origin")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException | None,
        origin: Any = None,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._error = error
        self._origin = origin

    @property
    def origin(self) -> Any:
        return self._origin

    @property
    def error(self) -> Any:
        return self._error


#: The canonical text of a message's identifier, its args and its kwargs: all in one call of C, as
#: forwarders read them of each message that is sent.
parts_of: Callable[[Message], tuple[str, tuple[Any, ...], dict[str, Any]]] = attrgetter(
    "_identifier._text", "_args", "_kwargs"
)


#: The message of which one that is retained was made.
original_of: Callable[[RetainedMessage], Message] = attrgetter("_message")

#: A message's identifier, parsed.
identifier_of: Callable[[Message], Identifier] = attrgetter("_identifier")


def _shown(arguments: object) -> str:
    try:
        return _arguments.repr(arguments)
    except Exception as error:
        # An int of more than 4,300 digits has no repr, for example; a log line must not fail.
        return f"<no repr: {type(error).__name__}>"
