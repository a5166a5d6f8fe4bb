"""Identifiers: what a message is about, and which messages a receiver follows.

::

    identifier = name [ "@" namespace ] [ ":" action ]

    start:engine          name "start", action "engine"
    start                 the same as start:*
    start@plant:engine    in the namespace "plant"
    *:engine              any name;  * stands for a whole part, never for a piece of one
    *@*:*                 everything, with or without a namespace

No part is empty, contains ``:``, ``@`` or a control character, or begins or ends with a space.
"""

from typing import Any

__all__ = ["MAX_LENGTH", "WILDCARD", "Identifier"]

WILDCARD = "*"

# In characters. Identifiers are written by people; the longest that programs make contain a path or
# two UUIDs. Peers choose them as well, and they are kept as keys and in logs.
MAX_LENGTH = 1_000

# How much of a malformed text an error message repeats.
_SHOWN = 100


class Identifier:
    """What a message is about, or which messages a receiver follows: ``name[@namespace][:action]``.

    Immutable, hashable, and equal to an identifier of the same canonical form.

    Args:
        text: at most `MAX_LENGTH` characters, or an identifier.

    Raises:
        ValueError: the text is not an identifier; the error shows it and says why.
        TypeError: `text` is not text.

    Attributes:
        name: the first part, ``"*"`` for any.
        namespace: the part after ``@``, ``"*"`` for any or none, or `None`.
        action: the part after ``:``, ``"*"`` for any.
    """

    __slots__ = ("_text", "action", "name", "namespace")

    name: str
    namespace: str | None
    action: str
    _text: str

    def __init__(self, text: "str | Identifier") -> None:
        put = super().__setattr__
        if isinstance(text, Identifier):
            name, namespace, action = text.name, text.namespace, text.action
            canonical = text._text
        else:
            name, namespace, action = _split(text)
            canonical = f"{name}:{action}" if namespace is None else f"{name}@{namespace}:{action}"
        put("name", name)
        put("namespace", namespace)
        put("action", action)
        put("_text", canonical)

    @property
    def is_local(self) -> bool:
        """Whether it never leaves the process, because its name begins with ``_``."""
        return self.name.startswith("_")

    def require_exportable(self) -> "Identifier":
        """Refuse an identifier that is local; return it otherwise.

        Raises:
            ValueError: it is local.
        """
        if self.is_local:
            raise ValueError(
                f"{self._text!r} is local: a name that begins with '_' never leaves its process"
            )
        return self

    def id_str(self) -> str:
        """The canonical form: ``str(identifier)``."""
        return self._text

    def is_match(self, other: "Identifier | str") -> bool:
        """Whether a message with one of the identifiers reaches a receiver with the other.

        It does not matter which of the two is the message's. Name, action and namespace must each
        be equal, or ``"*"`` on at least one side. An identifier without a namespace matches only
        those without one and the namespace ``"*"``.

        Raises:
            ValueError, TypeError: `other` is not an identifier.
        """
        if not isinstance(other, Identifier):
            other = Identifier(other)
        return (
            (self.name == other.name or WILDCARD in (self.name, other.name))
            and (self.action == other.action or WILDCARD in (self.action, other.action))
            and (self.namespace == other.namespace or WILDCARD in (self.namespace, other.namespace))
        )

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Identifier({self._text!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Identifier):
            return self._text == other._text
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an identifier is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an identifier is immutable: cannot delete {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Identifier, (self._text,)


def _split(text: str) -> tuple[str, str | None, str]:
    """Split `text` into name, namespace and action."""
    if not isinstance(text, str):
        raise TypeError(
            f"an identifier is text such as 'name:action', not {type(text).__name__}: it is given "
            "before the function"
            if callable(text)
            else f"an identifier is text such as 'name:action', not {type(text).__name__}"
        )
    if len(text) > MAX_LENGTH:
        raise _error(text, f"it has {len(text)} characters, {MAX_LENGTH} at most are allowed")
    head, colon, action = text.partition(":")
    name, at, namespace = head.partition("@")
    _check(text, "name", name)
    if at:
        _check(text, "namespace", namespace)
    if colon:
        _check(text, "action", action)
    return name, namespace if at else None, action if colon else WILDCARD


def _check(text: str, what: str, part: str) -> None:
    # Nearly every part is a wildcard or consists of letters, digits and "_": one call in C.
    if part == WILDCARD or part.isidentifier():
        return
    if not part:
        raise _error(text, f"its {what} is empty")
    if ":" in part or "@" in part:
        raise _error(text, f"its {what} contains another {':' if ':' in part else '@'!r}")
    if WILDCARD in part:
        raise _error(text, f"its {what} contains {WILDCARD!r}, which stands for a whole part")
    if part[0].isspace() or part[-1].isspace():
        raise _error(text, f"its {what} begins or ends with a space")
    if part.isprintable():
        return
    for character in part:
        if character < " " or "\x7f" <= character <= "\x9f":
            raise _error(text, f"its {what} contains the control character {character!r}")
        # Half of a surrogate pair: such text cannot be encoded, and so cannot be sent.
        if "\ud800" <= character <= "\udfff":
            raise _error(text, f"its {what} contains the lone surrogate {character!r}")


def _error(text: str, reason: str) -> ValueError:
    shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
    hint = ". It is an address: that is another argument" if "://" in text else ""
    return ValueError(f"{shown} is not an identifier: {reason}{hint}")
