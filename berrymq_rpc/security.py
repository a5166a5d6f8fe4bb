"""Who may connect: one value, passed whole to every place that opens or dials a socket."""

from dataclasses import dataclass

__all__ = ["Security", "checked_security"]


@dataclass(frozen=True, slots=True)
class Security:
    """Decides who may connect to a socket, and how this side proves who it is.

    It has no fields yet. Servers, clients, nodes and bridges carry it in their options, and each
    transport gets it in its `PortOptions`. A port that other hosts reach needs ``insecure=True``.
    """


def checked_security(value: object) -> Security | None:
    """Return a `Security`, or ``None`` for none.

    Raises:
        TypeError: it is neither.
    """
    if value is not None and not isinstance(value, Security):
        raise TypeError(f"security must be a Security or None, not {type(value).__name__}")
    return value
