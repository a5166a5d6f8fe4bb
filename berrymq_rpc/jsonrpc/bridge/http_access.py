"""Who may use an HTTP listener, decided by the head of a request alone.

A browser lets any page send requests to any address, this host's own included. ``Origin`` shows
requests of other sites' pages, ``Host`` those of a page whose site's name was pointed here, and the
content type those that a form or script may send without permission. For the pages of ``origins``
that permission is given (CORS): a browser asks for it by ``OPTIONS``, without the token.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .tokens import Tokens

__all__ = [
    "BEARER_PROTOCOL",
    "CHALLENGES",
    "Access",
    "Refusal",
    "is_json",
    "is_utf8",
    "offered_protocols",
]

#: The values of ``WWW-Authenticate``, each in its own field: some clients read no lists.
CHALLENGES = ("Bearer", 'Basic realm="JSON-RPC", charset="UTF-8"')

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))

#: What clients send; a page of another site needs permission for each of them.
_JSON = frozenset(("application/json", "application/json-rpc", "application/jsonrequest"))

#: What berryMQ 0.3 sends, as its client is that of XML-RPC; a page needs permission for it as well.
_XML = "text/xml"

#: Seconds for which a browser may keep the answer to its ``OPTIONS``.
_MAX_AGE = "600"

#: Characters of the names of header fields that a page may ask to send.
_MAX_ASKED = 1000

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
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _JSON and not (or_xml and kind == _XML):
        return False
    return is_utf8(content_type)


def is_utf8(content_type: str) -> bool:
    """Whether a request's body says that it is in UTF-8, or says nothing about it."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() in ("utf-8", "utf8", "us-ascii")
    return True


def offered_protocols(headers: Mapping[str, str]) -> list[str]:
    """The subprotocols that a client offers for its WebSocket."""
    return [each.strip() for each in headers.get("Sec-WebSocket-Protocol", "").split(",")]


def _password(credentials: str) -> list[bytes]:
    """The password of Basic credentials, or nothing if they are malformed."""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (binascii.Error, ValueError):
        return []
    _, colon, password = decoded.partition(b":")
    return [password] if colon else []


def _shown(headers: Mapping[str, str]) -> list[bytes]:
    """The tokens that a request shows."""
    shown: list[bytes] = []
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        shown.append(credentials.strip().encode("utf-8", "surrogateescape"))
    elif scheme.lower() == "basic":
        shown += _password(credentials)
    shown += [
        protocol[len(BEARER_PROTOCOL) :].encode("utf-8", "surrogateescape")
        for protocol in offered_protocols(headers)
        if protocol.startswith(BEARER_PROTOCOL)
    ]
    return shown


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
        origins: pages that may use it besides those that it has served itself, such as
            ``"http://localhost:3000"``; ``"*"`` for any, ``"null"`` for pages from files.
        tokens: one of them a client has to send, if there are any. It does so as ``Authorization:
            Bearer``, as the password of ``Basic`` with any user, or as a WebSocket's subprotocol.
    """

    def __init__(
        self,
        host: str,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        tokens: Tokens | None = None,
    ) -> None:
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
        self._tokens = Tokens(None) if tokens is None else tokens

    def refusal(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request with these headers is refused whoever sends it, or ``None``."""
        authority = headers.get("Host", "")
        if authority not in self._known_hosts:
            if not self._any_host and _host_of(authority) not in self._hosts:
                return Refusal(403, f"the host {authority[:100]!r} is not one of this server's")
            if len(self._known_hosts) < 100:
                self._known_hosts.add(authority)
        origin = headers.get("Origin")
        if origin is not None and not self._allows_origin(origin, authority):
            return Refusal(403, f"pages of {origin[:100]!r} may not use this server")
        return None

    def is_own_page(self, headers: Mapping[str, str]) -> bool:
        """Whether it is a page that sends the request, and not one of ``origins``."""
        origin = headers.get("Origin")
        return origin is not None and not self._names_origin(origin)

    def user(self, headers: Mapping[str, str]) -> Refusal | str | None:
        """The user who sends a request, why it is refused, or ``None`` for one without a name."""
        if not self._tokens:
            return None
        user = self._tokens.user_of(_shown(headers))
        if user is False:
            return Refusal(401, "the token is missing or wrong")
        return user if isinstance(user, str) else None

    def shared(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The header fields by which the page that sent a request may read the response.

        They are for the pages of ``origins`` alone; those of this address need none.
        """
        origin = headers.get("Origin")
        if origin is None or not self._names_origin(origin):
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def preflight(self, method: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The header fields that let a page post; empty if it does not ask, or may not.

        Args:
            method: of the request.
            headers: of the request.
        """
        if method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
            return {}
        fields = self.shared(headers)
        if fields:
            allowed = "Authorization, Content-Type"
            asked = headers.get("Access-Control-Request-Headers")
            if asked and len(asked) <= _MAX_ASKED:
                allowed = f"{allowed}, {asked}"
            fields["Access-Control-Allow-Methods"] = "POST"
            fields["Access-Control-Allow-Headers"] = allowed
            fields["Access-Control-Max-Age"] = _MAX_AGE
            if "Access-Control-Request-Private-Network" in headers:
                # A page from the internet asks for a server of this host or network.
                fields["Access-Control-Allow-Private-Network"] = "true"
        return fields

    def _names_origin(self, origin: str) -> bool:
        return "*" in self._origins or origin.lower() in self._origins

    def _allows_origin(self, origin: str, authority: str) -> bool:
        if self._names_origin(origin):
            return True
        # A page that was loaded from this listener's address.
        scheme, _, where = origin.lower().partition("://")
        return scheme in ("http", "https") and where == authority.lower()
