"""A carrier: what carries a link's messages to the peer while a connection exists."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from ..jsonrpc.error_objects import writable
from ..jsonrpc.http import HTTPClient
from ..rpc import Call, Client, Peer
from ..rpc.proxy import Namespace

__all__ = ["Carrier"]

T = TypeVar("T")


class Carrier(NamedTuple):
    """A way to the peer, for as long as it exists.

    Args:
        token: what the peer knows the connection by.
        call: calls one of the peer's methods by name.
        notify: the same, without an answer.
        takes_batches: whether the peer is a node that numbers messages; any other gets them one by
            one.
        keeps_order: whether calls arrive in the order in which they are made. Where they do not, a
            batch leaves when the one before has been answered.
    """

    token: str
    call: Callable[..., Call]
    notify: Callable[..., object]
    takes_batches: bool
    keeps_order: bool = True

    @classmethod
    def to_peer(cls, peer: Peer, token: str, takes_batches: bool) -> "Carrier":
        """A carrier over this connection alone, so that the order is kept."""
        notify = _by_name(peer.notify)
        if takes_batches and not peer.takes_bytes:
            return cls(token, _in_text(peer.call), _in_text(notify), True)
        return cls(token, peer.call, notify, takes_batches)

    @classmethod
    def to_url(cls, client: HTTPClient, token: str) -> "Carrier":
        """A carrier to a node over HTTP, whose calls may overtake each other."""
        call: Callable[..., Any] = _in_text(client.call)
        return cls(token, call, call, True, keeps_order=False)

    @classmethod
    def to_http(cls, client: HTTPClient, token: str, notify: Callable[..., object]) -> "Carrier":
        """A carrier to a peer over HTTP that is not a node: `notify` sends each message."""
        # Only batches need `call`, and such a peer gets none.
        call: Callable[..., Any] = client.call
        return cls(token, call, notify, False)

    @classmethod
    def to_server(cls, client: Client, token: str) -> "Carrier":
        """A carrier to a server that takes messages one by one, over any of its connections."""
        return cls(token, client.call, _by_name(client.notify), False)


def _in_text(call: Callable[..., T]) -> Callable[..., T]:
    """Make a function that sends batches by `call` to a peer that does not take bytes."""

    def send(
        name: str,
        token: str,
        envelope: Any = None,
        data: bytes = b"",
        frames: Sequence[bytes] = (),
    ) -> T:
        if envelope is None:
            return call(name, token)
        if "error" in envelope:
            type_name, args, text = envelope["error"]
            envelope = envelope | {"error": (type_name, list(map(writable, args)), text)}
        return call(name, token, envelope, _text(data), list(map(_text, frames)))

    return send


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _by_name(notify: Namespace[None]) -> Callable[..., object]:
    def send(name: str, *args: Any) -> None:
        getattr(notify, name)(*args)

    return send
