"""Which messages each user may send to a node, and get from it."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from ..bus import Message
from ..bus.registrations import Guard
from ..identifier import WILDCARD, Identifier

__all__ = ["Allow", "Grants", "Policy", "checked_allow", "guard_of"]

#: What a user may send or get, by names: identifiers, with wildcards. ``"*"`` is everyone else.
Allow: TypeAlias = Mapping[str, Iterable[str | Identifier]]

#: The name of all who are not named.
EVERYONE_ELSE = "*"

#: Identifiers whose answers are remembered. Peers choose them: when there are more, it begins anew.
MAX_REMEMBERED = 1000


class Grants:
    """Identifiers that a user may send, or get. Immutable; equal if the identifiers are."""

    __slots__ = ("_identifiers", "_remembered")

    def __init__(self, identifiers: Iterable[Identifier] = ()) -> None:
        self._identifiers = frozenset(identifiers)
        self._remembered: dict[str, bool] = {}

    def covers(self, asked: "Identifier | Message") -> bool:
        """Whether all that a message with this identifier may be is granted. From any thread.

        A wildcard in the identifier reaches the followers of whatever it matches, so it needs a
        wildcard in the grant; to match one of them is not enough.
        """
        return any(_covers(granted, asked) for granted in self._identifiers)

    def covers_text(self, text: str) -> bool:
        """The same for an identifier as it came from a peer; what is not one is not covered."""
        known = self._remembered.get(text)
        if known is None:
            try:
                known = self.covers(Identifier(text))
            except ValueError:
                # It may be of any length, so it is not kept.
                return False
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered = {}
            self._remembered[text] = known
        return known

    def admits(self, message: Message) -> bool:
        """Whether a message of the bus may leave."""
        return not message.name.startswith("_") and self.covers(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grants) and self._identifiers == other._identifiers

    def __hash__(self) -> int:
        return hash(self._identifiers)

    def __repr__(self) -> str:
        return f"<Grants {', '.join(sorted(map(str, self._identifiers))) or 'of nothing'}>"


def _covers(granted: Identifier, asked: Identifier | Message) -> bool:
    # A namespace of "*" stands for none as well.
    return (
        granted.name in (WILDCARD, asked.name)
        and granted.action in (WILDCARD, asked.action)
        and granted.namespace in (WILDCARD, asked.namespace)
    )


def guard_of(grants: Grants | None) -> Guard:
    """The guard of a queue or a subscription: local messages stay, whatever wildcards it has.

    Args:
        grants: what its user may get; ``None`` for everything.
    """
    return _is_exportable if grants is None else grants.admits


def _is_exportable(message: Message) -> bool:
    return not message.name.startswith("_")


_NOTHING = Grants()


class Policy:
    """What each user may send and get.

    A user is named by the name that goes with its key, token or certificate, or by its public key
    where that has no name.

    Args:
        allow_send, allow_receive: as `Node` takes them; ``None`` allows everybody everything.

    Raises:
        TypeError, ValueError: one of them is invalid.
    """

    def __init__(self, allow_send: Allow | None = None, allow_receive: Allow | None = None) -> None:
        self._send = checked_allow(allow_send, "allow_send")
        self._receive = checked_allow(allow_receive, "allow_receive")

    def sending(self, user: str | None) -> Grants | None:
        """What a user may send; ``None`` for everything.

        Args:
            user: its name, else its public key; ``None`` for one that has neither.
        """
        return _grants_of(self._send, user)

    def receiving(self, user: str | None) -> Grants | None:
        """What a user may get, in the same way."""
        return _grants_of(self._receive, user)


def _grants_of(allowed: Mapping[str, Grants] | None, user: str | None) -> Grants | None:
    if allowed is None:
        return None
    named = allowed.get(EVERYONE_ELSE if user is None else user)
    return allowed.get(EVERYONE_ELSE, _NOTHING) if named is None else named


def checked_allow(value: object, name: str) -> dict[str, Grants] | None:
    """Return what each user is granted, or ``None``.

    Raises:
        TypeError: it is not a mapping of names to identifiers.
        ValueError: one of them is not an identifier, or is local.
    """
    if value is None:
        return None
    problem = f"{name} must be a mapping of users' names to lists of identifiers"
    if not isinstance(value, Mapping):
        raise TypeError(f"{problem}, not {type(value).__name__}")
    allowed: dict[str, Grants] = {}
    for user, identifiers in value.items():
        if not isinstance(user, str) or isinstance(identifiers, str | Identifier):
            raise TypeError(problem)
        if not isinstance(identifiers, Iterable):
            raise TypeError(problem)
        allowed[user] = Grants(Identifier(each).require_exportable() for each in identifiers)
    return allowed
