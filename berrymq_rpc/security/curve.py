"""CURVE: keys on both sides, and everything between them encrypted."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..endpoint import Address, endpoint_of
from .authorization import Authorization, Authorized, authorization_of
from .base import Security
from .key_pair import KeyPair, public_key

__all__ = ["CurveClient", "CurveServer", "PublicKey"]

#: A pair of keys, or the path of its secret file.
Keys: TypeAlias = KeyPair | str | os.PathLike[str]
#: A public key, as text or as the path of a file that holds it.
PublicKey: TypeAlias = str | os.PathLike[str]


class CurveClient(Security):
    """Connects to servers that have a key, and proves who this side is.

    Args:
        keys: the pair of this side, or the path of its secret file; ``None`` makes one for once,
            for servers that let in everybody.
        server: the server's public key, or the path of the file that holds it: no other server
            is talked to.

    Raises:
        OSError: a file cannot be read.
        TypeError, ValueError: one of them is not a key.
    """

    __slots__ = ("keys", "server")

    def __init__(self, keys: Keys | None = None, *, server: PublicKey) -> None:
        self.keys = KeyPair.generate() if keys is None else _pair(keys)
        self.server = public_key(server)

    def __repr__(self) -> str:
        return f"<CurveClient {self.keys.public} to {self.server}>"


class CurveServer(Security):
    """Lets in those whose key is authorized.

    Args:
        keys: the pair of this side, or the path of its secret file; or several, one for each
            endpoint that is bound, while a new key replaces an old one.
        authorized: a folder of ``NAME.key`` files, which is watched (one that is missing
            authorizes no key); public keys; or a function of the public key, sync or async, that
            answers whether the client may connect, or the name of its user. A function that raises,
            or does not answer within half a second, refuses that client alone.
        servers: the public keys of servers that a node connects to, by their addresses.

    Raises:
        OSError: a file cannot be read.
        TypeError, ValueError: an argument is invalid.
    """

    __slots__ = ("authorization", "keys", "servers")

    def __init__(
        self,
        keys: Keys | Sequence[Keys],
        authorized: Authorized | Authorization,
        servers: Mapping[Address, PublicKey] | None = None,
    ) -> None:
        several = keys if isinstance(keys, list | tuple) else (keys,)
        self.keys = tuple(_pair(pair) for pair in several)
        if not self.keys:
            raise ValueError("keys: give a KeyPair or the path of its file")
        self.authorization = authorization_of(authorized)
        self.servers: dict[Address, str] = {
            endpoint_of(address): public_key(server) for address, server in (servers or {}).items()
        }

    def revoke(self, key: PublicKey) -> None:
        """Refuse a key from now on, and cut its connections, for as long as this process runs."""
        self.authorization.revoke(public_key(key))

    def for_endpoint(self, index: int) -> "CurveServer":
        """The same with the one key that belongs to an endpoint, by its place among those bound."""
        if len(self.keys) == 1:
            return self
        return CurveServer(self.keys[index], self.authorization, dict(self.servers))

    def client(self, server: PublicKey) -> CurveClient:
        """What connects to a server with the key of this side."""
        return CurveClient(self.keys[0], server=server)

    def __repr__(self) -> str:
        keys = ", ".join(pair.public for pair in self.keys)
        return f"<CurveServer {keys}, authorized: {self.authorization!r}>"


def _pair(keys: object) -> KeyPair:
    if isinstance(keys, KeyPair):
        return keys
    if isinstance(keys, str | os.PathLike):
        return KeyPair.load(keys)
    raise TypeError(f"keys: a KeyPair or the path of its secret file, not {keys!r}")
