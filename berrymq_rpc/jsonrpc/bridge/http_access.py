"""Who may use an HTTP listener, decided by the head of a request alone.

A browser lets any page send requests to any address, this host's own included. ``Origin`` shows
requests of other sites' pages, ``Host`` those of a page whose site's name was pointed here, and the
content type those that a form or script may send without permission.
"""

import hmac
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Access", "Refusal", "is_json"]

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))

#: What clients send; a page of another site needs permission for each of them.
_JSON = frozenset(("application/json", "application/json-rpc", "application/jsonrequest"))

#: What berryMQ 0.3 sends, as its client is that of XML-RPC; a page needs permission for it as well.
_XML = "text/xml"

#: The subprotocol of a WebSocket that carries the token: a browser can set no other header.
BEARER_PROTOCOL = "bearer."


class Refusal(NamedTuple):
    """Why a request is not served.

    Args:
        status: the HTTP status.
        reason: one sentence.
    """

    status: int
    reason: str


def is_json(content_type: str, *, or_xml: bool = False) -> bool:
    """Whether a request's body says that it is JSON in UTF-8."""
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind not in _JSON and not (or_xml and kind == _XML):
        return False
    for parameter in rest.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() in ("utf-8", "utf8", "us-ascii")
    return True


def _host_of(authority: str) -> str:
    """The host of ``host:port``, an IPv6 address in its brackets."""
    if authority.startswith("["):
        return authority.partition("]")[0].lower() + "]"
    return authority.partition(":")[0].lower()


class Access:
    """The rules of one listener.

    Args:
        host: what it is bound to; a name or address that clients may use.
        hosts: further names that they may use, without ports; ``"*"`` for any.
        origins: pages that may use it beside those that it has served itself, such as
            ``"http://localhost:3000"``; ``"*"`` for any, ``"null"`` for pages from files.
        token: what a client has to send, or ``None``.
    """

    def __init__(
        self,
        host: str,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        if token is not None and not token:
            raise ValueError("the token must not be empty")
        for name, value in (("hosts", hosts), ("origins", origins)):
            if isinstance(value, str):
                raise TypeError(f"{name} is a list of strings, not one string")
        named = {name.lower() for name in hosts}
        bound = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self._hosts = _LOCAL_NAMES | {bound.lower()} | named
        self._any_host = "*" in named
        # Whole headers that were accepted: each client always sends the same one.
        self._known_hosts: set[str] = set()
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._token = None if token is None else token.encode("utf-8")

    def refusal(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request with these headers is refused, or ``None``."""
        authority = headers.get("Host", "")
        if authority not in self._known_hosts:
            if not self._any_host and _host_of(authority) not in self._hosts:
                return Refusal(403, f"the host {authority[:100]!r} is not one of this server's")
            if len(self._known_hosts) < 100:
                self._known_hosts.add(authority)
        origin = headers.get("Origin")
        if origin is not None and not self._allows_origin(origin, authority):
            return Refusal(403, f"pages of {origin[:100]!r} may not use this server")
        if self._token is not None and not self._shows_token(headers):
            return Refusal(401, "the token is missing or wrong")
        return None

    def _allows_origin(self, origin: str, authority: str) -> bool:
        origin = origin.lower()
        if origin in self._origins or "*" in self._origins:
            return True
        # A page that was loaded from this listener's address.
        scheme, _, where = origin.partition("://")
        return scheme in ("http", "https") and where == authority.lower()

    def _shows_token(self, headers: Mapping[str, str]) -> bool:
        assert self._token is not None
        shown = []
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown.append(token.strip())
        for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
            protocol = protocol.strip()
            if protocol.startswith(BEARER_PROTOCOL):
                shown.append(protocol[len(BEARER_PROTOCOL) :])
        return any(
            hmac.compare_digest(each.encode("utf-8", "surrogateescape"), self._token)
            for each in shown
        )
