"""The base of all values that say who may connect."""

__all__ = ["Security", "checked_security"]


class Security:
    """Decides who may connect to a socket, and how this side proves who it is.

    Servers, clients, nodes and bridges carry it in their options, and each transport gets it in its
    `PortOptions`. Without one, a port that other hosts reach needs ``insecure=True``.
    """

    __slots__ = ()


def checked_security(value: object) -> Security | None:
    """Return a `Security`, or ``None`` for none.

    Raises:
        TypeError: it is neither.
    """
    if value is not None and not isinstance(value, Security):
        raise TypeError(
            "security must be None, rpc.CurveServer(...), rpc.CurveClient(...) or another "
            f"Security, not {type(value).__name__}"
        )
    return value
