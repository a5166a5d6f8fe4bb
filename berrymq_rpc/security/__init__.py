"""Who may connect: one value, passed whole to every place that opens or dials a socket."""

from .base import Security, checked_security
from .curve import CurveClient, CurveServer, PublicKey
from .key_pair import KeyPair

__all__ = ["CurveClient", "CurveServer", "KeyPair", "PublicKey", "Security", "checked_security"]
