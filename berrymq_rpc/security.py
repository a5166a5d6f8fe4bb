"""Who may come in: one value that is handed whole to every place that opens or dials a socket."""

from dataclasses import dataclass

__all__ = ["Security"]


@dataclass(frozen=True, slots=True)
class Security:
    """Decides who may connect to a socket, and how this side proves who it is.

    It says nothing yet: a server, a client or a node carries it in its options, and each transport
    gets it in its `PortOptions`. Without one, a port that other hosts reach needs
    ``insecure=True``.
    """
