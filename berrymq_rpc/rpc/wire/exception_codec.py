"""Exceptions between processes: what travels of one, and how it is raised at the other side.

The class travels as its name, and is never imported by it: the receiving side has a table of its
own. The arguments are the exception's ``args``. Python's own exceptions travel with the arguments
of their constructor instead, where these are more: an `OSError` keeps its file names apart.
"""

import builtins
import sys
import traceback as traceback_module
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ... import errors
from ...errors import GenericError
from .safe_repr import MAX_TEXT, bounded, full_name, safe_repr, safe_str

__all__ = [
    "Failure",
    "describe",
    "from_aiozmq_name",
    "is_own",
    "restore",
    "to_aiozmq",
    "to_aiozmq_name",
]

#: Bytes of the packed arguments of a failure, and of one in a group. An error has to fit into any
#: message, so larger ones are replaced by their text.
MAX_ARGUMENTS = 64 << 10
MAX_GROUPED_ARGUMENTS = 8 << 10

#: Characters of a traceback's text, and entries of one: the last ones, where the error is.
MAX_TRACEBACK = 16 << 10
MAX_TRACEBACK_ENTRIES = 64

#: Exceptions that travel of a group, in all, and groups inside one another.
MAX_GROUPED = 32
MAX_GROUP_LEVELS = 8

NOTE_HEADER = "Remote traceback:"

#: Bytes of the name of a class.
_MAX_NAME = 500

# Where asyncio has its exceptions. This layer does not import it; a process that did has them.
_ASYNCIO_MODULES = ("asyncio", "asyncio.exceptions", "asyncio.queues")

# Raised by an awaitable, they would mean that it has ended.
_NEVER = (StopIteration, StopAsyncIteration)

_get_args = BaseException.args.__get__  # type: ignore[attr-defined]
_set_args = BaseException.args.__set__  # type: ignore[attr-defined]
_get_message = BaseExceptionGroup.message.__get__
_get_members = BaseExceptionGroup.exceptions.__get__


class Failure(NamedTuple):
    """What travels of an exception.

    Args:
        type_name: ``"module.qualname"`` of its class.
        args: the arguments of its class; of a group the message and a tuple of
            failures, each a plain tuple.
        text: its ``repr``, of at most 4 KB.
        traceback: its traceback's text, or ``None``.
    """

    type_name: str
    args: tuple[Any, ...]
    text: str
    traceback: str | None = None


class Packer(Protocol):
    """The part of a codec that is needed here."""

    def pack(self, value: Any, name: str = ..., /) -> bytes: ...


def _exceptions(items: Iterable[object]) -> dict[str, type[Exception]]:
    return {
        full_name(item): item
        for item in items
        if isinstance(item, type) and issubclass(item, Exception) and not issubclass(item, _NEVER)
    }


_BUILTIN = _exceptions(vars(builtins).values())
_OWN = frozenset(getattr(errors, name) for name in errors.__all__)
_KNOWN = {**_BUILTIN, **_exceptions(_OWN)}

# These are about this side's own timeouts, connections and peers, and not about those of calls that
# a remote handler makes itself.
_KNOWN[full_name(errors.RPCTimeoutError)] = TimeoutError
_KNOWN[full_name(errors.ConnectionLostError)] = ConnectionError
_KNOWN[full_name(errors.AuthenticationError)] = ConnectionError
del _KNOWN[full_name(errors.ServiceClosedError)]

_TO_AIOZMQ = {
    full_name(cls): f"aiozmq.rpc.base.{cls.__name__}"
    for cls in (
        errors.Error,
        errors.GenericError,
        errors.NotFoundError,
        errors.ParametersError,
        errors.ServiceClosedError,
    )
}
_FROM_AIOZMQ = {theirs: ours for ours, theirs in _TO_AIOZMQ.items()}


# -- describing ----------------------------------------------------------------------------


def describe(error: BaseException, codec: Packer, *, traceback: bool = False) -> Failure:
    """Make what travels of an exception. It can always be packed.

    An argument that cannot be packed is replaced by its ``repr``, of at most 4 KB; so are all
    arguments when together they are more than 64 KB. At most 32 exceptions and 8 levels of a group
    travel; one more says how many did not.

    Args:
        error: the exception.
        codec: what will pack it.
        traceback: whether its traceback travels too.
    """
    try:
        return _describe(error, codec, MAX_ARGUMENTS, [MAX_GROUPED], 0, traceback)
    except Exception as failure:
        # A metaclass may raise whatever is asked of its class.
        name = full_name(type(error))
        return Failure(name, (), f"<{name} that raises {full_name(type(failure))}>")


def _describe(
    error: BaseException,
    codec: Packer,
    max_arguments: int,
    left: list[int],
    level: int,
    traceback: bool = False,
) -> Failure:
    if issubclass(type(error), BaseExceptionGroup):
        args = _group_args(error, codec, left, level)
    else:
        args = _packable(_constructor_args(error), codec, max_arguments)
    text = _traceback_text(error) if traceback else None
    return Failure(full_name(type(error)), args, safe_repr(error), text)


def _group_args(
    group: BaseException, codec: Packer, left: list[int], level: int
) -> tuple[Any, ...]:
    members = _get_members(group)
    failures = []
    for member in members if level < MAX_GROUP_LEVELS else ():
        if not left[0]:
            break
        left[0] -= 1
        failures.append(_describe(member, codec, MAX_GROUPED_ARGUMENTS, left, level + 1))
    missing = len(members) - len(failures)
    if missing:
        told = f"{missing:,} more did not travel"
        failures.append(Failure("builtins.Exception", (told,), f"Exception({told!r})"))
    return bounded(_get_message(group)), tuple(tuple(failure) for failure in failures)


def is_own(error: BaseException) -> bool:
    """Whether the class is one of this package, and not a user's subclass."""
    return type(error) in _OWN


def _constructor_args(error: BaseException) -> tuple[Any, ...]:
    cls = type(error)
    args: tuple[Any, ...] = _get_args(error)
    if cls in _OWN and error.progress is not None:  # type: ignore[attr-defined]
        # The error is about a call that the handler made itself: the peer gets its text.
        return (str(error),)
    if not _is_constructed_like_builtin(cls):
        return args
    try:
        reduced: Any = cls.__reduce__(error)
        made_by, again, *_ = reduced
    except Exception:
        return args
    return again if made_by is cls and type(again) is tuple else args


def _is_constructed_like_builtin(cls: Any) -> bool:
    name = full_name(cls)
    return (
        name in _BUILTIN
        or name.rpartition(".")[0] in _ASYNCIO_MODULES
        or (cls.__init__ is OSError.__init__ and cls.__new__ is OSError.__new__)
    )


def _packable(args: tuple[Any, ...], codec: Packer, limit: int) -> tuple[Any, ...]:
    if _fits(args, codec, limit):
        return args
    some = tuple(arg if _fits((arg,), codec, limit) else safe_repr(arg) for arg in args)
    if _fits(some, codec, limit):
        return some
    texts = tuple(safe_repr(arg) for arg in args[: limit // MAX_TEXT])
    return texts if len(texts) == len(args) else ()


def _fits(args: tuple[Any, ...], codec: Packer, limit: int) -> bool:
    try:
        return len(codec.pack(args)) <= limit
    except KeyboardInterrupt:
        raise
    except BaseException:
        # Whatever a user's packer raises, the value does not fit.
        return False


def _traceback_text(error: BaseException) -> str:
    try:
        lines = traceback_module.format_exception(error, limit=-MAX_TRACEBACK_ENTRIES)
    except Exception as failure:
        return f"(it cannot be shown: {full_name(type(failure))})"
    text = "".join(lines)
    if len(text) > MAX_TRACEBACK:
        text = "...\n" + text[-MAX_TRACEBACK:]
    return bounded(text, 4 * MAX_TRACEBACK)


# -- restoring -----------------------------------------------------------------------------


def restore(
    failure: Failure, error_table: Mapping[str, type[Exception]] | None = None
) -> Exception:
    """Make the exception to raise for a failure. Never raises, whatever the peer sent.

    It has the same class and the same ``args`` when the class is an `Exception` of Python's, of
    asyncio's or of this package, or in `error_table`. It is a `GenericError` where the class is
    another one, or refuses the arguments, and in place of `StopIteration` and
    `StopAsyncIteration`. Errors about this side's own timeouts, connections and peers are not
    raised for those of a remote handler: it is a `TimeoutError` in place of `RPCTimeoutError`, a
    `ConnectionError` in place of `ConnectionLostError` and `AuthenticationError`, and a
    `GenericError` in place of `ServiceClosedError`.

    Args:
        failure: what arrived.
        error_table: classes by their full names; they come before all others.
    """
    type_name, args, text, traceback = failure
    error = _restore(type_name, args, text, error_table or {}, 0)
    if isinstance(traceback, str):
        try:
            BaseException.add_note(error, f"{NOTE_HEADER}\n{traceback}")
        except Exception:
            # A class that uses its notes for something else gets none.
            return error
    return error


def _restore(
    type_name: Any, args: Any, text: Any, table: Mapping[str, type[Exception]], level: int
) -> Exception:
    name = bounded(type_name, _MAX_NAME) if isinstance(type_name, str) else "?"
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    cls = _find_class(name, table)
    if name in _GROUPS or (cls is not None and issubclass(cls, BaseExceptionGroup)):
        args = _restore_members(args, table, level)
    error = None if cls is None else _construct(cls, args)
    if error is None:
        return GenericError(name, args, safe_str(text) if isinstance(text, str) else "")
    return error


_GROUPS = frozenset(map(full_name, (BaseExceptionGroup, ExceptionGroup)))


def _restore_members(
    args: tuple[Any, ...], table: Mapping[str, type[Exception]], level: int
) -> tuple[Any, ...]:
    if len(args) != 2 or not isinstance(args[1], tuple | list) or level > MAX_GROUP_LEVELS:
        return args
    members = []
    for member in args[1]:
        if not isinstance(member, tuple | list) or len(member) < 3:
            return args
        type_name, inner, text = member[:3]
        members.append(_restore(type_name, inner, text, table, level + 1))
    return args[0], tuple(members)


def _find_class(name: str, table: Mapping[str, type[Exception]]) -> type[Exception] | None:
    cls: object = table.get(name)
    if cls is None:
        cls = _KNOWN.get(name)
    if cls is None:
        module, _, attribute = name.rpartition(".")
        if module in _ASYNCIO_MODULES and module in sys.modules:
            cls = vars(sys.modules[module]).get(attribute)
    if isinstance(cls, type) and issubclass(cls, Exception) and not issubclass(cls, _NEVER):
        return cls
    return None


def _construct(cls: type[Exception], args: Sequence[Any]) -> Exception | None:
    try:
        error = cls(*args)
        if not isinstance(error, cls):
            return None
        if not _is_constructed_like_builtin(cls) and full_name(cls) not in _KNOWN:
            # A constructor may change its arguments, and did so at the peer already.
            _set_args(error, tuple(args))
    except KeyboardInterrupt:
        raise
    except BaseException:
        # The constructor refuses these arguments.
        return None
    return error


# -- the names of aiozmq.rpc ---------------------------------------------------------------


def to_aiozmq_name(type_name: str) -> str:
    """The name by which a plain aiozmq.rpc peer knows a class."""
    module, _, name = type_name.rpartition(".")
    if module in _ASYNCIO_MODULES:
        return f"asyncio.{name}"
    return _TO_AIOZMQ.get(type_name, type_name)


def from_aiozmq_name(type_name: str) -> str:
    """The name that a class has here which a plain aiozmq.rpc peer named."""
    return _FROM_AIOZMQ.get(type_name, type_name)


def to_aiozmq(failure: Failure) -> Failure:
    """Adapt a failure to a plain aiozmq.rpc peer.

    Such a peer calls the class with the arguments, and when that fails, or gives an exception that
    a future refuses, its caller waits forever. So the name of a class of Python or asyncio loses
    its module where the class refuses these arguments, and the peer raises a ``GenericError``.
    """
    name = to_aiozmq_name(failure.type_name)
    if name.startswith(("builtins.", "asyncio.")):
        cls = _find_class(name, {})
        if cls is None or _construct(cls, failure.args) is None:
            name = name.rpartition(".")[2]
    return failure._replace(type_name=name, traceback=None)
